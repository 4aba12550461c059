"""What is searched, where, and on what."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facefactory import UserError
from facefactory.config import key
from facefactory.results import Goal
from facefactory.search.space import Space
from facefactory.trials import Params, Rung, Trial, TrialFolder

Report = Callable[[Rung], None]
TrialFunction = Callable[[TrialFolder, Params, Report], None]


@dataclass(frozen=True)
class Sweep:
    """Which architectures are tried, and for how long."""

    space: str = key(
        "dcgan", "search space: a file of jobs/spaces/ or the path of your own", resumes=True
    )
    trials: int = key(8, "architectures tried", low=1, resumes=True)
    parallel: int = key(2, "trials (and finalists) that run at once", low=1, identity=False)
    gpus_per_trial: float = key(
        1.0, "GPUs of a trial; 0.5: two trials share one", low=0.01, identity=False
    )
    sampler: str = key(
        "tpe",
        "how points are proposed: a file of search/samplers; grid needs choices only",
        resumes=True,
    )
    scheduler: str = key(
        "asha",
        "which trials go on at a rung: a file of search/schedulers; none: all do",
        resumes=True,
    )
    early_stopping: bool | None = key(
        None, "an older word: true is scheduler=asha, false is scheduler=none", identity=False
    )
    min_kimg: float = key(4.0, "first rung, thousands of images", low=0.001)
    max_kimg: float = key(12.0, "last rung: the budget of a trial, thousands of images", low=0.001)
    reduction: int = key(
        3, "factor between rungs, and share of trials that goes on (1 of so many)", low=2
    )
    goal: str | None = key(
        None, "score by which trials are compared; default: that of evaluation.protocol"
    )
    finalists: int = key(2, "best trials that go on to training.total_kimg", low=1, resumes=True)
    engine: str = key(
        "ray",
        "ray: all trials in one allocation; array: each a job of its own (here: a process)",
        identity=False,
    )
    chunk: int = key(
        1, "engine=array: trials that a Slurm job does one after the other", low=1, identity=False
    )
    warm_start: str | None = key(
        None,
        "an earlier sweep (name or folder) whose trials the sampler knows from the start",
        resumes=True,
    )
    retry: Literal["failed", "oom", "timeout"] | None = key(
        None,
        "failed trials that are tried again, three times at most: all, or those of a class, with more memory or time",
        identity=False,
    )
    confirm_seeds: int = key(
        0,
        "fresh seeds from which the finalists' configs are trained again to training.total_kimg; 0: none",
        low=0,
        resumes=True,
    )

    def resolved(self) -> "Sweep":
        """The same without older words."""
        if self.early_stopping is None:
            return self
        scheduler = "asha" if self.early_stopping else "none"
        return dataclasses.replace(self, scheduler=scheduler, early_stopping=None)

    def rungs(self) -> list[float]:
        """Budgets at which trials are scored and compared [kimg]; UserError: the last rung lies before the first."""
        if self.max_kimg < self.min_kimg:
            raise UserError(
                f"sweep.max_kimg={self.max_kimg:g} is below sweep.min_kimg={self.min_kimg:g}; give at least as much."
            )
        found = [self.min_kimg]
        while found[-1] * self.reduction < self.max_kimg * (1 - 1e-9):  # 0.7 * 3 < 2.1 in floats
            found.append(found[-1] * self.reduction)
        return sorted({*found, self.max_kimg})


class Stopped(Exception):
    """The scheduler lets a trial go no further."""


@dataclass(frozen=True)
class Refusal:
    """Why a point is not tried: it costs more than its space allows."""

    costs: dict[str, float]  # as they were estimated, by their names
    words: str


@dataclass(frozen=True)
class Study:
    """What is searched, where, and on what: `threads` and `gpus` of one trial, `ray` the address of a cluster of its own.

    `needs_gpus`: without a GPU no trial may run.
    """

    folder: Path
    space: Space
    options: Sweep
    goal: Goal
    seed: int
    trial: TrialFunction
    threads: int
    gpus: float
    needs_gpus: bool
    should_stop: Callable[[], bool]
    refuse: Callable[[Params], Refusal | None]  # whether a point costs too much
    ray: str | None
    # starts so many processes that take trials, where an engine asks for them; their exit codes
    workers: Callable[[int], list[int]] = lambda count: []
    history: tuple[Trial, ...] = ()  # trials of an earlier search, which the sampler knows
