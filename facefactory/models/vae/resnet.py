"""Residual VAE for images of any height and width: the trunk of He et al. (ECCV 2016) on either side of the code."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._layers import Told, bounded
from facefactory.models._residual import growing, shrinking, sizes, widths


class Component(nn.Module):
    """A residual VAE with a diagonal normal posterior.

    Args:
        facts: size, channels and labels of the images.
        z_dim: latent dimensions.
        width: channels of the largest maps; doubled at each halving of the side, to at most four times.
        levels: how often the side is halved, rounded up.
        blocks: residual blocks a level.
        conditions: labels that encoder and decoder are told.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        width: int = 16,
        levels: int = 3,
        blocks: int = 1,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        told = columns_of(conditions, facts.labels)
        maps = sizes(facts, levels, z_dim=z_dim, width=width, blocks=blocks)
        channels = widths(width, levels)
        flat = channels[-1] * maps[-1][0] * maps[-1][1]

        down = nn.Sequential(shrinking(facts.channels, channels, blocks), nn.Flatten())
        head = nn.Linear(flat + told, 2 * z_dim)
        self.encoder = Told(OrderedDict(down=down, head=head))
        project = nn.Linear(z_dim + told, flat)
        start = nn.Unflatten(1, (channels[-1], *maps[-1]))
        up = growing(facts.channels, channels, maps, blocks)
        self.decoder = nn.Sequential(OrderedDict(project=project, start=start, up=up))

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] in -1…1, [N, columns] -> mu, logvar [N, z_dim]."""
        mu, logvar = self.encoder(images, c).chunk(2, dim=1)
        return mu, bounded(logvar)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.decoder(torch.cat([z, c], 1))

    sample = decode  # of the prior's z
