"""R2: the discriminator's gradient at generated images (Mescheder, Geiger & Nowozin, ICML 2018, eq. 10)."""

from typing import Any

import torch
from torch import Tensor

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.schedule import Scheduled, at, least


class Component(Term):
    """γ/2 · ‖∇D(G(z))‖².

    Args:
        gamma: γ, a number or a schedule in kimg.
        interval: applied in every so many iterations, with so many times its weight.
    """

    trains = "discriminator"
    differentiates = ("fake",)

    def __init__(self, *, gamma: Scheduled = 1.0, interval: int = 8) -> None:
        if least(gamma) < 0 or interval < 1:
            raise UserError(
                f"r2: gamma={gamma}, interval={interval}; at least 0 and at least 1 are allowed."
            )
        self.gamma = gamma
        self.interval = interval

    def weight(self, kimg: float) -> float:
        """γ/2."""
        return at(self.gamma, kimg) / 2

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b] squared norms of the gradient."""
        (gradient,) = torch.autograd.grad(seen.fake_logits.sum(), seen.fake, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3))
