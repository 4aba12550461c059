"""DCGAN (Radford, Metz & Chintala, ICLR 2016): strided convolutions up from z and down to a logit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from facefactory.models import Facts
from facefactory.models.layers import check_kernel, check_sizes, doubling, halving, init_normal, norm2d, stages


class Generator(nn.Module):
    """z [N, z_dim] -> images [N, C, H, W] in -1…1."""

    def __init__(self, facts: Facts, z_dim: int, width: int, depth: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.side = stages(facts.resolution, depth)
        self.top = width * 2 ** (depth - 1)
        self.project = nn.Linear(z_dim, self.top * self.side**2)
        self.start = nn.Sequential(norm2d(norm, self.top), nn.ReLU())
        self.up = doubling(facts.channels, width, depth, kernel, norm)

    def forward(self, z: Tensor) -> Tensor:
        start = self.project(z).view(-1, self.top, self.side, self.side)
        images: Tensor = self.up(self.start(start))
        return images


class Discriminator(nn.Module):
    """Images [N, C, H, W] in -1…1 -> logits [N]."""

    def __init__(self, facts: Facts, width: int, depth: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.down = halving(facts.channels, width, depth, kernel, norm)
        self.head = nn.Linear(width * 2 ** (depth - 1) * stages(facts.resolution, depth) ** 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.down(images).flatten(1)).squeeze(1)
        return logits


class Component(nn.Module):
    """A DCGAN.

    Args:
        facts: side and channels of the images.
        z_dim: length of z.
        width: channels of the largest maps of the generator; doubled at each halving of the side.
        d_width: the same for the discriminator; 0 = width.
        depth: how many times the side is doubled (generator) and halved (discriminator).
        kernel: side of the convolutions [pixels].
        g_norm, d_norm: normalisation; batch norm mixes the images of a batch.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        width: int = 16,
        d_width: int = 0,
        depth: int = 3,
        kernel: int = 4,
        g_norm: Literal["batch", "group", "none"] = "batch",
        d_norm: Literal["batch", "group", "none"] = "none",
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        check_sizes(z_dim=z_dim, width=width, d_width=d_width or width)
        self.z_dim = z_dim
        self.generator = Generator(facts, z_dim, width, depth, kernel, g_norm)
        self.discriminator = Discriminator(facts, d_width or width, depth, kernel, d_norm)
        init_normal(self.generator)  # without norms N(0, 0.02²) would leave the discriminator almost silent at first

    def sample(self, z: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        images: Tensor = self.generator(z)
        return images
