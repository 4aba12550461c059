"""Layers of growing GANs (Karras et al., "Progressive growing of GANs", ICLR 2018, §3 and §4)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2)  # He's, before a rectifier
TINY = 1e-8


class Conv(nn.Module):
    """A convolution that keeps the size, its weights scaled where they are used: equalised learning rate (§4.1)."""

    def __init__(self, into: int, out: int, kernel: int, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = gain / math.sqrt(into * kernel**2)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, into, h, w] -> [N, out, h, w]."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class Linear(nn.Module):
    """A linear layer with equalised learning rate."""

    def __init__(self, into: int, out: int, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = gain / math.sqrt(into)

    def forward(self, x: Tensor) -> Tensor:
        """[N, into] -> [N, out]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class PixelNorm(nn.Module):
    """Each pixel's channels, or each code, divided by their root mean square (§4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, …]."""
        power = _precise(x).square().mean(1, keepdim=True)
        return x * (power + TINY).rsqrt().to(x.dtype)


class MinibatchDeviation(nn.Module):
    """One map more: how much images of a group differ, mean over channels and pixels (§3).

    Groups are neighbours in the batch, as many as divide it and at most `group`. So ranks and accumulation change
    nothing as long as each part holds whole groups.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C + 1, h, w]."""
        count, _, height, width = x.shape
        group = next(size for size in range(self.group, 0, -1) if count % size == 0)
        groups = _precise(x).unflatten(0, (-1, group))
        variance = groups.var(1, correction=0)
        deviation = (variance + TINY).sqrt().mean((1, 2, 3)).to(x.dtype)
        maps = deviation.repeat_interleave(group).view(-1, 1, 1, 1)
        return torch.cat([x, maps.expand(-1, 1, height, width)], 1)


def _precise(x: Tensor) -> Tensor:
    """Squares of 16 bits lose too much."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
