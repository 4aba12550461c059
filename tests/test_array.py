"""The engine of workers: who takes which trial, the same points for the same seed, rules like Ray's, jobs on Slurm, and kills."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Faces
from test_survival import finish, start

from facefactory import UserError, chain, config, failures, registry, rundir, search, trials
from facefactory.cluster import Profile, launch
from facefactory.results import Goal
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.search.engines import array
from facefactory.search.engines.array import Holder
from facefactory.search.schedulers import Scheduler
from facefactory.stages import called_for
from facefactory.trials import Params, Rung, TrialFolder

HERE = "here"
GOAL = Goal("fit", "lower")
SPACE: Any = {"x": {"uniform": [0.0, 1.0]}, "kind": {"choice": ["a", "b"]}}
GRID: Any = {"x": {"choice": [1, 2, 3]}, "kind": {"choice": ["a", "b"]}}


def worker(number: int) -> Holder:
    """An element of an array."""
    return Holder(f"7_{number}", HERE, number, None)


def train(folder: TrialFolder, params: Params, report: Any) -> None:
    """A trial that scores what it drew at every rung that it has no score of."""
    known = len(folder.rungs())
    for kimg in (1.0, 3.0, 9.0)[known:]:
        if kimg == 9.0:
            rundir.write_json(folder.path / "train" / "DONE.json", {})
        report(Rung(kimg, {"fit": params["x"] + 1 / kimg}))


def study_of(folder: Path, space: Any = SPACE, **options: Any) -> search.Study:
    """A study of trials that take no time, in which one worker after the other does all that it can."""

    def workers(count: int) -> list[int]:
        for number in range(count):
            while (trial := array.take(study, worker(number))) is not None:
                array.run(study, trial)
        return [0] * count

    usual = {"trials": 6, "min_kimg": 1.0, "max_kimg": 9.0, "engine": "array"}
    usual |= {"sampler": "random", "scheduler": "none"}
    study = search.Study(
        folder=folder,
        space=space,
        options=search.Sweep(**{**usual, **options}),
        goal=GOAL,
        seed=3,
        trial=train,
        threads=1,
        gpus=0.0,
        needs_gpus=False,
        should_stop=lambda: False,
        refuse=lambda params: None,
        ray=None,
        workers=workers,
    )
    return study


def tried(study: search.Study) -> list[Any]:
    """Number, point and scores of each trial."""
    found = search.results(study.folder, study.space)
    return [(one.number, one.params, [rung.line() for rung in one.rungs]) for one in found]


# -- who takes what --------------------------------------------------------------------------------------------------


def test_workers_do_all_trials_once(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    found = search.run(study)
    assert [trial.number for trial in found] == list(range(6))
    assert {trial.state for trial in found} == {"finished"}
    assert len({trial.name for trial in found}) == 6
    before = tried(study)
    assert search.run(study) == found
    assert tried(study) == before


def test_the_same_seed_tries_the_same_points_whichever_worker_is_first(tmp_path: Path) -> None:
    whole = study_of(tmp_path / "whole")
    search.run(whole)
    other = study_of(tmp_path / "other")
    taken = [array.take(other, worker(number)) for number in (4, 1, 3)]
    assert None not in taken
    for trial in reversed(taken):
        if trial is not None:
            array.run(other, trial)
    search.run(other)
    assert tried(other) == tried(whole)
    again = study_of(tmp_path / "again", sampler="tpe")
    search.run(again)
    twin = study_of(tmp_path / "twin", sampler="tpe")
    search.run(twin)
    assert tried(twin) == tried(again)


def test_a_grid_is_tried_once_by_any_workers(tmp_path: Path) -> None:
    study = study_of(tmp_path, GRID, sampler="grid", trials=20)
    for number in (5, 2):
        trial = array.take(study, worker(number))
        assert trial
        array.run(study, trial)
    found = search.run(study)
    points = [(trial.params["x"], trial.params["kind"]) for trial in found]
    assert points == [(x, kind) for x in (1, 2, 3) for kind in ("a", "b")]


def test_more_trials_later_repeat_none(tmp_path: Path) -> None:
    few = study_of(tmp_path, trials=2)
    search.run(few)
    before = tried(few)
    more = study_of(tmp_path, trials=5)
    search.run(more)
    assert tried(more)[:2] == before
    assert len(tried(more)) == 5


def test_a_trial_is_its_holders_until_that_is_gone(tmp_path: Path) -> None:
    study = study_of(tmp_path, trials=2)
    first = array.take(study, worker(0))
    second = array.take(study, worker(1))
    assert first
    assert second
    assert first.name != second.name
    assert array.take(study, worker(2)) is None
    again = array.take(study, worker(1))  # it was requeued
    assert again
    assert again.name == second.name
    later = array.take(study, dataclasses.replace(worker(0), job="8_5"))  # of a new submission
    assert later
    assert later.name == first.name


def test_a_process_of_this_machine_has_its_trial_until_it_is_dead() -> None:
    pid = os.getpid()
    alive = Holder(None, HERE, pid, rundir.started(pid))
    other = Holder(None, HERE, 1, rundir.started(1))
    assert not alive.leaves(other)
    assert dataclasses.replace(alive, started="0").leaves(other)  # its number is another's now
    assert alive.leaves(alive)
    assert alive.leaves(dataclasses.replace(other, host="there"))
    assert not alive.leaves(worker(0))
    assert worker(0).leaves(alive)


def test_a_damaged_record_of_the_holder_frees_its_trial(tmp_path: Path) -> None:
    study = study_of(tmp_path, trials=1)
    trial = array.take(study, worker(0))
    assert trial
    assert array.take(study, worker(1)) is None
    path = trials.folder_of(tmp_path, trial.name).path / array.HOLDER
    path.write_text("{")
    assert array.take(study, worker(1)) is not None


def test_a_trial_that_failed_is_told_and_not_taken_again(tmp_path: Path) -> None:
    study = study_of(tmp_path, trials=2)
    trial = array.take(study, worker(0))
    assert trial
    why = failures.made("nan", "loss not finite")
    trials.folder_of(tmp_path, trial.name).end("failed", "loss not finite", why)
    found = search.run(study)
    assert [one.state for one in found] == ["failed", "finished"]


def test_what_was_cut_between_a_score_and_its_decision_is_decided_then(tmp_path: Path) -> None:
    study = study_of(tmp_path, trials=3, scheduler="asha")
    good = array.take(study, worker(0))
    bad = array.take(study, worker(1))
    assert good
    assert bad
    trials.folder_of(tmp_path, good.name).add(Rung(1.0, {"fit": 0.0}))
    trials.folder_of(tmp_path, bad.name).add(Rung(1.0, {"fit": 9.0}))
    again = array.take(study, worker(1))
    assert again
    array.run(study, again)
    assert trials.folder_of(tmp_path, bad.name).ending() == ("stopped", None)
    assert len(trials.folder_of(tmp_path, bad.name).rungs()) == 1


def test_a_space_of_few_points_ends_a_search(tmp_path: Path) -> None:
    space = {"x": {"choice": [1, 2]}}
    study = study_of(tmp_path, space, trials=5)
    assert sorted(trial.params["x"] for trial in search.run(study)) == [1, 2]


def test_workers_that_do_nothing_are_told(tmp_path: Path) -> None:
    study = dataclasses.replace(study_of(tmp_path), workers=lambda count: [1] * count)
    with pytest.raises(RuntimeError, match="ended before they began a trial"):
        search.run(study)


# -- which go on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_asha_decides_as_rays_does(reduction: int) -> None:
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    rays = AsyncHyperBandScheduler(
        "kimg",
        metric="fit",
        mode="min",
        grace_period=1,
        max_t=100,
        reduction_factor=reduction,
    )
    ours: Scheduler = registry.build("search.schedulers", {"name": "asha"})
    draw = random.Random(reduction)
    scores: dict[str, list[float]] = {}
    for number in range(40):
        name = f"t{number}"
        trial = type("T", (), {"trial_id": name, "stub": None})()
        rays.on_trial_add(None, trial)  # type: ignore[arg-type]
        scores[name] = []
        for rung in range(3):
            score = draw.random()
            result = {"kimg": float(reduction**rung), "fit": score}
            decided = rays.on_trial_result(None, trial, result)  # type: ignore[arg-type]
            scores[name].append(score)
            others = [values for other, values in scores.items() if other != name]
            goes_on = ours.goes_on(scores[name], others, reduction)
            assert goes_on == (decided == TrialScheduler.CONTINUE), (name, rung)
            if not goes_on:
                break


def test_the_median_rule_stops_what_is_behind_from_the_third_other_on() -> None:
    rule: Scheduler = registry.build("search.schedulers", {"name": "median"})
    others = [[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]  # means 2, 3, 4
    assert not rule.goes_on([9.0, 3.5], others, 3)
    assert rule.goes_on([9.0, 2.5], others, 3)
    assert rule.goes_on([9.0, 3.5], others[:2], 3)


def test_a_rule_that_needs_ray_is_refused_with_the_others() -> None:
    class Component(Scheduler):
        pass

    with pytest.raises(UserError, match=r"needs sweep\.engine=ray; give asha, median or none"):
        Component().goes_on([1.0], [], 3)  # type: ignore[abstract]


# -- on Slurm --------------------------------------------------------------------------------------------------------

NAMES = ("pack", "sweep", "finalists", "report")


def jobs_of(folder: Path, keys: Sequence[str]) -> dict[str, launch.Job]:
    """The jobs of a sweep by an array."""
    run = config.load(Run, ["sweep.engine=array", "sweep.trials=10", *keys], [])
    jobs = chain.slurm_jobs(run, RunDir(folder), called_for(run, NAMES))
    return {job.stage: job for job in jobs}


def test_each_trial_is_an_element_and_a_job_gathers(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, ["sweep.parallel=4"])
    assert list(jobs) == ["prepare", "trials", "sweep", "finalists", "evaluate", "report"]
    workers = jobs["trials"]
    assert (len(workers.commands), workers.processes, workers.at_once) == (10, 1, 4)
    assert workers.commands[0] == ["part", str(tmp_path), "sweep", "1"]
    assert jobs["prepare"].commands[0][-1] == "opens=sweep"
    gather = jobs["sweep"]
    assert (gather.after, gather.gpus) == ("any", False)
    assert gather.commands == [["stages", str(tmp_path), "sweep", "opens=finalists"]]
    text = launch.script(workers, Profile(), tmp_path)
    assert "#SBATCH --array=0-9%4" in text


def test_a_job_does_a_chunk_of_trials(tmp_path: Path) -> None:
    workers = jobs_of(tmp_path, ["sweep.chunk=4"])["trials"]
    assert len(workers.commands) == 3
    assert workers.commands[0][-1] == "4"


def test_what_is_left_decides_how_many_and_what_failed_trials_lacked_how_large(
    tmp_path: Path,
) -> None:
    study = tmp_path / "sweep"
    for number in range(4):
        folder = trials.folder_of(study, trials.name_of(number, {}))
        folder.begin(number, {})
        folder.end("finished")
    kind = failures.made("host memory", "")
    folder.end("failed", "no memory", kind)
    workers = jobs_of(tmp_path, [])["trials"]
    assert (len(workers.commands), workers.memory, workers.minutes) == (6, 1, 1)
    workers = jobs_of(tmp_path, ["sweep.retry=oom"])["trials"]
    assert (len(workers.commands), workers.memory, workers.minutes) == (7, 2, 1)
    options = launch.parameters(workers, Profile(memory_gb=2.0), tmp_path, [])
    assert options["mem"] == "4096MB"
    folder.end("failed", "late", failures.made("timeout", ""))
    workers = jobs_of(tmp_path, ["sweep.retry=timeout"])["trials"]
    limit = launch.parameters(workers, Profile(gpu_min=60), tmp_path, [])["time"]
    assert (workers.minutes, limit) == (2, 120)


# -- trainings -------------------------------------------------------------------------------------------------------


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["array", "ray"])
def test_a_search_that_is_told_to_stop_ends_with_75(
    engine: str, faces: Faces, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [4, 6]}\n")
    arguments = [
        "run=r",
        f"pack.recipe={faces.recipe}",
        f"sweep.space={space}",
        f"sweep.engine={engine}",
        "sweep.sampler=grid",
        "sweep.scheduler=none",
        "evaluation.networks=[lite0]",
        "interpret.spaces=[z]",
        "sweep.min_kimg=4000",
        "sweep.max_kimg=4000",
        "training.total_kimg=4001",
        "sweep.finalists=1",
        "training.checkpoint_kimg=0.3",
    ]

    # each signal, once something is trained
    study = tmp_path / "runs/r/sweep"
    for number in SIGNALS:
        process = start("sweep_gan", tmp_path, *arguments)
        before = set(study.glob("trials/*/train/metrics-*.jsonl"))
        while process.poll() is None:
            if set(study.glob("trials/*/train/metrics-*.jsonl")) - before:
                break
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(90) == 75, (tmp_path / "log.txt").read_text()[-2000:]
    states = {trial.state for trial in trials.read(study)}
    assert states == {"interrupted"}


@pytest.mark.slow
def test_workers_killed_at_random_moments_try_and_score_the_same(
    faces: Faces, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [4, 6, 8]}\n")
    arguments = [
        f"pack.recipe={faces.recipe}",
        f"sweep.space={space}",
        "sweep.engine=array",
        "sweep.sampler=grid",
        "sweep.scheduler=none",
        "evaluation.networks=[lite0]",
        "interpret.spaces=[z]",
        "sweep.min_kimg=0.6",
        "sweep.max_kimg=1.2",
        "training.total_kimg=1.5",
        "sweep.finalists=1",
        "training.checkpoint_kimg=0.3",
    ]
    seed = random.randrange(10**6)
    print(f"kill moments from seed {seed}")
    rng = random.Random(seed)
    finish("sweep_gan", tmp_path, "run=whole", *arguments)

    # one worker, then the whole group
    process = start("sweep_gan", tmp_path, "run=killed", *arguments)
    study = tmp_path / "runs/killed/sweep"
    holders: list[Path] = []
    while not holders and process.poll() is None:
        time.sleep(0.05)
        holders = list(study.glob("trials/*/holder.json"))
    time.sleep(rng.uniform(0, 2))
    os.kill(json.loads(holders[0].read_text())["pid"], signal.SIGKILL)
    time.sleep(rng.uniform(0, 4))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finish("sweep_gan", tmp_path, "run=killed", *arguments)

    def scores(name: str) -> dict[str, Any]:
        path = tmp_path / "runs" / name / "sweep" / "results.json"
        found = json.loads(path.read_text())["trials"]
        assert [one["state"] for one in found] == ["finished"] * 3
        values = {}
        for one in found:
            values[one["name"]] = [(line["kimg"], line["kd_lite0"]) for line in one["scores"]]
        return values

    assert scores("killed") == scores("whole")
