"""Sample order as a pure function of (order definition, seed, clock): a stateless pseudo-random permutation.

`feistel-6-v1`: a balanced Feistel network of 6 rounds over the smallest even number of bits that holds the domain,
cycle-walked into it (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3). Round keys come from SplitMix64
(Steele, Lea & Flood 2014); the round function multiplies twice by its constants and keeps the top bits. The algorithm
is a file format: checkpoints rely on it, so a change needs a new name.

`windows-v1`: an epoch's shards are permuted, dealt into windows of so many shards, and the images drawn in an epoch are
permuted within their windows: the same images as often as without windows, but few shards are open at a time.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Order:
    """An endless sequence of image positions 0…count-1.

    Without `strata` an epoch is a permutation of all images. With `strata` (arrays of positions, e.g. one a class)
    a virtual epoch has as many slots as there are images, shared between the strata equally or by `weights`; an image of a
    stratum with q slots and n members is drawn floor(q / n) or ceil(q / n) times in every virtual epoch.
    With `window` they are drawn from so many shards at a time; `sizes` are the shards' numbers of images.
    """

    count: int
    seed: int
    strata: tuple[Ids, ...] = ()
    weights: tuple[float, ...] | None = None
    sizes: Ids | None = None
    window: int = 0

    def ids(self, start: int, stop: int) -> Ids:
        """Positions of the images drawn at clock start…stop-1, [stop - start]."""
        parts = []
        for epoch in range(start // self.count, (stop - 1) // self.count + 1):
            first = epoch * self.count
            slots = np.arange(max(start, first) - first, min(stop, first + self.count) - first)
            if self.window:
                parts.append(self._from_windows(slots, epoch))
            else:
                drawn = permute(slots, self.count, self.seed, epoch)
                parts.append(self._from_strata(drawn, epoch) if self.strata else drawn)
        return np.concatenate(parts)

    @property
    def reach(self) -> int:
        """Images in a window, at most."""
        return 0 if self.sizes is None else self.window * int(self.sizes.max())

    def _from_strata(self, drawn: Ids, epoch: int) -> Ids:
        weights = np.array(self.weights or [1] * len(self.strata))
        shares = self.count * weights / weights.sum()
        quotas = shares.astype(np.int64)
        quotas[np.argsort(quotas - shares, kind="stable")[: self.count - quotas.sum()]] += 1  # the largest remainders
        ends = np.cumsum(quotas)
        stratum, chosen = np.searchsorted(ends, drawn, side="right"), np.empty_like(drawn)
        sizes = np.array([len(members) for members in self.strata])
        turns, places = np.divmod(drawn - (ends - quotas)[stratum], sizes[stratum])
        most = int(turns.max()) + 1
        visits, group, counts = np.unique(stratum * most + turns, return_inverse=True, return_counts=True)
        parts = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
        for visit, part in zip(visits.tolist(), parts, strict=True):  # each turn visits every member of a stratum once
            number, turn = divmod(visit, most)
            members = self.strata[number]
            chosen[part] = members[permute(places[part], len(members), self.seed, epoch, number, turn)]
        return chosen

    def _from_windows(self, slots: Ids, epoch: int) -> Ids:
        ends, images = _windows(self, epoch)
        number, places = np.searchsorted(ends, slots, side="right"), np.empty_like(slots)
        for one in np.unique(number):
            first, its = ends[one - 1] if one else 0, number == one
            places[its] = first + permute(slots[its] - first, int(ends[one] - first), self.seed, epoch, 1, one)
        return images(places)


@functools.lru_cache(maxsize=2)
def _windows(order: Order, epoch: int) -> tuple[Ids, Callable[[Ids], Ids]]:
    """The slot at which each window of an epoch ends, and the image at each slot before windows are shuffled."""
    assert order.sizes is not None
    count, firsts = len(order.sizes), np.cumsum(order.sizes) - order.sizes
    shards = permute(np.arange(count), count, order.seed, epoch, 0)
    sizes = order.sizes[shards]
    ends = np.cumsum(sizes)
    if not order.strata:

        def images(places: Ids) -> Ids:
            at = np.searchsorted(ends, places, side="right")
            return firsts[shards[at]] + places - ends[at] + sizes[at]

        return np.append(ends[order.window - 1 : -1 : order.window], ends[-1]), images
    drawn = order._from_strata(np.arange(order.count), epoch)
    windows = (np.argsort(shards) // order.window)[np.searchsorted(firsts, drawn, side="right") - 1]
    sorted_by_window = drawn[np.argsort(windows, kind="stable")]
    return np.cumsum(np.bincount(windows)), sorted_by_window.__getitem__
