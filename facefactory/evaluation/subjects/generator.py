"""Models that draw images: scores on every feature network, their scale, and the nearest training faces."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

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
    nearest,
    references,
    scoring,
)
from facefactory.evaluation.extractors import Extractor
from facefactory.evaluation.features import Kept
from facefactory.evaluation.subjects import Context
from facefactory.results import (
    Drawn,
    Goal,
    Protocol,
    Score,
    Sight,
    Strip,
    Truncated,
    Truncations,
)
from facefactory.sampling import SHOWN, draws

TAKES = ("sample",)
GOAL = Goal("kd_lite0", "lower")
MOST_PIXELS = (
    10_000  # real images of a split that are searched for the nearest one, and held in memory
)
TRUNCATED = "precision_recall"  # the metric by which truncations are told apart
PAIRS = 12  # faces in a row of reconstructions


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


def _metric_of(context: Context) -> scoring.Metric:
    """What the goal is: its kind, its file and the network on which it is."""
    return scoring.known(registry.names("evaluation.extractors"))[context.goal.metric]


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
            context.purpose,
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


def truncated(model: Any, context: Context, psis: Sequence[float]) -> Truncations:
    """Precision and recall of `quick_fakes` images at each psi (Kynkäänniemi et al., NeurIPS 2019), on the goal's network.

    Towards psi = 0 images become more typical (precision) and more alike (recall). UserError: statistics of the
    real images were not computed yet: they are looked at by scores alone.
    """
    network = _metric_of(context).features
    extractor = load(network, context)
    ours = protocol(network, extractor, context, context.options.quick_fakes)
    names = [scoring.files()[TRUNCATED].STATISTICS]
    real = references.known(context.index, ours, names)
    if len(real) < len(names):
        raise UserError(f"no scores on {network} were computed on this set yet")

    # the same noise at each
    reference = Shards(context.index, context.options.reference)
    asked = conditions.asked(model, reference, ours.fakes)
    rows = []
    for psi in psis:
        fakes = draws(model, asked, context.seed, context.purpose, psi)
        kept = features.keep(extractor, fakes, names)
        values = scoring.score(TRUNCATED, real, kept)
        rows.append(Truncated(psi, values["precision"], values["recall"]))
    shared = dataclasses.asdict(ours)
    del shared["truncation"]
    return Truncations(shared, rows)


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
    drawn: Iterable[torch.Tensor] = draws(model, asked, context.seed, context.purpose)
    watched = classes.Watched(context.judge.network) if context.judge else None
    if watched is not None:
        drawn = watched.through(drawn)
    found = compare(drawn, len(asked), context, folder)
    more = _by_label(model, context, found, watched, len(asked))
    if autoencoders.reconstructs(model):
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
    goal = _metric_of(context)
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
    options = context.options
    reference = Shards(context.index, options.reference)
    seen_at_once = min(options.reals, MOST_PIXELS)
    real = reference.some(seen_at_once)
    held_out = None
    if options.held_out:
        held_out = Shards(context.index, options.held_out).some(seen_at_once)
    networks = {name: load(name, context) for name in usable(context)}

    # one pass over the images, whose features are kept in parts
    parts = Parts(networks, count, scoring.wanted())
    close = nearest.InPixels(real)
    first = []
    for chunk in chunks:
        close.add(chunk)
        if parts.count < SHOWN:
            first.append(chunk[: SHOWN - parts.count])
        parts.add(chunk)
    shown = torch.cat(first)

    # what they are compared with, and how they compare
    sides = {}
    for name, extractor in networks.items():
        sides[name] = _side(name, extractor, context, count, held_out)
    scores, results = _scored(
        sides, parts.kept, _people(reference, reference.chosen(options.reals))
    )

    # pictures, and the nearest training faces
    pixels.write(grid(shown, 8), folder / "samples.png")
    others = reference.some(SHOWN)
    pixels.write(grid(others, min(8, len(others))), folder / "reference.png")
    usual = nearest.nearest(held_out, real)[1] if held_out is not None else None
    strips = [close.strip(usual, folder)]
    strips += _strips_by_features(sides, networks, shown, context, folder)
    results["strips"] = [dataclasses.asdict(one) for one in strips]
    ratio = None
    if usual is not None:
        ratio = nearest.memorisation_ratio(close.distances, usual)
    results["memorisation_ratio"] = ratio
    results["goal"] = dataclasses.asdict(context.goal)
    return Compared(sides, parts.kept, scores, results)


def _side(
    name: str, extractor: Extractor, context: Context, count: int, held_out: torch.Tensor | None
) -> Side:
    """What `count` generated images are compared with on one network."""
    ours = protocol(name, extractor, context, count)
    names = scoring.wanted()
    real = references.of(context.index, ours, extractor, names)
    return Side(ours, real, _kept(extractor, held_out, names), sight(name, context))


def _scored(
    sides: dict[str, Side], parts: dict[str, list[Kept]], people: Ids | None
) -> tuple[list[Score], dict[str, Any]]:
    """The scores on every network, and what results.json says of them."""
    scores: list[Score] = []
    absent: dict[str, str] = {}
    copied: list[str] = []
    for name, side in sides.items():
        found, left_out = side.scores(parts[name], people)
        scores += found
        absent |= left_out
        if extractors.file(name).RANKS and scoring.copied(found):
            copied.append(name)

    # on which networks, and which of the usual ones are not here
    protocols = {side.protocol.id(): dataclasses.asdict(side.protocol) for side in sides.values()}
    sights = {name: dataclasses.asdict(side.sight) for name, side in sides.items()}
    missing = {name: extractors.missing(name) for name in extractors.usual()}
    return scores, {
        "scores": [dataclasses.asdict(one) for one in scores],
        "absent": absent,
        "copied": copied,
        "protocols": protocols,
        "sights": sights,
        "not_staged": {name: how for name, how in missing.items() if how is not None},
    }


def _strips_by_features(
    sides: dict[str, Side],
    networks: dict[str, Extractor],
    shown: torch.Tensor,
    context: Context,
    folder: Path,
) -> list[Strip]:
    """The first images above their nearest training faces, on each network that may rank."""
    reference = Shards(context.index, context.options.reference)
    faces = nearest.Faces(reference, reference.chosen(context.options.reals))
    strips = []
    for name, side in sides.items():
        if extractors.file(name).RANKS:
            new = side.new["sample"].value() if side.new is not None else None
            eye = nearest.Eye(name, networks[name], side.real["sample"].value(), new)
            strips.append(nearest.strip_by_features(eye, shown, faces, folder))
    return strips


def _kept(extractor: Extractor, faces: torch.Tensor | None, names: Collection[str]) -> Kept | None:
    """The statistics of held-out faces, where there are some."""
    return features.keep(extractor, faces.split(CHUNK), names) if faces is not None else None


def _people(shards: Shards, positions: Ids) -> Ids | None:
    """Whose the images at positions are; None: nothing says it."""
    group = shards.index.content.group
    if not group:
        return None
    column = shards.labels([group])[group].numpy()
    return labels.people_of(column, len(shards))[positions]


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

    # what was scored already: under N(0, I), or under the prior of the model's own
    reference = sets[options.reference]
    priors, absent = autoencoders.fitted(model, reference, context.seed)
    goal = _metric_of(context)
    first = autoencoders.TRAINED if priors else autoencoders.OWN
    words = priors.pop(first).words if priors else "trained with the model"
    of_goal = [dataclasses.asdict(one) for one in scores if one.kind == goal.kind]
    drawn = [Drawn(first, words, "samples.png", of_goal)]

    # under those that are fitted to its codes
    for name, prior in priors.items():
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
    for chunk in draws(model, asked, context.seed, context.purpose):
        if parts.count < SHOWN:
            shown.append(chunk[: SHOWN - parts.count])
        parts.add(chunk)
    pixels.write(grid(torch.cat(shown), 8), picture)
    people = _people(reference, reference.chosen(options.reals))
    found: list[Score] = []
    for name, side in sides.items():
        found += side.scores(parts.kept[name], people, {file: module})[0]
    return found
