"""A grey square over part of the face; amounts are the share of the image that it covers."""

import numpy as np
import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.02, 0.05, 0.1, 0.18, 0.3, 0.45)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with a square somewhere."""
    spoilt = faces.images.clone()
    height, width = spoilt.shape[1:3]
    high, wide = (max(1, round(side * amount**0.5)) for side in (height, width))
    rng = np.random.default_rng(0)
    for image in spoilt:
        share = rng.random(2)  # the same places at every severity, as far as the square fits
        top = int(share[0] * (height - high + 1))
        left = int(share[1] * (width - wide + 1))
        image[top : top + high, left : left + wide] = 127
    return spoilt
