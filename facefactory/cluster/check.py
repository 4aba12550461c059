"""What a newcomer to a cluster wants to know first: each finding with its fix.

And a profile to start from.
"""

import dataclasses
import math
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from facefactory import Failed, UserError, rundir
from facefactory.cluster import Profile, asked, launch, site, status
from facefactory.cluster.site import Nodes, Partition, Site
from facefactory.registry import unknown
from facefactory.rundir import RunDir

OLDEST = (20, 11)  # srun --overlap, which sweeps over several nodes need


def finding(good: Any, text: str, fix: str = "", bad: str = "PROBLEM") -> bool:
    """Print a finding, with its fix unless it is good; whether it stands in nobody's way."""
    mark = "ok" if good else bad
    color = {"ok": "green", "PROBLEM": "red"}.get(mark, "yellow")
    shown = f"[{color}]{mark:8}[/]{escape(text)}"
    if not good:
        shown += f"\n        → {escape(fix)}"
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(shown)
    return mark != "PROBLEM"


def cluster(profile: Profile, folder: Path, partitions: list[str], wait_s: float) -> bool:
    """Look at everything, with a job on each partition if `wait_s` > 0.

    Whether nothing stands in the way.
    """
    # what Slurm is, and what it has
    here = site.look()
    good = look_at_slurm(here.settings)
    shown = here.partitions.items()
    up = {name: one for name, one in shown if one.state == "up" and not one.hidden}
    if not up:
        fix = "sinfo shows what there is; ask those who run the cluster"
        return finding(False, "no partition is up", fix)
    for name in partitions:
        if name not in up:
            raise unknown(f"partitions: {name!r} is not up", name, up)
    for name, partition in up.items():
        text = f"partition {name}: {size(partition)}, up to {partition.limit}"
        fix = "jobs there wait until it has some; leave it out of your profile"
        finding(partition.nodes, text, fix, "note")

    # what of it this person can use
    if profile != Profile():  # that of a newcomer says nothing yet
        for text in wrong(profile, folder, here):
            good &= finding(False, f"profile: {text}", "set that in your profile")
    look_at_disks(folder)
    tried = partitions or [name for name, partition in up.items() if partition.nodes]
    if wait_s:
        for name in tried:
            good &= try_partition(profile, folder, up[name], wait_s)

    print("\n# a profile to start from: ~/.config/facefactory/default.yaml")
    print(proposal(here, up, folder))
    return good


def look_at_slurm(settings: dict[str, str]) -> bool:
    """Findings about Slurm's version and settings; whether nothing stands in the way."""
    version = re.findall(r"\d+", asked("sinfo", "--version").stdout)
    fix = "sweeps over several nodes need 20.11; give sweep.parallel for one node"
    good = finding(tuple(map(int, version[:2])) >= OLDEST, f"Slurm {'.'.join(version)}", fix)

    accounting = settings.get("AccountingStorageType", "none")
    fix = "jobs/status.py asks squeue and scontrol instead: old jobs are not known"
    finding("none" not in accounting, f"accounting: {accounting}", fix, "note")

    requeue = settings.get("JobRequeue")
    fix = (
        "jobs ask for --requeue themselves; if they end FAILED after a preemption, "
        "set requeue: resubmit"
    )
    finding(requeue == "1", f"JobRequeue={requeue}", fix, "note")

    names = ("PreemptType", "PreemptMode", "KillWait", "MaxArraySize")
    preempts, mode, wait, array = map(settings.get, names)
    finding(True, f"preemption: {preempts}, {mode}; KillWait {wait}, MaxArraySize {array}")
    return good


def look_at_disks(folder: Path) -> None:
    """Findings about the room on the disks of a folder and of the home, and about quotas."""
    fix = "packed sets and runs need room; other disks: give paths.runs and paths.data"
    for place in (folder, Path.home()):
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free / 2**30
        text = f"{free:.0f} GB free on the disk of {place}, for all its users"
        finding(free > 20, text, fix, "note")

    for row in asked("quota", "-s", "-w").stdout.splitlines()[2:]:
        cells = row.split()
        if len(cells) > 3:
            disk, used, soft, hard = cells[:4]  # `used` has a * if it is too much
            text = f"your quota on {disk}: {used} used, {soft} allowed, {hard} at most"
            finding("*" not in used, f"{text} (0K: no limit)", fix, "note")


def size(partition: Partition) -> str:
    """Every kind of a partition's nodes in words."""
    kinds = []
    for kind in partition.kinds:
        has = "of a size not known yet"
        if kind.cpus and kind.memory_mb:
            has = f"{kind.cpus} CPUs, {kind.memory_mb / 1024:.0f} GB"
        slices = ""
        if kind.slices:
            slices = f" and {kind.slices} slices of GPUs (MIG), which are not used here"
        kinds.append(f"{kind.count} nodes, {has}, {kind.gpus} GPUs{slices}")
    return "; ".join(kinds) or "no nodes"


def wrong(profile: Profile, folder: Path, seen: Site) -> list[str]:
    """What of a profile cannot work here, for a full node of each kind of job."""
    full = profile.gpus_per_node or profile.processes_per_node
    chain = [
        launch.Job("train", [["x"]], "gpu", True, full),
        launch.Job("sweep", [["x"]], "sweep", True, full, starts_ray=True),
        launch.Job("report", [["x"]], "cpu", False),
    ]
    return site.problems(profile, launch.requests(chain, profile, folder), seen)


def least(partition: Partition) -> Nodes:
    """What each of a partition's nodes has at least: of those with GPUs, where there are some."""
    kinds = [kind for kind in partition.kinds if kind.gpus] or list(partition.kinds)
    cpus = min((kind.cpus for kind in kinds if kind.cpus), default=1)
    memory = min((kind.memory_mb for kind in kinds if kind.memory_mb), default=2048)
    gpus = min((kind.gpus for kind in kinds), default=0)
    return Nodes(sum(kind.count for kind in kinds), cpus, memory, gpus, 0, frozenset())


def try_partition(profile: Profile, folder: Path, partition: Partition, wait_s: float) -> bool:
    """A job of two tasks, on two nodes where there are two; what it found."""
    name = partition.name
    node = least(partition)
    each = 1 if node.count > 1 else 2  # tasks on a node
    gpus = node.gpus >= each
    small = dataclasses.replace(
        profile,
        partition=name,
        cpu_partition=None,
        gpus_per_node=each if gpus else 0,
        processes_per_node=each,
        gpu_min=2,
        signal_s=10,
        cpus_per_process=1,
        memory_gb=min(profile.memory_gb, 4.0, node.memory_mb / 2048),
    )

    # submit it, with a folder that nodes do not have by themselves
    run = RunDir(folder / f"check-{name}-{secrets.token_hex(8)}")
    run.claim()
    task = launch.Job("check", [["probe", str(run.path)]], "gpu", gpus, 2)
    try:
        (job,) = launch.submit([task], small, run)
    except UserError as error:
        fix = "set that in your profile and try again, or leave this partition out"
        return finding(False, f"{name}: {error}", fix)

    # wait for its end
    deadline = time.monotonic() + wait_s
    waiting = status.live(run)
    while waiting and time.monotonic() < deadline:
        time.sleep(1)
        waiting = status.live(run)
    if waiting:
        asked("scancel", job)
        text = f"{name}: still {status.in_words(waiting[job], job)}"
        return finding(False, text, "try again later, or with wait_min=60", "note")

    # what its tasks saw
    tasks = [rundir.read_json(path) for path in sorted(run.path.glob("task-*.json"))]
    if len(tasks) >= 2:
        return look_at_tasks(name, tasks, gpus)
    tail = rundir.tail(status.log(run, job))
    text = f"{name}: {len(tasks)} of 2 tasks answered; the end of the log:\n{tail}"
    fix = (
        "mend setup, environment or python of the profile, "
        f"or give a folder that the nodes share; all files are in {run.path}"
    )
    return finding(False, text, fix)


def look_at_tasks(name: str, tasks: list[dict[str, Any]], gpus: bool) -> bool:
    """Findings about what `probe` wrote in each task of a partition's test job.

    `gpus`: the job was granted some. Whether nothing stands in the way.
    """
    first = tasks[0]
    hosts = ", ".join(sorted({task["host"] for task in tasks}))
    software = f"Python {first['python']} and torch {first['torch']}"
    finding(True, f"{name}: {software} on {hosts}, which see this folder")
    finding(True, f"{name}: all-reduce of 2 tasks in {first['seconds']:.1f} s")
    speed = min(task["scratch_mb_s"] for task in tasks)
    finding(True, f"{name}: scratch {first['scratch']} writes {speed:.0f} MB/s with fsync")
    if not gpus:
        return True

    torch = f"torch (built for CUDA {first['built_for']})"
    sees = first["cuda"] or "none of the GPUs that were granted"
    fix = (
        "install a torch built for this driver (nvidia-smi on the node), "
        "or module load cuda in the profile's setup"
    )
    return finding(first["cuda"], f"{name}: {torch} sees {sees}; driver {first['driver']}", fix)


def probe(folder: Path) -> None:
    """In a task of the test job: what Python sees here, and an all-reduce.

    The files of the job lie in `folder`, which its nodes share.
    """
    import torch
    import torch.distributed as dist

    # do the ranks reach each other?
    began = time.monotonic()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else None
    ones = torch.ones(1, device=device)
    dist.all_reduce(ones)
    facts: dict[str, Any] = {"seconds": time.monotonic() - began, "scratch": tempfile.gettempdir()}
    if ones.item() != dist.get_world_size():
        raise Failed(f"an all-reduce of {dist.get_world_size()} ones gave {ones.item()}")

    # how fast is the scratch, and what is installed?
    with tempfile.NamedTemporaryFile() as stream:
        before = time.monotonic()
        stream.write(bytes(64 * 2**20))
        stream.flush()
        os.fsync(stream.fileno())
        facts["scratch_mb_s"] = 64 / (time.monotonic() - before)
    drivers = asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").stdout
    facts |= {
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if cuda else None,
        "built_for": torch.version.cuda,
        "driver": drivers.partition("\n")[0] or None,
    }
    rundir.write_json(folder / f"task-{dist.get_rank()}.json", facts)
    dist.destroy_process_group()


def proposal(seen: Site, up: dict[str, Partition], folder: Path) -> str:
    """A profile from what sinfo and sacctmgr say."""
    import yaml

    # where: GPUs before the default partition, and a partition without GPUs for what needs none
    usable = {name: partition for name, partition in up.items() if partition.nodes} or up
    best = max(usable, key=lambda name: (least(usable[name]).gpus > 0, usable[name].default))
    plain = best
    node = least(usable[best])
    if node.gpus:
        without = (name for name, partition in usable.items() if not least(partition).gpus)
        plain = next(without, best)
    plain_node = least(usable[plain])
    profile: dict[str, Any] = {"partition": best}
    if plain != best:
        profile["cpu_partition"] = plain

    # who pays: an account that this partition takes
    open_here = [account for account in seen.accounts if account.partition in ("", best)]
    if open_here:
        profile["account"] = open_here[0].name
    if open_here and open_here[0].qos:
        profile["qos"] = open_here[0].qos[0]

    # how much: a node's share for each process, and no more than a node of either partition has
    each = node.gpus or max(1, node.cpus // 4)
    profile["gpus_per_node" if node.gpus else "processes_per_node"] = each
    cpus = max(1, min(16, node.cpus // each, plain_node.cpus))
    memory_mb = min(node.memory_mb * min(1 / each, cpus / node.cpus), plain_node.memory_mb)
    profile["cpus_per_process"] = cpus
    profile["memory_gb"] = int(memory_mb / 102.4) / 10

    # how long: what the partitions allow
    longest = usable[best].minutes
    longest_plain = usable[plain].minutes
    if min(longest, longest_plain) < math.inf:
        most = math.floor(min(1440, longest))
        profile["gpu_min"] = most
        profile["sweep_min"] = most
        profile["cpu_min"] = math.floor(min(240, longest_plain))
        shortest_s = 60 * min(most, profile["cpu_min"])
        if shortest_s <= Profile().signal_s:
            profile["signal_s"] = max(10, shortest_s // 2)
    return str(yaml.safe_dump({**profile, "runs": str(folder)}, sort_keys=False))
