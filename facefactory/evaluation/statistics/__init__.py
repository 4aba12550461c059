"""What is kept of the features of a set: parts that processes made merge into what one process would have made.

A file has `class Component` with the methods of `Statistics`; what its `value` returns is what metrics of that STATISTICS
take. States are plain arrays, so they lie in a file beside the shards. This file is torch-free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from facefactory import registry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from facefactory.evaluation.extractors import Looked

    Ids = npt.NDArray[np.int64]


class Statistics(Protocol):
    """See above."""

    def add(self, looked: Looked, positions: Ids) -> None:
        """Take in what a network made of the images at `positions`, each of which comes once."""

    def merge(self, other: Any) -> None:
        """Take in what another has."""

    def value(self) -> Any:
        """What metrics take."""

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that it holds."""

    def load(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Take in such a state."""


def make(name: str) -> Statistics:
    """Nothing kept yet, by a file's name."""
    made: Statistics = registry.module("evaluation.statistics", name).Component()
    return made
