"""Images written as text, one a row of a CSV, as in fer2013.csv.

They are gray values 0-255 with spaces between them.
"""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import UserError
from facefactory.data.sources import Found, located

PIXELS = "pixels"  # name of the column


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Named by their place in the file (000000 …); the other columns are labels.

    UserError: no such file or column.
    """
    path, _ = located(recipe, root)
    lines = _lines(path)[1:]
    try:
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            skipinitialspace=True,
            usecols=lambda name: name.strip() != PIXELS,
        )
        header = _header(path)
    except ValueError as error:
        reason = f"{path} is not readable as CSV (UTF-8): {error}"
        raise UserError(f"{reason}. Copy it again.") from None
    if PIXELS not in header or len(lines) != len(table):
        there = f"columns {', '.join(header)} and {len(table)} rows"
        raise UserError(f"{path} has {there}; wanted are {PIXELS!r} and one row a line.")

    # Pixels are read when they are packed: all at once would fill the memory
    column = header.index(PIXELS)
    items = [(str(path), offset, size, column) for offset, size in lines]
    names = [f"{number:06d}" for number in range(len(lines))]
    table = table.rename(columns=str.strip).set_axis(names)
    stat = path.stat()
    return Found(names, items, [stat.st_size, stat.st_mtime_ns], table)


def _header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", newline="") as text:
        cells = next(csv.reader(text), [])
    return [cell.strip() for cell in cells]


def _lines(path: Path) -> list[tuple[int, int]]:
    """Place and bytes of each line that is not empty."""
    lines = []
    place = 0
    with open(path, "rb") as stream:
        for line in stream:
            if line.strip():
                lines.append((place, len(line)))
            place += len(line)
    return lines


def load(item: tuple[str, int, int, int], resolution: int, recipe: dict[str, Any]) -> Image.Image:
    """A row -> a square gray image; ValueError: its values are no square of bytes."""
    path, offset, size, column = item
    with open(path, "rb") as stream:
        stream.seek(offset)
        cells = next(csv.reader([stream.read(size).decode()]))
    values = np.array(cells[column].split(), int)
    side = math.isqrt(len(values))
    square = side > 0 and side**2 == len(values)
    if not square or values.min() < 0 or values.max() > 255:
        raise ValueError(f"{len(values)} values; a square number of values 0…255 is wanted")
    return Image.fromarray(values.astype(np.uint8).reshape(side, side))
