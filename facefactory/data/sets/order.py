"""Sample order as a pure function of (order definition, seed, clock): a stateless pseudo-random permutation.

`feistel-6-v1`: a balanced Feistel network of 6 rounds over the smallest even number of bits that holds the domain,
cycle-walked into it (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, method 3). Round keys come from SplitMix64
(Steele, Lea & Flood 2014); the round function multiplies twice by its constants and keeps the top bits. The algorithm
is a file format: checkpoints rely on it, so a change needs a new name.

`windows-v1`, with strata `windows-v2`: an epoch's shards are permuted, dealt into windows of so many shards, and the images drawn in an epoch are
permuted within their windows: the same images as often as without windows, but few shards are open at a time.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALGORITHM = "feistel-6-v1"
ROUNDS = 6
PART = 2**16  # members of a stratum that are looked at together
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
Ids = npt.NDArray[np.int64]


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: 64-bit values to well-mixed ones."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))


def permute(slots: Ids, size: int, *key: int, back: bool = False) -> Ids:
    """Where each slot 0…size-1 goes under the permutation of 0…size-1 named by `key` (integers); `back`: whence it came."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    seed = np.zeros(1, np.uint64)
    for part in key:
        seed = _mix(seed ^ np.uint64(part))
    turn = (
        -1 if back else 1
    )  # a Feistel network with its halves and its keys the other way round is its own inverse
    round_keys = [_mix(seed + np.uint64(number)) for number in range(ROUNDS)][::turn]
    out = slots.astype(np.uint64)
    todo, walking = np.arange(len(slots)), out
    while len(walking):
        left, right = (walking >> shift, walking & mask)[::turn]
        for round_key in round_keys:
            mixed = right ^ round_key
            mixed *= MULTIPLIERS[0]
            mixed ^= mixed >> np.uint64(32)
            mixed *= MULTIPLIERS[1]
            mixed >>= np.uint64(64) - shift
            mixed ^= left
            left, right = right, mixed
        left, right = (left, right)[::turn]
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
    With `window` they are drawn from so many shards at a time; `sizes` are the shards' numbers of images. Memory then holds
    a few windows, but with strata each epoch begins with a look at all of their members (about 0.1 s a million).
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

    @functools.cached_property
    def _quotas(self) -> Ids:
        """Slots of each stratum in a virtual epoch."""
        weights = np.array(self.weights or [1] * len(self.strata))
        shares = self.count * weights / weights.sum()
        quotas = shares.astype(np.int64)
        quotas[np.argsort(quotas - shares, kind="stable")[: self.count - quotas.sum()]] += (
            1  # the largest remainders
        )
        return quotas

    def _from_strata(self, drawn: Ids, epoch: int) -> Ids:
        ends = np.cumsum(self._quotas)
        stratum, chosen = np.searchsorted(ends, drawn, side="right"), np.empty_like(drawn)
        sizes = np.array([len(members) for members in self.strata])
        turns, places = np.divmod(drawn - (ends - self._quotas)[stratum], sizes[stratum])
        most = int(turns.max()) + 1
        visits, group, counts = np.unique(
            stratum * most + turns, return_inverse=True, return_counts=True
        )
        parts = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
        for visit, part in zip(
            visits.tolist(), parts, strict=True
        ):  # each turn visits every member of a stratum once
            number, turn = divmod(visit, most)
            members = self.strata[number]
            chosen[part] = members[
                permute(places[part], len(members), self.seed, epoch, number, turn)
            ]
        return chosen

    def _visits(self, number: int, of: Ids, epoch: int) -> Ids:
        """How often some members (by their place in it) of a stratum are drawn in an epoch."""
        size = len(self.strata[number])
        turns, rest = divmod(int(self._quotas[number]), size)
        return turns + (permute(of, size, self.seed, epoch, number, turns, back=True) < rest)

    def _from_windows(self, slots: Ids, epoch: int) -> Ids:
        ends, found = _dealt(self, epoch)[1], np.empty_like(slots)
        number = np.searchsorted(ends, slots, side="right")
        for one in np.unique(number).tolist():
            first, its = ends[one - 1] if one else 0, number == one
            images = _window(self, epoch, one)
            found[its] = images[permute(slots[its] - first, len(images), self.seed, epoch, 1, one)]
        return found


@functools.lru_cache(maxsize=2)
def _dealt(order: Order, epoch: int) -> tuple[Ids, Ids]:
    """The shards of an epoch in the order in which they are dealt to windows, and the slot at which each window ends."""
    assert order.sizes is not None
    shards = permute(np.arange(len(order.sizes)), len(order.sizes), order.seed, epoch, 0)
    drawn, starts = order.sizes, np.cumsum(order.sizes) - order.sizes
    if order.strata:
        drawn = np.zeros_like(order.sizes)
        for number, members in enumerate(order.strata):
            for first in range(0, len(members), PART):
                of = np.arange(first, min(first + PART, len(members)))
                shard = np.searchsorted(starts, members[of], side="right") - 1
                drawn += np.bincount(shard, order._visits(number, of, epoch), len(drawn)).astype(
                    np.int64
                )
    return shards, np.cumsum(
        np.add.reduceat(drawn[shards], np.arange(0, len(shards), order.window))
    )


@functools.lru_cache(maxsize=4)
def _window(order: Order, epoch: int, number: int) -> Ids:
    """The images drawn from a window of shards, before they are shuffled."""
    assert order.sizes is not None
    shards = _dealt(order, epoch)[0][number * order.window : (number + 1) * order.window]
    ends = np.cumsum(order.sizes)[shards]
    spans = np.stack([ends - order.sizes[shards], ends], 1)
    if not order.strata:
        return _ranges(spans)
    parts = []
    for stratum, members in enumerate(order.strata):
        of = _ranges(np.searchsorted(members, spans))
        parts.append(np.repeat(members[of], order._visits(stratum, of, epoch)))
    return np.concatenate(parts)


def _ranges(spans: Ids) -> Ids:
    """The numbers first…last-1 of some spans [n, 2] one after the other."""
    return np.concatenate([np.arange(first, last) for first, last in spans.tolist()])
