"""What every task of a Slurm job runs: one of our command lines as a child, watched, and requeued when it was interrupted.

submitit imports this function by name; nothing of ours is pickled. Signals reach the child by themselves (Slurm sends
them to all processes of a step): it saves and exits with INTERRUPTED. Then the job is requeued *before* this task ends,
because a job that ends inside the grace period of a preemption counts as finished.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from facefactory.cluster.local import INTERRUPTED, QUIET
from facefactory.rundir import RunDir

HEARTBEAT_S = 20.0
ENDING_S = 120.0  # how long the other tasks wait for rank 0 to requeue the job that ends them


def run(arguments: list[str], folder: str, requeue: str, scratch: str | None) -> None:
    """Run `python -m facefactory <arguments>` for the run in `folder`, and end with its exit code."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    job, world = JobEnvironment(), TorchDistributedEnvironment()
    if world.world_size > 1:
        world.export(set_cuda_visible_devices=False, overwrite=True)
    environment = {**os.environ, **QUIET, "FACEFACTORY_LOG": str(job.paths.stdout)}
    if scratch:
        environment["TMPDIR"] = os.path.expandvars(scratch)
        Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    child = subprocess.Popen([sys.executable, "-u", "-m", "facefactory", *arguments], env=environment)
    code = None
    while code is None:
        if world.rank == 0:
            (Path(folder) / "private" / "jobs" / f"{job.job_id}.alive").touch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(HEARTBEAT_S)
    if code == INTERRUPTED and world.rank == 0:
        again(requeue, RunDir(Path(folder)))
    elif code == INTERRUPTED:
        time.sleep(ENDING_S)
    sys.exit(128 - code if code < 0 else code)


def again(how: str, folder: RunDir) -> None:
    """Requeue this job, unless Slurm is ending it already (it was cancelled, or requeued by somebody else)."""
    job = os.environ["SLURM_JOB_ID"]
    state = (re.findall(r"JobState=(\S+)", _slurm("scontrol", "show", "job", job)) or ["unknown"])[0]
    if state != "RUNNING" or how == "none":
        return print(f"job {job} is {state}: not requeued (requeue: {how})", flush=True)
    if how == "scontrol":
        print(f"job {job} is requeued", flush=True)
        _slurm("scontrol", "requeue", job)
    else:
        print(f"job {job} submitted again as {resubmit(folder)}", flush=True)


def resubmit(folder: RunDir) -> str:
    """Submit this job's script once more and let its dependants wait for the copy: for sites that forbid requeueing."""
    job, element = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"]), os.environ.get("SLURM_ARRAY_TASK_ID")
    suffix = f"_{element}" if element else ""
    script = _slurm("scontrol", "write", "batch_script", os.environ["SLURM_JOB_ID"], "-")
    array = [f"--array={element}"] if element else []
    copy = _slurm("sbatch", "--parsable", "--hold", "--dependency=", *array, input=script).strip().split(";")[0]
    jobs = folder.path / "private" / "jobs"
    os.link(jobs / f"{job}{suffix}_submitted.pkl", jobs / f"{copy}{suffix}_submitted.pkl")
    folder.record(os.environ["SLURM_JOB_NAME"].rpartition("-")[2], "submitted", job=copy, instead_of=f"{job}{suffix}")
    for line in _slurm("squeue", "--me", "-h", "-r", "-t", "PENDING", "-o", "%i %E").splitlines():
        waiting, _, dependency = line.partition(" ")
        wanted = re.sub(rf"\b{job}(_\*|{suffix})?(?=\D|$)", copy, re.sub(r"\([^)]*\)", "", dependency))
        if wanted != re.sub(r"\([^)]*\)", "", dependency) and (not element or waiting.endswith(suffix)):
            _slurm("scontrol", "update", f"jobid={waiting}", f"dependency={wanted}")
    _slurm("scontrol", "release", copy)
    return copy


def _slurm(*command: str, input: str | None = None) -> str:
    return subprocess.run(command, input=input, capture_output=True, text=True, check=True).stdout
