"""JPEG compression; amounts are 100 less the quality."""

import io

import numpy as np
import torch
from PIL import Image

from facefactory.data.sets.pixels import grid
from facefactory.evaluation.distortions import Faces

AMOUNTS = (50, 65, 78, 87, 93, 97)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face as a JPEG file would keep it."""
    kept = []
    for image in faces.images:
        stream = io.BytesIO()
        grid(image[None], 1).save(stream, "JPEG", quality=round(100 - amount))
        kept.append(np.array(Image.open(stream)))
    return torch.from_numpy(np.stack(kept)).view_as(faces.images)
