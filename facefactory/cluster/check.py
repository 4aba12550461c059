"""What a newcomer to a cluster wants to know first: each finding with its fix, and a profile to start from."""

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
    mark, color = ("ok", "green") if good else (bad, "red" if bad == "PROBLEM" else "yellow")
    shown = f"[{color}]{mark:8}[/]{escape(text)}" + ("" if good else f"\n        → {escape(fix)}")
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(shown)
    return bool(good) or bad != "PROBLEM"


def cluster(profile: Profile, folder: Path, partitions: list[str], wait_s: float) -> bool:
    """Look at everything, with a job on each partition if `wait_s` > 0; whether nothing stands in the way."""
    seen = site.look()
    settings = seen.settings
    version = re.findall(r"\d+", asked("sinfo", "--version").stdout)
    fix = "sweeps over several nodes need 20.11; give sweep.parallel for one node"
    good = finding(tuple(map(int, version[:2])) >= OLDEST, f"Slurm {'.'.join(version)}", fix)
    kind, requeue = settings.get("AccountingStorageType", "none"), settings.get("JobRequeue")
    fix = "jobs/status.py asks squeue and scontrol instead: old jobs are not known"
    finding("none" not in kind, f"accounting: {kind}", fix, "note")
    fix = "jobs ask for --requeue themselves; if they end FAILED after a preemption, set requeue: resubmit"
    finding(requeue == "1", f"JobRequeue={requeue}", fix, "note")
    preempts, mode, wait, array = map(
        settings.get, ("PreemptType", "PreemptMode", "KillWait", "MaxArraySize")
    )
    finding(True, f"preemption: {preempts}, {mode}; KillWait {wait}, MaxArraySize {array}")
    up = {
        name: one for name, one in seen.partitions.items() if one.state == "up" and not one.hidden
    }
    if not up:
        return finding(
            False, "no partition is up", "sinfo shows what there is; ask those who run the cluster"
        )
    for name in partitions:
        if name not in up:
            raise unknown(f"partitions: {name!r} is not up", name, up)
    for name, partition in up.items():
        fix = "jobs there wait until it has some; leave it out of your profile"
        finding(
            partition.nodes,
            f"partition {name}: {size(partition)}, up to {partition.limit}",
            fix,
            "note",
        )
    if profile != Profile():  # that of a newcomer says nothing yet
        for text in wrong(profile, folder, seen):
            good &= finding(False, f"profile: {text}", "set that in your profile")
    for place in (folder, Path.home()):
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free / 2**30
        fix = "packed sets and runs need room; other disks: give paths.runs and paths.data"
        finding(
            free > 20, f"{free:.0f} GB free on the disk of {place}, for all its users", fix, "note"
        )
    for row in map(str.split, asked("quota", "-s", "-w").stdout.splitlines()[2:]):
        if len(row) > 3:  # file system, used (* if too much), soft and hard limit
            text = f"your quota on {row[0]}: {row[1]} used, {row[2]} allowed, {row[3]} at most (0K: no limit)"
            finding("*" not in row[1], text, fix, "note")
    tried = partitions or [name for name, partition in up.items() if partition.nodes]
    for name in tried if wait_s else []:
        good &= try_partition(profile, folder, up[name], wait_s)
    print(
        "\n# a profile to start from: ~/.config/facefactory/default.yaml\n"
        + proposal(seen, up, folder)
    )
    return good


def size(partition: Partition) -> str:
    """Every kind of a partition's nodes in words."""
    told = []
    for kind in partition.kinds:
        has = (
            f"{kind.cpus} CPUs, {kind.memory_mb / 1024:.0f} GB"
            if kind.cpus and kind.memory_mb
            else "of a size not known yet"
        )
        slices = (
            f" and {kind.slices} slices of GPUs (MIG), which are not used here"
            if kind.slices
            else ""
        )
        told.append(f"{kind.count} nodes, {has}, {kind.gpus} GPUs{slices}")
    return "; ".join(told) or "no nodes"


def wrong(profile: Profile, folder: Path, seen: Site) -> list[str]:
    """What of a profile cannot work here, for a full node of each kind of job."""
    full = profile.gpus_per_node or profile.processes_per_node
    chain = [
        launch.Job("train", [["x"]], "gpu", True, full),
        launch.Job("sweep", [["x"]], "sweep", True, full),
    ]
    chain.append(launch.Job("report", [["x"]], "cpu", False))
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
    name, has = partition.name, least(partition)
    where = (
        folder / f"check-{name}-{secrets.token_hex(8)}"
    )  # a folder that nodes do not have by themselves
    run = RunDir(where)
    run.claim()
    each = 1 if has.count > 1 else 2
    gpus = has.gpus >= each
    small: dict[str, Any] = {
        "partition": name,
        "cpu_partition": None,
        "gpus_per_node": each * gpus,
        "processes_per_node": each,
    }
    small |= {"gpu_min": 2, "signal_s": 10, "cpus_per_process": 1}
    small |= {"memory_gb": min(profile.memory_gb, 4.0, has.memory_mb / 2048)}
    try:
        task = launch.Job("check", [["probe", str(where)]], "gpu", gpus, 2)
        (job,) = launch.submit([task], dataclasses.replace(profile, **small), run)
    except UserError as error:
        return finding(
            False,
            f"{name}: {error}",
            "set that in your profile and try again, or leave this partition out",
        )
    deadline = time.monotonic() + wait_s
    while (waiting := status.live(run)) and time.monotonic() < deadline:
        time.sleep(1)
    if waiting:
        asked("scancel", job)
        return finding(
            False,
            f"{name}: still {status.in_words(waiting[job], job)}",
            "try again later, or with wait_min=60",
            "note",
        )
    told = [rundir.read_json(path) for path in sorted(where.glob("task-*.json"))]
    if len(told) < 2:
        fix = f"mend setup, environment or python of the profile, or give a folder that the nodes share; all files are in {where}"
        tail = rundir.tail(status.log(run, job))
        return finding(
            False, f"{name}: {len(told)} of 2 tasks answered; the end of the log:\n{tail}", fix
        )
    first, hosts = told[0], ", ".join(sorted({one["host"] for one in told}))
    finding(
        True,
        f"{name}: Python {first['python']} and torch {first['torch']} on {hosts}, which see this folder",
    )
    finding(True, f"{name}: all-reduce of 2 tasks in {first['seconds']:.1f} s")
    speed = min(one["scratch_mb_s"] for one in told)
    finding(True, f"{name}: scratch {first['scratch']} writes {speed:.0f} MB/s with fsync")
    if not gpus:
        return True
    seen = f"{name}: torch (built for CUDA {first['built_for']}) sees {first['cuda'] or 'none of the GPUs that were granted'}"
    fix = "install a torch built for this driver (nvidia-smi on the node), or module load cuda in the profile's setup"
    return finding(first["cuda"], f"{seen}; driver {first['driver']}", fix)


def probe(folder: Path) -> None:
    """In a task of the test job, whose files lie in the shared folder: what Python sees here, and an all-reduce."""
    import torch
    import torch.distributed as dist

    began = time.monotonic()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    ones = torch.ones(
        1, device=torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else None
    )
    dist.all_reduce(ones)
    facts: dict[str, Any] = {"seconds": time.monotonic() - began, "scratch": tempfile.gettempdir()}
    if ones.item() != dist.get_world_size():
        raise Failed(f"an all-reduce of {dist.get_world_size()} ones gave {ones.item()}")
    with tempfile.NamedTemporaryFile() as stream:
        before = time.monotonic()
        stream.write(bytes(64 * 2**20))
        stream.flush()
        os.fsync(stream.fileno())
        facts["scratch_mb_s"] = 64 / (time.monotonic() - before)
    facts |= {
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
    driver = asked(
        "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
    ).stdout.partition("\n")[0]
    facts |= {
        "cuda": torch.cuda.get_device_name() if cuda else None,
        "built_for": torch.version.cuda,
        "driver": driver or None,
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
    if least(usable[best]).gpus:
        plain = next(
            (name for name, partition in usable.items() if not least(partition).gpus), best
        )
    facts, beside = least(usable[best]), least(usable[plain])
    profile: dict[str, Any] = {"partition": best} | (
        {"cpu_partition": plain} if plain != best else {}
    )

    # who pays: an account that this partition takes
    open_here = [account for account in seen.accounts if account.partition in ("", best)]
    for account in open_here[:1]:
        profile |= {"account": account.name} | ({"qos": account.qos[0]} if account.qos else {})

    # how much: a node's share for each process, and no more than a node of either partition has
    each = facts.gpus or max(1, facts.cpus // 4)
    profile |= {"gpus_per_node": facts.gpus} if facts.gpus else {"processes_per_node": each}
    cpus = max(1, min(16, facts.cpus // each, beside.cpus))
    memory_mb = min(facts.memory_mb * min(1 / each, cpus / facts.cpus), beside.memory_mb)
    profile |= {"cpus_per_process": cpus, "memory_gb": int(memory_mb / 102.4) / 10}

    # how long: what the partitions allow
    longest, longest_plain = usable[best].minutes, usable[plain].minutes
    if min(longest, longest_plain) < math.inf:
        most = math.floor(min(1440, longest))
        profile |= {
            "gpu_min": most,
            "sweep_min": most,
            "cpu_min": math.floor(min(240, longest_plain)),
        }
        shortest_s = 60 * min(most, profile["cpu_min"])
        if shortest_s <= Profile().signal_s:
            profile["signal_s"] = max(10, shortest_s // 2)
    return str(yaml.safe_dump({**profile, "runs": str(folder)}, sort_keys=False))
