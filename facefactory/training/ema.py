"""Averaged weights: an exponential moving average whose half-life is counted in images."""

import torch
from torch import nn

RAMP = 0.05  # the half-life is at most this share of the clock, so that the start is forgotten (Karras et al. 2020, ADA)


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, clock: int, batch_size: int, half_life_kimg: float) -> None:
    """Move the average towards the model after `batch_size` images; buffers are copied."""
    half_life = min(half_life_kimg * 1000, RAMP * clock)
    decay = 0.5 ** (batch_size / max(half_life, 1e-8))
    old: list[torch.Tensor] = list(average.parameters())
    new: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(old, new, 1 - decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)
