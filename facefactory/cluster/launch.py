"""A chain of jobs to Slurm through submitit: all of it or nothing.

It is submitted held and released at the end.
"""

import contextlib
import math
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, registry, rundir, say, surroundings
from facefactory.cluster import (
    Profile,
    contradiction,
    entry,
    held,
    held_scripts,
    job_id,
    job_name,
    plain,
    sbatch,
    site,
)
from facefactory.rundir import RunDir

OPENS = "opens="  # an argument: the stage whose jobs come next, side by side, into one folder
CODE = Path(__file__).parents[2]
NAME_LENGTH = 16  # hex digits of a script's name until Slurm has given its job an id
UNRELEASED = Path("private", "unreleased.json")  # ids of a chain that is being submitted
ANSWER_S = 20.0  # how long a submission that is broken off waits for sbatch's answer
COMPLAINTS = {  # part of what sbatch says -> the key of the profile to set
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "Memory": "memory_gb",
    "node configuration": "gpus_per_node, processes_per_node, cpus_per_process or memory_gb",
    "Node count": "partition, gpus_per_node or processes_per_node",
    "feature": "constraint",
    "time limit": "cpu_min, gpu_min or sweep_min",
    "reservation": "sbatch",
    "option": "sbatch",
}


@dataclass(frozen=True)
class Job:
    """A job of a chain; an array, if it has several commands.

    `commands`: arguments of `python -m facefactory`. `processes`: ranks of a training or trials of a sweep at once. `after`: `ok` = when the job
    before has succeeded, `each` = an array element when the same one of the array before has,
    `any` = when all have ended, however.
    """

    stage: str
    commands: list[list[str]]
    kind: Literal["cpu", "gpu", "sweep"]
    gpus: bool
    processes: int = 1
    gpu_share: float = 1.0  # GPUs of a process
    after: Literal["ok", "each", "any"] = "ok"
    share: str | None = None  # jobs of one name that follow each other become one
    opens: str | None = None  # the stage whose folder is made ready before its elements start
    starts_ray: bool = False  # one task, which starts Ray on all nodes and decides for all trials
    sized_by: str = ""  # the config key that says how many commands there are
    at_once: int | None = None  # elements of an array that run at a time; None: as many as fit
    memory: int = 1  # times the profile's
    minutes: int = 1  # times the profile's limit


def parameters(job: Job, profile: Profile, folder: Path, before: list[str]) -> dict[str, Any]:
    """submitit's parameters of a job; `before`: the ids of the jobs submitted so far."""
    check_place(folder)

    nodes, each = profile.nodes(job.processes, job.gpu_share)
    tasks = each
    step = ["--kill-on-bad-exit=1"]
    if job.starts_ray:
        tasks = 1
        step = ["--nodes=1", "--ntasks=1", "--overlap"]
    cpus = profile.cpus_per_process * each // tasks
    partition = profile.partition
    gpus = job.gpus and profile.gpus_per_node > 0
    if not gpus and profile.cpu_partition:
        partition = profile.cpu_partition

    # else the folder in which one stood at the submission, often the checkout, comes first
    code = shlex.quote(str(folder / "code"))
    path = f"export PYTHONSAFEPATH=1 PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}"
    environment = dict(profile.environment)
    store = surroundings.weights()
    if store is not None:  # jobs look where the login node looked
        environment[surroundings.WEIGHTS] = store
    variables = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]

    # the script ends with the code of the task that failed first
    job_id = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    exit_file = entry.EXIT.format(job_id, "${SLURM_RESTART_COUNT:-0}")
    ended = f"{shlex.quote(str(folder))}/{exit_file}"

    return {
        "job_name": job_name(folder.name, job.stage),
        "comment": f"ff:{plain(folder.name)}:{job.stage}",
        "partition": partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "time": _minutes(job, profile),
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cpus,
        "gpus_per_node": math.ceil(each * job.gpu_share) if gpus else None,
        "mem": f"{round(profile.memory_gb * 1024) * each * job.memory}MB",
        "signal_delay_s": profile.signal_s,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": [*variables, *profile.setup, path, _guarded(folder), f"rm -f {ended}"],
        "teardown": ["code=$?", f"read -r code task 2>/dev/null <{ended}", "exit $code"],
        "srun_args": [f"--cpus-per-task={cpus}", *step],
        **({} if job.at_once is None else {"array_parallelism": job.at_once}),
        "additional_parameters": {**_further(job, profile, before), **profile.sbatch},
    }


def _minutes(job: Job, profile: Profile) -> int:
    """The time limit of a job."""
    limits = {"cpu": profile.cpu_min, "gpu": profile.gpu_min, "sweep": profile.sweep_min}
    return limits[job.kind] * job.minutes


def _further(job: Job, profile: Profile, before: list[str]) -> dict[str, Any]:
    """The options of sbatch that submitit has no parameter for: how a job waits and comes back."""
    further: dict[str, Any] = {"hold": True}
    further["no-requeue" if profile.requeue == "none" else "requeue"] = True
    if not before:
        return further
    if job.after == "any":
        further["dependency"] = f"afterany:{':'.join(before)}"
        return further
    by_element = job.after == "each" and len(job.commands) > 1
    further["dependency"] = f"{'aftercorr' if by_element else 'afterok'}:{before[-1]}"
    further["kill-on-invalid-dep"] = "yes"
    return further


def _guarded(folder: Path) -> str:
    """Shell that ends a job before it runs code to which everyone may write."""
    run = shlex.quote(str(folder))
    code = shlex.quote(str(folder / "code"))
    private = shlex.quote(str(folder / "private"))
    places = f"find {run} {private} -maxdepth 0 -perm -002; find {code} ! -type l -perm -002"
    words = shlex.quote(
        f"error: {folder}, or code/ or private/ in it, is writable by everyone; run: chmod -R o-w"
    )
    return f'[ -z "$({places})" ] || {{ echo {words} {run} >&2; exit 2; }}'


def check_place(folder: Path) -> None:
    """UserError: Slurm would write the logs of a run in this folder elsewhere, or not at all."""
    wrong = sorted(set(re.findall(r"[%\\\x00-\x1f\x7f]", str(folder))))
    if wrong:
        raise UserError(
            f"run folder {str(folder)!r} holds {', '.join(map(repr, wrong))}, which Slurm replaces "
            "in the names of logs; give another run=… or paths.runs=…, with letters, digits and "
            ". _ + = @ -."
        )


def script(
    job: Job, profile: Profile, folder: Path, before: Sequence[str] = ("JOB_BEFORE",)
) -> str:
    """The batch script of a job, as dry_run=true shows it; needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    jobs = folder / "private" / "jobs"
    work = " | ".join(map(shlex.join, job.commands))
    python = profile.python or shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(jobs))}  # {work}"
    count = len(job.commands) if len(job.commands) > 1 else None
    options = parameters(job, profile, folder, list(before))
    return str(_make_sbatch_string(command, jobs, map_count=count, **options))


def requests(chain: Sequence[Job], profile: Profile, folder: Path) -> list[site.Request]:
    """What the jobs of a chain ask for."""
    asked = []
    for job in chain:
        _, each = profile.nodes(job.processes, job.gpu_share)
        options = parameters(job, profile, folder, [])
        count = len(job.commands)
        asked.append(site.request(job.stage, job.kind, count, each, options, job.sized_by))
    return asked


def verify(chain: Sequence[Job], profile: Profile, folder: Path) -> None:
    """Raise UserError if this cluster does not have or allow what the profile asks for.

    The same if Slurm would refuse a job.
    """
    contradicted = contradiction(profile)
    if contradicted:
        problems = [contradicted]
    else:
        problems = site.problems(profile, requests(chain, profile, folder), site.look())
    if problems:
        listed = "; ".join(text.rstrip(".") for text in problems)
        raise UserError(
            f"this profile cannot work here: {listed}. "
            "See python jobs/check.py; nothing was queued."
        )

    # a held job is not looked at closely; this is
    for job in chain:
        text = script(job, profile, folder, ["1"]).replace("#SBATCH --hold\n", "")
        command = [*sbatch(text), "--test-only"]
        tested = subprocess.run(command, input=text, capture_output=True, text=True)
        if tested.returncode:
            raise UserError(explain(tested.stderr))


def submit(
    chain: list[Job], profile: Profile, folder: RunDir, own_files: Sequence[str] = ()
) -> list[str]:
    """Submit a chain; the ids of its jobs.

    The code that they run, the user's `own_files` too, is copied into the run folder.

    UserError: a job cannot work here or was refused; what was queued is cancelled, and the ledger
    has the reason.
    """
    ids: list[str] = []
    stage = chain[0].stage
    try:
        # all of them, held
        verify(chain, profile, folder.path)
        copy_code(folder.path / "code", own_files)
        for job in chain:
            stage = job.stage
            ids.append(queue(job, profile, folder, ids))
            folder.record(stage, "submitted", job=ids[-1], elements=len(job.commands))

        # a command that stood still while another took its place releases nothing
        folder.guard()
        release = ["scontrol", "release", ",".join(ids)]
        released = subprocess.run(release, capture_output=True, text=True)
        if released.returncode:
            raise UserError(explain(released.stderr))
        (folder.path / UNRELEASED).unlink(missing_ok=True)
    except BaseException as error:
        # all or nothing; what cannot be cancelled stays on show, held
        if ids and cancel(ids):
            folder.record(stage, "withdrawn", withdrawn=ids)
            (folder.path / UNRELEASED).unlink(missing_ok=True)
            if not isinstance(error, Exception):
                _try_to_say(f"broken off; what was queued was cancelled: {', '.join(ids)}")
        if isinstance(error, UserError):
            folder.record(stage, "refused", job="", error=str(error))
        raise
    return ids


def queue(job: Job, profile: Profile, folder: RunDir, before: Sequence[str]) -> str:
    """Put a job into the queue, held, with what its elements are to do; its id.

    UserError: sbatch refused it, or answered so that nobody can tell which job it is; nothing of
    it stays in the queue.
    """
    from submitit.core.utils import DelayedSubmission, JobPaths

    # the script, by a name of its own until Slurm has given the job its id
    jobs = folder.path / "private" / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    text = script(job, profile, folder.path, before)
    path = jobs / f"{secrets.token_hex(NAME_LENGTH // 2)}_submission.sh"
    path.write_text(text)

    number = _submitted(text, path, job_name(folder.path.name, job.stage))
    try:
        rundir.write_json(folder.path / UNRELEASED, [*before, number])
        path.rename(jobs / f"{number}_submission.sh")

        # what each element does
        for place, command in enumerate(job.commands):
            element = f"{number}_{place}" if len(job.commands) > 1 else number
            arguments = (command, str(folder.path), profile.requeue, profile.scratch)
            work = DelayedSubmission(entry.run, *arguments)
            work.set_timeout(_minutes(job, profile), 3)
            work.dump(JobPaths(jobs, element).submitted_pickle)
    except BaseException:  # Ctrl-C, a full disk
        cancel([number])
        raise
    return number


def _submitted(text: str, path: Path, name: str) -> str:
    """Give a batch script, which lies in a file, to sbatch; the id of its job.

    UserError: sbatch refused it, or nobody can tell which job it is; then that job is cancelled.
    """
    # in a thread, which no signal breaks off
    answer: Future[subprocess.CompletedProcess[str]] = Future()
    command = [*sbatch(text), str(path)]
    asking = threading.Thread(target=_ask, args=(command, answer), daemon=True)
    try:
        asking.start()
        done = answer.result()
    except KeyboardInterrupt:
        _take_back(answer, path, name)
        raise

    number = None
    if not done.returncode:
        number = job_id(done.stdout, name, path) or job_id(done.stdout + done.stderr, name, path)
    if number is not None:
        return number

    # its answer was lost on the way, or not understood
    left = sorted(held(path))
    cancel(left)
    if done.returncode:
        raise UserError(explain(done.stderr or done.stdout))
    said = " ".join((done.stdout + done.stderr).split())[-300:]
    ended = f"look with squeue --me for a held job {name}"
    if left:
        ended = f"job {', '.join(left)} was cancelled"
    raise UserError(
        f"sbatch answered {said!r}, which names no job that is known; {ended}. "
        "Use Slurm's own sbatch."
    )


def _ask(command: Sequence[str], answer: Future[subprocess.CompletedProcess[str]]) -> None:
    """Run a command that Ctrl-C, or a terminal that closes, does not reach."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        answer.set_result(done)
    except OSError as error:
        answer.set_exception(error)


def _take_back(answer: Future[subprocess.CompletedProcess[str]], path: Path, name: str) -> None:
    """Cancel the job of an sbatch that was at work when the submission was broken off.

    One that is ended has often queued its job all the same, so its answer is waited for.
    """
    left = set()
    refused = False
    with contextlib.suppress(TimeoutError, OSError):
        done = answer.result(ANSWER_S)
        refused = done.returncode != 0
        number = None if refused else job_id(done.stdout, name, path)
        left = {number} if number else set()

    left |= held(path)
    if left and cancel(left):
        _try_to_say(f"broken off; what was queued was cancelled: {', '.join(sorted(left))}")
    elif left or not refused:
        _try_to_say(
            "broken off, and nobody can tell whether Slurm has queued a job: look with "
            f"squeue --me for a held job {name}. The same command ends it when it is given again."
        )


def clear(folder: RunDir) -> None:
    """Cancel what a submission that was killed left in the queue: a part of a chain, held.

    Only who holds the mark of a start may ask for it: else another command may be submitting.
    """
    # jobs whose ids are not known, and jobs that were to be released together
    scripts = [path.name for path in folder.path.glob("private/jobs/*_submission.sh")]
    nameless = [name for name in scripts if len(name.partition("_")[0]) == NAME_LENGTH]
    unreleased = rundir.read_json(folder.path / UNRELEASED) or []
    if not nameless and not unreleased:
        return

    held = held_scripts()
    left = {job for job, path in held.items() if Path(path).name in nameless}
    if not held.keys().isdisjoint(unreleased):  # those that wait for others are not told as held
        left.update(unreleased)
    if left and cancel(left):
        listed = sorted(left)
        folder.record("chain", "withdrawn", withdrawn=listed)
        say(f"cancelled {', '.join(listed)}, which a submission that was killed had queued")


def _try_to_say(text: str) -> None:
    """A line for the person who watched; the terminal may be gone."""
    with contextlib.suppress(OSError):
        say(text)


def cancel(jobs: Collection[str]) -> bool:
    """End jobs; whether Slurm took the order."""
    return not jobs or subprocess.run(["scancel", *jobs], capture_output=True).returncode == 0


def explain(complaint: str) -> str:
    """sbatch's refusal as one line with the key to set."""
    with_errors = [line for line in complaint.splitlines() if "error: " in line]
    errors = [line.partition("error: ")[2].strip() for line in with_errors]
    said = "; ".join(dict.fromkeys(errors)) or " ".join(complaint.split())[-300:]
    keys = [key for part, key in COMPLAINTS.items() if part.lower() in said.lower()]
    hint = f"Set {' / '.join(keys)} in your profile" if keys else "See your profile"
    return (
        f"Slurm refused the job: {said}. {hint} (python jobs/check.py proposes one); "
        "nothing was queued."
    )


def copy_code(target: Path, own_files: Sequence[str] = ()) -> None:
    """What queued jobs import, so that edits after the submission do not reach them."""
    new = target.with_name(f".code-{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "packed", "judges", "*.pyc")
    for name in ("facefactory", "jobs", "shards"):
        if (CODE / name).is_dir():
            shutil.copytree(CODE / name, new / name, ignore=ignored)
    for name in own_files:
        copy = new / registry.own_copy(name)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(registry.own_file(name), copy)

    # whatever the modes of the checkout: only its owner may write to what runs
    for path in (new, *new.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
