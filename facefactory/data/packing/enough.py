"""Whether a set is enough for what is asked of it: splits, people, classes and copies. Decodes nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data.sets import labels

FEW = 8  # images of a split, below which a score is about those few
LEARNED = (
    "binary",
    "categorical",
    "ordinal",
)  # kinds whose classes must be seen more than once to be learned


@dataclass(frozen=True)
class Faces:
    """A set as it will be packed, or is: encoded labels, the split of each image, the schema, and who is who."""

    table: pd.DataFrame
    splits: npt.NDArray[Any]
    schema: dict[str, dict[str, Any]]
    group: str | None

    def images(self, split: str) -> int:
        """Images of a split."""
        return int((self.splits == split).sum())

    def people(self, split: str) -> int:
        """People of a split; an image of nobody known counts as one."""
        return len(np.unique(labels.people(self.table, self.group)[self.splits == split]))

    def counts(self, label: str, split: str | None = None) -> npt.NDArray[np.int64]:
        """Images of each class of a label, in a split or in all."""
        codes = self.table[label].to_numpy()
        codes = codes if split is None else codes[self.splits == split]
        return np.bincount(codes[codes >= 0], minlength=len(self.schema[label]["classes"]))


def undivided(faces: Faces, shares: dict[str, float], wanted: str) -> UserError:
    """The error for a split that the recipe has and that no image fell into."""
    groups = len(np.unique(labels.people(faces.table, faces.group)))
    noun = ("person is", "people are") if faces.group else ("image is", "images are")
    told = " / ".join(f"{share:g}" for share in shares.values())
    least = math.ceil(1 / shares[wanted] - 1e-9) if shares[wanted] else 0
    more = f"Give at least {least}" if least else "Give that split a share"
    other = f"or other shares (splits: in a recipe of yours), or evaluation.held_out={next(iter(shares))}"
    return UserError(
        f"{groups} {noun[groups != 1]} too few for the splits {told}: none is left for {wanted!r}. {more}, {other}."
    )


def require_images(faces: Faces, needed: dict[str, int]) -> None:
    """UserError: a split has fewer images than what is asked of it needs (split -> images)."""
    for split, least in needed.items():
        if (count := faces.images(split)) < least:
            raise UserError(
                f"the split {split!r} has {count} image{'s' * (count != 1)}; at least {least} are needed. "
                "Give more images, or other shares (splits: in a recipe of yours)."
            )


def require_classes(faces: Faces, learned: Iterable[str], split: str = "train") -> None:
    """UserError: none of the labels that a classifier learns can be learned from a split.

    That takes two classes that have images, and a class of several images: values of one image each are names, no classes.
    """
    why = {}
    for name in learned:
        counts = faces.counts(name, split)
        present = counts[counts > 0]
        if len(present) < 2:
            why[name] = f"{name} has {len(present)} class{'es' * (len(present) != 1)}"
        elif present.max() == 1:
            why[name] = f"{name} has {len(present)} classes for {len(present)} images, one each"
        else:
            return
    if why:
        raise UserError(
            f"nothing can be classified: of the images in {split}, {'; '.join(list(why.values())[:5])}. "
            "Give labels of two or more classes with several images each: pack.labels=TABLE.csv, or sub-folders."
        )


def doubts(
    faces: Faces, batch_size: int | None, held_out: str | None, classifies: bool
) -> list[str]:
    """What works and may not be meant, as sentences for the person who starts a training."""
    found = []
    images = faces.images("train")
    if batch_size is not None and batch_size > images:
        found.append(
            f"training.batch_size={batch_size}, but train has {images} images: a batch shows some of them twice"
        )
    if held_out is not None:
        people, faces_there = faces.people(held_out), faces.images(held_out)
        if faces.group and people == 1:
            found.append(
                f"the split {held_out!r} has one person ({faces_there} images): scores will be about that person"
            )
        elif faces_there < FEW:
            found.append(
                f"the split {held_out!r} has {faces_there} images: scores will be about these few"
            )
    for name, entry in faces.schema.items():
        if not classifies or entry["kind"] not in LEARNED:
            continue
        counts = faces.counts(name)
        present = np.flatnonzero(counts)
        single = [entry["classes"][code] for code in np.flatnonzero(counts == 1)]
        if len(present) == 1:
            found.append(
                f"label {name!r} has one class alone, {entry['classes'][present[0]]!r}: nothing is learned from it"
            )
        elif len(single) > len(present) / 2:
            told = f"{len(single)} of {len(present)} classes of label {name!r} have a single image, e.g. {single[0]!r}"
            found.append(
                f"{told}: are they names or numbers of images? pack.drop=[{name}] leaves it out"
            )
        elif single:
            told = ", ".join(map(repr, single[:5])) + (
                f" and {len(single) - 5} more" if len(single) > 5 else ""
            )
            found.append(
                f"label {name!r}: {told} has a single image, which is either learned or tested"
            )
    return found
