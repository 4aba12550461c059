"""Path length: a step in w changes the image by as much, whatever the w and its direction (Karras et al., CVPR 2020, §3.2)."""

import math
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
    """λ · (‖Jᵀy‖ - a)², J the generator's Jacobian at w, y normal noise over √(H W), a a moving average of ‖Jᵀy‖, 0 at the start.

    Args:
        weight: λ, a number or a schedule in kimg.
        decay: what is left of the average each time that the term is applied.
        interval: applied in every so many iterations, with so many times its weight.
    """

    trains = "generator"
    needs = ("to_w",)
    differentiates = ("own",)
    average: Tensor  # [] a
    sums: Tensor  # [2] lengths in this iteration, and how many

    def __init__(self, *, weight: Scheduled = 2.0, decay: float = 0.99, interval: int = 4) -> None:
        super().__init__()
        if least(weight) < 0 or not 0 <= decay < 1 or interval < 1:
            raise UserError(
                f"path_length: weight={weight}, decay={decay}, interval={interval}; "
                "the weight is at least 0, the decay from 0 to below 1, the interval at least 1."
            )
        self.scale = weight
        self.decay = decay
        self.interval = interval
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(2), persistent=False)

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def forward(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b]."""
        z = batch.draws.normal("z_path_length", model.z_dim)
        w = model.generator.mapping(z, batch.c)
        images = model.generator.synthesis(w, batch.draws, "path_length")

        # Jᵀy as the gradient of ⟨G(w), y⟩
        height, width = images.shape[2:]
        y = batch.draws.normal("path_length", images[0].numel()).view(images.shape)
        projected = (images * y).sum() / math.sqrt(height * width)
        (gradient,) = torch.autograd.grad(projected, w, create_graph=True)
        lengths = torch.linalg.vector_norm(gradient, dim=1)

        count = torch.ones_like(lengths)
        self.sums += torch.stack([lengths, count]).sum(1).detach()
        return (lengths - self.average.clone()).square()  # it moves before the gradients do

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Move the average by the lengths on all ranks, if there were any."""
        length, count = total(self.sums)
        step = (1 - self.decay) * (count > 0)
        self.average.lerp_(length / count.clamp(min=1), step)
        self.sums.zero_()
