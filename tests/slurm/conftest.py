"""A real Slurm for the tests: slurm/devcluster, brought up once per session (4 s) and always taken down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "slurm" / "devcluster" / "devcluster"
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "ip")


@dataclass(frozen=True)
class Cluster:
    """A running dev cluster: nodes n1 and n2, partitions gpu (default), cpu and low (preempted by the others)."""

    folder: Path

    @property
    def local(self) -> Path:
        """The nodes' own scratch disk: one path, other content on each node."""
        return self.folder / "local"

    @property
    def env(self) -> dict[str, str]:
        """The environment of this test (its cache folder too), with this cluster and nothing of another one."""
        mine = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "SBATCH_"))
        }
        return mine | {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def run(self, *argv: str | Path, check: bool = True) -> str:
        """What a command prints; if it fails, CalledProcessError with its stderr (or, unchecked, what it printed)."""
        done = subprocess.run(
            argv,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
            error.add_note(done.stdout + done.stderr)
            raise error
        return done.stdout

    def control(self, command: str, *args: str) -> str:
        """A devcluster command on this cluster: control("kill-node", "n2")."""
        return self.run(SCRIPT, command, self.folder, *args)

    def batch(self, script: str, *options: str | Path) -> str:
        """Submit a shell line; the job's id. Its output goes nowhere unless options say so (`--output=…`)."""
        return self.run(
            "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"
        ).strip()

    def job(self, job: str) -> dict[str, str]:
        """`scontrol show job` as a dictionary; empty when slurmctld does not know the job or does not answer."""
        return dict(
            re.findall(
                r"(\S+?)=(\S*)", self.run("scontrol", "-o", "show", "job", job, check=False)
            )
        )

    def state(self, job: str) -> str:
        """PENDING, RUNNING … from slurmctld, else from the accounting, else UNKNOWN."""
        if found := self.job(job).get("JobState"):
            return found
        words = self.run("sacct", "-nXP", "-o", "State", "-j", job, check=False).split()
        return words[0] if words else "UNKNOWN"

    def wait(self, job: str, states: str | Collection[str], timeout: float = 60) -> str:
        """Poll until the job is in one of the states; that state."""
        wanted = {states} if isinstance(states, str) else set(states)
        self.until(
            lambda: self.state(job) in wanted,
            timeout,
            f"job {job} to be {' or '.join(sorted(wanted))}",
        )
        return self.state(job)

    def idle(self, timeout: float = 60) -> None:
        """Wait until no job is left and every node is idle: the state in which a test leaves the cluster."""
        self.until(lambda: not self.run("squeue", "-h"), timeout, "an empty queue")
        self.until(
            lambda: set(self.run("sinfo", "-hNo", "%T").split()) == {"idle"}, timeout, "idle nodes"
        )

    def until(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        """Poll; AssertionError with the queue and the nodes when the time, of an idle machine, is over."""
        began = time.monotonic()
        worst = 1.0
        while not true():
            worst = max(worst, slowness())
            if time.monotonic() > began + timeout * worst:
                shown = [
                    self.run(*command.split(), check=False)
                    for command in ("scontrol -o show job", "sinfo -N", "sacct -DXP")
                ]
                raise AssertionError("\n".join([f"waited {timeout:g} s for {what}", *shown]))
            time.sleep(0.2)


def reopen(cluster: Cluster) -> None:
    """Let nodes that Slurm has closed take jobs again, as those who run a cluster do."""

    def opened() -> bool:
        lines = [line.split() for line in cluster.run("sinfo", "-hNo", "%N %T").splitlines()]
        closed = {node for node, state in lines if "drain" in state}
        for node in closed:  # refused while a job's end is still told there
            cluster.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return not closed

    cluster.until(opened, 60, "nodes that take jobs again")


def slowness() -> float:
    """How many times longer than on an idle machine things take now, because others compute too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def why_not() -> str:
    """Why no dev cluster can run here; empty if one can. Installs the packages where they are missing."""
    if sys.platform != "linux":
        return "the dev cluster runs on Linux only"
    if os.geteuid() != 0:
        return "the dev cluster needs root"
    if subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True
    ).returncode:
        return "no namespaces can be made here"
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    if all(shutil.which(command, path=path) for command in NEEDED):
        return ""
    if not shutil.which("apt-get"):
        return "Slurm is not installed, and there is no apt-get to install it"
    done = subprocess.run(
        [SCRIPT, "install"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return f"devcluster install failed: {done.stderr.strip()[-300:]}" if done.returncode else ""


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The session's cluster: 2 nodes x 4 CPUs x 2 pretended GPUs, with accounting. A test leaves it `idle()`."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(
        Path(tempfile.mkdtemp(prefix="ffslurm-", dir="/tmp"))
    )  # short: sockets lie in it
    try:
        cluster.control("up")
        yield cluster
    finally:
        cluster.control("down")
        if not request.session.testsfailed:  # else its log/ may be wanted
            shutil.rmtree(cluster.folder)


@pytest.fixture
def mended(slurm: Cluster) -> Iterator[Cluster]:
    """The session's cluster for a test that breaks it: made whole again afterwards, whatever happened."""
    yield slurm
    for command in (
        ["start-dbd"],
        ["start-ctld"],
        ["start-node", "n1"],
        ["start-node", "n2"],
        ["heal", "n1"],
        ["heal", "n2"],
    ):
        slurm.control(*command)
    slurm.run("scancel", "--me")
    reopen(slurm)
    slurm.idle(150)
