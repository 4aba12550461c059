"""What a newcomer to a cluster wants to know first: each finding with its fix, and a profile to start from."""

import dataclasses
import getpass
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
from facefactory.cluster import Profile, asked, launch, status
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
    settings = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", asked("scontrol", "show", "config").stdout, re.M))
    version = re.findall(r"\d+", asked("sinfo", "--version").stdout)
    fix = "sweeps over several nodes need 20.11; give sweep.parallel for one node"
    good = finding(tuple(map(int, version[:2])) >= OLDEST, f"Slurm {'.'.join(version)}", fix)
    kind, requeue = settings.get("AccountingStorageType", "none"), settings.get("JobRequeue")
    fix = "jobs/status.py asks squeue and scontrol instead: old jobs are not known"
    finding("none" not in kind, f"accounting: {kind}", fix, "note")
    fix = "jobs ask for --requeue themselves; if they end FAILED after a preemption, set requeue: resubmit"
    finding(requeue == "1", f"JobRequeue={requeue}", fix, "note")
    kind, mode, wait, array = map(settings.get, ("PreemptType", "PreemptMode", "KillWait", "MaxArraySize"))
    finding(True, f"preemption: {kind}, {mode}; KillWait {wait}, MaxArraySize {array}")
    nodes = partitions_up()
    if not nodes:
        return finding(False, "no partition is up", "sinfo shows what there is; ask those who run the cluster")
    for name in partitions:
        if name not in nodes:
            raise unknown(f"partitions: {name!r} is not up", name, nodes)
    for name, has in nodes.items():
        size = f"{has['nodes']} nodes, {has['cpus']} CPUs, {has['memory_mb'] / 1024:.0f} GB, {has['gpus']} GPUs"
        finding(True, f"partition {name}: {size}, up to {has['limit']}")
    for place in (folder, Path.home()):
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free / 2**30
        fix = "packed sets and runs need room; other disks: give paths.runs and paths.data"
        finding(free > 20, f"{free:.0f} GB free on the disk of {place}, for all its users", fix, "note")
    for row in map(str.split, asked("quota", "-s", "-w").stdout.splitlines()[2:]):
        if len(row) > 3:  # file system, used (* if too much), soft and hard limit
            text = f"your quota on {row[0]}: {row[1]} used, {row[2]} allowed, {row[3]} at most (0K: no limit)"
            finding("*" not in row[1], text, fix, "note")
    for name in (partitions or list(nodes)) if wait_s else []:
        good &= try_partition(profile, folder, name, nodes[name], wait_s)
    print("\n# a profile to start from: ~/.config/facefactory/default.yaml\n" + proposal(nodes, folder))
    return good


def partitions_up() -> dict[str, dict[str, Any]]:
    """Partition -> nodes, time limit, and what its smallest kind of node has."""
    found: dict[str, dict[str, Any]] = {}
    for line in asked("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G").stdout.splitlines():
        name, up, limit, count, cpus, memory, gres = line.split("|")
        gpus = re.search(r"gpu:(?:[^:(,]+:)?(\d+)", gres)
        has = {"cpus": int(cpus.rstrip("+")), "memory_mb": int(memory.rstrip("+")), "gpus": int(gpus[1]) if gpus else 0}
        if up == "up":
            had = found.get(name.rstrip("*"), {"nodes": 0, **has})
            least = {key: min(value, had[key]) for key, value in has.items()}
            more = {"limit": limit, "nodes": had["nodes"] + int(count), "default": name.endswith("*")}
            found[name.rstrip("*")] = least | more
    return found


def try_partition(profile: Profile, folder: Path, name: str, has: dict[str, Any], wait_s: float) -> bool:
    """A job of two tasks, on two nodes where there are two; what it found."""
    where = folder / f"check-{name}-{secrets.token_hex(8)}"  # a folder that nodes do not have by themselves
    run = RunDir(where)
    run.open_private()
    each = 1 if has["nodes"] > 1 else 2
    gpus = has["gpus"] >= each
    small = {"partition": name, "cpu_partition": None, "gpus_per_node": each * gpus, "processes_per_node": each, "gpu_min": 2}
    small |= {"cpus_per_process": 1, "memory_gb": min(profile.memory_gb, 4.0, has["memory_mb"] / 2048)}
    try:
        task = launch.Job("check", [["probe", str(where)]], "gpu", gpus, 2)
        (job,) = launch.submit([task], dataclasses.replace(profile, **small), run)
    except UserError as error:
        return finding(False, f"{name}: {error}", "set that in your profile and try again, or leave this partition out")
    deadline = time.monotonic() + wait_s
    while (waiting := status.live(run)) and time.monotonic() < deadline:
        time.sleep(1)
    if waiting:
        asked("scancel", job)
        return finding(False, f"{name}: still {status.in_words(waiting[job])}", "try again later, or with wait_min=60", "note")
    told = [rundir.read_json(path) for path in sorted(where.glob("task-*.json"))]
    if len(told) < 2:
        fix = f"mend setup, environment or python of the profile, or give a folder that the nodes share; all files are in {where}"
        tail = rundir.tail(status.log(run, job))
        return finding(False, f"{name}: {len(told)} of 2 tasks answered; the end of the log:\n{tail}", fix)
    first, hosts = told[0], ", ".join(sorted({one["host"] for one in told}))
    finding(True, f"{name}: Python {first['python']} and torch {first['torch']} on {hosts}, which see this folder")
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
    ones = torch.ones(1, device=torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else None)
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
    facts |= {"host": socket.gethostname(), "python": sys.version.split()[0], "torch": torch.__version__}
    driver = asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").stdout.partition("\n")[0]
    facts |= {"cuda": torch.cuda.get_device_name() if cuda else None, "built_for": torch.version.cuda, "driver": driver or None}
    rundir.write_json(folder / f"task-{dist.get_rank()}.json", facts)
    dist.destroy_process_group()


def proposal(nodes: dict[str, dict[str, Any]], folder: Path) -> str:
    """A profile from what sinfo and sacctmgr say."""
    import yaml

    best = max(nodes, key=lambda name: (nodes[name]["gpus"] > 0, nodes[name]["default"]))
    plain = next((name for name in nodes if not nodes[name]["gpus"]), best)
    facts = nodes[best]
    each = facts["gpus"] or max(1, facts["cpus"] // 4)
    profile: dict[str, Any] = {"partition": best} | ({"cpu_partition": plain} if plain != best else {})
    answer = asked("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=Account,QOS")
    for line in answer.stdout.splitlines()[:1]:
        account, _, qos = line.partition("|")
        profile |= {"account": account} | ({"qos": qos.split(",")[0]} if qos else {})
    profile |= {"gpus_per_node": facts["gpus"]} if facts["gpus"] else {"processes_per_node": each}
    profile |= {"cpus_per_process": max(1, min(16, facts["cpus"] // each))}
    profile |= {"memory_gb": int(facts["memory_mb"] / 102.4 * min(1 / each, profile["cpus_per_process"] / facts["cpus"])) / 10}
    if limit := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):\d+", facts["limit"]):
        days, hours, minutes = (int(part or 0) for part in limit.groups())
        most = 1440 * days + 60 * hours + minutes
        profile |= {"gpu_min": min(1440, most), "sweep_min": min(1440, most), "cpu_min": min(240, most)}
    return str(yaml.safe_dump({**profile, "runs": str(folder)}, sort_keys=False))
