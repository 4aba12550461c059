"""Scores of single classes, and how far what was drawn is what was asked for, as the judge sees it."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from facefactory.data.sets.order import Ids
from facefactory.evaluation import features, scoring, statistics
from facefactory.evaluation import judge as judging
from facefactory.evaluation.extractors import Looked
from facefactory.evaluation.features import Kept
from facefactory.facts import Label
from facefactory.metrics import Array
from facefactory.results import OfClass, Protocol

LEAST = 20  # images of a class on either side, or it is not scored
MOST = 24  # classes, the rest is left out
KINDS = ("binary", "categorical", "ordinal")  # of labels whose classes are scored
Codes = dict[str, Ids]  # label -> class of each image, -1 = missing


class Watched:
    """Images on their way, and what the judge sees in them."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge
        self.parts: list[dict[str, torch.Tensor]] = []

    def through(self, chunks: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Chunks [n, H, W, C] uint8, as they come."""
        for chunk in chunks:
            found = features.verdicts(self.judge, chunk)
            self.parts.append({name: logits.float() for name, logits in found.items()})
            yield chunk

    def logits(self) -> dict[str, torch.Tensor]:
        """Label -> [images, classes]."""
        names = self.parts[0] if self.parts else {}
        return {name: torch.cat([part[name] for part in self.parts]) for name in names}


def agreement(
    logits: Mapping[str, torch.Tensor], asked: Codes, schema: Mapping[str, Label]
) -> dict[str, Any]:
    """Balanced accuracy and AUROC of the judge's verdict about what was asked, with intervals over images; by label.

    1: the judge sees in every image what was asked for; guessing: a model that does not listen. The judge's own errors
    are in it.
    """
    names = [name for name in asked if name in logits]
    table = pd.DataFrame({name: asked[name] for name in names})
    wanted = {name: schema[name] for name in names}
    return judging.scores({name: logits[name] for name in names}, table, wanted, None)


def scores(
    protocol: Protocol,
    schema: Mapping[str, Label],
    real: tuple[Array, Codes, Ids | None],
    fake: tuple[Array, Codes],
    by: Mapping[str, str],
) -> list[OfClass]:
    """The scores of files that say BY_CLASS, of each class of some labels.

    Args:
        real: features [N, D], classes and people of the reference's images.
        fake: features [M, D] and classes of the generated ones.
        by: label -> who says what class a generated image has: "asked", or "judge".
    """
    files = {
        name: module
        for name, module in scoring.files().items()
        if getattr(module, "BY_CLASS", False)
    }
    found = []
    for label, who in by.items():
        for code, word in enumerate(schema[label].classes):
            rows = np.flatnonzero(real[1][label] == code)
            drawn = np.flatnonzero(fake[1][label] == code)
            one = OfClass(label, word, who, len(rows), len(drawn), scores=(), verdict="")
            if min(one.reals, one.fakes) < LEAST:
                verdict = f"too few images: a class needs {LEAST} on either side"
                found.append(dataclasses.replace(one, verdict=verdict))
                continue
            people = None if real[2] is None else real[2][rows]
            of_reals = _kept(real[0], rows)
            parts = [_kept(fake[0], part) for part in np.array_split(drawn, scoring.PARTS)]
            own = dataclasses.replace(protocol, reals=one.reals, fakes=one.fakes)
            of_class, _ = scoring.scores(
                protocol.features, own, of_reals, parts, None, None, people, files
            )
            found.append(dataclasses.replace(one, scores=tuple(of_class)))
    return found


def chosen(
    schema: Mapping[str, Label], asked: Iterable[str], seen: Iterable[str]
) -> dict[str, str]:
    """Label -> who says what class a generated image has; those that were asked for first, at most MOST classes."""
    by: dict[str, str] = {}
    left = MOST
    for who, names in (("asked", asked), ("judge", seen)):
        for name in names:
            if name in by or schema[name].kind not in KINDS:
                continue
            left -= len(schema[name].classes)
            if left < 0:
                return by
            by[name] = who
    return by


def _kept(sample: Array, rows: Ids) -> Kept:
    """The statistics of some rows of features."""
    kept = {name: statistics.make(name) for name in ("moments", "sample")}
    looked = Looked(torch.from_numpy(sample[rows]).float())
    for one in kept.values():
        one.add(looked, rows)
    return kept


def sample(parts: Iterable[Kept]) -> Array:
    """Features of all images that parts hold, in their order."""
    value: Array = features.merged(parts)["sample"].value()
    return value
