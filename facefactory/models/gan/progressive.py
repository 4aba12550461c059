"""Progressive growing (Karras, Aila, Laine & Lehtinen, "Progressive growing of GANs", ICLR 2018).

Both networks begin with few pixels. Every so many images a level of twice the side is faded in, and stays.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError, schedule
from facefactory.facts import Facts, Size
from facefactory.models._equalised import Conv, Linear, MinibatchDeviation, PixelNorm

LEAST = 4  # pixels a side that the start has where nothing is said
SLOPE = 0.2


class Growing(nn.Module):
    """A network of levels, the finest of which may be half there."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels  # beyond the start
        self.level = levels  # the finest one that computes
        self.alpha = 1.0  # its share

    def grow_to(self, height: float) -> None:
        """2.25: two levels are there, and a quarter of the third."""
        self.level = math.ceil(height)
        self.alpha = height - self.level + 1

    @property
    def coarser(self) -> int:
        """How many pixels of the images one of the finest level spans, along a side."""
        return int(2 ** (self.levels - self.level))


class Generator(Growing):
    """z [N, z_dim] -> images [N, C, H, W], in blocks of equal pixels until the last level is there."""

    def __init__(self, z_dim: int, widths: Sequence[int], grid: Size, channels: int) -> None:
        super().__init__(len(widths) - 1)
        top = widths[0]
        self.start = nn.Sequential(
            PixelNorm(),
            Linear(z_dim, top * grid.height * grid.width),
            nn.Unflatten(1, (top, *grid)),
            nn.LeakyReLU(SLOPE),
            PixelNorm(),
            *normed(top, top),
        )
        self.blocks = nn.ModuleList()
        for into, out in pairwise(widths):
            enlarge = nn.Upsample(scale_factor=2, mode="nearest")
            self.blocks.append(nn.Sequential(enlarge, *normed(into, out), *normed(out, out)))
        self.pictures = nn.ModuleList(Conv(width, channels, 1, gain=1) for width in widths)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """[N, C, H, W]; as in the paper nothing bounds it."""
        x = self.start(z)
        below = x
        for block in self.blocks[: self.level]:
            below = x
            x = block(x)
        images: Tensor = self.pictures[self.level](x)

        # half of the finest level: the rest is the one below it, enlarged
        if self.alpha < 1:
            images = enlarged(self.pictures[self.level - 1](below), 2).lerp(images, self.alpha)
        return enlarged(images, self.coarser)


class Discriminator(Growing):
    """Images [N, C, H, W], seen as coarsely as the finest level is -> logits [N]."""

    def __init__(self, widths: Sequence[int], grid: Size, channels: int, group: int) -> None:
        super().__init__(len(widths) - 1)
        self.pictures = nn.ModuleList(
            nn.Sequential(Conv(channels, width, 1), nn.LeakyReLU(SLOPE)) for width in widths
        )
        self.blocks = nn.ModuleList()
        for out, into in pairwise(widths):
            layers = [*rectified(into, into), *rectified(into, out), nn.AvgPool2d(2)]
            self.blocks.append(nn.Sequential(*layers))
        top = widths[0]
        compared = [MinibatchDeviation(group)] if group > 1 else []
        self.head = nn.Sequential(
            *compared,
            *rectified(top + len(compared), top),
            nn.Flatten(),
            Linear(top * grid.height * grid.width, top),
            nn.LeakyReLU(SLOPE),
            Linear(top, 1, gain=1),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor, c: Tensor | None = None) -> Tensor:
        """[N]."""
        images = shrunk(images, self.coarser)
        x = self.pictures[self.level](images)
        for level in range(self.level, 0, -1):
            x = self.blocks[level - 1](x)
            if level == self.level and self.alpha < 1:
                x = self.pictures[level - 1](shrunk(images, 2)).lerp(x, self.alpha)
        logits: Tensor = self.head(x)
        return logits

    def shown(self, images: Tensor) -> Tensor:
        """Real images as coarse as those that a generator at this height can draw (§2 and figure 2)."""
        seen = shrunk(images, self.coarser)
        if self.alpha < 1:
            seen = enlarged(shrunk(seen, 2), 2).lerp(seen, self.alpha)
        return enlarged(seen, self.coarser)


class Component(nn.Module):
    """A GAN that grows with the clock; any H x W that is a start grid x 2^n.

    The start trains for `stable_kimg`; then each level fades in for `fade_kimg` and trains for `stable_kimg`.

    Args:
        facts: size and channels of the images.
        z_dim: length of z.
        width: channels of the finest maps; doubled at each halving of the side.
        widest: at most so many.
        doublings: levels beyond the start; 0 = as many as leave it 4 pixels a side.
        stable_kimg: how long a level trains before the next one comes [thousands of images].
        fade_kimg: how long one takes to fade in [thousands of images].
        deviation_group: images whose differences the discriminator is told, neighbours in the batch; 1 = none.
    """

    conditions: tuple[str, ...] = ()

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 128,
        width: int = 16,
        widest: int = 128,
        doublings: int = 0,
        stable_kimg: float = 600.0,
        fade_kimg: float = 600.0,
        deviation_group: int = 4,
    ) -> None:
        super().__init__()
        at_least_one = {
            "z_dim": z_dim,
            "width": width,
            "widest": widest,
            "deviation_group": deviation_group,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise UserError(f"{name}={value}; it must be at least 1.")
        if stable_kimg < 0 or fade_kimg <= 0:
            raise UserError(
                f"stable_kimg={stable_kimg}, fade_kimg={fade_kimg}; "
                "allowed are at least 0, and more than 0."
            )
        self.z_dim = z_dim
        levels = levels_of(facts, doublings)
        grid = Size(facts.height >> levels, facts.width >> levels)
        widths = [min(widest, width << halvings) for halvings in range(levels, -1, -1)]
        self.generator = Generator(z_dim, widths, grid, facts.channels)
        self.discriminator = Discriminator(widths, grid, facts.channels, deviation_group)

        # how many levels are there at which clock
        points = {0.0: 0.0}
        for level in range(levels):
            begin = stable_kimg + level * (stable_kimg + fade_kimg)
            points[begin] = level
            points[begin + fade_kimg] = level + 1
        self.height = schedule.checked(points)

    def at(self, kimg: float) -> None:
        """Grow to where the clock is."""
        for network in (self.generator, self.discriminator):
            network.grow_to(schedule.at(self.height, kimg))

    def shown(self, images: Tensor) -> Tensor:
        """Real images [N, C, H, W] as coarse as those that are drawn now."""
        return self.discriminator.shown(images)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c).clamp(-1, 1)


def levels_of(facts: Facts, doublings: int) -> int:
    """How often the side of the start is doubled; UserError: the images' sides are no such start x 2^n."""
    sides = (facts.height, facts.width)
    common = math.gcd(*sides)
    most = (common & -common).bit_length() - 1  # how often 2 divides both
    if not 0 <= doublings <= most or most == 0:
        raise UserError(
            f"doublings={doublings} for images of {facts.height}x{facts.width} pixels (height x width), whose sides "
            f"can be halved {most} times; allowed are at most that, and images whose sides are a start grid x 2^n."
        )
    usual = [levels for levels in range(1, most + 1) if min(sides) >> levels >= LEAST]
    return doublings or max(usual, default=1)


def normed(into: int, out: int) -> list[nn.Module]:
    """A layer of the generator."""
    return [Conv(into, out, 3), nn.LeakyReLU(SLOPE), PixelNorm()]


def rectified(into: int, out: int) -> list[nn.Module]:
    """A layer of the discriminator."""
    return [Conv(into, out, 3), nn.LeakyReLU(SLOPE)]


def enlarged(images: Tensor, times: int) -> Tensor:
    """Each pixel as a block of so many a side."""
    return F.interpolate(images, scale_factor=times, mode="nearest") if times > 1 else images


def shrunk(images: Tensor, times: int) -> Tensor:
    """Blocks of so many pixels a side as their mean."""
    return F.avg_pool2d(images, times) if times > 1 else images
