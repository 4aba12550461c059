"""A small DCGAN whose discriminator is told the attributes at its input, at its last layer, or at both.

Conditions as in Mirza & Osindero, "Conditional generative adversarial nets", 2014; layers as in Radford et al., ICLR 2016.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._layers import (
    Joined,
    Norm,
    doubling,
    halving,
    init_normal,
    norm2d,
    smallest,
)

Place = Literal["head", "input", "both"]


class Discriminator(nn.Module):
    """Strided convolutions and one linear layer: (images [N, C, H, W], c [N, columns]) -> logits [N]."""

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        area: int,
        columns: int,
        place: Place,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.place = place
        at_input = columns if place != "head" else 0
        at_head = columns if place != "input" else 0
        self.down = halving(channels + at_input, width, depth, 4, norm)
        self.head = nn.Linear(width * 2 ** (depth - 1) * area + at_head, 1)

    def forward(
        self, images: Tensor, c: Tensor, shows: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [N]; and, if it shows them, features [N, D]."""
        if self.place != "head":
            maps = c[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, maps], 1)
        features = self.down(images).flatten(1)
        told = features if self.place == "input" else torch.cat([features, c], 1)
        logits = self.head(told).flatten(0)
        return (logits, features) if shows else logits


class Component(nn.Module):
    """Generator (z [N, z_dim], c) -> images [N, C, H, W] in -1…1, discriminator (images, c) -> logits [N].

    Attributes at the one linear layer of the discriminator alone (`head`) are added to the logit: it then tells how
    likely attributes are, and not whether they are those of this image, if no term `auxiliary` or `mismatch` does.

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z.
        width: channels of the largest maps of both; doubled at each halving of the side.
        depth: how many times the side is doubled (generator) and halved (discriminator).
        conditions: labels that the generator sees beside z, and the discriminator at its `attributes`; [] = none.
        attributes: where the discriminator sees them: head, input (as channels), both.
        g_norm, d_norm: normalisation; batch norm mixes the images of a batch.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 100,
        width: int = 64,
        depth: int = 3,
        conditions: list[str] = [],  # noqa: B006
        attributes: Place = "both",
        g_norm: Norm = "batch",
        d_norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        columns = columns_of(conditions, facts.labels)
        size = smallest(facts, depth, z_dim=z_dim, width=width)
        area = size[0] * size[1]
        top = width * 2 ** (depth - 1)

        project = nn.Linear(z_dim + columns, top * area)
        maps = nn.Unflatten(1, (top, *size))
        start = nn.Sequential(norm2d(g_norm, top), nn.ReLU())
        up = doubling(facts, width, depth, 4, g_norm)
        self.generator = Joined(OrderedDict(project=project, maps=maps, start=start, up=up))
        self.discriminator = Discriminator(
            facts.channels, width, depth, area, columns, attributes, d_norm
        )
        # features of images beside which attributes stood tell nothing of the images
        self.feature_dim = top * area if attributes == "head" else ()
        init_normal(self.generator)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c)
