"""The slope of the discriminator at images of a term's own, which gradient penalties hold near a number."""

from typing import Any

import torch
from torch import Tensor

from facefactory.objectives import Batch


def slope_at(images: Tensor, model: Any, batch: Batch, purpose: str) -> Tensor:
    """‖∇D‖ at images [b, C, H, W], through the augmentation that `purpose` draws: [b], differentiable."""
    leaves = images.detach().requires_grad_()
    logits = model.discriminator(batch.augment(leaves, purpose), batch.c)
    (gradient,) = torch.autograd.grad(logits.sum(), leaves, create_graph=True)
    return torch.linalg.vector_norm(gradient, dim=(1, 2, 3))
