"""Sample order as a pure function of (definition, seed, clock): a stateless permutation.

`feistel-6-v1`: a balanced Feistel network of 6 rounds over the smallest even number of bits that
holds the domain, cycle-walked into it (Black & Rogaway, "Ciphers with arbitrary finite domains",
CT-RSA 2002, method 3). Round keys come from SplitMix64 (Steele, Lea & Flood 2014); the round
function multiplies twice by its constants and keeps the top bits. The algorithm is a file format:
checkpoints rely on it, so a change needs a new name.

`windows-v1`, with strata `windows-v2`: an epoch's shards are permuted, dealt into windows of so
many shards, and the images drawn in an epoch are permuted within their windows: the same images as
often as without windows, but few shards are open at a time.
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
    """Where each slot 0…size-1 goes under the permutation of 0…size-1 named by `key` (integers).

    `back`: whence it came. A Feistel network with its halves and its keys the other way round is
    its own inverse.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    shift = np.uint64(half)
    mask = np.uint64((1 << half) - 1)
    seed = np.zeros(1, np.uint64)
    for part in key:
        seed = _mix(seed ^ np.uint64(part))
    round_keys = [_mix(seed + np.uint64(number)) for number in range(ROUNDS)]
    if back:
        round_keys.reverse()

    # all slots; then those again that left the domain, on along the cycle
    out = slots.astype(np.uint64)
    todo = np.arange(len(slots))
    walking = out
    while len(walking):
        left = walking >> shift
        right = walking & mask
        if back:
            left, right = right, left
        for round_key in round_keys:
            mixed = right ^ round_key
            mixed *= MULTIPLIERS[0]
            mixed ^= mixed >> np.uint64(32)
            mixed *= MULTIPLIERS[1]
            mixed >>= np.uint64(64) - shift
            mixed ^= left
            left = right
            right = mixed
        if back:
            left, right = right, left
        out[todo] = (left << shift) | right
        todo = np.flatnonzero(out >= size)
        walking = out[todo]
    return out.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Order:
    """An endless sequence of image positions 0…count-1.

    Without `strata` an epoch is a permutation of all images. With `strata` (arrays of positions,
    e.g. one a class) a virtual epoch has as many slots as there are images, shared between the
    strata equally or by `weights`; an image of a stratum with q slots and n members is drawn
    floor(q / n) or ceil(q / n) times in every virtual epoch.

    With `window` they are drawn from so
    many shards at a time; `sizes` are the shards' numbers of images. Memory then holds a few
    windows, but with strata each epoch begins with a look at all of their members (about 0.1 s a
    million).
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
            last = first + self.count
            slots = np.arange(max(start, first), min(stop, last)) - first
            if self.window:
                parts.append(self._from_windows(slots, epoch))
                continue
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
        largest = np.argsort(quotas - shares, kind="stable")  # remainders
        quotas[largest[: self.count - quotas.sum()]] += 1
        return quotas

    def _from_strata(self, drawn: Ids, epoch: int) -> Ids:
        """The images at the slots of a virtual epoch, once those are permuted."""
        # whose slot it is, and which turn through its members
        ends = np.cumsum(self._quotas)
        stratum = np.searchsorted(ends, drawn, side="right")
        slot = drawn - (ends - self._quotas)[stratum]
        sizes = np.array([len(members) for members in self.strata])
        turns, places = np.divmod(slot, sizes[stratum])

        # the slots of each turn of each stratum
        most = int(turns.max()) + 1
        visits, group, counts = np.unique(
            stratum * most + turns, return_inverse=True, return_counts=True
        )
        in_turn = np.argsort(group, kind="stable")
        parts = np.split(in_turn, np.cumsum(counts)[:-1])

        # each turn visits every member of a stratum once
        chosen = np.empty_like(drawn)
        for visit, part in zip(visits.tolist(), parts, strict=True):
            number, turn = divmod(visit, most)
            members = self.strata[number]
            order = permute(places[part], len(members), self.seed, epoch, number, turn)
            chosen[part] = members[order]
        return chosen

    def _visits(self, number: int, of: Ids, epoch: int) -> Ids:
        """How often some members (by their place in it) of a stratum are drawn in an epoch."""
        size = len(self.strata[number])
        turns, rest = divmod(int(self._quotas[number]), size)
        return turns + (permute(of, size, self.seed, epoch, number, turns, back=True) < rest)

    def _from_windows(self, slots: Ids, epoch: int) -> Ids:
        """The images at the slots of an epoch."""
        ends = _dealt(self, epoch)[1]
        window_of = np.searchsorted(ends, slots, side="right")
        drawn = np.empty_like(slots)
        for number in np.unique(window_of).tolist():
            first = ends[number - 1] if number else 0
            here = window_of == number
            images = _window(self, epoch, number)
            order = permute(slots[here] - first, len(images), self.seed, epoch, 1, number)
            drawn[here] = images[order]
        return drawn


@functools.lru_cache(maxsize=2)
def _dealt(order: Order, epoch: int) -> tuple[Ids, Ids]:
    """The shards of an epoch in the order in which they are dealt to windows, and the slot at
    which each window ends.
    """
    assert order.sizes is not None
    count = len(order.sizes)
    shards = permute(np.arange(count), count, order.seed, epoch, 0)
    drawn = _drawn(order, epoch) if order.strata else order.sizes
    windows = np.arange(0, count, order.window)
    per_window = np.add.reduceat(drawn[shards], windows)
    return shards, np.cumsum(per_window)


def _drawn(order: Order, epoch: int) -> Ids:
    """How many images an epoch draws from each shard, where it has strata."""
    assert order.sizes is not None
    starts = np.cumsum(order.sizes) - order.sizes
    drawn = np.zeros_like(order.sizes)
    for number, members in enumerate(order.strata):
        for first in range(0, len(members), PART):
            of = np.arange(first, min(first + PART, len(members)))
            shard = np.searchsorted(starts, members[of], side="right") - 1
            visits = order._visits(number, of, epoch)
            drawn += np.bincount(shard, visits, len(drawn)).astype(np.int64)
    return drawn


@functools.lru_cache(maxsize=4)
def _window(order: Order, epoch: int, number: int) -> Ids:
    """The images drawn from a window of shards, before they are shuffled."""
    assert order.sizes is not None
    first = number * order.window
    shards = _dealt(order, epoch)[0][first : first + order.window]
    ends = np.cumsum(order.sizes)[shards]
    spans = np.stack([ends - order.sizes[shards], ends], 1)
    if not order.strata:
        return _ranges(spans)

    # the members of each stratum that lie there, as often as they are drawn
    parts = []
    for stratum, members in enumerate(order.strata):
        of = _ranges(np.searchsorted(members, spans))
        parts.append(np.repeat(members[of], order._visits(stratum, of, epoch)))
    return np.concatenate(parts)


def _ranges(spans: Ids) -> Ids:
    """The numbers first…last-1 of some spans [n, 2] one after the other."""
    return np.concatenate([np.arange(first, last) for first, last in spans.tolist()])
