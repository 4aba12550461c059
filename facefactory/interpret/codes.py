"""Latent codes and the labels of the same faces: of real ones where a model encodes, else of generated ones as judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from facefactory.data import pixels
from facefactory.data.labels import people
from facefactory.data.loader import CHUNK, Shards
from facefactory.training.random import normal


@dataclass(frozen=True)
class Codes:
    """codes [N, D]; labels [N, L] in {0, 1}, -1 missing; whose each row is [N]; KL per dimension [nats] or None."""

    codes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]
    kl: list[float] | None
    method: str


def of_faces(model: Any, shards: Shards, names: list[str]) -> Codes:
    """Posterior means of real faces, their labels and people, and the KL of each dimension [nats]."""
    with torch.inference_mode():
        parts = [model.encode(pixels.to_model(part)) for part in shards.chunks()]
    mu, logvar = (torch.cat(found) for found in zip(*parts, strict=True))
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    groups = people(shards.table, shards.index.content["group"])
    method = (
        "Cliff's delta of the posterior mean between faces with and without the label; 95 % intervals (Student's t) from whole people drawn with "
        "replacement; q values: Benjamini-Hochberg over all dimensions and labels. All splits. An association is no proof that the "
        "dimension draws the attribute."
    )
    return Codes(mu.double().numpy(), shards.table[names].to_numpy(np.float64), groups, kl.tolist(), method)


def of_samples(model: Any, judge: Any, count: int, seed: int, names: list[str]) -> Codes:
    """z [count, z_dim] and judged labels of generated faces; each face stands alone."""
    z = normal(seed, 0, "interpret", count, model.z_dim)
    with torch.inference_mode():
        seen = [judge.logits(pixels.to_model(pixels.to_uint8(model.sample(part)))) for part in z.split(CHUNK)]
    margins = [torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]) for name in names]
    labels = np.array([(margin > margin.median()).numpy() for margin in margins], np.float64).reshape(len(names), count).T
    method = (
        "Cliff's delta of z between generated faces in which the judge sees the label and those in which it does not (its median "
        "logit divides them); 95 % intervals (Student's t) from faces drawn with replacement (each z is drawn on its own); q values: "
        "Benjamini-Hochberg over all dimensions and labels. The judge's own errors are in the figures."
    )
    return Codes(z.double().numpy(), labels, np.arange(count), None, method)
