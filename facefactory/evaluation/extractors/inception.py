"""InceptionV3 as the original FID code had it: 2048 pooled features. "FID", "KID" and "IS" are on these alone.

Its normalisations are folded into the convolutions: features are torch-fidelity's to 1e-6 of their norm, in less time (`make bench`).
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch.nn import functional as F

from facefactory import weights
from facefactory.data.sets.transfer import send
from facefactory.evaluation.extractors import Judge, Looked
from facefactory.facts import Size
from facefactory.weights.folding import fold

WEIGHTS = weights.named("inception-2015-12-05")
NEEDS = ()
RANKS = True
NAMES = {"fd": "fid", "kd": "kid", "is": "is"}
SIDE = 299  # pixels, what the network sees


@functools.lru_cache
def resizing(side: int) -> torch.Tensor:
    """What makes 299 pixels of a line of `side` as TensorFlow 1 did, whose pixels lie at their corners: weights [299, side]."""
    at = torch.arange(SIDE) * torch.tensor(side / SIDE)
    before = at.long()
    after = (before + 1).clamp_max(side - 1)
    share = (at - before)[:, None]
    return (1 - share) * F.one_hot(before, side) + share * F.one_hot(after, side)


class Inception:
    """See `Extractor`."""

    batch = 32
    resize = "to 299x299, bilinear as in the original FID code"
    dtype = torch.float32  # of the network's layers

    def __init__(self, device: torch.device, path: str) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            BasicConv2d,
            FeatureExtractorInceptionV3,
        )

        self.weights = WEIGHTS.digest
        self.device = device
        wanted = ["2048", "logits_unbiased"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = FeatureExtractorInceptionV3(
                "inception-v3-compat", wanted, feature_extractor_weights_path=path
            )
        made.eval()
        for block in made.modules():
            if isinstance(block, BasicConv2d):
                fold(block, [("conv", "bn")])
        self.classes = made.fc.weight.to(device)  # without its bias, as the inception score has it
        *layers, _ = made.children()  # in the order in which they work, the classes last
        self.layers = torch.nn.Sequential(*layers).to(device, self.dtype)
        self.layers.to(memory_format=torch.channels_last)

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 2048] and logits [batch, 1008]."""
        shown = send(images, self.device).permute(0, 3, 1, 2).float()
        rows, columns = (resizing(side).to(self.device) for side in shown.shape[2:])
        return self.see((rows @ shown @ columns.T).expand(-1, 3, -1, -1))

    def see(self, shown: torch.Tensor) -> Looked:
        """What the layers make of [batch, 3, 299, 299] in 0…255."""
        maps = ((shown - 128) / 128).to(self.dtype, memory_format=torch.channels_last)
        features = self.layers(maps).flatten(1).float()
        return Looked(features, features @ self.classes.T)


def load(size: Size, device: torch.device, judge: Judge | None) -> Inception:
    """The network."""
    return Inception(device, str(WEIGHTS.need()))
