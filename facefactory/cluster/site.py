"""What a cluster has and allows, as its own commands tell, and what of a profile cannot work there.

A command that does not answer, or answers in an unknown way, forbids nothing: Slurm itself has the
last word.
"""

import getpass
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facefactory.cluster import Profile, asked
from facefactory.validation import nearest

SLICE = re.compile(r"\d+g\.\d+gb")  # of a GPU, as NVIDIA's MIG names them: 1g.10gb

# Kind of a job -> key of its time limit
MINUTES = {"cpu": "cpu_min", "gpu": "gpu_min", "sweep": "sweep_min"}


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
    sized_by: str = ""  # the key that says how many elements there are


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
    user = f"user={getpass.getuser()}"
    accounts = asked("sacctmgr", "-nP", "show", "assoc", user, columns).stdout
    columns = "format=Name,MaxWall,MaxSubmitJobsPerUser,Flags"
    qualities = asked("sacctmgr", "-nP", "show", "qos", columns).stdout
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
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def limit(text: str) -> float:
    """A count that has no end where Slurm prints none, UNLIMITED or nothing."""
    return float(text) if text.isdigit() else math.inf


def minutes(text: str) -> float:
    """`1-12:00:00`, `5:00`, `30:00:00`, `infinite` -> minutes; infinite where there is no limit."""
    parts = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not parts:
        return math.inf
    days, hours, whole, seconds = (int(part or 0) for part in parts.groups())
    return 1440 * days + 60 * hours + whole + seconds / 60


def gpus_of(gres: str) -> tuple[int, int]:
    """(GPUs, slices of GPUs) in what sinfo prints of a node.

    For example `gpu:a100:2(S:0-1),gpu:1g.10gb:7,mps:100` is (2, 7).
    """
    gpus = 0
    slices = 0
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
    settings = {fields["PartitionName"]: fields for fields in shown if "PartitionName" in fields}

    partitions: dict[str, Partition] = {}
    for line in rows.splitlines():
        cells = line.split("|")
        if len(cells) < 7:
            continue
        marked_name, state, longest, count, cpus, memory, gres, *rest = cells

        # a row is one kind of a partition's nodes
        gpus, slices = gpus_of(gres)
        features = frozenset(rest[0].split(",") if rest else []) - {"(null)", ""}
        kind = Nodes(number(count), number(cpus), number(memory), gpus, slices, features)
        kinds: tuple[Nodes, ...] = (kind,) if kind.count else ()

        # rows before it may have told of other kinds
        name = marked_name.rstrip("*")
        if name in partitions:
            kinds = partitions[name].kinds + kinds
        set_here = settings.get(name, {})
        partitions[name] = Partition(
            name=name,
            state=state,
            default=marked_name.endswith("*"),
            limit=longest,
            minutes=minutes(longest),
            most_nodes=limit(set_here.get("MaxNodes", "")),
            kinds=kinds,
            hidden=set_here.get("Hidden") == "YES",
        )
    return partitions


def parse_accounts(text: str) -> tuple[Account, ...]:
    """The rows of `sacctmgr show assoc`; those without an account say nothing."""
    accounts = []
    for line in text.splitlines():
        cells = [*line.split("|"), "", "", "", ""]
        if not cells[0]:
            continue
        if line.count("|") == 1:  # only account and QOS were answered
            cells.insert(1, "")
        qos = tuple(filter(None, cells[2].split(",")))
        accounts.append(Account(cells[0], cells[1], qos, limit(cells[3]), minutes(cells[4])))
    return tuple(accounts)


def parse_qualities(text: str) -> dict[str, Quality]:
    """Name -> limits, from `sacctmgr show qos`."""
    qualities = {}
    for line in text.splitlines():
        cells = [*line.split("|"), "", "", ""]
        if cells[0]:
            qualities[cells[0]] = Quality(minutes(cells[1]), limit(cells[2]), cells[3])
    return qualities


# -- what cannot work ------------------------------------------------------------------------------------------------


def names_that_are_not_there(profile: Profile, site: Site) -> list[str]:
    """Keys of a profile that name what the cluster does not have, whether a job uses them or not."""
    return [
        *_wrong_partitions(profile, site),
        *_wrong_account(profile, site),
        *_wrong_quality(profile, site),
        *_wrong_features(profile, site),
    ]


def _wrong_partitions(profile: Profile, site: Site) -> Iterator[str]:
    for key in ("partition", "cpu_partition"):
        named = (getattr(profile, key) or "").split(",")
        for name in filter(None, named if site.partitions else []):
            if name not in site.partitions:
                yield f"{key}={name!r} is no partition here; {_there_are(name, site.partitions)}"
                continue
            state = site.partitions[name].state
            if state not in ("up", "down"):
                yield f"{key}={name!r} takes no jobs (sinfo says {state!r})"


def _wrong_account(profile: Profile, site: Site) -> Iterator[str]:
    account = profile.account
    names = {own.name for own in site.accounts}
    if account and names and site.enforces("associations") and account.lower() not in names:
        yield f"account={account!r} is none of yours; {_there_are(account, names)}"


def _wrong_quality(profile: Profile, site: Site) -> Iterator[str]:
    qos = profile.qos
    if not qos or not site.enforces("qos"):
        return
    allowed: set[str] = set()
    for account in _charged(profile, site):
        allowed.update(account.qos)
    if site.qualities and qos not in site.qualities:
        yield f"qos={qos!r} is no quality of service here; {_there_are(qos, site.qualities)}"
    elif allowed and qos not in allowed:
        yield f"qos={qos!r} is not open to your account; {_there_are(qos, allowed)}"


def _wrong_features(profile: Profile, site: Site) -> Iterator[str]:
    constraint = profile.constraint
    features: set[str] = set()
    for partition in site.partitions.values():
        for kind in partition.kinds:
            features |= kind.features
    if not constraint or not features:
        return
    for name in re.split(r"[^\w.:=+-]+", re.sub(r"\*\d+", "", constraint)):
        if name and name not in features:
            yield f"constraint={constraint!r}: no node has {name!r}; {_there_are(name, features)}"


def _charged(profile: Profile, site: Site) -> list[Account]:
    """The accounts that a profile may charge: the one that it names, or any."""
    return [own for own in site.accounts if profile.account in (None, own.name)]


def _there_are(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    return f"there are {shown}.{nearest(wrong, names)}"


def too_much(request: Request, profile: Profile, site: Site) -> list[str]:
    """What a job asks for and no partition that it names can ever give; each names its key."""
    named = (request.partition or "").split(",")
    fewest: list[str] | None = None
    for place in site.partitions.values():
        if place.name in named or (not request.partition and place.default):
            missing = _too_much_for(request, profile, place, site)
            if fewest is None or len(missing) < len(fewest):  # one that can give it is enough
                fewest = missing
    return fewest or []


def _too_much_for(request: Request, profile: Profile, place: Partition, site: Site) -> list[str]:
    """What a job asks for and one partition can never give."""
    set_elsewhere = {name.replace("_", "-") for name in profile.sbatch}
    missing: list[str] = []
    if "time" not in set_elsewhere:
        missing += _too_long(request, profile, place, site)

    # nodes
    nodes = min(place.most_nodes, place.nodes if place.is_known else math.inf)
    if request.nodes > nodes and not {"nodes", "ntasks"} & set_elsewhere:
        key = "gpus_per_node" if request.gpus else "processes_per_node"
        needs = f"{request.stage} needs {request.nodes} nodes ({key}={request.each})"
        missing.append(f"{needs}, but partition {place.name} gives {nodes:g}")

    # what each of them has, and all of it at once
    if place.is_known:
        missing += _too_big(request, profile, place, set_elsewhere)
    together = {"mem", "gres", "nodes", "ntasks-per-node", "cpus-per-task"}
    if place.is_known and not missing and not together & set_elsewhere:
        missing += _too_few(request, place)
    return missing


def _too_long(request: Request, profile: Profile, place: Partition, site: Site) -> Iterator[str]:
    """A time limit above what partition, quality of service or account allow."""
    where = f"partition {place.name}"
    limits = {where: place.minutes}
    if site.enforces("limits"):
        quality = site.qualities.get(profile.qos or "")
        if quality and "PartitionTimeLimit" in quality.flags:
            limits.clear()
        if quality:
            limits[f"qos {profile.qos}"] = quality.minutes
        allowed = [account.minutes for account in _charged(profile, site)]
        limits["your account (MaxWall)"] = max(allowed, default=math.inf)

    # the narrowest of them
    whose = min(limits, key=lambda name: limits[name], default=where)
    longest = limits.get(whose, math.inf)
    if request.minutes > longest:
        key = MINUTES[request.kind]
        then = f"({request.stage} would wait for ever)"
        yield f"{key}={request.minutes}, but {whose} allows {longest:g} minutes {then}"


def _too_big(
    request: Request, profile: Profile, place: Partition, set_elsewhere: set[str]
) -> Iterator[str]:
    """CPUs, memory or GPUs that no node of a partition has."""
    where = f"partition {place.name}"
    plural = "es" if request.each > 1 else ""
    processes = f"for {request.each} process{plural} on a node, but {where} has"

    cpus = place.most("cpus")
    if request.cpus > cpus and not set_elsewhere & {"cpus-per-task", "ntasks-per-node"}:
        fits = cpus // request.each
        has = f"{cpus} CPUs (at most {fits})"
        yield f"cpus_per_process={profile.cpus_per_process} {processes} {has}"

    memory = place.most("memory_mb")
    if request.memory_mb > memory and not set_elsewhere & {"mem", "mem-per-cpu", "mem-per-gpu"}:
        fits_gb = math.floor(memory / request.each / 102.4) / 10
        has = f"{memory / 1024:.1f} GB (at most {fits_gb:g})"
        yield f"memory_gb={profile.memory_gb:g} {processes} {has}"

    gpus = max(kind.gpus + kind.slices for kind in place.kinds)
    if request.gpus > gpus and not set_elsewhere & {"gpus-per-node", "gres", "gpus"}:
        has = f"nodes of {where} have at most {gpus} GPUs"
        yield f"gpus_per_node={profile.gpus_per_node}, but {has}"


def _too_few(request: Request, place: Partition) -> Iterator[str]:
    """Too few nodes of a partition that have CPUs, memory and GPUs enough, all three."""
    enough = 0
    for kind in place.kinds:
        big = kind.cpus >= request.cpus and kind.memory_mb >= request.memory_mb
        if big and kind.gpus + kind.slices >= request.gpus:
            enough += kind.count
    if enough < request.nodes:
        size = f"{request.cpus} CPUs, {request.memory_mb / 1024:.1f} GB and {request.gpus} GPUs"
        keys = "cpus_per_process, memory_gb, gpus_per_node or processes_per_node"
        needs = f"{request.stage} needs {request.nodes} nodes with {size} each"
        yield f"{needs}, but partition {place.name} has {enough} ({keys})"


def too_many(requests: Sequence[Request], profile: Profile, site: Site) -> list[str]:
    """Arrays and numbers of jobs above the cluster's or the person's limits; each names its key."""
    refused = []

    # arrays: one by one
    largest = limit(site.settings.get("MaxArraySize", ""))
    at_once = re.search(r"\bmax_array_tasks=(\d+)", site.settings.get("SchedulerParameters", ""))
    if at_once:
        largest = min(largest, float(at_once[1]))
    arrays = [request for request in requests if request.sized_by and request.elements > 1]
    for request in arrays:
        if request.elements > largest:
            key = request.sized_by
            takes = f"this Slurm takes arrays of at most {largest:g} jobs (MaxArraySize)"
            refused.append(f"{key}={request.elements}, but {takes}")

    # jobs: all of them, beside those that this person has
    total = sum(request.elements for request in requests)
    keys = sorted({request.sized_by for request in arrays})
    for whose, most, there in _limits_of_jobs(profile, site):
        if total + there <= most:
            continue
        fixes = []
        if keys:
            fixes.append(f"lower {' or '.join(keys)}")
        if total <= most:
            fixes.append("wait until others have ended")
        fix = f"; {' or '.join(fixes)}" if fixes else ""
        beside = f" beside the {there} you have" if there else ""
        refused.append(
            f"these are {total} jobs{beside}, but {whose} allows {most:g} at a time{fix}"
        )
    return refused


def _limits_of_jobs(profile: Profile, site: Site) -> Iterator[tuple[str, float, int]]:
    """(whose limit, most jobs at a time, jobs that count and are there already) of each limit."""
    yield "this Slurm (MaxJobCount)", limit(site.settings.get("MaxJobCount", "")), 0
    if not site.enforces("limits"):
        return
    queued = [account for account in site.queued if profile.account in (None, account)]
    allowed = [account.most_jobs for account in _charged(profile, site)]
    yield "your account (MaxSubmitJobs)", max(allowed, default=math.inf), len(queued)
    if profile.qos in site.qualities:
        most = site.qualities[profile.qos].most_jobs
        yield f"qos {profile.qos} (MaxSubmitJobsPerUser)", most, 0


def problems(profile: Profile, requests: Sequence[Request], site: Site) -> list[str]:
    """All of it, each thing once.

    Nothing where the jobs go to another cluster than the one that was asked.
    """
    if {"clusters", "cluster", "M"} & profile.sbatch.keys():
        return []
    texts = names_that_are_not_there(profile, site)
    if not texts:
        for request in requests:
            texts += too_much(request, profile, site)
        texts += too_many(requests, profile, site)
    return list(dict.fromkeys(texts))


def request(
    stage: str,
    kind: str,
    elements: int,
    each: int,
    options: dict[str, Any],
    sized_by: str = "",
) -> Request:
    """What a job of `each` processes on a node asks for, from submitit's parameters of it."""
    further = options["additional_parameters"].items()
    sbatch = {name.replace("_", "-"): value for name, value in further}
    return Request(
        stage=stage,
        partition=sbatch.get("partition", options["partition"]),
        kind=kind,
        minutes=options["time"],
        nodes=options["nodes"],
        each=each,
        cpus=options["cpus_per_task"] * options["ntasks_per_node"],
        memory_mb=int(options["mem"].removesuffix("MB")),
        gpus=options["gpus_per_node"] or 0,
        elements=elements,
        sized_by=sized_by,
    )
