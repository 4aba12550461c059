"""w, the styles of a generator that maps z to it: what the judge sees in the faces drawn from it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.order import Ids
from facefactory.draws import normal
from facefactory.interpret import Context, Space
from facefactory.interpret.spaces._judged import METHOD, labels_of


def fits(model: Any) -> bool:
    """Whether the model has a w."""
    return hasattr(model, "to_w")


def of(model: Any, context: Context) -> Space:
    """w of the z that the space `z` draws; a walk leaves from the mean of w."""
    count = context.options.samples
    everyone = Shards(context.index, list(context.index.content.splits))
    like = pixels.like(model)
    asked = conditions.asked(model, everyone, count).to(like)
    z = normal(context.seed, 0, "interpret", count, model.z_dim).to(like)
    with torch.inference_mode():
        parts = zip(z.split(CHUNK), asked.split(CHUNK), strict=True)
        w = torch.cat([model.to_w(part, c) for part, c in parts])

    def faces(rows: Ids) -> Tensor:
        with torch.inference_mode():
            return pixels.to_uint8(model.from_w(w[rows])).cpu()

    labels = labels_of(context, "w", w, asked, lambda codes, c: model.from_w(codes))
    return Space(
        codes=w.double().cpu().numpy(),
        labels=labels,
        groups=np.arange(count),
        scale=w.double().std(0).cpu().numpy(),
        start=w.mean(0).cpu(),
        activity=None,
        method=METHOD.format(code="w"),
        faces=faces,
        judged=True,
        decode=lambda codes: model.from_w(codes.to(like)),
    )
