"""Batches from shards, gathered (or decoded) thousands of images ahead by background threads.

All raw shards of a split are seen as one array: a tensor that spans the lowest to the highest
mapped address, whose rows start at every tar block and overlap. An image is a row of it, so a
gather over any number of shards is one call; rows that lie between two maps are never touched.
Encoded shards are decoded in processes: of small images two threads decode no more than one.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from facefactory import UserError, rundir, say, surroundings
from facefactory.data import Data
from facefactory.data.sets import staging
from facefactory.data.sets.index import BLOCK, Index
from facefactory.data.sets.order import ALGORITHM, Ids, Order, permute
from facefactory.data.sets.shard import decode, submit, workers

if TYPE_CHECKING:
    import pandas as pd  # only where labels are read: it would cost every restart half a second

AHEAD = 4096  # images gathered at once, unless they are so large that
BLOCK_BYTES = 2**26  # would be passed
# blocks that are filled at the same time; as many wait their turn, two are at the consumer
READERS = 2
DECODED = 64  # images that a worker process decodes at a time
CHUNK = 256  # images that a model sees at once outside of training
Columns = dict[str, torch.Tensor]  # label -> its values, one an image


def chunked(count: int) -> list[Ids]:
    """The places of `count` images, a few hundred at a time, for models: memory does not grow with the set."""
    return [np.arange(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


class Shards:
    """Splits (or the images `subset` of them) as an array of images with labels."""

    def __init__(self, index: Index, split: str | list[str], subset: Ids | None = None) -> None:
        content = index.content
        self.index = index
        self.subset = subset
        self._splits = [split] if isinstance(split, str) else split
        self._labels: Columns = {}
        self._copy: IO[bytes] | None = None  # held, so that others find it
        self._shape = (*index.size, content.channels)
        self._entries = [shard for name in self._splits for shard in index.split(name).shards]
        self._starts = np.cumsum([0] + [entry.count for entry in self._entries])
        self._rows: torch.Tensor | None = None
        if content.storage == "raw":
            self._rows = self._span_maps()
        else:
            self._tars = [np.asarray(tar) for name in self._splits for tar in index.tars(name)]
            spans = index.columns(self._splits, ["_offset", "_length"])
            self._spans = np.stack(list(spans.values()), 1)

    def _span_maps(self) -> torch.Tensor:
        """One tensor over the maps of all raw shards, whose rows start at every block and overlap.

        With shards 0 and 1, of 3 and 2 images, of which 1 is mapped lower:

            memory   | 1: first  | second   |   not ours   | 0: first  | second   | third   |
            row      0           blocks[1]                 first[0]    first[0] + blocks[0]
        """
        # kept: the tensor borrows their memory
        self._maps = [view for name in self._splits for view in self.index.maps(name)]
        addresses = np.array([view.ctypes.data for view in self._maps])
        lowest = int(addresses.min())
        self._first = (addresses - lowest) // BLOCK  # row of a shard's first image
        self._blocks = np.array([view.strides[0] // BLOCK for view in self._maps])  # to the next

        # from the lowest address to the end of the highest image
        last = self._first + self._blocks * (np.diff(self._starts) - 1)
        rows = int(last.max()) + 1
        size = (rows - 1) * BLOCK + math.prod(self._shape)
        memory = (ctypes.c_uint8 * size).from_address(lowest)
        strides = (BLOCK, *self._maps[0].strides[1:])
        flat = torch.frombuffer(memory, dtype=torch.uint8)
        return flat.as_strided((rows, *self._shape), strides)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.subset is None else len(self.subset)

    def labels(self, names: Collection[str]) -> Columns:
        """Some labels, one value an image, in their `stored` types.

        Memory holds those alone that were asked for.
        """
        chosen = slice(None) if self.subset is None else self.subset
        missing = [name for name in names if name not in self._labels]
        for name, column in self.index.columns(self._splits, missing).items():
            self._labels[name] = torch.from_numpy(column[chosen])
        return {name: self._labels[name] for name in names}

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """All labels, a row an image."""
        import pandas as pd

        columns = self.labels(self.index.content.labels)
        arrays = {name: column.numpy() for name, column in columns.items()}
        return pd.DataFrame(arrays, index=range(len(self)))

    def gather(self, positions: Ids, out: torch.Tensor) -> torch.Tensor:
        """Read the images at `positions` into `out` [n, H, W, C] uint8."""
        return self._read(positions if self.subset is None else self.subset[positions], out)

    def _read(self, ids: Ids, out: torch.Tensor) -> torch.Tensor:
        if self._copy:
            assert self._rows is not None
            return torch.index_select(self._rows, 0, torch.from_numpy(ids), out=out)
        shard = np.searchsorted(self._starts, ids, side="right") - 1
        if self._rows is not None:
            rows = self._first[shard] + (ids - self._starts[shard]) * self._blocks[shard]
            return torch.index_select(self._rows, 0, torch.from_numpy(rows), out=out)
        for first in range(0, len(ids), AHEAD):  # not all files at once
            some = slice(first, first + AHEAD)
            self._decode(ids[some], shard[some], out[some])
        return out

    def _decode(self, ids: Ids, shard: Ids, out: torch.Tensor) -> None:
        """Decode images of encoded shards; many of them in processes."""
        files = []
        for number, (offset, length) in zip(
            shard.tolist(), self._spans[ids].tolist(), strict=True
        ):
            files.append(self._tars[number][offset : offset + length].tobytes())
        channels = self._shape[2]
        if len(files) <= DECODED:
            out.copy_(torch.from_numpy(decode(files, channels)))
            return

        parts = [files[first : first + DECODED] for first in range(0, len(files), DECODED)]
        decoded = [submit(_decoders(), decode, part, channels) for part in parts]
        for target, images in zip(out.split(DECODED), decoded, strict=True):
            target.copy_(torch.from_numpy(images.result()))

    def space(self, count: int, pinned: bool = False) -> torch.Tensor:
        """Room for so many images, [count, H, W, C] uint8."""
        return torch.empty((count, *self._shape), dtype=torch.uint8, pin_memory=pinned)

    def images(self, positions: Ids | None = None) -> torch.Tensor:
        """Images at positions (default all), in that order, [n, H, W, C] uint8."""
        positions = np.arange(len(self)) if positions is None else positions
        return self.gather(positions, self.space(len(positions)))

    def some(self, count: int) -> torch.Tensor:
        """At most `count` images, always the same ones, [n, H, W, C] uint8."""
        return self.images(self.chosen(count))

    def chosen(self, count: int) -> Ids:
        """The positions of `some` images, in order."""
        if len(self) <= count:
            return np.arange(len(self))
        return np.sort(permute(np.arange(count), len(self), 2))

    def chunks(self, positions: Ids | None = None) -> Iterator[torch.Tensor]:
        """The same, chunk by chunk."""
        positions = np.arange(len(self)) if positions is None else positions
        for places in chunked(len(positions)):
            yield self.images(positions[places])

    def strata(self, label: str) -> dict[int, Ids]:
        """Positions per class number of a label; images without it are left out."""
        values = self.labels([label])[label].numpy()
        codes = np.unique(values[values >= 0]).tolist()
        if not codes:
            raise UserError(
                f"no image of this split has the label {label!r}; "
                "data.balance needs one that is given."
            )
        return {int(code): np.flatnonzero(values == code) for code in codes}

    def order(self, options: Data, seed: int) -> tuple[Order, str]:
        """The order in which images are drawn, and its definition in words.

        UserError: weights that do not fit the label.
        """
        strata: dict[int, Ids] = {}
        classes: list[str] = []
        if options.balance:
            strata = self.strata(options.balance)
            words_of = self.index.content.labels[options.balance].classes
            classes = [words_of[number] for number in strata]
        weights = options.shares(classes)
        order = Order(len(self), seed, tuple(strata.values()), weights)
        words = f"{ALGORITHM} over {len(self)}, balance {options.balance}"
        if weights:
            words += f", weights {weights}"

        # a window at a time, if there are several
        sizes = np.diff(self._starts)
        window = max(1, options.window_images // int(sizes.max()))
        if not options.window_images or window >= len(sizes) or self.subset is not None:
            return order, words
        version = 2 if strata else 1
        words += f", windows-v{version} of {window} shards"
        return replace(order, sizes=sizes, window=window), words

    def stage(self, where: str, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Copy all images once, in order, to `memory`, or to `disk` (the folder TMPDIR).

        That is one copy a node; none: leave them. Where they do not fit, or a stop is asked for, a
        line says so and they are read from where they are. What is drawn, and when, stays the
        same.
        """
        if where == "none" or self._copy:
            return
        total = int(self._starts[-1])
        size = total * math.prod(self._shape)

        def write(stream: IO[bytes]) -> None:
            for ids in np.split(np.arange(total), range(AHEAD, total, AHEAD)):
                if should_stop():
                    raise InterruptedError("a stop was asked for")
                stream.write(self._read(ids, self.space(len(ids))).numpy().data)

        try:
            name = rundir.digest([self.index.images_digest, self._splits, self._shape])
            copy = staging.shared(name, where, size, write)
            weakref.finalize(self, copy.close)
            # shared: a private map of a set beyond memory is refused
            file = f"/proc/self/fd/{copy.fileno()}"
            whole = torch.from_file(file, True, size, dtype=torch.uint8)
            self._rows = whole.view(total, *self._shape)
            self._copy = copy
        except (OSError, RuntimeError) as error:
            if not should_stop():
                instead = f"the images are read from {self.index.folder} instead"
                say(f"data.stage={where}: {error}; {instead}.")

    def sweep(
        self, ids: Ids, swept: deque[int], ended: Callable[[], bool] = lambda: False
    ) -> None:
        """Read the files of these images' shards through, but for those `swept` lately.

        Linux then has them in memory.
        """
        if self._copy:
            return
        shards = np.unique(np.searchsorted(self._starts, ids, side="right") - 1).tolist()
        fresh = [shard for shard in shards if shard not in swept]
        for shard in fresh:
            swept.append(shard)
            path = self.index.folder / self._entries[shard].file
            with open(path, "rb", buffering=0) as stream:
                buffer = bytearray(2**22)
                while not ended() and stream.readinto(buffer):
                    pass


@functools.cache
def _decoders() -> ProcessPoolExecutor:
    """Worker processes for all of this process's readers, started when they are first needed."""
    ranks_here = max(1, surroundings.world_size() // surroundings.nodes())
    return workers(max(1, len(os.sched_getaffinity(0)) // ranks_here))


@dataclass(frozen=True)
class Batch:
    """A rank's slice of a global batch."""

    images: torch.Tensor  # [b, H, W, C] uint8
    labels: Columns  # name -> [b] int64 or float32
    before: Columns  # of the image before each, in the global batch, cyclic
    positions: Ids  # [b] in the split


class _Sweeper:
    """Sweeps shards in a thread of its own; what falls behind is left out."""

    def __init__(self, shards: Shards, window: int) -> None:
        self._shards = shards
        self._swept = deque[int](maxlen=4 * window)
        self._room = threading.Semaphore(4)  # sweeps that wait
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, "sweeper")

    def submit(self, ids: Ids) -> None:
        """Ask for the shards of these images."""
        if self._room.acquire(blocking=False):
            self._pool.submit(self._sweep, ids)

    def _sweep(self, ids: Ids) -> None:
        try:
            self._shards.sweep(ids, self._swept, self._ended.is_set)
        finally:
            self._room.release()

    def end(self) -> None:
        """No stop waits for a slow disk."""
        self._ended.set()

    def close(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown(cancel_futures=True)


def batches(
    shards: Shards,
    order: Order,
    clock: int,
    size: int,
    lo: int,
    hi: int,
    pinned: bool = False,
    wanted: Collection[str] = (),
    before: Collection[str] = (),
    held: int = 1,
) -> Generator[Batch, None, None]:
    """Endless slices lo:hi of the global batches of `size` that follow `clock` [images].

    They come with the `wanted` labels, and with the labels `before` of the images before. A
    batch's images lie in a ring of buffers: they are valid until `held` more batches and then
    another block of them were asked for. `pinned`: in memory from which a GPU copies by itself.
    """
    columns = shards.labels({*wanted, *before})
    share = hi - lo
    steps = max(1, min(AHEAD, BLOCK_BYTES // shards.space(1).numel()) // share)  # of a block
    blocks = 2 * READERS + 1 + math.ceil(held / steps)
    ring = [shards.space(steps * share, pinned) for _ in range(blocks)]
    sweeper = _Sweeper(shards, order.window)
    pool = ThreadPoolExecutor(READERS, "loader")

    def block(turn: int) -> list[Batch]:
        start = clock + turn * steps * size
        drawn = order.ids(start, start + steps * size)

        # on parallel file systems reading single images is slow: whole shards, a window ahead
        if order.window:
            later = start + order.reach
            sweeper.submit(drawn)
            sweeper.submit(order.ids(later, later + steps * size))

        rows = drawn.reshape(steps, size)
        ids = rows[:, lo:hi]
        previous = np.roll(rows, 1, axis=1)[:, lo:hi]
        images = shards.gather(ids.reshape(-1), ring[turn % len(ring)])
        own = _block_rows(columns, wanted, ids, pinned)
        others = _block_rows(columns, before, previous, pinned)
        return [
            Batch(
                images=some, labels=_at(own, step), before=_at(others, step), positions=ids[step]
            )
            for step, some in enumerate(images.split(share))
        ]

    if shards._rows is None:
        _decoders()  # before two threads ask for them at once
    try:
        ahead = deque(pool.submit(block, turn) for turn in range(2 * READERS))
        for turn in itertools.count(2 * READERS):
            read = ahead.popleft().result()  # raises what went wrong in the thread
            ahead.append(pool.submit(block, turn))
            yield from read
    finally:  # waits: a thread inside torch while the interpreter ends would abort the process
        sweeper.end()
        pool.shutdown(cancel_futures=True)
        sweeper.close()


def rows_of(columns: Columns, names: Collection[str], places: torch.Tensor) -> Columns:
    """The values of some labels at places; class numbers as int64."""
    rows = {}
    for name in names:
        values = columns[name][places]
        rows[name] = values if values.is_floating_point() else values.long()
    return rows


def _block_rows(columns: Columns, names: Collection[str], places: Ids, pinned: bool) -> Columns:
    """The same for the images of a block."""
    rows = rows_of(columns, names, torch.from_numpy(places))
    return {name: row.pin_memory() if pinned else row for name, row in rows.items()}


def _at(columns: Columns, step: int) -> Columns:
    """The labels of one batch of a block."""
    return {name: column[step] for name, column in columns.items()}
