"""White noise added to every value; amounts are its standard deviation in grey levels (of 255)."""

import torch

from facefactory.draws import normal
from facefactory.evaluation.distortions import Faces

AMOUNTS = (2, 4, 6, 9, 13, 19)
MARK = ("noise", 100)


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with noise of its own."""
    values = faces.images.flatten(1)
    added = values + amount * normal(0, 0, "noise", *values.shape)
    return added.round().clamp(0, 255).to(torch.uint8).view_as(faces.images)
