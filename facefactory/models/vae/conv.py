"""Convolutional VAE (Kingma & Welling, ICLR 2014): encoder to mu and logvar, decoder to pixel means."""

from torch import Tensor, nn

from facefactory.facts import Facts
from facefactory.models._layers import Norm, doubling, halving, norm2d, smallest


class Component(nn.Module):
    """A convolutional VAE with a diagonal normal posterior.

    Args:
        facts: size and channels of the images.
        z_dim: latent dimensions.
        width: channels of the largest maps; doubled at each halving of the side.
        depth: how many times the side is halved.
        kernel: side of the convolutions [pixels].
        norm: normalisation; batch norm mixes the images of a batch.
    """

    conditions: tuple[str, ...] = ()

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 32,
        width: int = 16,
        depth: int = 3,
        kernel: int = 4,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        size = smallest(facts, depth, kernel, z_dim=z_dim, width=width)
        top = width * 2 ** (depth - 1)
        flat = top * size[0] * size[1]

        down = halving(facts.channels, width, depth, kernel, norm)
        self.encoder = nn.Sequential(down, nn.Flatten(), nn.Linear(flat, 2 * z_dim))
        grow = [
            nn.Linear(z_dim, flat),
            nn.Unflatten(1, (top, *size)),
            norm2d(norm, top),
            nn.ReLU(),
        ]
        self.decoder = nn.Sequential(*grow, doubling(facts, width, depth, kernel, norm))

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] in -1…1 -> mu, logvar [N, z_dim]."""
        mu, logvar = self.encoder(images).chunk(2, dim=1)
        return mu, logvar.clamp(-12, 12)  # exp() of the first steps must stay finite

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        return self.decoder(z)

    sample = decode  # of the prior's z
