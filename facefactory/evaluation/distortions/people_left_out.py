"""Some people never appear, as where a generator knows few faces; amounts are the share of the people left out."""

import numpy as np
import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.2, 0.4, 0.55, 0.7, 0.8, 0.9)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Photographs of the people who are left, as many as there are faces where so many are left."""
    names = np.unique(faces.people)
    if not faces.known or len(names) < 10:
        raise ValueError("leaving people out needs to know 10 people at least")
    order = np.random.default_rng(0).permutation(names)
    left = order[: max(1, round(len(names) * (1 - amount)))]
    rows = np.flatnonzero(np.isin(faces.people, left))
    even = np.linspace(0, len(rows) - 1, min(len(rows), len(faces.images))).round().astype(int)
    return faces.more[torch.from_numpy(rows[even])]
