"""Faces of the reference itself, as a generator that learned them by heart draws; amounts are their share."""

import numpy as np
import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
MARK = None
COPIES = True


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """The first images replaced by faces of the reference, each but once."""
    count = round(amount * min(len(faces.images), len(faces.reference)))
    rows = np.linspace(0, len(faces.reference) - 1, count).round().astype(int)
    return torch.cat([faces.reference[torch.from_numpy(rows)], faces.images[count:]])
