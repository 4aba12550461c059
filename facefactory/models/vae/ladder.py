"""Hierarchical VAE of two levels: a vector that says what, and below it maps that say where.

p(x, z) = p(x | z₁, z₂) p(z₁ | z₂) p(z₂), with p(z₁ | z₂) a normal whose mean and deviation the decoder
computes. Codes are residual (Vahdat & Kautz, NVAE, NeurIPS 2020, §3.2): what is encoded of z₁ is
ε₁ = (z₁ - mean(z₂)) / deviation(z₂), whose prior is N(0, I) like that of z₂, so every objective of VAEs
trains this one, with the KL of both levels. Beyond NVAE, ε₁ is encoded without a look at the z₂ that was drawn.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._layers import bounded
from facefactory.models._residual import growing, shrinking, sizes, widths

NARROWEST = 3  # |log deviation| of p(z₁ | z₂)


class Component(nn.Module):
    """A VAE whose code [N, z_dim] is `z_top` dimensions of the whole image, then `maps` dimensions a place.

    Args:
        facts: size, channels and labels of the images.
        z_top: dimensions of the upper level.
        maps: dimensions of the lower level at each place of the smallest maps.
        width: channels of the largest maps; doubled at each halving of the side, to at most four times.
        levels: how often the side is halved, rounded up.
        blocks: residual blocks a level.
        conditions: labels that encoder and decoder are told, above.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_top: int = 32,
        maps: int = 2,
        width: int = 16,
        levels: int = 3,
        blocks: int = 1,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        self.conditions = tuple(conditions)
        told = columns_of(conditions, facts.labels)
        shape = sizes(facts, levels, z_top=z_top, maps=maps, width=width, blocks=blocks)
        channels = widths(width, levels)
        top = channels[-1]
        area = shape[-1][0] * shape[-1][1]
        self.z_top = z_top
        self.places = (maps, *shape[-1])
        self.z_dim = z_top + maps * area

        self.encoder = nn.ModuleDict(
            OrderedDict(
                down=shrinking(facts.channels, channels, blocks),
                above=nn.Linear(top * area + told, 2 * z_top),
                below=nn.Conv2d(top, 2 * maps, 1),
            )
        )
        self.decoder = nn.ModuleDict(
            OrderedDict(
                project=nn.Sequential(
                    nn.Linear(z_top + told, top * area), nn.Unflatten(1, (top, *shape[-1]))
                ),
                prior=nn.Sequential(nn.SiLU(), nn.Conv2d(top, 2 * maps, 3, 1, 1)),
                join=nn.Conv2d(maps, top, 1),
                up=growing(facts.channels, channels, shape, blocks),
            )
        )

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] in -1…1, [N, columns] -> mu, logvar [N, z_dim]: of z₂, then of ε₁."""
        seen = self.encoder["down"](images)
        above = self.encoder["above"](torch.cat([seen.flatten(1), c], 1)).chunk(2, dim=1)
        below = self.encoder["below"](seen).chunk(2, dim=1)
        mu = torch.cat([above[0], below[0].flatten(1)], 1)
        logvar = torch.cat([above[1], below[1].flatten(1)], 1)
        return mu, bounded(logvar)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        above = torch.cat([z[:, : self.z_top], c], 1)
        residual = z[:, self.z_top :].view(-1, *self.places)
        start = self.decoder["project"](above)
        mean, log_deviation = self.decoder["prior"](start).chunk(2, dim=1)
        below = mean + log_deviation.clamp(-NARROWEST, NARROWEST).exp() * residual
        return self.decoder["up"](start + self.decoder["join"](below))

    sample = decode  # of the prior's z
