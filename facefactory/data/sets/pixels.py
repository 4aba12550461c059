"""The only place where stored pixels and model pixels meet, and where either becomes a picture.

Stored ones are uint8, sRGB, NHWC; those of models are float, NCHW, -1…1.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from facefactory import rundir

CAPTION = 12  # pixels, of the letters beside a row


def to_model(images: torch.Tensor) -> torch.Tensor:
    """[N, H, W, C] uint8 0…255 -> [N, C, H, W] float32 -1…1."""
    channels_first = images.permute(0, 3, 1, 2)
    floats = channels_first.to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] float -1…1 -> [N, H, W, C] uint8 0…255, rounded, clamped."""
    levels = images.float().add(1.0).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def like(model: Any) -> torch.Tensor:
    """A tensor of the device and type that a model works in.

    The CPU and float32 for a model without weights.
    """
    weights = None
    if hasattr(model, "parameters"):
        weights = next(iter(model.parameters()), None)
    return torch.zeros(()) if weights is None else weights


def shift(images: torch.Tensor, u: torch.Tensor, reach: int) -> torch.Tensor:
    """Move images [N, C, H, W] by -reach…reach pixels down and right, mirrored at the edge.

    `u` [N, 2] in 0…1 says how far.
    """
    places = []
    for side, draw in zip(images.shape[2:], u.T, strict=True):
        most = min(reach, side - 1)
        distance = (draw * (2 * most + 1)).floor().long() - most
        moved = torch.arange(side, device=u.device) + distance[:, None]
        mirrored = side - 1 - (side - 1 - moved.abs()).abs()
        places.append(mirrored)

    number = torch.arange(len(images), device=u.device)[:, None, None]
    rows, columns = places
    channels_last = images.permute(0, 2, 3, 1)
    chosen = channels_last[number, rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2).contiguous()


def grid(images: torch.Tensor, columns: int) -> Image.Image:
    """[N, H, W, C] uint8 -> one picture, row by row; what does not fill a row is left out."""
    height, width, channels = images.shape[1:]
    rows = len(images) // columns
    tiles = images[: rows * columns].view(rows, columns, height, width, channels)
    picture = tiles.transpose(1, 2).reshape(rows * height, columns * width, channels)
    array = picture.numpy()
    return Image.fromarray(array[..., 0] if channels == 1 else array)


def captioned(picture: Image.Image, captions: Sequence[str]) -> Image.Image:
    """A picture of as many rows, each with a line of text to its left, black on white."""
    font = ImageFont.load_default(CAPTION)
    room = CAPTION + math.ceil(max(font.getlength(caption) for caption in captions))
    canvas = Image.new(picture.mode, (room + picture.width, picture.height), "white")
    canvas.paste(picture, (room, 0))
    pen = ImageDraw.Draw(canvas)
    row = picture.height / len(captions)
    for number, caption in enumerate(captions):
        place = (CAPTION / 2, (number + 0.5) * row)
        pen.text(place, caption, fill="black", font=font, anchor="lm")
    return canvas


def write(picture: Image.Image, path: Path) -> None:
    """Save a picture as its file's ending says; OSError names the file where the disk is full."""
    with rundir.naming(path):
        picture.save(path)
