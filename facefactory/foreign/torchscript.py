"""A TorchScript module that draws: z [N, z_dim] -> images [N, C, H, W], or (z, c) where it takes labels.

Loading TorchScript runs code of whoever wrote the file, as a program does: take files of people you trust only, and fix what
was looked at by its SHA-256. torch.save's pickles are not read.
"""

import warnings

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.foreign import Range, checked


class Component(nn.Module):
    """The module behind the contract of `models.Generative`.

    Args:
        facts: of the set that it is compared with.
        weights: path of the file, as torch.jit.save writes it.
        sha256: its digest, in hex.
        z_dim: length of z, which is standard normal.
        range: of the pixels that it gives.
        conditions: labels of the set, whose vector (facefactory/conditions.py) it takes as a second argument.
        batch: images that it draws at once at most.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        weights: str,
        sha256: str,
        z_dim: int,
        range: Range = "minus_one_to_one",
        conditions: list[str] = [],  # noqa: B006  # an option's default
        batch: int = 64,
    ) -> None:
        super().__init__()
        path = checked(weights, sha256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # newer forms are for newer files
                self.module = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"foreign.weights={path} is no TorchScript file: {reason}") from None
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        self.batch = max(1, batch)
        self.unit = range == "zero_to_one"

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        parts = []
        for some, labels in zip(z.split(self.batch), c.split(self.batch), strict=True):
            parts.append(self.module(some, labels) if self.conditions else self.module(some))
        images = torch.cat(parts)
        return images * 2 - 1 if self.unit else images
