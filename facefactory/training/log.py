"""What a run says while it trains: metric lines in a file, and how far it is."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facefactory import rundir, say
from facefactory.progress import Progress
from facefactory.ranks import World


class Log:
    """Means of the scalars since the last line, written to metrics-<attempt>.jsonl by rank 0; `on=False`: says nothing."""

    def __init__(
        self,
        folder: Path,
        world: World,
        label: str,
        clock: int,
        on: bool = True,
        health: Callable[[dict[str, float]], list[str]] = lambda scalars: [],
    ) -> None:
        self.world = world
        self.on = on
        self.label = label
        self.health = health
        self.told: list[str] = []  # of its health
        self.sums: dict[tuple[str, ...], Tensor] = {}  # of the scalars that came together
        self.counts: dict[tuple[str, ...], int] = {}
        self.began = time.monotonic()
        self.first_clock = clock
        self.bar = Progress(label, "kimg")
        attempt = 1 + len(list(folder.glob("metrics-*.jsonl")))
        self.path = folder / f"metrics-{attempt:03d}.jsonl"

    def add(self, shown: dict[str, Tensor]) -> None:
        """Add the scalars of a part of an iteration; nothing is read back from a device."""
        if not self.on or not shown:
            return
        names = tuple(shown)
        values = torch.stack([value.float() for value in shown.values()])
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.counts[names] = self.counts.get(names, 0) + 1

    def write(self, clock: int) -> None:
        """One metric line for all that was added since the last.

        Raises:
            FloatingPointError: a scalar is not finite: the training has diverged.
        """
        if not self.sums:
            return
        names, totals, counts = self._totals()
        means = (self.world.sum(totals) / self.world.sum(counts)).tolist()
        line: dict[str, Any] = {"kimg": clock / 1000, **dict(zip(names, means, strict=True))}
        bad = [
            name for name, value in line.items() if value != value or abs(value) == float("inf")
        ]
        if bad:
            raise FloatingPointError(
                f"{', '.join(bad)} not finite at {clock / 1000:g} kimg: the training diverged; lower training.lr."
            )
        ill = self.health(line)
        line["images_per_s"] = round(self.rate(clock), 1)
        if ill:
            line["health"] = ill
        self.sums = {}
        self.counts = {}
        if self.world.rank == 0:
            rundir.append_json(self.path, line)
        self.tell([words for words in ill if words not in self.told])
        self.told = ill

    def tell(self, sentences: Sequence[str]) -> None:
        """Say something of this training, once for all ranks."""
        for words in sentences if self.world.rank == 0 else ():
            say(f"{self.label}: {words}")

    def _totals(self) -> tuple[list[str], Tensor, Tensor]:
        """Names of the scalars, their sums and how many there were; one scalar may have come in several companies."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for names, values in self.sums.items():
            for name, value in zip(names, values, strict=True):
                sums[name] = sums[name] + value if name in sums else value
                counts[name] = counts.get(name, 0) + self.counts[names]
        totals = torch.stack(list(sums.values()))
        return (
            list(sums),
            totals,
            torch.tensor(list(counts.values()), device=totals.device, dtype=totals.dtype),
        )

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
