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


class Sums:
    """Sums of scalars on the device that shows them; nothing is read back before the means are asked for."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}  # of the scalars that came together
        self.counts: dict[tuple[str, ...], int] = {}

    def __bool__(self) -> bool:
        return bool(self.sums)

    def add(self, shown: dict[str, Tensor]) -> None:
        """Add the scalars of a part of an iteration."""
        if not shown:
            return
        names = tuple(shown)
        values = torch.stack([value.float() for value in shown.values()])
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.counts[names] = self.counts.get(names, 0) + 1

    def means(self, world: World) -> dict[str, float]:
        """Over all that was added on all ranks; one scalar may have come in several companies."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for names, values in self.sums.items():
            for name, value in zip(names, values, strict=True):
                sums[name] = sums[name] + value if name in sums else value
                counts[name] = counts.get(name, 0) + self.counts[names]
        totals = torch.stack(list(sums.values()))
        numbers = torch.tensor(list(counts.values()), device=totals.device, dtype=totals.dtype)
        means = (world.sum(totals) / world.sum(numbers)).tolist()
        return dict(zip(sums, means, strict=True))

    def clear(self) -> None:
        """Begin anew."""
        self.sums = {}
        self.counts = {}

    def gather(self, world: World) -> None:
        """Move what all ranks have to the first one."""
        if world.size == 1:
            return
        for names, values in self.sums.items():
            total = world.sum(values.clone())
            self.sums[names] = total * (world.rank == 0)
            self.counts[names] *= world.size * (world.rank == 0)

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {
            "/".join(names): {"sum": values, "count": self.counts[names]}
            for names, values in self.sums.items()
        }

    def load(self, state: dict[str, Any], world: World) -> None:
        """Go on from a saved state, which the first rank takes over."""
        for joined, entry in state.items():
            names = tuple(joined.split("/"))
            self.sums[names] = entry["sum"].to(world.device) * (world.rank == 0)
            self.counts[names] = entry["count"] * (world.rank == 0)


class Log:
    """Means of the scalars since the last line, written to metrics-<attempt>.jsonl by rank 0; `on=False`: says nothing."""

    def __init__(
        self,
        folder: Path,
        world: World,
        label: str,
        clock: int,
        on: bool = True,
        health: Callable[[dict[str, Any]], list[str]] = lambda scalars: [],
        also: Sequence[Sums] = (),
    ) -> None:
        self.world = world
        self.on = on
        self.label = label
        self.health = health
        self.told: list[str] = []  # of its health
        self.sums = Sums()
        self.also = tuple(also)
        self.always: dict[str, Any] = {}  # stands in every line
        self.once: dict[str, Any] = {}  # stands in the next line
        self.began = time.monotonic()
        self.first_clock = clock
        self.bar = Progress(label, "kimg")
        attempt = 1 + len(list(folder.glob("metrics-*.jsonl")))
        self.path = folder / f"metrics-{attempt:03d}.jsonl"

    def add(self, shown: dict[str, Tensor]) -> None:
        """Add the scalars of a part of an iteration, here and in whatever else sums them up."""
        for sums in (self.sums, *self.also) if self.on else self.also:
            sums.add(shown)

    def write(self, clock: int) -> None:
        """One metric line for all that was added since the last.

        Raises:
            FloatingPointError: a scalar is not finite: the training has diverged.
        """
        if not self.sums:
            return
        line: dict[str, Any] = {"kimg": clock / 1000, **self.sums.means(self.world)}
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
        line |= self.always | self.once
        self.once.clear()
        self.sums.clear()
        if self.world.rank == 0:
            rundir.append_json(self.path, line)
        self.tell([words for words in ill if words not in self.told])
        self.told = ill

    def tell(self, sentences: Sequence[str]) -> None:
        """Say something of this training, once for all ranks."""
        for words in sentences if self.world.rank == 0 else ():
            say(f"{self.label}: {words}")

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
