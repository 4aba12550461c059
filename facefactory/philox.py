"""Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) on any device.

A draw is a pure function of a counter (position in the global batch, column, clock) and a key
(hash of seed and purpose), so a rank draws its slice alone and nothing crosses from host to device.
The integers are equal on every device. Uniforms are their top 24 bits, exactly. Normals are Box &
Muller's (1958), in float64 and rounded to float32: devices differ by 1 unit in the last place at most.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ALGORITHM = "philox4x32-10-v1"
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what a round adds to the key's halves
LOW16 = 0xFFFF
LOW32 = 0xFFFFFFFF
WORDS = 4  # of a counter

# Of a sheet: launches are shared by so many iterations, memory is bounded
ITERATIONS = 16
SHEET_WORDS = 2**22

Kind = Literal["normal", "uniform"]
Words = tuple[Tensor, Tensor, Tensor, Tensor]  # int64, each 0…2³²-1


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four words for each counter and key, which broadcast (the paper's Figure 2)."""
    first, second, third, fourth = counter
    key_a, key_b = key
    for turn in range(ROUNDS):
        if turn:
            key_a = (key_a + WEYL[0]) & LOW32
            key_b = (key_b + WEYL[1]) & LOW32
        high_a, low_a = _product(first, MULTIPLIERS[0])
        high_b, low_b = _product(third, MULTIPLIERS[1])
        first = high_b ^ second ^ key_a
        second = low_b
        third = high_a ^ fourth ^ key_b
        fourth = low_a
    return first, second, third, fourth


def _product(value: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of 32 bits, by halves: nothing here exceeds 49 bits."""
    by_low = value * (multiplier & LOW16)
    by_high = value * (multiplier >> 16) + (by_low >> 16)
    return by_high >> 16, ((by_high & LOW16) << 16) | (by_low & LOW16)


def key_of(seed: int, purpose: str) -> tuple[int, int]:
    """The two words of a key."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    whole = int.from_bytes(digest, "little")
    return whole & LOW32, whole >> 32


def uniforms(words: Words) -> Tensor:
    """[…, 4] float32 in 0…1, 1 left out: multiples of 2⁻²⁴."""
    top = torch.stack(words, -1) >> 8
    return top.to(torch.float32) * 2.0**-24


def normals(words: Words) -> Tensor:
    """[…, 4] float32, standard normal, at most 6.7 from 0."""
    pairs = []
    for radial, angular in (words[:2], words[2:]):
        radius = ((radial.double() + 1) * 2.0**-32).log().mul(-2).sqrt()  # of 0…1, 0 left out
        angle = angular.double() * (2 * torch.pi * 2.0**-32)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1).float()


@dataclass(frozen=True)
class _Layout:
    """Columns of some purposes side by side, in groups of four words."""

    columns: dict[str, int]  # purpose -> how many
    first: dict[str, int]  # purpose -> the place of its first column
    key: tuple[Tensor, Tensor]  # [groups] each, on the device
    group: Tensor  # [groups] number of a group within its purpose


@dataclass(frozen=True)
class _Drawn:
    """Draws of one kind from a clock on."""

    layout: _Layout
    values: Tensor  # [iterations, positions, columns] float32


class Sheet:
    """The draws of positions lo:hi of global batches of `batch_size` images, on a device.

    What was asked for once is drawn some iterations ahead, all purposes in one go. That is memory
    of what a draw is worth, and changes none.
    """

    def __init__(self, seed: int, batch_size: int, lo: int, hi: int, device: torch.device) -> None:
        self.seed = seed
        self.batch_size = batch_size
        self.lo = lo
        self.device = device
        self._positions = torch.arange(lo, hi, device=device)[:, None]
        self._asked: dict[Kind, dict[str, int]] = {"normal": {}, "uniform": {}}
        self._layouts: dict[Kind, _Layout] = {}
        self._drawn: dict[Kind, _Drawn] = {}
        self._clocks = range(0)  # of the iterations that are drawn

    def draw(self, kind: Kind, clock: int, purpose: str, columns: int) -> Tensor:
        """[hi - lo, columns] float32 at a clock [images]."""
        if clock not in self._clocks:
            self._turn_to(clock)
        asked = self._asked[kind]
        if asked.get(purpose, 0) < columns:  # from the next iteration on
            asked[purpose] = columns
            self._clocks = range(self._clocks.start, clock + 1, self.batch_size)

        drawn = self._drawn.get(kind)
        if drawn is None or drawn.layout.columns.get(purpose, 0) < columns:
            alone = self._layout({purpose: columns})
            return self._values(kind, alone, range(clock, clock + 1))[0, :, :columns].contiguous()
        first = drawn.layout.first[purpose]
        mine = drawn.values[self._clocks.index(clock), :, first : first + columns]
        return mine.clone(memory_format=torch.contiguous_format)  # strides may change a sum's bits

    def _turn_to(self, clock: int) -> None:
        """Draw all that was asked for so far, from a clock on."""
        columns = sum(sum(asked.values()) for asked in self._asked.values())
        in_one = max(1, columns * len(self._positions))
        count = max(1, min(ITERATIONS, SHEET_WORDS // in_one))
        self._clocks = range(clock, clock + count * self.batch_size, self.batch_size)
        self._drawn = {}
        for kind, asked in self._asked.items():
            if not asked:
                continue
            known = self._layouts.get(kind)
            if known is None or known.columns != asked:
                self._layouts[kind] = self._layout(asked)
            layout = self._layouts[kind]
            self._drawn[kind] = _Drawn(layout, self._values(kind, layout, self._clocks))

    def _layout(self, columns: dict[str, int]) -> _Layout:
        """Where the columns of some purposes stand."""
        first: dict[str, int] = {}
        keys: list[tuple[int, int]] = []
        groups: list[int] = []
        for purpose, count in columns.items():
            first[purpose] = WORDS * len(groups)
            own = range(-(-count // WORDS))
            groups += own
            keys += [key_of(self.seed, purpose)] * len(own)
        table = torch.tensor([(*key, group) for key, group in zip(keys, groups, strict=True)])
        key_a, key_b, group = table.to(self.device).T
        return _Layout(dict(columns), first, (key_a, key_b), group)

    def _values(self, kind: Kind, layout: _Layout, clocks: range) -> Tensor:
        """[iterations, positions, columns] float32."""
        clock = torch.arange(clocks.start, clocks.stop, clocks.step, device=self.device)
        clock = clock[:, None, None]
        shape = (len(clocks), len(self._positions), len(layout.group))
        counter = (self._positions, layout.group, clock & LOW32, clock >> 32)
        broadcast = [part.expand(shape) for part in counter]
        words = philox((broadcast[0], broadcast[1], broadcast[2], broadcast[3]), layout.key)
        made = normals(words) if kind == "normal" else uniforms(words)
        return made.flatten(2)
