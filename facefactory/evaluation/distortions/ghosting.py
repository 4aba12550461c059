"""Means of two faces, as autoencoders draw them; amounts are the weight of the second."""

import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.1, 0.18, 0.26, 0.34, 0.42, 0.5)
MARK = ("ghosts", 0.5)


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with the one that lies half the set away shining through."""
    if len(faces.images) < 2:
        raise ValueError("ghosts need 2 faces at least")
    values = faces.images.float()
    others = values.roll(len(values) // 2, 0)
    return ((1 - amount) * values + amount * others).round().to(torch.uint8)
