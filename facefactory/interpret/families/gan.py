"""GAN: z of generated faces against the labels that the judge sees in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from facefactory.data import pixels
from facefactory.data.index import Index
from facefactory.interpret import Interpret
from facefactory.interpret.matrix import Codes
from facefactory.training.random import normal

METHOD = (
    "Cliff's delta of z between generated faces in which the judge sees the label and those in which it does not (its median "
    "logit divides them); 95 % intervals from faces drawn with replacement (each z is drawn on its own); q values: "
    "Benjamini-Hochberg over all dimensions and labels. The judge's own errors are in the figures."
)


def codes(model: Any, judge: Any, index: Index, names: list[str], options: Interpret, seed: int) -> Codes:
    """z [N, z_dim] and judged labels of generated faces; each face stands alone."""
    z = normal(seed, 0, "interpret", options.samples, model.z_dim)
    with torch.inference_mode():
        seen = judge.logits(pixels.to_model(pixels.to_uint8(model.sample(z))))
        margins = torch.stack([seen[name][:, 1] - seen[name][:, 0] for name in names], 1) if names else z[:, :0]
    labels = (margins > margins.median(0).values).double().numpy() if names else np.zeros((len(z), 0))
    return Codes(z.double().numpy(), labels, np.arange(len(z)), None, METHOD)
