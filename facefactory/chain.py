"""The chain as processes: which Slurm jobs its stages become, what such a job's process does, and how people watch them."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from facefactory import Failed, UserError, pipeline, rundir, runner, say, stages, studies, surroundings
from facefactory.cluster import check, launch, local, status
from facefactory.cluster.local import INTERRUPTED
from facefactory.pipeline import FINALIST, Run
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted

WAIT_S = 10.0  # between two looks at the queue
RESUMES = "each trial goes on from its last checkpoint"
LIVES = 3  # a sweep whose Ray is lost so often in a row, with nothing trained in between, has failed


def guarded(work: Callable[[], None]) -> int:
    """Run `work`; a person's mistake is one line and exit code 2, a stop 75, a lost owner 3, what cannot be done 1."""
    rundir.settle_umask()
    try:
        work()
    except UserError as error:
        say(f"error: {error}")
        return 2
    except Interrupted as error:
        say(f"interrupted; {str(error) or 'what was done is saved'}. The same command goes on with it.")
        return INTERRUPTED
    except rundir.OwnerLost as error:
        say(f"stopped: {error}")
        return 3
    except KeyboardInterrupt:
        return 130
    except (Failed, FloatingPointError, OSError) as error:
        if isinstance(error, OSError) and error.errno in rundir.FULL:
            say(f"error: {rundir.no_room(error)}")
            return 2
        say(f"failed: {error}")
        return 1
    return 0


def tell_report(path: Path) -> None:
    """The last line of a job: where to look."""
    if (path / "report.html").exists():
        print(f"report: {path / 'report.html'}")


def slurm_jobs(run: Run, folder: RunDir, todo: list[str], options: Sequence[str] = ()) -> list[launch.Job]:
    """The Slurm jobs for the stages that are to run: as few waits in the queue as their sizes allow.

    `options`: `key=value` of a job on a finished run, whose config.yaml stays as it was.
    """
    jobs: list[launch.Job] = []
    places = [str(place) for place in range(run.sweep.finalists)]

    def add(stage: str, kind: Literal["cpu", "gpu", "sweep"], mode: str, *elements: Sequence[str], **more: Any) -> None:
        commands = [[mode, str(folder.path), *rest] for rest in elements]
        jobs.append(launch.Job(stage, commands, kind, run.training.device != "cpu" and kind != "cpu", **more))

    if "pack" in todo and run.pack.tasks > 1 and not run.data.shards:
        add("pack", "cpu", "pack", *([f"{part}/{run.pack.tasks}"] for part in range(run.pack.tasks)))
    if first := [name for name in todo if name in ("pack", "judge")]:
        add("prepare", "gpu" if "judge" in first else "cpu", "stages", [*first, *options])
    if "train" in todo:
        add("train", "gpu", "stages", ["train", *options], processes=run.training.ranks)
    if "sweep" in todo:
        add("sweep", "sweep", "sweep", [], processes=run.sweep.parallel)
    if "finalists" in todo:
        add("finalists", "gpu", "finalist", *([place, *FINALIST[:3]] for place in places), processes=run.training.ranks)
        add("evaluate", "gpu", "finalist", *([place, *FINALIST] for place in places), after="each")
    if scored := [name for name in todo if name in ("evaluate", "interpret", "generate")]:
        add(scored[0], "gpu", "stages", [*scored, *options])
    if "report" in todo:
        add("report", "cpu", "gather", [name for name in ("finalists", "report") if name in todo], after="any")
    return jobs


def show(found: dict[str, Any]) -> None:
    """The table of a run's jobs, and the end of the logs of those that failed."""
    Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(status.table(found))
    for row in found["jobs"]:
        if row["log_tail"]:
            say(f"-- end of the log of {row['stage']} ({row['job']}):\n{row['log_tail']}")


def wait(folder: RunDir) -> None:
    """Return when all jobs of a run have ended; Failed: one of them did."""
    while (found := status.read(folder))["going"]:
        time.sleep(WAIT_S)
    show(found)
    tell_report(folder.path)
    if not found["well"]:
        raise Failed("a job failed, or nobody knows how it ended; the table above says which.")


def process(arguments: list[str]) -> int:
    """One process of a chain, in a run folder that exists; its exit code.

    `pack FOLDER K/N` packs every N-th shard from the K-th; `stages FOLDER NAME…` and `finalist FOLDER PLACE NAME…` run stages
    (as another rank than 0: their training only), `gather` does so where the finalists have run already, `sweep FOLDER` starts
    Ray over the nodes of a Slurm job around the stage, `rank FOLDER` is one rank in its launcher's name.
    """
    surroundings.settle(started_by_us=True)
    local.die_with_parent()
    runner.stop.listen()
    return guarded(lambda: _work(*arguments))


def _work(mode: str, path: str, *arguments: str) -> None:
    folder, first = RunDir(Path(path)), os.environ.get("RANK", "0") == "0"
    if mode == "probe":
        return check.probe(folder.path)
    rundir.check_modes(folder.path)
    if mode == "sweep":
        return sweep_on_slurm(folder)
    run = pipeline.load_run(folder.path, [one for one in arguments if "=" in one])
    surroundings.set_threads(run.training.threads)
    names = [one for one in arguments if "=" not in one]
    if mode == "pack":
        part, _, parts = names[0].partition("/")
        return stages.pack_part(run, folder, (int(part), int(parts)))
    if mode == "finalist":
        place, places = int(names.pop(0)), studies.places(run, folder)
        if place >= len(places):
            return say(f"finalists: the sweep has no trial in place {place}")
        _, run, home = places[place]
        folder = studies.open_finalist(folder, *places[place]) if first else RunDir(home)
    if mode == "rank" or not first:
        if mode == "rank" or not runner.is_complete(run, folder, "train"):
            stages.train_rank(run, folder, folder.path.name)
        return
    folder.claim()
    if mode != "gather":
        return runner.execute(run, folder, names, studies.WORK)
    status.record_failures(folder)
    with contextlib.suppress(Failed):  # that all finalists failed is in the report
        work = {**studies.WORK, "finalists": studies.gather}
        runner.execute(run, folder, names if folder.done("sweep") else ["report"], work)


def sweep_on_slurm(folder: RunDir) -> None:
    """The sweep stage as the driver of a Ray cluster over this job's nodes."""
    from facefactory.cluster import ray_on_slurm

    run = pipeline.load_run(folder.path)
    nodes, began = int(os.environ["SLURM_JOB_NUM_NODES"]), time.time()
    each = -(-run.sweep.parallel // nodes)
    gpus = each if "SLURM_JOB_GPUS" in os.environ else 0
    driver = ["facefactory", "stages", str(folder.path), "sweep"]
    code = ray_on_slurm.run(driver, folder.path, each * run.training.threads, gpus, runner.stop)
    trained = any(path.stat().st_mtime > began for path in folder.path.glob("sweep/trials/*/train/checkpoints/*.pt"))
    if runner.stop():
        raise Interrupted(RESUMES)
    if code < 0:
        say(f"the process that led the sweep was killed by signal {-code}")
    if code == INTERRUPTED or code < 0:
        lives = folder.path / "private" / "sweep-lives.json"
        left = LIVES if trained else (rundir.read_json(lives) or LIVES) - 1  # none left: a new submission has all again
        rundir.write_json(lives, left)
        if left:
            raise Interrupted(RESUMES)
    if code:
        raise Failed(f"the sweep ended with exit code {code}; its message stands above.")
    folder.claim()
    runner.begin(run, folder, "finalists")  # the array's elements come at the same time, into one folder
