"""Short folders that are their user's alone, and what a kill leaves of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from facefactory import scratch

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def holder(folder: Path, lasting: bool = False) -> subprocess.Popen[str]:
    """A process that holds a folder, from when this returns; its input ends it."""
    code = f"import sys, pathlib; from facefactory import scratch; lock = scratch.hold(pathlib.Path({str(folder)!r}), {lasting})"
    code += "; print(lock, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_a_folder_is_its_users_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        os.close(scratch.hold(tmp_path / "ff-a"))
    finally:
        os.umask(before)
    found = (tmp_path / "ff-a").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, os.geteuid())
    assert [path.name for path in tmp_path.iterdir()] == ["ff-a"]


@root_only
def test_others_can_neither_make_nor_rename_below_it(tmp_path: Path) -> None:
    lock = scratch.hold(tmp_path / "ff-a")
    (tmp_path / "ff-a" / "ray").mkdir()
    (tmp_path / "ff-a" / "ray").chmod(0o777)  # as Ray does
    for parent in [tmp_path, *tmp_path.parents]:
        if parent != Path("/tmp") and Path("/tmp") in parent.parents:
            parent.chmod(0o755)
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    inside = tmp_path / "ff-a" / "ray"
    for command in (
        ["touch", inside / "x"],
        ["mv", inside, tmp_path / "ff-a" / "other"],
        ["ls", inside],
    ):
        assert subprocess.run([*stranger, *command], capture_output=True).returncode
    assert (
        subprocess.run([*stranger, "ls", tmp_path], capture_output=True).returncode == 0
    )  # it is not the way that is barred
    os.close(lock)


def test_names_are_short_and_never_the_same(tmp_path: Path) -> None:
    names = {scratch.name() for _ in range(1000)}
    assert len(names) == 1000
    longest = f"{max(names)}/ray/session_2026-11-28_21-55-26_123456_4194304/sockets/plasma_store"
    assert len(longest) <= 107


def test_what_somebody_has_made_already_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ff-a").mkdir()
    with pytest.raises(FileExistsError, match="ff-a exists"):
        scratch.hold(tmp_path / "ff-a")
    (tmp_path / "ff-b").symlink_to(tmp_path / "ff-a")
    with pytest.raises(FileExistsError):
        scratch.hold(tmp_path / "ff-b")


def test_a_folder_is_swept_once_its_process_was_killed_and_not_before(tmp_path: Path) -> None:
    process = holder(tmp_path / "ff-a")
    (tmp_path / "ff-a" / "ray").mkdir()
    assert scratch.sweep(tmp_path) == []
    end(process, signal.SIGKILL)
    assert scratch.sweep(tmp_path) == [tmp_path / "ff-a"]
    assert not (tmp_path / "ff-a").exists()


def test_what_a_process_becomes_holds_its_folder(tmp_path: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "facefactory.scratch",
        str(tmp_path / "ff-a"),
        "sh",
        "-c",
        "echo $SLURM_PROCID.; exec cat",
    ]
    environment = {**os.environ, "SLURM_PROCID": "3"}
    process = subprocess.Popen(
        line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == ".\n"
    assert scratch.sweep(tmp_path) == []
    end(process, signal.SIGKILL)
    assert scratch.sweep(tmp_path) == [tmp_path / "ff-a"]


def test_the_next_start_sweeps_what_the_last_one_left(tmp_path: Path) -> None:
    end(holder(tmp_path / "ff-a"), signal.SIGKILL)
    line = [sys.executable, "-m", "facefactory.scratch", str(tmp_path / "ff-b"), "true"]
    assert subprocess.run(line).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ff-b"]


def test_folders_of_other_hosts_of_others_and_unknown_ones_stay(tmp_path: Path) -> None:
    for name in ("ff-far", "ff-torn"):
        os.close(scratch.hold(tmp_path / name))
    (tmp_path / "ff-far" / "held").write_text(json.dumps({"host": f"not-{socket.gethostname()}"}))
    (tmp_path / "ff-torn" / "held").write_text('{"ho')
    (tmp_path / "ff-unmarked").mkdir()
    (tmp_path / "ff-file").touch()
    os.close(scratch.hold(tmp_path / "mine"))
    (tmp_path / "ff-link").symlink_to(tmp_path / "mine")
    assert scratch.sweep(tmp_path) == []
    assert (tmp_path / "mine" / "held").exists()


@root_only
def test_a_strangers_folder_stays(tmp_path: Path) -> None:
    os.close(scratch.hold(tmp_path / "ff-a"))
    os.chown(tmp_path / "ff-a", 12345, 12345)
    assert scratch.sweep(tmp_path) == []
