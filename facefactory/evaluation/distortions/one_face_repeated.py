"""One face again and again, as after a collapse; amounts are the share of the images that are this face."""

import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
MARK = ("repeat", 1.0)


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """The first images replaced by the last one."""
    spoilt = faces.images.clone()
    spoilt[: round(amount * len(spoilt))] = faces.images[-1]
    return spoilt
