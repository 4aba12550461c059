"""Blocks in wrong places; amounts are the share of the 8 x 8 blocks that change places."""

import numpy as np
import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
MARK = None
BLOCKS = 8  # a side


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with some of its blocks shuffled; the pixels that fill no block stay."""
    count, height, width, channels = faces.images.shape
    across = min(BLOCKS, height, width)
    high, wide = height // across, width // across
    used = faces.images[:, : high * across, : wide * across]
    blocks = used.reshape(count, across, high, across, wide, channels).transpose(2, 3)
    blocks = blocks.reshape(count, across * across, high, wide, channels).clone()
    moved = max(2, round(amount * across * across))
    rng = np.random.default_rng(0)
    for image in blocks:
        chosen = torch.from_numpy(rng.permutation(across * across)[:moved])
        image[chosen] = image[chosen.roll(1)]  # a round: none stays
    spoilt = faces.images.clone()
    whole = blocks.reshape(count, across, across, high, wide, channels).transpose(2, 3)
    spoilt[:, : high * across, : wide * across] = whole.reshape(used.shape)
    return spoilt
