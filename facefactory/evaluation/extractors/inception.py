"""InceptionV3 as the original FID code had it: 2048 pooled features. "FID", "KID" and "IS" are on these alone."""

from __future__ import annotations

import warnings

import torch

from facefactory import weights
from facefactory.data.sets.device import send
from facefactory.evaluation.extractors import Judge, Looked
from facefactory.facts import Size

WEIGHTS = weights.named("inception-2015-12-05")
NEEDS = ()
RANKS = True
NAMES = {"fd": "fid", "kd": "kid", "is": "is"}


class Inception:
    """See `Extractor`."""

    batch = 32
    resize = "to 299x299, bilinear as in the original FID code"

    def __init__(self, device: torch.device, path: str) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.weights = WEIGHTS.digest
        self.device = device
        wanted = ["2048", "logits_unbiased"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = FeatureExtractorInceptionV3(
                "inception-v3-compat", wanted, feature_extractor_weights_path=path
            )
        self.network = made.eval().to(device)

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 2048] and logits [batch, 1008]."""
        shown = send(images, self.device).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()
        features, logits = self.network(shown)
        return Looked(features.float(), logits.float())


def load(size: Size, device: torch.device, judge: Judge | None) -> Inception:
    """The network."""
    return Inception(device, str(WEIGHTS.need()))
