"""How far long work is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import TYPE_CHECKING

from facefactory import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

OFTEN_S = 0.5  # between two states of the bar
SPARSE_S = 30.0  # between lines where there is no terminal


class Progress:
    """Shows one piece of work, counted in `unit`."""

    def __init__(self, label: str, unit: str) -> None:
        self.label = label
        self.unit = unit
        self.said = 0.0  # when it was told last
        self.bar: Bar | None = None  # where there is a terminal

    def show(self, done: float, total: float, words: str) -> None:
        """Tell that `done` of `total` are done, unless that was told a moment ago.

        `words`: speed, time left.
        """
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        pause_s = OFTEN_S if terminal else SPARSE_S
        if now - self.said < pause_s and done < total:
            return
        self.said = now
        if not terminal:
            return say(f"{self.label}: {done:g} of {total:g} {self.unit}, {words}")
        if self.bar is None:
            self.bar = _bar(self.unit)
            self.bar.add_task(self.label, words="")
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, total=total, words=words)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


def _bar(unit: str) -> "Bar":
    from rich import progress
    from rich.console import Console

    counted = f"{{task.completed:g}} of {{task.total:g}} {unit}, {{task.fields[words]}}"
    columns = ("{task.description}", progress.BarColumn(), counted)
    return progress.Progress(*columns, console=Console(stderr=True))
