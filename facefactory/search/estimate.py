"""What a search takes, before anything of it starts: trials, images, hours, slots."""

from dataclasses import asdict, dataclass
from typing import Any

from facefactory import registry
from facefactory.search.schedulers import Scheduler
from facefactory.search.study import Sweep


@dataclass(frozen=True)
class Estimate:
    """Of the trials of a search alone, or of them and what follows them."""

    trials: int
    slots: int  # trials at once
    kimg_least: float  # if every trial is stopped as early as the scheduler may
    kimg_usual: float  # if as many go on at each rung as the scheduler means
    kimg_most: float  # if none is stopped
    kimg_finalists: float
    seconds_per_kimg: float | None  # mean over models, on this machine; None: not timed

    @property
    def hours(self) -> float | None:
        """On this machine, trials side by side, usually; without judge, scores and the report."""
        if self.seconds_per_kimg is None:
            return None
        kimg = self.kimg_usual + self.kimg_finalists
        return kimg * self.seconds_per_kimg / self.slots / 3600

    def entry(self) -> dict[str, Any]:
        """As it is written down."""
        return {**asdict(self), "hours": self.hours}

    def lines(self) -> list[str]:
        """As a person reads it."""
        found = [
            f"trials: {self.trials}, {self.slots} at once",
            f"images: {self.kimg_usual:,.4g} thousand in trials (at least {self.kimg_least:,.4g}, at most {self.kimg_most:,.4g}), "
            f"{self.kimg_finalists:,.4g} thousand in finalists",
        ]
        if self.hours is not None:
            found.append(
                f"hours: {self.hours:.2g} on this machine, at {self.seconds_per_kimg:.3g} s for a thousand images (timed just now, mean over models); "
                "judge, scores and report come on top"
            )
        return found


def estimate(options: Sweep, trials: int, total_kimg: float, seconds: float | None) -> Estimate:
    """From the rungs and what the scheduler means to do at them; `total_kimg`: of a finalist."""
    rungs = options.rungs()
    scheduler: Scheduler = registry.build(
        "search.schedulers", {"name": options.resolved().scheduler}
    )
    shares = scheduler.shares(rungs, options.reduction)
    steps = [high - low for low, high in zip([0.0, *rungs], rungs, strict=False)]
    usual = sum(share * step for share, step in zip(shares, steps, strict=True))
    stops = min(shares) < 1
    return Estimate(
        trials=trials,
        slots=min(options.parallel, trials),
        kimg_least=trials * (rungs[0] if stops else rungs[-1]),
        kimg_usual=trials * usual,
        kimg_most=trials * rungs[-1],
        kimg_finalists=min(options.finalists, trials) * max(0.0, total_kimg - rungs[-1]),
        seconds_per_kimg=seconds,
    )
