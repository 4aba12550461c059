"""What people are told on a real Slurm: of jobs that are held, that cannot work there, that fail; and of two who start one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Faces

from facefactory import rundir

from .chains import ROOT, Place
from .conftest import Cluster

BROKEN = """\
import os
import time

from facefactory import runner
from facefactory.objectives.adversarial import Component as Adversarial


class Component(Adversarial):
    def loss(self, phase, model, batch):
        if os.environ["RANK"] == "1":
            raise LookupError("this rank is broken on purpose")
        while not runner.stop():  # rank 0 is busy until srun ends it, because the other one has failed
            time.sleep(0.05)
        raise runner.Interrupted("what was done is saved")
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def place(mended: Cluster, tmp_path: Path, faces: Faces) -> Place:
    """Trainings of small drawn faces."""
    place = Place(mended, tmp_path, faces.recipe)
    place.pace(None)
    return place


@pytest.fixture
def short(mended: Cluster) -> Any:
    """A partition of both nodes whose jobs may take 5 minutes."""
    mended.run(
        "scontrol", "create", "PartitionName=short", "Nodes=n1,n2", "MaxTime=5", "MaxNodes=1"
    )
    yield "short"
    mended.run("scontrol", "delete", "PartitionName=short")


def submitted(place: Place, run: str) -> list[str]:
    """The ids of all jobs that a run ever submitted."""
    return [
        line["job"]
        for line in rundir.read_jsonl(place.path(run) / "jobs.jsonl")
        if line["state"] == "submitted"
    ]


def test_what_cannot_work_here_is_refused_before_it_is_queued(place: Place, short: str) -> None:
    cases: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        (
            "partition='nowhere' is no partition here",
            {"partition": "nowhere", "cpu_partition": "cpu"},
            (),
        ),
        ("gpu_min=10, but partition short allows 5 minutes", {"partition": short}, ()),
        (
            "train needs 2 nodes (processes_per_node=1), but partition short gives 1",
            {"partition": short, "processes_per_node": 1},
            (),
        ),
        (
            "memory_gb=99 for 2 processes on a node, but partition gpu has 16.0 GB (at most 8)",
            {"memory_gb": 99},
            (),
        ),
        (
            "cpus_per_process=3 for 2 processes on a node, but partition gpu has 4 CPUs (at most 2)",
            {"cpus_per_process": 3},
            (),
        ),
        (
            "gpus_per_node=4, but nodes of partition gpu have at most 2 GPUs",
            {"gpus_per_node": 4},
            ("training.device=auto", "training.ranks=4"),
        ),
        (
            "signal_s=600 seconds, but gpu_min=10 is a limit of 600",
            {"signal_s": 600, "cpu_min": 20},
            (),
        ),
        (
            "pack.tasks=1002, but this Slurm takes arrays of at most 1001 jobs",
            {},
            ("pack.tasks=1002",),
        ),
    )

    # one line each, and nothing is queued
    for number, (words, changes, arguments) in enumerate(cases):
        told = place.train(
            f"no{number}",
            place.profile(**changes),
            *arguments,
            code=2,
        )
        assert words in told.replace("\n", " ") and "Traceback" not in told, told
        assert submitted(place, f"no{number}") == []
    assert not place.cluster.run("squeue", "-h").strip()
    assert "pack.tasks=1002" in place.job("status", f"run=no{len(cases) - 1}", code=1)


def test_a_rank_that_raises_ends_its_job_and_is_not_requeued(place: Place) -> None:
    (place.folder / "broken.py").write_text(BROKEN)
    place.train(
        "broken",
        place.profile(),
        f"objective.name={place.folder / 'broken.py'}",
        "wait=true",
        code=1,
    )
    shown = place.cluster.run("scontrol", "-o", "show", "job", place.ids("broken")["train"])
    row = place.status("broken", code=1)["train"]
    assert (row["state"], row["exit_code"], row["restarts"]) == ("FAILED", "1:0", 0), place.logs(
        "broken"
    )
    assert "LookupError: this rank is broken on purpose" in row["log_tail"]
    assert "asks to be requeued" not in place.logs("broken")
    assert "Restarts=0" in shown
    job = place.ids("broken")["train"]
    assert place.cluster.run("sacct", "-DnXP", "-o", "State", "-j", job).split() == [
        "FAILED"
    ]  # one start, no other


def test_a_stop_where_requeueing_is_forbidden_is_one_copy(place: Place) -> None:
    place.pace(0.1)
    place.drill("copied", place.profile(requeue="resubmit"))
    place.until_trained("copied", 0.3)
    job = place.ids("copied")["train"]
    place.cluster.run("scancel", "--signal=TERM", job)  # no grace period to race with
    place.cluster.until(lambda: place.ids("copied")["train"] != job, 90, place.logs("copied"))
    place.pace(None)
    place.until_ended("copied")
    row = place.status("copied")["train"]
    assert (row["job"], row["state"]) == (place.ids("copied")["train"], "COMPLETED"), place.logs(
        "copied"
    )
    assert len(submitted(place, "copied")) == 3
    assert "interrupted" in place.ledger("copied")


def test_a_held_job_is_told_with_its_release_and_nothing_is_submitted_again(place: Place) -> None:
    blocker = place.cluster.batch("sleep 600", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.wait(blocker, "RUNNING")
    place.train("held", place.profile())
    jobs = place.ids("held")
    place.cluster.run("scontrol", "hold", jobs["prepare"])
    told = place.train("held", place.profile())
    assert "already running" in told
    assert f"{jobs['prepare']} is held: scontrol release {jobs['prepare']}" in told
    assert f"scontrol release {jobs['prepare']}" in place.status("held")["prepare"]["waits"]

    place.cluster.run("scancel", blocker)
    place.cluster.run("scontrol", "release", jobs["prepare"])
    place.cluster.wait(jobs["prepare"], ("RUNNING", "COMPLETING"))
    place.cluster.run("scontrol", "requeuehold", "State=SpecialExit", jobs["prepare"])
    place.cluster.until(
        lambda: place.cluster.job(jobs["prepare"]).get("JobState") == "SPECIAL_EXIT",
        60,
        "the hold",
    )
    row = place.status("held")["prepare"]
    assert row["state"] == "SPECIAL_EXIT"
    assert row["live"]
    assert f"scontrol release {jobs['prepare']}" in row["waits"]
    assert "is held: scontrol release" in place.train("held", place.profile())
    place.cluster.run("scontrol", "release", jobs["prepare"])
    place.until_ended("held")
    assert place.status("held")["train"]["state"] == "COMPLETED"
    assert set(submitted(place, "held")) == set(jobs.values())


def test_a_node_that_does_not_see_the_run_folder_is_told_so(place: Place) -> None:
    runs = place.cluster.local / "runs"  # here one disk, on each node another
    told = place.train(
        "unseen",
        place.profile(),
        f"paths.runs={runs}",
        "wait=true",
        code=1,
    )
    assert "0:53" in told and "the node does not see the run folder" in " ".join(told.split()), (
        told
    )


def test_names_and_folders_with_marks_in_them_run_to_their_end(place: Place) -> None:
    runs = place.folder / 'it\'s a|b, say "x"'
    for name, folder in (("a b (1) @x #2", place.folder / "runs"), ("plain", runs)):
        path = folder / name
        place.train(
            name, place.profile(), f"paths.runs={json.dumps(str(folder))}", "wait=true", kimg=0.2
        )
        found = json.loads((path / "train" / "DONE.json").read_text())
        rows = json.loads(place.job("status", f"run={path}", "json=true"))["jobs"]
        assert found["outputs"]
        assert {row["state"] for row in rows} == {"COMPLETED"}


def test_names_that_slurm_would_read_otherwise_are_refused(place: Place) -> None:
    for name in ("20%noise", "a|b", "it's"):
        told = place.train(
            name,
            place.profile(),
            code=2,
        )
        assert "a run's name has letters, digits, blanks and" in told
    told = place.train(
        "r",
        place.profile(),
        f"paths.runs={place.folder / '20%noise'}",
        code=2,
    )
    assert "Slurm replaces in the names of logs" in told.replace("\n", " ")
    assert not place.cluster.run("squeue", "-h").strip()


def test_the_same_command_from_two_login_nodes_is_one_chain(place: Place) -> None:
    usual = [
        "config=tiny",
        "cluster=slurm",
        "run=twice",
        f"pack.recipe={place.recipe}",
        "training.ranks=2",
        place.profile(),
    ]
    usual += ["training.total_kimg=0.5", "wait=true"]
    line = [sys.executable, str(ROOT / "jobs" / "train_gan.py"), *usual]
    environment = place.cluster.env | {"PYTHONPATH": str(ROOT)}

    def login(host: str) -> subprocess.Popen[str]:
        """The command on a host of another name, with processes of its own."""
        shell = f'hostname {host} && exec "$@"'
        other = [
            "unshare",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
            "bash",
            "-c",
            shell,
            "bash",
            *line,
        ]
        return subprocess.Popen(
            other,
            cwd=place.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    both = [login("login1"), login("login2")]
    told = [one.communicate(timeout=800)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert sum("already running" in text for text in told) == 1, told
    jobs = place.ids("twice")
    assert sorted(submitted(place, "twice")) == sorted(jobs.values())
    assert len(jobs) == 2
    for text in told:
        assert all(job in text for job in jobs.values()), text
    named = place.cluster.run(
        "sacct", "-nXP", "-o", "JobName", "--name=ff-twice-prepare,ff-twice-train"
    ).split()
    assert sorted(named) == ["ff-twice-prepare", "ff-twice-train"]
    assert {row["state"] for row in place.status("twice").values() if isinstance(row, dict)} == {
        "COMPLETED"
    }


KILLING = """\
#!/bin/sh
case "$*" in *--test-only*) exec {sbatch} "$@";; esac
echo job >>{calls}
second() {{ [ "$(wc -l <{calls})" -eq 2 ]; }}
if [ {moment} = before ] && second; then kill -9 $PPID; exit 1; fi
{sbatch} "$@"
if [ {moment} = after ] && second; then kill -9 $PPID; fi
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_submission_that_was_killed_half_way_is_withdrawn_by_the_next(
    place: Place, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two jobs: before Slurm has it, and before its id is known to us."""
    run = f"half-{moment}"
    usual = [
        "config=tiny",
        "cluster=slurm",
        f"run={run}",
        f"pack.recipe={place.recipe}",
        "training.total_kimg=0.5",
        place.profile(),
    ]

    # sbatch that kills who calls it
    killing = place.folder / "bin" / "sbatch"
    killing.parent.mkdir()
    real = shutil.which("sbatch")
    killing.write_text(KILLING.format(sbatch=real, calls=place.folder / "calls", moment=moment))
    killing.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv(
            "PATH",
            str(killing.parent),
            prepend=os.pathsep,
        )
        place.job("train_gan", *usual, code=-signal.SIGKILL)
    queued = place.cluster.run("squeue", "-h", "-o", "%A %r").split("\n")[:-1]
    assert len(queued) == (1 if moment == "before" else 2)
    assert all(line.endswith("JobHeldUser") for line in queued)

    # the same command again
    place.job("train_gan", *usual, "wait=true")
    old = [line.split()[0] for line in queued]
    assert not set(old) & set(place.ids(run).values())
    states = place.cluster.run("sacct", "-nXP", "-j", ",".join(old), "-o", "State").split("\n")
    assert all(state.startswith("CANCELLED") for state in states[:-1])
    assert place.status(run)["train"]["state"] == "COMPLETED"
