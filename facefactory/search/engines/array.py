"""Each trial by a worker process that shares nothing with the others but the study's folder: side by side here, jobs of their own on Slurm.

A worker takes a trial that nobody holds, or draws the next point, under a lock on the folder; when it has trained that,
it takes the next. What is known of the others' scores is read from their folders, also where a scheduler decides.

The k-th point is drawn with a seed of the run's and k, by what the trials before it have scored until then: random and
grid searches of one seed try the same points, in any order of workers; what TPE proposes depends on who ended when.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import Failed, registry, rundir, say, search
from facefactory.search.engines import Engine
from facefactory.search.schedulers import Scheduler
from facefactory.search.study import Stopped, Study
from facefactory.trials import OVER, Rung, Trial, TrialFolder, folder_of

if TYPE_CHECKING:
    from facefactory.search.proposals import Proposal, Proposals

STALE_S = 300  # a lock that was not released for so long was left by a process that was killed
HOLDER = "holder.json"


@dataclass(frozen=True)
class Holder:
    """The worker that has a trial: an element of an array on Slurm, or a process of this machine."""

    job: str | None  # `12_3`; None: outside of a chain's jobs
    host: str
    pid: int
    started: str | None  # with the pid it names a process for good

    def leaves(self, other: Holder) -> bool:
        """Whether it has let go of its trial, as far as another worker may know.

        Jobs of an earlier array have: a command submits one only when no job of the run is left. An
        element comes back by its own name.
        """
        if self.job is not None and other.job is not None:
            theirs = self.job.partition("_")[0]
            return self.job == other.job or theirs != other.job.partition("_")[0]
        if self.job is not None or self.host != other.host or self.pid == other.pid:
            return True
        return rundir.started(self.pid) != self.started


class Component(Engine):
    """Workers that take trials until none is left."""

    own_jobs = True

    def search(self, study: Study, proposals: Proposals, wanted: int) -> None:
        """Run workers on this machine until all trials are over; Failed: they end without having done anything."""
        while not study.should_stop():
            before = search.results(study.folder, study.space)
            left = open_trials(study, before)
            if not left:
                return
            codes = study.workers(min(left, study.options.parallel))

            # a trial whose worker was lost is the caller's to count
            after = search.results(study.folder, study.space)
            if any(trial.state == "interrupted" for trial in after):
                return
            if before == after and not any(codes):
                return  # there are no more points
            if before == after and not study.should_stop():
                raise Failed("the workers of the search ended before they began a trial.")


def open_trials(study: Study, tried: list[Trial]) -> int:
    """How many trials are to be begun, or to go on."""
    ahead = search.points(study.options, study.space, study.seed)
    wanted = study.options.trials if ahead is None else len(ahead)
    counted = search.feasible(tried) if ahead is None else tried
    going = sum(trial.state not in OVER for trial in counted)
    return going + max(0, wanted - len(counted))


@contextlib.contextmanager
def locked(study: Path) -> Iterator[None]:
    """Alone with the trials of a study, also on file servers that keep no locks."""
    from optuna.storages.journal import JournalFileOpenLock

    study.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(study / "trials"), grace_period=STALE_S)
    lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # it was taken for one that was left behind
            lock.release()


def take(study: Study, own: Holder) -> Trial | None:
    """The next trial of a worker: one that nobody holds, or a new one; None: there is none."""
    with locked(study.folder):
        tried = search.results(study.folder, study.space)
        free = [
            trial for trial in tried if trial.state not in OVER and _is_free(study, trial, own)
        ]
        if free:
            _hold(study, free[0].name, own)
            return free[0]
        proposal = _next(study, tried)
        if proposal is None:
            return None
        proposal.folder.begin(proposal.number, proposal.params)
        _hold(study, proposal.folder.path.name, own)
    return proposal.folder.read()


def _is_free(study: Study, trial: Trial, own: Holder) -> bool:
    match rundir.read_json(folder_of(study.folder, trial.name).path / HOLDER):
        case {"job": str() | None, "host": str(), "pid": int(), "started": str() | None} as held:
            return Holder(**held).leaves(own)
    return True


def _hold(study: Study, name: str, own: Holder) -> None:
    rundir.write_json(folder_of(study.folder, name).path / HOLDER, asdict(own))


def _next(study: Study, tried: list[Trial]) -> Proposal | None:
    """A point that was not tried yet, by all that is known; None: there are enough."""
    from facefactory.search.proposals import Proposals

    ahead = search.points(study.options, study.space, study.seed)
    if ahead is None:
        if len(search.feasible(tried)) >= study.options.trials:
            return None
        numbers = [trial.number for trial in tried]
        proposals = Proposals(study, [trial.params for trial in tried], numbers, is_all=False)
    else:
        proposals = Proposals(study, ahead, [], is_all=True)

    # what was tried is told, the rest is new
    known = {trial.name: trial for trial in tried}
    while (proposal := proposals.next()) is not None:
        trial = known.get(proposal.folder.path.name)
        if trial is None:
            return proposal
        _tell(proposals, proposal, trial, study.goal.metric)
    return None


def _tell(proposals: Proposals, proposal: Proposal, trial: Trial, metric: str) -> None:
    """What a trial scored, and how it ended, if it has."""
    scores = [rung.scores.get(metric) for rung in trial.rungs]
    for number, score in enumerate(scores, 1):
        if score is not None:
            proposals.scored(proposal, number, score)
    if trial.state in OVER:
        last = scores[-1] if scores else None
        proposals.tell(proposal, last, trial.state == "failed")


def run(study: Study, trial: Trial) -> None:
    """Train a trial from rung to rung, as far as the scheduler lets it go, and write down how it ended."""
    folder = folder_of(study.folder, trial.name)
    metric = study.goal.metric

    def report(rung: Rung) -> None:
        folder.add(rung)
        score = rung.scores.get(metric)
        shown = "no score" if score is None else f"{score:.4g}"
        say(f"sweep: trial {trial.name} at {rung.kimg:g} kimg: {metric} {shown}")
        _go_on(study, folder)

    with contextlib.suppress(Stopped):
        if trial.rungs:  # a kill may have come before the decision
            _go_on(study, folder)
        study.trial(folder, trial.params, report)
    folder.close()


def _go_on(study: Study, folder: TrialFolder) -> None:
    """Raise Stopped unless the scheduler lets a trial go on after its last rung."""
    options = study.options.resolved()
    rungs = folder.rungs()
    if rungs and rungs[-1].kimg >= options.rungs()[-1]:
        return
    others: list[list[float]] = []
    for other in search.results(study.folder, study.space):
        if other.name != folder.path.name:
            others.append(_ranked(study, other.rungs))
    scheduler: Scheduler = registry.build("search.schedulers", {"name": options.scheduler})
    if not scheduler.goes_on(_ranked(study, rungs), others, options.reduction):
        raise Stopped


def _ranked(study: Study, rungs: tuple[Rung, ...]) -> list[float]:
    """Scores at the rungs, so that less is better; infinite where there is none."""
    sign = 1 if study.goal.better == "lower" else -1
    values: list[Any] = [rung.scores.get(study.goal.metric) for rung in rungs]
    return [math.inf if value is None else sign * value for value in values]
