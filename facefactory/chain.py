"""The chain as Slurm jobs: what the stages that are still to do ask for, put together.

And how people watch them.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from facefactory import Failed, say
from facefactory.cluster import status
from facefactory.cluster.launch import OPENS, Job
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Stage

WAIT_S = 10.0  # between two looks at the queue


def slurm_jobs(
    run: Run, folder: RunDir, todo: Sequence[Stage], options: Sequence[str] = ()
) -> list[Job]:
    """The Slurm jobs for the stages that are to run: as few waits in the queue as their sizes allow.

    `options`: `key=value` of a job on a finished run, whose config.yaml stays as it was.
    """
    jobs: list[Job] = []
    for stage in todo:
        for job in stage.jobs(run, folder, options):
            if jobs and job.share is not None and jobs[-1].share == job.share:
                job = _together(jobs.pop(), job)
            # what waits for all others however they end waits with its like
            for other in [other for other in jobs if other.after == job.after == "any"]:
                if other.share is not None and other.share == job.share:
                    jobs.remove(other)
                    job = _together(other, job)
            if jobs and job.opens is not None:
                jobs[-1] = _opening(jobs[-1], job.opens)
            jobs.append(job)
    return jobs


def _together(first: Job, second: Job) -> Job:
    """Two jobs of one process each as one, which does what both were to do."""
    mode, folder, *rest = first.commands[0]
    further = [argument for argument in second.commands[0][2:] if argument not in rest]
    return dataclasses.replace(
        first,
        commands=[[mode, folder, *rest, *further]],
        kind="gpu" if "gpu" in (first.kind, second.kind) else first.kind,
        gpus=first.gpus or second.gpus,
    )


def _opening(job: Job, stage: str) -> Job:
    """A job that opens the folder of the stage after it when it has done its own work."""
    commands = [[*command, f"{OPENS}{stage}"] for command in job.commands]
    return dataclasses.replace(job, commands=commands)


def tell_report(path: Path) -> None:
    """The last line of a job: where to look."""
    if (path / "report.html").exists():
        print(f"report: {path / 'report.html'}")


def show(found: dict[str, Any]) -> None:
    """The table of a run's jobs, and the end of the logs of those that failed."""
    width = None if sys.stderr.isatty() else 160
    Console(stderr=True, width=width).print(status.table(found))
    for row in found["jobs"]:
        if row["log_tail"]:
            say(f"-- end of the log of {row['stage']} ({row['job']}):\n{row['log_tail']}")


def wait(folder: RunDir) -> None:
    """Return when all jobs of a run have ended; Failed: one of them did."""
    now = status.read(folder)
    while now["going"]:
        time.sleep(WAIT_S)
        now = status.read(folder)
    show(now)
    tell_report(folder.path)
    if not now["well"]:
        raise Failed("a job failed, or nobody knows how it ended; the table above says which.")
