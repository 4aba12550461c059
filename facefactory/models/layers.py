"""Layers that several models share."""

from __future__ import annotations

from torch import nn

from facefactory import UserError


def norm2d(name: str, channels: int) -> nn.Module:
    """`batch` (mixes the images of a batch), `group` (8 channels a group) or `none`."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(max(1, channels // 8), channels)
    return nn.Identity()


def stages(resolution: int, depth: int) -> int:
    """Side of the smallest map after `depth` halvings.

    Raises:
        UserError: the resolution cannot be halved that often.
    """
    if depth < 1 or resolution % 2**depth or resolution < 2 ** (depth + 1):
        raise UserError(
            f"depth={depth} halves {resolution} pixels to {resolution / 2**depth:g}; it must stay a whole number ≥ 2."
        )
    return resolution // 2**depth


def init_normal(module: nn.Module) -> None:
    """DCGAN's initialisation: weights N(0, 0.02²), norms' scales N(1, 0.02²) (Radford et al. 2016, §4)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def halving(channels: int, width: int, depth: int, kernel: int, norm: str, slope: float = 0.2) -> nn.Sequential:
    """`depth` strided convolutions, width doubling each time: [N, C, H, W] -> [N, width·2^(depth-1), H/2^depth, W/2^depth]."""
    layers: list[nn.Module] = []
    for level in range(depth):
        out = width * 2**level
        layers += [nn.Conv2d(channels, out, kernel, 2, (kernel - 1) // 2), norm2d(norm if level else "none", out)]
        layers += [nn.LeakyReLU(slope)]
        channels = out
    return nn.Sequential(*layers)


def doubling(channels: int, width: int, depth: int, kernel: int, norm: str) -> nn.Sequential:
    """The mirror of `halving`: [N, width·2^(depth-1), h, w] -> [N, channels, h·2^depth, w·2^depth], ending in tanh."""
    layers: list[nn.Module] = []
    for level in reversed(range(depth)):
        into, out = width * 2**level, width * 2 ** (level - 1) if level else channels
        layers += [nn.ConvTranspose2d(into, out, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2)]
        layers += [norm2d(norm, out), nn.ReLU()] if level else [nn.Tanh()]
    return nn.Sequential(*layers)


def check_sizes(**sizes: int) -> None:
    """Raise UserError for a width or a dimension below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}={size}; it must be at least 1.")


def check_kernel(kernel: int) -> None:
    """Raise UserError for a kernel that a strided layer cannot mirror."""
    if kernel not in (3, 4, 5, 6, 7):
        raise UserError(f"kernel={kernel}; allowed are 3 to 7 pixels.")
