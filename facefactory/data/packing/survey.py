"""What a packed set itself tells: its labels and how they go together, its people, its brightness, grids of its images.

Memory holds the labels of all images, as in training, but of the images themselves a bounded and fixed choice.
"""

import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from facefactory import config, rundir
from facefactory.data.sets import labels, order, pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards

SAMPLED, SAMPLED_BYTES = (
    20_000,
    2**31,
)  # images whose brightness is measured at most, and their bytes
COLUMNS, SIDE = 7, 64  # of a grid: images in a row, longest side of each, pixels
MOST_CLASSES, MOST_LEAKS = (
    30,
    100,
)  # labels of more classes are not looked into; people in two splits are listed up to here
Floats = npt.NDArray[np.float64]


def phi(counts: Floats) -> float:
    """Correlation −1…1 of two binary labels from their counts [2, 2]; NaN where one of them does not vary."""
    scale = math.sqrt(counts.sum(0).prod() * counts.sum(1).prod())
    return (
        float((counts[0, 0] * counts[1, 1] - counts[0, 1] * counts[1, 0]) / scale)
        if scale
        else math.nan
    )


def cramers_v(counts: Floats) -> float:
    """Cramér's V 0…1 from counts [r, k], without the bias of few images; NaN where one of the labels does not vary.

    W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", J. Korean Statistical Society 42, 2013.
    """
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    n, (r, k) = counts.sum(), counts.shape
    if min(r, k) < 2 or n <= max(r, k):
        return math.nan
    expected = np.outer(counts.sum(1), counts.sum(0)) / n
    squared = ((counts - expected) ** 2 / expected).sum() / n - (r - 1) * (k - 1) / (n - 1)
    return min(
        1.0,
        math.sqrt(
            max(0.0, squared) / min(size - (size - 1) ** 2 / (n - 1) - 1 for size in (r, k))
        ),
    )


def clustered(values: Floats) -> list[int]:
    """An order of labels, from their associations [n, n], that puts those side by side that go together, in either direction."""
    if len(values) < 3:
        return list(range(len(values)))
    distances = squareform(1 - np.abs(np.nan_to_num(values)), checks=False)
    return hierarchy.leaves_list(
        hierarchy.linkage(distances, "average", optimal_ordering=True)
    ).tolist()


def together(table: pd.DataFrame, schema: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """How labels go together, in clustered order; an image that lacks one of two labels is left out of that pair.

    Returns:
        labels [n] and their associations [n][n]: phi between two binary ones, else Cramér's V (None = unknown); classes [m]
        (of a binary label the class 1 alone) and counts [m][m] of the images that have both.
    """
    columns = [(name, code) for name in names for code in range(len(schema[name]["classes"]))]
    own = {name: [at for at, (its, _) in enumerate(columns) if its == name] for name in names}
    binary = {name for name in names if schema[name]["kind"] == "binary"}
    counts, values = np.zeros((len(columns), len(columns))), np.eye(len(names))
    for start in range(0, len(table) if names else 0, 2**16):
        rows = table.iloc[start : start + 2**16]
        has = np.array([rows[name] == code for name, code in columns], np.float32)
        counts += has @ has.T
    for (a, one), (b, other) in itertools.combinations(enumerate(names), 2):
        values[a, b] = values[b, a] = (phi if {one, other} <= binary else cramers_v)(
            counts[np.ix_(own[one], own[other])]
        )
    turn = clustered(values)
    known = [
        [None if math.isnan(value) else round(value, 4) for value in row]
        for row in values[np.ix_(turn, turn)].tolist()
    ]
    shown = [at for number in turn for at in own[names[number]][names[number] in binary :]]
    words = [
        name if name in binary else f"{name}: {schema[name]['classes'][code]}"
        for name, code in columns
    ]
    both = {
        "classes": [words[at] for at in shown],
        "counts": counts[np.ix_(shown, shown)].astype(int).tolist(),
    }
    return {"labels": [names[number] for number in turn], "associations": known, **both}


def place(index: Index) -> Path:
    """Where the survey of a set lies: beside its shards, or in the user's cache folder where nothing can be written there."""
    elsewhere = (
        rundir.cache_folder()
        / "surveys"
        / config.digest([index.images_digest, index.labels_digest])
    )
    return index.folder if os.access(index.folder, os.W_OK) else elsewhere


def survey(index: Index) -> dict[str, Any]:
    """Measure a set; the facts are also written to survey.json in its `place`, with grids of images as samples/*.png."""
    out, schema, group = place(index), index.content["labels"], index.content["group"]
    splits = {name: split["count"] for name, split in index.content["splits"].items()}
    shards = Shards(index, list(splits))
    table, side = shards.table, np.repeat(list(splits), list(splits.values()))
    by_rank = np.argsort(
        order.permute(np.arange(len(table)), len(table), 0)
    )  # always the same shuffle
    sample = by_rank[: min(SAMPLED, SAMPLED_BYTES // shards.space(1).numel())]
    levels = np.concatenate(
        [chunk.numpy().mean((1, 2, 3)) for chunk in shards.chunks(np.sort(sample))]
    )

    def grid(rows: list[npt.NDArray[np.int64]], name: str) -> str:
        """A row of images for each row of positions, white where a row is short."""
        columns = max(COLUMNS, *map(len, rows))  # one scale for all
        images = shards.space(len(rows) * columns).fill_(255)
        for number, positions in enumerate(rows):
            images[number * columns :][: len(positions)] = shards.images(positions)
        with rundir.atomic(out / "samples" / name) as temporary:
            pixels.grid(images, columns).reduce(-(-index.content["resolution"] // SIDE)).save(
                temporary, "PNG"
            )
        return f"samples/{name}"

    facts: dict[str, Any] = {
        "splits": splits,
        "labels": {},
        "samples": grid(np.array_split(sample[: 8 * COLUMNS], 4), "any.png"),
    }
    for number, (name, entry) in enumerate(schema.items()):
        codes, classes, found = (
            table[name].to_numpy(),
            entry.get("classes", []),
            {"kind": entry["kind"]},
        )
        if entry["kind"] == "real" and not np.isnan(codes).all():
            found["quantiles"] = np.nanquantile(codes, [0, 0.05, 0.5, 0.95, 1]).tolist()
        elif entry["kind"] not in ("identity", "real") and len(classes) <= MOST_CLASSES:
            members = [by_rank[codes[by_rank] == code] for code in range(len(classes))]
            found["images"] = {
                split: [int((side[its] == split).sum()) for its in members] for split in splits
            }
            if group:
                found["people"] = [
                    int(table[group].iloc[its][lambda who: who >= 0].nunique()) for its in members
                ]
            path = f"{number:02d}-{re.sub('[^A-Za-z0-9_.-]', '_', name)[:60]}.png"
            found |= {
                "classes": classes,
                "samples": grid([its[:COLUMNS] for its in members], path),
            }
        facts["labels"][name] = found
    facts["together"] = together(
        table, schema, [name for name, its in facts["labels"].items() if "images" in its]
    )
    facts["brightness"] = {
        "images": len(levels),
        "counts": np.histogram(levels, 64, (0, 256))[0].tolist(),
    }
    if group:
        known = (table[group] >= 0).to_numpy()
        each = pd.crosstab(table[group][known], side[known]).reindex(
            columns=list(splits), fill_value=0
        )
        both, total = each[(each > 0).sum(axis=1) > 1], each.sum(axis=1)
        listed = [
            {"person": schema[group]["classes"][who], **row.to_dict()}
            for who, row in both.head(MOST_LEAKS).iterrows()
        ]
        facts["people"] = {
            "splits": (each > 0).sum().to_dict(),
            "all": len(each),
            "images_without": int((~known).sum()),
        }
        facts["people"] |= {
            "images_each": total.quantile([0, 0.5, 1]).tolist() if len(each) else None
        }
        facts["people"] |= {
            "in_several_splits": len(both),
            "first": listed,
            "least_for_a_score": labels.LEAST_PEOPLE,
        }
    rundir.write_json(out / "survey.json", facts)
    return facts
