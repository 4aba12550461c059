"""Images -> statistics of their features, batch by batch; images -> the logits of a classifier."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids
from facefactory.data.sets.transfer import send, to_host
from facefactory.evaluation import statistics
from facefactory.evaluation.extractors import Extractor, Looked
from facefactory.evaluation.statistics import Statistics
from facefactory.metrics import Array

Kept = dict[str, Statistics]  # by the statistics' names


def look(extractor: Extractor, images: torch.Tensor) -> Looked:
    """What a network makes of images [n, H, W, C] uint8, whatever their number.

    It always sees batches of its own size, the last one filled up: sums in a layer may depend on how many images there are.
    """

    def parts() -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(images), extractor.batch):
            part = images[start : start + extractor.batch]
            full = part[torch.arange(extractor.batch) % len(part)]
            seen = extractor(full)
            tensors = (seen.features, seen.logits)
            yield tuple(tensor[: len(part)] for tensor in tensors if tensor is not None)

    with torch.inference_mode():
        features, *logits = map(torch.cat, zip(*to_host(parts()), strict=True))
    return Looked(features, logits[0] if logits else None)


def keep(
    extractor: Extractor,
    chunks: Iterable[torch.Tensor],
    names: Iterable[str],
    positions: Ids | None = None,
) -> Kept:
    """The statistics of some images, which come in chunks [n, H, W, C] uint8; `positions`: theirs, by default from 0 on."""
    kept: Kept = {name: statistics.make(name) for name in names}
    start = 0
    for chunk in chunks:
        looked = look(extractor, chunk)
        rows = np.arange(start, start + len(chunk))
        for one in kept.values():
            one.add(looked, rows if positions is None else positions[rows])
        start += len(chunk)
    return kept


def sort_in(
    parts: list[Kept], looked: Looked, positions: Ids, part_of: Ids, names: Iterable[str]
) -> None:
    """Add rows of features to the part of each of them; parts that are not there yet are made."""
    names = list(names)
    for part in np.unique(part_of):
        while len(parts) <= part:
            parts.append({name: statistics.make(name) for name in names})
        mine = torch.from_numpy(part_of == part)
        logits = None if looked.logits is None else looked.logits[mine]
        for one in parts[part].values():
            one.add(Looked(looked.features[mine], logits), positions[part_of == part])


def merged(parts: Iterable[Mapping[str, Statistics]]) -> Kept:
    """The statistics of all parts together; the parts stay as they are."""
    whole: Kept = {}
    for part in parts:
        for name, one in part.items():
            whole.setdefault(name, statistics.make(name)).merge(one)
    return whole


def sample(extractor: Extractor, images: torch.Tensor) -> Array:
    """Features [N, D] of images [N, H, W, C] uint8."""
    return look(extractor, images).features.double().numpy()


def verdicts(classifier: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Label -> logits [N, classes] of images [N, H, W, C] uint8, as people would see them; on the CPU."""
    like = pixels.like(classifier)
    with torch.inference_mode():
        found = classifier.logits(pixels.to_model(send(images, like.device)).to(like))
    return {name: one.cpu() for name, one in found.items()}


def logits(
    classifier: Any, shards: Shards, positions: Ids | None = None
) -> dict[str, torch.Tensor]:
    """Label -> logits [N, classes] of the images at positions (default all), on the CPU."""
    like = pixels.like(classifier)
    names: list[str] = []

    def parts() -> Iterator[tuple[torch.Tensor, ...]]:
        for chunk in shards.chunks(positions):
            said = classifier.logits(pixels.to_model(send(chunk, like.device)).to(like))
            names[:] = said
            yield tuple(said.values())

    with torch.inference_mode():
        columns = map(torch.cat, zip(*to_host(parts()), strict=True))
        return dict(zip(names, columns, strict=True))
