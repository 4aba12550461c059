"""Layers of style-based generators (Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020).

Learning rates are equalised: weights are N(0, 1), and scaled where they are used (Karras et al., ICLR 2018, §4.1).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLUs
TINY = 1e-8


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the second moment of a normal input near 1."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


class Smooth(nn.Module):
    """Maps of another size, smoothed by [1, 3, 3, 1] along both sides (§B); zeros lie around them."""

    kernel: Tensor  # [1, 1, 4, 4], its sum is 1

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        kernel = line[:, None] * line
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def doubled(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C, 2h, 2w], bilinear."""
        kernel = 4 * self._of(x)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])

    def halved(self, x: Tensor) -> Tensor:
        """[N, C, 2h, 2w] -> [N, C, h, w]."""
        return F.conv2d(x, self._of(x), stride=2, padding=1, groups=x.shape[1])

    def spread(self, x: Tensor) -> Tensor:
        """[N, C, 2h + 1, 2w + 1], every second pixel of which was there -> [N, C, 2h, 2w]."""
        return F.conv2d(x, 4 * self._of(x), padding=1, groups=x.shape[1])

    def _of(self, x: Tensor) -> Tensor:
        return self.kernel.expand(x.shape[1], -1, -1, -1)


class Linear(nn.Module):
    """[N, into] -> [N, out], with an equalised learning rate, multiplied by `speed`."""

    def __init__(self, into: int, out: int, bias: float = 0.0, speed: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into).normal_(std=1 / speed))
        self.bias = nn.Parameter(torch.full((out,), bias / speed))
        self.speed = speed
        self.gain = speed / math.sqrt(into)

    def forward(self, x: Tensor) -> Tensor:
        """[N, out]."""
        return F.linear(x, self.weight * self.gain, self.bias * self.speed)


class Convolution(nn.Module):
    """[N, into, h, w] -> [N, out, h, w], with an equalised learning rate; `up`: -> [N, out, 2h, 2w], smoothed."""

    def __init__(
        self, into: int, out: int, kernel: int, bias: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into, kernel, kernel).normal_())
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.gain = 1 / math.sqrt(into * kernel**2)
        self.padding = kernel // 2
        self.smooth = Smooth() if up else None

    def scaled(self) -> Tensor:
        """The kernels as they are used, [out, into, kernel, kernel]."""
        return self.weight * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """[N, out, h, w], or twice as high and wide."""
        if self.smooth is None:
            return F.conv2d(x, self.scaled(), self.bias, padding=self.padding)
        return self.smooth.spread(F.conv_transpose2d(x, self.scaled().transpose(0, 1), stride=2))


class Modulated(nn.Module):
    """A convolution whose kernel is another one for each image: channels scaled by a style, which comes from w (§2.2).

    Scaled are the channels that go in, and, for demodulation, those that come out: one convolution of the whole
    batch, which computes what N grouped ones with kernels of their own would (equations 1 and 3).
    """

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int,
        w_dim: int,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.style = Linear(w_dim, into, bias=1.0)
        self.mix = Convolution(into, out, kernel, bias=False, up=up)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, into, h, w], [N, w_dim] -> [N, out, h, w], or twice as high and wide."""
        style = self.style(w)
        out: Tensor = self.mix(x * style[:, :, None, None])
        if not self.demodulate:
            return out
        power = self.mix.scaled().square().sum((2, 3))  # [out, into]
        norm = torch.rsqrt(F.linear(style.square(), power) + TINY)
        return out * norm[:, :, None, None]


class Styled(nn.Module):
    """A modulated 3 x 3 convolution, its noise, bias and activation; `up`: to twice the size."""

    def __init__(self, into: int, out: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.mix = Modulated(into, out, 3, w_dim, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """[N, into, h, w], [N, w_dim], [N or 1, 1, h, w] -> [N, out, h, w]; twice as high and wide if `up`."""
        x = self.mix(x, w)
        return activated(x + noise * self.noise_strength + self.bias[:, None, None])


class Shrink(nn.Module):
    """Two convolutions, the second at half the size, and past them a 1 x 1 one: [N, into, 2h, 2w] -> [N, out, h, w]."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.first = Convolution(into, into, 3)
        self.second = Convolution(into, out, 3)
        self.past = Convolution(into, out, 1, bias=False)
        self.smooth = Smooth()

    def forward(self, x: Tensor) -> Tensor:
        """[N, out, h, w]."""
        inner = activated(self.first(x))
        inner = activated(self.second(self.smooth.halved(inner)))
        return (inner + self.past(self.smooth.halved(x))) / math.sqrt(2)
