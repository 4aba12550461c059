"""LeCam: each kind's logits stay near the average that the other kind had (Tseng et al., CVPR 2021)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.schedule import Scheduled, at, least


class Component(nn.Module, Term):
    """λ · ((D(x) - α_F)² + (D(G(z)) - α_R)²), α_R and α_F moving averages of D(x) and D(G(z)), 0 at the start.

    Args:
        weight: λ, a number or a schedule in kimg.
        decay: what is left of an average after an iteration.
    """

    trains = "discriminator"
    averages: Tensor  # [2] α_R, α_F
    sums: Tensor  # [3] logits of real and of generated images in this iteration, and how many

    def __init__(self, *, weight: Scheduled = 0.1, decay: float = 0.99) -> None:
        super().__init__()
        if least(weight) < 0 or not 0 <= decay < 1:
            raise UserError(
                f"lecam: weight={weight}, decay={decay}; "
                "the weight is at least 0, the decay from 0 to below 1."
            )
        self.scale = weight
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("sums", torch.zeros(3), persistent=False)

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def forward(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        real = seen.real_logits.to(self.sums)
        fake = seen.fake_logits.to(self.sums)
        sums = torch.stack([real.sum(), fake.sum(), torch.ones_like(real).sum()])
        self.sums += sums.detach()
        real_average, fake_average = self.averages.clone()  # they move before the gradients do
        return (real - fake_average).square() + (fake - real_average).square()

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Move the averages by what all ranks saw."""
        real, fake, count = total(self.sums)
        means = torch.stack([real, fake]) / count
        self.averages.lerp_(means, 1 - self.decay)
        self.sums.zero_()
