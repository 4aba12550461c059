"""How Ray is started on the nodes of a job, with a pretended srun: what is tried again, what is given up, what is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from facefactory.cluster import ray_on_slurm
from facefactory.cluster.local import INTERRUPTED

SRUN = """\
#!{python}
import json, pathlib, signal, socket, sys, time
here = pathlib.Path({here!r})
options = [one for one in sys.argv[1:] if one.startswith("--")]
host, command = options[options.index("--ntasks=1") + 1].partition("=")[2], sys.argv[6:]
with open(here / "calls", "a") as stream:
    stream.write(json.dumps([host, command]) + "\\n")
if command[0] == "rm":
    sys.exit()
plan = (here / host).read_text().split() if (here / host).exists() else ["up"]
(here / host).write_text(" ".join(plan[1:] or plan))
if plan[0] == "refused":
    print("srun: error: Unable to create step for job 7: Memory required by task is not available")
    sys.exit(1)
if plan[0] == "dumb":
    print("Exception: The current node timed out during startup.")
    sys.exit(1)
for port in [one.partition("=")[2] for one in sys.argv if one.startswith("--port=")]:
    head = socket.create_server(("127.0.0.1", int(port)))
print("Ray runtime started.", flush=True)
time.sleep(0.5 if plan[0] == "dies" else 60)
sys.exit(9)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job on n1, n2 and n3; a file named after a node says what its steps do: up, dies, refused or dumb, in order."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text(SRUN.format(python=sys.executable, here=str(tmp_path)))
    (commands / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n")
    for path in commands.iterdir():
        path.chmod(0o755)
    (tmp_path / "private" / "jobs").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    for name, value in {"JOB_ID": "7", "JOB_NODELIST": "n[1-3]", "CPUS_PER_TASK": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(ray_on_slurm, "PAUSE_S", 0.1)
    monkeypatch.setattr(ray_on_slurm, "AWAY_S", 3.0)
    monkeypatch.setattr(ray_on_slurm, "NOTICE_S", 0.5)
    monkeypatch.setattr(ray_on_slurm, "address_towards", lambda host: "127.0.0.1")
    return tmp_path


def started(job: Path, host: str) -> list[list[str]]:
    """The commands of the steps on a node, without those that clean up."""
    calls = [json.loads(line) for line in (job / "calls").read_text().splitlines()]
    return [command for node, command in calls if node == host and command[0] != "rm"]


def led(
    job: Path,
    until: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    code: int = 0,
    stopped: bool = False,
) -> int:
    """The answer of a run whose driver ends with `code` when so many steps have been started on each node."""
    lines = [
        "import json, pathlib, sys, time",
        f"calls = pathlib.Path({str(job / 'calls')!r})",
        f"until = {until!r}",
    ]
    lines += [
        "def hosts(): return [json.loads(line)[0] for line in calls.read_text().splitlines()]"
    ]
    lines += [
        "while any(hosts().count(host) < times for host, times in until.items()): time.sleep(0.05)"
    ]
    lines += ["time.sleep(0.5)", f"sys.exit({code})"]
    (job / "drive.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(job))
    return ray_on_slurm.run(["drive"], job, 2, 0, lambda: stopped)


def test_each_start_has_a_folder_of_its_own_which_is_removed(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert led(job, {"n1": 1, "n2": 1, "n3": 1}, monkeypatch) == 0
    folders = []
    for host in ("n1", "n2", "n3"):
        (command,) = started(job, host)
        assert command[:3] == [sys.executable, "-m", "facefactory.scratch"]
        assert f"--temp-dir={command[3]}/ray" in command
        folders.append(command[3])
    assert len(set(folders)) == 3
    removed = [
        json.loads(line) for line in (job / "calls").read_text().splitlines() if '"rm"' in line
    ]
    assert sorted(removed) == [
        [host, ["rm", "-rf", folder]]
        for host, folder in zip(("n1", "n2", "n3"), folders, strict=True)
    ]
    assert not list((job / "private").glob("*.token"))


@pytest.mark.parametrize(
    "plan", ["dumb up", "dumb dumb up", "refused up", "refused refused refused refused up"]
)
@pytest.mark.parametrize("host", ["n1", "n3"])
def test_what_never_came_up_is_started_again(
    job: Path, monkeypatch: pytest.MonkeyPatch, host: str, plan: str
) -> None:
    (job / host).write_text(plan)
    times = len(plan.split())
    assert led(job, {"n1": 1, "n2": 1, "n3": 1, host: times}, monkeypatch) == 0
    assert len({command[3] for command in started(job, host)}) == times  # never a folder twice
    assert len(started(job, "n2")) == 1


@pytest.mark.parametrize(
    ("host", "plan", "code", "words"),
    [
        ("n1", "dumb", 1, "Ray did not come up on n1 in 3 starts"),
        ("n1", "refused", INTERRUPTED, "Slurm did not start a step on n1 for 3 s"),
        ("n3", "dumb", INTERRUPTED, "Ray did not come up on n3 in 3 starts"),
        ("n3", "refused", INTERRUPTED, "Slurm did not start a step on n3 for 3 s"),
        ("n2", "dies", INTERRUPTED, "Ray's step on n2 has ended (srun's exit code 9"),
        ("n1", "dies", INTERRUPTED, "Ray's step on n1 has ended (srun's exit code 9"),
    ],
)
def test_what_is_given_up_is_said_with_its_log(
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    host: str,
    plan: str,
    code: int,
    words: str,
) -> None:
    (job / host).write_text(plan)
    assert led(job, {host: 1000}, monkeypatch) == code
    said = capsys.readouterr().err
    assert words in said
    assert f"7_ray-{host}.log" in said
    assert "told to stop" not in said
    if plan == "dumb":
        assert len(started(job, host)) == 3


def test_at_a_stop_nothing_is_said_of_a_lost_node(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (job / "n2").write_text("dies")
    assert led(job, {"n2": 1000}, monkeypatch, stopped=True) == INTERRUPTED
    assert capsys.readouterr().err == "the job was told to stop, and Ray with it\n"


def test_the_driver_s_own_code_is_kept(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert led(job, {"n3": 1}, monkeypatch, code=5) == 5
