"""Codes x labels: effects, intervals, q values, and pictures of walks along single dimensions."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from facefactory import UserError, conditions
from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.data.labels import countable, people
from facefactory.data.loader import CHUNK, Shards
from facefactory.data.order import Ids
from facefactory.draws import normal
from facefactory.interpret import Interpret
from facefactory.metrics import Array, intervals
from facefactory.metrics.codes import cliffs_delta

ACTIVE_NATS = 0.05  # a dimension of a VAE with less KL than this carries nothing
TESTED = "95 % intervals: bootstrap by person (a generated face is one), Student's t; q: Benjamini-Hochberg over all cells."
WALK = torch.linspace(-3, 3, 9)  # standard deviations of the prior


@dataclass(frozen=True)
class Codes:
    """codes [N, D]; labels [N, L] in {0, 1}, -1 missing; whose each row is [N]; KL per dimension [nats] or None."""

    codes: Array
    labels: Array
    groups: Ids
    kl: list[float] | None
    method: str


def of_faces(model: Any, shards: Shards, names: list[str]) -> Codes:
    """Posterior means of real faces, their labels and people, and the KL of each dimension [nats]."""
    with torch.inference_mode():
        parts = []
        start = 0
        for part in shards.chunks():
            c = conditions.of_images(model, shards, np.arange(start, start + len(part)))
            start += len(part)
            parts.append(model.encode(pixels.to_model(part).to(pixels.like(model)), c.to(pixels.like(model))))
    mu, logvar = (torch.cat(found).double().cpu() for found in zip(*parts, strict=True))
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    groups = people(shards.table, shards.index.content["group"])
    method = (
        "Cliff's delta of the posterior mean between real faces (of all splits) with and without the label. An association is no "
        "proof that the dimension draws the attribute."
    )
    return Codes(mu.numpy(), shards.table[names].to_numpy(np.float64), groups, kl.tolist(), method)


def of_samples(model: Any, judge: Any, c: torch.Tensor, seed: int, names: list[str]) -> Codes:
    """z [count, z_dim] and, as labels, which faces drawn from it and `c` [count, columns] are in the upper half of the
    judge's logits."""
    count = len(c)
    z = normal(seed, 0, "interpret", count, model.z_dim)
    with torch.inference_mode():
        pairs = zip(z.to(pixels.like(model)).split(CHUNK), c.to(pixels.like(model)).split(CHUNK), strict=True)
        faces = (pixels.to_uint8(model.sample(*pair)) for pair in pairs)
        seen = [judge.logits(pixels.to_model(part).to(pixels.like(judge))) for part in faces]
    margins = [torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]).cpu() for name in names]
    labels = np.array([(margin > margin.median()).numpy() for margin in margins], np.float64).reshape(len(names), count).T
    method = (
        "Cliff's delta of z between the half of the generated faces with the higher logits of the judge for the label and the "
        "other half. The judge's own errors are in the figures."
    )
    return Codes(z.double().numpy(), labels, np.arange(count), None, method)


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
    found = (
        of_faces(model, everyone, names)
        if encodes
        else of_samples(model, judge, conditions.asked(model, everyone, options.samples), seed, names)
    )
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
        # one person's labels for all: what changes is the code
        c = conditions.asked(model, everyone, 1).repeat(len(shown) * len(WALK), 1).to(pixels.like(model))
        walks = pixels.to_uint8(model.sample(z.flatten(0, 1).to(pixels.like(model)), c)).cpu()
    pixels.write(pixels.grid(walks, len(WALK)), folder / "traversals.png")
    reasons = {name: fact.get("reason", "has more than two classes") for name, fact in counted.items() if name not in names}
    method = f"{found.method} {TESTED}"
    return {"method": method, "labels": names, "dimensions": rows, "not_scored": reasons, "traversed": shown}
