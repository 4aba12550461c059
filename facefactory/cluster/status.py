"""How the jobs of a run stand: Slurm's records joined with the run folder's own files, and where each fact comes from."""

from __future__ import annotations

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
    reason = reason.strip("()")
    if reason in REASONS:
        return REASONS[reason]
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
                if state == "OUT_OF_MEMORY":
                    job["state"] = state
            continue
        jobs[name] = {
            "state": state,
            "exit_code": row["ExitCode"],
            "elapsed": row["Elapsed"],
            "limit": row["Timelimit"],
            "nodes": "" if row["NodeList"].startswith("None") else row["NodeList"],
            "memory_mb": None,
            "requested": row["ReqMem"],
            "reason": row["Reason"] if row["Reason"] not in ("None", "") else None,
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
    keys = {"state": "JobState", "exit_code": "ExitCode", "elapsed": "RunTime", "limit": "TimeLimit", "nodes": "NodeList"}
    facts: dict[str, Any] = {name: found.get(key, "").replace("(null)", "") for name, key in keys.items()}
    reason = found.get("Reason")
    more = {"memory_mb": None, "requested": found.get("MinMemoryNode", ""), "restarts": int(found.get("Restarts", 0))}
    return facts | more | {"reason": None if reason in ("None", None) else reason}


def ask(ids: list[str]) -> tuple[str, dict[str, dict[str, Any]]]:
    """(where the facts come from, job or array element -> facts) of Slurm jobs, by as few calls as possible."""
    if not ids:
        return "the run folder", {}
    sacct = _call("sacct", "-D", "-P", "-n", "-j", ",".join(ids), "-o", ",".join(SACCT))
    source, jobs = ("sacct", parse_sacct(sacct)) if sacct is not None else ("squeue", {})
    queue = _call("squeue", "-h", "-r", "--me", "-o", "%i|%T|%r|%N|%M|%l")
    for line in (queue or "").splitlines():  # what the controller knows of live jobs is newer than the records
        name, state, reason, nodes, elapsed, limit = line.split("|")
        if name.partition("_")[0] in ids:
            shown = {
                "state": state,
                "reason": reason if reason != "None" else None,
                "nodes": nodes,
                "elapsed": elapsed,
                "limit": limit,
            }
            jobs[name] = {"exit_code": "", "memory_mb": None, "requested": "", "restarts": 0} | jobs.get(name, {}) | shown
    known = {name.partition("_")[0] for name in jobs}
    for missing in [name for name in ids if name not in known]:
        for shown_job in (_call("scontrol", "-o", "show", "job", missing) or "").splitlines():
            array = re.search(r"ArrayJobId=(\d+) ArrayTaskId=(\d+)", shown_job)
            jobs[f"{array[1]}_{array[2]}" if array else missing] = parse_scontrol(shown_job)
            source = f"{source} and scontrol" if "scontrol" not in source else source
    elements = {name.partition("_")[0] for name in jobs if "_" in name and "[" not in name}
    whole = {name for name in jobs if name.partition("_")[0] in elements and ("[" in name or "_" not in name)}
    if sacct is None and queue is None:
        source = "the ledger (no Slurm command answers)"
    return source, {name: facts for name, facts in jobs.items() if name not in whole}


def submitted(folder: RunDir) -> dict[str, list[str]]:
    """Stage -> ids of the Slurm jobs of its newest submission (a job and the copies submitted in its place)."""
    found: dict[str, list[str]] = {}
    for line in rundir.read_jsonl(folder.path / "jobs.jsonl"):
        if line["state"] == "submitted":
            found[line["stage"]] = [*(found.get(line["stage"], []) if "instead_of" in line else []), line["job"]]
    return found


def live(folder: RunDir) -> dict[str, str]:
    """Ids of the run's jobs that are queued or running -> their pending reason."""
    ids = [one for jobs in submitted(folder).values() for one in jobs]
    _, jobs = ask(ids)
    return {name: facts["reason"] or "" for name, facts in jobs.items() if facts["state"] in LIVE}


def read(folder: RunDir) -> dict[str, Any]:
    """Everything that jobs/status.py shows of a run, as plain containers."""
    stages = submitted(folder)
    source, jobs = ask([one for ids in stages.values() for one in ids])
    ledger = rundir.read_jsonl(folder.path / "jobs.jsonl")
    rows: list[dict[str, Any]] = []
    for stage, ids in stages.items():
        names = [name for name in jobs if name.partition("_")[0] in ids] or ids
        for name in sorted(names, key=lambda one: [int(part) for part in re.findall(r"\d+", one)]):
            facts = dict(jobs.get(name) or {"state": "UNKNOWN", "reason": None})
            facts["waits"] = in_words(facts["reason"]) if facts["state"] == "PENDING" and facts.get("reason") else None
            element = int((re.findall(r"_(\d+)", name) or ["0"])[0])
            rows.append({"stage": stage, "job": name, **facts, **progress(folder, stage, element, name)})
    if not stages:
        last = {line["stage"]: line for line in ledger}
        rows = [
            {"stage": stage, "job": line["job"], "state": line["state"].upper(), **progress(folder, stage, 0, "")}
            for stage, line in last.items()
        ]
    for row in rows:
        row["healthy"] = row["state"] in (*LIVE, "COMPLETED", "FINISHED", "UNKNOWN", "INTERRUPTED") and not never(row)
        row["log_tail"] = None if row["healthy"] else tail(folder, row["job"])
    return {"run": str(folder.path), "source": source, "jobs": rows, "healthy": all(row["healthy"] for row in rows)}


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
