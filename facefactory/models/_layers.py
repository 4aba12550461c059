"""Layers that several models share."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.facts import Facts, Size

Norm = Literal["batch", "group", "none"]


class Unconditional(nn.Sequential):
    """Layers in a row that take the condition vector of their contract and have no use for it."""

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        """The last layer's output."""
        return super().forward(x)


class Joined(nn.Sequential):
    """Layers in a row that take a flat input and the condition vector as one: ([N, …], [N, columns]) -> the last one's output."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        """The last layer's output."""
        return super().forward(torch.cat([x.flatten(1), c], 1))


class Told(nn.Sequential):
    """Layers in a row, the last of which sees the condition vector beside what came so far."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        """The last layer's output."""
        *layers, last = self
        for layer in layers:
            x = layer(x)
        out: Tensor = last(torch.cat([x, c], 1))
        return out


def norm2d(name: Norm, channels: int) -> nn.Module:
    """`batch` (mixes the images of a batch), `group` (8 channels a group) or `none`."""
    if name == "group":
        return nn.GroupNorm(max(1, channels // 8), channels)
    return nn.BatchNorm2d(channels) if name == "batch" else nn.Identity()


def bounded(logvar: Tensor) -> Tensor:
    """A posterior's log variances as they can be: exp() of the first steps must stay finite."""
    return logvar.clamp(-12, 12)


def halves(facts: Facts, depth: int, kernel: int) -> list[Size]:
    """Sizes of the maps of `halving`, from the images' own to the smallest; sides may be odd."""
    sizes = [Size(facts.height, facts.width)]
    for _ in range(depth):
        height, width = sizes[-1]
        odd = kernel % 2  # such a kernel rounds up
        sizes.append(Size((height + odd) // 2, (width + odd) // 2))
    return sizes


def smallest(facts: Facts, depth: int, kernel: int = 4, **sizes: int) -> Size:
    """Size of the smallest map after `depth` halvings.

    Raises:
        UserError: it has less than 2 pixels a side, or the kernel or a size (≥ 1) cannot be.
    """
    if kernel not in (3, 4, 5, 6, 7):  # that a strided layer can mirror
        raise UserError(f"kernel={kernel}; allowed are 3 to 7 pixels.")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}={size}; it must be at least 1.")
    images = f"images of {facts.height}x{facts.width} pixels (height x width)"
    if min(facts.height, facts.width) < 4:
        raise UserError(f"{images} are too small; it takes 4 a side at least.")
    deepest = min(facts.height, facts.width).bit_length() - 2
    if not 1 <= depth <= deepest:
        raise UserError(
            f"depth={depth} for {images}; allowed are 1 to {deepest}, "
            "so that 2 pixels a side are left."
        )
    return halves(facts, depth, kernel)[-1]


def init_normal(module: nn.Module) -> None:
    """DCGAN's initialisation: weights N(0, 0.02²), norms' scales N(1, 0.02²) (Radford et al. 2016, §4)."""
    norms = (nn.BatchNorm2d, nn.GroupNorm)
    for layer in module.modules():
        if isinstance(
            layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d | nn.GroupNorm
        ):
            nn.init.normal_(layer.weight, float(isinstance(layer, norms)), 0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # none of ours goes without


def halving(channels: int, width: int, depth: int, kernel: int, norm: Norm) -> nn.Sequential:
    """`depth` strided convolutions, width doubling each time: [N, C, H, W] -> [N, width·2^(depth-1), *`smallest`]."""
    layers: list[nn.Module] = []
    for level in range(depth):
        out = width * 2**level
        layers.append(nn.Conv2d(channels, out, kernel, 2, (kernel - 1) // 2))
        layers.append(norm2d(norm if level else "none", out))
        layers.append(nn.LeakyReLU(0.2))
        channels = out
    return nn.Sequential(*layers)


def doubling(facts: Facts, width: int, depth: int, kernel: int, norm: Norm) -> nn.Sequential:
    """The mirror of `halving`: [N, width·2^(depth-1), *`smallest`] -> [N, C, H, W], ending in tanh."""
    sizes = halves(facts, depth, kernel)
    padding = (kernel - 1) // 2
    layers: list[nn.Module] = []
    for level in reversed(range(depth)):
        into = width * 2**level
        out = width * 2 ** (level - 1) if level else facts.channels
        # one line more where halving lost one
        down, right = [(side + kernel) % 2 for side in sizes[level]]
        layers.append(nn.ConvTranspose2d(into, out, kernel, 2, padding, (down, right)))
        layers += [norm2d(norm, out), nn.ReLU()] if level else [nn.Tanh()]
    return nn.Sequential(*layers)
