"""FaceFactory: face images become shards, shards become models, models become scores and reports."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facefactory.loading import Loaded

__version__ = "0.1.0"


class UserError(ValueError):
    """Something the person at the keyboard can mend; jobs print it as one line and exit with code 2.

    The message says what is wrong, the value, what is allowed and what to do next.
    """


class Missing(UserError):
    """Weights that are not here: exit code 3, and the message says the command that brings them."""


class Failed(RuntimeError):
    """What a job could not do although it was asked rightly; one line and exit code 1. Other errors keep their traceback."""


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def load(run: Any, device: Any = "auto", snapshot: Any = None) -> Loaded:
    """The networks of a run folder, to sample, encode and decode with; `facefactory.loading` has them.

    UserError: there is no such run, or it has not been trained to its end.
    """
    from facefactory import loading  # torch comes with it, and nothing else here needs torch

    return loading.load(run, device, snapshot)
