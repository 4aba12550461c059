"""Images written as text, one a row of a CSV: gray values 0-255 with spaces between them, as in fer2013.csv."""

import csv
import math
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import UserError
from facefactory.data.sources import Found, located

PIXELS = "pixels"  # name of the column


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Named by their place in the file (000000 …); the other columns are labels. UserError: no such file or column."""
    path, _ = located(recipe, root)
    with open(path, "rb") as stream:
        lines = [
            (stream.tell() - len(line), len(line))
            for line in iter(stream.readline, b"")
            if line.strip()
        ][1:]
    try:
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            skipinitialspace=True,
            usecols=lambda name: name.strip() != PIXELS,
        )
        with open(path, encoding="utf-8-sig", newline="") as text:
            header = [name.strip() for name in next(csv.reader(text), [])]
    except ValueError as error:
        raise UserError(
            f"{path} is not readable as CSV (UTF-8): {error}. Copy it again."
        ) from None
    if PIXELS not in header or len(lines) != len(table):
        raise UserError(
            f"{path} has columns {', '.join(header)} and {len(table)} rows; wanted are {PIXELS!r} and one row a line."
        )
    names = [f"{number:06d}" for number in range(len(lines))]
    table = table.rename(columns=str.strip).set_axis(names)
    stat, column = path.stat(), header.index(PIXELS)
    return Found(
        names,
        [(str(path), *line, column) for line in lines],
        [stat.st_size, stat.st_mtime_ns],
        table,
    )


def load(item: tuple[str, int, int, int], resolution: int, recipe: dict[str, Any]) -> Image.Image:
    """A row -> a square gray image; ValueError: its values are no square of bytes."""
    path, offset, size, column = item
    with open(path, "rb") as stream:
        stream.seek(offset)
        cells = next(csv.reader([stream.read(size).decode()]))
    values = np.array(cells[column].split(), int)
    side = math.isqrt(len(values))
    if side**2 != len(values) or not side or not 0 <= values.min() <= values.max() <= 255:
        raise ValueError(f"{len(values)} values; a square number of values 0…255 is wanted")
    return Image.fromarray(values.astype(np.uint8).reshape(side, side))
