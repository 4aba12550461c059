"""Work in numbered items that several processes share: what is put together is, bit for bit, what one process makes.

What an item is depends on its name and number alone. A process makes every N-th item from the K-th on and keeps them in a file; where
items of others are missing its work ends, and what comes after waits until they are there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefactory import rundir

Item = dict[str, Any]  # field -> array


class Pending(Exception):
    """Items of other processes are missing, or the rest is not this process's work."""


@dataclass(frozen=True)
class Sharing:
    """Which items this process makes, and where those of all are kept; by default all, and nowhere."""

    folder: Path | None = None
    part: int = 0
    parts: int = 1

    def items(
        self, name: str, numbers: Sequence[int], make: Callable[[int], Item]
    ) -> dict[int, Item]:
        """The items of a name by their numbers, in that order.

        Raises:
            Pending: some are missing that others make; this process has kept its own.
        """
        found = self._kept(name)
        own = [number for number in numbers[self.part :: self.parts] if number not in found]
        made = {number: make(number) for number in own}
        if made and self.parts > 1:
            self._keep(name, made)
        found |= made
        missing = [number for number in numbers if number not in found]
        if missing:
            raise Pending(f"{len(missing)} of {len(numbers)} items of {name} are made by others")
        return {number: found[number] for number in numbers}

    def leave_the_rest(self) -> None:
        """Pending: what follows is the work of the one process that ends it."""
        if self.parts > 1:
            raise Pending("the rest is not shared")

    def _kept(self, name: str) -> dict[int, Item]:
        """What is there; a file that cannot be read counts as missing."""
        import numpy as np

        found: dict[int, Item] = {}
        for path in sorted(self.folder.glob(f"{name}.*.npz")) if self.folder else ():
            try:
                with open(path, "rb") as stream, np.load(stream) as arrays:
                    values = {key: arrays[key] for key in arrays.files}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            for key, value in values.items():
                number, _, field = key.partition(" ")
                found.setdefault(int(number), {})[field] = value
        return found

    def _keep(self, name: str, made: Mapping[int, Item]) -> None:
        import numpy as np

        assert self.folder is not None
        flat = {
            f"{number} {field}": value
            for number, item in made.items()
            for field, value in item.items()
        }
        place = self.folder / f"{name}.{self.part}-of-{self.parts}.npz"
        with rundir.atomic(place) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, **flat)


UNSHARED = Sharing()
