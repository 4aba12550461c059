"""What a dimension looks like: walks of several faces, where they change, who lies at its ends, and the way between two classes.

Walks go through quantiles of the codes themselves: no tile is farther out than faces are. Everything is written to the run
folder, as sheets of equal tiles.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facefactory.data.sets import pixels
from facefactory.data.sets.order import Ids
from facefactory.interpret import Space
from facefactory.interpret.control import walkers
from facefactory.metrics import Array
from facefactory.results import Sheet

LINES = 4  # faces that walk
QUANTILES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
CHANGED = (1, -2)  # tiles whose difference is shown: quantiles .05 and .95
ENDS = 8  # faces at either end of a dimension
STEPS = 9  # from one class to the other
LEAST = 8  # faces of a class whose mean is taken


def written(
    space: Space,
    dimensions: Sequence[int],
    between: Mapping[str, Sequence[str]],
    folder: Path,
    suffix: str,
) -> list[Sheet]:
    """Draw all sheets of a space into a folder, their file names ending in `suffix`.

    Args:
        space: codes, and the faces that they are of.
        dimensions: that are drawn, in this order.
        between: label -> its classes, of those whose classes are walked between.
        folder: of results.json.
        suffix: e.g. "-w".
    """
    sheets = []

    def keep(images: Tensor, sheet: Sheet) -> None:
        pixels.write(pixels.grid(images, len(sheet.columns)), folder / sheet.file)
        sheets.append(sheet)

    # of each dimension
    blocks: list[int | str] = [*dimensions]
    if blocks:
        drawn = walks(space, dimensions)
        steps = [f"quantile {one:g}" for one in QUANTILES]
        file = f"quantiles{suffix}.png"
        keep(drawn, Sheet(file, "quantiles", blocks, LINES, steps, walks=True))

        between_them = [" to ".join(steps[step] for step in CHANGED)]
        file = f"difference{suffix}.png"
        heat = differences(drawn, len(blocks))
        keep(heat, Sheet(file, "difference", blocks, 1, between_them, walks=False))

        for end, rows in zip(("lowest", "highest"), ends(space, dimensions), strict=True):
            places = [f"number {place + 1}" for place in range(rows.shape[1])]
            faces = space.faces(rows.ravel())
            file = f"{end}{suffix}.png"
            keep(faces, Sheet(file, f"{end} faces", blocks, 1, places, walks=False))

    # between classes
    ways = arithmetic(space, between)
    if ways:
        steps = [f"{step / (STEPS - 1):.0%} of the way" for step in range(STEPS)]
        file = f"between{suffix}.png"
        keep(
            torch.cat([*ways.values()]), Sheet(file, "between", [*ways], LINES, steps, walks=True)
        )
    return sheets


def walks(space: Space, dimensions: Sequence[int]) -> Tensor:
    """Faces while one coordinate goes through the quantiles of all codes: [dimensions · LINES · 9, H, W, C] uint8."""
    rows = _rows(space, np.arange(len(space.codes)))
    values = np.quantile(space.codes, QUANTILES, axis=0)  # [9, D]
    codes = np.repeat(space.codes[rows][None, :, None], len(dimensions), 0)
    codes = np.repeat(codes, len(QUANTILES), 2)  # [dimensions, LINES, 9, D]
    for block, dimension in enumerate(dimensions):
        codes[block, :, :, dimension] = values[:, dimension]
    return _drawn(space, codes)


def differences(drawn: Tensor, blocks: int) -> Tensor:
    """Where walks change most, mean over faces and channels: [blocks, H, W, 3] uint8, one scale for all.

    From nothing (black) over red and yellow to the largest change of any block (white).
    """
    tiles = drawn.unflatten(0, (blocks, -1, len(QUANTILES))).float()
    low, high = CHANGED
    change = (tiles[:, :, high] - tiles[:, :, low]).abs().mean((1, 4))  # [blocks, H, W]
    share = change / change.max().clamp(min=1)
    ramp = 3 * share[..., None] - torch.arange(3.0)
    return ramp.clamp(0, 1).mul(255).round().to(torch.uint8)


def ends(space: Space, dimensions: Sequence[int]) -> tuple[Ids, Ids]:
    """Rows of the faces with the lowest codes and those with the highest, the outermost first: [dimensions, 8] each."""
    order = np.argsort(space.codes[:, list(dimensions)], axis=0, kind="stable")
    return order[:ENDS].T, order[::-1][:ENDS].T


def arithmetic(space: Space, between: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Faces of a class on their way by the difference of the classes' mean codes: name -> [LINES · 9, H, W, C] uint8.

    Radford et al. (ICLR 2016, §6.3.2). Of more than two classes it is the two that most faces have.
    """
    found = {}
    for name, classes in between.items():
        if name not in space.labels or len(classes) < 2:
            continue
        values = space.labels[name]
        members = [np.flatnonzero(values == code) for code in range(len(classes))]
        common = np.argsort([-len(rows) for rows in members], kind="stable")[:2]
        first, second = sorted(common.tolist())
        if min(len(members[first]), len(members[second])) < LEAST:
            continue
        way = space.codes[members[second]].mean(0) - space.codes[members[first]].mean(0)
        start = space.codes[_rows(space, members[first])][:, None]
        codes = start + np.linspace(0, 1, STEPS)[:, None] * way
        found[f"{name}: {classes[first]} → {classes[second]}"] = _drawn(space, codes)
    return found


def _rows(space: Space, rows: Ids) -> Ids:
    """LINES of these, of different people where there are as many; again and again where there are fewer."""
    chosen = walkers(space.groups[rows], LINES)
    return rows[np.resize(chosen, LINES)]


def _drawn(space: Space, codes: Array) -> Tensor:
    """Codes [..., D] -> [n, H, W, C] uint8."""
    flat = torch.from_numpy(codes.reshape(-1, codes.shape[-1]))
    with torch.inference_mode():
        parts = [
            pixels.to_uint8(space.decode(part.to(space.start))).cpu() for part in flat.split(256)
        ]
    return torch.cat(parts)
