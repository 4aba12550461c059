"""A DCGAN of listed widths, as tutorials write it: dense, one enlarging layer a width, a convolution to the image."""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from facefactory import UserError
from facefactory.facts import Facts, Size
from facefactory.models._layers import Norm, Unconditional, halves, norm2d, smallest

KERNEL = 4  # of the layers that double or halve the side
Growth = Literal["transposed", "nearest"]


class Component(nn.Module):
    """Generator z [N, z_dim] -> images [N, C, H, W] in -1…1, discriminator images -> logits [N].

    Args:
        facts: size and channels of the images.
        z_dim: length of z.
        start: channels of the smallest map of the generator.
        g_widths: channels after each doubling of the side.
        d_widths: channels after each halving of the side in the discriminator.
        growth: how sides are doubled: by transposed convolutions, or nearest pixels and a 3 x 3 convolution.
        last_kernel: side of the convolution that makes the image [pixels]; odd.
        g_norm, d_norm: normalisation after each of these; batch norm mixes the images of a batch.
    """

    conditions: tuple[str, ...] = ()

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 128,
        start: int = 128,
        g_widths: list[int] = [128, 256, 512],  # noqa: B006
        d_widths: list[int] = [64, 128, 128],  # noqa: B006
        growth: Growth = "transposed",
        last_kernel: int = 5,
        g_norm: Norm = "batch",
        d_norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if (
            min([z_dim, start, *g_widths, *d_widths]) < 1
            or last_kernel < 1
            or last_kernel % 2 == 0
        ):
            raise UserError(
                f"z_dim={z_dim}, start={start}, g_widths={g_widths}, d_widths={d_widths}, "
                f"last_kernel={last_kernel}; sizes are at least 1, and last_kernel is odd."
            )
        self.z_dim = z_dim

        # up
        size = smallest(facts, len(g_widths))
        larger = reversed(halves(facts, len(g_widths), KERNEL)[:-1])
        up: list[nn.Module] = []
        into = start
        for width, wanted in zip(g_widths, larger, strict=True):
            up += enlarging(into, width, wanted, growth)
            up += [norm2d(g_norm, width), nn.LeakyReLU(0.2)]
            into = width
        image = nn.Conv2d(into, facts.channels, last_kernel, padding=last_kernel // 2)
        self.generator = Unconditional(
            OrderedDict(
                project=nn.Linear(z_dim, start * size[0] * size[1]),
                maps=nn.Unflatten(1, (start, *size)),
                up=nn.Sequential(*up),
                image=image,
                range=nn.Tanh(),
            )
        )

        # down
        size = smallest(facts, len(d_widths))
        down: list[nn.Module] = []
        into = facts.channels
        for width in d_widths:
            shrink = nn.Conv2d(into, width, KERNEL, 2, 1)
            down += [shrink, norm2d(d_norm, width), nn.LeakyReLU(0.2)]
            into = width
        head = nn.Linear(into * size[0] * size[1], 1)
        self.discriminator = Unconditional(*down, nn.Flatten(), head, nn.Flatten(0))

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c)


def enlarging(into: int, out: int, wanted: Size, growth: Growth) -> list[nn.Module]:
    """[N, into, h, w] -> [N, out, *wanted], about twice as large."""
    if growth == "nearest":
        return [nn.Upsample(tuple(wanted)), nn.Conv2d(into, out, 3, padding=1)]
    more = (wanted.height % 2, wanted.width % 2)  # a line, where halving would lose one
    return [nn.ConvTranspose2d(into, out, KERNEL, 2, 1, more)]
