"""Where trials of a search run and who hands them out: one way a file. This file is free of Ray and Optuna.

An engine file defines `class Component(Engine)`; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import Protocol

from facefactory.search.study import Study
from facefactory.trials import Params


class Engine(Protocol):
    """Runs trials until all are over, or until it is asked to stop."""

    def search(self, study: Study, planned: list[Params], wanted: int, known: list[int]) -> None:
        """Trials until there are `wanted`.

        Args:
            study: what is searched.
            planned: points that come first: those of trials that were begun before, or all where the sampler knows them.
            wanted: trials in all.
            known: numbers of the trials that were begun before, in the order of `planned`; the others have the next free ones.
        """
        ...
