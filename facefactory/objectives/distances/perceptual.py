"""Perceptual distance: how unlike images are to the first layers of a network that was trained on photographs.

Johnson, Alahi & Fei-Fei, ECCV 2016, §3.2, for VAEs: Hou et al., "Deep Feature Consistent Variational Autoencoder", WACV
2017; on directions of features as in LPIPS (Zhang et al., CVPR 2018, eq. 1, without its learned weights). The network is
EfficientNet-lite0, on whose last features samples are scored, so a score on it flatters who was trained by it; its layers
here are the first ones, at an eighth of the side at least.
"""

import torch
from torch import Tensor

from facefactory import UserError, weights
from facefactory.facts import Facts
from facefactory.objectives.distances import Distance
from facefactory.schedule import Scheduled, at, least
from facefactory.weights import efficientnet_lite

AFTER = (1, 3, 5)  # blocks: maps of a half, a quarter and an eighth of the side
EPSILON = 1e-6  # of a squared length; features of a flat image may all be zero
COLOURS = 3  # that the network sees
WEIGHTS = weights.named("efficientnet-lite0")


class Component(Distance):
    """½ Σ ‖u(x) - u(x̃)‖² over the places of three layers, u being the features of a place at unit length.

    That is -log p of a normal around each direction, of deviation weight^-½, but for a constant: nats per image like those
    of pixels. Images are seen at their own size: at 64 x 64 there are 1,344 places, so it is 2,688 · weight at most.

    Args:
        facts: channels of the images; gray is seen as three equal colours.
        weight: a number or a schedule in kimg.
    """

    def __init__(self, facts: Facts, *, weight: Scheduled = 10.0) -> None:
        if least(weight) < 0:
            raise UserError(f"perceptual: weight={weight}; it must be at least 0.")
        self._weight = weight
        if facts.channels not in (1, COLOURS):
            raise UserError(
                f"perceptual: it sees gray or {COLOURS} colours; these images have {facts.channels} channels."
            )
        # no module of the objective's: it is never trained, and no checkpoint holds it
        path = str(WEIGHTS.need())
        self.network = efficientnet_lite.load(path, torch.device("cpu"))

    def weight(self, kimg: float) -> float:
        """As asked for."""
        return at(self._weight, kimg)

    def directions(self, images: Tensor) -> list[Tensor]:
        """Images [b, C, H, W] in -1…1 -> features of unit length [b, D, h, w] of each layer."""
        colours = images.expand(-1, COLOURS, -1, -1)
        maps = self.network.maps(efficientnet_lite.standardised(colours), AFTER)
        lengths = [(one.square().sum(1, keepdim=True) + EPSILON).sqrt() for one in maps]
        return [one / length for one, length in zip(maps, lengths, strict=True)]

    def __call__(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b]."""
        self.network.to(images)
        with torch.no_grad():
            wanted = self.directions(images)
        nats = images.new_zeros(len(images))
        for there, here in zip(wanted, self.directions(decoded), strict=True):
            away = (here.to(images) - there.to(images)).square()
            nats = nats + 0.5 * away.flatten(1).sum(1)
        return nats
