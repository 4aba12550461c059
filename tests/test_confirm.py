"""Fresh seeds: known intervals, coverage over many searches, the winner's curse, and a search that is confirmed."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
from pathlib import Path

import pytest
from conftest import Faces
from test_survival import done, finish

from facefactory import confirmation
from facefactory.confirmation import Confirmed, Repeat
from facefactory.results import Goal

LOWER = Goal("kd", "lower")
HIGHER = Goal("accuracy", "higher")


def repeats(*scores: float | None) -> tuple[Repeat, ...]:
    """Repeats that scored so; None: it failed."""
    found = []
    for seed, score in enumerate(scores):
        state = "failed" if score is None else "finished"
        found.append(Repeat(f"r{seed}", "", seed, state, score))  # type: ignore[arg-type]
    return tuple(found)


def test_the_interval_is_students() -> None:
    found = confirmation.student([4.0, 6.0, 8.0])
    assert found.value == 6.0
    half = 4.302653 * 2 / 3**0.5  # quantile of two degrees of freedom, from tables
    assert found.high - found.value == pytest.approx(half, rel=1e-6)
    assert found.value - found.low == pytest.approx(half, rel=1e-6)


def test_one_score_has_no_interval_and_none_no_mean() -> None:
    one = Confirmed("a", 1.0, 4.0, 2.0, repeats(3.0, None))
    assert one.interval() is None
    assert one.curse() == -1.0
    nothing = dataclasses.replace(one, repeats=repeats(None))
    assert (nothing.estimate(), nothing.interval(), nothing.curse()) == (None, None, None)


@pytest.mark.parametrize("goal", [LOWER, HIGHER], ids=["lower", "higher"])
def test_means_decide_and_the_searchs_best_stands_beside_them(goal: Goal) -> None:
    steady = Confirmed("steady", 5.0, 15.0, 5.0, repeats(5.0, 5.2, 5.1))
    lucky = Confirmed("lucky", 3.0, 15.0, 3.0, repeats(7.0, 9.0, None))
    failed = Confirmed("failed", 4.0, 15.0, None, repeats(None, None))
    if goal is HIGHER:
        steady, lucky = (
            dataclasses.replace(
                one,
                finalist=10 - float(one.finalist or 0),
                repeats=repeats(*(score and 10 - score for score in map(_score, one.repeats))),
            )
            for one in (steady, lucky)
        )
    found = confirmation.summary([failed, lucky, steady], goal, goal)
    assert found["search_best"] == "lucky"
    assert found["confirmed_best"] == "steady"
    assert found["curse"] == pytest.approx(-5.0 if goal is LOWER else 5.0)
    assert [entry["trial"] for entry in found["trials"]] == ["steady", "lucky", "failed"]

    # as it is read back
    entries = json.loads(json.dumps(found["trials"], allow_nan=False))
    assert [Confirmed.read(entry) for entry in entries] == [steady, lucky, failed]


def _score(repeat: Repeat) -> float | None:
    return repeat.score


def test_over_twenty_searches_intervals_cover_the_truth_and_the_search_flatters_its_best() -> None:
    draw = random.Random(0)
    covered = []
    curses = []
    for _ in range(20):
        truths = {f"t{number}": draw.gauss(10, 1) for number in range(24)}
        searched = {name: draw.gauss(truth, 1) for name, truth in truths.items()}
        best = sorted(searched, key=lambda name: searched[name])[:4]

        # five fresh seeds each
        found = []
        for name in best:
            scores = [draw.gauss(truths[name], 1) for _ in range(5)]
            found.append(Confirmed(name, searched[name], 15.0, searched[name], repeats(*scores)))
        summary = confirmation.summary(found, LOWER, LOWER)
        curses.append(summary["curse"])
        for entry in summary["trials"]:
            low, high = entry["interval"]
            covered.append(low <= truths[entry["trial"]] <= high)
    assert statistics.fmean(covered) >= 0.9
    assert statistics.fmean(curses) < -0.5  # the winner's score is too good by about a deviation


@pytest.mark.slow
def test_a_search_is_confirmed_and_more_seeds_repeat_none(faces: Faces, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [4, 6]}\n")
    arguments = [
        "run=r",
        f"pack.recipe={faces.recipe}",
        f"sweep.space={space}",
        "sweep.sampler=grid",
        "evaluation.networks=[lite0]",
        "interpret.spaces=[z]",
        "sweep.min_kimg=0.3",
        "sweep.max_kimg=0.6",
        "sweep.early_stopping=false",
        "training.total_kimg=0.9",
        "sweep.finalists=2",
    ]
    finish("sweep_gan", tmp_path, *arguments, "sweep.confirm_seeds=1")
    top = tmp_path / "runs" / "r"
    first = json.loads((top / "confirm" / "results.json").read_text())
    assert {len(entry["repeats"]) for entry in first["trials"]} == {1}
    before = {
        path: path.read_bytes() for path in (tmp_path / "runs/r/repeats").glob("*/train/DONE.json")
    }
    assert len(before) == 2

    # one more seed, and nothing that was trained is trained again
    sweep = {path: path.stat().st_mtime_ns for path in top.glob("sweep/trials/*/train/DONE.json")}
    finish("sweep_gan", tmp_path, *arguments, "sweep.confirm_seeds=2", "changed=accept")
    found = json.loads((top / "confirm" / "results.json").read_text())
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all(path.stat().st_mtime_ns == when for path, when in sweep.items())
    for entry in found["trials"]:
        assert [repeat["seed"] for repeat in entry["repeats"]] == [1, 2]
        assert entry["interval"][0] < entry["mean"] < entry["interval"][1]
        assert entry["searched"] is not None
        assert entry["finalist"] is not None
        assert entry["curse"] is not None
    assert found["search_best"]
    assert found["confirmed_best"] == found["trials"][0]["trial"]
    assert done(tmp_path, "r", "confirm")["results"]
