"""Ray's folder on a node whose /tmp others can write to."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from facefactory.cluster import ray_on_slurm


def step(folder: Path) -> str:
    """What a step's command says that runs in such a folder; empty if it was not started."""
    line = ["bash", "-c", ray_on_slurm.SHELL, str(folder), "echo", "started"]
    done = subprocess.run(line, capture_output=True, text=True, umask=0)
    assert (done.returncode == 0) == (done.stdout == "started\n")
    return done.stdout


def test_rays_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    assert step(tmp_path / "ray") and stat.S_IMODE((tmp_path / "ray").stat().st_mode) == 0o700
    assert step(tmp_path / "ray")  # on nodes that share /tmp the first has made it


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_somebody_else_has_put_there_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "own").mkdir()
    if kind == "link":
        (tmp_path / "ray").symlink_to(tmp_path / "own")
    else:
        (tmp_path / "ray").touch()
    assert not step(tmp_path / "ray")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir(mode=0o777)
    os.chown(tmp_path / "ray", 12345, 12345)
    assert not step(tmp_path / "ray")
