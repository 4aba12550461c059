"""Convolutional VAE (Kingma & Welling, ICLR 2014): encoder to mu and logvar, decoder to pixel means."""

import torch
from torch import Tensor, nn

from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._layers import Norm, Told, bounded, doubling, halving, norm2d, smallest


class Component(nn.Module):
    """A convolutional VAE with a diagonal normal posterior.

    Args:
        facts: size, channels and labels of the images.
        z_dim: latent dimensions.
        width: channels of the largest maps; doubled at each halving of the side.
        depth: how many times the side is halved.
        kernel: side of the convolutions [pixels].
        norm: normalisation; batch norm mixes the images of a batch.
        conditions: labels that encoder and decoder are told.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 32,
        width: int = 16,
        depth: int = 3,
        kernel: int = 4,
        norm: Norm = "group",
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        told = columns_of(conditions, facts.labels)
        size = smallest(facts, depth, kernel, z_dim=z_dim, width=width)
        top = width * 2 ** (depth - 1)
        flat = top * size[0] * size[1]

        down = halving(facts.channels, width, depth, kernel, norm)
        self.encoder = Told(down, nn.Flatten(), nn.Linear(flat + told, 2 * z_dim))
        grow = [
            nn.Linear(z_dim + told, flat),
            nn.Unflatten(1, (top, *size)),
            norm2d(norm, top),
            nn.ReLU(),
        ]
        self.decoder = nn.Sequential(*grow, doubling(facts, width, depth, kernel, norm))

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] in -1…1, [N, columns] -> mu, logvar [N, z_dim]."""
        mu, logvar = self.encoder(images, c).chunk(2, dim=1)
        return mu, bounded(logvar)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.decoder(torch.cat([z, c], 1))

    sample = decode  # of the prior's z
