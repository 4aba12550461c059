"""What the scores on a network's features see: real faces are spoilt and scored, once a set and network, and remembered."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from facefactory import UserError, config, metrics, registry, rundir
from facefactory.data.sets import labels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids, permute
from facefactory.evaluation import distortions, features, references, scoring
from facefactory.evaluation.distortions import Faces
from facefactory.evaluation.extractors import Extractor
from facefactory.results import Protocol, Sight

SPOILT = 64  # faces
COMPARED = 512  # faces that they are compared with, at most
NEEDED = ("blur", "ghosting", "noise")  # what a search's score must see


def _files() -> dict[str, ModuleType]:
    names = registry.names("evaluation.distortions")
    return {name: registry.module("evaluation.distortions", name) for name in names}


def look(index: Index, protocol: Protocol, held_out: str, extractor: Extractor) -> Sight:
    """What scores on a network's features see of spoilt faces of `protocol.split`; new people are those of `held_out`."""
    # what it depends on: set, protocol, and the code that spoils and scores
    source = [
        path.read_text()
        for package in (distortions, metrics)
        for path in sorted(Path(package.__path__[0]).rglob("*.py"))
    ]
    made_of = [
        dataclasses.asdict(protocol.reference()),
        held_out,
        index.labels_digest,
        SPOILT,
        COMPARED,
        source,
    ]
    place = references.folder(index)
    path = place / f"{config.digest(made_of)[:16]}-sight.json"

    # made by one process, read by the others
    known = rundir.read_json(path)
    if known is None:
        with references.alone(place):
            known = rundir.read_json(path)
            if known is None:
                seen = _look(index, protocol, held_out, extractor)
                references.write(
                    path, lambda temporary: rundir.write_json(temporary, dataclasses.asdict(seen))
                )
                return seen
    return Sight(**known)


def halves(groups: Ids) -> tuple[Ids, Ids]:
    """Positions of two halves of images with people in common, other photographs in each; both ordered by person."""
    order = np.lexsort((np.arange(len(groups)), groups))
    return order[0::2], order[1::2]


def _some(shards: Shards, count: int) -> tuple[Ids, Ids]:
    """Positions of about `count` images, whole people of theirs, always the same ones; and whose they are."""
    group = shards.index.content["group"]
    names = [group] if group else []
    table = {name: column.numpy() for name, column in shards.labels(names).items()}
    groups = labels.people_of(table[group] if group else None, len(shards))
    people, first = np.unique(groups, return_inverse=True)
    turn = permute(np.arange(len(people)), len(people), 4)[
        first
    ]  # the place of an image's person in a shuffle
    chosen = np.argsort(turn, kind="stable")[: max(count, 2)]
    return chosen, groups[chosen]


def _look(index: Index, protocol: Protocol, held_out: str, extractor: Extractor) -> Sight:
    """Spoil, score, note; see `look`."""
    shards = Shards(index, protocol.split)
    positions, groups = _some(shards, 2 * COMPARED)
    if len(positions) < 4:
        raise UserError(
            f"the split {protocol.split!r} has {len(positions)} images; scores need 4 at least."
        )
    compared, spoilable = halves(groups)
    reference, more = (shards.images(positions[half]) for half in (compared, spoilable))
    spread = np.linspace(0, len(more) - 1, min(SPOILT, len(more))).round().astype(int)
    known = bool(index.content["group"])
    faces = Faces(more[torch.from_numpy(spread)], more, groups[spoilable], known, reference)
    new = Shards(index, held_out).some(COMPARED)

    # the scores of a set against the reference, by the metrics that are asked
    network = protocol.features
    every = scoring.files()
    unbiased = {name: module for name, module in every.items() if hasattr(module, "UNBIASED")}
    looks = {name: module for name, module in every.items() if not scoring.tests_copying(module)}
    names = scoring.wanted()
    real = features.keep(extractor, [reference], names)
    fresh = features.keep(extractor, [new], names)
    left_out: dict[str, str] = {}

    def scored(images: torch.Tensor, asked: Mapping[str, ModuleType]) -> dict[str, float]:
        fake = features.keep(extractor, [images], {module.STATISTICS for module in asked.values()})
        found: dict[str, float] = {}
        for file, module in asked.items():
            sets = (real[module.STATISTICS], fake[module.STATISTICS])
            try:
                if scoring.too_few(*(one.value() for one in sets)):
                    raise ValueError("a covariance needs more images than are spoilt")
                found |= scoring.score(file, real, fake, fresh)
            except ValueError as error:
                left_out.update(dict.fromkeys(module.SCORES, str(error)))
        return {kind: value for kind, value in found.items() if np.isfinite(value)}

    # every distortion at every severity
    floor = scored(faces.images, every)
    curves: dict[str, dict[str, list[float]]] = {kind: {} for kind in floor}
    marks = {"floor": scored(more, unbiased), "new_people": scored(new, unbiased)}
    for name, module in _files().items():
        asked = every if getattr(module, "COPIES", False) else looks
        try:
            rows = [scored(module.spoil(faces, amount), asked) for amount in module.AMOUNTS]
        except ValueError as error:
            left_out[name] = str(error)
            continue
        for kind in floor:
            if all(kind in row for row in rows):
                curves[kind][name] = [row[kind] for row in rows]
        if module.MARK:
            mark, amount = module.MARK
            marks[mark] = scored(module.spoil(faces, amount), unbiased)

    return Sight(
        features=network,
        weights=protocol.weights,
        images=len(faces.images),
        reference=len(reference),
        better={
            kind: metric.better
            for metric in scoring.known([network]).values()
            for kind in [metric.kind]
            if kind in floor
        },
        floor=floor,
        marks={
            kind: {mark: values[kind] for mark, values in marks.items() if kind in values}
            for module in unbiased.values()
            for kind in module.UNBIASED
            if kind in floor
        },
        curves=curves,
        left_out=left_out,
    )


def admit(sight: Sight, goal: str, kind: str) -> None:
    """Refuse a search whose score does not see what everybody sees.

    Raises:
        UserError: with the list of what it is blind to.
    """
    blind = [name for name in sight.blind(kind) if name in NEEDED]
    if blind:
        raise UserError(
            f"sweep.goal={goal} is blind to {', '.join(blind)} on this set ({sight.images} faces spoilt at six severities; "
            f"blind to {', '.join(sight.blind(kind))} in all): a search would be led astray. Give another sweep.goal."
        )
