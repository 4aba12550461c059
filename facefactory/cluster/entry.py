"""What every task of a Slurm job runs: one of our command lines as a child, watched, and requeued when it was interrupted.

submitit imports this function by name; nothing of ours is pickled. Signals reach the child by themselves (Slurm sends
them to all processes of a step): it saves and exits with INTERRUPTED. Then the job is requeued *before* this task ends,
because a job that ends inside the grace period of a preemption counts as finished.
"""

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
# The code of the task that ended first (srun's is that of the tasks it killed then); an older copy of the job has another file
EXIT = "private/jobs/{}-{}.exit"
AWAY_S = 120.0  # how long a controller that does not answer is waited for


def run(arguments: list[str], folder: str, requeue: str, scratch: str | None) -> None:
    """Run `python -m facefactory <arguments>` for the run in `folder`, and end with its exit code."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    job, world = JobEnvironment(), TorchDistributedEnvironment()
    if world.world_size > 1:
        world.export(set_cuda_visible_devices=False, overwrite=True)
    environment = {**os.environ, **QUIET, "FACEFACTORY_LOG": str(job.paths.stdout), "FACEFACTORY_JOB": job.job_id}
    if scratch:
        environment["TMPDIR"] = os.path.expandvars(scratch)
        Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # and so the child, until it listens: a stop while it starts is no failure
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
        time.sleep(2 * AWAY_S)  # rank 0 requeues the job, which ends this task
    code = 128 - code if code < 0 else code
    ended = EXIT.format(os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_RESTART_COUNT", "0"))
    if code:
        with contextlib.suppress(FileExistsError), open(Path(folder) / ended, "x") as stream:
            stream.write(str(code))
    sys.exit(code)


def again(how: str, folder: RunDir) -> None:
    """Requeue this job, unless Slurm is ending it already (it was cancelled, or requeued by somebody else)."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{element}" if array else os.environ["SLURM_JOB_ID"]  # the last element's own id means the whole array
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
    raw, array, element = (os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    assert raw is not None
    suffix, number = (f"_{element}", [f"--array={element}"]) if array else ("", [])
    old, jobs = f"{array or raw}{suffix}", folder.path / "private" / "jobs"
    _slurm("scontrol", "update", f"jobid={old}", "requeue=0")  # nor may Slurm, e.g. when it is being preempted
    script = _slurm("scontrol", "write", "batch_script", raw, "-")
    copy = _slurm("sbatch", "--parsable", "--hold", "--dependency=", *number, input=script).strip().split(";")[0]
    os.link(jobs / f"{old}_submitted.pkl", jobs / f"{copy}{suffix}_submitted.pkl")
    folder.record(os.environ["SLURM_JOB_NAME"].rpartition("-")[2], "submitted", job=copy, instead_of=old)
    for line in _slurm("squeue", "--me", "-h", "-r", "-t", "PENDING", "-o", "%i %E").splitlines():
        waiting, _, text = line.partition(" ")
        wanted = []
        for term in re.sub(r"\([^)]*\)|_\*", "", text).split(","):
            rule, _, job = term.partition(":")
            ours = job == (array or raw)
            if ours and rule == "aftercorr" and waiting.endswith(suffix):
                term = f"afterok:{copy}"
            elif ours and array and rule != "aftercorr":
                term += f",{rule}:{copy}"  # the array's other elements are still waited for
            elif ours and not array:
                term = f"{rule}:{copy}"
            wanted.append(term)
        if copy in ",".join(wanted):
            _slurm("scontrol", "update", f"jobid={waiting}", f"dependency={','.join(wanted)}")
    _slurm("scontrol", "release", copy)
    return copy


def _slurm(*command: str, input: str | None = None) -> str:
    """What a Slurm command prints; a controller that is away is waited for."""
    end = time.monotonic() + AWAY_S
    while (done := subprocess.run(command, input=input, capture_output=True, text=True)).returncode:
        if "Unable to contact" not in done.stderr or time.monotonic() > end:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        time.sleep(1)
    return done.stdout
