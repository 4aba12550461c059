"""VAE: the codes of real faces (posterior means) against their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.data.labels import people
from facefactory.data.loader import Shards
from facefactory.interpret import Interpret
from facefactory.interpret.matrix import Codes

METHOD = (
    "Cliff's delta of the posterior mean between faces with and without the label; 95 % intervals from whole people drawn with "
    "replacement; q values: Benjamini-Hochberg over all dimensions and labels. All splits. An association is no proof that the "
    "dimension draws the attribute."
)


def codes(model: Any, judge: Any, index: Index, names: list[str], options: Interpret, seed: int) -> Codes:
    """Posterior means of all real faces, their labels and people, and the KL of each dimension [nats]."""
    shards = Shards(index, list(index.content["splits"]))
    with torch.inference_mode():
        mu, logvar = model.encode(pixels.to_model(shards.images()))
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    labels = shards.table[names].to_numpy(np.float64)
    return Codes(mu.double().numpy(), labels, people(shards.table, index.content["group"]), kl.tolist(), METHOD)
