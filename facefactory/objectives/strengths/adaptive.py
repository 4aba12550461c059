"""Adaptive augmentation (Karras et al., "Training generative adversarial networks with limited data", NeurIPS 2020, §3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.objectives.strengths import Strength


class Component(nn.Module, Strength):
    """p rises where r = E[sign D(x)] is above a target, for then D knows its real images too well, and falls below it.

    It starts at 0, and moves every `interval` iterations by the images shown since, over `rise_kimg`.

    Args:
        target: of r: 0 where D cannot tell, 1 where it is always right.
        rise_kimg: thousands of images in which p goes from 0 to 1, if it rises all the time.
        interval: iterations whose images are judged together.
        most: of p.
    """

    probability: Tensor  # [] p
    seen: Tensor  # [2] signs since p moved, and how many, of all ranks
    iterations: Tensor  # [] since p moved
    fresh: Tensor  # [2] signs in this iteration, and how many, of this rank

    def __init__(
        self,
        *,
        target: float = 0.6,
        rise_kimg: float = 500.0,
        interval: int = 4,
        most: float = 1.0,
    ) -> None:
        super().__init__()
        if not -1 < target < 1 or rise_kimg <= 0 or interval < 1 or not 0 <= most <= 1:
            raise UserError(
                f"adaptive: target={target}, rise_kimg={rise_kimg}, interval={interval}, most={most}; the target "
                "is between -1 and 1, rise_kimg above 0, the interval at least 1, most from 0 to 1."
            )
        self.target = target
        self.rise_kimg = rise_kimg
        self.interval = interval
        self.most = most
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("iterations", torch.zeros(()))
        self.register_buffer("fresh", torch.zeros(2), persistent=False)

    def p(self, kimg: float) -> Tensor:
        """p, []."""
        return self.probability.clone()  # it moves before the gradients do

    def see(self, real_logits: Tensor) -> None:
        """Count signs of the logits [b]."""
        signs = real_logits.detach().sign()
        self.fresh += torch.stack([signs, torch.ones_like(signs)]).sum(1)

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Move p when its iterations are over; nothing is read back."""
        self.seen += total(self.fresh)
        self.fresh.zero_()
        self.iterations += 1

        over = self.iterations >= self.interval
        signs, count = self.seen
        direction = (signs / count.clamp(min=1) - self.target).sign()
        step = direction * count / (1000 * self.rise_kimg)
        self.probability += step * over
        self.probability.clamp_(0, self.most)
        self.seen *= ~over
        self.iterations *= ~over
