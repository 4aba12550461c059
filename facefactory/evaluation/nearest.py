"""The training faces nearest to generated ones, in pixels and in features: strips to look at, and distances."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist

from facefactory import UserError
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.order import Ids
from facefactory.data.sets.pixels import grid
from facefactory.evaluation import features
from facefactory.evaluation.extractors import Extractor
from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import nearest as neighbours
from facefactory.results import Strip

PAIRS = 12  # faces in a strip
TWINS = 3  # nearest ones of each by features


def nearest(images: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, Array]:
    """Nearest training face [n, H, W, C] of each image [n, H, W, C] by pixels, mirrored ones included, and the distances."""
    rows = images.flatten(1).double().numpy()
    twins = images.clone()
    least = np.full(len(images), np.inf)
    for part in real.split(CHUNK):
        faces = torch.cat([part, part.flip(2)])
        found = cdist(rows, faces.flatten(1).double().numpy())
        nearer = np.flatnonzero(found.min(1) < least)
        twins[nearer] = faces[found.argmin(1)[nearer]]
        least = np.minimum(least, found.min(1))
    return twins, least


class InPixels:
    """Distances of generated images to their nearest training face, chunk by chunk; the first of them with that face."""

    def __init__(self, real: torch.Tensor) -> None:
        self.real = real  # [n, H, W, C] uint8
        self.parts: list[Array] = []
        self.first: tuple[torch.Tensor, torch.Tensor] | None = None

    def add(self, images: torch.Tensor) -> None:
        """The next images [n, H, W, C] uint8."""
        twins, least = nearest(images, self.real)
        self.parts.append(least)
        if self.first is None:
            self.first = images[:PAIRS], twins[:PAIRS]

    @property
    def distances(self) -> Array:
        """Of all images so far."""
        return np.concatenate(self.parts)

    def strip(self, usual: Array | None, folder: Path) -> Strip:
        """The first images above their nearest training faces; `usual`: distances of held-out faces."""
        assert self.first is not None
        count = len(self.first[0])
        pixels.write(grid(torch.cat(self.first), count), folder / "nearest.png")
        middle = None if usual is None else float(np.median(usual))
        return Strip("pixels", "nearest.png", self.parts[0][:count].tolist(), middle)


def memorisation_ratio(drawn: Array, usual: Array) -> float:
    """Median distance of fakes to their nearest training face over that of held-out people; copies give 0.

    Raises:
        UserError: half of the held-out faces are training faces.
    """
    middle = float(np.median(usual))
    if middle == 0:
        raise UserError(
            "at least half of the held-out faces are training faces, so copies cannot be told from new faces; "
            "evaluation.held_out must be another split than evaluation.reference, of other people."
        )
    return float(np.median(drawn)) / middle


@dataclass(frozen=True)
class Faces:
    """The training faces that are searched: images of a split, at positions."""

    shards: Shards
    positions: Ids


@dataclass(frozen=True)
class Eye:
    """A network, and what it sees of the training faces."""

    name: str
    extractor: Extractor
    real: Array  # features [N, d] of the training faces
    new: Array | None  # those of held-out faces, where there are some


def strip_by_features(eye: Eye, shown: torch.Tensor, faces: Faces, folder: Path) -> Strip:
    """The first of some images [n, H, W, C] uint8 above the training faces nearest in features, the nearest first.

    The picture is written into `folder`.
    """
    count = min(PAIRS, len(shown))
    seen = features.sample(eye.extractor, shown[:count])
    found = neighbours(seen, eye.real, min(TWINS, len(eye.real)))
    rows = [shown[:count]]
    for place in found.rows.T:
        rows.append(faces.shards.images(faces.positions[place]))
    name = f"nearest-{eye.name}.png"
    pixels.write(grid(torch.cat(rows), count), folder / name)

    # how near held-out faces are usually
    middle = None
    if eye.new is not None:
        middle = float(np.median(np.sqrt(neighbours(eye.new, eye.real, 1).squared)))
    distances = np.sqrt(found.squared[:, 0]).tolist()
    return Strip(eye.name, name, distances, middle)
