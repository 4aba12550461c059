"""SIGKILL at random moments, then the same command again: the weights equal the undisturbed run's, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Faces

from facefactory import checkpoint

ROOT = Path(__file__).parents[1]


def start(job: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A job in a process group of its own."""
    line = [
        sys.executable,
        str(ROOT / "jobs" / f"{job}.py"),
        "config=tiny",
        "cluster=local",
        *arguments,
    ]
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            line,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(job: str, folder: Path, *arguments: str) -> None:
    """Run a job to its end."""
    assert start(job, folder, *arguments).wait(600) == 0, (folder / "log.txt").read_text()[-3000:]


def done(folder: Path, name: str, stage: str = "train") -> dict[str, object]:
    """What a stage of a run left."""
    found: dict[str, object] = json.loads(
        (folder / "runs" / name / stage / "DONE.json").read_text()
    )["outputs"]
    return found


def alive(folder: Path) -> list[int]:
    """Processes that have the folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_in_training(
    job: str, folder: Path, name: str, rng: random.Random, *arguments: str
) -> None:
    """Start a job, wait until it has saved something, and kill it without warning a moment later."""
    process = start(job, folder, f"run={name}", *arguments)
    checkpoints = folder / "runs" / name / "train" / "checkpoints"
    limit = time.monotonic() + 120
    seen = len(list(checkpoints.glob("*.pt")))
    newest = max(checkpoints.glob("*.pt"), default=None)
    while (
        process.poll() is None
        and max(checkpoints.glob("*.pt"), default=None) == newest
        and time.monotonic() < limit
    ):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, (
        f"ended by itself ({seen} checkpoints before): {(folder / 'log.txt').read_text()[-2000:]}"
    )


QUICK = {
    ("train_gan", 1)
}  # the others: make torture; toys of two ranks are killed in test_contracts.py
ALL = [
    (job, ranks) for job in ("train_gan", "train_vae", "train_classifier") for ranks in (1, 2, 3)
]


@pytest.mark.parametrize(
    ("job", "ranks"),
    [pytest.param(*one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in ALL],
)
def test_killed_and_continued_equals_undisturbed(
    job: str, ranks: int, faces: Faces, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"kill moments from seed {seed}")
    rng = random.Random(seed)
    budget = {"train_gan": 2.4, "train_vae": 3.6, "train_classifier": 4.8}[job] / (
        1 if ranks == 1 else 2
    )
    arguments = [
        f"pack.recipe={faces.recipe}",
        f"training.total_kimg={budget}",
        f"training.ranks={ranks}",
        "training.checkpoint_kimg=0.3",
    ]

    # one undisturbed, one killed: no rank outlives it
    finish(job, tmp_path, "run=whole", *arguments, "training.log_kimg=0", "training.sample_kimg=0")
    kill_in_training(job, tmp_path, "killed", rng, *arguments)
    limit = time.monotonic() + 20
    while (orphans := alive(tmp_path / "runs" / "killed")) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not orphans, "ranks outlived their launcher"

    # the same command, the same weights
    finish(job, tmp_path, "run=killed", *arguments)
    assert (
        done(tmp_path, "killed")["checkpoint"] == done(tmp_path, "whole")["checkpoint"]
    )  # with and without metrics and samples
    attempts = sorted((tmp_path / "runs" / "killed" / "train").glob("metrics-*.jsonl"))
    assert len(attempts) >= 2, "the killed run did not log"


def test_a_polite_stop_saves_and_the_same_command_goes_on(faces: Faces, tmp_path: Path) -> None:
    arguments = [
        f"pack.recipe={faces.recipe}",
        "training.total_kimg=3",
        "training.checkpoint_kimg=100",
    ]
    finish("train_gan", tmp_path, "run=whole", *arguments)
    process = start("train_gan", tmp_path, "run=stopped", *arguments)
    while (
        not list((tmp_path / "runs" / "stopped" / "train").glob("metrics-*.jsonl"))
        and process.poll() is None
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert "interrupted" in (tmp_path / "log.txt").read_text()
    finish("train_gan", tmp_path, "run=stopped", *arguments)
    assert done(tmp_path, "stopped")["checkpoint"] == done(tmp_path, "whole")["checkpoint"]


def test_a_sweep_killed_and_continued_loses_and_repeats_no_finished_trial(
    faces: Faces, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [4, 6, 8]}\n")
    arguments = [
        f"pack.recipe={faces.recipe}",
        f"sweep.space={space}",
        "sweep.sampler=grid",
        "sweep.early_stopping=false",
        "evaluation.networks=[lite0]",
        "interpret.spaces=[z]",
    ]
    arguments += [
        "sweep.min_kimg=0.6",
        "sweep.max_kimg=1.2",
        "training.total_kimg=1.5",
        "sweep.finalists=1",
        "training.checkpoint_kimg=0.3",
    ]
    finish("sweep_gan", tmp_path, "run=whole", *arguments)
    process = start("sweep_gan", tmp_path, "run=killed", *arguments)
    trials = tmp_path / "runs" / "killed" / "sweep" / "trials"
    while len(list(trials.glob("*/state.json"))) < 1 and process.poll() is None:
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.5))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    ended = [path.parent / "train" / "DONE.json" for path in trials.glob("*/state.json")]
    finished = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in ended}
    assert finished
    finish("sweep_gan", tmp_path, "run=killed", *arguments)
    assert all(
        (path.stat().st_mtime_ns, path.read_bytes()) == before for path, before in finished.items()
    )

    def scores(name: str) -> dict[str, object]:
        found = json.loads((tmp_path / "runs" / name / "sweep" / "results.json").read_text())[
            "trials"
        ]
        assert [one["state"] for one in found] == ["finished"] * 3
        keep = ("kimg", "kd_lite0")
        return {
            one["name"]: [{key: line[key] for key in keep} for line in one["scores"]]
            for one in found
        }

    assert scores("killed") == scores("whole")
    assert done(tmp_path, "killed", "finalists") == done(tmp_path, "whole", "finalists")
    report = json.loads((tmp_path / "runs" / "killed" / "report.json").read_text())
    assert report
    assert (tmp_path / "runs" / "killed" / "report.html").stat().st_size > 10**6
    before = (tmp_path / "log.txt").stat().st_size
    finish("sweep_gan", tmp_path, "run=killed", *arguments)
    again = (tmp_path / "log.txt").read_text()[before:]
    assert again.count(": complete") == 5
    assert ": done" not in again


def test_a_training_goes_on_with_another_number_of_ranks_on_the_same_images(
    faces: Faces, tmp_path: Path
) -> None:
    """In float64 and without batch norm another order of images would show at once: Adam's steps are about 1e-3."""
    arguments = [f"pack.recipe={faces.recipe}", "training.precision=float64", "model.g_norm=none"]
    finish("train_gan", tmp_path, "run=one", *arguments, "training.total_kimg=0.24")
    finish("train_gan", tmp_path, "run=more", *arguments, "training.total_kimg=0.12")
    finish(
        "train_gan",
        tmp_path,
        "run=more",
        *arguments,
        "training.total_kimg=0.24",
        "training.ranks=2",
        "changed=accept",
    )
    assert not list((tmp_path / "runs" / "more").glob("train.old-*"))
    one, more = (
        checkpoint.load(tmp_path / "runs" / name / str(done(tmp_path, name)["path"]))
        for name in ("one", "more")
    )
    assert one.clock == more.clock == 240
    for name, weights in one.networks.items():
        torch.testing.assert_close(more.networks[name], weights, rtol=0, atol=1e-8)
