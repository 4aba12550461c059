"""How the jobs of a run stand: Slurm's records joined with the run folder's own files, and where each fact comes from."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

from facefactory import rundir
from facefactory.rundir import RunDir

LIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED")
SACCT = ("JobID", "JobName", "State", "ExitCode", "Elapsed", "Timelimit", "NodeList", "MaxRSS", "ReqMem", "Reason")
REASONS = {  # Slurm's word for why a job waits -> what it means to its owner
    "Priority": "jobs with a higher priority are before it",
    "Resources": "waits for nodes to become free",
    "Dependency": "waits for the job before it",
    "DependencyNeverSatisfied": "can never run, because the job before it failed",
    "BeginTime": "was requeued and starts in a moment",
    "JobHeldUser": "is held; release it with scontrol release",
    "JobHeldAdmin": "is held by an administrator, or was requeued too often; release it with scontrol release",
    "PartitionTimeLimit": "asks for more minutes than the partition allows: lower the profile's minutes",
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "ReqNodeNotAvail": "the nodes it needs are down, drained or reserved",
    "launch failed requeued held": "could not be started and is held; see the node with scontrol show node",
}


def _call(*command: str) -> str | None:
    """What a Slurm command printed; None where it failed, hung or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def in_words(reason: str) -> str:
    """A pending reason as a phrase."""
    reason = reason.strip("()").replace("_", " ")
    known = REASONS.get(reason.partition(",")[0])  # ReqNodeNotAvail, UnavailableNodes:n2
    if known:
        return known
    limit = re.match(r"(QOS|Assoc)(Max|Grp|Min)?(\w+?)(Limit|PerUser|PerAccount)*$", reason)
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).lower()
    return f"a limit of your {'qos' if limit[1] == 'QOS' else 'account'} is reached ({split})" if limit else split


def parse_sacct(text: str) -> dict[str, dict[str, Any]]:
    """Job id -> facts of its last incarnation, from `sacct -D -P -n -o <SACCT>`; steps give the memory and true state."""
    jobs: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        row = dict(zip(SACCT, line.split("|"), strict=False))
        if len(row) < len(SACCT):
            continue
        name, _, step = row["JobID"].partition(".")
        state = row["State"].split()[0] if row["State"] else "UNKNOWN"
        if step:
            job = jobs.get(name)
            if job is not None:
                job["memory_mb"] = max(job["memory_mb"] or 0, megabytes(row["MaxRSS"])) or None
                if state == "OUT_OF_MEMORY" and job["state"] == "FAILED":  # else the job went on without that step
                    job["state"] = state
            continue
        reason = row["State"].lower() if " by " in row["State"] else row["Reason"]  # cancelled by 0: by a person, not by Slurm
        jobs[name] = {
            "name": row["JobName"],
            "state": state,
            "exit_code": row["ExitCode"],
            "elapsed": row["Elapsed"],
            "limit": row["Timelimit"],
            "nodes": "" if row["NodeList"].startswith("None") else row["NodeList"],
            "memory_mb": None,
            "requested": row["ReqMem"],
            "reason": reason if reason not in ("None", "") else None,
            "restarts": jobs[name]["restarts"] + 1 if name in jobs else 0,
        }
    return jobs


def megabytes(text: str) -> float:
    """`1234K`, `5.5G` -> MB; an empty field -> 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * {"K": 1 / 1024, "": 1 / 1024**2, "M": 1, "G": 1024, "T": 1024**2}[match[2]] if match else 0.0


def parse_scontrol(text: str) -> dict[str, Any]:
    """Facts from `scontrol show job`."""
    found = dict(re.findall(r"(\w+(?:/\w+)?)=(\S*)", text))
    keys = {
        "name": "JobName",
        "state": "JobState",
        "exit_code": "ExitCode",
        "elapsed": "RunTime",
        "limit": "TimeLimit",
        "nodes": "NodeList",
    }
    facts: dict[str, Any] = {name: found.get(key, "").replace("(null)", "") for name, key in keys.items()}
    reason = found.get("Reason")
    more = {"memory_mb": None, "requested": found.get("MinMemoryNode", ""), "restarts": int(found.get("Restarts", 0))}
    return facts | more | {"reason": None if reason in ("None", None) else reason}


def ask(names: dict[str, str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """(who answered, job or array element -> facts) of Slurm jobs, by as few calls as possible.

    `names`: ids and the names that we gave. A controller that was killed may forget a job and give its id to a stranger's.
    """
    if not names:
        return [], {}
    sacct = _call("sacct", "-D", "-P", "-n", "-j", ",".join(names), "-o", ",".join(SACCT))
    queue = _call("squeue", "-h", "-r", "--me", "-o", "%i|%T|%r|%N|%M|%l|%j")
    sources = [name for name, answer in (("sacct", sacct), ("squeue", queue)) if answer is not None]
    jobs, queued = parse_sacct(sacct or ""), set[str]()
    for line in (queue or "").splitlines():  # what the controller knows of live jobs is newer than the records
        job, *cells = line.split("|", 6)
        shown: dict[str, Any] = dict(zip(("state", "reason", "nodes", "elapsed", "limit", "name"), cells, strict=True))
        if job.partition("_")[0] in names:
            queued.add(job.partition("_")[0])
            shown["reason"] = shown["reason"] if shown["reason"] != "None" else None
            jobs[job] = {"exit_code": "", "memory_mb": None, "requested": "", "restarts": 0} | jobs.get(job, {}) | shown
    unnamed = "allocation"  # so the record of a job may say for a second
    ended = {job.partition("_")[0] for job, one in jobs.items() if one["state"] not in LIVE and one["name"] != unnamed}
    for missing in [name for name in names if name not in queued | ended and queue is not None]:
        found = _call("scontrol", "-o", "show", "job", missing) or ""
        if not found:  # records of a job that the controller has lost stay as they were, for ever
            jobs = {job: facts for job, facts in jobs.items() if job.partition("_")[0] != missing or facts["state"] not in LIVE}
        for shown_job in found.splitlines():
            array = re.search(r"ArrayJobId=(\d+) ArrayTaskId=(\S+)", shown_job)
            jobs[f"{array[1]}_[{array[2]}]" if array else missing] = parse_scontrol(shown_job)
            sources = sources if "scontrol" in sources else [*sources, "scontrol"]
    ours = {job: facts for job, facts in jobs.items() if facts["name"] in (names[job.partition("_")[0]], unnamed)}
    apart = {job.partition("_")[0] for job in ours if "_" in job and "[" not in job}
    for job in [job for job in ours if "[" in job]:  # elements that are pending, or were cancelled before they ran
        facts = ours.pop(job)
        if facts["state"] not in LIVE or queue is None or job.partition("_")[0] not in apart:  # squeue knows of live ones
            ours = dict.fromkeys(elements(job), facts) | ours
    arrays = {job.partition("_")[0] for job in ours if "_" in job}
    return sources, {job: facts for job, facts in ours.items() if job not in arrays}


def elements(name: str) -> list[str]:
    """The elements that Slurm shows as one: `20_[0,2-4%2]` -> 20_0, 20_2, 20_3, 20_4."""
    array, _, part = name.partition("_[")
    spans = re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.partition("%")[0])
    return [f"{array}_{one}" for first, last, step in spans for one in range(int(first), int(last or first) + 1, int(step or 1))]


def submitted(folder: RunDir) -> dict[str, list[str]]:
    """Stage -> ids of the Slurm jobs of its newest submission (a job and the copies submitted in its place)."""
    found: dict[str, list[str]] = {}
    for line in rundir.read_jsonl(folder.path / "jobs.jsonl"):
        if line["state"] == "submitted":
            found[line["stage"]] = [*(found.get(line["stage"], []) if "instead_of" in line else []), line["job"]]
    return found


def named(folder: RunDir) -> dict[str, str]:
    """Ids of the run's jobs -> their names."""
    return {job: f"ff-{folder.path.name}-{stage}" for stage, ids in submitted(folder).items() for job in ids}


def live(folder: RunDir) -> dict[str, str]:
    """Ids of the run's jobs that are queued or running -> their pending reason."""
    _, jobs = ask(named(folder))
    return {name: facts["reason"] or "" for name, facts in jobs.items() if facts["state"] in LIVE}


def read(folder: RunDir) -> dict[str, Any]:
    """Everything that jobs/status.py shows of a run, as plain containers."""
    stages = submitted(folder)
    sources, jobs = ask(named(folder))
    ledgers = [folder.path / "jobs.jsonl", *folder.path.glob("finalists/*/jobs.jsonl")]
    lines = [line for path in ledgers for line in rundir.read_jsonl(path)]
    said = {line["job"]: line["state"].upper() for line in lines if line["state"] != "submitted"}
    replaced = {line["instead_of"] for line in lines if "instead_of" in line}
    rows: list[dict[str, Any]] = []
    for stage, ids in stages.items():
        names = [name for one in ids for name in [job for job in {**jobs, **said} if job.partition("_")[0] == one] or [one]]
        for name in sorted(set(names) - replaced, key=lambda one: [int(part) for part in re.findall(r"\d+", one)]):
            if name in jobs:
                facts = dict(jobs[name])
            else:  # Slurm does not answer, or has forgotten it
                state = said.get(name, "UNKNOWN")
                facts = {"state": "UNKNOWN" if state == "RUNNING" and "squeue" in sources else state, "reason": None}
                sources = sources if "ledger" in sources else [*sources, "ledger"]
            facts["waits"] = in_words(facts["reason"]) if facts["state"] == "PENDING" and facts.get("reason") else None
            element = int((re.findall(r"_(\d+)", name) or ["0"])[0])
            rows.append({"stage": stage, "job": name, **facts, **progress(folder, stage, element, name)})
    if not stages:
        sources, last = ["ledger"], {line["stage"]: line for line in rundir.read_jsonl(folder.path / "jobs.jsonl")}
        rows = [
            {"stage": stage, "job": line["job"], "state": line["state"].upper(), **progress(folder, stage, 0, "")}
            for stage, line in last.items()
        ]
    for row in rows:
        row["healthy"] = row["state"] in (*LIVE, "COMPLETED", "FINISHED", "UNKNOWN", "INTERRUPTED") and not never(row)
        row["log_tail"] = None if row["healthy"] else tail(folder, row["job"])
    well, source = all(row["healthy"] for row in rows), ", ".join(sources)
    return {"run": str(folder.path), "source": source, "jobs": rows, "healthy": well, "slurm": "squeue" in sources or not stages}


def never(row: dict[str, Any]) -> bool:
    """Whether a pending job can never run."""
    return row["state"] == "PENDING" and row.get("reason") == "DependencyNeverSatisfied"


def progress(folder: RunDir, stage: str, element: int, job: str) -> dict[str, Any]:
    """What the run's own files tell: clock, speed, best score, ages [s] of the heartbeat and the newest checkpoint."""
    finalist = next(iter(folder.path.glob(f"finalists/{element}-*")), folder.path / "finalists")
    place = {"prepare": folder.path / "judge", "finalists": finalist / "train"}.get(stage, folder.path / stage)
    patterns = ("checkpoints/*.pt", "trials/*/train/checkpoints/*.pt")
    saved = max((path.stat().st_mtime for pattern in patterns for path in place.glob(pattern)), default=None)
    logs = sorted(
        [*place.glob("metrics-*.jsonl"), *place.glob("trials/*/train/metrics-*.jsonl")], key=lambda path: path.stat().st_mtime
    )
    line = (rundir.read_jsonl(logs[-1]) or [{}])[-1] if logs else {}
    scores = [one for path in place.glob("trials/*/scores.jsonl") for one in rundir.read_jsonl(path)]
    beat = folder.path / "private" / "jobs" / f"{job}.alive"
    now = time.time()
    return {
        "kimg": line.get("kimg"),
        "images_per_s": line.get("images_per_s"),
        "trials": len(list(place.glob("trials/*/trial.json"))) or None,
        "best": min((one["kd_judge"] for one in scores), default=None),
        "heartbeat_s": round(now - beat.stat().st_mtime) if beat.exists() else None,
        "checkpoint_s": round(now - saved) if saved else None,
    }


def tail(folder: RunDir, job: str, lines: int = 15) -> str | None:
    """The end of a job's log."""
    logs = sorted((folder.path / "private" / "jobs").glob(f"{job}_*log.out"))
    return "\n".join(logs[0].read_text(errors="replace").splitlines()[-lines:]) if logs else None


def record_failures(folder: RunDir) -> None:
    """Write into the ledger what Slurm knows of jobs that ended without a word of their own (killed, out of memory …)."""
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    told = {line["job"] for line in lines if line["state"] == "failed"}
    for row in read(folder)["jobs"]:
        if not row["healthy"] and row["job"] not in told:
            why = f"{row['state']} (exit code {row.get('exit_code') or '?'}) of Slurm job {row['job']}"
            if row["state"] == "CANCELLED" and str(row.get("reason")).startswith("Dependency"):
                why = f"Slurm job {row['job']} never ran, because a job before it failed"
            folder.record(row["stage"], "failed", job=row["job"], error=why, log=_log_name(folder, row["job"]))


def _log_name(folder: RunDir, job: str) -> str | None:
    return next((str(path) for path in sorted((folder.path / "private" / "jobs").glob(f"{job}_*log.out"))), None)


def table(found: dict[str, Any]) -> Any:
    """The facts as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"{Path(found['run']).name} (from {found['source']})", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "job", "state", "nodes", "elapsed / limit", "restarts", "memory / asked", "exit", "progress", "seen"):
        shown.add_column(column, overflow="fold")
    for row in found["jobs"]:
        color = "green" if row["state"] in ("COMPLETED", "FINISHED") else "yellow" if row["healthy"] else "red"
        state = f"[{color}]{row['state']}[/]" + (f": {escape(row['waits'])}" if row.get("waits") else "")
        parts = {"kimg": "{:g} kimg", "images_per_s": "{:.0f} images/s", "trials": "{} trials", "best": "best {:.4g}"}
        told = ", ".join(text.format(row[name]) for name, text in parts.items() if row.get(name) is not None)
        ages = {"heartbeat_s": "heartbeat {}", "checkpoint_s": "checkpoint {}"}
        alive = row["state"] in LIVE
        seen = ", ".join(text.format(age(row[name])) for name, text in ages.items() if alive and row.get(name) is not None)
        memory = f"{row['memory_mb']:.0f}M / {row['requested']}" if row.get("memory_mb") else row.get("requested", "")
        times = f"{row['elapsed']} / {row['limit']}" if row.get("elapsed") else ""
        cells = (row["stage"], row["job"], state, row.get("nodes", ""), times, str(row.get("restarts", "")), memory)
        shown.add_row(*cells, row.get("exit_code", ""), told, seen)
    return shown


def age(seconds: float) -> str:
    """Seconds as `40 s ago`, `12 min ago`, `3.5 h ago`."""
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.1f} h ago"
