"""Every metric of metrics/features on every feature network, by what their files say: no score is named here."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from facefactory import Missing, UserError, registry
from facefactory.data.sets.order import Ids
from facefactory.evaluation import extractors, features
from facefactory.evaluation.features import Kept
from facefactory.evaluation.statistics import Statistics
from facefactory.metrics import Moments
from facefactory.metrics.intervals import quantile
from facefactory.results import Better, Goal, Protocol, Score, Sight

IN_A_PART = 8  # images at least, or there is no interval
PARTS = 5  # of the generated images, from whose scores an interval is told
REACH = quantile(PARTS - 1) / PARTS**0.5


@dataclass(frozen=True)
class Metric:
    """A score on the features of one network."""

    file: str  # of metrics/features
    kind: str  # e.g. kd
    features: str  # e.g. lite0
    better: Better


@functools.cache
def files() -> dict[str, ModuleType]:
    """Name -> file of metrics/features."""
    return {
        name: registry.module("metrics.features", name)
        for name in registry.names("metrics.features")
    }


def wanted() -> set[str]:
    """The statistics that the metrics take."""
    return {module.STATISTICS for module in files().values()}


def called(kind: str, network: str) -> str:
    """The name of a score on the features of a network: kd_lite0, fid."""
    own: str = extractors.file(network).NAMES.get(kind, f"{kind}_{network}")
    return own


def known(networks: Iterable[str]) -> dict[str, Metric]:
    """Name -> metric, for all scores on the features of some networks."""
    found = {}
    for network in networks:
        for file, module in files().items():
            for kind, better in module.SCORES.items():
                found[called(kind, network)] = Metric(file, kind, network, better)
    return found


def goal(name: str, key: str = "sweep.goal", networks: Sequence[str] = ()) -> Goal:
    """What a search looks for, by the name of a score on some networks, or (none) on any; `key` asked for it.

    Raises:
        Missing: the weights of its network are not here.
        UserError: there is no such score, or its network must not rank.
    """
    installed = registry.names("evaluation.extractors")
    names = list(networks) or installed
    every = known(names)
    ranking = [network for network in names if extractors.file(network).RANKS]
    allowed = known([network for network in ranking if extractors.missing(network) is None])
    if name not in every:
        raise registry.unknown(f"{key}: no score {name!r}", name, allowed)
    metric = every[name]
    if metric.features not in ranking:
        others = ", ".join(network for network in installed if extractors.file(network).RANKS)
        there_are = ", ".join(allowed) or f"none: add one of {others} to evaluation.networks"
        raise UserError(
            f"{key}={name}: scores on the features of {metric.features!r} never rank alone, because such features are "
            f"blind to much that eyes see; there are {there_are}."
        )
    how = extractors.missing(metric.features)
    if how is not None:
        raise Missing(f"{key}={name}: the weights of {metric.features!r} are not here; {how}")
    return Goal(name, metric.better)


def score(
    file: str,
    real: Mapping[str, Statistics],
    fake: Mapping[str, Statistics],
    held_out: Kept | None = None,
) -> dict[str, float]:
    """The values of one metric by kind; ValueError: it says why there are none."""
    module = files()[file]
    sets = [real[module.STATISTICS].value(), fake[module.STATISTICS].value()]
    if getattr(module, "THREE", False):
        if held_out is None:
            raise ValueError("it needs held-out images")
        sets.insert(1, held_out[module.STATISTICS].value())
    found: dict[str, float] = module.score(*sets)
    return found


def scores(
    network: str,
    protocol: Protocol,
    real: Kept,
    parts: Sequence[Kept],
    held_out: Kept | None,
    sight: Sight | None,
    people: Ids | None = None,
    asked: Mapping[str, ModuleType] | None = None,
) -> tuple[list[Score], dict[str, str]]:
    """All scores of one network, or those of the files `asked`, with intervals, scale and blind spots; and name of a score -> why it is not among them.

    An interval is the metric's own, by `people` [reals] where it is known whose the real images are; else it is
    Student's t over the scores of `parts` of the generated images, scaled to all of them: how much another draw from
    the same model would change the score, not what other real faces would.
    """
    whole = features.merged(parts)
    found = []
    absent: dict[str, str] = {}
    for file, module in (files() if asked is None else asked).items():
        try:
            values = score(file, real, whole, held_out)
        except ValueError as error:
            absent |= {called(kind, network): str(error) for kind in module.SCORES}
            continue

        # its own interval, or one from parts of the generated images
        if hasattr(module, "interval"):
            sets = (real[module.STATISTICS].value(), whole[module.STATISTICS].value())
            intervals = _own_interval(module, *sets, people)
        else:
            reach = _reach(file, real, parts, held_out, protocol.fakes // PARTS)
            intervals = {
                kind: (values[kind] - one, values[kind] + one) for kind, one in reach.items()
            }

        # a record a score
        beside = too_few(real[module.STATISTICS].value(), whole[module.STATISTICS].value())
        if not extractors.file(network).RANKS:
            beside.append(NEVER_ALONE)
        for kind, value in values.items():
            if not np.isfinite(value):
                absent[called(kind, network)] = "it is no finite number"
                continue
            low, high = intervals.get(kind, (None, None))
            found.append(
                Score(
                    name=called(kind, network),
                    kind=kind,
                    value=value,
                    better=module.SCORES[kind],
                    protocol=protocol.id(),
                    low=low,
                    high=high,
                    scale=sight.marks.get(kind, {}) if sight else {},
                    valid=sight.valid(kind) if sight else (),
                    blind=sight.blind(kind) if sight else (),
                    verdicts=(*beside, *_copies(module, kind, value, sight)),
                )
            )

    # one test of copying alone is no finding
    if not copied(found):
        found = [_without(one, COPIED) for one in found]
    return found, absent


def _without(score: Score, verdict: str) -> Score:
    """The score without a verdict."""
    others = tuple(one for one in score.verdicts if one != verdict)
    return dataclasses.replace(score, verdicts=others)


def _own_interval(module: ModuleType, real: Any, fake: Any, people: Ids | None) -> Any:
    """The interval that a metric offers: kind -> (low, high); empty where there are too few images or people."""
    by_person = "people" in inspect.signature(module.interval).parameters
    try:
        return module.interval(real, fake, people) if by_person else module.interval(real, fake)
    except ValueError:
        return {}


def _reach(
    file: str, real: Kept, parts: Sequence[Kept], held_out: Kept | None, fewest: int
) -> dict[str, float]:
    """Half widths of 95 % intervals by kind; empty where parts are too small for the metric."""
    name = files()[file].STATISTICS
    try:
        if fewest < IN_A_PART or any(too_few(part[name].value()) for part in parts):
            return {}
        values = [score(file, real, part, held_out) for part in parts]
    except ValueError:
        return {}
    return {
        kind: REACH * float(np.std([one[kind] for one in values], ddof=1)) for kind in values[0]
    }


def too_few(*sets: object) -> list[str]:
    """A verdict where a covariance is estimated from fewer than two images a dimension."""
    fewest = min((one.count for one in sets if isinstance(one, Moments)), default=None)
    dimensions = next((len(one.mean) for one in sets if isinstance(one, Moments)), 0)
    if fewest is None or fewest >= 2 * dimensions:
        return []
    return [
        f"too few images: {fewest} for {dimensions} features, and a covariance needs {2 * dimensions}"
    ]


def copied(scores: Sequence[Score]) -> bool:
    """Whether all tests of copying among some scores say that training images were copied.

    All: one asks whether the fakes are nearer than held-out people, which new pictures of the same people are too.
    """
    limited = {kind for module in files().values() for kind in getattr(module, "COPIES", {})}
    tests = [COPIED in one.verdicts for one in scores if one.kind in limited]
    return bool(tests) and all(tests)


def tests_copying(module: ModuleType) -> bool:
    """Whether a metric asks for copies: how images look is not its concern."""
    return hasattr(module, "COPIES") or getattr(module, "THREE", False)


def _copies(module: ModuleType, kind: str, value: float, sight: Sight | None) -> list[str]:
    """A verdict where a test of copying says that training images were copied.

    Other photographs of the same people must not say so as much: where there are many of each they lie near, too.
    """
    limits: dict[str, float] = getattr(module, "COPIES", {})
    if kind not in limits:
        return []
    bounds = [limits[kind]]
    if sight is not None and kind in sight.floor:
        bounds.append(sight.floor[kind])
    higher = module.SCORES[kind] == "higher"
    beyond = value < min(bounds) if higher else value > max(bounds)
    return [COPIED] if beyond else []


COPIED = "as for copies of training faces"
NEVER_ALONE = "never ranks alone: these features are blind to much that eyes see"
