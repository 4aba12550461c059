"""MobileNetV2 trained on ImageNet: 1280 pooled features; a second opinion beside lite0, where its weights are staged.

Sandler et al., CVPR 2018, as torchvision has it.
"""

from __future__ import annotations

import torch

from facefactory import weights
from facefactory.evaluation.extractors import Judge, Looked
from facefactory.evaluation.extractors._imagenet import Show
from facefactory.facts import Size

WEIGHTS = weights.named("mobilenet-v2")
NEEDS = ()
RANKS = True
NAMES: dict[str, str] = {}


class MobileNetV2:
    """Its eye: see `Extractor`."""

    batch = 32

    def __init__(self, size: Size, device: torch.device, path: str) -> None:
        from torchvision.models import mobilenet_v2

        self.weights = WEIGHTS.digest
        self.show = Show(size, device)
        self.resize = self.show.rule
        network = mobilenet_v2()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network = network.eval().to(device, memory_format=torch.channels_last)

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 1280] and logits of ImageNet's classes [batch, 1000]."""
        features = self.network.features(self.show(images)).mean((2, 3))
        return Looked(features, self.network.classifier(features))


def load(size: Size, device: torch.device, judge: Judge | None) -> MobileNetV2:
    """The network for images of one size."""
    return MobileNetV2(size, device, str(WEIGHTS.need()))
