"""Snapshots: scored at multiples of the clock, the best one kept whatever breaks, and scored again on other noise."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Faces
from test_health import WATCHED, begun_at_once, gray_from, once
from test_training import (
    ALONE,
    GAN,
    make_task,
    newest,
    run_ranks,
    same,
    stop_after,
)
from torch import nn

import facefactory
from facefactory import UserError, checkpoint, command, rundir
from facefactory.data.sets.index import Index
from facefactory.evaluation import Evaluation
from facefactory.evaluation.subjects import generator
from facefactory.report import facts
from facefactory.report.sections import verdict
from facefactory.results import Selection
from facefactory.run import load_run
from facefactory.stages import _snapshots
from facefactory.training import Training, trainer
from facefactory.training.snapshots import Scorer, Snapshots
from facefactory.training.trainer import Task, fit

assert begun_at_once  # a fixture
CLOCKS = [24, 48, 72]


def by_weights(model: nn.Module) -> float:
    """A number that no two snapshots share, and that draws where it should not matter."""
    torch.randn(3)
    weights = next(model.generator.parameters())  # type: ignore[union-attr]
    return float(torch.sin(1e4 * weights.double().sum()))


SCORER = Scorer("sine", "lower", "a rule", by_weights)


def scored_task(index: Index, folder: Path, scorer: Scorer, kind: str, **options: Any) -> Task:
    return make_task(
        index,
        folder,
        kind,
        scorer=scorer,
        snapshot_kimg=0.024,
        **options,
    )


def kept(folder: Path) -> dict[str, Any]:
    return newest(folder).snapshots


# -- while it trains ---------------------------------------------------------------------------------


def test_the_best_is_kept_and_the_training_is_as_without(index: Index, tmp_path: Path) -> None:
    averages: list[Any] = []

    def score(model: nn.Module) -> float:
        state = model.generator.state_dict()  # type: ignore[union-attr,operator]
        averages.append({name: tensor.clone() for name, tensor in state.items()})
        return [3.0, 1.0, 2.0][len(averages) - 1]

    scorer = replace(SCORER, score=score)
    fit(scored_task(index, tmp_path / "scored", scorer, GAN), ALONE)
    found = newest(tmp_path / "scored")
    assert found.snapshots["scored"] == [(24, 3.0), (48, 1.0), (72, 2.0)]
    best = checkpoint.best_snapshot(found)
    assert best is not None
    assert best.clock == 48
    [average] = best.averages.values()
    assert same(average["generator"], averages[1])

    # what is rebuilt of it draws as it did
    path = checkpoint.latest(tmp_path / "scored" / "checkpoints")
    assert path is not None
    made, _ = checkpoint.rebuild(path, "best")
    assert same(dict(made.generator.state_dict()), averages[1])

    # and nothing else is different
    fit(make_task(index, tmp_path / "plain"), ALONE)
    plain = newest(tmp_path / "plain")
    assert plain.snapshots == {}
    assert same(vars(replace(found, snapshots={})), vars(plain))
    assert checkpoint.digest(best) != checkpoint.digest(found) == checkpoint.digest(plain)


@pytest.mark.parametrize("checkpoint_kimg", [0.024, 0.036])
def test_breaks_change_no_choice(index: Index, tmp_path: Path, checkpoint_kimg: float) -> None:
    def killed() -> bool:
        if stop():
            raise KeyboardInterrupt
        return False

    options = {"checkpoint_kimg": checkpoint_kimg}
    fit(scored_task(index, tmp_path / "whole", SCORER, GAN, **options), ALONE)
    whole = newest(tmp_path / "whole")
    assert [clock for clock, _ in whole.snapshots["scored"]] == CLOCKS
    for iterations in range(7):
        folder = tmp_path / f"killed-{iterations}"
        stop = stop_after(iterations)
        with pytest.raises(KeyboardInterrupt):
            fit(scored_task(index, folder, SCORER, GAN, should_stop=killed, **options), ALONE)
        fit(scored_task(index, folder, SCORER, GAN, **options), ALONE)
        assert same(vars(whole), vars(newest(folder)))


def test_ranks_choose_once_and_alike(index: Index, tmp_path: Path) -> None:
    run_ranks(
        2,
        tmp_path,
        index,
        [],
        False,
        (scored_task, SCORER, GAN),
    )
    two = newest(tmp_path / "two")
    assert [clock for clock, _ in two.snapshots["scored"]] == CLOCKS
    assert same(vars(two), vars(newest(tmp_path / "parts")))


@pytest.mark.usefixtures("begun_at_once")
def test_a_set_back_forgets_what_it_undoes(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray_from(monkeypatch, 120, once)
    options = {"lr": 1e-3, "on_collapse": "rollback", **WATCHED}
    count = itertools.count(start=10, step=-1)
    falling = replace(SCORER, score=lambda model: float(next(count)))
    _, made = fit(scored_task(index, tmp_path, falling, GAN, **options), ALONE)
    assert made.setbacks == 1
    clocks = [clock for clock, _ in made.snapshots.scored]
    assert clocks == list(range(24, made.clock + 1, 24))
    scores = [score for _, score in made.snapshots.scored]
    assert scores[0] == 10 and scores[-1] < 10 - len(scores) + 1  # some were scored anew


class Averaged:
    """An average whose state tells when it was taken."""

    model = nn.Identity()

    def __init__(self, value: float) -> None:
        self.value = value

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        return {".": {"weight": torch.tensor(self.value)}}


@pytest.mark.parametrize(
    ("better", "scores", "best"),
    [
        ("lower", [3.0, 2.0, 2.0], 24),
        ("higher", [3.0, 2.0, 4.0], 36),
        ("higher", [3.0, 3.0, 2.0], 12),
        ("lower", [float("nan"), 5.0, float("nan")], 24),
        ("lower", [float("inf"), float("nan"), float("inf")], None),
    ],
)
def test_the_first_of_equals_wins_and_no_number_never(
    better: Any, scores: list[float], best: int | None
) -> None:
    coming = iter(scores)
    scorer = Scorer("score", better, "a rule", lambda model: next(coming))
    snapshots = Snapshots(scorer, 0.012)
    for number in range(1, 4):
        snapshots.take(12 * number, Averaged(number), {})
    assert snapshots.best.get("clock") == best


def test_scores_of_another_rule_are_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    before = Snapshots(SCORER, 0.012)
    before.scored = [(12, 1.0)]
    other = Snapshots(replace(SCORER, rule="another"), 0.012)
    other.load(before.state(), "training")
    assert other.scored == []
    assert "scored by another rule from here on" in capsys.readouterr().err
    again = Snapshots(SCORER, 0.012)
    again.load(before.state(), "training")
    assert again.scored == [(12, 1.0)]


def test_a_model_that_draws_nothing_has_none_to_score(index: Index) -> None:
    model = {"name": "classifier/convnet", "width": 4, "depth": 2}
    objective = {"name": "classification"}
    options = Training(snapshot_kimg=1)
    with pytest.raises(UserError, match="classifier/convnet draws nothing"):
        trainer.check(model, objective, options, index.facts)


# -- jobs --------------------------------------------------------------------------------------------

TINY = [
    "pack.resolution=16",
    "model.width=4",
    "model.depth=2",
    "training.device=cpu",
    "training.total_kimg=0.072",
    "training.batch_size=12",
    "training.log_kimg=0.012",
]
SNAPSHOTS = [
    "training.snapshot_kimg=0.024",
    "training.log_s=0",
    "training.lr=0.01",
]
QUICK = Evaluation(
    networks=["lite0"],
    goal="kd_lite0",
    quick_fakes=24,
    reals=45,
)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshots, "quick_options", lambda: QUICK)


def train(faces: Faces, *more: str) -> None:
    given = ["run=r", "cluster=local", f"pack.recipe={faces.recipe}", *TINY, *more]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


def test_the_protocol_is_the_quick_one() -> None:
    options = _snapshots.quick_options()
    assert (options.protocol, options.networks, options.goal) == ("quick", ["lite0"], "kd_lite0")


def test_the_best_is_scored_again_told_and_used(
    faces: Faces,
    tmp_path: Path,
    few_images: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    purposes = []
    draws = generator.draws

    def noted(model: Any, c: torch.Tensor, seed: int, purpose: str) -> Any:
        purposes.append(purpose)
        return draws(model, c, seed, purpose)

    monkeypatch.setattr(generator, "draws", noted)
    train(faces, *SNAPSHOTS)
    assert purposes == ["snapshots"] * 3 + ["snapshots again"] * 2

    # the record, and the same in words
    run = tmp_path / "runs" / "r"
    selection = Selection(**rundir.read_results(run / "train")["selection"])
    scores = dict(selection.scored)
    assert list(scores) == [0.024, 0.048, 0.072]
    assert scores[selection.best_kimg] == min(scores.values()) != selection.again
    assert selection.words() in capsys.readouterr().err
    found = facts.gather(run, {})
    assert any(selection.words() in sentence for sentence in verdict.verdict(found))
    lines = facts.metrics(run / "train")
    told = {
        line["kimg"]: line["snapshot_kd_lite0"] for line in lines if "snapshot_kd_lite0" in line
    }
    assert told == scores

    # it is what jobs and notebooks draw from, where they are asked to
    best = facefactory.load(run, snapshot="best")
    assert _snapshots._score(best.model, context_of(run)) == pytest.approx(selection.again)
    again = facefactory.load(run)
    assert _snapshots._score(again.model, context_of(run)) == pytest.approx(selection.last)
    command.start("generate", ("generate",), None, ["run=r", "generate.images=2"])
    done = rundir.RunDir(run).done("generate")
    assert done is not None
    assert list(done["inputs"]) == ["train.checkpoint"]
    command.start(
        "generate",
        ("generate",),
        None,
        ["run=r", "generate.images=3", "snapshot=best"],
    )
    done = rundir.RunDir(run).done("generate")
    assert done is not None
    outputs = rundir.RunDir(run).done("train")["outputs"]  # type: ignore[index]
    assert done["inputs"] == {"train.best_checkpoint": outputs["best_checkpoint"]}
    assert outputs["best_kimg"] == selection.best_kimg


def context_of(run: Path) -> Any:
    folder = rundir.RunDir(run)
    return _snapshots._context(load_run(run), _snapshots.index_of(folder), _snapshots.AGAIN)


def test_the_words_have_both_numbers_and_how_many_there_were() -> None:
    scored = [
        (10.0, 30.0),
        (20.0, 9.0),
        (30.0, 12.0),
    ]
    chosen = Selection("kd_lite0", "lower", scored, 20.0, 10.5, 30.0, 11.5)
    assert chosen.words() == (
        "Snapshot of 20 kimg, the best of 3, scored again on fresh noise: kd_lite0 10.5 "
        "(9 when it was chosen); the last, of 30 kimg, has 11.5."
    )
    last = Selection(
        "kd_lite0",
        "lower",
        scored[:2],
        20.0,
        10.5,
        20.0,
        10.5,
    )
    assert last.words().endswith("(9 when it was chosen); it is the last one.")


@pytest.mark.parametrize("snapshot", ["last", "best"])
def test_the_report_says_which_one_scores_are_of(snapshot: str) -> None:
    chosen = Selection(
        "kd_lite0",
        "lower",
        [(10.0, 30.0)],
        10.0,
        31.0,
        20.0,
        32.0,
    )
    run: dict[str, Any] = {"selection": asdict(chosen), "snapshot": snapshot, "scores": []}
    assert verdict.selection_verdict(run, "") == [chosen.words()]
    [words] = verdict.selection_verdict({**run, "scores": [1]}, " of a")
    assert words.endswith(f"Scores and images of a are of the {snapshot} one.")
    assert verdict.selection_verdict({**run, "selection": None}, "") == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["snapshot=best"], "this training scores none"),
        (["snapshot=best", "training.snapshot_kimg=5"], "lies beyond training.total_kimg=0.072"),
    ],
)
def test_what_cannot_be_chosen_is_said_before_anything_starts(
    faces: Faces, tmp_path: Path, more: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        train(faces, *more)
    assert not (tmp_path / "runs" / "r").exists()


def test_a_run_without_snapshots_has_no_best_one(
    faces: Faces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(faces, "dry_run=true", "training.snapshot_kimg=5")
    assert "total_kimg=0.072: no snapshot is scored" in capsys.readouterr().err
    train(faces)
    with pytest.raises(UserError, match="this training scores none"):
        facefactory.load(tmp_path / "runs" / "r", snapshot="best").sample(1)
    with pytest.raises(UserError, match="this training scores none"):
        command.start("generate", ("generate",), None, ["run=r", "snapshot=best"])
