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
    "AUROC of {code} for the half of the generated faces with the higher logits of the judge for "
    "the label against the other half. The judge's own errors are in the figures."
)


def labels_of(
    context: Context, codes: Tensor, asked: Tensor, draw: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Array]:
    """Which faces are in the upper half of the judge's logits: label -> [N] in {0, 1}.

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
    labels = {}
    for name in context.labels:
        margin = torch.cat([part[name][:, 1] - part[name][:, 0] for part in seen]).cpu()
        labels[name] = (margin > margin.median()).numpy().astype(np.float64)
    return labels
