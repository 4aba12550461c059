"""Two login hosts that share a folder: names and process numbers of their own, as namespaces give them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Faces, Pretended
from test_jobs import QUEUE, ROOT, TOOLS, base

from facefactory import rundir, starting
from facefactory.cluster import status

BECOME = (
    "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
)
SPACES = ("--uts", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child")
UNSHARE = shutil.which("unshare")


def spaces() -> list[str]:
    """What gives a command a host name and process numbers of its own; skips where that is forbidden."""
    if UNSHARE is None:
        pytest.skip("this system has no unshare")
    why = ""
    for rights in ([], ["--map-root-user"]):
        prefix = [UNSHARE, *rights, *SPACES]
        tried = subprocess.run(
            [*prefix, sys.executable, "-c", BECOME, "login1", sys.executable, "-c", ""],
            capture_output=True,
            text=True,
        )
        if tried.returncode == 0:
            return prefix
        why = tried.stderr.strip()
    pytest.skip(f"no namespaces may be made here: {why}")


def on(host: str, job: str, *arguments: str) -> subprocess.Popen[str]:
    """A job on a login host; its end is that of the host, with all that it started."""
    line = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]
    return subprocess.Popen(
        [*spaces(), sys.executable, "-c", BECOME, host, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends(commands: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Exit codes, and what was said."""
    said = [command.communicate(timeout=400)[0] for command in commands]
    return [command.returncode for command in commands], said


def die(command: subprocess.Popen[str]) -> None:
    """The host of a command goes without a trace."""
    command.kill()
    command.communicate(timeout=60)


@pytest.fixture
def queue(slurm: Pretended) -> Pretended:
    """A Slurm whose queue keeps what was submitted."""
    for tool, path in TOOLS.items():
        (slurm.folder / "bin" / tool).symlink_to(path)
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    slurm.command("sbatch", QUEUE)
    slurm.command("squeue", "cat queue 2>/dev/null; true")
    return slurm


@pytest.mark.slow
def test_the_same_sweep_from_both_is_one_chain_which_each_shows(
    orl: Faces, queue: Pretended
) -> None:
    line = ["cluster=slurm", f"pack.recipe={orl.recipe}", "run=s"]
    codes, said = ends([on("login1", "sweep_gan", *line), on("login2", "sweep_gan", *line)])
    assert codes == [0, 0], said
    submitted = status.submitted(rundir.RunDir(Path("runs/s")))
    ids = [job for jobs in submitted.values() for job in jobs]
    assert len(queue.calls("sbatch /")) == len(ids) > 1
    assert len(queue.calls("scontrol release")) == 1
    assert sum("nothing was started" in text for text in said) == 1
    assert not Path("runs/s", starting.MARK).exists()

    codes, shown = ends([on("login2", "status", "run=s", "json=true")])
    assert codes == [0], shown
    rows = json.loads(shown[0][: shown[0].rindex("}") + 1])["jobs"]
    assert {row["job"]: row["state"] for row in rows} == dict.fromkeys(ids, "PENDING")


HELD = r"""
if [ "$1" = --test-only ]; then exit 0; fi
read last <last; last=$((last + 1)); echo $last >last
BEFORE
echo "$last|JobHeldUser|$1" >>scripts
echo "$last|PENDING|JobHeldUser||0:00|10:00|ff" >>queue
AFTER
echo Submitted batch job $last
"""
HANG = "if [ $last = 102 ]; then : >hangs; sleep 300; fi"
KILLED = {
    "before Slurm has the second job": {"BEFORE": HANG, "AFTER": ""},
    "before its id is known": {"BEFORE": "", "AFTER": HANG},
}
CANCEL = r"""
for job; do sed -i "/^$job|/d" queue scripts; done
"""


@pytest.mark.parametrize("moment", KILLED)
def test_a_submission_whose_host_died_half_way_is_made_whole_from_the_other(
    moment: str, faces: Faces, queue: Pretended
) -> None:
    shell = HELD
    for place, line in KILLED[moment].items():
        shell = shell.replace(place, line)
    queue.command("sbatch", shell)
    queue.command("scancel", CANCEL)
    asked = 'case "$*" in *%o*) cat scripts;; *) cat queue;; esac 2>/dev/null; true'
    queue.command("squeue", asked)
    line = [*base(faces), "cluster=slurm"]
    first = on("login1", "train_gan", *line)
    while not (queue.folder / "hangs").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    die(first)
    mark = Path("runs/r", starting.MARK)
    long_ago = time.time() - starting.STALE_S - 5
    os.utime(mark, (long_ago, long_ago))

    queue.command("sbatch", HELD.replace("BEFORE", "").replace("AFTER", ""))
    codes, said = ends([on("login2", "train_gan", *line)])
    assert codes == [0], said
    assert "on login1 began to start this run and was last heard of" in said[0]
    ids = status.submitted(rundir.RunDir(Path("runs/r")))
    assert ids == {"prepare": ["103"], "train": ["104"]}
    left = [line.partition("|")[0] for line in (queue.folder / "queue").read_text().splitlines()]
    assert left == ["103", "104"]
    assert queue.calls("scontrol release") == ["scontrol release 103,104"]


def test_both_pack_one_set_at_once_and_it_is_packed_once(faces: Faces) -> None:
    line = ["cluster=local", "config=tiny", f"pack.recipe={faces.recipe}"]
    codes, said = ends(
        [on(host, "pack_shards", *line, f"run={host}") for host in ("login1", "login2")]
    )
    assert codes == [0, 0], said
    digests = {
        rundir.read_json(Path("runs", host, "pack", "DONE.json"))["outputs"]["images"]
        for host in ("login1", "login2")
    }
    assert len(digests) == 1
    packed = [path.parent for path in Path("shards/packed").glob("*/index.json")]
    assert len(packed) == 1
    assert not [path for path in packed[0].rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_both_evaluate_one_run_at_once_and_its_scores_are_those_of_one(faces: Faces) -> None:
    scored = ["evaluation.reals=48", "evaluation.fakes=40", "judge.training.total_kimg=1"]
    codes, said = ends([on("login1", "train_gan", *base(faces), "cluster=local", *scored)])
    assert codes == [0], said
    shutil.copytree("runs/r", "runs/alone")
    codes, said = ends([on("login1", "evaluate", "run=alone", "cluster=local")])
    assert codes == [0], said

    line = ["run=r", "cluster=local"]
    codes, said = ends([on("login1", "evaluate", *line), on("login2", "evaluate", *line)])
    assert sorted(codes) in ([0, 0], [0, 4]), said  # the older copy stops, or had finished
    assert codes == [0, 0] or "older copy stops without writing" in said[codes.index(4)]
    wanted = rundir.read_results(Path("runs/alone/evaluate"))
    assert wanted
    assert rundir.read_results(Path("runs/r/evaluate")) == wanted
    codes, said = ends([on("login2", "evaluate", *line)])
    assert codes == [0], said
    assert "evaluate: complete" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["login2", "login1"])
def test_a_run_whose_host_died_goes_on_elsewhere_though_its_number_lives_there(
    host: str, faces: Faces
) -> None:
    line = [*base(faces), "cluster=local", "training.total_kimg=3", "training.checkpoint_kimg=0.3"]
    first = on("login1", "train_gan", *line)
    while not list(Path("runs/r/train").glob("checkpoints/*.pt")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    die(first)
    owner = rundir.read_json(Path("runs/r/owner.json"))
    assert (owner["host"], owner["pid"]) == ("login1", 1)  # as the next one has it, over there

    codes, said = ends([on(host, "train_gan", *line)])
    assert codes == [0], said
    assert "already running" not in said[0]
    codes, said = ends([on(host, "train_gan", *line, "run=whole")])
    assert codes == [0], said
    trained = [
        rundir.read_json(Path("runs", name, "train", "DONE.json")) for name in ("r", "whole")
    ]
    assert trained[0]["outputs"] == trained[1]["outputs"]
    assert len(list(Path("runs/r/train").glob("metrics-*.jsonl"))) == 2
