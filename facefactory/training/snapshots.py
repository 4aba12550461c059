"""Which snapshot of a training is best: scored at multiples of the clock, the best one's weights kept.

Training knows no score: whoever starts one may hand it a `Scorer`. What was scored, and the averaged
weights of the best, are part of every checkpoint, so that a kill at any moment, or a set-back, leaves
the same choice. The best of many noisy scores flatters itself: score it again before you tell it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facefactory import say


@dataclass(frozen=True)
class Scorer:
    """How snapshots are scored: by their weights alone."""

    name: str  # of the score, e.g. kd_lite0
    better: Literal["lower", "higher"]
    rule: (
        str  # a digest of all that the score depends on; scores of unlike rules are never compared
    )
    score: Callable[[nn.Module], float]


class Snapshots:
    """What a training's snapshots scored, and the best of them."""

    def __init__(self, scorer: Scorer | None, every_kimg: float) -> None:
        self.scorer = scorer
        self.every = round(every_kimg * 1000) if scorer else 0
        self.scored: list[tuple[int, float]] = []  # clock [images] and score of each
        self.best: dict[str, Any] = {}  # clock, averaged networks, state of the objective

    @property
    def name(self) -> str:
        """Of the score."""
        return self.scorer.name if self.scorer else ""

    def due(self, clock: int, batch_size: int) -> bool:
        """Whether a multiple was passed with the iteration before a clock, and nothing was scored there yet."""
        if not self.every or not clock:
            return False
        passed = clock // self.every != (clock - batch_size) // self.every
        return passed and (not self.scored or self.scored[-1][0] < clock)

    def take(self, clock: int, average: Any, own: dict[str, Tensor]) -> str:
        """Score a training's average (`ema.Average`) and keep it if it is the best so far; what to say of it."""
        assert self.scorer is not None
        score = self.scorer.score(average.model)
        best = self._beats(score)
        self.scored.append((clock, score))
        if best:
            self.best = {
                "clock": clock,
                "average": {path: _copied(state) for path, state in average.state().items()},
                "own": _copied(own),
            }
        words = f"snapshot at {clock / 1000:g} kimg: {self.name} {score:.4g}"
        return f"{words}, the best so far" if best else words

    def _beats(self, score: float) -> bool:
        """Whether a score is better than all before; of equal ones the first stays."""
        if not self.best:
            return math.isfinite(score)
        before = dict(self.scored)[self.best["clock"]]
        higher = self.scorer is not None and self.scorer.better == "higher"
        return score > before if higher else score < before

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it; empty where nothing was scored."""
        if self.scorer is None or not self.scored:
            return {}
        return {"rule": self.scorer.rule, "scored": self.scored, "best": self.best}

    def load(self, state: dict[str, Any], label: str) -> None:
        """Go on from a saved state; scores by another rule are left behind, and that is said."""
        if self.scorer is None or not state:
            return
        if state["rule"] != self.scorer.rule:
            say(
                f"{label}: snapshots are scored by another rule from here on, those before do not count"
            )
            return
        self.scored = list(state["scored"])
        self.best = state["best"]


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that no training moves any more."""
    return {name: torch.clone(tensor.detach()).cpu() for name, tensor in state.items()}
