"""Who does a model draw? Shares of classes among its faces beside those of the training set.

A judge that errs counts wrong: of 5 % gray-haired people among whom it finds nine in ten, and one in ten among the others, it
finds 14 %. Its confusion on real faces that it was not trained on tells how wrong. With P(judged j | true i) as matrix C, the
counts are s = Cᵀ p, and p = C⁻ᵀ s (Rogan & Gladen, American Journal of Epidemiology 1978, for two classes; Buck & Gart 1966),
clipped at 0. Of several labels at once, errors in one are taken to be independent of the others', given the truth: each axis
of the table is corrected by its own matrix. Intervals: percentiles of a bootstrap over drawn faces and over held-out people.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.labels import LEAST_PEOPLE, people
from facefactory.data.sets.loader import Shards, chunked
from facefactory.data.sets.order import Ids
from facefactory.draws import normal
from facefactory.evaluation import features
from facefactory.interpret import Interpret, combinations_of
from facefactory.interpret.sharing import UNSHARED, Item, Sharing
from facefactory.metrics import Array
from facefactory.results import Estimate, Share, Shares

TRIED = 5000  # held-out faces that confusion is counted on
RESAMPLES = 500
TELLS = 0.3  # least singular value of a confusion matrix that is turned round: 1 = no errors, 0 = guessing


@dataclass(frozen=True)
class Confusion:
    """What the judge makes of real faces of a label's classes."""

    by_person: Array  # [people, true, judged] counts

    @property
    def rates(self) -> Array:
        """P(judged | true), [classes, classes]."""
        return rates(self.by_person.sum(0))

    def absent(self) -> str:
        """Why it cannot be turned round; "" where it can."""
        here = (self.by_person.sum(2) > 0).sum(0)
        if here.min() < LEAST_PEOPLE:
            return f"{here.min()} held-out people are of a class; {LEAST_PEOPLE} are needed"
        least = np.linalg.svd(self.rates, compute_uv=False)[-1]
        return "" if least >= TELLS else "the judge confuses its classes on held-out faces"


def rates(counts: Array) -> Array:
    """Counts [..., true, judged] -> P(judged | true); a class that nobody has counts as seen without error."""
    totals = counts.sum(-1, keepdims=True)
    perfect = np.broadcast_to(np.eye(counts.shape[-1]), counts.shape)
    return np.where(totals > 0, counts / totals.clip(1), perfect)


def corrected(seen: Array, confusions: Sequence[Array]) -> Array:
    """Shares as they are, of those that a judge counts.

    Args:
        seen: [..., C_1, …, C_m] shares of the judge's verdicts.
        confusions: of each axis, [..., C_k true, C_k judged].
    """
    axes = len(confusions)
    found = seen
    for axis, confusion in enumerate(confusions):
        back = np.linalg.pinv(np.swapaxes(confusion, -1, -2))
        place = axis - axes
        moved = np.moveaxis(found, place, -1)
        shape = moved.shape
        lead = back.shape[:-2]
        flat = moved.reshape(*lead, -1, shape[-1])
        turned = flat @ np.swapaxes(back, -1, -2)
        found = np.moveaxis(turned.reshape(shape), -1, place)
    clipped = found.clip(0)
    whole = tuple(range(-axes, 0))
    shares: Array = clipped / clipped.sum(whole, keepdims=True)
    return shares


def table(codes: Sequence[Ids], sizes: Sequence[int], weights: Array | None = None) -> Array:
    """Shares of all combinations of classes; codes [n] of each label, faces with a missing one (-1) left out."""
    stacked = np.stack(codes)
    known = (stacked >= 0).all(0)
    cells = np.ravel_multi_index(tuple(stacked[:, known]), tuple(sizes))
    of_faces = None if weights is None else weights[known]
    counts = np.bincount(cells, of_faces, minlength=int(np.prod(sizes))).reshape(sizes)
    return counts / max(counts.sum(), 1)


def estimated(
    verdicts: Sequence[Ids], confusions: Sequence[Confusion]
) -> tuple[Array, Array, Array]:
    """Shares of all combinations of classes, and the two ends of their 95 % intervals.

    Args:
        verdicts: of each label the judge's class of each drawn face, [n].
        confusions: of each label.
    """
    sizes = [one.by_person.shape[1] for one in confusions]
    seen = table(verdicts, sizes)
    value = corrected(seen, [one.rates for one in confusions])

    # other faces that might have been drawn, other people that might have been held out
    rng = np.random.default_rng(0)
    count = len(verdicts[0])
    drawn = rng.multinomial(count, seen.ravel(), RESAMPLES).reshape(RESAMPLES, *sizes) / count
    redrawn = []
    for one in confusions:
        whose = len(one.by_person)
        times = rng.multinomial(whose, np.full(whose, 1 / whose), RESAMPLES)
        redrawn.append(rates(np.tensordot(times.astype(float), one.by_person, 1)))
    low, high = np.quantile(corrected(drawn, redrawn), [0.025, 0.975], axis=0)
    return value, np.minimum(low, value), np.maximum(high, value)


# -- a model's -------------------------------------------------------------------------


def of(
    model: Any,
    judge: Any,
    index: Index,
    options: Interpret,
    seed: int,
    sharing: Sharing = UNSHARED,
) -> list[Shares]:
    """Shares among `options.samples` faces that a model draws, beside those of the training set; [] if it draws none."""
    if not hasattr(model, "sample"):
        return []
    content = index.content
    schema = content.labels
    held_out = [name for name in content.splits if name != "train"]
    train = Shards(index, "train")
    everyone = Shards(index, list(content.splits))
    verdicts = _drawn(model, judge, everyone, options.samples, seed, sharing)
    sharing.leave_the_rest()

    # the judge on faces that it was not trained on
    confusions: dict[str, Confusion] = {}
    if held_out:
        others = Shards(index, held_out)
        rows = others.chosen(TRIED)
        logits = features.logits(judge, others, rows)
        groups = people(others.table.iloc[rows], content.group)
        for name, values in logits.items():
            true = others.table[name].to_numpy(np.int64)[rows]
            confusions[name] = confused(true, values.argmax(1).numpy(), groups, values.shape[1])

    found = []
    for labels in combinations_of(schema, options):
        present = [name for name in labels if name in verdicts]
        if len(present) < len(labels):
            continue
        sizes = [len(schema[name].classes) for name in labels]
        codes = [train.table[name].to_numpy(np.int64) for name in labels]
        own = [verdicts[name] for name in labels]
        used = [confusions[name] for name in labels if name in confusions]
        reasons = [one.absent() for one in used] if used else ["no split is held out"]
        absent = "; ".join(filter(None, reasons))
        estimates = None if absent else estimated(own, used)
        rows_of = _rows(labels, schema, table(own, sizes), table(codes, sizes), estimates)
        found.append(Shares(list(labels), options.samples, rows_of, absent))
    return found


def confused(true: Ids, judged: Ids, groups: Ids, classes: int) -> Confusion:
    """Counts of true and judged classes [n] by person; -1 = not known."""
    known = true >= 0
    names, which = np.unique(groups[known], return_inverse=True)
    counts = np.zeros((len(names), classes, classes))
    np.add.at(counts, (which, true[known], judged[known]), 1)
    return Confusion(counts)


def _drawn(
    model: Any, judge: Any, everyone: Shards, count: int, seed: int, sharing: Sharing
) -> dict[str, Ids]:
    """Label -> the judge's class of each face that is drawn, [count]."""
    like = pixels.like(model)
    asked = conditions.asked(model, everyone, count).to(like)
    z = normal(seed, 0, "shares", count, model.z_dim).to(like)

    chunks = chunked(count)

    def look(number: int) -> Item:
        rows = chunks[number]
        with torch.inference_mode():
            # the judge looks at what people would see: 8 bits
            faces = pixels.to_uint8(model.sample(z[rows], asked[rows]))
        logits = features.verdicts(judge, faces)
        return {name: values.argmax(1).numpy() for name, values in logits.items()}

    parts = list(sharing.items("shares-judged", range(len(chunks)), look).values())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(
    labels: Sequence[str],
    schema: Any,
    judged: Array,
    trained: Array,
    estimates: tuple[Array, Array, Array] | None,
) -> list[Share]:
    """One a combination of classes, those first that the training set has most."""
    found = []
    for cell in itertools.product(*(range(size) for size in judged.shape)):
        classes = {
            name: schema[name].classes[code] for name, code in zip(labels, cell, strict=True)
        }
        drawn = None
        if estimates is not None:
            drawn = Estimate(*(float(one[cell]) for one in estimates))
        found.append(Share(classes, drawn, float(judged[cell]), float(trained[cell])))
    return sorted(found, key=lambda one: -one.trained)
