"""Ray inside a Slurm allocation: one step a node, a token of its own, and nothing ended but what was started here.

`ray symmetric-run` and `ray stop` reach into other people's clusters on shared nodes; explicit steps do not.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facefactory import rundir, say
from facefactory.cluster.local import INTERRUPTED

PORTS = range(20000, 32000)  # above Ray's worker ports (10002-19999), below the ephemeral ones (32768-60999)
UP_S, NOTICE_S, END_S = 180.0, 3.0, 15.0
# A step's shell: what a trial starts must not take itself for a Slurm task, and the warning before a time limit is not for Ray.
# $0 is Ray's folder, ours alone; nodes that share /tmp share it
SHELL = 'unset "${!SLURM_@}"; trap "" USR2; mkdir -m 700 "$0" || [[ -O $0 && -d $0 && ! -L $0 ]] || exit 1; exec "$@"'


def run(command: Sequence[str], folder: Path, cpus: int, gpus: int) -> int:
    """Run `python -m <command>` as the driver of a Ray cluster over all nodes of this job; its exit code.

    Each node offers `cpus` and `gpus`. Where Ray itself is lost after it was up, the answer is INTERRUPTED.
    """
    job = os.environ["SLURM_JOB_ID"]
    hosts = subprocess.check_output(["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], text=True).split()
    private, share = folder / "private", os.environ["SLURM_CPUS_PER_TASK"]
    token = private / f"ray-{job}.token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    temporary = f"/tmp/ff-{secrets.token_hex(8)}"  # short, because socket paths end at 107 bytes
    head, port = address_towards(hosts[-1]), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SRUN_", "RAY_AUTH_"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
    ray += [f"--object-store-memory={200 * 2**20}", "--disable-usage-stats"]
    first = ["--head", f"--node-ip-address={head}", f"--port={port}", "--include-dashboard=false"]
    steps: list[subprocess.Popen[bytes]] = []
    driver: subprocess.Popen[bytes] | None = None

    def on(host: str, *line: str) -> subprocess.Popen[bytes]:
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}", f"--cpus-per-task={share}"]
        with open(private / "jobs" / f"{job}_ray-{host}.log", "ab") as log:
            return subprocess.Popen([*step, *line], env=environment, stdout=log, stderr=log, start_new_session=True)

    def start(host: str, *more: str) -> None:
        steps.append(on(host, "bash", "-c", SHELL, temporary, *ray, *more))

    def lost() -> bool:
        return any(step.poll() is not None for step in steps)

    try:
        start(hosts[0], *first, f"--temp-dir={temporary}")
        deadline = time.monotonic() + UP_S
        while not answers(head, port):
            if lost() or time.monotonic() > deadline:
                say(f"Ray did not start; see {private}/jobs/{job}_ray-{hosts[0]}.log")
                return 1
            time.sleep(0.2)
        for host in hosts[1:]:
            start(host, f"--address={head}:{port}")
        rundir.write_json(private / f"ray-{job}.json", {"address": f"{head}:{port}", "nodes": hosts})
        environment["FACEFACTORY_RAY"] = f"{head}:{port}"
        driver = subprocess.Popen([sys.executable, "-u", "-m", *command], env=environment)
        while driver.poll() is None and not lost():
            time.sleep(0.2)
        if driver.poll() is None:
            say("a node of Ray was lost: the sweep stops here and goes on when the job is requeued")
            return INTERRUPTED
        deadline = time.monotonic() + NOTICE_S
        while driver.returncode and not lost() and time.monotonic() < deadline:
            time.sleep(0.2)  # was it Ray that failed the driver?
        return INTERRUPTED if driver.returncode and lost() else driver.returncode
    finally:
        token.unlink(missing_ok=True)
        for processes in ([driver] if driver else [], steps):  # the driver first, which writes down where it stands
            for process in processes:
                process.terminate()
            finish(processes)
        finish([on(host, "rm", "-rf", temporary) for host in hosts])  # each by itself: one of them may be gone


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
