"""Latent codes and the labels of the same faces: of real ones where a model encodes, else of generated ones as judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from facefactory.data import pixels
from facefactory.data.labels import people
from facefactory.data.loader import CHUNK, Shards
from facefactory.data.order import Ids
from facefactory.metrics import Array
from facefactory.training.random import normal


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
        parts = [model.encode(pixels.to_model(part).to(pixels.like(model))) for part in shards.chunks()]
    mu, logvar = (torch.cat(found).double().cpu() for found in zip(*parts, strict=True))
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    groups = people(shards.table, shards.index.content["group"])
    method = (
        "Cliff's delta of the posterior mean between real faces (of all splits) with and without the label. An association is no "
        "proof that the dimension draws the attribute."
    )
    return Codes(mu.numpy(), shards.table[names].to_numpy(np.float64), groups, kl.tolist(), method)


def of_samples(model: Any, judge: Any, count: int, seed: int, names: list[str]) -> Codes:
    """z [count, z_dim] and, as labels, which faces drawn from it are in the upper half of the judge's logits."""
    z = normal(seed, 0, "interpret", count, model.z_dim)
    with torch.inference_mode():
        faces = (pixels.to_uint8(model.sample(part.to(pixels.like(model)))) for part in z.split(CHUNK))
        seen = [judge.logits(pixels.to_model(part).to(pixels.like(judge))) for part in faces]
    margins = [torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]).cpu() for name in names]
    labels = np.array([(margin > margin.median()).numpy() for margin in margins], np.float64).reshape(len(names), count).T
    method = (
        "Cliff's delta of z between the half of the generated faces with the higher logits of the judge for the label and the "
        "other half. The judge's own errors are in the figures."
    )
    return Codes(z.double().numpy(), labels, np.arange(count), None, method)
