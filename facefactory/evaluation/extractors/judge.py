"""The set's own classifier: features that tell its people and labels apart, at the resolution it was trained at.

It sees what tells its people apart and little else: on ORL it puts blurred faces nearer to real ones than photographs of
people it never met. So its scores stand beside others and are never what a search looks for.
"""

from __future__ import annotations

import torch

from facefactory import UserError
from facefactory.data.sets import pixels
from facefactory.data.sets.transfer import send
from facefactory.evaluation.extractors import Judge, Looked
from facefactory.facts import Size

WEIGHTS = None
NEEDS = ("judge",)
RANKS = False
NAMES: dict[str, str] = {}


class Eye:
    """See `Extractor`."""

    batch = 64
    resize = "none"

    def __init__(self, judge: Judge) -> None:
        self.network = judge.network
        self.weights = judge.digest[:8]

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, D]."""
        like = pixels.like(self.network)
        shown = pixels.to_model(send(images, like.device)).to(like)
        return Looked(self.network.features(shown).float())


def load(size: Size, device: torch.device, judge: Judge | None) -> Eye:
    """The judge; UserError: there is none."""
    if judge is None:
        raise UserError(
            "scores on a judge's features need a judge; give a protocol that makes one."
        )
    return Eye(judge)
