"""Where a chain runs: on this machine, or on Slurm as a profile says.

This file is torch-free and imports no submitit.
"""

import dataclasses
import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, config, surroundings
from facefactory.config import key
from facefactory.registry import unknown

SHIPPED = Path(__file__).parents[2] / "slurm"

# sbatch options that a chain sets itself -> the key of a profile for what its user may want of
# them, if any
OURS = {
    "job-name": "",
    "output": "",
    "error": "",
    "open-mode": "",
    "array": "",
    "dependency": "",
    "kill-on-invalid-dep": "",
    "hold": "",
    "wait": "",
    "wrap": "",
    "parsable": "",
    "test-only": "",
    "comment": "",
    "requeue": "requeue",
    "no-requeue": "requeue",
    "signal": "signal_s",
}


@dataclass(frozen=True)
class Profile:
    """A cluster as its user sees it: what is asked of Slurm, and what its nodes need
    before Python starts.

    A request counts processes (ranks of a training, trials of a sweep at once), each with a GPU
    where nodes have them; nodes and tasks follow from that.
    """

    partition: str | None = key(
        None, "partition of jobs that use GPUs (of all jobs, without cpu_partition)"
    )
    cpu_partition: str | None = key(None, "partition of jobs that use none")
    account: str | None = key(None, "account that is charged")
    qos: str | None = key(None, "quality of service")
    constraint: str | None = key(None, "node features")
    gpus_per_node: int = key(0, "GPUs of a node; 0: train on CPUs", low=0)
    processes_per_node: int = key(1, "ranks or trials that share a node without GPUs", low=1)
    cpus_per_process: int = key(4, "CPUs of each rank or trial", low=1)
    memory_gb: float = key(16.0, "memory of each rank or trial, GB", low=0.1)
    cpu_min: int = key(240, "time limit of jobs that pack or report, minutes", low=1)
    gpu_min: int = key(1440, "time limit of jobs that train or score, minutes", low=1)
    sweep_min: int = key(1440, "time limit of sweeps, minutes", low=1)
    signal_s: int = key(
        120, "how long before the time limit a job is told to save and requeue, seconds", low=10
    )
    requeue: Literal["scontrol", "resubmit", "none"] = key(
        "scontrol", "how a job that was told to stop comes back"
    )
    setup: list[str] = key([], "shell lines before Python starts, e.g. module load …")
    environment: dict[str, str] = key({}, "variables of the jobs")
    python: str | None = key(
        None,
        "command that starts Python on a node; default: this Python; "
        "or apptainer exec --nv x.sif python",
    )
    scratch: str | None = key(None, "node-local folder, expanded on the node, e.g. $SLURM_TMPDIR")
    runs: str | None = key(None, "folder of the run folders, on shared storage")
    data: str | None = key(None, "folder of packed sets and judges, on shared storage")
    weights: str | None = key(
        None, "folder of published weights, on shared storage; FACEFACTORY_WEIGHTS goes before"
    )
    sbatch: dict[str, Any] = key({}, "further sbatch options, e.g. {reservation: faces}")

    def nodes(self, processes: int, gpu_share: float = 1.0) -> tuple[int, int]:
        """(nodes, processes on each) for a number of processes, each with so many GPUs or such a share of one.

        UserError: they do not fill the nodes evenly, or one has not enough GPUs.
        """
        room = self.processes_per_node
        if self.gpus_per_node:
            room = math.floor(self.gpus_per_node / gpu_share + 1e-9)
        if not room:
            raise UserError(
                f"a process needs {gpu_share:g} GPUs, and a node of the profile has {self.gpus_per_node}; give at most as many."
            )
        each = min(processes, room)
        if processes % each:
            more = processes // each * each + each
            raise UserError(
                f"{processes} processes do not fill nodes of {each} evenly "
                "(gpus_per_node or processes_per_node of the profile); "
                f"allowed are 1 to {each}, or a multiple of {each}, e.g. {more}."
            )
        return processes // each, each


def load_profile(name: str | None) -> Profile:
    """A profile by its path, or by its name in ~/.config/facefactory/ or slurm/.

    By default it is the user's `default`, else plain defaults.
    UserError: there is no such profile, or it has a key that profiles do not have.
    """
    path = _profile_file(name)
    if path is None:
        return Profile()
    content = config.read_yaml(path)
    try:
        profile = config.load(Profile, [], [content])
    except UserError as error:
        wrong = str(error).partition(" --help lists")[0]
        keys = ", ".join(item.name for item in dataclasses.fields(Profile))
        raise UserError(f"{path}: {wrong} Profiles have the keys {keys}.") from None
    problem = contradiction(profile)
    if problem:
        raise UserError(f"{path}: {problem}")
    return profile


def _profile_file(name: str | None) -> Path | None:
    """The file of a profile; None: no name was given, and nobody has written a default."""
    if name is not None and name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "facefactory"
    folders = (own, SHIPPED)
    for folder in folders:
        path = folder / f"{name or 'default'}.yaml"
        if path.exists():
            return path
    if name is None:
        return None
    known = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    raise unknown(f"no profile {name!r} in {own} or {SHIPPED}", name, sorted(known))


def contradiction(profile: Profile) -> str | None:
    """What in a profile cannot work on any cluster."""
    for name in ("cpu_min", "gpu_min", "sweep_min"):
        limit_s = 60 * getattr(profile, name)
        if profile.signal_s >= limit_s:
            return (
                f"signal_s={profile.signal_s} seconds, but {name}={limit_s // 60} is a limit of "
                f"{limit_s} seconds: jobs would be told to stop when they start. "
                f"Give signal_s below {limit_s}, or more minutes."
            )
    for option in profile.sbatch:
        name = option.replace("_", "-").lstrip("-")
        if name in OURS:
            instead = f"use the key {OURS[name]}" if OURS[name] else "leave it out"
            return f"sbatch: {option} is set by the chain itself; {instead}."
    return None


def asked(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command answers.

    One that hangs or does not exist has failed with 127 and printed nothing.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, env=steady()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def steady() -> dict[str, str]:
    """The environment, without what people set to change what Slurm's commands do and print.

    Their lists are not cut either.
    """
    inherited = os.environ.items()
    kept = {name: value for name, value in inherited if not surroundings.steers_slurm(name)}
    return kept | {"SLURM_BITSTR_LEN": "0"}


def plain(run: str) -> str:
    """Of a run's name, what Slurm's commands and records print as it is."""
    return re.sub(r"[^A-Za-z0-9_.+=@-]", "_", run)[:100]


def job_name(run: str, stage: str) -> str:
    """The name of a Slurm job."""
    return f"ff-{plain(run)}-{stage}"


def job_id(answer: str, name: str, script: Path | None = None) -> str | None:
    """The id in sbatch's answer, whatever a site's wrapper prints around it.

    None where nobody can tell: a number without Slurm's own words beside it is believed if it is
    all there is, or if squeue knows it as this job.
    """
    in_words = set(re.findall(r"Submitted batch job (\d+)", answer))
    if len(in_words) == 1:
        return in_words.pop()
    alone = re.fullmatch(r"(\d+)(;\S*)?", answer.strip())  # as --parsable has it
    if alone:
        return alone[1]
    mine = held(script) if script else set()
    if not mine:
        mine = {job for job, called in held_names().items() if called == name}
    numbers = mine & set(re.findall(r"\d+", answer))
    return numbers.pop() if len(numbers) == 1 else None


def held(script: Path) -> set[str]:
    """Ids of this person's held jobs that run a batch script."""
    return {job for job, command in held_scripts().items() if script.name in command}


def held_scripts() -> dict[str, str]:
    """Id -> batch script of this person's held jobs."""
    return _held("%o")


def held_names() -> dict[str, str]:
    """Id -> name of this person's held jobs."""
    return _held("%j")


def _held(what: str) -> dict[str, str]:
    """Id -> what squeue prints of this person's held jobs for a format such as `%j`."""
    texts = {}
    for line in asked("squeue", "-h", "--me", "-o", f"%A|%r|{what}").stdout.splitlines():
        job, _, rest = line.partition("|")
        reason, _, text = rest.partition("|")
        if reason == "JobHeldUser":
            texts[job] = text
    return texts


def sbatch(text: str) -> list[str]:
    """The command that submits a batch script whose options no variable of the shell overrules."""
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.M)
    overruling = {f"SBATCH_{option.upper().replace('-', '_')}" for option in options}
    command = ["env"]
    for name in sorted(os.environ):
        if name in overruling or surroundings.steers_slurm(name):
            command += ["-u", name]
    return [*command, "sbatch"] if len(command) > 1 else ["sbatch"]


def choose(wanted: str) -> str:
    """`auto`, `local` or `slurm` -> `local` or `slurm`.

    UserError: Slurm is wanted or set up, but no controller answers.
    """
    if wanted == "local" or (wanted == "auto" and not shutil.which("sbatch")):
        return "local"
    ping = asked("scontrol", "ping")
    if " UP" in ping.stdout:
        return "slurm"
    no_more_than_installed = "establish a configuration source" in ping.stderr  # as by `make test`
    if wanted == "auto" and no_more_than_installed:
        return "local"
    answer = " ".join((ping.stdout + ping.stderr).split())[-200:]
    raise UserError(
        f"cluster={wanted}, but no Slurm controller answers ({answer}). "
        "Give cluster=local to run here, "
        "or run on a login node of a cluster whose `scontrol ping` says UP."
    )
