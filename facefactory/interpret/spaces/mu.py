"""The posterior means of real faces, for models with an encoder."""

from typing import Any

import numpy as np
import torch

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.labels import people
from facefactory.data.sets.loader import Shards
from facefactory.interpret import Context, Space

METHOD = (
    "AUROC of the posterior mean for the label, over real faces of all splits. "
    "An association is no proof that the dimension draws the attribute."
)


def fits(model: Any) -> bool:
    """Whether the model encodes and decodes."""
    return hasattr(model, "encode") and hasattr(model, "decode")


def of(model: Any, context: Context) -> Space:
    """Means of all faces of the set, the labels of its table, and the KL of each dimension."""
    index = context.index
    everyone = Shards(index, list(index.content.splits))
    like = pixels.like(model)

    # a few hundred faces at a time
    means, logvars = [], []
    start = 0
    with torch.inference_mode():
        for part in everyone.chunks():
            rows = np.arange(start, start + len(part))
            c = conditions.of_images(model, everyone, rows)
            mu, logvar = model.encode(pixels.to_model(part).to(like), c.to(like))
            means.append(mu.double().cpu())
            logvars.append(logvar.double().cpu())
            start += len(part)
    mu, logvar = torch.cat(means), torch.cat(logvars)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)

    table = everyone.table
    labels = {}
    for name in dict.fromkeys([*context.labels, *context.factors]):
        column = table[name].to_numpy(np.float64)
        if index.content.labels[name].classes:
            column = np.where(column < 0, np.nan, column)
        labels[name] = column

    # one face's labels for all walks: what changes is the code
    asked = conditions.asked(model, everyone, 1).to(like)
    return Space(
        codes=mu.numpy(),
        labels=labels,
        groups=people(table, index.content.group),
        scale=np.ones(mu.shape[1]),
        start=torch.zeros(mu.shape[1]),
        activity=kl.tolist(),
        method=METHOD,
        faces=everyone.images,
        decode=lambda codes: model.decode(codes.to(like), asked.expand(len(codes), -1)),
    )
