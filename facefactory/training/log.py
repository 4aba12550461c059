"""What a run says while it trains: metric lines in a file, and how far it is."""

import time
from pathlib import Path
from typing import Any

import torch

from facefactory import rundir
from facefactory.progress import Progress
from facefactory.training.distributed import World


class Log:
    """Means of the scalars since the last line, written to metrics-<attempt>.jsonl by rank 0; `on=False`: says nothing."""

    def __init__(self, folder: Path, world: World, label: str, clock: int, on: bool = True) -> None:
        self.world, self.on = world, on
        self.sums: dict[str, torch.Tensor] = {}
        self.shares: dict[str, float] = {}
        self.began, self.first_clock, self.bar = time.monotonic(), clock, Progress(label, "kimg")
        self.path = folder / f"metrics-{1 + len(list(folder.glob('metrics-*.jsonl'))):03d}.jsonl"

    def add(self, shown: dict[str, torch.Tensor], share: float) -> None:
        """Add the scalars of a part of an iteration, `share` of it."""
        for name, value in shown.items() if self.on else ():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.float() * share
            self.shares[name] = self.shares.get(name, 0.0) + share

    def write(self, clock: int) -> None:
        """One metric line for all that was added since the last.

        Raises:
            FloatingPointError: a scalar is not finite: the training has diverged.
        """
        if not self.sums:
            return
        means = self.world.mean(torch.stack([self.sums[n] / self.shares[n] for n in self.sums])).tolist()
        line: dict[str, Any] = {"kimg": clock / 1000, **dict(zip(self.sums, means, strict=True))}
        bad = [name for name, value in line.items() if value != value or abs(value) == float("inf")]
        if bad:
            raise FloatingPointError(
                f"{', '.join(bad)} not finite at {clock / 1000:g} kimg: the training diverged; lower training.lr."
            )
        line["images_per_s"] = round(self.rate(clock), 1)
        self.sums, self.shares = {}, {}
        if self.world.rank == 0:
            rundir.append_json(self.path, line)

    def rate(self, clock: int) -> float:
        """Images per second since this training began or went on."""
        return (clock - self.first_clock) / max(time.monotonic() - self.began, 1e-9)

    def progress(self, clock: int, total: int) -> None:
        """Say where the run is."""
        if self.on and not self.world.rank:
            rate = self.rate(clock)
            left = f", {(total - clock) / rate:.0f} s left" if rate > 0 and clock < total else ""
            self.bar.show(clock / 1000, total / 1000, f"{rate:.0f} images/s{left}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.close()
