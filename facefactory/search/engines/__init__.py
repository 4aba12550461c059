"""Where trials of a search run and who hands them out: one way a file. This file is free of Ray and Optuna.

An engine file defines `class Component(Engine)`; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from facefactory.search.study import Study

if TYPE_CHECKING:
    from facefactory.search.proposals import Proposals


class Engine(Protocol):
    """Runs trials until all are over, or until it is asked to stop."""

    own_jobs: bool = False  # whether trials are jobs of their own on Slurm

    def search(self, study: Study, proposals: Proposals, wanted: int) -> None:
        """Trials until `wanted` have been started anew or taken up, or there are no more points."""
        ...
