"""Codes x labels: effects, intervals, q values, and pictures of walks along single dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
from PIL import Image

from facefactory import registry
from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.data.labels import countable, people
from facefactory.data.loader import Shards
from facefactory.interpret import Interpret
from facefactory.metrics import intervals
from facefactory.metrics.codes import cliffs_delta
from facefactory.training.random import normal

ACTIVE_NATS = 0.05  # a dimension of a VAE with less KL than this carries nothing
WALK = np.linspace(-3, 3, 9)  # standard deviations of the prior


@dataclass(frozen=True)
class Codes:
    """codes [N, D]; labels [N, L] in {0, 1}, -1 missing; whose each row is [N]; KL per dimension [nats] or None."""

    codes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]
    kl: list[float] | None
    method: str


def effects(found: Codes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(δ [D, L], intervals [2, D, L], q [D, L]) by a bootstrap over people.

    p values: Student's t of δ over the bootstrap's standard error, with as many degrees of freedom as the rarer side of
    the label has people, less one: a few people make a wide error estimate, which a normal would ignore.
    """
    columns, freedom = [], []
    for number in range(found.labels.shape[1]):
        kept = np.flatnonzero(found.labels[:, number] >= 0)
        codes, labels = found.codes[kept], found.labels[kept, number : number + 1]
        sides = [len(np.unique(found.groups[kept][labels[:, 0] == side])) for side in (0, 1)]
        freedom.append(max(1, min(sides) - 1))
        drawn = intervals.bootstrap(lambda ids, c=codes, y=labels: cliffs_delta.score(c[ids], y[ids]), found.groups[kept])  # type: ignore[misc]
        columns.append((cliffs_delta.score(codes, labels)[:, 0], drawn[..., 0]))
    if not columns:
        empty = np.zeros((found.codes.shape[1], 0))
        return empty, np.stack([empty, empty]), empty
    delta = np.stack([value for value, _ in columns], 1)
    drawn = np.stack([values for _, values in columns], -1)
    one_class = np.isnan(delta)  # as when a generator draws one face only: nothing to tell apart
    delta, drawn = np.where(one_class, 0.0, delta), np.where(one_class, 0.0, drawn)
    error = np.nanstd(drawn, 0, ddof=1).clip(min=1e-12)
    p = 2 * scipy.stats.t.sf(np.abs(delta) / error, np.array(freedom))
    q = scipy.stats.false_discovery_control(p.ravel()).reshape(p.shape)
    return delta, np.nanquantile(drawn, (0.025, 0.975), axis=0), q


def interpret(family: str, model: Any, judge: Any, index: Index, options: Interpret, seed: int, folder: Path) -> dict[str, Any]:
    """Effect matrix, a status per dimension, and traversals.png (a row a dimension) in `folder`."""
    everyone = Shards(index, list(index.content["splits"]))
    counted = countable(everyone.table, index.content["labels"], people(everyone.table, index.content["group"]))
    names = [name for name, fact in counted.items() if fact["scored"] and len(fact["classes"]) == 2]
    found = registry.module("interpret.families", family).codes(model, judge, index, names, options, seed)
    delta, bounds, q = effects(found)
    rows = []
    for dimension in range(found.codes.shape[1]):
        kl = None if found.kl is None else found.kl[dimension]
        row: dict[str, Any] = {"dimension": dimension, "kl_nats": kl, "effects": {}}
        named = []
        for number, name in enumerate(names):
            effect, low, high, chance = (
                float(part) for part in (delta[dimension, number], *bounds[:, dimension, number], q[dimension, number])
            )
            row["effects"][name] = {"effect": effect, "low": low, "high": high, "q": chance}
            if chance < 0.05 and abs(effect) >= options.least_effect:
                named.append(name)
        inactive = kl is not None and kl < ACTIVE_NATS
        row["status"] = "inactive" if inactive else f"associated with {', '.join(named)}" if named else "active, unnamed"
        rows.append(row)
    strongest = np.abs(delta).max(1) if names else np.zeros(len(rows))
    rank = np.array(found.kl) if found.kl is not None else strongest
    shown = np.argsort(-rank, kind="stable")[: options.traversed].tolist()
    _walks(model, shown, family, seed).save(folder / "traversals.png")
    reasons = {name: fact.get("reason", "has more than two classes") for name, fact in counted.items() if name not in names}
    return {
        "kind": family,
        "method": found.method,
        "labels": names,
        "dimensions": rows,
        "not_scored": reasons,
        "traversed": shown,
    }


def _walks(model: Any, dimensions: list[int], family: str, seed: int) -> Image.Image:
    """A row a dimension: one face while that dimension goes from -3 to 3; a VAE starts from the prior's mean."""
    start = normal(seed, 0, "traversal", 1, model.z_dim) * (0.0 if family == "vae" else 1.0)
    z = start.repeat(len(dimensions) * len(WALK), 1)
    for row, dimension in enumerate(dimensions):
        z[row * len(WALK) : (row + 1) * len(WALK), dimension] = torch.from_numpy(WALK).float()
    with torch.inference_mode():
        images = pixels.to_uint8(model.sample(z))
    height, width, channels = images.shape[1:]
    tiled = images.view(len(dimensions), len(WALK), height, width, channels).permute(0, 2, 1, 3, 4).numpy()
    array = tiled.reshape(len(dimensions) * height, len(WALK) * width, channels)
    return Image.fromarray(array[..., 0] if channels == 1 else array)
