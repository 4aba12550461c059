"""The prior's z, for models that only draw: what the judge sees in the faces drawn from it."""

from typing import Any

import numpy as np
import torch

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.draws import normal
from facefactory.interpret import Context, Space

METHOD = (
    "Cliff's delta of z between the half of the generated faces with the higher logits of the judge for "
    "the label and the other half. The judge's own errors are in the figures."
)


def fits(model: Any) -> bool:
    """Whether the model draws, and does not encode."""
    return hasattr(model, "sample") and not hasattr(model, "encode")


def of(model: Any, context: Context) -> Space:
    """z of faces that are drawn, and, as labels, which of them are in the upper half of the judge's logits."""
    count = context.options.samples
    everyone = Shards(context.index, list(context.index.content.splits))
    like = pixels.like(model)
    asked = conditions.asked(model, everyone, count).to(like)
    z = normal(context.seed, 0, "interpret", count, model.z_dim)

    # the judge looks at what people would see: 8 bits
    seen = []
    with torch.inference_mode():
        for part, c in zip(z.to(like).split(CHUNK), asked.split(CHUNK), strict=True):
            faces = pixels.to_uint8(model.sample(part, c))
            seen.append(
                context.judge.logits(pixels.to_model(faces).to(pixels.like(context.judge)))
            )
    labels = np.zeros((count, len(context.labels)))
    for column, name in enumerate(context.labels):
        margin = torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]).cpu()
        labels[:, column] = (margin > margin.median()).numpy()

    return Space(
        codes=z.double().numpy(),
        labels=labels,
        groups=np.arange(count),
        scale=np.ones(model.z_dim),
        start=normal(context.seed, 0, "traversal", 1, model.z_dim)[0],
        activity=None,
        method=METHOD,
        decode=lambda codes: model.sample(codes.to(like), asked[:1].expand(len(codes), -1)),
    )
