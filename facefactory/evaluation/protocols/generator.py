"""The protocol for models that draw images: scores on every feature network, their scale, and the nearest training faces."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from facefactory import UserError, conditions
from facefactory.data.sets import labels, pixels
from facefactory.data.sets.device import send, to_host
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.data.sets.order import Ids
from facefactory.data.sets.pixels import grid
from facefactory.draws import normal
from facefactory.evaluation import (
    Evaluation,
    blindness,
    extractors,
    features,
    references,
    scoring,
)
from facefactory.evaluation.extractors import Extractor
from facefactory.evaluation.features import Kept
from facefactory.evaluation.protocols import Context
from facefactory.metrics import Array
from facefactory.results import Goal, Protocol, Score, Sight

TAKES = ("sample",)
GOAL = Goal("kd_lite0", "lower")
SHOWN = 64  # faces in a grid
MOST_PIXELS = (
    10_000  # real images of a split that are searched for the nearest one, and held in memory
)
PAIRS = 12  # faces in the strip of nearest neighbours


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


def draws(model: Any, c: torch.Tensor, seed: int, purpose: str) -> Iterator[torch.Tensor]:
    """Chunks of generated images [n, H, W, C] uint8, one for each condition in `c` [count, columns].

    The first ones are the same for any count.
    """
    like = pixels.like(model)

    def chunks() -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(c), CHUNK):
            wanted = c[start : start + CHUNK]
            # sums in a layer may depend on how many there are
            full = wanted[torch.arange(CHUNK) % len(wanted)]
            z = normal(seed, start, purpose, CHUNK, model.z_dim)
            with torch.inference_mode():
                images = model.sample(
                    send(z, like.device).to(like), send(full, like.device).to(like)
                )
            yield (pixels.to_uint8(images)[: len(wanted)],)

    for (images,) in to_host(chunks()):
        yield images


def draw(model: Any, c: torch.Tensor, seed: int, purpose: str) -> torch.Tensor:
    """Generated images [count, H, W, C] uint8, one for each condition in `c` [count, columns]."""
    return torch.cat(list(draws(model, c, seed, purpose)))


def load(network: str, context: Context) -> Extractor:
    """A feature network for the images of a set."""
    side = context.index.content["resolution"]
    judge = context.judge if extractors.file(network).NEEDS else None
    return extractors.load(network, side, context.device, judge)


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
        crop=str(content.get("crop")),
        reals=min(options.reals, content["splits"][options.reference]["count"]),
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


def full(model: Any, context: Context, folder: Path) -> dict[str, Any]:
    """Scores, scale, blind spots, protocols and pictures of a generative model; pictures are written into `folder`."""
    index, options = context.index, context.options
    reference, held_back = (
        Shards(index, split) for split in (options.reference, options.held_out)
    )
    seen_at_once = min(options.reals, MOST_PIXELS)
    real, held_out = (shards.some(seen_at_once) for shards in (reference, held_back))
    networks = {name: load(name, context) for name in usable(context)}
    wanted = scoring.wanted()
    people = _people(reference, reference.chosen(options.reals))

    # one pass over the generated images, whose features are kept in parts
    parts: dict[str, list[Kept]] = {name: [] for name in networks}
    close = Nearest([], [], [])
    asked = conditions.asked(model, reference, options.fakes)
    ends = [len(asked) * (part + 1) // scoring.PARTS for part in range(scoring.PARTS)]
    start = 0
    for chunk in draws(model, asked, context.seed, "evaluation"):
        rows = np.arange(start, start + len(chunk))
        part_of = np.searchsorted(ends, rows, side="right")
        for name, extractor in networks.items():
            looked = features.look(extractor, chunk)
            features.sort_in(parts[name], looked, rows, part_of, wanted)
        twins, least = nearest(chunk, real)
        close.distances.append(least)
        if start < SHOWN:
            close.shown.append(chunk[: SHOWN - start])
            close.twins.append(twins[: SHOWN - start])
        start += len(chunk)

    # the scores of each network
    scores: list[Score] = []
    absent: dict[str, str] = {}
    copied: list[str] = []
    sights: dict[str, Sight] = {}
    protocols: dict[str, Protocol] = {}
    for name, extractor in networks.items():
        made = protocol(name, extractor, context, options.fakes)
        sights[name] = sight(name, context)
        kept = references.of(index, made, extractor, wanted)
        new = features.keep(extractor, held_out.split(CHUNK), wanted)
        found, left_out = scoring.scores(name, made, kept, parts[name], new, sights[name], people)
        protocols[made.id()] = made
        scores += found
        if extractors.file(name).RANKS and scoring.copied(found):
            copied.append(name)
        absent |= left_out

    # pictures
    _, usual = nearest(held_out, real)
    shown, twins = torch.cat(close.shown), torch.cat(close.twins)
    pixels.write(grid(shown, 8), folder / "samples.png")
    pairs = min(PAIRS, len(shown))
    pixels.write(grid(torch.cat([shown[:pairs], twins[:pairs]]), pairs), folder / "nearest.png")
    if hasattr(model, "encode"):
        pixels.write(
            _reconstructions(model, [reference, held_back], options.reals),
            folder / "reconstructions.png",
        )

    missing = {name: extractors.missing(name) for name in extractors.usual()}
    not_staged = {name: how for name, how in missing.items() if how is not None}
    return {
        "goal": dataclasses.asdict(context.goal),
        "scores": [dataclasses.asdict(one) for one in scores],
        "absent": absent,
        "copied": copied,
        "protocols": {name: dataclasses.asdict(one) for name, one in protocols.items()},
        "sights": {name: dataclasses.asdict(one) for name, one in sights.items()},
        "not_staged": not_staged,
        "memorisation_ratio": memorisation_ratio(np.concatenate(close.distances), usual),
    }


def _people(shards: Shards, positions: Ids) -> Ids | None:
    """Whose the images at positions are; None: nothing says it."""
    group = shards.index.content["group"]
    if not group:
        return None
    column = shards.labels([group])[group].numpy()
    return labels.people_of(column, len(shards))[positions]


def _reconstructions(model: Any, sets: list[Shards], reals: int) -> Any:
    """Training faces over held-out people, each above what the model makes of it."""
    rows = []
    for shards in sets:
        positions = shards.chosen(reals)
        positions = positions[np.linspace(0, len(positions) - 1, PAIRS).astype(int)]
        shown = shards.images(positions)
        c = conditions.of_images(model, shards, positions).to(pixels.like(model))
        with torch.inference_mode():
            mu, _ = model.encode(pixels.to_model(shown).to(pixels.like(model)), c)
            made = model.decode(mu, c)
        rows += [shown, pixels.to_uint8(made).cpu()]
    return grid(torch.cat(rows), PAIRS)
