"""Chains on a real Slurm, the short way: all stages over two nodes, one preemption, one failing stage, what people see of it."""

from __future__ import annotations

import json
import shlex
import stat
from pathlib import Path

import pytest
from conftest import Faces

from .chains import Place
from .conftest import Cluster


@pytest.fixture
def place(slurm: Cluster, tmp_path: Path, faces: Faces) -> Place:
    """Small drawn faces."""
    return Place(slurm, tmp_path, faces.recipe)


def test_a_sweep_is_one_command_and_ends_with_a_report(slurm: Cluster, place: Place) -> None:
    arguments = [
        "config=tiny",
        "cluster=slurm",
        "run=s",
        f"pack.recipe={place.recipe}",
        place.profile(),
        "sweep.parallel=4",
    ]
    arguments += ["pack.tasks=2", "pack.shard_images=16", "evaluation.networks=[lite0]"]
    arguments.append("interpret.spaces=[z]")

    # submitted once, whatever is typed again
    told = place.job("sweep_gan", *arguments, "training.ranks=4")
    assert all(stage in told for stage in ("prepare", "sweep", "finalists", "evaluate", "report"))
    assert "already running" in place.job("sweep_gan", *arguments, "training.ranks=4")
    place.until_ended("s", 400)
    slurm.until(
        lambda: all(line.endswith("COMPLETED") for line in place.records("s")), 30, place.logs("s")
    )

    # every job ended well
    stages = [
        "evaluate",
        "evaluate",
        "finalists",
        "finalists",
        "pack",
        "pack",
        "prepare",
        "report",
        "sweep",
    ]
    assert place.records("s") == [f"ff-s-{stage} COMPLETED" for stage in stages]

    # and its report is there
    report = json.loads((place.path("s") / "report.json").read_text())
    assert not report["failures"]
    assert (place.path("s") / "report.html").stat().st_size > 10**6
    assert len(report["sweep"]["trials"]) == 4
    nodes = place.status("s")
    assert nodes["sweep"]["nodes"] == nodes["finalists"]["nodes"] == "n[1-2]"
    again = place.job("sweep_gan", *arguments, "training.ranks=4")
    assert set(place.ids("s").values()) == {
        row["job"].partition("_")[0] for row in nodes.values() if isinstance(row, dict)
    }, again

    # secrets stay with their owner
    private = place.path("s") / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not list(private.glob("*.token"))


def test_a_preempted_training_goes_on_bit_for_bit(place: Place) -> None:
    place.train("whole", "cluster=local")
    place.train("low", place.profile("low", partition="low"))
    place.until_trained("low", 0.2)
    other = place.cluster.batch("sleep 2", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.wait(other, "COMPLETED")
    place.until_ended("low")
    status = place.status("low")
    assert place.weights("low") == place.weights("whole"), place.logs("low")
    assert status["train"]["restarts"] == 1
    assert status["train"]["state"] == "COMPLETED"
    assert status["source"].startswith("sacct")
    ledger = (place.path("low") / "jobs.jsonl").read_text()
    assert '"interrupted"' in ledger  # it was told, and saved, instead of being killed


BROKEN = """\
from facefactory.objectives.classification import Component as Classification


class Component(Classification):
    def loss(self, phase, model, batch):
        raise FloatingPointError("this judge is broken on purpose")
"""


def test_what_depends_on_a_failed_stage_never_runs_and_people_are_told_why(place: Place) -> None:
    """A judge that cannot be trained. (A failing training and a failing finalist: make torture.)"""
    broken = place.folder / "broken.py"
    broken.write_text(BROKEN)
    arguments = [
        f"judge.objective.name={broken}",
        "config=tiny",
        "cluster=slurm",
        "run=b",
        f"pack.recipe={place.recipe}",
        place.profile(),
        "wait=true",
    ]
    assert "this judge is broken on purpose" in place.job("sweep_gan", *arguments, code=1)
    found = {line.split()[0]: line.split()[1] for line in place.records("b")}
    assert found["ff-b-prepare"] == "FAILED"
    assert found["ff-b-report"] == "COMPLETED"
    assert found["ff-b-sweep"] == found["ff-b-finalists"] == found["ff-b-evaluate"] == "CANCELLED"
    report = json.loads((place.path("b") / "report.json").read_text())
    failures = {one["name"]: one for one in report["failures"]}
    assert report["kind"] == "sweep"
    assert "broken on purpose" in failures["judge"]["log_tail"]
    assert "a job before it failed" in failures["finalists"]["error"]
    place.job("status", "run=b", code=1)


def test_sbatch_says_no_and_nothing_stays_in_the_queue(place: Place) -> None:
    told = place.train(
        "no",
        place.profile(partition="nowhere"),
        code=2,
    )
    assert "partition='nowhere' is no partition here" in told
    assert "Traceback" not in told
    told = place.train(
        "no",
        place.profile(sbatch={"reservation": "nowhere"}),
        code=2,
    )
    assert "error: Slurm refused" in told
    assert "reservation" in told
    assert "Traceback" not in told
    assert "Slurm refused the job" in place.job("status", "run=no", code=1)
    told = place.train(
        "no", place.profile(cpu_partition="cpu", memory_gb=9999), code=2
    )  # the second job is refused
    assert "memory_gb" in told
    assert not place.cluster.run("squeue", "-h").strip()
    place.train(
        "no", place.profile(), "wait=true"
    )  # and the same name works once the profile is right


def test_the_commands_of_the_readme_that_need_a_cluster_work(place: Place) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    check = next(line for line in readme.splitlines() if line.startswith("python jobs/check.py"))
    told = place.job(
        "check",
        *shlex.split(check)[2:],
        "partitions=[cpu]",
        code=1,
    )
    assert (
        "sees none of the GPUs that were granted" in told
    )  # pretended GPUs are told from real ones
    assert "all-reduce of 2 tasks" in told
    assert "on n1, n2, which see this folder" in told
    assert "partition: " in told.split("# a profile")[1]
    place.train("r", place.profile())
    status = next(line for line in readme.splitlines() if line.startswith("python jobs/status.py"))
    told = place.job("status", *shlex.split(status)[2:])
    assert told.splitlines()[-1].split()[:3:2] == ["train", "COMPLETED"]


def test_a_folder_that_others_can_write_is_refused(place: Place) -> None:
    place.path("open").mkdir(parents=True)
    place.path("open").chmod(0o777)
    assert "chmod -R o-w" in place.train("open", place.profile(), code=2)


@pytest.mark.slow
def test_jobs_that_share_what_dimensions_mean_find_what_one_process_finds(place: Place) -> None:
    asked = ["interpret.spaces=[z]", "interpret.samples=600", "interpret.min_effect=0.05"]
    for name in ("alone", "shared"):
        place.train(name, "cluster=local", ranks=1, kimg=0.5)
    place.job("interpret", "run=alone", "cluster=local", *asked)
    cluster = ["cluster=slurm", place.profile(), "wait=true"]
    told = place.job("interpret", "run=shared", "interpret.tasks=3", *cluster, *asked)
    assert all(job in told for job in ("faces", "walks", "interpret"))
    jobs = [line for line in place.records("shared") if "prepare" not in line]
    names = ["faces"] * 3 + ["interpret"] + ["walks"] * 3
    assert jobs == [f"ff-shared-{name} COMPLETED" for name in names]
    alone, shared = (
        (place.path(name) / "interpret" / "results.json").read_text()
        for name in ("alone", "shared")
    )
    assert shared == alone
    assert json.loads(alone)["claims"]
    assert place.status("shared")["walks"]["state"] == "COMPLETED"
