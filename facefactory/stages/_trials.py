"""Run folders that a stage makes for trainings of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefactory import UserError, config, failures, rundir, say, search
from facefactory.cluster import local
from facefactory.failures import Failure
from facefactory.run import Run, goal_of, repeat_command
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.stages import of
from facefactory.trials import Trial


@dataclass(frozen=True)
class Place:
    """A training of a trial's config: which trial, the config and the run folder."""

    trial: str
    run: Run
    path: Path


def open_training(path: Path, run: Run) -> RunDir:
    """The run folder of a trial or a finalist, owned by this process and ready to be trained."""
    made = rundir.prepare(
        path, config.dump(run), config.flat(run), repeat_command(path, run), True
    )
    made.claim()
    made.begin("train", rundir.digest(of("train").config(run, resumes=False)))
    return made


def best_trials(run: Run, folder: RunDir) -> list[Trial]:
    """The trials of a finished search that go on, the best first; UserError: its results are not there."""
    searched = folder.stage("sweep")
    found = rundir.read_results(searched)
    if not found:
        raise UserError(
            f"{searched / 'results.json'} is missing or damaged; "
            "give the command of the sweep again: it is written anew."
        )
    tried = [Trial.read(entry) for entry in found["trials"]]
    return search.best(tried, run.sweep.finalists, goal_of(run))


def run_here(name: str, paths: Sequence[Path], names: Sequence[str], run: Run) -> None:
    """Some stages of several run folders, as processes of this machine.

    Interrupted: a stop was asked for, or one of them was.
    """
    logs = [path / "log.txt" for path in paths]
    budget = f"{run.training.total_kimg:g} kimg"
    where = paths[0].parent if paths else ""
    say(f"{name}: {len(paths)} runs to {budget}; logs: {where}/*/log.txt")
    commands = [["facefactory", "stages", str(path), *names] for path in paths]
    own = [{"FACEFACTORY_LOG": str(log)} for log in logs]
    codes = local.side_by_side(commands, run.sweep.parallel, logs, own, say)
    if stop() or local.INTERRUPTED in codes:
        stop.asked = True
        raise Interrupted


@dataclass(frozen=True)
class End:
    """How a training failed, by its own ledger and log."""

    error: str
    log_tail: str | None
    failure: Failure

    def fields(self) -> dict[str, Any]:
        """As records of trainings have them."""
        return {"state": "failed", **vars(self)}


def failed(path: Path) -> End:
    """What a run folder says of its end."""
    lines = rundir.read_ledger(path)
    last = ([line for line in lines if line["state"] == "failed"] or [{}])[-1]
    tail = rundir.tail(Path(last.get("log") or path / "log.txt"))
    error = last.get("error") or (tail or "it left no word and no log").splitlines()[-1]
    why = Failure.read(last.get("failure")) or failures.of_words(tail or error)
    return End(error, tail, why)
