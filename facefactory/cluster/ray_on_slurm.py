"""Ray inside a Slurm allocation: one step a node, a token of its own, and nothing ended but what was started here.

`ray symmetric-run` and `ray stop` reach into other people's clusters on shared nodes; explicit steps do not.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facefactory import rundir
from facefactory.cluster.local import INTERRUPTED

PORTS = range(20000, 32000)  # above Ray's worker ports (10002-19999), below the ephemeral ones (32768-60999)
UP_S, NOTICE_S, END_S = 180.0, 3.0, 15.0
# A step's shell: what a trial starts must not take itself for a Slurm task, and the warning before a time limit is not for Ray
SHELL = 'unset "${!SLURM_@}"; trap "" USR2; exec "$@"'


def run(command: Sequence[str], folder: Path, cpus: int, gpus: int) -> int:
    """Run `python -m <command>` as the driver of a Ray cluster over all nodes of this job; its exit code.

    Each node offers `cpus` and `gpus`. Where Ray itself is lost after it was up, the answer is INTERRUPTED.
    """
    job = os.environ["SLURM_JOB_ID"]
    hosts = subprocess.check_output(["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], text=True).split()
    private, share = folder / "private", os.environ["SLURM_CPUS_PER_TASK"]
    token = private / f"ray-{job}.token"
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    head, port = address_towards(hosts[-1]), free_port(int(job))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SRUN_") and name != "RAY_AUTH_TOKEN"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
    ray += [f"--object-store-memory={200 * 2**20}", "--disable-usage-stats"]
    first = ["--head", f"--node-ip-address={head}", f"--port={port}", "--include-dashboard=false"]
    temporary = f"/tmp/ff-{job}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    steps: list[subprocess.Popen[bytes]] = []
    driver: subprocess.Popen[bytes] | None = None

    def start(host: str, *more: str) -> None:
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}", f"--cpus-per-task={share}"]
        log = open(private / "jobs" / f"{job}_ray-{host}.log", "ab")  # noqa: SIM115 - the step keeps it
        line = [*step, "bash", "-c", SHELL, "bash", *ray, *more]
        steps.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True))

    def lost() -> bool:
        return any(step.poll() is not None for step in steps)

    try:
        start(hosts[0], *first, f"--temp-dir={temporary}")
        deadline = time.monotonic() + UP_S
        while not answers(head, port):
            if lost() or time.monotonic() > deadline:
                print(f"Ray did not start; see {private}/jobs/{job}_ray-{hosts[0]}.log", file=sys.stderr, flush=True)
                return 1
            time.sleep(0.2)
        for host in hosts[1:]:
            start(host, f"--address={head}:{port}")
        rundir.write_json(private / f"ray-{job}.json", {"address": f"{head}:{port}", "nodes": hosts})
        driver = subprocess.Popen(
            [sys.executable, "-u", "-m", *command], env={**environment, "FACEFACTORY_RAY": f"{head}:{port}"}
        )
        while driver.poll() is None and not lost():
            time.sleep(0.2)
        if driver.poll() is None:
            print(
                "a node of Ray was lost: the sweep stops here and goes on when the job is requeued", file=sys.stderr, flush=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.terminate()
                driver.wait(END_S)
            return INTERRUPTED
        deadline = time.monotonic() + NOTICE_S
        while driver.returncode and not lost() and time.monotonic() < deadline:
            time.sleep(0.2)  # was it Ray that failed the driver?
        return INTERRUPTED if driver.returncode and lost() else driver.returncode
    finally:
        token.unlink(missing_ok=True)
        for process in [*([driver] if driver else []), *steps]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*([driver] if driver else []), *steps]:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        clean = ["srun", "--overlap", f"--nodes={len(hosts)}", f"--ntasks={len(hosts)}", f"--cpus-per-task={share}"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*clean, "rm", "-rf", temporary], env=environment, capture_output=True, timeout=END_S)


def address_towards(host: str) -> str:
    """This node's address as other nodes of the job see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing: it asks the routing table
        return str(probe.getsockname()[0])


def free_port(seed: int) -> int:
    """A port that is free here; the search starts at another place for each job."""
    for offset in range(len(PORTS)):
        port = PORTS[(seed * 37 + offset) % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError(f"no free port in {PORTS.start}-{PORTS.stop}.")


def answers(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
