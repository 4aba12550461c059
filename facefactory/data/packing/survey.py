"""What a packed set itself tells: labels and how they go together, people, brightness, grids.

Memory holds the labels of all images, as in training, but of the images themselves a bounded and
fixed choice.
"""

import itertools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import rundir
from facefactory.data.sets import labels, order, pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids

SAMPLED = 20_000  # images whose brightness is measured at most
SAMPLED_BYTES = 2**31  # and their bytes at most
COLUMNS = 7  # images in a row of a grid
SIDE = 64  # longest side of each, pixels
MOST_CLASSES = 30  # labels of more classes are not looked into
MOST_LEAKS = 100  # people in several splits that are listed
COUNTED = 2**16  # images whose labels are counted at a time
Floats = npt.NDArray[np.float64]


def phi(counts: Floats) -> float:
    """Correlation −1…1 of two binary labels from counts [2, 2]; NaN where one does not vary."""
    scale = math.sqrt(counts.sum(0).prod() * counts.sum(1).prod())
    if not scale:
        return math.nan
    (neither, second), (first, both) = counts
    return float((neither * both - second * first) / scale)


def cramers_v(counts: Floats) -> float:
    """Cramér's V 0…1 from counts [r, k], without the bias of few images.

    NaN where one of the labels does not vary.

    W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", J. Korean Statistical Society
    42, 2013.
    """
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    n = counts.sum()
    r, k = counts.shape
    if min(r, k) < 2 or n <= max(r, k):
        return math.nan

    # φ² and the numbers of classes, each without its bias
    expected = np.outer(counts.sum(1), counts.sum(0)) / n
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    phi_squared = chi_squared / n - (r - 1) * (k - 1) / (n - 1)
    rows = r - (r - 1) ** 2 / (n - 1)
    columns = k - (k - 1) ** 2 / (n - 1)
    squared = max(0.0, phi_squared) / min(rows - 1, columns - 1)
    return min(1.0, math.sqrt(squared))


def clustered(values: Floats) -> list[int]:
    """An order of labels, from their associations [n, n]: side by side are those that go together,
    in either direction.
    """
    if len(values) < 3:
        return list(range(len(values)))
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distances = squareform(1 - np.abs(np.nan_to_num(values)), checks=False)
    tree = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return hierarchy.leaves_list(tree).tolist()


def together(table: pd.DataFrame, schema: labels.Schema, names: list[str]) -> dict[str, Any]:
    """How labels go together, in clustered order.

    An image that lacks one of two labels is left out of that pair.

    Returns:
        labels [n] and their associations [n][n]: phi between two binary ones, else Cramér's V
        (None = unknown); classes [m] (of a binary label the class 1 alone) and counts [m][m] of
        the images that have both.
    """
    # a column a class of each label
    columns: list[tuple[str, int]] = []
    places: dict[str, list[int]] = {}
    for name in names:
        codes = range(len(schema[name].classes))
        places[name] = [len(columns) + code for code in codes]
        columns += [(name, code) for code in codes]

    # images that have two classes, for all pairs of them
    counts = np.zeros((len(columns), len(columns)))
    for start in range(0, len(table) if names else 0, COUNTED):
        rows = table.iloc[start : start + COUNTED]
        has = np.array([rows[name] == code for name, code in columns], np.float32)
        counts += has @ has.T

    # associations of labels
    binary = {name for name in names if schema[name].kind == "binary"}
    values = np.eye(len(names))
    for (a, first), (b, second) in itertools.combinations(enumerate(names), 2):
        measure = phi if {first, second} <= binary else cramers_v
        values[a, b] = measure(counts[np.ix_(places[first], places[second])])
        values[b, a] = values[a, b]

    # both in clustered order
    turn = clustered(values)
    associations = [_rounded(row) for row in values[np.ix_(turn, turn)].tolist()]
    classes = []
    shown = []
    for number in turn:
        name = names[number]
        if name in binary:
            classes.append(name)
            shown += places[name][1:]
        else:
            classes += [f"{name}: {word}" for word in schema[name].classes]
            shown += places[name]
    return {
        "labels": [names[number] for number in turn],
        "associations": associations,
        "classes": classes,
        "counts": counts[np.ix_(shown, shown)].astype(int).tolist(),
    }


def _rounded(row: list[float]) -> list[float | None]:
    """Numbers as JSON holds them."""
    return [None if math.isnan(value) else round(value, 4) for value in row]


def place(index: Index) -> Path:
    """Where the survey of a set lies: beside its shards, or in the user's cache folder where
    nothing can be written there.
    """
    if os.access(index.folder, os.W_OK):
        return index.folder
    name = rundir.digest([index.images_digest, index.labels_digest])
    return rundir.cache_folder() / "surveys" / name


@dataclass(frozen=True)
class _Set:
    """A packed set as it is surveyed."""

    index: Index
    shards: Shards
    table: pd.DataFrame  # its labels
    splits: dict[str, int]  # images
    split_of: npt.NDArray[Any]  # of each image
    shuffled: Ids  # all positions, always in the same shuffle
    out: Path

    @property
    def schema(self) -> labels.Schema:
        return self.index.content.labels

    @property
    def group(self) -> str | None:
        return self.index.content.group

    def grid(self, rows: list[Ids], name: str) -> str:
        """A row of images for each row of positions, white where a row is short; its file."""
        columns = max(COLUMNS, *map(len, rows))  # one scale for all
        images = self.shards.space(len(rows) * columns).fill_(255)
        for number, positions in enumerate(rows):
            first = number * columns
            images[first : first + len(positions)] = self.shards.images(positions)

        shrink = -(-max(self.index.size) // SIDE)
        with rundir.atomic(self.out / "samples" / name) as temporary:
            pixels.grid(images, columns).reduce(shrink).save(temporary, "PNG")
        return f"samples/{name}"


def survey(index: Index) -> dict[str, Any]:
    """Measure a set.

    The facts are also written to survey.json in its `place`, with grids of images as
    samples/*.png.
    """
    splits = {name: split.count for name, split in index.content.splits.items()}
    shards = Shards(index, list(splits))
    table = shards.table
    shuffle = order.permute(np.arange(len(table)), len(table), 0)
    surveyed = _Set(
        index=index,
        shards=shards,
        table=table,
        splits=splits,
        split_of=np.repeat(list(splits), list(splits.values())),
        shuffled=np.argsort(shuffle),
        out=place(index),
    )

    # what the images look like
    sample = surveyed.shuffled[: min(SAMPLED, SAMPLED_BYTES // shards.space(1).numel())]
    chunks = shards.chunks(np.sort(sample))
    means = [chunk.numpy().mean((1, 2, 3)) for chunk in chunks]
    any_images = surveyed.grid(np.array_split(sample[: 8 * COLUMNS], 4), "any.png")

    # what the labels say
    labels_there = {}
    for number, name in enumerate(surveyed.schema):
        labels_there[name] = _label(surveyed, name, number)
    counted = [name for name, fact in labels_there.items() if "images" in fact]

    facts: dict[str, Any] = {
        "splits": splits,
        "labels": labels_there,
        "samples": any_images,
        "together": together(table, surveyed.schema, counted),
        "brightness": {
            "images": len(sample),
            "counts": np.histogram(np.concatenate(means), 64, (0, 256))[0].tolist(),
        },
    }
    if surveyed.group:
        facts["people"] = _people(surveyed, surveyed.group)
    rundir.write_json(surveyed.out / "survey.json", facts)
    return facts


def _label(surveyed: _Set, name: str, number: int) -> dict[str, Any]:
    """What is told of a label, the `number`-th of its set: quantiles, or images of few classes."""
    label = surveyed.schema[name]
    kind = label.kind
    classes = list(label.classes)
    values = surveyed.table[name].to_numpy()
    fact: dict[str, Any] = {"kind": kind}
    if kind == "real":
        if not np.isnan(values).all():
            fact["quantiles"] = np.nanquantile(values, [0, 0.05, 0.5, 0.95, 1]).tolist()
        return fact
    if kind == "identity" or len(classes) > MOST_CLASSES:
        return fact

    # images and people of each class
    shuffled = surveyed.shuffled
    members = [shuffled[values[shuffled] == code] for code in range(len(classes))]
    fact["images"] = {}
    for split in surveyed.splits:
        there = surveyed.split_of == split
        fact["images"][split] = [int(there[images].sum()) for images in members]
    if surveyed.group:
        people = surveyed.table[surveyed.group]
        people = people.where(people >= 0)  # nobody counts the unknown
        fact["people"] = [int(people.iloc[images].nunique()) for images in members]

    file = f"{number:02d}-{re.sub('[^A-Za-z0-9_.-]', '_', name)[:60]}.png"
    fact["classes"] = classes
    fact["samples"] = surveyed.grid([images[:COLUMNS] for images in members], file)
    return fact


def _people(surveyed: _Set, group: str) -> dict[str, Any]:
    """How many people there are, how many images each has, and who is in several splits."""
    who = surveyed.table[group]
    known = (who >= 0).to_numpy()
    images = pd.crosstab(who[known], surveyed.split_of[known])  # [people, splits]
    images = images.reindex(columns=list(surveyed.splits), fill_value=0)
    total = images.sum(axis=1)
    leaks = images[(images > 0).sum(axis=1) > 1]

    names = surveyed.schema[group].classes
    first = []
    some = leaks.head(MOST_LEAKS)
    for person, row in zip(some.index.tolist(), some.to_dict("records"), strict=True):
        first.append({"person": names[person], **row})
    return {
        "splits": (images > 0).sum().to_dict(),
        "all": len(images),
        "images_without": int((~known).sum()),
        "images_each": total.quantile([0, 0.5, 1]).tolist() if len(images) else None,
        "in_several_splits": len(leaks),
        "first": first,
        "least_for_a_score": labels.LEAST_PEOPLE,
    }
