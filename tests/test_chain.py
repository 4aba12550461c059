"""Which Slurm jobs the stages of a chain become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Faces

from facefactory import Failed, UserError, chain, command, config, process, rundir, runner
from facefactory.cluster import Profile, launch, local, ray_on_slurm
from facefactory.cluster.launch import Job
from facefactory.evaluation import Evaluation
from facefactory.run import Run, load_run, resolve
from facefactory.rundir import RunDir
from facefactory.stages import Plan, called_for, finalists, of
from facefactory.stages.sweep import LIVES

SWEEP = ["pack", "judge", "sweep", "finalists", "report"]


def jobs_of(todo: Sequence[str], **changes: Any) -> dict[str, Job]:
    """Stage -> job, for 4 ranks and 8 trials at once."""
    run = Run()
    run = dataclasses.replace(
        run,
        training=dataclasses.replace(run.training, ranks=4, **changes),
        sweep=dataclasses.replace(run.sweep, parallel=8, finalists=3),
    )
    jobs = chain.slurm_jobs(run, RunDir(Path("/shared/runs/r")), [of(name) for name in todo])
    assert len({job.stage for job in jobs}) == len(jobs)
    return {job.stage: job for job in jobs}


def shapes(jobs: dict[str, Job], fact: Callable[[Job], Any]) -> dict[str, Any]:
    return {stage: fact(job) for stage, job in jobs.items()}


def test_a_training_is_two_jobs() -> None:
    jobs = jobs_of(["pack", "train"])
    assert shapes(jobs, lambda job: (job.kind, job.processes, job.gpus, job.after)) == {
        "prepare": ("cpu", 1, False, "ok"),
        "train": ("gpu", 4, True, "ok"),
    }
    assert jobs["train"].commands == [["stages", "/shared/runs/r", "train"]]


def test_a_sweep_is_five_jobs() -> None:
    jobs = jobs_of(SWEEP)
    assert shapes(
        jobs, lambda job: (job.kind, job.processes, job.gpus, len(job.commands), job.after)
    ) == {
        "prepare": ("gpu", 1, True, 1, "ok"),  # packs and trains the judge: one wait in the queue
        "sweep": ("sweep", 8, True, 1, "ok"),
        "finalists": ("gpu", 4, True, 3, "ok"),
        "evaluate": ("gpu", 1, True, 3, "each"),
        "report": ("cpu", 1, False, 1, "any"),
    }
    assert jobs["prepare"].commands == [["stages", "/shared/runs/r", "pack", "judge"]]
    assert jobs["report"].commands == [["last", "/shared/runs/r", "finalists", "report"]]
    trained = jobs["finalists"].commands
    scored = jobs["evaluate"].commands
    assert jobs["sweep"].commands == [["part", "/shared/runs/r", "sweep", "opens=finalists"]]
    home = ["part", "/shared/runs/r", "finalists"]
    assert [command[:4] for command in trained] == [[*home, str(place)] for place in range(3)]
    assert all(command[-1] == "train" for command in trained)
    assert all("evaluate" in command for command in scored)


def test_repeats_from_fresh_seeds_are_an_array_before_all_is_gathered_at_once() -> None:
    run = config.load(Run, ["sweep.confirm_seeds=2", "sweep.finalists=3"], [])
    names = ["pack", "judge", "sweep", "finalists", "confirm", "report"]
    stages = called_for(run, names)
    *before, confirm, report = chain.slurm_jobs(run, RunDir(Path("/shared/runs/r")), stages)
    assert [job.stage for job in before] == ["prepare", "sweep", "finalists", "evaluate"]
    assert (confirm.stage, confirm.after, len(confirm.commands)) == ("confirm", "any", 6)
    gathered = ["last", "/shared/runs/r", "finalists", "confirm", "report"]
    assert (report.after, report.commands) == ("any", [gathered])

    # none are asked for
    assert [stage.name for stage in called_for(Run(), names)] == SWEEP


def test_scoring_and_meaning_are_one_job() -> None:
    assert shapes(
        jobs_of(["evaluate", "interpret"]), lambda job: (job.commands, job.processes)
    ) == {"evaluate": ([["stages", "/shared/runs/r", "evaluate", "interpret"]], 1)}
    assert list(jobs_of(["pack", "judge", "evaluate"])) == ["prepare", "evaluate"]
    assert list(jobs_of(["generate"])) == ["generate"]


def test_a_command_makes_a_judge_only_where_one_of_its_stages_asks_for_it() -> None:
    def chain(*names: str, protocol: str, **more: Any) -> list[str]:
        run = Run(evaluation=Evaluation(scoring=protocol), **more)
        return [stage.name for stage in called_for(run, names)]

    scored = ("pack", "judge", "evaluate")
    assert chain(*scored, protocol="generator") == list(scored)
    assert chain(*scored, protocol="classifier") == ["pack", "evaluate"]
    assert chain("pack", "judge", "interpret", protocol="classifier")[1] == "judge"

    # finalists that draw faces are interpreted, whoever scores them
    seen = Evaluation(networks=["lite0"])
    assert [stage.name for stage in called_for(Run(evaluation=seen), SWEEP)] == SWEEP
    convnet = {"name": "classifier/convnet"}
    without = [name for name in SWEEP if name != "judge"]
    assert chain(*SWEEP, protocol="classifier", model=convnet) == without


def test_finalists_that_draw_nothing_are_not_interpreted() -> None:
    drawing = Run(evaluation=Evaluation(networks=["lite0"]))
    telling = Run(
        evaluation=Evaluation(scoring="classifier"), model={"name": "classifier/convnet"}
    )
    assert finalists.stages_of(drawing) == ["pack", "judge", "train", "evaluate", "interpret"]
    assert finalists.stages_of(telling) == ["pack", "train", "evaluate"]
    with pytest.raises(UserError, match="draws no faces to look at"):
        of("interpret").check(telling, RunDir(Path("r")), Plan(("interpret",), None, None))


def test_a_judge_is_trained_by_one_process_though_it_is_a_rank_among_others(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait in the training for it: if it waited for them too, nobody would go on."""
    small = ["config=tiny", f"pack.recipe={faces.recipe}", "run=r", "cluster=local"]
    judge = ["judge.training.total_kimg=0.024", "judge.fold_kimg=0.024"]
    command.start("pack_shards", ("pack",), "tiny", [*small, *judge])
    folder = RunDir(tmp_path / "runs" / "r")
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    outputs, _ = of("judge").work(load_run(folder.path), folder)
    assert outputs["judge"]


@pytest.mark.parametrize("done", range(len(SWEEP) + 1))
def test_complete_stages_submit_no_job(done: int) -> None:
    expected = {
        0: "prepare sweep finalists evaluate report",
        1: "prepare sweep finalists evaluate report",
    }
    expected |= {
        2: "sweep finalists evaluate report",
        3: "finalists evaluate report",
        4: "report",
        5: "",
    }
    assert list(jobs_of(SWEEP[done:])) == expected[done].split()


def test_work_on_cpus_asks_for_no_gpu() -> None:
    assert not any(job.gpus for job in jobs_of(SWEEP, device="cpu").values())


def test_every_job_of_a_chain_can_be_asked_for() -> None:
    profile = Profile(gpus_per_node=4)
    for job in jobs_of(SWEEP).values():
        assert f"#SBATCH --job-name=ff-r-{job.stage}\n" in launch.script(
            job, profile, Path("/shared/runs/r")
        )


def test_an_array_of_jobs_packs_the_bytes_of_one(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.stop, "listen", lambda: None)
    monkeypatch.setattr(local, "die_with_parent", lambda: None)
    common = [f"pack.recipe={faces.recipe}", "pack.shard_images=7", "pack.tasks=3"]
    packed = {}
    for name in ("one", "three"):
        own = [f"paths.data={tmp_path / name}", f"paths.runs={tmp_path / 'runs'}"]
        run = resolve(config.load(Run, [*common, *own], []))
        folder = rundir.prepare(
            tmp_path / "runs" / name, config.dump(run), config.flat(run), "command", False
        )
        jobs = chain.slurm_jobs(run, folder, [of("pack")])
        assert [(job.stage, job.kind, len(job.commands), job.after) for job in jobs] == [
            ("pack", "cpu", 3, "ok"),
            ("prepare", "cpu", 1, "ok"),
        ]

        # what its jobs run, in their order
        for line in [*(jobs[0].commands if name == "three" else []), *jobs[1].commands]:
            assert process.main(line) == 0
        (top,) = (tmp_path / name / "packed").glob("drawn-*/")
        packed[name] = {
            path.name: path.read_bytes()
            for path in top.glob("*")
            if path.suffix in (".tar", ".parquet", ".json")
        }
    assert len([name for name in packed["one"] if name.endswith(".tar")]) > 6
    assert packed["one"] == packed["three"]


def test_a_sweep_that_loses_ray_again_and_again_ends_and_a_stop_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    monkeypatch.setattr(ray_on_slurm, "run", lambda *_: local.INTERRUPTED)
    monkeypatch.setattr(runner.stop, "asked", False)
    run = resolve(Run())
    folder = rundir.prepare(
        tmp_path / "r",
        config.dump(run),
        config.flat(run),
        "command",
        False,
    )

    def ends() -> type[Exception]:
        with pytest.raises((runner.Interrupted, Failed)) as found:
            of("sweep").part(run, folder, [])
        return found.type

    for _ in range(2):  # and the next submission has all its lives again
        assert [ends() for _ in range(LIVES)] == [runner.Interrupted] * (LIVES - 1) + [Failed]
    assert ends() is runner.Interrupted
    monkeypatch.setattr(runner.stop, "asked", True)
    assert [ends() for _ in range(5)] == [
        runner.Interrupted
    ] * 5  # preempted before anything was trained
    monkeypatch.setattr(runner.stop, "asked", False)
    assert [ends(), ends()] == [runner.Interrupted, Failed]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (runner.Interrupted(), "what was done is saved"),
        (runner.Interrupted("each trial goes on"), "each trial goes on"),
    ],
)
def test_a_stop_says_what_becomes_of_the_work(
    reason: runner.Interrupted, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise reason

    assert process.guarded(work) == local.INTERRUPTED
    assert (
        "".join(capsys.readouterr())
        == f"interrupted; {words}. The same command goes on with it.\n"
    )
