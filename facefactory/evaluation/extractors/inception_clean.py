"""The same InceptionV3 on images that are resized before it as clean-fid does.

Parmar, Zhang & Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022, §4: Pillow's bicubic
filter, which antialiases where it shrinks, on each channel in floating point, clipped to 0…255 and not rounded.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from facefactory.data.sets.transfer import send
from facefactory.evaluation.extractors import Judge, Looked, inception
from facefactory.facts import Size
from facefactory.metrics import Array

WEIGHTS = inception.WEIGHTS
NEEDS = ()
RANKS = True
ASKED = True
NAMES = {"fd": "fid_clean", "kd": "kid_clean", "is": "is_clean"}


class Clean(inception.Inception):
    """See `Extractor`."""

    resize = "to 299x299, antialiased bicubic on floats as in clean-fid"

    def __call__(self, images: torch.Tensor) -> Looked:
        """[batch, H, W, C] uint8 -> features [batch, 2048] and logits [batch, 1008]."""
        resized = np.stack([resize(image) for image in images.cpu().numpy()])
        return self.see(send(torch.from_numpy(resized), self.device).expand(-1, 3, -1, -1))


def resize(image: Array) -> Array:
    """[H, W, C] uint8 -> [C, 299, 299] float32 in 0…255."""
    channels = []
    for channel in np.moveaxis(image, 2, 0):
        floats = Image.fromarray(channel.astype(np.float32), mode="F")
        channels.append(
            np.asarray(floats.resize((inception.SIDE, inception.SIDE), Image.Resampling.BICUBIC))
        )
    return np.stack(channels).clip(0, 255)


def load(size: Size, device: torch.device, judge: Judge | None) -> Clean:
    """The network."""
    return Clean(device, str(WEIGHTS.need()))
