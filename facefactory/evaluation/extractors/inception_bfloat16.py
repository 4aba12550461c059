"""The same InceptionV3 in bfloat16, for machines that are quick at it; scores on it are no FID, and have names of their own."""

from __future__ import annotations

import torch

from facefactory.evaluation.extractors import Judge, inception
from facefactory.facts import Size

WEIGHTS = inception.WEIGHTS
NEEDS = ()
RANKS = True
ASKED = True
NAMES = {"fd": "fid_bfloat16", "kd": "kid_bfloat16", "is": "is_bfloat16"}


class Narrow(inception.Inception):
    """See `Extractor`."""

    resize = f"{inception.Inception.resize}, layers in bfloat16"
    dtype = torch.bfloat16


def load(size: Size, device: torch.device, judge: Judge | None) -> Narrow:
    """The network."""
    return Narrow(device, str(WEIGHTS.need()))
