"""The prior's z, for models that only draw: what the judge sees in the faces drawn from it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids
from facefactory.draws import normal
from facefactory.interpret import Context, Space
from facefactory.interpret.spaces._judged import METHOD, labels_of


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

    def faces(rows: Ids) -> Tensor:
        with torch.inference_mode():
            return pixels.to_uint8(model.sample(z[rows].to(like), asked[rows])).cpu()

    labels = labels_of(context, "z", z.to(like), asked, model.sample)
    return Space(
        codes=z.double().numpy(),
        labels=labels,
        groups=np.arange(count),
        scale=np.ones(model.z_dim),
        start=normal(context.seed, 0, "traversal", 1, model.z_dim)[0],
        activity=None,
        method=METHOD.format(code="z"),
        faces=faces,
        judged=True,
        decode=lambda codes: model.sample(codes.to(like), asked[:1].expand(len(codes), -1)),
    )
