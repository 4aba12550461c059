"""Nothing but `jobs/weights.py fetch` needs a network: with it cut, packing, training, weights and scores work."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What Python's own libraries would do to reach another machine ends the job
GUARD = textwrap.dedent("""\
    import runpy, sys

    OUTSIDE = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}

    def refuse(event, arguments):
        if event in OUTSIDE:
            raise SystemExit(f"opened a connection: {event} {arguments}")

    sys.argv = sys.argv[1:]
    sys.addaudithook(refuse)
    runpy.run_path(sys.argv[0], run_name="__main__")
    """)


def guarded(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", GUARD, str(ROOT / "jobs" / f"{script}.py"), *arguments]


@functools.cache
def alone() -> tuple[str, ...]:
    """What starts a command in a network namespace of its own; skips where that is forbidden."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    why = ""
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        tried = subprocess.run(
            [*prefix, "true"],
            capture_output=True,
            text=True,
        )
        if tried.returncode == 0:
            return prefix
        why = tried.stderr.strip()
    pytest.skip(f"no network namespace may be made here: {why}")


def run(command: Sequence[str], folder: Path) -> str:
    ended = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny run, which was packed and trained without a connection."""
    folder = tmp_path_factory.mktemp("cut")
    small = ["pack.recipe=drawn", "pack.limit=120", "training.total_kimg=0.1"]
    scored = ["evaluation.reals=48", "evaluation.fakes=40", "judge.training.total_kimg=1"]
    places = ["cluster=local", "paths.data=data"]
    run(guarded("train_gan", "config=tiny", "run=mine", *places, *small, *scored), folder)
    return folder


def test_the_guard_ends_what_opens_a_connection(tmp_path: Path) -> None:
    script = tmp_path / "calls.py"
    script.write_text("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')\n")
    ended = subprocess.run(
        [sys.executable, "-c", GUARD, str(script)], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "opened a connection" in ended.stderr


def test_the_namespace_has_no_network() -> None:
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    assert run([*alone(), sys.executable, "-c", code], ROOT).strip() == "['lo']"


@pytest.mark.timeout(900)  # a minute of a core, and machines may be busy
def test_without_a_network_a_run_is_scored_on_staged_weights(trained: Path) -> None:
    run([*alone(), *guarded("evaluate", "run=mine")], trained)
    found = json.loads((trained / "runs" / "mine" / "evaluate" / "results.json").read_text())
    assert "kd_lite0" in {score["name"] for score in found["scores"]}
    assert "python jobs/weights.py fetch" in found["not_staged"]["inception"]


def test_without_a_network_a_file_is_added_listed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path / "store"))
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    run([*alone(), *guarded("weights", "add", "mine.safetensors")], tmp_path)
    assert "mine: " in run([*alone(), *guarded("weights", "verify", "mine")], tmp_path)
