"""Images -> feature vectors, by the judge or by InceptionV3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from facefactory.data import pixels

Array = npt.NDArray[np.float64]
Extractor = Callable[[torch.Tensor], Array]  # [N, H, W, C] uint8 -> [N, D] float64
CHUNK = 256


def like(model: Any) -> torch.Tensor:
    """A tensor of the device and type that a model works in; the CPU and float32 for a model without weights."""
    weights = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
    return torch.zeros(()) if weights is None else weights


def _chunked(images: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> Array:
    with torch.inference_mode():
        parts = [function(images[i : i + CHUNK]).double().cpu().numpy() for i in range(0, len(images), CHUNK)]
    return np.concatenate(parts)


def of_judge(judge: Any) -> Extractor:
    """Features of a classifier, at the resolution it was trained at: no resizing."""
    return lambda images: _chunked(images, lambda part: judge.features(pixels.to_model(part).to(like(judge))))


def of_inception(path: Path) -> Extractor:
    """Pool features (2048) of the standard InceptionV3; it resizes to 299 x 299 as the original FID code did."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)).eval()
    return lambda images: _chunked(images, lambda part: network(part.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous())[0])
