"""Codes x labels: effects with intervals and q values, a verdict a dimension, and walks along single dimensions."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from facefactory import UserError, registry
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.labels import countable, people
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids
from facefactory.interpret import Context, Interpret, Space, factors_of
from facefactory.metrics import Array, cliffs_delta, intervals
from facefactory.metrics.codes._factors import binned, classes, information
from facefactory.results import Dimension, Effect, Sheet

PACKAGE = "interpret.spaces"
METRICS = "metrics.codes"
ACTIVE_NATS = 0.05  # a dimension with less KL than this carries nothing
TESTED = "95 % intervals: bootstrap by person (a generated face is one), Student's t; q: Benjamini-Hochberg over all cells."
MOST_Q = 0.05
WALK = torch.linspace(-3, 3, 9)  # standard deviations


def _delta(codes: Array, labels: Array, ids: Ids) -> Array:
    return cliffs_delta.score(codes[ids], labels[ids])[:, 0]


def effects(space: Space, labels: list[str]) -> tuple[Array, Array, Array]:
    """(δ [D, L], 95 % intervals by person [2, D, L], q [D, L])."""
    shape = (space.codes.shape[1], len(labels))
    delta = np.zeros(shape)
    reach = np.zeros(shape)
    p = np.ones(shape)
    for number, name in enumerate(labels):
        label = space.labels[name]
        kept = np.flatnonzero(np.isfinite(label))
        if (
            len(np.unique(label[kept])) != 2
        ):  # a generator that draws one face only: nothing to tell apart
            continue
        measure = functools.partial(_delta, space.codes[kept], label[kept, None])
        found = intervals.student(measure, space.groups[kept], label[kept])
        delta[:, number], reach[:, number], p[:, number] = found
    q = scipy.stats.false_discovery_control(p.ravel()).reshape(shape)
    return delta, np.clip([delta - reach, delta + reach], -1, 1), q


def nats(space: Space, labels: list[str]) -> Array:
    """Mutual information of each dimension, in bins, and each label [D, L], nats."""
    found = np.zeros((space.codes.shape[1], len(labels)))
    bins = binned(space.codes)
    for number, name in enumerate(labels):
        known = np.isfinite(space.labels[name])
        wanted = classes(space.labels[name][known])
        found[:, number] = [information(column, wanted) for column in bins[known].T]
    return found


def dimensions(space: Space, labels: list[str], min_effect: float) -> list[Dimension]:
    """What each dimension goes with: effects that are large enough and no accident."""
    delta, bounds, q = effects(space, labels)
    aurocs = 0.5 + 0.5 * np.stack([delta, *bounds])
    cells = np.stack([*aurocs, q, nats(space, labels)], 2).tolist()
    found = []
    for number, row in enumerate(cells):
        table = {name: Effect(*cell) for name, cell in zip(labels, row, strict=True)}
        named = [
            name
            for name, one in table.items()
            if one.q < MOST_Q and abs(2 * one.value - 1) >= min_effect
        ]
        activity = space.activity[number] if space.activity else None
        inactive = activity is not None and activity < ACTIVE_NATS
        if inactive:
            found.append(Dimension(number, activity, table, "inactive", ()))
        else:
            found.append(
                Dimension(
                    number, activity, table, "goes with" if named else "unnamed", tuple(named)
                )
            )
    return found


def listed(rows: list[Dimension], options: Interpret) -> list[int]:
    """The dimensions that reports show, in their order."""
    shown = [row for row in rows if options.inactive or row.verdict != "inactive"]
    if options.order == "kl":
        shown.sort(key=lambda row: -(row.kl_nats or 0.0))
    return [row.dimension for row in shown]


def whole(space: Space, factors: list[str]) -> dict[str, Any]:
    """Scores of the whole code against these labels by every metric of metrics/codes, and why there is none."""
    names = [name for name in factors if name in space.labels]
    columns = [space.labels[name] for name in names]
    held = np.stack(columns, 1) if columns else np.empty((len(space.codes), 0))
    scores: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in registry.names(METRICS):
        try:
            scores |= registry.module(METRICS, name).score(space.codes, held)
        except ValueError as error:
            absent[name] = str(error)
    return {
        "faces": len(space.codes),
        "factors": names,
        "scores": scores,
        "absent": absent,
    }


def walks(space: Space, shown: list[int]) -> torch.Tensor:
    """A row a dimension, one face while that dimension goes from -3 to 3 deviations: [len(shown)·9, H, W, C] uint8."""
    codes = space.start.repeat(len(shown), len(WALK), 1)
    for row, dimension in enumerate(shown):
        codes[row, :, dimension] = WALK * float(space.scale[dimension])
    with torch.inference_mode():
        return pixels.to_uint8(space.decode(codes.flatten(0, 1))).cpu()


def spaces_of(model: Any, options: Interpret) -> list[str]:
    """Names of the spaces that are looked at.

    Raises:
        UserError: there is none, or one that is asked for does not fit.
    """
    known = registry.names(PACKAGE)
    for name in options.spaces:
        if name not in known:
            raise registry.unknown(f"interpret.spaces: no {name!r}", name, known)
    fitting = [name for name in known if registry.module(PACKAGE, name).fits(model)]
    if not fitting:
        raise UserError(
            "interpret: this model draws no faces to look at; give run=… of a GAN or a VAE."
        )
    # axes come before directions among them
    fitting.sort(key=lambda name: getattr(registry.module(PACKAGE, name), "DIRECTIONS", False))
    return options.spaces or fitting


def interpret(
    model: Any, judge: Any, index: Index, options: Interpret, seed: int, folder: Path
) -> dict[str, Any]:
    """What the dimensions of each latent space go with, and `traversals.png` (of the first space) in `folder`.

    UserError: the model has no latent space.
    """
    names = spaces_of(model, options)
    everyone = Shards(index, list(index.content.splits))
    groups = people(everyone.table, index.content.group)
    counted = countable(everyone.table, index.content.labels, groups)
    labels = [
        name for name, fact in counted.items() if fact["scored"] and len(fact["classes"]) == 2
    ]
    factors = factors_of(index.content.labels, options)
    context = Context(index, judge, options, seed, labels, factors)

    found = {}
    for name in names:
        space = registry.module(PACKAGE, name).of(model, context)
        rows = dimensions(space, labels, options.min_effect)
        strength = space.activity or [
            max((abs(one.value - 0.5) for one in row.effects.values()), default=0) for row in rows
        ]
        reported = listed(rows, options)
        strongest = np.argsort(-np.array(strength), kind="stable").tolist()
        shown = [number for number in strongest if number in reported][: options.traversed]
        picture = folder / ("traversals.png" if name == names[0] else f"traversals-{name}.png")
        pixels.write(pixels.grid(walks(space, shown), len(WALK)), picture)
        columns = [f"{deviations:+.2g} deviations" for deviations in WALK.tolist()]
        sheet = Sheet(picture.name, "walk", [*shown], 1, columns, walks=True)
        found[name] = {
            "method": f"{space.method} {TESTED}",
            "dimensions": [dataclasses.asdict(row) for row in rows],
            "listed": reported,
            "traversed": shown,
            "sheets": [dataclasses.asdict(sheet)],
            "codes": whole(space, factors),
        }
    reasons = {
        name: fact.get("reason", "has more than two classes") for name, fact in counted.items()
    }
    not_scored = {name: reason for name, reason in reasons.items() if name not in labels}
    return {
        "space": names[0],
        "labels": labels,
        "not_scored": not_scored,
        "spaces": found,
        **found[names[0]],
    }
