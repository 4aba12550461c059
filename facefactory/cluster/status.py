"""How the jobs of a run stand: Slurm's records joined with the run folder's own files.

And where each fact comes from.
"""

import contextlib
import dataclasses
import re
import time
from pathlib import Path
from typing import Any

from facefactory import failures, rundir, trials
from facefactory.cluster import asked, job_name, states
from facefactory.cluster.states import in_words
from facefactory.failures import Failure
from facefactory.results import Goal
from facefactory.rundir import RunDir
from facefactory.trials import TrialFolder

JobFacts = dict[str, Any]  # what is known of a job: name, state, reason, nodes, elapsed …
Line = dict[str, Any]  # of the ledger: time, stage, state, job …
Jobs = dict[str, JobFacts]  # by the id of a job or of an array's element: `20`, `20_3`

# Our name -> sacct's
SACCT = {
    "job": "JobID",
    "name": "JobName",
    "state": "State",
    "exit_code": "ExitCode",
    "elapsed": "Elapsed",
    "limit": "Timelimit",
    "nodes": "NodeList",
    "memory_mb": "MaxRSS",
    "requested": "ReqMem",
    "reason": "Reason",
}

# Our name -> scontrol's
SCONTROL = {
    "name": "JobName",
    "state": "JobState",
    "exit_code": "ExitCode",
    "elapsed": "RunTime",
    "limit": "TimeLimit",
    "nodes": "NodeList",
    "requested": "MinMemoryNode",
    "reason": "Reason",
    "restarts": "Restarts",
}

SQUEUE = ("state", "reason", "nodes", "elapsed", "limit", "name")  # what we ask it for
UNNAMED = "allocation"  # what the record of a job may say for a second, in place of its name
MEGABYTES = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}

# Lines of the ledger about a submission, not about a stage
NO_STATES = ("submitted", "refused", "withdrawn")
ROUNDED_S = 0.1  # times in the ledger
ENDED_WELL = ("COMPLETED", "FINISHED")  # Slurm's word and the ledger's

COLUMNS = (
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
)


def parse_sacct(text: str) -> Jobs:
    """Job id -> facts of its last incarnation, from `sacct -D -P -n -o <SACCT>`.

    Its steps give the memory and the true state.
    """
    jobs: Jobs = {}
    for line in text.splitlines():
        # else it is news of a later version, or a stranger's job with a | in its name
        cells = line.split("|")
        if len(cells) != len(SACCT):
            continue
        facts: JobFacts = dict(zip(SACCT, cells, strict=True))
        name, _, step = facts.pop("job").partition(".")
        if not step:
            jobs[name] = _of_record(facts, jobs.get(name))
        elif name in jobs:
            _add_step(jobs[name], facts)
    return jobs


def _of_record(facts: JobFacts, before: JobFacts | None) -> JobFacts:
    """The facts of a job from its line of sacct's; `before`: of its incarnation before this one."""
    said = facts["state"]
    nodes = "" if facts["nodes"].startswith("None") else facts["nodes"]
    reason = facts["reason"]
    if " by " in said:  # cancelled by 0: by a person, not by Slurm
        reason = said.lower()
    # by nobody, before it ran; at times the record says "None" for the reason
    if said == "CANCELLED" and not nodes:
        reason = "DependencyNeverSatisfied"

    earlier = [*before["earlier"], before["state"]] if before else []
    return facts | {
        "state": states.first_word(said),
        "memory_mb": None,
        "reason": reason if reason not in ("", "None") else None,
        "nodes": nodes,
        "restarts": len(earlier),
        "earlier": earlier,
    }


def _add_step(job: JobFacts, step: JobFacts) -> None:
    """What sacct says of a step, into the facts of its job."""
    job["memory_mb"] = max(job["memory_mb"] or 0, megabytes(step["memory_mb"])) or None
    # else the job went on without that step
    if states.first_word(step["state"]) == "OUT_OF_MEMORY" and job["state"] == "FAILED":
        job["state"] = "OUT_OF_MEMORY"


def megabytes(text: str) -> float:
    """`1234K`, `5.5G` -> MB; an empty field -> 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * MEGABYTES[match[2]] if match else 0.0


def parse_scontrol(text: str) -> JobFacts:
    """Facts from `scontrol show job`."""
    shown = {}
    for key, value in re.findall(r"(\w+)=(\S*)", text):
        shown[key] = value if value not in ("(null)", "None") else ""
    facts: JobFacts = {name: shown.get(key, "") for name, key in SCONTROL.items()}
    return facts | {
        "state": states.first_word(facts["state"]),
        "memory_mb": None,
        "reason": facts["reason"] or None,
        "restarts": int(facts["restarts"] or 0),
        "earlier": [],
    }


def sbatch_id(job: str) -> str:
    """The id that sbatch gave: that of the array, for an element."""
    return job.partition("_")[0]


def ask(folder: RunDir) -> tuple[list[str], Jobs]:
    """(who answered, job or array element -> facts) of a run's Slurm jobs, by few calls.

    A controller that was killed may forget a job and give its id to a stranger's: names are
    compared.
    """
    names: dict[str, str] = {}
    for stage, ids in submitted(folder).items():
        names |= dict.fromkeys(ids, job_name(folder.path.name, stage))
    if not names:
        return [], {}
    sacct = asked("sacct", "-D", "-P", "-n", "-j", ",".join(names), "-o", ",".join(SACCT.values()))
    queue = asked("squeue", "-h", "-r", "--me", "-o", "%i|%T|%r|%N|%M|%l|%j")
    sources = [answer.args[0] for answer in (sacct, queue) if answer.returncode == 0]

    # what the controller knows of live jobs is newer than the records
    jobs = parse_sacct(sacct.stdout)
    settled = set()
    for job, facts in jobs.items():
        if is_over(facts) and facts["name"] != UNNAMED:
            settled.add(sbatch_id(job))
    for job, facts in parse_squeue(queue.stdout).items():
        if sbatch_id(job) in names:
            settled.add(sbatch_id(job))
            jobs[job] = _unqueued() | jobs.get(job, {}) | facts

    # of jobs that neither tells enough of, it is asked one by one
    missing = [job for job in names if job not in settled and "squeue" in sources]
    for job in missing:
        shown = asked("scontrol", "-o", "show", "job", job).stdout
        if not shown:
            _forget(jobs, job)
        for line in shown.splitlines():
            array = re.search(r"ArrayJobId=(\d+) ArrayTaskId=(\S+)", line)
            jobs[f"{array[1]}_[{array[2]}]" if array else job] = parse_scontrol(line)
            sources.append("scontrol")

    # without strangers
    ours = {}
    for job, facts in jobs.items():
        if facts["name"] in (names[sbatch_id(job)], UNNAMED):
            ours[job] = facts
    return sources, _by_element(ours, "squeue" in sources)


def parse_squeue(text: str) -> Jobs:
    """Job id -> facts, from squeue's lines of `%i` and of SQUEUE."""
    jobs: Jobs = {}
    for line in text.splitlines():
        job, *cells = line.split("|", 6)
        # else the name of a stranger's job goes over several lines
        if len(cells) == len(SQUEUE):
            facts: JobFacts = dict(zip(SQUEUE, cells, strict=True))
            reason = facts["reason"] if facts["reason"] not in ("None", "") else None
            jobs[job] = facts | {"reason": reason, "queued": True}
    return jobs


def _unqueued() -> JobFacts:
    """The facts that squeue does not tell, of a job without a record."""
    return {"exit_code": "", "memory_mb": None, "requested": "", "restarts": 0, "earlier": []}


def _forget(jobs: Jobs, lost: str) -> None:
    """Leave out what lives of a job that the controller has lost.

    Its records stay as they were, for ever.
    """
    for job in list(jobs):
        if sbatch_id(job) == lost and is_live(jobs[job]):
            del jobs[job]


def _by_element(jobs: Jobs, queue_answers: bool) -> Jobs:
    """The jobs with each element of an array by itself, in place of the array.

    Elements that are pending, or were cancelled before they ran, come as one: `20_[0-4]`.
    """
    apart = {sbatch_id(job) for job in jobs if "_" in job and "[" not in job}
    single = {job: facts for job, facts in jobs.items() if "[" not in job}
    for job, facts in jobs.items():
        # squeue shows each of those that live
        known_apart = queue_answers and sbatch_id(job) in apart and not is_over(facts)
        if "[" in job and not known_apart:
            single = dict.fromkeys(elements(job), facts) | single
    arrays = {sbatch_id(job) for job in single if "_" in job}
    return {job: facts for job, facts in single.items() if job not in arrays}


def elements(name: str) -> list[str]:
    """The elements that Slurm shows as one: `20_[0,2-4%2]` -> 20_0, 20_2, 20_3, 20_4."""
    array, _, part = name.partition("_[")
    names = []
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.partition("%")[0]):
        places = range(int(first), int(last or first) + 1, int(step or 1))
        names += [f"{array}_{place}" for place in places]
    return names


def submitted(folder: RunDir) -> dict[str, list[str]]:
    """Stage -> ids of the Slurm jobs of its newest submission.

    These are a job and the copies submitted in its place. Jobs that were cancelled before they were
    released, because one of their chain was refused, never counted.
    """
    lines = rundir.read_ledger(folder.path)
    withdrawn: set[str] = set()
    for line in lines:
        if line["state"] == "withdrawn":
            withdrawn.update(line["withdrawn"])

    # a copy stands beside what it was made of; anything else begins anew
    ids: dict[str, list[str]] = {}
    for line in lines:
        if line["state"] != "submitted" or line["job"] in withdrawn:
            continue
        stage = line["stage"]
        before = ids.get(stage, []) if "instead_of" in line else []
        ids[stage] = [*before, line["job"]]
    return ids


def is_over(facts: JobFacts) -> bool:
    """Whether Slurm will do nothing more for a job."""
    return states.kind(facts["state"], facts.get("queued", False)) in ("well", "badly")


def is_live(facts: JobFacts) -> bool:
    """Whether a job runs, or waits for what can come."""
    alive = states.kind(facts["state"], facts.get("queued", False)) == "alive"
    return alive and facts.get("reason") != "DependencyNeverSatisfied"


def waiting(facts: JobFacts, job: str) -> str | None:
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
    """Ids of the run's jobs that run or will -> why they wait.

    That is Slurm's word for the reason, or a state that is one.
    """
    return reasons(ask(folder)[1])


def reasons(jobs: Jobs) -> dict[str, str]:
    """The jobs that live, of those whose facts are given, and why they wait."""
    why = {}
    for name, facts in jobs.items():
        if is_live(facts):
            held = states.is_held(facts["state"])
            why[name] = facts["state"] if held else facts["reason"] or ""
    return why


def standing(jobs: dict[str, str]) -> str:
    """The jobs of `live` in a phrase: their ids, and what to do about those that are held."""
    ids = f"Slurm jobs {', '.join(jobs)}"
    held = [name for name, reason in jobs.items() if states.is_held(reason)]
    if not held:
        return ids
    subject = ", ".join(held) + (" is held" if len(held) == 1 else " are held")
    return (
        f"{ids}; {subject}: scontrol release {','.join(held)} lets them run, "
        f"scancel {' '.join(held)} ends them"
    )


def read(folder: RunDir) -> dict[str, Any]:
    """All that jobs/status.py shows of a run, as plain containers.

    It is one look, which `table` and those who wait share. `going`: a job runs or will, or nobody
    can tell; `healthy`: none has failed, was refused or can never run; `well`: all have ended, and
    well, as Slurm or the run's own ledger says.
    """
    # Slurm's jobs, or what this machine did
    ledger = rundir.read_ledger(folder.path)
    stages = submitted(folder)
    sources, jobs = ask(folder)
    lost = bool(stages) and "squeue" not in sources
    if stages:
        rows = _rows_of_jobs(folder, stages, ledger, jobs, lost)
    else:
        rows = _rows_of_stages(folder, ledger)
    if not all(row["job"] in jobs for row in rows) or not stages:
        sources.append("ledger")

    # a refusal, if nothing was begun since, here or there
    last = ledger[-1] if ledger else {"state": ""}
    if last["state"] == "refused":
        refused = {"stage": last["stage"], "job": "", "state": "REFUSED", "why": last["error"]}
        rows.append({**refused, **progress(folder, last["stage"], "")})
    if not rows:
        command = f"{folder.path}/command.txt"
        why = f"nothing of this run was ever begun; its command stands in {command}"
        never = {"stage": "", "job": "", "state": "NEVER BEGUN", "why": why}
        rows.append({**never, **progress(folder, "", "")})

    # what that means: for each, and for the run
    for row in rows:
        row["live"] = is_live(row)
        row["healthy"] = row["live"] or row["state"] in (*ENDED_WELL, "UNKNOWN", "INTERRUPTED")
        row["log_tail"] = None if row["healthy"] else rundir.tail(log(folder, row["job"]))
        row.setdefault("why", None if row["healthy"] else why_over(row))
    going = any(row["live"] or (lost and row["state"] == "UNKNOWN") for row in rows)
    return {
        "run": str(folder.path),
        "source": ", ".join(dict.fromkeys(sources)),
        "jobs": rows,
        "healthy": all(row["healthy"] for row in rows),
        "well": not going and all(row["state"] in ENDED_WELL for row in rows),
        "going": going,
    }


def _rows_of_jobs(
    folder: RunDir,
    stages: dict[str, list[str]],
    ledger: list[Line],
    jobs: Jobs,
    lost: bool,
) -> list[JobFacts]:
    """A row for each Slurm job or element that was submitted for a stage.

    `ledger`: the lines of jobs.jsonl; `jobs`: what `ask` found; `lost`: squeue does not answer.
    """
    # what the jobs wrote themselves, those of finalists and repeats into folders of their own
    lines = list(ledger)
    for below in ("finalists", "repeats"):
        for path in folder.path.glob(f"{below}/*/jobs.jsonl"):
            lines += rundir.read_ledger(path.parent)
    written = {
        line["job"]: line["state"].upper() for line in lines if line["state"] != "submitted"
    }
    replaced = {line["instead_of"] for line in lines if "instead_of" in line}

    rows = []
    for stage, ids in stages.items():
        names: set[str] = set()
        for job in ids:
            names.update([name for name in (*jobs, *written) if sbatch_id(name) == job] or [job])
        for name in sorted(names - replaced, key=_numbers):
            facts = jobs.get(name)
            if facts is None:  # Slurm does not answer, or has forgotten it
                state = written.get(name, "UNKNOWN")
                if not lost:
                    state = _without_slurm(folder, stage, name, state)
                facts = {"state": state, "reason": None}
            more = {"waits": waiting(facts, name), **progress(folder, stage, name)}
            rows.append({"stage": stage, "job": name, **facts, **more})
    return rows


def _numbers(job: str) -> list[int]:
    """The numbers in a job's id, by which jobs are sorted."""
    return [int(part) for part in re.findall(r"\d+", job)]


def _without_slurm(folder: RunDir, stage: str, job: str, written: str) -> str:
    """The state of a job that Slurm has forgotten; `written`: what it wrote last."""
    if written not in ("RUNNING", "UNKNOWN"):
        return written
    return "FINISHED" if is_done(folder, stage, job) else "UNKNOWN"


def _rows_of_stages(folder: RunDir, ledger: list[Line]) -> list[JobFacts]:
    """A row for each stage that this machine has worked on."""
    newest = {line["stage"]: line for line in ledger if line["state"] not in NO_STATES}
    rows = []
    for stage, line in newest.items():
        facts = {"stage": stage, "job": line["job"], "state": line["state"].upper()}
        rows.append({**facts, **progress(folder, stage, "")})
    return rows


def is_done(folder: RunDir, stage: str, job: str) -> bool:
    """Whether the last stage that a Slurm job had to do was finished after it was submitted."""
    last = {
        "prepare": "judge" if folder.stage("judge").exists() else "pack",
        "evaluate": "finalists",
        "trials": "sweep",
        "faces": "interpret",
        "walks": "interpret",
    }
    place = stage if folder.stage(stage).exists() else last.get(stage, stage)
    submitted_at: float | None = None
    for line in rundir.read_ledger(folder.path):
        if line["state"] == "submitted" and line["job"] == sbatch_id(job):
            submitted_at = line["time"]
        elif submitted_at and (line["stage"], line["state"]) == (place, "finished"):
            return (folder.stage(place) / "DONE.json").exists()
    if submitted_at is None:
        return False

    # a kill may have come before that line; the clocks are two hosts'
    return changed(folder.stage(place) / "DONE.json") > submitted_at - ROUNDED_S


def why_over(facts: JobFacts) -> str:
    """Why a job that is not well is not, in words."""
    if facts.get("reason") == "DependencyNeverSatisfied":
        return in_words("DependencyNeverSatisfied")
    return states.ending(facts["state"], facts.get("exit_code") or "")


def failure_of(facts: JobFacts, left: str | None) -> Failure:
    """Why a job ended before its time; `left`: the end of its log."""
    return failures.of_job(
        facts["state"],
        states.shell_code(facts.get("exit_code") or ""),
        facts.get("reason"),
        facts.get("memory_mb"),
        megabytes(facts.get("requested") or ""),
        left,
    )


def progress(folder: RunDir, stage: str, job: str) -> dict[str, Any]:
    """What the run's own files tell: clock, speed, best score, and two ages in seconds.

    The ages are those of the heartbeat and of the newest checkpoint.
    """
    # where the work lies
    number = job.partition("_")[2] or 0
    finalists = folder.path / "finalists"
    finalist = next(finalists.glob(f"{number}-*"), finalists)
    places = {"prepare": folder.path / "judge", "finalists": finalist / "train"}
    places["trials"] = folder.path / "sweep"
    place = places.get(stage, folder.path / stage)

    # trainings: of the stage itself, or of its trials
    checkpoints: list[Path] = []
    logs: list[Path] = []
    for training in (place, *place.glob("trials/*/train")):
        checkpoints += training.glob("checkpoints/*.pt")
        logs += training.glob("metrics-*.jsonl")
    newest = max(logs, key=changed, default=None)
    lines = rundir.read_metrics(newest) if newest else []
    line = lines[-1] if lines else {}
    tried = trials.folders(place)

    now = time.time()
    beat = changed(folder.path / "private" / "jobs" / f"{job}.alive")
    saved = max(map(changed, checkpoints), default=0.0)
    return {
        "kimg": line.get("kimg"),
        "images_per_s": line.get("images_per_s"),
        "trials": len(tried) or None,
        "best": best(place, tried),
        "heartbeat_s": round(now - beat) if beat else None,
        "checkpoint_s": round(now - saved) if saved else None,
    }


def best(place: Path, tried: list[TrialFolder]) -> float | None:
    """The best score of a sweep so far, by what goal.json says is looked for."""
    match rundir.read_json(place / "goal.json"):
        case {"metric": str(metric), "better": ("lower" | "higher") as better}:
            wanted = Goal(metric, better)
        case _:
            return None
    values = []
    for folder in tried:
        scores = [rung.scores.get(wanted.metric) for rung in folder.rungs()]
        values += [score for score in scores if score is not None]
    return wanted.best(values) if values else None


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
    words = ends[-1].read_text().split() if ends else []
    task = words[1] if len(words) > 1 else "0"
    return folder.path / "private" / "jobs" / f"{job}_{task}_log.out"


def record_failures(folder: RunDir) -> None:
    """Write into the ledger what Slurm knows of jobs that ended without a word of their own.

    They were killed, ran out of memory …
    """
    lines = rundir.read_ledger(folder.path)
    recorded = {line["job"] for line in lines if line["state"] == "failed"}
    for row in read(folder)["jobs"]:
        job = row["job"]
        if not job or row["healthy"] or job in recorded:
            continue
        code = row.get("exit_code") or "?"
        why = f"{row['state']} (exit code {code}) of Slurm job {job}: it {row['why']}"
        if row["state"] == "CANCELLED" and str(row.get("reason")).startswith("Dependency"):
            why = f"Slurm job {job} never ran, because a job before it failed"
        path = log(folder, job)
        failure = dataclasses.asdict(failure_of(row, rundir.tail(path)))
        folder.record(row["stage"], "failed", job=job, error=why, log=str(path), failure=failure)


def table(found: dict[str, Any]) -> Any:
    """The facts of `read` as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{Path(found['run']).name} (from {found['source']})"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")

    # a row for each job, and a note for each that is not well
    notes = []
    for row in found["jobs"]:
        shown.add_row(*_cells(row))
        whose = f"{row['stage']} {row['job']}".strip()
        if row["why"] and row["job"]:
            notes.append(f"{whose}: it {row['why']}")
        elif row["why"]:
            notes.append(f"{whose}: {row['why']}".lstrip(": "))
    if notes:
        shown.caption = escape("\n".join(notes))
        shown.caption_justify = "left"
        shown.caption_style = "none"
    return shown


def _cells(row: JobFacts) -> list[Any]:
    """What stands in the COLUMNS of a job's row."""
    from rich.markup import escape

    # its state, and why it waits
    color = "yellow" if row["healthy"] else "red"
    if row["state"] in ENDED_WELL:
        color = "green"
    state = f"[{color}]{row['state']}[/]"
    if row.get("waits"):
        state += f": {escape(row['waits'])}"

    # what it was given and used
    times = f"{row['elapsed']} / {row['limit']}" if row.get("elapsed") else ""
    restarts = str(row.get("restarts", ""))
    causes = [earlier.lower().replace("_", " ") for earlier in row.get("earlier", [])]
    if causes:
        restarts += f" ({', '.join(dict.fromkeys(causes))})"
    memory = row.get("requested", "")
    if row.get("memory_mb"):
        memory = f"{row['memory_mb']:.0f}M / {memory}"
    cells = [row["stage"], row["job"], state, row.get("nodes", ""), times, restarts, memory]
    return [*cells, row.get("exit_code", ""), *_signs_of_life(row)]


def _signs_of_life(row: JobFacts) -> tuple[str, str]:
    """(how far a job is, when it was seen), as its own files tell."""
    forms = {
        "kimg": "{:g} kimg",
        "images_per_s": "{:.0f} images/s",
        "trials": "{} trials",
        "best": "best {:.4g}",
    }
    done = [form.format(row[name]) for name, form in forms.items() if row[name] is not None]
    ages = {"heartbeat_s": "heartbeat {}", "checkpoint_s": "checkpoint {}"}
    seen = []
    for name, form in ages.items():
        if row["live"] and row[name] is not None:
            seen.append(form.format(age(row[name])))
    return ", ".join(done), ", ".join(seen)


def age(seconds: float) -> str:
    """Seconds as `40 s ago`, `12 min ago`, `3.5 h ago`."""
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.1f} h ago"
