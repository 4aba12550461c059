"""Spaces of models that only draw: what the judge sees in the faces is what their codes are held against."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK
from facefactory.interpret import Context
from facefactory.metrics import Array

METHOD = (
    "Cliff's delta of {code} between the half of the generated faces with the higher logits of the judge for "
    "the label and the other half. The judge's own errors are in the figures."
)


def labels_of(
    context: Context, codes: Tensor, asked: Tensor, draw: Callable[[Tensor, Tensor], Tensor]
) -> Array:
    """Which faces are in the upper half of the judge's logits, [N, L] in {0, 1}.

    `draw`: codes [n, D] and conditions [n, columns] -> images [n, C, H, W] in -1…1.
    """
    # the judge looks at what people would see: 8 bits
    seen = []
    with torch.inference_mode():
        for part, c in zip(codes.split(CHUNK), asked.split(CHUNK), strict=True):
            faces = pixels.to_uint8(draw(part, c))
            seen.append(
                context.judge.logits(pixels.to_model(faces).to(pixels.like(context.judge)))
            )
    labels = np.zeros((len(codes), len(context.labels)))
    for column, name in enumerate(context.labels):
        margin = torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]).cpu()
        labels[:, column] = (margin > margin.median()).numpy()
    return labels


def judged(context: Context, labels: Array) -> dict[str, Array]:
    """The factors among these labels [N, L]: there are no others of faces that are drawn."""
    columns = zip(context.labels, labels.T, strict=True)
    return {name: column for name, column in columns if name in context.factors}
