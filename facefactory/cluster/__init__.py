"""Where a chain runs: on this machine, or on Slurm as a profile says. This file is torch-free and imports no submitit."""

import dataclasses
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, config
from facefactory.config import key
from facefactory.registry import unknown

SHIPPED = Path(__file__).parents[2] / "slurm"
STEERING = (
    "SQUEUE_",
    "SACCT_",
    "SINFO_",
    "SCONTROL_",
    "SLURM_TIME_FORMAT",
)  # variables that change what commands answer
OURS = {  # sbatch options that a chain sets itself -> the key of a profile for what its user may want of them, if any
    **dict.fromkeys(
        ("job-name", "output", "error", "open-mode", "array", "dependency", "kill-on-invalid-dep"),
        "",
    ),
    **dict.fromkeys(("hold", "wait", "wrap", "parsable", "test-only", "comment"), ""),
    **dict.fromkeys(("requeue", "no-requeue"), "requeue"),
    "signal": "signal_s",
}


@dataclass(frozen=True)
class Profile:
    """A cluster as its user sees it: what is asked of Slurm, and what its nodes need before Python starts.

    A request counts processes (ranks of a training, trials of a sweep at once), each with a GPU where nodes have them;
    nodes and tasks follow from that.
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
        "command that starts Python on a node; default: this Python; or apptainer exec --nv x.sif python",
    )
    scratch: str | None = key(None, "node-local folder, expanded on the node, e.g. $SLURM_TMPDIR")
    runs: str | None = key(None, "folder of the run folders, on shared storage")
    data: str | None = key(None, "folder of packed sets and judges, on shared storage")
    sbatch: dict[str, Any] = key({}, "further sbatch options, e.g. {reservation: faces}")

    def nodes(self, processes: int) -> tuple[int, int]:
        """(nodes, processes on each) for a number of processes; UserError: they do not fill the nodes evenly."""
        each = min(processes, self.gpus_per_node or self.processes_per_node)
        if processes % each:
            raise UserError(
                f"{processes} processes do not fill nodes of {each} evenly (gpus_per_node or processes_per_node of the profile); "
                f"allowed are 1 to {each}, or a multiple of {each}, e.g. {processes // each * each + each}."
            )
        return processes // each, each


def load_profile(name: str | None) -> Profile:
    """A profile: a path, a name in ~/.config/facefactory/ or slurm/; by default the user's `default`, else plain defaults.

    UserError: there is no such profile, or it has a key that profiles do not have.
    """
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "facefactory"
    if name is not None and name.endswith((".yaml", ".yml")):
        found = [Path(name).expanduser()]
    else:
        found = [
            path
            for folder in (own, SHIPPED)
            if (path := folder / f"{name or 'default'}.yaml").exists()
        ]
    if not found and name is None:
        return Profile()
    if not found:
        known = sorted({path.stem for folder in (own, SHIPPED) for path in folder.glob("*.yaml")})
        raise unknown(f"no profile {name!r} in {own} or {SHIPPED}", name, known)
    content = config.read_yaml(found[0])
    try:
        profile = config.load(Profile, [], [content])
    except UserError as error:
        keys = ", ".join(item.name for item in dataclasses.fields(Profile))
        raise UserError(
            f"{found[0]}: {str(error).partition(' --help lists')[0]} Profiles have the keys {keys}."
        ) from None
    if problem := contradiction(profile):
        raise UserError(f"{found[0]}: {problem}")
    return profile


def contradiction(profile: Profile) -> str | None:
    """What in a profile cannot work on any cluster."""
    for name in ("cpu_min", "gpu_min", "sweep_min"):
        limit_s = 60 * getattr(profile, name)
        if profile.signal_s >= limit_s:
            return (
                f"signal_s={profile.signal_s} seconds, but {name}={limit_s // 60} is a limit of {limit_s} seconds: jobs would be "
                f"told to stop when they start. Give signal_s below {limit_s}, or more minutes."
            )
    for option in profile.sbatch:
        name = option.replace("_", "-").lstrip("-")
        if name in OURS:
            instead = f"use the key {OURS[name]}" if OURS[name] else "leave it out"
            return f"sbatch: {option} is set by the chain itself; {instead}."
    return None


def asked(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command answers; one that hangs or does not exist has failed with 127 and printed nothing."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, env=steady()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def steady() -> dict[str, str]:
    """The environment, without what people set to change what Slurm's commands print, and so that no list is cut."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    return kept | {"SLURM_BITSTR_LEN": "0"}


def plain(run: str) -> str:
    """Of a run's name, what Slurm's commands and records print as it is."""
    return re.sub(r"[^A-Za-z0-9_.+=@-]", "_", run)[:100]


def job_name(run: str, stage: str) -> str:
    """The name of a Slurm job."""
    return f"ff-{plain(run)}-{stage}"


def job_id(answer: str, name: str, script: Path | None = None) -> str | None:
    """The id in sbatch's answer, whatever a site's wrapper prints around it; None where nobody can tell.

    A number without Slurm's own words beside it is believed if it is all there is, or if squeue knows it as this job.
    """
    own = set(re.findall(r"Submitted batch job (\d+)", answer))
    if len(own) == 1:
        return own.pop()
    alone = re.fullmatch(r"(\d+)(;\S*)?", answer.strip())  # as --parsable has it
    if alone:
        return alone[1]
    mine = (held(script) if script else set()) or {
        job for job, called in held_names().items() if called == name
    }
    numbers = mine & set(re.findall(r"\d+", answer))
    return numbers.pop() if len(numbers) == 1 else None


def held(script: Path) -> set[str]:
    """Ids of this person's held jobs that run a batch script."""
    return {job for job, command in _held("%o").items() if script.name in command}


def held_names() -> dict[str, str]:
    """Id -> name of this person's held jobs."""
    return _held("%j")


def _held(what: str) -> dict[str, str]:
    found = {}
    for line in asked("squeue", "-h", "--me", "-o", f"%A|%r|{what}").stdout.splitlines():
        job, _, rest = line.partition("|")
        reason, _, text = rest.partition("|")
        if reason == "JobHeldUser":
            found[job] = text
    return found


def sbatch(text: str) -> list[str]:
    """The command that submits a batch script, whose options are not overruled by variables that somebody has set."""
    options = {
        name.upper().replace("-", "_") for name in re.findall(r"^#SBATCH --([\w-]+)", text, re.M)
    }
    names = {f"SBATCH_{name}" for name in options}
    names |= {
        f"SBATCH_{name}"
        for name in ("ARRAY_INX", "TIMELIMIT", "WAIT", "EXPORT", "NO_REQUEUE", "REQUEUE", "GPUS")
    }
    names |= {f"SBATCH_MEM_PER_{what}" for what in ("NODE", "CPU", "GPU")}
    unset = [word for name in sorted(names & os.environ.keys()) for word in ("-u", name)]
    return ["env", *unset, "sbatch"] if unset else ["sbatch"]


def choose(wanted: str) -> str:
    """`auto`, `local` or `slurm` -> `local` or `slurm`; UserError: Slurm is wanted or set up, but no controller answers."""
    if wanted == "local" or (wanted == "auto" and not shutil.which("sbatch")):
        return "local"
    ping = asked("scontrol", "ping")
    if " UP" in ping.stdout:
        return "slurm"
    if (
        wanted == "auto" and "establish a configuration source" in ping.stderr
    ):  # installed, as by `make test`, no more
        return "local"
    answer = " ".join((ping.stdout + ping.stderr).split())[-200:]
    raise UserError(
        f"cluster={wanted}, but no Slurm controller answers ({answer}). Give cluster=local to run here, "
        "or run on a login node of a cluster whose `scontrol ping` says UP."
    )
