"""The posterior means of real faces, for models with an encoder."""

from typing import Any

import numpy as np
import torch

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.labels import people
from facefactory.data.sets.loader import Shards, chunked
from facefactory.interpret import Context, Space
from facefactory.interpret.sharing import Item

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

    chunks = chunked(len(everyone))

    def encoded(number: int) -> Item:
        rows = chunks[number]
        c = conditions.of_images(model, everyone, rows)
        with torch.inference_mode():
            faces = pixels.to_model(everyone.images(rows)).to(like)
            mu, logvar = model.encode(faces, c.to(like))
        return {"mu": mu.double().cpu().numpy(), "logvar": logvar.double().cpu().numpy()}

    # a few hundred faces at a time
    parts = context.sharing.items("mu-codes", range(len(chunks)), encoded).values()
    mu, logvar = (
        torch.from_numpy(np.concatenate([part[name] for part in parts]))
        for name in ("mu", "logvar")
    )
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
