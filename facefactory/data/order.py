"""Sample order as a pure function of (order definition, seed, clock): a stateless pseudo-random permutation.

`feistel-6-v1`: a balanced Feistel network of 6 rounds over the smallest even number of bits that holds the domain,
cycle-walked into it (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3). Round keys come from SplitMix64
(Steele, Lea & Flood 2014); the round function multiplies twice by its constants and keeps the top bits. The algorithm
is a file format: checkpoints rely on it, so a change needs a new name.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ALGORITHM = "feistel-6-v1"
ROUNDS = 6
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
Ids = npt.NDArray[np.int64]


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: 64-bit values to well-mixed ones."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))


def permute(slots: Ids, size: int, *key: int) -> Ids:
    """Where each slot 0…size-1 goes under the permutation of 0…size-1 named by `key` (integers)."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    seed = np.zeros(1, np.uint64)
    for part in key:
        seed = _mix(seed ^ np.uint64(part))
    round_keys = [_mix(seed + np.uint64(number)) for number in range(ROUNDS)]
    out = slots.astype(np.uint64)
    todo, walking = np.arange(len(slots)), out
    while len(walking):
        left, right = walking >> shift, walking & mask
        for round_key in round_keys:
            mixed = right ^ round_key
            mixed *= MULTIPLIERS[0]
            mixed ^= mixed >> np.uint64(32)
            mixed *= MULTIPLIERS[1]
            mixed >>= np.uint64(64) - shift
            mixed ^= left
            left, right = right, mixed
        out[todo] = (left << shift) | right
        todo = np.flatnonzero(out >= size)  # outside the domain: walk on along the cycle
        walking = out[todo]
    return out.astype(np.int64)


@dataclass(frozen=True)
class Order:
    """An endless sequence of image positions 0…count-1.

    Without `strata` an epoch is a permutation of all images. With `strata` (arrays of positions, e.g. one a class)
    a virtual epoch has as many slots as there are images, shared equally between the strata; an image of a stratum
    with q slots and n members is drawn floor(q / n) or ceil(q / n) times in every virtual epoch.
    """

    count: int
    seed: int
    strata: tuple[Ids, ...] = field(default=(), compare=False)

    def ids(self, start: int, stop: int) -> Ids:
        """Positions of the images drawn at clock start…stop-1, [stop - start]."""
        parts = []
        for epoch in range(start // self.count, (stop - 1) // self.count + 1):
            first = epoch * self.count
            slots = np.arange(max(start, first) - first, min(stop, first + self.count) - first)
            drawn = permute(slots, self.count, self.seed, epoch)
            parts.append(self._from_strata(drawn, epoch) if self.strata else drawn)
        return np.concatenate(parts)

    def _from_strata(self, drawn: Ids, epoch: int) -> Ids:
        quotas = np.full(len(self.strata), self.count // len(self.strata))
        quotas[: self.count % len(self.strata)] += 1
        ends = np.cumsum(quotas)
        stratum, chosen = np.searchsorted(ends, drawn, side="right"), np.empty_like(drawn)
        sizes = np.array([len(members) for members in self.strata])
        turns, places = np.divmod(drawn - (ends - quotas)[stratum], sizes[stratum])
        for number, turn in set(zip(stratum.tolist(), turns.tolist(), strict=True)):  # each turn visits every member once
            now, members = (stratum == number) & (turns == turn), self.strata[number]
            chosen[now] = members[permute(places[now], len(members), self.seed, epoch, number, turn)]
        return chosen
