"""How the jobs of a run stand: Slurm's records joined with the run folder's own files, and where each fact comes from."""

import contextlib
import re
import time
from pathlib import Path
from typing import Any

from facefactory import rundir
from facefactory.cluster import asked, job_name, states
from facefactory.cluster.states import in_words
from facefactory.results import Goal
from facefactory.rundir import RunDir

SACCT = {
    "job": "JobID",
    "name": "JobName",
    "state": "State",
    "exit_code": "ExitCode",
    "elapsed": "Elapsed",
    "limit": "Timelimit",
}
SACCT |= {
    "nodes": "NodeList",
    "memory_mb": "MaxRSS",
    "requested": "ReqMem",
    "reason": "Reason",
}  # our name -> sacct's
NO_STATES = (
    "submitted",
    "refused",
    "withdrawn",
)  # lines of the ledger about a submission, not about a stage
ENDED_WELL = ("COMPLETED", "FINISHED")  # Slurm's word and the ledger's


def parse_sacct(text: str) -> dict[str, dict[str, Any]]:
    """Job id -> facts of its last incarnation, from `sacct -D -P -n -o <SACCT>`; steps give the memory and true state."""
    jobs: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) != len(
            SACCT
        ):  # news of a later version, or a stranger's job with a | in its name
            continue
        facts: dict[str, Any] = dict(zip(SACCT, cells, strict=True))
        name, _, step = facts.pop("job").partition(".")
        said, memory = facts["state"], megabytes(facts["memory_mb"])
        facts["state"] = states.first_word(said)
        if not step:
            reason = (
                said.lower() if " by " in said else facts["reason"]
            )  # cancelled by 0: by a person, not by Slurm
            nodes = "" if facts["nodes"].startswith("None") else facts["nodes"]
            if (
                said == "CANCELLED" and not nodes
            ):  # by nobody, before it ran; at times the record says "None" for the reason
                reason = "DependencyNeverSatisfied"
            earlier = [*jobs[name]["earlier"], jobs[name]["state"]] if name in jobs else []
            facts |= {"reason": reason if reason not in ("", "None") else None, "nodes": nodes}
            facts |= {"restarts": len(earlier), "earlier": earlier}
            jobs[name] = facts | {"memory_mb": None}
        elif name in jobs:
            jobs[name]["memory_mb"] = max(jobs[name]["memory_mb"] or 0, memory) or None
            if (
                facts["state"] == "OUT_OF_MEMORY" and jobs[name]["state"] == "FAILED"
            ):  # else the job went on without that step
                jobs[name]["state"] = facts["state"]
    return jobs


def megabytes(text: str) -> float:
    """`1234K`, `5.5G` -> MB; an empty field -> 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return (
        float(match[1])
        * {"K": 1 / 1024, "": 1 / 1024**2, "M": 1, "G": 1024, "T": 1024**2}[match[2]]
        if match
        else 0.0
    )


def parse_scontrol(text: str) -> dict[str, Any]:
    """Facts from `scontrol show job`."""
    found = {
        key: value if value not in ("(null)", "None") else ""
        for key, value in re.findall(r"(\w+)=(\S*)", text)
    }
    keys = {
        "name": "JobName",
        "state": "JobState",
        "exit_code": "ExitCode",
        "elapsed": "RunTime",
        "limit": "TimeLimit",
    }
    keys |= {
        "nodes": "NodeList",
        "requested": "MinMemoryNode",
        "reason": "Reason",
        "restarts": "Restarts",
    }
    facts: dict[str, Any] = {name: found.get(key, "") for name, key in keys.items()}
    facts["state"] = states.first_word(facts["state"])
    rest: dict[str, Any] = {
        "memory_mb": None,
        "reason": facts["reason"] or None,
        "restarts": int(facts["restarts"] or 0),
        "earlier": [],
    }
    return facts | rest


def sbatch_id(job: str) -> str:
    """The id that sbatch gave: that of the array, for an element."""
    return job.partition("_")[0]


def ask(folder: RunDir) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """(who answered, job or array element -> facts) of a run's Slurm jobs, by as few calls as possible.

    A controller that was killed may forget a job and give its id to a stranger's: names are compared.
    """
    names = {
        job: job_name(folder.path.name, stage)
        for stage, ids in submitted(folder).items()
        for job in ids
    }
    if not names:
        return [], {}
    sacct = asked("sacct", "-D", "-P", "-n", "-j", ",".join(names), "-o", ",".join(SACCT.values()))
    queue = asked("squeue", "-h", "-r", "--me", "-o", "%i|%T|%r|%N|%M|%l|%j")
    sources = [answer.args[0] for answer in (sacct, queue) if answer.returncode == 0]
    jobs, unnamed = (
        parse_sacct(sacct.stdout),
        "allocation",
    )  # what the record of a job may say for a second
    settled = {
        sbatch_id(job)
        for job, facts in jobs.items()
        if is_over(facts) and facts["name"] != unnamed
    }
    for line in (
        queue.stdout.splitlines()
    ):  # what the controller knows of live jobs is newer than the records
        job, *cells = line.split("|", 6)
        if (
            len(cells) == 6 and sbatch_id(job) in names
        ):  # else the name of a stranger's job goes over several lines
            facts = dict(
                zip(("state", "reason", "nodes", "elapsed", "limit", "name"), cells, strict=True)
            )
            settled.add(sbatch_id(job))
            rest = {
                "exit_code": "",
                "memory_mb": None,
                "requested": "",
                "restarts": 0,
                "earlier": [],
            } | jobs.get(job, {})
            reason = facts["reason"] if facts["reason"] not in ("None", "") else None
            jobs[job] = rest | facts | {"reason": reason, "queued": True}
    for missing in [name for name in names if name not in settled and "squeue" in sources]:
        found = asked("scontrol", "-o", "show", "job", missing).stdout
        if not found:  # records of a job that the controller has lost stay as they were, for ever
            jobs = {
                job: facts
                for job, facts in jobs.items()
                if sbatch_id(job) != missing or not is_live(facts)
            }
        for line in found.splitlines():
            array = re.search(r"ArrayJobId=(\d+) ArrayTaskId=(\S+)", line)
            jobs[f"{array[1]}_[{array[2]}]" if array else missing] = parse_scontrol(line)
            sources.append("scontrol")
    ours = {
        job: facts
        for job, facts in jobs.items()
        if facts["name"] in (names[sbatch_id(job)], unnamed)
    }
    apart = {sbatch_id(job) for job in ours if "_" in job and "[" not in job}
    for job in [
        job for job in ours if "[" in job
    ]:  # elements that are pending, or were cancelled before they ran
        facts = ours.pop(job)
        if (
            is_over(facts) or "squeue" not in sources or sbatch_id(job) not in apart
        ):  # squeue knows of live ones
            ours = dict.fromkeys(elements(job), facts) | ours
    arrays = {sbatch_id(job) for job in ours if "_" in job}
    return sources, {job: facts for job, facts in ours.items() if job not in arrays}


def elements(name: str) -> list[str]:
    """The elements that Slurm shows as one: `20_[0,2-4%2]` -> 20_0, 20_2, 20_3, 20_4."""
    array, _, part = name.partition("_[")
    spans = re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.partition("%")[0])
    return [
        f"{array}_{one}"
        for first, last, step in spans
        for one in range(int(first), int(last or first) + 1, int(step or 1))
    ]


def submitted(folder: RunDir) -> dict[str, list[str]]:
    """Stage -> ids of the Slurm jobs of its newest submission (a job and the copies submitted in its place).

    Jobs that were cancelled before they were released, because one of their chain was refused, never counted.
    """
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    withdrawn = {
        job for line in lines if line["state"] == "withdrawn" for job in line["withdrawn"]
    }
    found: dict[str, list[str]] = {}
    for line in lines:
        if line["state"] == "submitted" and line["job"] not in withdrawn:
            found[line["stage"]] = [
                *(found.get(line["stage"], []) if "instead_of" in line else []),
                line["job"],
            ]
    return found


def is_over(facts: dict[str, Any]) -> bool:
    """Whether Slurm will do nothing more for a job."""
    return states.kind(facts["state"], facts.get("queued", False)) in ("well", "badly")


def is_live(facts: dict[str, Any]) -> bool:
    """Whether a job runs, or waits for what can come."""
    alive = states.kind(facts["state"], facts.get("queued", False)) == "alive"
    return alive and facts.get("reason") != "DependencyNeverSatisfied"


def waiting(facts: dict[str, Any], job: str) -> str | None:
    """Why a job that lives does not run, in words; None: it runs, or does not live."""
    if not is_live(facts) and facts["state"] != "PENDING":
        return None
    if states.is_held(facts["state"]):  # a held state says more than its reason
        return in_words(facts["state"], job)
    if facts["state"] in ("RUNNING", "COMPLETING"):
        return None
    known = states.STATES.get(facts["state"])
    if facts["state"] == "PENDING" or facts.get("reason") in states.REASONS:
        return in_words(facts["reason"], job) if facts.get("reason") else None
    return known.words if known else None


def live(folder: RunDir) -> dict[str, str]:
    """Ids of the run's jobs that run or will -> why they wait: Slurm's word for the reason, or a state that is one."""
    return reasons(ask(folder)[1])


def reasons(jobs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The jobs that live, of those whose facts are given, and why they wait."""
    alive = {name: facts for name, facts in jobs.items() if is_live(facts)}
    return {
        name: facts["state"] if states.is_held(facts["state"]) else facts["reason"] or ""
        for name, facts in alive.items()
    }


def standing(jobs: dict[str, str]) -> str:
    """The jobs of `live` in a phrase: their ids, and what a person can do about those that wait for one."""
    told = f"Slurm jobs {', '.join(jobs)}"
    held = [name for name, reason in jobs.items() if states.is_held(reason)]
    if not held:
        return told
    subject = ", ".join(held) + (" is held" if len(held) == 1 else " are held")
    return f"{told}; {subject}: scontrol release {','.join(held)} lets them run, scancel {' '.join(held)} ends them"


def read(folder: RunDir) -> dict[str, Any]:
    """All that jobs/status.py shows of a run, as plain containers: one look, which `table` and those who wait share.

    `going`: a job runs or will, or nobody can tell; `healthy`: none has failed, was refused or can never run; `well`: all have
    ended, and well, as Slurm or the run's own ledger says.
    """
    stages, own = submitted(folder), rundir.read_jsonl(folder.path / "jobs.jsonl")
    lines = own + [
        line
        for path in folder.path.glob("finalists/*/jobs.jsonl")
        for line in rundir.read_jsonl(path)
    ]
    said = {line["job"]: line["state"].upper() for line in lines if line["state"] != "submitted"}
    replaced = {line["instead_of"] for line in lines if "instead_of" in line}
    sources, jobs = ask(folder)
    lost, rows = bool(stages) and "squeue" not in sources, []
    for stage, ids in stages.items():
        names = [
            name
            for one in ids
            for name in [job for job in {**jobs, **said} if sbatch_id(job) == one] or [one]
        ]
        for name in sorted(
            set(names) - replaced, key=lambda one: [int(part) for part in re.findall(r"\d+", one)]
        ):
            facts = jobs.get(name)
            if facts is None:  # Slurm does not answer, or has forgotten it
                state = said.get(name, "UNKNOWN")
                if state == "RUNNING" and not lost:
                    state = "UNKNOWN"
                if state == "UNKNOWN" and not lost and is_done(folder, stage, name):
                    state = "FINISHED"
                facts = {"state": state, "reason": None}
                sources.append("ledger")
            rows.append(
                {
                    "stage": stage,
                    "job": name,
                    **facts,
                    "waits": waiting(facts, name),
                    **progress(folder, stage, name),
                }
            )
    if not stages:
        sources = ["ledger"]
        for stage, line in {
            line["stage"]: line for line in own if line["state"] not in NO_STATES
        }.items():
            rows.append(
                {
                    "stage": stage,
                    "job": line["job"],
                    "state": line["state"].upper(),
                    **progress(folder, stage, ""),
                }
            )
    last = own[-1] if own else {"state": ""}
    if last["state"] == "refused":  # and nothing was begun since, here or there
        refused = {"stage": last["stage"], "job": "", "state": "REFUSED", "why": last["error"]}
        rows.append({**refused, **progress(folder, last["stage"], "")})
    if not rows:
        why = (
            f"nothing of this run was ever begun; its command stands in {folder.path}/command.txt"
        )
        rows.append(
            {
                "stage": "",
                "job": "",
                "state": "NEVER BEGUN",
                "why": why,
                **progress(folder, "", ""),
            }
        )

    for row in rows:
        row["live"] = is_live(row)
        row["healthy"] = row["live"] or row["state"] in (*ENDED_WELL, "UNKNOWN", "INTERRUPTED")
        row["log_tail"] = None if row["healthy"] else rundir.tail(log(folder, row["job"]))
        row.setdefault("why", None if row["healthy"] else why_over(row))
    going = any(row["live"] or (lost and row["state"] == "UNKNOWN") for row in rows)
    healthy, source = all(row["healthy"] for row in rows), ", ".join(dict.fromkeys(sources))
    well = not going and all(row["state"] in ENDED_WELL for row in rows)
    return {
        "run": str(folder.path),
        "source": source,
        "jobs": rows,
        "healthy": healthy,
        "well": well,
        "going": going,
    }


def is_done(folder: RunDir, stage: str, job: str) -> bool:
    """Whether the last stage that a Slurm job had to do was finished after the job was submitted."""
    last = {
        "prepare": "judge" if folder.stage("judge").exists() else "pack",
        "evaluate": "finalists",
    }
    place = stage if folder.stage(stage).exists() else last.get(stage, stage)
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    times = [
        line["time"]
        for line in lines
        if line["state"] == "submitted" and line["job"] == sbatch_id(job)
    ]
    skew_s = 60.0  # of the clocks of hosts and of the file server
    return bool(times) and changed(folder.stage(place) / "DONE.json") > times[-1] - skew_s


def why_over(facts: dict[str, Any]) -> str:
    """Why a job that is not well is not, in words."""
    never = facts.get("reason") == "DependencyNeverSatisfied"
    return (
        in_words("DependencyNeverSatisfied")
        if never
        else states.ending(facts["state"], facts.get("exit_code") or "")
    )


def progress(folder: RunDir, stage: str, job: str) -> dict[str, Any]:
    """What the run's own files tell: clock, speed, best score, ages [s] of the heartbeat and the newest checkpoint."""
    finalist = next(
        folder.path.glob(f"finalists/{job.partition('_')[2] or 0}-*"), folder.path / "finalists"
    )
    place = {"prepare": folder.path / "judge", "finalists": finalist / "train"}.get(
        stage, folder.path / stage
    )
    trainings = [place, *place.glob("trials/*/train")]
    saved = max(
        (changed(path) for one in trainings for path in one.glob("checkpoints/*.pt")), default=0.0
    )
    newest = max(
        (path for one in trainings for path in one.glob("metrics-*.jsonl")),
        key=changed,
        default=None,
    )
    line = (rundir.read_jsonl(newest) or [{}])[-1] if newest else {}
    scores = [
        one for path in place.glob("trials/*/scores.jsonl") for one in rundir.read_jsonl(path)
    ]
    now, beat = time.time(), changed(folder.path / "private" / "jobs" / f"{job}.alive")
    return {
        "kimg": line.get("kimg"),
        "images_per_s": line.get("images_per_s"),
        "trials": len(list(place.glob("trials/*/trial.json"))) or None,
        "best": best(place, scores),
        "heartbeat_s": round(now - beat) if beat else None,
        "checkpoint_s": round(now - saved) if saved else None,
    }


def best(place: Path, scores: list[dict[str, Any]]) -> float | None:
    """The best score of a sweep so far, by what goal.json says is looked for."""
    goal = rundir.read_json(place / "goal.json")
    if goal is None:
        return None
    values = [one[goal["metric"]] for one in scores if one.get(goal["metric"]) is not None]
    return Goal(**goal).best(values) if values else None


def changed(path: Path) -> float:
    """When a file was written last; 0 where it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def log(folder: RunDir, job: str) -> Path:
    """The log of the task of a job that failed first, as far as is known, else of its first task."""
    if not job:  # one that was refused has none
        return folder.path / "private" / "jobs" / "none"
    ends = sorted(folder.path.glob(f"private/jobs/{job}-*.exit"), key=changed)
    task = ends[-1].read_text().split()[1:] if ends else []
    return folder.path / "private" / "jobs" / f"{job}_{(task or ['0'])[0]}_log.out"


def record_failures(folder: RunDir) -> None:
    """Write into the ledger what Slurm knows of jobs that ended without a word of their own (killed, out of memory …)."""
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    told = {line["job"] for line in lines if line["state"] == "failed"}
    for row in read(folder)["jobs"]:
        if row["job"] and not row["healthy"] and row["job"] not in told:
            why = f"{row['state']} (exit code {row.get('exit_code') or '?'}) of Slurm job {row['job']}: it {row['why']}"
            if row["state"] == "CANCELLED" and str(row.get("reason")).startswith("Dependency"):
                why = f"Slurm job {row['job']} never ran, because a job before it failed"
            folder.record(
                row["stage"], "failed", job=row["job"], error=why, log=str(log(folder, row["job"]))
            )


def table(found: dict[str, Any]) -> Any:
    """The facts as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=f"{Path(found['run']).name} (from {found['source']})",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in (
        "stage",
        "job",
        "state",
        "nodes",
        "elapsed / limit",
        "restarts",
        "memory / asked",
        "exit",
        "progress",
        "seen",
    ):
        shown.add_column(column, overflow="fold")
    notes = []
    for row in found["jobs"]:
        color = "green" if row["state"] in ENDED_WELL else "yellow" if row["healthy"] else "red"
        state = f"[{color}]{row['state']}[/]" + (
            f": {escape(row['waits'])}" if row.get("waits") else ""
        )
        parts = {
            "kimg": "{:g} kimg",
            "images_per_s": "{:.0f} images/s",
            "trials": "{} trials",
            "best": "best {:.4g}",
        }
        told = ", ".join(
            text.format(row[name]) for name, text in parts.items() if row[name] is not None
        )
        ages = {"heartbeat_s": "heartbeat {}", "checkpoint_s": "checkpoint {}"}
        seen = ", ".join(
            text.format(age(row[name]))
            for name, text in ages.items()
            if row["live"] and row[name] is not None
        )
        memory = (
            f"{row['memory_mb']:.0f}M / {row['requested']}"
            if row.get("memory_mb")
            else row.get("requested", "")
        )
        times = f"{row['elapsed']} / {row['limit']}" if row.get("elapsed") else ""
        restarts = str(row.get("restarts", ""))
        if row.get("earlier"):
            causes = ", ".join(
                dict.fromkeys(state.lower().replace("_", " ") for state in row["earlier"])
            )
            restarts += f" ({causes})"
        cells = (row["stage"], row["job"], state, row.get("nodes", ""), times, restarts, memory)
        shown.add_row(*cells, row.get("exit_code", ""), told, seen)
        if row["why"]:
            whose = f"{row['stage']} {row['job']}".strip()
            notes.append(
                f"{whose}: it {row['why']}"
                if row["job"]
                else f"{whose}: {row['why']}".lstrip(": ")
            )
    if notes:
        shown.caption = escape("\n".join(notes))
        shown.caption_justify, shown.caption_style = "left", "none"
    return shown


def age(seconds: float) -> str:
    """Seconds as `40 s ago`, `12 min ago`, `3.5 h ago`."""
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.1f} h ago"
