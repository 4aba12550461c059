"""Trials that failed: which the same command takes up, which are tried again and with what, and a search said again with more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import Faces
from test_survival import finish

from facefactory import config, failures, rundir, trials
from facefactory.failures import Kind
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import of
from facefactory.stages.sweep import _is_retried, _parts, _take_up
from facefactory.trials import Raised, TrialFolder


def put_failed(study: Path, kind: Kind, number: int = 0) -> TrialFolder:
    """A trial that failed for a reason of a class."""
    params = {"x": number}
    folder = trials.folder_of(study, trials.name_of(number, params))
    folder.begin(number, params)
    folder.end("failed", kind, failures.made(kind, kind))
    return folder


def told(retry: str | None) -> Run:
    """A run with `sweep.retry`."""
    return config.load(Run, [f"sweep.retry={retry}"] if retry else [], [])


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("gpu memory", Raised(1, accumulate=2)),
        ("host memory", Raised(1, memory=2)),
        ("killed", Raised(1, memory=2)),
        ("timeout", Raised(1, minutes=2)),
        ("nan", Raised(1)),
    ],
)
def test_a_retry_has_twice_of_what_was_lacking(tmp_path: Path, kind: Kind, raised: Raised) -> None:
    folder = put_failed(tmp_path, kind)
    assert folder.raised() == Raised()
    folder.retry(failures.made(kind, kind))
    assert folder.ending() == ("interrupted", None)
    assert folder.raised() == raised
    folder.retry(failures.made(kind, kind))
    twice = dataclasses.replace(raised.after(failures.made(kind, "")), retries=2)
    assert folder.raised() == twice


def test_a_damaged_record_of_retries_counts_as_none(tmp_path: Path) -> None:
    folder = put_failed(tmp_path, "timeout")
    for content in ({}, {"retries": "two"}, [1]):
        rundir.write_json(folder.path / "raised.json", content)
        assert folder.raised() == Raised()


WANTED = {
    "failed": {"nan", "gpu memory", "host memory", "timeout", "unknown"},
    "oom": {"gpu memory", "host memory"},
    "timeout": {"timeout"},
    None: set(),
}


@pytest.mark.parametrize("retry", WANTED)
def test_what_is_tried_again_is_what_was_named(tmp_path: Path, retry: str | None) -> None:
    kinds: tuple[Kind, ...] = ("nan", "gpu memory", "host memory", "timeout", "unknown")
    for number, kind in enumerate(kinds):
        put_failed(tmp_path, kind, number)
    run = told(retry)
    found = set()
    for trial in trials.read(tmp_path):
        if _is_retried(run, trial, tmp_path):
            assert trial.failure
            found.add(trial.failure.kind)
    assert found == WANTED[retry]


def test_after_three_retries_a_trial_has_failed_for_good(tmp_path: Path) -> None:
    run = told("failed")
    for count in range(4):
        folder = put_failed(tmp_path, "nan")
        _take_up(run, tmp_path)
        state = "interrupted" if count < 3 else "failed"
        assert folder.ending()[0] == state


def test_the_same_command_takes_up_what_was_not_the_trials_fault(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("disk", "node", "killed", "nan", "collapse", "user error")
    for number, kind in enumerate(kinds):
        put_failed(tmp_path, kind, number)
    _take_up(told(None), tmp_path)
    states = [trial.state for trial in trials.read(tmp_path)]
    assert states == ["interrupted"] * 3 + ["failed"] * 3


def test_a_trial_whose_process_is_lost_thrice_in_a_row_has_failed(tmp_path: Path) -> None:
    folder = put_failed(tmp_path, "nan")
    folder.take_up()
    for _ in range(2):
        folder.lost()
    assert folder.ending()[0] == "interrupted"

    # what was saved in between counts
    (folder.path / "train/checkpoints").mkdir(parents=True)
    (folder.path / "train/checkpoints/checkpoint-1.pt").touch()
    for _ in range(2):
        folder.lost()
    assert folder.ending()[0] == "interrupted"
    folder.lost()
    (trial,) = trials.read(tmp_path)
    assert trial.failure
    assert (trial.state, trial.failure.kind) == ("failed", "killed")


@pytest.mark.parametrize(
    ("batch", "accumulate", "times", "parts"),
    [(16, 1, 1, 1), (16, 1, 2, 2), (16, 2, 4, 8), (12, 1, 8, 12), (16, 16, 2, 16), (15, 1, 2, 3)],
)
def test_a_batch_is_cut_evenly(batch: int, accumulate: int, times: int, parts: int) -> None:
    keys = [f"training.batch_size={batch}", f"training.accumulate={accumulate}"]
    assert _parts(config.load(Run, keys, []), times) == parts


def test_only_a_named_retry_opens_a_finished_search(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    put_failed(tmp_path / "sweep", "nan")
    assert of("sweep").intact(told(None), folder)
    assert of("sweep").intact(told("oom"), folder)
    assert not of("sweep").intact(told("failed"), folder)


@pytest.mark.slow
def test_a_wider_space_and_more_trials_add_to_a_search_and_repeat_none(
    faces: Faces, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [4, 6]}\n")
    arguments = [
        "run=r",
        "changed=accept",
        f"pack.recipe={faces.recipe}",
        f"sweep.space={space}",
        "evaluation.networks=[lite0]",
        "interpret.spaces=[z]",
        "sweep.sampler=random",
        "sweep.min_kimg=0.3",
        "sweep.max_kimg=0.3",
        "training.total_kimg=0.4",
        "sweep.finalists=1",
    ]
    finish("sweep_gan", tmp_path, *arguments, "sweep.trials=2")
    top = tmp_path / "runs/r/sweep"
    before = {path: path.read_bytes() for path in top.glob("trials/*/train/DONE.json")}
    assert len(before) == 2

    # wider, and more of it
    space.write_text("model.width: {choice: [4, 6, 8, 10]}\n")
    finish("sweep_gan", tmp_path, *arguments, "sweep.trials=4")
    assert not list((tmp_path / "runs/r").glob("sweep.old-*"))
    assert all(path.read_bytes() == content for path, content in before.items())
    found = json.loads((top / "results.json").read_text())["trials"]
    assert [trial["number"] for trial in found] == [0, 1, 2, 3]
    assert {trial["state"] for trial in found} == {"finished"}
