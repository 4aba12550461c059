"""Codes x labels: effects, intervals, q values, and pictures of walks along single dimensions."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from facefactory import UserError
from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.data.labels import countable, people
from facefactory.data.loader import Shards
from facefactory.data.order import Ids
from facefactory.interpret import Interpret
from facefactory.interpret.codes import Codes, of_faces, of_samples
from facefactory.metrics import Array, intervals
from facefactory.metrics.codes import cliffs_delta
from facefactory.training.random import normal

ACTIVE_NATS = 0.05  # a dimension of a VAE with less KL than this carries nothing
TESTED = "95 % intervals: bootstrap by person (a generated face is one), Student's t; q: Benjamini-Hochberg over all cells."
WALK = torch.linspace(-3, 3, 9)  # standard deviations of the prior


def _delta(codes: Array, labels: Array, ids: Ids) -> Array:
    return cliffs_delta.score(codes[ids], labels[ids])[:, 0]


def effects(found: Codes) -> tuple[Array, Array, Array]:
    """(δ [D, L], 95 % intervals by person [2, D, L], q [D, L])."""
    shape = found.codes.shape[1], found.labels.shape[1]
    delta, reach, p = np.zeros(shape), np.zeros(shape), np.ones(shape)
    for number, label in enumerate(found.labels.T):
        kept = np.flatnonzero(label >= 0)
        if len(np.unique(label[kept])) == 2:  # else a generator draws one face only: nothing to tell apart
            measure = functools.partial(_delta, found.codes[kept], label[kept, None])
            delta[:, number], reach[:, number], p[:, number] = intervals.student(measure, found.groups[kept], label[kept])
    q = scipy.stats.false_discovery_control(p.ravel()).reshape(shape)
    return delta, np.clip([delta - reach, delta + reach], -1, 1), q


def interpret(model: Any, judge: Any, index: Index, options: Interpret, seed: int, folder: Path) -> dict[str, Any]:
    """Effects, a status per dimension, and traversals.png (a row a dimension) in `folder`; UserError: nothing is drawn."""
    if not hasattr(model, "sample"):
        raise UserError("interpret: this model draws no faces to look at; give run=… of a GAN or a VAE.")
    everyone, encodes = Shards(index, list(index.content["splits"])), hasattr(model, "encode")
    counted = countable(everyone.table, index.content["labels"], people(everyone.table, index.content["group"]))
    names = [name for name, fact in counted.items() if fact["scored"] and len(fact["classes"]) == 2]
    found = of_faces(model, everyone, names) if encodes else of_samples(model, judge, options.samples, seed, names)
    delta, bounds, q = effects(found)
    rows, columns = [], ("effect", "low", "high", "q")
    for dimension, cells in enumerate(np.stack([delta, *bounds, q], 2).tolist()):
        table = {name: dict(zip(columns, cell, strict=True)) for name, cell in zip(names, cells, strict=True)}
        named = [name for name, cell in table.items() if cell["q"] < 0.05 and abs(cell["effect"]) >= options.min_effect]
        kl = found.kl[dimension] if found.kl else None
        inactive = kl is not None and kl < ACTIVE_NATS
        status = "inactive" if inactive else f"associated with {', '.join(named)}" if named else "active, unnamed"
        rows.append({"dimension": dimension, "kl_nats": kl, "effects": table, "status": status})
    rank = np.array(found.kl) if found.kl else np.abs(delta).max(1, initial=0)
    shown = np.argsort(-rank, kind="stable")[: options.traversed].tolist()
    # a row a dimension: one face while that dimension goes from -3 to 3; a model that encodes starts from the prior's mean
    start = normal(seed, 0, "traversal", 1, model.z_dim) * (not encodes)
    z = start.repeat(len(shown), len(WALK), 1)
    z[range(len(shown)), :, shown] = WALK
    with torch.inference_mode():
        walks = pixels.to_uint8(model.sample(z.flatten(0, 1).to(pixels.like(model)))).cpu()
    pixels.grid(walks, len(WALK)).save(folder / "traversals.png")
    reasons = {name: fact.get("reason", "has more than two classes") for name, fact in counted.items() if name not in names}
    method = f"{found.method} {TESTED}"
    return {"method": method, "labels": names, "dimensions": rows, "not_scored": reasons, "traversed": shown}
