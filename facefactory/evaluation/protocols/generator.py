"""The protocol for models that draw images: scores on every feature network, their scale, and the nearest training faces."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from facefactory import UserError, conditions, registry
from facefactory.data.sets import labels, pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.order import Ids
from facefactory.data.sets.pixels import grid
from facefactory.evaluation import (
    Evaluation,
    autoencoders,
    blindness,
    classes,
    extractors,
    features,
    references,
    scoring,
)
from facefactory.evaluation.extractors import Extractor
from facefactory.evaluation.features import Kept
from facefactory.evaluation.protocols import Context
from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import nearest as neighbours
from facefactory.results import Drawn, Goal, Protocol, Score, Sight, Strip
from facefactory.sampling import SHOWN, draws

TAKES = ("sample",)
GOAL = Goal("kd_lite0", "lower")
MOST_PIXELS = (
    10_000  # real images of a split that are searched for the nearest one, and held in memory
)
PAIRS = 12  # faces in a strip of nearest neighbours
TWINS = 3  # nearest ones of each by features


def needs(options: Evaluation) -> tuple[str, ...]:
    """The judge, where a network of the protocol has its features."""
    networks = options.networks or extractors.usual()
    found = [need for name in networks for need in extractors.file(name).NEEDS]
    return tuple(dict.fromkeys(found))


def goal(name: str | None, options: Evaluation) -> Goal:
    """What a search looks for, by the name of a score of the protocol.

    Raises:
        Missing: weights of the protocol are not here.
        UserError: there is no such score, or its network must not rank.
    """
    key = "evaluation.goal" if name is None else "sweep.goal"
    name = name or options.goal
    if name is None:
        name = scoring.called("kd", options.networks[0]) if options.networks else GOAL.metric
    found = scoring.goal(name, key, options.networks)
    for network in options.networks:
        extractors.require(network)
    return found


def load(network: str, context: Context) -> Extractor:
    """A feature network for the images of a set."""
    judge = context.judge if extractors.file(network).NEEDS else None
    return extractors.load(network, context.index.size, context.device, judge)


def usable(context: Context) -> list[str]:
    """The feature networks of the protocol that can be loaded here, those that rank first."""
    wanted = context.options.networks or extractors.present()
    return [
        name for name in wanted if context.judge is not None or not extractors.file(name).NEEDS
    ]


def protocol(network: str, extractor: Extractor, context: Context, fakes: int) -> Protocol:
    """How generated images are compared with the reference."""
    options = context.options
    content = context.index.content
    return Protocol(
        features=network,
        weights=extractor.weights,
        resize=extractor.resize,
        rounding="uint8",
        dataset=context.index.images_digest[:12],
        split=options.reference,
        crop=str(content.crop),
        reals=min(options.reals, content.splits[options.reference].count),
        fakes=fakes,
        seed=context.seed,
        average=context.average,
        truncation=1.0,
    )


def sight(network: str, context: Context) -> Sight:
    """What the scores of a network see on this set."""
    extractor = load(network, context)
    return blindness.look(
        context.index,
        protocol(network, extractor, context, 0),
        context.options.held_out,
        extractor,
    )


def admit(context: Context) -> None:
    """Refuse a goal that is blind to what everybody sees."""
    metric = scoring.known(usable(context))[context.goal.metric]
    blindness.admit(sight(metric.features, context), context.goal.metric, metric.kind)


def quick(model: Any, context: Context) -> dict[str, float]:
    """The goal, and the same metric on the networks that never rank (the judge's), of `quick_fakes` images."""
    options = context.options
    goal = scoring.known(usable(context))[context.goal.metric]
    reference = Shards(context.index, options.reference)
    fakes = list(
        draws(
            model,
            conditions.asked(model, reference, options.quick_fakes),
            context.seed,
            "evaluation",
        )
    )
    names = [scoring.files()[goal.file].STATISTICS]
    found = {}
    for network in usable(context):
        if network == goal.features or not extractors.file(network).RANKS:
            extractor = load(network, context)
            real = references.of(
                context.index, protocol(network, extractor, context, 0), extractor, names
            )
            values = scoring.score(goal.file, real, features.keep(extractor, fakes, names))
            found[scoring.called(goal.kind, network)] = values[goal.kind]
    return found


class Parts:
    """Features of generated images on some networks, in parts from whose scores intervals are told."""

    def __init__(self, networks: dict[str, Extractor], count: int, names: Collection[str]) -> None:
        self.networks = networks
        self.names = names
        self.kept: dict[str, list[Kept]] = {name: [] for name in networks}
        self.ends = [count * (part + 1) // scoring.PARTS for part in range(scoring.PARTS)]
        self.count = 0

    def add(self, chunk: torch.Tensor) -> None:
        """The next images [n, H, W, C] uint8."""
        rows = np.arange(self.count, self.count + len(chunk))
        part_of = np.searchsorted(self.ends, rows, side="right")
        for name, extractor in self.networks.items():
            looked = features.look(extractor, chunk)
            features.sort_in(self.kept[name], looked, rows, part_of, self.names)
        self.count += len(chunk)


@dataclasses.dataclass
class Nearest:
    """Generated images so far: their distances to the nearest training face, and the first of them with that face."""

    distances: list[Array]
    shown: list[torch.Tensor]  # [n, H, W, C] uint8
    twins: list[torch.Tensor]


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


@dataclasses.dataclass(frozen=True)
class Side:
    """What generated images are compared with, on the features of one network."""

    protocol: Protocol
    real: Kept
    new: Kept | None  # held-out people, where there are some
    sight: Sight

    def scores(
        self,
        parts: list[Kept],
        people: Ids | None,
        asked: Mapping[str, ModuleType] | None = None,
    ) -> tuple[list[Score], dict[str, str]]:
        """See `scoring.scores`."""
        name = self.protocol.features
        return scoring.scores(
            name, self.protocol, self.real, parts, self.new, self.sight, people, asked
        )


def full(model: Any, context: Context, folder: Path) -> dict[str, Any]:
    """Scores, scale, blind spots, protocols and pictures of a generative model; pictures are written into `folder`."""
    reference = Shards(context.index, context.options.reference)
    asked = conditions.asked(model, reference, context.options.fakes)
    drawn: Iterable[torch.Tensor] = draws(model, asked, context.seed, "evaluation")
    watched = classes.Watched(context.judge.network) if context.judge else None
    if watched is not None:
        drawn = watched.through(drawn)
    found = compare(drawn, len(asked), context, folder)
    more = _by_label(model, context, found, watched, len(asked))
    if hasattr(model, "encode"):
        more |= _autoencoder(model, context, found.sides, found.scores, folder)
    return found.results | more


def _by_label(
    model: Any, context: Context, found: "Compared", watched: classes.Watched | None, count: int
) -> dict[str, Any]:
    """Scores of each class, and whether what was drawn is what was asked for."""
    schema = context.index.content.labels
    reference = Shards(context.index, context.options.reference)
    wanted = [name for name in getattr(model, "conditions", ()) if name in schema]
    logits = watched.logits() if watched else {}
    by = classes.chosen(schema, wanted, logits)

    # the classes of the generated images, and of the real ones
    places = conditions.positions(reference, count)
    names = list(dict.fromkeys([*by, *wanted]))
    column = {name: values.numpy() for name, values in reference.labels(names).items()}
    drawn = {}
    for name, who in by.items():
        drawn[name] = column[name][places] if who == "asked" else logits[name].argmax(1).numpy()
    real_places = reference.chosen(context.options.reals)
    real = {name: column[name][real_places] for name in by}

    # on the features of the score that speaks for the model
    goal = scoring.known(registry.names("evaluation.extractors"))[context.goal.metric]
    network = goal.features if goal.features in found.sides else next(iter(found.sides))
    side = found.sides[network]
    rows = classes.scores(
        side.protocol,
        schema,
        (side.real["sample"].value(), real, _people(reference, real_places)),
        (classes.sample(found.fakes[network]), drawn),
        by,
    )
    asked = {name: column[name][places] for name in wanted}
    return {
        "classes": [dataclasses.asdict(one) for one in rows],
        "agreement": classes.agreement(logits, asked, schema),
    }


def held_out_of(context: Context) -> list[Shards]:
    """The split of held-out people, if there is one."""
    split = context.options.held_out
    return [Shards(context.index, split)] if split else []


@dataclasses.dataclass(frozen=True)
class Compared:
    """What some images are like, beside the reference."""

    sides: dict[str, Side]  # by network
    fakes: dict[str, list[Kept]]  # features of the images, by network
    scores: list[Score]
    results: dict[str, Any]  # as results.json has it


def compare(
    chunks: Iterable[torch.Tensor], count: int, context: Context, folder: Path
) -> Compared:
    """Scores, scale, blind spots and protocols of `count` images, which come in chunks [n, H, W, C] uint8.

    Pictures are written into `folder`.
    """
    index = context.index
    options = context.options
    reference = Shards(index, options.reference)
    seen_at_once = min(options.reals, MOST_PIXELS)
    real = reference.some(seen_at_once)
    held_out = [shards.some(seen_at_once) for shards in held_out_of(context)]
    networks = {name: load(name, context) for name in usable(context)}
    positions = reference.chosen(options.reals)
    people = _people(reference, positions)

    # one pass over the images, whose features are kept in parts
    parts = Parts(networks, count, scoring.wanted())
    close = Nearest([], [], [])
    for chunk in chunks:
        twins, least = nearest(chunk, real)
        close.distances.append(least)
        if parts.count < SHOWN:
            close.shown.append(chunk[: SHOWN - parts.count])
            close.twins.append(twins[: SHOWN - parts.count])
        parts.add(chunk)
    shown = torch.cat(close.shown)

    # what they are compared with
    sides = {
        name: Side(
            protocol=(made := protocol(name, extractor, context, count)),
            real=references.of(index, made, extractor, parts.names),
            new=_kept(extractor, held_out, parts.names),
            sight=sight(name, context),
        )
        for name, extractor in networks.items()
    }

    # the scores of each network
    scores: list[Score] = []
    absent: dict[str, str] = {}
    copied: list[str] = []
    for name, side in sides.items():
        found, left_out = side.scores(parts.kept[name], people)
        scores += found
        absent |= left_out
        if extractors.file(name).RANKS and scoring.copied(found):
            copied.append(name)

    # pictures
    usual = [nearest(faces, real)[1] for faces in held_out]
    pixels.write(grid(shown, 8), folder / "samples.png")
    others = reference.some(SHOWN)
    pixels.write(grid(others, min(8, len(others))), folder / "reference.png")
    strips = [_by_pixels(shown, torch.cat(close.twins), close.distances, usual, folder)]
    for name, side in sides.items():
        if extractors.file(name).RANKS:
            strips.append(_by_features(side, networks[name], shown, reference, positions, folder))
    ratio = memorisation_ratio(np.concatenate(close.distances), usual[0]) if usual else None

    missing = {name: extractors.missing(name) for name in extractors.usual()}
    not_staged = {name: how for name, how in missing.items() if how is not None}
    results = {
        "goal": dataclasses.asdict(context.goal),
        "scores": [dataclasses.asdict(one) for one in scores],
        "absent": absent,
        "copied": copied,
        "protocols": {
            side.protocol.id(): dataclasses.asdict(side.protocol) for side in sides.values()
        },
        "sights": {name: dataclasses.asdict(side.sight) for name, side in sides.items()},
        "not_staged": not_staged,
        "strips": [dataclasses.asdict(one) for one in strips],
        "memorisation_ratio": ratio,
    }
    return Compared(sides, parts.kept, scores, results)


def _kept(extractor: Extractor, faces: list[torch.Tensor], names: Collection[str]) -> Kept | None:
    """The statistics of held-out faces, where there are some."""
    return features.keep(extractor, faces[0].split(CHUNK), names) if faces else None


def _people(shards: Shards, positions: Ids) -> Ids | None:
    """Whose the images at positions are; None: nothing says it."""
    group = shards.index.content.group
    if not group:
        return None
    column = shards.labels([group])[group].numpy()
    return labels.people_of(column, len(shards))[positions]


def _by_pixels(
    shown: torch.Tensor, twins: torch.Tensor, least: list[Array], usual: list[Array], folder: Path
) -> Strip:
    """The first images above the training faces nearest in pixels."""
    count = min(PAIRS, len(shown))
    picture = grid(torch.cat([shown[:count], twins[:count]]), count)
    pixels.write(picture, folder / "nearest.png")
    distances = np.concatenate(least)[:count].tolist()
    middle = float(np.median(usual[0])) if usual else None
    return Strip("pixels", "nearest.png", distances, middle)


def _by_features(
    side: Side,
    extractor: Extractor,
    shown: torch.Tensor,
    reference: Shards,
    positions: Ids,
    folder: Path,
) -> Strip:
    """The first images above the training faces nearest in a network's features, the nearest first."""
    count = min(PAIRS, len(shown))
    real = side.real["sample"].value()
    found = neighbours(features.sample(extractor, shown[:count]), real, min(TWINS, len(real)))
    rows = [shown[:count]]
    for place in found.rows.T:
        rows.append(reference.images(positions[place]))
    name = f"nearest-{side.protocol.features}.png"
    pixels.write(grid(torch.cat(rows), count), folder / name)
    distances = np.sqrt(found.squared[:, 0]).tolist()
    middle = None
    if side.new is not None:
        usual = np.sqrt(neighbours(side.new["sample"].value(), real, 1).squared)
        middle = float(np.median(usual))
    return Strip(side.protocol.features, name, distances, middle)


def _autoencoder(
    model: Any, context: Context, sides: dict[str, Side], scores: list[Score], folder: Path
) -> dict[str, Any]:
    """Reconstructions, and samples under each prior with the scores of the goal's kind."""
    options = context.options
    splits = filter(None, (options.reference, options.held_out))
    sets = {split: Shards(context.index, split) for split in splits}
    rows = [autoencoders.shown(model, shards, options.reals, PAIRS) for shards in sets.values()]
    pixels.write(grid(torch.cat(rows), PAIRS), folder / "reconstructions.png")
    reconstructions = [
        autoencoders.reconstruct(
            model, context.likelihood, shards, split, options.reals, context.seed
        )
        for split, shards in sets.items()
    ]

    # N(0, I) is what was scored already
    reference = sets[options.reference]
    priors, absent = autoencoders.fitted(model, reference, context.seed)
    goal = scoring.known(registry.names("evaluation.extractors"))[context.goal.metric]
    drawn = []
    for name, prior in priors.items():
        if name == autoencoders.TRAINED:
            picture = "samples.png"
            found = [one for one in scores if one.kind == goal.kind]
        else:
            picture = f"samples-{name}.png"
            under = autoencoders.Under(model, prior)
            found = _scores_under(under, context, sides, goal.file, folder / picture)
        of_goal = [dataclasses.asdict(one) for one in found if one.kind == goal.kind]
        drawn.append(Drawn(name, prior.words, picture, of_goal))
    return {
        "reconstructions": [dataclasses.asdict(one) for one in reconstructions],
        "priors": [dataclasses.asdict(one) for one in drawn],
        "priors_absent": absent,
    }


def _scores_under(
    model: Any, context: Context, sides: dict[str, Side], file: str, picture: Path
) -> list[Score]:
    """The scores of one file of what a model draws from another prior, and a grid of it."""
    options = context.options
    reference = Shards(context.index, options.reference)
    module = scoring.files()[file]
    asked = conditions.asked(model, reference, options.fakes)
    networks = {name: load(name, context) for name in sides}
    parts = Parts(networks, len(asked), [module.STATISTICS])
    shown = []
    for chunk in draws(model, asked, context.seed, "evaluation"):
        if parts.count < SHOWN:
            shown.append(chunk[: SHOWN - parts.count])
        parts.add(chunk)
    pixels.write(grid(torch.cat(shown), 8), picture)
    people = _people(reference, reference.chosen(options.reals))
    found: list[Score] = []
    for name, side in sides.items():
        found += side.scores(parts.kept[name], people, {file: module})[0]
    return found
