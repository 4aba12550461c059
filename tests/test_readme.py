"""Every command of the README works: trainings with a tiny budget, sweeps as a plan."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import Faces
from PIL import Image
from test_adopt import tensors, written
from test_sources import celeba

from facefactory import command, config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]
TINY = [
    f"{name}={value}"
    for name, value in {
        "judge.model": "{width: 8, depth: 2}",
        "judge.training.total_kimg": 8,
        "judge.folds": 2,
        "judge.fold_kimg": 4,
        "interpret.spaces": "[z]",
        "interpret.samples": 300,
    }.items()
]


def job(line: str, *more: str) -> None:
    """Run a README line's job in this process."""
    _, script, *arguments = shlex.split(line.split("#")[0])
    found: list[tuple[str, tuple[str, ...], str | None, tuple[str, ...]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            command,
            "main",
            lambda name, stages, preset=None, pair=(): found.append((name, stages, preset, pair)),
        )
        runpy.run_path(str(ROOT / script), run_name="__main__")
    name, stages, preset, pair = found[0]
    command.start(
        name,
        stages,
        preset,
        ["cluster=local", *arguments, *more],
        pair,
    )


def test_commands_on_runs_work_in_the_order_of_the_page(few_spoilt: None) -> None:
    lines = [line for line in LINES if "run=first" in line]
    assert len(lines) == 7
    for line in lines:
        more = (
            ["training.total_kimg=0.16", "pack.resolution=16", "model.depth=2", *TINY]
            if "train_" in line
            else []
        )
        job(line, *more)
    assert len(list(Path("faces").glob("*.png"))) == 1000
    assert Path("runs/first/report.html").exists()

    # and the lines of Python that the page shows for the same run
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(compile(block, "README.md", "exec"), {})
    with Image.open("face.png") as picture:
        assert picture.size == (16, 16)


OTHERS = [line for line in LINES if line.startswith("python") and "run=first" not in line]
ON_A_CLUSTER = ("jobs/status.py", "jobs/check.py")  # run by tests/slurm


@pytest.mark.parametrize(
    "line", [line for line in OTHERS if not any(job in line for job in ON_A_CLUSTER)]
)
def test_other_commands_plan(
    line: str,
    faces: Faces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    celeba(tmp_path / "celeba", "folder", "txt")
    line = line.replace("/path/to/fakes", str(faces.root))
    if "generator.yaml" in line:
        line = line.replace("/path/to/generator.yaml", written(faces, tensors(tmp_path))[7:])
    job(
        line.replace("/path/to/faces", str(faces.root)).replace(
            "/path/to/celeba", str(tmp_path / "celeba")
        ),
        "dry_run=true",
    )
    shown = capsys.readouterr().out
    assert "pack: to run" in shown
    assert ("#SBATCH --job-name=ff-" in shown and "srun" in shown) == ("cluster=slurm" in line)


def test_the_two_make_commands_exist() -> None:
    for line in [line for line in LINES if line.startswith("make")]:
        target = line.split()[1]
        assert (
            subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0
        )


def test_an_old_python_gets_the_ways_out(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Python 3.9.2" in shown
    assert all(way in shown for way in ("module", "uv", "conda"))


def test_the_table_of_jobs_is_the_folder_of_jobs() -> None:
    page = (ROOT / "jobs" / "README.md").read_text()
    named = set(re.findall(r"^\| `(\w+)\.py", page, re.M))
    assert named == {path.stem for path in (ROOT / "jobs").glob("*.py")}


def test_links_and_keys_of_the_page_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    from facefactory.run import Run

    known = {name for name, _, _ in config.leaves(Run)} | {
        "run",
        "config",
        "model.width",
        "model.name",
    }
    for key in re.findall(r"\b([a-z_]+\.[a-z_]+)=", README):
        assert key in known or key.split(".")[0] in ("model", "objective"), key
