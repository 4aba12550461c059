"""What every task of a Slurm job runs: one of our command lines as a child, watched, and requeued
when it was interrupted.

submitit imports this function by name; nothing of ours is pickled. Signals reach the child by
themselves (Slurm sends them to all processes of a step): it saves what there is, says so, and
exits with INTERRUPTED. Then the job is requeued *before* this task ends, because a job that ends inside the grace period of a
preemption counts as finished.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from facefactory import surroundings
from facefactory.cluster import job_id, sbatch, steady
from facefactory.cluster.local import INTERRUPTED, QUIET, STOPS
from facefactory.rundir import RunDir

HEARTBEAT_S = 20.0
# Code and number of the task that failed first, for each start of a job (srun's own code is that
# of the tasks that it killed then)
EXIT = "private/jobs/{}-{}.exit"
AWAY_S = 120.0  # how long a controller that does not answer is waited for


def run(arguments: list[str], folder: str, requeue: str, scratch: str | None) -> None:
    """Run `python -m facefactory <arguments>` for the run in `folder`, and end with its exit code."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    job = JobEnvironment()
    world = TorchDistributedEnvironment()
    run_folder = Path(folder)

    # what the child is told
    if world.world_size > 1:
        world.export(set_cuda_visible_devices=False, overwrite=True)
    environment = {
        **os.environ,
        **QUIET,
        "FACEFACTORY_LOG": str(job.paths.stdout),
        "FACEFACTORY_JOB": job.job_id,
    }
    if world.world_size > 1:
        environment |= surroundings.rank(world.rank, world.world_size)
    if scratch:
        environment["TMPDIR"] = os.path.expandvars(scratch)
        Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)

    # a stop does not end us, and waits for the child until that listens
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    command = [sys.executable, "-u", "-m", "facefactory", *arguments]
    child = subprocess.Popen(command, env=environment)
    code = None
    while code is None:
        if world.rank == 0:
            (run_folder / "private" / "jobs" / f"{job.job_id}.alive").touch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(HEARTBEAT_S)
    code = 128 - code if code < 0 else code

    # srun ends the other tasks with TERM when one fails: what then looks like a stop is none
    ended = run_folder / EXIT.format(job.job_id, os.environ.get("SLURM_RESTART_COUNT", "0"))
    first = code
    if code and (code != INTERRUPTED or world.rank == 0):
        first = first_code(ended, code, world.rank)
    elif code == INTERRUPTED:
        first = code_of(ended) or code
    if code == INTERRUPTED and first != INTERRUPTED:
        _log(
            f"job {job.job_id}: another task ended with code {first} first, "
            "so this stop is the job's end"
        )
        sys.exit(first)

    # a true stop: the job comes back
    if code == INTERRUPTED and world.rank == 0:
        again(requeue, RunDir(run_folder), job.job_id)
    elif code == INTERRUPTED:
        time.sleep(2 * AWAY_S)  # rank 0 requeues the job, which ends this task
    sys.exit(code)


def first_code(path: Path, code: int, rank: int) -> int:
    """The code of the task that was the first of this start to leave one.

    It is left here, unless another was before. Made by link, which file servers do at once or not
    at all: nobody reads a file that is not written yet.
    """
    own = path.with_name(f".{path.name}.{rank}-{os.getpid()}")
    own.write_text(f"{code} {rank}")
    try:
        os.link(own, path)
    except FileExistsError:
        return code_of(path) or code
    except OSError:  # a file system without links
        if not path.exists():
            own.replace(path)
    finally:
        own.unlink(missing_ok=True)
    return code


def code_of(path: Path) -> int | None:
    """The code that a task has left; None: none has."""
    try:
        return int(path.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def again(how: str, folder: RunDir, job: str) -> None:
    """Requeue this job, unless Slurm ends it already (it was cancelled, or somebody requeued it).

    `job`: an element by the array's id and its place; the last element's own id means the whole
    array.
    """
    if how == "none":
        return _log(f"job {job} goes on when the same command is given again")
    try:
        # how it stands with the job
        shown = _slurm("scontrol", "show", "job", job)
        state = (re.findall(r"JobState=(\S+)", shown) or ["unknown"])[0]
        if state == "PREEMPTED" or re.search(r"PreemptTime=\d", shown):
            _log(f"job {job} is being preempted: another job goes before it")

        # bring it back, in the way that the site allows
        if state != "RUNNING":
            _log(
                f"job {job} is {state}: Slurm ends it already, "
                "and brings it back itself if it was preempted or requeued"
            )
        elif how == "resubmit":
            _log(f"job {job} is submitted again as {resubmit(folder, job)}")
        else:
            _log(f"job {job} was interrupted and asks to be requeued")
            _slurm("scontrol", "requeue", job)
    except (OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        other = "none" if how == "resubmit" else "resubmit (or none)"
        _log(
            f"job {job} was interrupted and could not be requeued: {why}. Give the same command "
            f"again; if this happens each time, set requeue: {other} in your profile."
        )


def _log(text: str) -> None:
    """A line in the job's log, at once: the job may end at any moment."""
    print(text, flush=True)


def resubmit(folder: RunDir, old: str) -> str:
    """Submit this job's script once more and let its dependants wait for the copy; its id.

    It is for sites that forbid requeueing.
    """
    element = old.partition("_")[2]
    suffix = f"_{element}" if element else ""
    number = [f"--array={element}"] if element else []
    name = os.environ["SLURM_JOB_NAME"]

    script = _slurm("scontrol", "write", "batch_script", os.environ["SLURM_JOB_ID"], "-")
    options = ["--parsable", "--hold", "--dependency=", *number]
    answer = _slurm(*sbatch(script), *options, input=script)
    copy = job_id(answer, name)
    if copy is None:
        raise RuntimeError(
            f"sbatch answered {answer.strip()!r}, which names no job that is known; see squeue --me"
        )

    # Slurm may not requeue the old one any more, as where it is being preempted; until here it may,
    # because the end of a grace period can cut this off
    _slurm("scontrol", "update", f"jobid={old}", "requeue=0")

    # the copy does the same work, and the ledger knows it
    jobs = folder.path / "private" / "jobs"
    os.link(jobs / f"{old}_submitted.pkl", jobs / f"{copy}{suffix}_submitted.pkl")
    folder.record(name.rpartition("-")[2], "submitted", job=copy, instead_of=old)

    # who waited for the old one waits for the copy
    pending = _slurm("squeue", "--me", "-h", "-r", "-t", "PENDING", "-o", "%i %E")
    for line in pending.splitlines():
        waiting, _, dependency = line.partition(" ")
        wanted = _waits_for_copy(dependency, waiting, old, copy)
        if copy in wanted:
            with contextlib.suppress(RuntimeError):  # somebody has cancelled it meanwhile
                _slurm("scontrol", "update", f"jobid={waiting}", f"dependency={wanted}")
    _slurm("scontrol", "release", copy)
    return copy


def _waits_for_copy(dependency: str, waiting: str, old: str, copy: str) -> str:
    """What a job that waits is to wait for, now that a job or an element has a copy.

    `dependency`: as squeue prints it, e.g. `afterok:12_*(unfulfilled)`; `waiting`: whose it is.
    """
    array, _, element = old.partition("_")
    wanted = []
    for term in re.sub(r"\([^)]*\)|_\*", "", dependency).split(","):
        rule, _, job = term.partition(":")
        if job == array and not element:
            term = f"{rule}:{copy}"
        elif job == array and rule != "aftercorr":
            term += f",{rule}:{copy}"  # the array's other elements are still waited for
        elif job == array and waiting.endswith(f"_{element}"):
            term = f"afterok:{copy}"
        wanted.append(term)
    return ",".join(wanted)


def _slurm(*command: str, input: str | None = None) -> str:
    """What a Slurm command prints; a controller that is away is waited for."""
    end = time.monotonic() + AWAY_S
    while True:
        done = subprocess.run(command, input=input, capture_output=True, text=True, env=steady())
        if not done.returncode:
            return done.stdout
        # the job of an sbatch that timed out may be in the queue all the same
        busy = "timed out" in done.stderr and "sbatch" not in command
        away = "Unable to contact" in done.stderr
        if not (busy or away) or time.monotonic() > end:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        time.sleep(1)
