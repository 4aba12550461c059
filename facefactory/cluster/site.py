"""What a cluster has and allows, as its own commands tell, and what of a profile cannot work there.

A command that does not answer, or answers in an unknown way, forbids nothing: Slurm itself has the
last word.
"""

import getpass
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from facefactory.cluster import Profile, asked
from facefactory.registry import nearest

SLICE = re.compile(r"\d+g\.\d+gb")  # of a GPU, as NVIDIA's MIG names them: 1g.10gb
# kind of a job -> key of its time limit
MINUTES = {"cpu": "cpu_min", "gpu": "gpu_min", "sweep": "sweep_min"}
ARRAYS = {  # stage -> key of its size
    "pack": "pack.tasks",
    "finalists": "sweep.finalists",
    "evaluate": "sweep.finalists",
}


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike.

    0 CPUs or 0 MB: nobody knows yet, as for nodes of a cloud that are off.
    """

    count: int
    cpus: int
    memory_mb: int
    gpus: int
    slices: int
    features: frozenset[str]


@dataclass(frozen=True)
class Partition:
    """A partition; `minutes` and `most_nodes` are infinite where it has no limit."""

    name: str
    state: str
    default: bool
    limit: str
    minutes: float
    most_nodes: float
    kinds: tuple[Nodes, ...]
    hidden: bool = False

    @property
    def nodes(self) -> int:
        """How many nodes it has."""
        return sum(kind.count for kind in self.kinds)

    def most(self, what: str) -> int:
        """The most that one node has of `cpus`, `memory_mb` or `gpus`."""
        return max((getattr(kind, what) for kind in self.kinds), default=0)

    @property
    def is_known(self) -> bool:
        """Whether every node says what it has."""
        return bool(self.kinds) and all(kind.cpus and kind.memory_mb for kind in self.kinds)


@dataclass(frozen=True)
class Account:
    """What a person may charge.

    Limits are infinite where there is none; `partition` is empty where it holds for all.
    """

    name: str
    partition: str
    qos: tuple[str, ...]
    most_jobs: float
    minutes: float


@dataclass(frozen=True)
class Quality:
    """A quality of service and its limits for a person."""

    minutes: float
    most_jobs: float
    flags: str


@dataclass(frozen=True)
class Request:
    """What a job asks of Slurm; a job of an array counts once for each element."""

    stage: str
    partition: str | None
    kind: str
    minutes: int
    nodes: int
    each: int
    cpus: int
    memory_mb: int
    gpus: int
    elements: int


@dataclass(frozen=True)
class Site:
    """A cluster; what it did not tell is empty."""

    settings: dict[str, str]
    partitions: dict[str, Partition]
    accounts: tuple[Account, ...]
    qualities: dict[str, Quality]
    queued: tuple[str, ...] = ()  # the accounts of the jobs that this person has in the queue

    def enforces(self, what: str) -> bool:
        """Whether Slurm looks at `associations`, `limits` or `qos` when a job comes."""
        return what in self.settings.get("AccountingStorageEnforce", "").split(",")


def look() -> Site:
    """Ask scontrol, sinfo and sacctmgr."""
    shown = asked("scontrol", "show", "config").stdout
    settings = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", shown, re.M))
    limits = asked("scontrol", "-a", "-o", "show", "partition").stdout
    rows = asked("sinfo", "-a", "-h", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G|%f").stdout
    columns = "format=Account,Partition,QOS,MaxSubmitJobs,MaxWall"
    accounts = asked(
        "sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", columns
    ).stdout
    qualities = asked(
        "sacctmgr", "-nP", "show", "qos", "format=Name,MaxWall,MaxSubmitJobsPerUser,Flags"
    ).stdout
    queued = tuple(asked("squeue", "-h", "-r", "--me", "-o", "%a").stdout.split())
    return Site(
        settings,
        parse_partitions(rows, limits),
        parse_accounts(accounts),
        parse_qualities(qualities),
        queued,
    )


# -- reading ---------------------------------------------------------------------------------------------------------


def number(text: str) -> int:
    """`64`, `64+`, `256000+` -> the number; `0+`, `N/A` or nothing -> 0."""
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def limit(text: str) -> float:
    """A count that has no end where Slurm prints none, UNLIMITED or nothing."""
    return float(text) if text.isdigit() else math.inf


def minutes(text: str) -> float:
    """`1-12:00:00`, `5:00`, `30:00:00`, `infinite` -> minutes; infinite where there is no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return math.inf
    days, hours, whole, seconds = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + whole + seconds / 60


def gpus_of(gres: str) -> tuple[int, int]:
    """(GPUs, slices of GPUs) in what sinfo prints of a node: `gpu:a100:2(S:0-1),gpu:1g.10gb:7,mps:100`."""
    gpus, slices = 0, 0
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = entry.split(":")
        if name != "gpu" or not rest:
            continue
        count = number(rest[-1])
        if len(rest) > 1 and SLICE.search(rest[0]):
            slices += count
        else:
            gpus += count
    return gpus, slices


def parse_partitions(rows: str, limits: str = "") -> dict[str, Partition]:
    """Name -> partition, from sinfo's rows and from `scontrol -o show partition`."""
    shown = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in limits.splitlines()]
    more = {fields["PartitionName"]: fields for fields in shown if "PartitionName" in fields}

    found: dict[str, Partition] = {}
    for line in rows.splitlines():
        cells = line.split("|")
        if len(cells) < 7:
            continue
        name, state, longest, count, cpus, memory, gres, *rest = cells
        gpus, slices = gpus_of(gres)
        features = frozenset(rest[0].split(",") if rest else []) - {"(null)", ""}
        kind = Nodes(number(count), number(cpus), number(memory), gpus, slices, features)
        kinds = (kind,) if kind.count else ()

        plain = name.rstrip("*")
        had = found[plain].kinds if plain in found else ()
        told = more.get(plain, {})
        found[plain] = Partition(
            name=plain,
            state=state,
            default=name.endswith("*"),
            limit=longest,
            minutes=minutes(longest),
            most_nodes=limit(told.get("MaxNodes", "")),
            kinds=had + kinds,
            hidden=told.get("Hidden") == "YES",
        )
    return found


def parse_accounts(text: str) -> tuple[Account, ...]:
    """The rows of `sacctmgr show assoc`; those without an account say nothing."""
    found = []
    for line in text.splitlines():
        cells = [*line.split("|"), "", "", "", ""]
        if not cells[0]:
            continue
        if line.count("|") == 1:  # only account and QOS were answered
            cells.insert(1, "")
        qos = tuple(filter(None, cells[2].split(",")))
        found.append(Account(cells[0], cells[1], qos, limit(cells[3]), minutes(cells[4])))
    return tuple(found)


def parse_qualities(text: str) -> dict[str, Quality]:
    """Name -> limits, from `sacctmgr show qos`."""
    found = {}
    for line in text.splitlines():
        cells = [*line.split("|"), "", "", ""]
        if cells[0]:
            found[cells[0]] = Quality(minutes(cells[1]), limit(cells[2]), cells[3])
    return found


# -- what cannot work ------------------------------------------------------------------------------------------------


def names_that_are_not_there(profile: Profile, site: Site) -> list[str]:
    """Keys of a profile that name what the cluster does not have, whether a job uses them or not."""
    found = []
    for key in ("partition", "cpu_partition"):
        for name in filter(None, (getattr(profile, key) or "").split(",")):
            if site.partitions and name not in site.partitions:
                found.append(
                    f"{key}={name!r} is no partition here; {_there_are(name, site.partitions)}"
                )
            elif site.partitions and site.partitions[name].state not in ("up", "down"):
                found.append(
                    f"{key}={name!r} takes no jobs (sinfo says {site.partitions[name].state!r})"
                )

    names = {account.name for account in site.accounts}
    if (
        profile.account
        and names
        and site.enforces("associations")
        and profile.account.lower() not in names
    ):
        found.append(
            f"account={profile.account!r} is none of yours; {_there_are(profile.account, names)}"
        )

    allowed = {
        qos
        for account in site.accounts
        for qos in account.qos
        if profile.account in (None, account.name)
    }
    if profile.qos and site.enforces("qos"):
        if site.qualities and profile.qos not in site.qualities:
            found.append(
                f"qos={profile.qos!r} is no quality of service here; {_there_are(profile.qos, site.qualities)}"
            )
        elif allowed and profile.qos not in allowed:
            found.append(
                f"qos={profile.qos!r} is not open to your account; {_there_are(profile.qos, allowed)}"
            )

    kinds = [kind for partition in site.partitions.values() for kind in partition.kinds]
    features = {feature for kind in kinds for feature in kind.features}
    if profile.constraint and features:
        for name in re.split(r"[^\w.:=+-]+", re.sub(r"\*\d+", "", profile.constraint)):
            if name and name not in features:
                found.append(
                    f"constraint={profile.constraint!r}: no node has {name!r}; {_there_are(name, features)}"
                )
    return found


def _there_are(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    return f"there are {shown}.{nearest(wrong, names)}"


def too_much(request: Request, profile: Profile, site: Site) -> list[str]:
    """What a job asks for and no partition that it names can ever give; each names its key."""
    named = (request.partition or "").split(",")
    places = [
        one
        for one in site.partitions.values()
        if one.name in named or (not request.partition and one.default)
    ]
    if not places:
        return []
    told = [_too_much_for(request, profile, place, site) for place in places]
    return min(told, key=len)  # one of them is enough


def _too_much_for(request: Request, profile: Profile, place: Partition, site: Site) -> list[str]:
    where = f"partition {place.name}"
    set_elsewhere = {name.replace("_", "-") for name in profile.sbatch}
    found = []

    key = MINUTES[request.kind]
    limits = {where: place.minutes}
    if site.enforces("limits"):
        quality = site.qualities.get(profile.qos or "")
        if quality and "PartitionTimeLimit" in quality.flags:
            limits.clear()
        if quality:
            limits[f"qos {profile.qos}"] = quality.minutes
        charged = [
            account.minutes for account in site.accounts if profile.account in (None, account.name)
        ]
        limits["your account (MaxWall)"] = max(charged, default=math.inf)
    whose = min(limits, key=lambda name: limits[name], default=where)
    longest = limits.get(whose, math.inf)
    if request.minutes > longest and "time" not in set_elsewhere:
        then = f"({request.stage} would wait for ever)"
        found.append(f"{key}={request.minutes}, but {whose} allows {longest:g} minutes {then}")

    nodes = min(place.most_nodes, place.nodes if place.is_known else math.inf)
    if request.nodes > nodes and not {"nodes", "ntasks"} & set_elsewhere:
        of = "gpus_per_node" if request.gpus else "processes_per_node"
        needs = f"{request.stage} needs {request.nodes} nodes ({of}={request.each})"
        found.append(f"{needs}, but {where} gives {nodes:g}")

    if not place.is_known:
        return found
    processes = (
        f"for {request.each} process{'es' if request.each > 1 else ''} on a node, but {where} has"
    )
    cpus, memory = place.most("cpus"), place.most("memory_mb")
    gpus = max(kind.gpus + kind.slices for kind in place.kinds)
    if request.cpus > cpus and not set_elsewhere & {"cpus-per-task", "ntasks-per-node"}:
        fits = cpus // request.each
        has = f"{cpus} CPUs (at most {fits})"
        found.append(f"cpus_per_process={profile.cpus_per_process} {processes} {has}")
    if request.memory_mb > memory and not set_elsewhere & {"mem", "mem-per-cpu", "mem-per-gpu"}:
        fits_gb = math.floor(memory / request.each / 102.4) / 10
        has = f"{memory / 1024:.1f} GB (at most {fits_gb:g})"
        found.append(f"memory_gb={profile.memory_gb:g} {processes} {has}")
    if request.gpus > gpus and not set_elsewhere & {"gpus-per-node", "gres", "gpus"}:
        has = f"nodes of {where} have at most {gpus} GPUs"
        found.append(f"gpus_per_node={profile.gpus_per_node}, but {has}")
    if found or set_elsewhere & {"mem", "gres", "nodes", "ntasks-per-node", "cpus-per-task"}:
        return found

    fitting = [
        one
        for one in place.kinds
        if one.cpus >= request.cpus and one.memory_mb >= request.memory_mb
    ]
    enough = sum(one.count for one in fitting if one.gpus + one.slices >= request.gpus)
    if enough < request.nodes:
        size = f"{request.cpus} CPUs, {request.memory_mb / 1024:.1f} GB and {request.gpus} GPUs"
        keys = "cpus_per_process, memory_gb, gpus_per_node or processes_per_node"
        needs = f"{request.stage} needs {request.nodes} nodes with {size} each"
        found.append(f"{needs}, but {where} has {enough} ({keys})")
    return found


def too_many(requests: Sequence[Request], profile: Profile, site: Site) -> list[str]:
    """Arrays and numbers of jobs above the cluster's or the person's limits; each names its key."""
    found = []
    largest = limit(site.settings.get("MaxArraySize", ""))
    told = re.search(r"\bmax_array_tasks=(\d+)", site.settings.get("SchedulerParameters", ""))
    if told:
        largest = min(largest, float(told[1]))
    for request in requests:
        key = ARRAYS.get(request.stage)
        if request.elements > max(1.0, largest) and key:
            arrays = f"arrays of at most {largest:g} jobs (MaxArraySize)"
            found.append(f"{key}={request.elements}, but this Slurm takes {arrays}")

    total = sum(request.elements for request in requests)
    keys = sorted(
        {
            ARRAYS[request.stage]
            for request in requests
            if request.stage in ARRAYS and request.elements > 1
        }
    )
    mine = [account for account in site.queued if profile.account in (None, account)]
    limits = [("this Slurm (MaxJobCount)", limit(site.settings.get("MaxJobCount", "")), 0)]
    if site.enforces("limits"):
        charged = [
            account.most_jobs
            for account in site.accounts
            if profile.account in (None, account.name)
        ]
        limits.append(("your account (MaxSubmitJobs)", max(charged, default=math.inf), len(mine)))
        if profile.qos in site.qualities:
            most = site.qualities[profile.qos].most_jobs
            limits.append((f"qos {profile.qos} (MaxSubmitJobsPerUser)", most, 0))
    for whose, most, there in limits:
        if total + there > most:
            beside = f" beside the {there} you have" if there else ""
            fixes = [f"lower {' or '.join(keys)}"] if keys else []
            fixes += ["wait until others have ended"] if total <= most else []
            fix = f"; {' or '.join(fixes)}" if fixes else ""
            found.append(
                f"these are {total} jobs{beside}, but {whose} allows {most:g} at a time{fix}"
            )
    return found


def problems(profile: Profile, requests: Sequence[Request], site: Site) -> list[str]:
    """All of it, each thing once; nothing where the jobs go to another cluster than the one that was asked."""
    if {"clusters", "cluster", "M"} & profile.sbatch.keys():
        return []
    found = names_that_are_not_there(profile, site)
    if not found:
        for request in requests:
            found += too_much(request, profile, site)
        found += too_many(requests, profile, site)
    return list(dict.fromkeys(found))


def request(stage: str, kind: str, elements: int, each: int, options: dict[str, Any]) -> Request:
    """What a job of `each` processes on a node asks for, from submitit's parameters of it."""
    more = {
        name.replace("_", "-"): value for name, value in options["additional_parameters"].items()
    }
    return Request(
        stage=stage,
        partition=more.get("partition", options["partition"]),
        kind=kind,
        minutes=options["time"],
        nodes=options["nodes"],
        each=each,
        cpus=options["cpus_per_task"] * options["ntasks_per_node"],
        memory_mb=int(options["mem"].removesuffix("MB")),
        gpus=options["gpus_per_node"] or 0,
        elements=elements,
    )
