"""Scores of several runs side by side: what is said of them, and whether feature networks agree."""

import itertools
from collections.abc import Iterable
from typing import Any

from facefactory.results import Better, Drawn, Protocol, Reconstruction, Score, kendall_tau

MARKS = {
    "floor": "other photographs of the same people",
    "new_people": "new people",
    "blur": "blurred faces",
    "ghosts": "ghosts of two faces",
    "repeat": "one face repeated",
    "noise": "noise",
}


def scores_of(run: dict[str, Any]) -> dict[str, Score]:
    """Name -> score, as the stage evaluate wrote them."""
    return {one["name"]: Score(**one) for one in run["scores"]}


def protocol_of(run: dict[str, Any], score: Score) -> Protocol | None:
    """How a score was made."""
    written = run["protocols"].get(score.protocol)
    return None if written is None else Protocol(**written)


def unlike(runs: list[dict[str, Any]], metric: str) -> dict[str, list[Any]]:
    """Field -> its values, where the protocols of a score differ between runs: these must not be ranked together."""
    found: dict[str, list[Any]] = {}
    scored = [(run, scores_of(run)[metric]) for run in runs if metric in scores_of(run)]
    protocols = [
        protocol for run, score in scored if (protocol := protocol_of(run, score)) is not None
    ]
    for other in protocols[1:]:
        for name, (first, second) in protocols[0].differs(other).items():
            values = found.setdefault(name, [first])
            if second not in values:
                values.append(second)
    return found


def place(score: float, scale: dict[str, float], better: Better, shown: Any) -> str:
    """Where a score lies on its scale, in words; `shown` writes a number."""
    sign = 1 if better == "lower" else -1
    marks = sorted(
        (sign * value, f"{MARKS.get(name, name)} ({shown(value)})")
        for name, value in scale.items()
    )
    nearer = [words for value, words in marks if value <= sign * score]
    worse = [words for value, words in marks if value > sign * score]
    if not marks:
        return "without a scale beside it"
    if not nearer:
        return f"better than even {worse[0]}"
    return (
        f"between {nearer[-1]} and {worse[0]}"
        if worse
        else f"no better than the worst mark of its scale, {nearer[-1]}"
    )


def disagreements(runs: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The same score on two feature networks that rank the runs differently: both rankings and their Kendall tau."""
    found = []
    named = [scores_of(run) for run in runs]
    kind = next((scores[metric].kind for scores in named if metric in scores), None)
    everywhere = [
        name for name, score in (named[0] if named else {}).items() if score.kind == kind
    ]
    everywhere = [name for name in everywhere if all(name in scores for scores in named)]
    for first, second in itertools.combinations(everywhere, 2):
        values = [[scores[name].value for scores in named] for name in (first, second)]
        tau = kendall_tau(*values)
        if tau < 1:
            rankings = {name: ranking(runs, name) for name in (first, second)}
            found.append({"tau": tau, "rankings": rankings})
    return found


def ranking(runs: list[dict[str, Any]], metric: str) -> list[str]:
    """Names of the runs, the best first."""
    scored = [(scores_of(run)[metric], run["name"]) for run in runs]
    best_first = sorted(
        scored, key=lambda one: one[0].value if one[0].better == "lower" else -one[0].value
    )
    return [name for _, name in best_first]


def rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a score: its values with intervals by run, what it is blind to, and what else stands beside it."""
    named = {run["name"]: scores_of(run) for run in runs if run["scores"]}
    found = []
    for name in dict.fromkeys(itertools.chain(*named.values())):
        scores = {run: those[name] for run, those in named.items() if name in those}
        first = next(iter(scores.values()))
        found.append(
            {
                "name": name,
                "better": first.better,
                "protocol": first.protocol,
                "cells": {run: [one.value, one.low, one.high] for run, one in scores.items()},
                "valid": first.valid,
                "blind": first.blind,
                "verdicts": list(
                    dict.fromkeys(itertools.chain(*(one.verdicts for one in scores.values())))
                ),
            }
        )
    return found


def reconstruction_rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a split: its scores, and its nats per image."""
    return [
        {"of": one.split, "images": one.images, **one.scores, **one.nats}
        for one in (Reconstruction(**written) for written in run["reconstructions"])
    ]


def prior_rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a prior: what was fitted, and the scores of its samples with their intervals."""
    found = []
    for drawn in (Drawn(**written) for written in run["priors"]):
        row: dict[str, Any] = {"prior": drawn.prior, "fitted": drawn.fitted}
        for score in (Score(**written) for written in drawn.scores):
            row[score.name] = score.value
            row[f"{score.name} interval"] = [score.low, score.high]
        found.append(row)
    return found


def blind_words(names: Iterable[str]) -> str:
    """Names of distortions as words."""
    return ", ".join(name.replace("_", " ") for name in names)
