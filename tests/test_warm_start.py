"""A search that starts from another one's trials: they are history to the sampler, foreign to the results, and scored alike."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest
from test_array import study_of, tried

from facefactory import UserError, config, rundir, search, trials
from facefactory.run import Run, resolve
from facefactory.rundir import RunDir
from facefactory.search.proposals import Proposals
from facefactory.stages.sweep import _history
from facefactory.trials import Rung, Trial

KEYS = ("sweep.space=dcgan", "evaluation.protocol=quick")


def history(count: int) -> tuple[Trial, ...]:
    """Trials whose score is the square of how far they are from 0.2."""
    found = []
    for number in range(count):
        x = (number + 0.5) / count
        rung = Rung(9.0, {"fit": (x - 0.2) ** 2})
        found.append(Trial(f"t{number}", number, {"x": x, "kind": "a"}, "finished", (rung,)))
    return tuple(found)


def test_the_sampler_knows_them_and_numbers_begin_at_zero(tmp_path: Path) -> None:
    cold = study_of(tmp_path / "cold", sampler="tpe", trials=8)
    warm = study_of(tmp_path / "warm", sampler="tpe", trials=8)
    warm = dataclasses.replace(warm, history=history(40))
    away = {}
    for name, study in (("cold", cold), ("warm", warm)):
        proposals = Proposals(study, [], [], is_all=False)
        drawn = []
        for number in range(8):
            proposal = proposals.next()
            assert proposal
            assert proposal.number == number
            drawn.append(abs(proposal.params["x"] - 0.2))
        away[name] = statistics.fmean(drawn)
    assert away["warm"] < 0.5 * away["cold"]


def test_they_are_none_of_the_searchs_own(tmp_path: Path) -> None:
    study = dataclasses.replace(study_of(tmp_path, trials=3), history=history(5))
    found = []

    def workers(count: int) -> list[int]:
        proposals = Proposals(study, [], [], is_all=False)
        while len(found) < 3:
            proposal = proposals.next()
            assert proposal
            proposal.folder.begin(proposal.number, proposal.params)
            proposal.folder.end("finished")
            found.append(proposal.number)
        return [0]

    search.run(dataclasses.replace(study, workers=workers))
    assert [number for number, *_ in tried(study)] == [0, 1, 2]


def test_one_without_a_score_is_known_to_have_failed(tmp_path: Path) -> None:
    failed = Trial("t", 0, {"x": 0.5, "kind": "b"}, "failed")
    study = dataclasses.replace(study_of(tmp_path), history=(failed,))
    proposals = Proposals(study, [], [], is_all=False)
    (known,) = proposals.optuna.trials
    assert (known.state.name, known.params) == ("FAIL", {"x": 0.5, "kind": "b"})


# -- scored alike ----------------------------------------------------------------------------------------------------


def put_sweep(path: Path, *keys: str) -> Run:
    """A sweep of one trial."""
    run = resolve(config.load(Run, [*KEYS, *keys], []))
    rundir.prepare(path, config.dump(run), config.flat(run), "sweep", True)
    space = search.space.examples(rundir_space(run), 1)
    folder = trials.folder_of(path / "sweep", trials.name_of(0, space[0]))
    folder.begin(0, space[0])
    folder.end("finished")
    return run


def rundir_space(run: Run) -> search.space.Space:
    """The space of a run."""
    from facefactory.run import space_of

    return space_of(run)


def asked(path: Path, *keys: str) -> tuple[Trial, ...]:
    """What a new sweep takes over."""
    run = resolve(config.load(Run, [*KEYS, f"sweep.warm_start={path}", *keys], []))
    return _history(run, RunDir(path.parent / "new"))


def test_a_sweep_of_the_same_space_and_protocol_is_taken_over(tmp_path: Path) -> None:
    put_sweep(tmp_path / "old")
    (trial,) = asked(tmp_path / "old", "sweep.trials=99", "sweep.sampler=random", "seed=7")
    assert trial.number == 0


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("evaluation.quick_fakes=99", r"evaluation\.quick_fakes was \d+, now 99"),
        ("sweep.max_kimg=99", r"sweep\.max_kimg was 12\.0, now 99\.0"),
    ],
)
def test_one_that_was_scored_otherwise_is_refused_with_the_difference(
    key: str, told: str, tmp_path: Path
) -> None:
    put_sweep(tmp_path / "old")
    with pytest.raises(UserError, match=rf"old was scored otherwise.*{told}"):
        asked(tmp_path / "old", key)


def test_one_of_other_faces_is_refused_once_both_are_packed(tmp_path: Path) -> None:
    put_sweep(tmp_path / "old")
    for name, images in (("old", "a"), ("new", "b")):
        record = {"config": {}, "inputs": {}, "outputs": {"images": images}}
        rundir.write_sealed(tmp_path / name / "pack/DONE.json", record)
    with pytest.raises(UserError, match="images was 'a', now 'b'"):
        asked(tmp_path / "old")


def test_what_is_no_sweep_or_has_no_trial_of_the_space_is_refused(tmp_path: Path) -> None:
    put_sweep(tmp_path / "old")
    with pytest.raises(UserError, match=r"olt is no sweep.*old"):
        asked(tmp_path / "olt")
    with pytest.raises(UserError, match="has no trial of the space conv"):
        asked(tmp_path / "old", "sweep.space=conv", "model.name=vae/conv", "objective.name=elbo")
