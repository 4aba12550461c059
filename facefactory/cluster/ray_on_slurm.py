"""Ray inside a Slurm allocation: one step a node, a token of its own, its own steps ended only.

`ray symmetric-run` and `ray stop` reach into other people's clusters on shared nodes; explicit steps
do not.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facefactory import rundir, say, scratch, surroundings
from facefactory.cluster.local import INTERRUPTED

PORTS = range(20000, 32000)  # between Ray's worker ports (to 19999) and ephemeral ones (32768 on)
UP_S = 180.0  # in which Ray's head must answer
NOTICE_S = 3.0  # in which the loss of Ray, or a signal, shows itself
END_S = 15.0  # for processes that were told to end
AWAY_S = 120.0  # how long a Slurm that starts no steps is waited for
PAUSE_S = 2.0  # before a node is started again
STARTS = 3  # of a node whose Ray does not come up
STARTED = "Ray runtime started."  # says `ray start` once the others know its node; it waits 30 s

# Says srun when Slurm could not start a step, as while its controller restarts
NO_STEP = (
    "Unable to create step",
    "Unable to contact slurm controller",
    "Unable to confirm allocation",
    "Socket timed out",
    "already completing",
    "temporarily disabled",
    "temporarily unable",
    "Communication connection failure",
    "Connection refused",
    "Zero Bytes were transmitted",
)


@dataclass
class Node:
    """Ray on one node of the job: the step that runs it, and how often it was started."""

    host: str
    options: list[str]
    log: Path
    step: subprocess.Popen[bytes] | None = None
    folders: list[str] = field(default_factory=list)
    log_begins: int = 0  # where in the log the words of this start begin
    starts: int = 0  # that reached the node
    first: float = 0.0  # when the first one was tried
    due: float = 0.0  # when it is to be started again

    def said(self) -> str:
        """What the newest start has said."""
        with open(self.log, "rb") as stream:
            stream.seek(self.log_begins)
            return stream.read().decode(errors="replace")

    def ended(self) -> bool:
        """Whether its step is over."""
        return self.step is not None and self.step.poll() is not None

    def came_up(self) -> bool:
        """Whether the newest start has joined the others."""
        return STARTED in self.said()

    def refused(self) -> bool:
        """Whether it was Slurm that did not start the step."""
        said = self.said()
        return not self.came_up() and any(words in said for words in NO_STEP)


class Nodes:
    """The steps of one job that run Ray."""

    def __init__(self, job: str, folder: Path, cpus: int, gpus: int) -> None:
        self.job = job
        self.private = folder / "private"
        self.token = self.private / f"ray-{job}.token"
        self.nodes: list[Node] = []
        self.lost = ""  # why Ray is over
        self.share = os.environ["SLURM_CPUS_PER_TASK"]

        # what every node runs, and in which environment
        self.ray = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--disable-usage-stats",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            f"--object-store-memory={200 * 2**20}",
        ]
        token = {"RAY_AUTH_TOKEN_PATH": str(self.token)}
        self.environment = {**os.environ, **surroundings.RAY, **token}

    def step(self, host: str, log: Path, *command: str) -> subprocess.Popen[bytes]:
        """Start a command on a node, beside whatever runs there."""
        srun = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}"]
        with open(log, "ab") as stream:
            return subprocess.Popen(
                [*srun, f"--cpus-per-task={self.share}", *command],
                env=self.environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def add(self, host: str, *options: str) -> Node:
        """Start Ray on one more node."""
        log = self.private / "jobs" / f"{self.job}_ray-{host}.log"
        node = Node(host, list(options), log, first=time.monotonic())
        node.log.touch()
        self.nodes.append(node)
        self.start(node)
        return node

    def start(self, node: Node) -> None:
        """Start Ray on a node, in a folder of its own.

        Nodes may share /tmp, and Ray names its sockets alike on all of them.
        """
        folder = scratch.name()
        node.folders.append(folder)
        node.log_begins = node.log.stat().st_size
        node.due = 0.0
        node.starts += 1
        here = [sys.executable, "-m", "facefactory.scratch", folder]
        temporary = f"--temp-dir={folder}/ray"
        node.step = self.step(node.host, node.log, *here, *self.ray, temporary, *node.options)

    def tend(self) -> bool:
        """Start again what never came up; False, and `lost` says why, if Ray is over."""
        now = time.monotonic()
        for node in self.nodes:
            if node.due and now > node.due:
                self.start(node)
            elif not node.due and node.ended():
                self.lost = self.verdict(node)
                if self.lost:
                    return False
                node.due = now + PAUSE_S
        return True

    def verdict(self, node: Node) -> str:
        """Why Ray is over now that a node's step has ended; empty, if it may be started again."""
        assert node.step is not None
        if node.came_up():
            code = node.step.returncode
            return f"Ray's step on {node.host} has ended (srun's exit code {code}; {node.log})"
        if node.refused():
            node.starts -= 1
            if time.monotonic() - node.first < AWAY_S:
                return ""
            return f"Slurm did not start a step on {node.host} for {AWAY_S:g} s ({node.log})"
        if node.starts < STARTS:
            say(f"Ray did not come up on {node.host}: starting it again ({node.log})")
            return ""
        return f"Ray did not come up on {node.host} in {node.starts} starts ({node.log})"

    def clean(self) -> None:
        """End all steps and remove what they left."""
        steps = [node.step for node in self.nodes if node.step]
        for step in steps:
            step.terminate()
        finish(steps)
        # each by itself: one of the nodes may be gone
        finish([self.step(node.host, node.log, "rm", "-rf", *node.folders) for node in self.nodes])


def run(
    command: Sequence[str], folder: Path, cpus: int, gpus: int, should_stop: Callable[[], bool]
) -> int:
    """Run `python -m <command>` as the driver of a Ray cluster over this job's nodes; its exit code.

    Each node offers `cpus` and `gpus`. INTERRUPTED: the job was told to stop, Ray was lost after it
    was up, or Slurm could not start its steps; a line says which.
    """
    # What this job has, and its secret
    listed = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    hosts = subprocess.check_output(listed, text=True).split()
    nodes = Nodes(os.environ["SLURM_JOB_ID"], folder, cpus, gpus)
    nodes.token.touch(mode=0o600)
    nodes.token.write_text(secrets.token_hex(32))
    driver: subprocess.Popen[bytes] | None = None
    try:
        # The head, then the others
        address = start_head(nodes, hosts, should_stop)
        if not address:
            return told(nodes, should_stop)
        for host in hosts[1:]:
            nodes.add(host, f"--address={address}")
        meeting = {"address": address, "nodes": hosts}
        rundir.write_json(nodes.private / f"ray-{nodes.job}.json", meeting)

        # The driver, as long as there is a Ray
        environment = {**nodes.environment, surroundings.RAY_ADDRESS: address}
        driver = subprocess.Popen([sys.executable, "-u", "-m", *command], env=environment)
        while driver.poll() is None and nodes.tend():
            time.sleep(0.2)
        if driver.poll() is None:
            return told(nodes, should_stop)

        # Was it Ray that failed the driver?
        deadline = time.monotonic() + NOTICE_S
        while driver.returncode and nodes.tend() and time.monotonic() < deadline:
            time.sleep(0.2)
        return told(nodes, should_stop) if driver.returncode and nodes.lost else driver.returncode
    finally:
        nodes.token.unlink(missing_ok=True)
        if driver:  # first, because it writes down where it stands
            driver.terminate()
            finish([driver])
        nodes.clean()


def start_head(nodes: Nodes, hosts: Sequence[str], should_stop: Callable[[], bool]) -> str:
    """Start Ray's head on the first host; its address, or nothing (`lost` says why)."""
    address = address_towards(hosts[-1])
    port = free_port()
    first = ["--head", f"--node-ip-address={address}", "--include-dashboard=false"]
    head = nodes.add(hosts[0], *first, f"--port={port}")
    deadline = time.monotonic() + UP_S
    while not answers(address, port):
        if should_stop() or not nodes.tend():
            return ""
        if time.monotonic() > deadline:
            nodes.lost = f"Ray did not answer on {hosts[0]} within {UP_S:g} s ({head.log})"
            return ""
        if head.due:  # somebody may have taken the port
            port = free_port()
            head.options[-1] = f"--port={port}"
        time.sleep(0.2)
    return f"{address}:{port}"


def told(nodes: Nodes, should_stop: Callable[[], bool]) -> int:
    """Say why Ray is over; the exit code. A signal may reach Ray's steps before this process."""
    deadline = time.monotonic() + NOTICE_S
    while not should_stop() and time.monotonic() < deadline:
        time.sleep(0.1)
    if should_stop():
        say("the job was told to stop, and Ray with it")
        return INTERRUPTED
    say(f"{nodes.lost}: the sweep stops here")
    head = nodes.nodes[0]
    alone = len(nodes.nodes) == 1
    failed = alone and not head.refused() and not head.came_up()
    return 1 if failed else INTERRUPTED


def finish(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended; what does not is killed."""
    deadline = time.monotonic() + END_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def address_towards(host: str) -> str:
    """This node's address as other nodes of the job see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing: it asks the routing table
        return str(probe.getsockname()[0])


def free_port() -> int:
    """A port that is free here."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def answers(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
