"""What latent dimensions mean, timed: the whole matrix of effects, and its parts against loops of scikit-learn's calls.

A part of bench.py; the ratios are of turns that alternate, so a busy machine slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mutual_info_score, roc_auc_score

from facefactory.facts import Label
from facefactory.interpret import effects
from facefactory.metrics import Array, auroc
from facefactory.metrics.codes import _importance, dci_trees, mig
from facefactory.metrics.codes._factors import binned

FACES = 200_000
DIMENSIONS = 64
LABELS = 40
FEW = 4  # dimensions that loops go over: a call takes as long for any, so all take 16 times that
TURNS = 3


def planted(faces: int, dimensions: int, labels: int) -> tuple[Array, Array]:
    """Codes, every second of which carries a label, and labels from rare to frequent."""
    rng = np.random.default_rng(0)
    factors = (rng.random((faces, labels)) < np.linspace(0.03, 0.6, labels)).astype(np.float64)
    codes = rng.normal(size=(faces, dimensions))
    for number in range(0, min(dimensions, labels), 2):
        codes[:, number] += 1.5 * factors[:, number]
    return codes, factors


def by_turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, Any, Any]:
    """Least processor seconds of either, and their values."""
    spent: list[list[float]] = [[], []]
    values = [None, None]
    for _ in range(TURNS):
        for side, work in enumerate((ours, theirs)):
            start = time.process_time()
            values[side] = work()
            spent[side].append(time.process_time() - start)
    return min(spent[0]), min(spent[1]), values[0], values[1]


def say(what: str, ours: float, theirs: float, off: float) -> None:
    ratio = theirs / ours
    print(
        f"  {what:44s} {ours:8.3f} s, loop of scikit-learn {theirs:8.2f} s: {ratio:4.0f} times as fast, values differ by {off:.0e}"
    )


def whole_matrix(codes: Array, factors: Array) -> None:
    """Effects, intervals, q values, nats, and what is given the rest."""
    labels = {str(number): column for number, column in enumerate(factors.T)}
    schema = dict.fromkeys(labels, Label("binary", ("0", "1")))
    threads = max(2, torch.get_num_threads())
    start = time.perf_counter()
    used = time.process_time()
    table = effects.table(
        codes,
        labels,
        schema,
        np.arange(len(codes)),
        threads=threads,
    )
    clock = time.perf_counter() - start
    used = time.process_time() - used
    shape = f"{len(codes):,} x {codes.shape[1]} x {factors.shape[1]}"
    large = sum(effect.given is not None for row in table.rows for effect in row)
    print(f"  matrix of {shape}, {threads} threads: {clock:.1f} s ({used:.1f} s of processors)")
    print(f"    with intervals, q, nats; {large} cells given the rest")


def main() -> None:
    """Print all of it."""
    codes, factors = planted(FACES, DIMENSIONS, LABELS)
    whole_matrix(codes, factors)

    # AUROC
    few = codes[:, :FEW]

    def loop_of_aurocs() -> Array:
        rows = [[roc_auc_score(label, code) for label in factors.T] for code in few.T]
        return np.array(rows)

    ours, theirs, found, wanted = by_turns(lambda: auroc.score(codes, factors), loop_of_aurocs)
    say(
        f"AUROC, {FACES:,} x {DIMENSIONS} x {LABELS}",
        ours,
        theirs * DIMENSIONS / FEW,
        float(np.abs(found[:FEW] - wanted).max()),
    )

    # MIG
    def loop_of_information() -> float:
        bins = binned(few)
        gaps = []
        for label in factors.T:
            told = [mutual_info_score(label, column) for column in bins.T]
            second, first = np.sort(told)[-2:]
            gaps.append((first - second) / mutual_info_score(label, label))
        return float(np.mean(gaps))

    ours, theirs, found, wanted = by_turns(lambda: mig.score(codes, factors), loop_of_information)
    say(
        f"MIG, {FACES:,} x {DIMENSIONS} x {LABELS}",
        ours,
        theirs * DIMENSIONS / FEW,
        abs(mig.score(few, factors)["mig"] - wanted),
    )

    # DCI by trees
    codes, factors = planted(dci_trees.FACES, 10, 6)

    def exact_trees() -> dict[str, float]:
        held_out = np.arange(len(codes)) % dci_trees.HELD_OUT == 0
        importance = np.zeros((codes.shape[1], factors.shape[1]))
        informed = np.zeros(factors.shape[1])
        for number, factor in enumerate(factors.T):
            trees = GradientBoostingRegressor(
                n_estimators=dci_trees.TREES,
                max_depth=dci_trees.DEPTH,
                learning_rate=dci_trees.RATE,
            ).fit(codes[~held_out], factor[~held_out])
            importance[:, number] = trees.feature_importances_
            informed[number] = max(0.0, trees.score(codes[held_out], factor[held_out]))
        return _importance.summarised(importance, informed)

    ours, theirs, found, wanted = by_turns(lambda: dci_trees.score(codes, factors), exact_trees)
    off = {name: abs(value - wanted[name.removesuffix("_trees")]) for name, value in found.items()}
    say(
        f"DCI by trees, {len(codes):,} x 10 x 6",
        ours,
        theirs,
        max(off.values()),
    )
    for name, value in found.items():
        exact = wanted[name.removesuffix("_trees")]
        print(f"    {name:26s} {value:.4f}, exact trees {exact:.4f}")


if __name__ == "__main__":
    main()
