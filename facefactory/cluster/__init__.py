"""Where a chain runs: on this machine, or on Slurm as a profile says. This file is torch-free and imports no submitit."""

import dataclasses
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, config
from facefactory.config import key
from facefactory.registry import unknown

SHIPPED = Path(__file__).parents[2] / "slurm"


@dataclass(frozen=True)
class Profile:
    """A cluster as its user sees it: what is asked of Slurm, and what its nodes need before Python starts.

    A request counts processes (ranks of a training, trials of a sweep at once), each with a GPU where nodes have them;
    nodes and tasks follow from that.
    """

    partition: str | None = key(None, "partition of jobs that use GPUs (of all jobs, without cpu_partition)")
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
    signal_s: int = key(120, "how long before the time limit a job is told to save and requeue, seconds", low=10)
    requeue: Literal["scontrol", "resubmit", "none"] = key("scontrol", "how a job that was told to stop comes back")
    setup: list[str] = key([], "shell lines before Python starts, e.g. module load …")
    environment: dict[str, str] = key({}, "variables of the jobs")
    python: str | None = key(
        None, "command that starts Python on a node; default: this Python; or apptainer exec --nv x.sif python"
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
        found = [path for folder in (own, SHIPPED) if (path := folder / f"{name or 'default'}.yaml").exists()]
    if not found and name is None:
        return Profile()
    if not found:
        known = sorted({path.stem for folder in (own, SHIPPED) for path in folder.glob("*.yaml")})
        raise unknown(f"no profile {name!r} in {own} or {SHIPPED}", name, known)
    content = config.read_yaml(found[0])
    try:
        return config.load(Profile, [], [content])
    except UserError as error:
        keys = ", ".join(item.name for item in dataclasses.fields(Profile))
        raise UserError(f"{found[0]}: {str(error).partition(' --help lists')[0]} Profiles have the keys {keys}.") from None


def asked(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command answers; one that hangs or does not exist has failed with 127 and printed nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def choose(wanted: str) -> str:
    """`auto`, `local` or `slurm` -> `local` or `slurm`; UserError: Slurm is wanted or set up, but no controller answers."""
    if wanted == "local" or (wanted == "auto" and not shutil.which("sbatch")):
        return "local"
    ping = asked("scontrol", "ping")
    if " UP" in ping.stdout:
        return "slurm"
    if wanted == "auto" and "establish a configuration source" in ping.stderr:  # installed, as by `make test`, no more
        return "local"
    answer = " ".join((ping.stdout + ping.stderr).split())[-200:]
    raise UserError(
        f"cluster={wanted}, but no Slurm controller answers ({answer}). Give cluster=local to run here, "
        "or run on a login node of a cluster whose `scontrol ping` says UP."
    )
