"""Real images with the labels of others count as fakes (Reed et al., ICML 2016, §4.2: the matching-aware discriminator)."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.schedule import Scheduled, at, least


class Component(Term):
    """-λ log(1 - σ(D(x, c'))), c' the labels of the image before; 0 where they are the image's own.

    Args:
        weight: λ, a number or a schedule in kimg.
    """

    trains = "discriminator"
    needs = ("conditions",)

    def __init__(self, *, weight: Scheduled = 1.0) -> None:
        if least(weight) < 0:
            raise UserError(f"mismatch: weight={weight}; at least 0 is allowed.")
        self.scale = weight

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        shown = batch.augment(batch.images, "mismatch")
        logits = model.discriminator(shown, batch.wrong)
        differ = (batch.c != batch.wrong).any(1)
        return F.softplus(logits) * differ
