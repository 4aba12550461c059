"""Layers that several models share."""

from typing import Literal

from torch import nn

from facefactory import UserError

Norm = Literal["batch", "group", "none"]


def norm2d(name: Norm, channels: int) -> nn.Module:
    """`batch` (mixes the images of a batch), `group` (8 channels a group) or `none`."""
    if name == "group":
        return nn.GroupNorm(max(1, channels // 8), channels)
    return nn.BatchNorm2d(channels) if name == "batch" else nn.Identity()


def stages(resolution: int, depth: int, kernel: int = 4, **sizes: int) -> int:
    """Side of the smallest map after `depth` halvings; UserError where that, the kernel or a size (≥ 1) cannot be."""
    if depth < 1 or resolution % 2**depth or resolution < 2 ** (depth + 1):
        side = resolution / 2**depth
        raise UserError(f"depth={depth} halves {resolution} pixels to {side:g}; it must stay a whole number ≥ 2.")
    if kernel not in (3, 4, 5, 6, 7):  # that a strided layer can mirror
        raise UserError(f"kernel={kernel}; allowed are 3 to 7 pixels.")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}={size}; it must be at least 1.")
    return resolution // 2**depth


def init_normal(module: nn.Module) -> None:
    """DCGAN's initialisation: weights N(0, 0.02²), norms' scales N(1, 0.02²) (Radford et al. 2016, §4)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)), 0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # none of ours goes without


def halving(channels: int, width: int, depth: int, kernel: int, norm: Norm) -> nn.Sequential:
    """`depth` strided convolutions, width doubling each time: [N, C, H, W] -> [N, width·2^(depth-1), H/2^depth, W/2^depth]."""
    layers: list[nn.Module] = []
    for level in range(depth):
        out = width * 2**level
        convolution = nn.Conv2d(channels, out, kernel, 2, (kernel - 1) // 2)
        layers += [convolution, norm2d(norm if level else "none", out), nn.LeakyReLU(0.2)]
        channels = out
    return nn.Sequential(*layers)


def doubling(channels: int, width: int, depth: int, kernel: int, norm: Norm) -> nn.Sequential:
    """The mirror of `halving`: [N, width·2^(depth-1), h, w] -> [N, channels, h·2^depth, w·2^depth], ending in tanh."""
    layers: list[nn.Module] = []
    for level in reversed(range(depth)):
        into, out = width * 2**level, width * 2 ** (level - 1) if level else channels
        layers += [nn.ConvTranspose2d(into, out, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2)]
        layers += [norm2d(norm, out), nn.ReLU()] if level else [nn.Tanh()]
    return nn.Sequential(*layers)
