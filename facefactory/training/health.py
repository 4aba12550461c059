"""How a training fares: words for its lines, and a watch that may end it or set it back.

Lines come when a clock on the wall says so, and what a training does must not depend on that. So
the watch looks at multiples of `training.health_kimg`, at means since the last of them; its sums
are part of every checkpoint. A training that is set back goes on with other draws and learning
rates halved; its last segment counts how often. It goes back to where the last healthy window
began: where that ended, a collapse may have begun already.
"""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefactory import Failed, checkpoint, say
from facefactory.ranks import World
from facefactory.training.log import Sums

FOLDER = "healthy"
IN_A_ROW = 3  # times that a training is set back to one place
SPAN = 8  # lines by which oscillation is told
CROSSINGS = 4  # of the mean, in so many lines
SWING = 0.5  # standard deviation of a loss over lines, beside its size


class Collapsed(Failed):
    """A training is over before its time: its message says why."""


def oscillation(lines: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each loss that swings about its mean instead of settling, by the last SPAN lines.

    A loss around 0 (Wasserstein's) is compared with the spread of logits.
    """
    recent = lines[-SPAN:]
    sentences = []
    for name in recent[-1]:
        values = [line[name] for line in recent if name in line]
        if not name.startswith("loss_") or len(values) < SPAN:
            continue
        mean = statistics.fmean(values)
        above = [value > mean for value in values]
        crossings = sum(one != other for one, other in itertools.pairwise(above))
        size = abs(mean) + statistics.fmean(line.get("spread_real", 0.0) for line in recent)
        swing = statistics.pstdev(values) / max(size, 1e-12)
        if crossings >= CROSSINGS and swing > SWING:
            sentences.append(
                f"{name} oscillates: over {SPAN} lines it crosses its mean {crossings} times, by {swing:.2g} of its size; "
                "give a smaller training.lr, or a smaller beta1."
            )
    return sentences


class Health:
    """Words on a training, line by line."""

    def __init__(self, objective: Any) -> None:
        self.objective = objective
        self.lines: list[dict[str, Any]] = []

    def __call__(self, line: dict[str, Any]) -> list[str]:
        """What ails it; nothing where it is well."""
        self.lines = [*self.lines, line][-SPAN:]
        return [
            *self.objective.collapsed(line),
            *self.objective.health(line),
            *oscillation(self.lines),
        ]


class Watch:
    """Means of a training's scalars over windows of the clock, and what follows from them."""

    def __init__(self, objective: Any, world: World, every_kimg: float, on: bool) -> None:
        self.objective = objective
        self.world = world
        self.every = max(1, round(every_kimg * 1000))
        self.on = on
        self.sums = Sums()

    def due(self, clock: int, batch_size: int) -> bool:
        """Whether a window ends with the iteration before a clock [images]."""
        return self.on and clock // self.every != (clock - batch_size) // self.every

    def look(self, clock: int) -> None:
        """End a window.

        Raises:
            Collapsed: by its means the training is over.
        """
        if not self.sums:
            return
        means = {"kimg": clock / 1000, **self.sums.means(self.world)}
        self.sums.clear()
        bad = [name for name, value in means.items() if value - value != 0]
        ill = [f"{', '.join(bad)} not finite"] if bad else self.objective.collapsed(means)
        if ill:
            raise Collapsed(f"at {clock / 1000:g} kimg: {' '.join(ill)}")


def set_back(task: Any, world: World, error: Exception) -> None:
    """Put the checkpoint before the last healthy window in the place of all that came after it.

    A kill at any moment leaves what collapses, and is set back, once more.

    Raises:
        Collapsed: there is none, or it was begun from IN_A_ROW times.
    """
    folder: Path = task.folder / "checkpoints"
    kept = sorted((task.folder / FOLDER).glob("checkpoint-*.pt"))
    if not kept:
        raise error
    healthy = checkpoint.load(kept[0])
    newest = checkpoint.latest(folder)
    now = healthy if newest is None else checkpoint.load(newest)
    before = healthy.segments[-1].get("setbacks", 0)
    count = now.segments[-1].get("setbacks", before) + 1
    world.barrier()  # all have read
    if count - before > IN_A_ROW:
        raise Collapsed(
            f"{error} It was set back {IN_A_ROW} times to {healthy.clock / 1000:g} kimg, and collapsed again: "
            "start a new run=… with other options, or give training.on_collapse=continue."
        ) from error

    if world.rank == 0:
        say(f"{task.label}: {error} Set back to {healthy.clock / 1000:g} kimg.")
        healthy.segments.append(
            {**healthy.segments[-1], "clock": healthy.clock, "setbacks": count}
        )
        checkpoint.back_to(folder, healthy, task.guard)
    world.barrier()


def keep(task: Any, state: checkpoint.Checkpoint) -> None:
    """Keep where a healthy window ended, and where it began."""
    checkpoint.save(task.folder / FOLDER, state, task.guard, kept=2)
