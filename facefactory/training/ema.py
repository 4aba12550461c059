"""Averaged weights: exponential moving averages whose half-lives are counted in images."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from facefactory.schedule import Points, at

# A half-life that is one number is at most this share of the clock, so that the start is forgotten (Karras et al. 2020, ADA).
RAMP = 0.05


def averaged_copy(model: nn.Module, paths: Sequence[str]) -> nn.Module:
    """A model whose networks at `paths` (`.` = all of it) are copies that need no gradient; the rest is shared."""
    roots = [model.get_submodule("" if path == "." else path) for path in paths]
    copied = {id(part) for root in roots for part in root.modules()}
    shared = {
        id(part): part
        for part in model.modules()
        if id(part) not in copied and _holds_none(part, copied)
    }
    average = copy.deepcopy(model, shared)  # what the memo knows is not copied
    for path in paths:
        average.get_submodule("" if path == "." else path).eval().requires_grad_(False)
    return average


def _holds_none(part: nn.Module, copied: set[int]) -> bool:
    """Whether no network below it is copied."""
    return not any(id(inner) in copied for inner in part.modules())


class Average:
    """The moving average of a model's networks at `paths` with one half-life [thousands of images], or a schedule of it."""

    def __init__(
        self, model: nn.Module, paths: Sequence[str], half_life_kimg: float | Points
    ) -> None:
        self.paths = ["" if path == "." else path for path in paths]
        self.half_life_kimg = half_life_kimg
        self.model = averaged_copy(model, paths)
        pairs = [
            (self.model.get_submodule(path), model.get_submodule(path)) for path in self.paths
        ]
        self._old: list[torch.Tensor] = [
            tensor for kept, _ in pairs for tensor in kept.parameters()
        ]
        self._new = [tensor.detach() for _, now in pairs for tensor in now.parameters()]
        self._old_buffers = [tensor for kept, _ in pairs for tensor in kept.buffers()]
        self._new_buffers = [tensor for _, now in pairs for tensor in now.buffers()]

    @torch.no_grad()
    def update(self, clock: int, batch_size: int) -> None:
        """Move towards the model after `batch_size` images; buffers are copied."""
        half_life = at(self.half_life_kimg, clock / 1000) * 1000
        if not isinstance(self.half_life_kimg, dict):
            half_life = min(half_life, RAMP * clock)
        decay = 0.5 ** (batch_size / max(half_life, 1e-8))
        torch._foreach_lerp_(self._old, self._new, 1 - decay)
        for kept, current in zip(self._old_buffers, self._new_buffers, strict=True):
            kept.copy_(current)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Path of a network -> its averaged state."""
        return {
            path or ".": dict(self.model.get_submodule(path).state_dict()) for path in self.paths
        }

    def load(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Go on from a saved state."""
        for path in self.paths:
            self.model.get_submodule(path).load_state_dict(state[path or "."])
