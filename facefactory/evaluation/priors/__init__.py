"""Priors fitted after training to the codes of a model with an encoder, one a file. This file is torch-free.

A file has

    fit(mu, seed) -> `Prior`     mu: means of the posteriors of training images [N, z_dim]; ValueError: these are too few

What is drawn is a pure function of standard normal numbers, as all draws are.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from facefactory import registry

if TYPE_CHECKING:
    from torch import Tensor


class Prior(Protocol):
    """Where codes of new images come from."""

    width: int  # standard normal numbers that a code is made of
    words: str  # what was fitted

    def codes(self, normal: Tensor) -> Tensor:
        """[n, width] standard normal -> codes [n, z_dim]."""


def files() -> dict[str, ModuleType]:
    """Name -> file."""
    names = registry.names("evaluation.priors")
    return {name: registry.module("evaluation.priors", name) for name in names}
