"""Residual trunks that several VAEs share, for images of any height and width (pre-activation: He et al., ECCV 2016).

A level halves both sides, rounded up; its mirror enlarges to just the size that was there.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts, Size
from facefactory.models._layers import halves, norm2d

KERNEL = 3  # pixels; sides are halved rounded up
WIDEST = 4  # times the width of the largest maps
QUIET = 0.1  # of a block's last weights at the start: deep trunks begin close to the identity


class Residual(nn.Module):
    """x + two convolutions of it, [N, channels, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, 1, 1)
        last.weight.data.mul_(QUIET)
        self.layers = nn.Sequential(
            *ready(channels), nn.Conv2d(channels, channels, 3, 1, 1), *ready(channels), last
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w]."""
        return x + self.layers(x)


class Enlarge(nn.Module):
    """Nearest pixels, then a convolution: [N, into, h, w] -> [N, out, *size]."""

    def __init__(self, into: int, out: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.mix = nn.Conv2d(into, out, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, out, *size]."""
        return self.mix(F.interpolate(x, self.size, mode="nearest"))


def ready(channels: int) -> list[nn.Module]:
    """Norm and activation before a convolution; no image sees its batch."""
    return [norm2d("group", channels), nn.SiLU()]


def sizes(facts: Facts, levels: int, **least_one: int) -> list[Size]:
    """From the images to the smallest maps.

    Raises:
        UserError: these would have less than 2 pixels a side, or an option that must be at least 1 is not.
    """
    for name, value in {"levels": levels, **least_one}.items():
        if value < 1:
            raise UserError(f"{name}={value}; it must be at least 1.")
    found = halves(facts, levels, KERNEL)
    if min(found[-1]) < 2:
        raise UserError(
            f"levels={levels} halve {facts.height} x {facts.width} pixels to less than 2; give fewer."
        )
    return found


def widths(width: int, levels: int) -> list[int]:
    """Channels from the images' size to the smallest maps."""
    return [width * min(2**level, WIDEST) for level in range(levels + 1)]


def shrinking(channels: int, out: Sequence[int], blocks: int) -> nn.Sequential:
    """[N, channels, H, W] -> [N, out[-1], h, w], activated: `blocks` a level."""
    layers: list[nn.Module] = [nn.Conv2d(channels, out[0], 3, 1, 1)]
    for fine, coarse in pairwise(out):
        layers += [Residual(fine) for _ in range(blocks)]
        layers.append(nn.Conv2d(fine, coarse, 3, 2, 1))
    layers += [Residual(out[-1]) for _ in range(blocks)]
    return nn.Sequential(*layers, *ready(out[-1]))


def growing(channels: int, out: Sequence[int], maps: Sequence[Size], blocks: int) -> nn.Sequential:
    """The mirror of `shrinking`, ending in tanh; `maps`: the sizes of its levels."""
    layers: list[nn.Module] = [Residual(out[-1]) for _ in range(blocks)]
    for level in reversed(range(len(out) - 1)):
        layers.append(Enlarge(out[level + 1], out[level], maps[level]))
        layers += [Residual(out[level]) for _ in range(blocks)]
    return nn.Sequential(*layers, *ready(out[0]), nn.Conv2d(out[0], channels, 3, 1, 1), nn.Tanh())
