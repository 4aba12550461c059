"""DRAGAN: a given slope around real images (Kodali et al., "On convergence and stability of GANs", 2017)."""

from typing import Any

from torch import Tensor

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.objectives.terms._slope import slope_at
from facefactory.schedule import Scheduled, at, least


class Component(Term):
    """λ · (‖∇D(x + δ)‖ - k)², δ ~ N(0, noise²) for each pixel.

    Args:
        weight: λ, a number or a schedule in kimg.
        slope: k.
        noise: standard deviation of δ, in units of pixels from -1 to 1.
        interval: applied in every so many iterations, with so many times its weight.
    """

    trains = "discriminator"
    differentiates = ("own",)

    def __init__(
        self,
        *,
        weight: Scheduled = 10.0,
        slope: float = 1.0,
        noise: float = 0.1,
        interval: int = 1,
    ) -> None:
        if min(least(weight), slope, noise) < 0 or interval < 1:
            raise UserError(
                f"dragan: weight={weight}, slope={slope}, noise={noise}, interval={interval}; "
                "the interval is at least 1, the others at least 0."
            )
        self.scale = weight
        self.slope = slope
        self.noise = noise
        self.interval = interval

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        pixels = seen.real[0].numel()
        delta = batch.draws.normal("dragan", pixels).view(seen.real.shape)
        around = seen.real + self.noise * delta
        return (slope_at(around, model, batch, "dragan") - self.slope).square()
