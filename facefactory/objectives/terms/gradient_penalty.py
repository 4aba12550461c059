"""WGAN-GP: slope 1 between real and generated images (Gulrajani et al., NeurIPS 2017, eq. 3)."""

from typing import Any

from torch import Tensor

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.objectives.terms._slope import slope_at
from facefactory.schedule import Scheduled, at, least


class Component(Term):
    """λ · (‖∇D(x̂)‖ - 1)², x̂ = ε x + (1 - ε) G(z), ε uniform in 0…1 for each image.

    Args:
        weight: λ, a number or a schedule in kimg.
        interval: applied in every so many iterations, with so many times its weight.
    """

    trains = "discriminator"
    differentiates = ("own",)

    def __init__(self, *, weight: Scheduled = 10.0, interval: int = 1) -> None:
        if least(weight) < 0 or interval < 1:
            raise UserError(
                f"gradient_penalty: weight={weight}, interval={interval}; "
                "at least 0 and at least 1 are allowed."
            )
        self.scale = weight
        self.interval = interval

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        share = batch.draws.uniform("gradient_penalty", 1).view(-1, 1, 1, 1)
        between = share * seen.real + (1 - share) * seen.fake
        return (slope_at(between, model, batch, "gradient_penalty") - 1).square()
