"""The only two places where stored pixels (uint8, sRGB, NHWC) and model pixels (float, NCHW, -1…1) meet."""

from __future__ import annotations

import torch


def to_model(images: torch.Tensor) -> torch.Tensor:
    """[N, H, W, C] uint8 0…255 -> [N, C, H, W] float32 -1…1."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] float -1…1 -> [N, H, W, C] uint8 0…255, rounded, clamped."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
