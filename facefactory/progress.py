"""How far long work is: a bar on a terminal, a line now and then in a log."""

import sys
import time

from rich import progress
from rich.console import Console

from facefactory import say

SPARSE_S = 30.0  # seconds between lines where there is no terminal


class Progress:
    """Shows one piece of work, counted in `unit`."""

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit, self.said = label, unit, 0.0
        counted = f"{{task.completed:g}} of {{task.total:g}} {unit}, {{task.fields[words]}}"
        self.bar = progress.Progress(
            "{task.description}", progress.BarColumn(), counted, console=Console(stderr=True)
        )

    def show(self, done: float, total: float, words: str) -> None:
        """Tell that `done` of `total` are done, unless that was told a moment ago; `words`: speed, time left."""
        terminal, now = sys.stderr.isatty(), time.monotonic()
        if now - self.said < (0.5 if terminal else SPARSE_S) and done < total:
            return
        self.said = now
        if not terminal:
            return say(f"{self.label}: {done:g} of {total:g} {self.unit}, {words}")
        if not self.bar.tasks:
            self.bar.add_task(self.label, words="")
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, total=total, words=words)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar.tasks:
            self.bar.stop()
