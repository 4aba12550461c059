"""DCGAN (Radford, Metz & Chintala, ICLR 2016): strided convolutions up from z and down to a logit."""

from collections import OrderedDict

from torch import Tensor, nn

from facefactory.facts import Facts
from facefactory.models._layers import (
    Norm,
    Unconditional,
    doubling,
    halving,
    init_normal,
    norm2d,
    smallest,
)


class Component(nn.Module):
    """A DCGAN: generator z [N, z_dim] -> images [N, C, H, W] in -1…1, discriminator images -> logits [N].

    Args:
        facts: size and channels of the images.
        z_dim: length of z.
        width: channels of the largest maps of the generator; doubled at each halving of the side.
        d_width: the same for the discriminator; 0 = width.
        depth: how many times the side is doubled (generator) and halved (discriminator).
        kernel: side of the convolutions [pixels].
        g_norm, d_norm: normalisation; batch norm mixes the images of a batch.
    """

    conditions: tuple[str, ...] = ()

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        width: int = 16,
        d_width: int = 0,
        depth: int = 3,
        kernel: int = 4,
        g_norm: Norm = "batch",
        d_norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        d_width = d_width or width
        size = smallest(facts, depth, kernel, z_dim=z_dim, width=width, d_width=d_width)
        top = width * 2 ** (depth - 1)
        d_top = d_width * 2 ** (depth - 1)
        area = size[0] * size[1]

        project = nn.Linear(z_dim, top * area)
        maps = nn.Unflatten(1, (top, *size))
        start = nn.Sequential(norm2d(g_norm, top), nn.ReLU())
        up = doubling(facts, width, depth, kernel, g_norm)
        self.generator = Unconditional(OrderedDict(project=project, maps=maps, start=start, up=up))

        down = halving(facts.channels, d_width, depth, kernel, d_norm)
        head = nn.Linear(d_top * area, 1)
        layers = OrderedDict(down=down, flat=nn.Flatten(), head=head, logits=nn.Flatten(0))
        self.discriminator = Unconditional(layers)

        # without norms N(0, 0.02²) would leave the discriminator almost silent at first
        init_normal(self.generator)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c)
