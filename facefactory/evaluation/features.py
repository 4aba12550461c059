"""Images -> feature vectors, by the judge or by InceptionV3; images -> the judge's verdicts."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.order import Ids
from facefactory.metrics import Array

Extractor = Callable[[torch.Tensor], Array]  # [N, H, W, C] uint8 -> [N, D] float64


def _extractor(function: Callable[[torch.Tensor], torch.Tensor]) -> Extractor:
    """Chunk by chunk; the last two sets are remembered, so that the reference is looked at once, whatever it is compared with."""

    @functools.lru_cache(maxsize=2)  # by object: tensors are hashed by identity
    def extract(images: torch.Tensor) -> Array:
        with torch.inference_mode():
            return np.concatenate(
                [function(part).double().cpu().numpy() for part in images.split(CHUNK)]
            )

    return extract


def of_judge(judge: Any) -> Extractor:
    """Features of a classifier, at the resolution it was trained at: no resizing."""
    return _extractor(lambda part: judge.features(pixels.to_model(part).to(pixels.like(judge))))


def of_inception(path: Path, device: torch.device) -> Extractor:
    """Pool features (2048) of the standard InceptionV3; it resizes to 299 x 299 as the original FID code did."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).eval()
    network.to(device)
    return _extractor(
        lambda part: network(
            part.to(device).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()
        )[0]
    )


def logits(
    classifier: Any, shards: Shards, positions: Ids | None = None
) -> dict[str, torch.Tensor]:
    """Label -> logits [N, classes] of the images at positions (default all), on the CPU."""
    with torch.inference_mode():
        parts = [
            classifier.logits(pixels.to_model(part).to(pixels.like(classifier)))
            for part in shards.chunks(positions)
        ]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
