"""What the scores on a network's features see: real faces are spoilt and scored, once a set and network, and remembered."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from facefactory import UserError, metrics, registry, rundir
from facefactory.data.sets import labels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids, permute
from facefactory.evaluation import distortions, features, references, scoring, statistics
from facefactory.evaluation.distortions import Faces
from facefactory.evaluation.extractors import Extractor, Looked
from facefactory.evaluation.features import Kept
from facefactory.results import Protocol, Sight

SPOILT = 64  # faces
COMPARED = 512  # faces that they are compared with, at most
HALVES = 8  # of the unspoilt faces, whose scores tell what is chance
NEEDED = ("blur", "ghosting", "noise")  # what a search's score must see


def _files() -> dict[str, ModuleType]:
    names = registry.names("evaluation.distortions")
    return {name: registry.module("evaluation.distortions", name) for name in names}


def look(index: Index, protocol: Protocol, held_out: str, extractor: Extractor) -> Sight:
    """What scores on a network's features see of spoilt faces of `protocol.split`; new people are those of `held_out`, if any."""
    # what it depends on: set, protocol, and the code that spoils and scores
    source = [
        path.read_text()
        for package in (distortions, metrics)
        for path in sorted(Path(package.__path__[0]).rglob("*.py"))
    ]
    source.append(Path(__file__).read_text())
    made_of = [
        dataclasses.asdict(protocol.reference()),
        held_out,
        index.labels_digest,
        SPOILT,
        COMPARED,
        source,
    ]
    place = references.folder(index)
    path = place / f"{rundir.digest(made_of)[:16]}-sight.json"

    # made by one process, read by the others
    known = rundir.read_sealed(path)
    if known is None:
        with references.alone(place):
            known = rundir.read_sealed(path)
            if known is None:
                seen = _look(index, protocol, held_out, extractor)
                references.write(
                    path,
                    lambda temporary: rundir.write_sealed(temporary, dataclasses.asdict(seen)),
                )
                return seen
    return Sight(**known)


def halves(groups: Ids) -> tuple[Ids, Ids]:
    """Positions of two halves of images with people in common, other photographs in each; both ordered by person."""
    order = np.lexsort((np.arange(len(groups)), groups))
    return order[0::2], order[1::2]


def _some(shards: Shards, count: int) -> tuple[Ids, Ids]:
    """Positions of about `count` images, whole people of theirs, always the same ones; and whose they are."""
    group = shards.index.content.group
    names = [group] if group else []
    table = {name: column.numpy() for name, column in shards.labels(names).items()}
    groups = labels.people_of(table[group] if group else None, len(shards))
    people, first = np.unique(groups, return_inverse=True)
    turn = permute(np.arange(len(people)), len(people), 4)[
        first
    ]  # the place of an image's person in a shuffle
    chosen = np.argsort(turn, kind="stable")[: max(count, 2)]
    return chosen, groups[chosen]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What scores say of sets of faces, against one reference."""

    extractor: Extractor
    real: Kept
    fresh: Kept | None  # new people, where some are held out
    names: set[str]  # of statistics
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # score -> why

    def of(self, looked: Looked, asked: Mapping[str, ModuleType]) -> dict[str, float]:
        """Score -> value of what the network made of some faces."""
        fake = {name: statistics.make(name) for name in self.names}
        for one in fake.values():
            one.add(looked, np.arange(len(looked.features)))
        found: dict[str, float] = {}
        for file, module in asked.items():
            sets = (self.real[module.STATISTICS], fake[module.STATISTICS])
            try:
                if scoring.too_few(*(one.value() for one in sets)):
                    raise ValueError("a covariance needs more images than are spoilt")
                found |= scoring.score(file, self.real, fake, self.fresh)
            except ValueError as error:
                self.left_out.update(dict.fromkeys(module.SCORES, str(error)))
        return {kind: value for kind, value in found.items() if np.isfinite(value)}

    def of_images(self, images: torch.Tensor, asked: Mapping[str, ModuleType]) -> dict[str, float]:
        """The same of images [n, H, W, C] uint8."""
        return self.of(features.look(self.extractor, images), asked)

    def chance(self, looked: Looked, asked: Mapping[str, ModuleType]) -> dict[str, float]:
        """Score -> standard error of its value, as the spread of the values of random halves.

        A half differs from the whole by as much as the whole from all that it might have been (Shao & Wu, "A general
        theory for jackknife variance estimation", Annals of Statistics 1989). No entry where a half is too few.
        """
        rng = np.random.default_rng(0)
        count = len(looked.features)
        drawn = []
        for _ in range(HALVES):
            rows = torch.from_numpy(rng.permutation(count)[: count // 2])
            logits = None if looked.logits is None else looked.logits[rows]
            drawn.append(self.of(Looked(looked.features[rows], logits), asked))
        everywhere = set(drawn[0]).intersection(*drawn)
        return {
            kind: float(np.std([values[kind] for values in drawn], ddof=1)) for kind in everywhere
        }


def _faces(index: Index, split: str) -> Faces:
    """Faces to be spoilt, and as many others of the same people to be compared with."""
    shards = Shards(index, split)
    positions, groups = _some(shards, 2 * COMPARED)
    if len(positions) < 4:
        raise UserError(
            f"the split {split!r} has {len(positions)} images; scores need 4 at least."
        )
    compared, spoilable = halves(groups)
    reference, more = (shards.images(positions[half]) for half in (compared, spoilable))
    spread = np.linspace(0, len(more) - 1, min(SPOILT, len(more))).round().astype(int)
    known = bool(index.content.group)
    return Faces(more[torch.from_numpy(spread)], more, groups[spoilable], known, reference)


def _look(index: Index, protocol: Protocol, held_out: str, extractor: Extractor) -> Sight:
    """Spoil, score, note; see `look`."""
    faces = _faces(index, protocol.split)
    new = Shards(index, held_out).some(COMPARED) if held_out else None

    # who is asked: all scores about real faces, those of looks about spoilt ones
    every = scoring.files()
    unbiased = {name: module for name, module in every.items() if hasattr(module, "UNBIASED")}
    looks = {name: module for name, module in every.items() if not scoring.tests_copying(module)}
    names = scoring.wanted()
    scores = Scores(
        extractor,
        real=features.keep(extractor, [faces.reference], names),
        fresh=None if new is None else features.keep(extractor, [new], names),
        names=names,
    )

    # faces as they are
    unspoilt = features.look(extractor, faces.images)
    floor = scores.of(unspoilt, every)
    marks = {"floor": scores.of_images(faces.more, unbiased)}
    if new is not None:
        marks["new_people"] = scores.of_images(new, unbiased)
    too_few = dict(scores.left_out)
    chance = scores.chance(unspoilt, every)
    scores.left_out.clear()  # a half may lack images where the whole does not

    # every distortion at every severity
    left_out: dict[str, str] = {}
    curves: dict[str, dict[str, list[float]]] = {kind: {} for kind in floor}
    for name, module in _files().items():
        asked = every if getattr(module, "COPIES", False) else looks
        try:
            spoilt = [module.spoil(faces, amount) for amount in module.AMOUNTS]
        except ValueError as error:
            left_out[name] = str(error)
            continue
        rows = [scores.of_images(images, asked) for images in spoilt]
        for kind in floor:
            if all(kind in row for row in rows):
                curves[kind][name] = [row[kind] for row in rows]
        if module.MARK:
            mark, amount = module.MARK
            marks[mark] = scores.of_images(module.spoil(faces, amount), unbiased)

    known = scoring.known([protocol.features]).values()
    return Sight(
        features=protocol.features,
        weights=protocol.weights,
        images=len(faces.images),
        reference=len(faces.reference),
        better={metric.kind: metric.better for metric in known if metric.kind in floor},
        floor=floor,
        marks={
            kind: {mark: values[kind] for mark, values in marks.items() if kind in values}
            for module in unbiased.values()
            for kind in module.UNBIASED
            if kind in floor
        },
        curves=curves,
        chance=chance,
        left_out=too_few | scores.left_out | left_out,
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
