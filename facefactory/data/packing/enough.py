"""Whether a set is enough for what is asked of it: splits, people, classes and copies.

Decodes nothing.
"""

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
# kinds whose classes must be seen more than once to be learned
LEARNED = ("binary", "categorical", "ordinal")


@dataclass(frozen=True)
class Faces:
    """A set as it will be packed, or is."""

    table: pd.DataFrame  # encoded labels
    splits: npt.NDArray[Any]  # the split of each image
    schema: labels.Schema
    group: str | None  # the label that says who is who

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
        return np.bincount(codes[codes >= 0], minlength=len(self.schema[label].classes))


def undivided(faces: Faces, shares: dict[str, float], wanted: str) -> UserError:
    """The error for a split that the recipe has and that no image fell into."""
    groups = len(np.unique(labels.people(faces.table, faces.group)))
    noun = ("person is", "people are") if faces.group else ("image is", "images are")
    dealt = " / ".join(f"{share:g}" for share in shares.values())
    least = math.ceil(1 / shares[wanted] - 1e-9) if shares[wanted] else 0
    more = f"Give at least {least}" if least else "Give that split a share"
    return UserError(
        f"{groups} {noun[groups != 1]} too few for the splits {dealt}: none is left for {wanted!r}. "
        f"{more}, or other shares (splits: in a recipe of yours), "
        f"or evaluation.held_out={next(iter(shares))}."
    )


def require_images(faces: Faces, needed: dict[str, int]) -> None:
    """UserError: a split has fewer images than what is asked of it needs (split -> images)."""
    for split, least in needed.items():
        count = faces.images(split)
        if count < least:
            raise UserError(
                f"the split {split!r} has {count} image{'s' * (count != 1)}; "
                f"at least {least} are needed. "
                "Give more images, or other shares (splits: in a recipe of yours)."
            )


def require_classes(faces: Faces, learned: Iterable[str], split: str = "train") -> None:
    """UserError: none of the labels that a classifier learns can be learned from a split.

    That takes two classes that have images, and a class of several images: values of one image
    each are names, no classes.
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
        reasons = "; ".join(list(why.values())[:5])
        raise UserError(
            f"nothing can be classified: of the images in {split}, {reasons}. "
            "Give labels of two or more classes with several images each: "
            "pack.labels=TABLE.csv, or sub-folders."
        )


def doubts(
    faces: Faces, batch_size: int | None, held_out: str | None, classifies: bool
) -> list[str]:
    """What works and may not be meant, as sentences for the person who starts a training."""
    sentences = []
    images = faces.images("train")
    if batch_size is not None and batch_size > images:
        sentences.append(
            f"training.batch_size={batch_size}, but train has {images} images: "
            "a batch shows some of them twice"
        )

    # whom a score is about
    if held_out is not None:
        held = faces.images(held_out)
        if faces.group and faces.people(held_out) == 1:
            sentences.append(
                f"the split {held_out!r} has one person ({held} images): "
                "scores will be about that person"
            )
        elif held < FEW:
            sentences.append(
                f"the split {held_out!r} has {held} images: scores will be about these few"
            )

    # what a classifier cannot learn
    if classifies:
        learned = [name for name, label in faces.schema.items() if label.kind in LEARNED]
        sentences += filter(None, (_doubt(faces, name) for name in learned))
    return sentences


def _doubt(faces: Faces, name: str) -> str | None:
    """What is odd about the classes of a label, if anything is."""
    classes = faces.schema[name].classes
    counts = faces.counts(name)
    present = np.flatnonzero(counts)
    single = [classes[code] for code in np.flatnonzero(counts == 1)]
    if len(present) == 1:
        only = classes[present[0]]
        return f"label {name!r} has one class alone, {only!r}: nothing is learned from it"
    if len(single) > len(present) / 2:
        return (
            f"{len(single)} of {len(present)} classes of label {name!r} have a single image, "
            f"e.g. {single[0]!r}: are they names or numbers of images? "
            f"pack.drop=[{name}] leaves it out"
        )
    if single:
        listed = ", ".join(map(repr, single[:5]))
        if len(single) > 5:
            listed += f" and {len(single) - 5} more"
        return f"label {name!r}: {listed} has a single image, which is either learned or tested"
    return None
