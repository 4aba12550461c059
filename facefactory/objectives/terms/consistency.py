"""Balanced consistency: a picture and its mirror image are judged alike (bCR: Zhao et al., AAAI 2021, after Zhang et al., ICLR 2020)."""

from typing import Any

from torch import Tensor

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.schedule import Scheduled, at, least


class Component(Term):
    """λ · ((D(x) - D(T(x)))² + (D(G(z)) - D(T(G(z))))²), T a mirror and other draws of the training's augmentations.

    Args:
        weight: λ, a number or a schedule in kimg.
        interval: applied in every so many iterations, with so many times its weight.
    """

    trains = "discriminator"

    def __init__(self, *, weight: Scheduled = 10.0, interval: int = 1) -> None:
        if least(weight) < 0 or interval < 1:
            raise UserError(
                f"consistency: weight={weight}, interval={interval}; "
                "at least 0 and at least 1 are allowed."
            )
        self.scale = weight
        self.interval = interval

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        real = batch.augment(seen.real.flip(3), "consistency_real")
        fake = batch.augment(seen.fake.flip(3), "consistency_fake")
        real_change = model.discriminator(real, batch.c) - seen.real_logits
        fake_change = model.discriminator(fake, batch.c) - seen.fake_logits
        return real_change.square() + fake_change.square()
