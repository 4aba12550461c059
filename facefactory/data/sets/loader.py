"""Batches from shards, gathered (or decoded) thousands of images ahead by background threads.

All raw shards of a split are seen as one array: a tensor that spans the lowest to the highest mapped address, whose rows
start at every tar block and overlap. An image is a row of it, so a gather over any number of shards is one call;
rows that lie between two maps are never touched. Encoded shards are decoded in processes: of small images two threads
decode no more than one.
"""

import ctypes
import functools
import itertools
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np
import pandas as pd
import torch

from facefactory import UserError, config, say, surroundings
from facefactory.data import Data
from facefactory.data.sets import labels, staging
from facefactory.data.sets.index import BLOCK, Index
from facefactory.data.sets.order import ALGORITHM, Ids, Order, permute
from facefactory.data.sets.shard import decode, submit, workers

AHEAD = 4096  # images gathered at once, unless they are so large that
BLOCK_BYTES = 2**26  # would be passed
READERS = (
    2  # blocks that are filled at the same time; as many wait their turn, two are at the consumer
)
DECODED = 64  # images that a worker process decodes at a time
CHUNK = 256  # images that a model sees at once outside of training


class Shards:
    """Splits (or the images `subset` of them) as an array of images with labels."""

    def __init__(self, index: Index, split: str | list[str], subset: Ids | None = None) -> None:
        content, self._splits = index.content, [split] if isinstance(split, str) else split
        self.index, self.subset = index, subset
        self._labels: dict[str, torch.Tensor] = {}
        self._copy: IO[bytes] | None = None  # held, so that others find it
        self._shape = (content["resolution"], content["resolution"], content["channels"])
        self._entries = [shard for name in self._splits for shard in index.split(name)["shards"]]
        self._starts = np.cumsum([0] + [entry["count"] for entry in self._entries])
        self._rows: torch.Tensor | None = None
        if content["storage"] == "raw":
            self._maps = [
                view for name in self._splits for view in index.maps(name)
            ]  # kept: the tensor borrows their memory
            self._blocks = np.array([view.strides[0] // BLOCK for view in self._maps])
            addresses = np.array([view.ctypes.data for view in self._maps])
            self._first = (addresses - addresses.min()) // BLOCK
            rows = int((self._first + self._blocks * (np.diff(self._starts) - 1)).max()) + 1
            memory = (ctypes.c_uint8 * ((rows - 1) * BLOCK + math.prod(self._shape))).from_address(
                int(addresses.min())
            )
            strides = (BLOCK, *self._maps[0].strides[1:])
            self._rows = torch.frombuffer(memory, dtype=torch.uint8).as_strided(
                (rows, *self._shape), strides
            )
        else:
            self._tars = [np.asarray(tar) for name in self._splits for tar in index.tars(name)]
            self._spans = np.stack(
                list(index.columns(self._splits, ["_offset", "_length"]).values()), 1
            )

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.subset is None else len(self.subset)

    def labels(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Some labels, one value an image, in their `stored` types: memory holds those alone that were asked for."""
        chosen = slice(None) if self.subset is None else self.subset
        found = self.index.columns(
            self._splits, [name for name in names if name not in self._labels]
        )
        self._labels |= {name: torch.from_numpy(column[chosen]) for name, column in found.items()}
        return {name: self._labels[name] for name in names}

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """All labels, a row an image."""
        columns = {
            name: column.numpy()
            for name, column in self.labels(self.index.content["labels"]).items()
        }
        return pd.DataFrame(columns, index=range(len(self)))

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
        if not len(ids):
            return out
        if len(ids) > AHEAD:  # not all files at once
            for first in range(0, len(ids), AHEAD):
                self._read(ids[first : first + AHEAD], out[first : first + AHEAD])
            return out
        spans = zip(shard.tolist(), self._spans[ids].tolist(), strict=True)
        files = [
            self._tars[number][offset : offset + length].tobytes()
            for number, (offset, length) in spans
        ]
        parts = [files[first : first + DECODED] for first in range(0, len(files), DECODED)]
        if len(parts) == 1:
            return out.copy_(torch.from_numpy(decode(files, self._shape[2])))
        decoded = [submit(_decoders(), decode, part, self._shape[2]) for part in parts]
        for target, images in zip(out.split(DECODED), decoded, strict=True):
            target.copy_(torch.from_numpy(images.result()))
        return out

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
        first = np.arange(min(count, len(self)))
        return first if len(self) <= count else np.sort(permute(first, len(self), 2))

    def chunks(self, positions: Ids | None = None) -> Iterator[torch.Tensor]:
        """The same a few hundred at a time, for models: memory does not grow with the set."""
        positions = np.arange(len(self)) if positions is None else positions
        return (
            self.images(positions[start : start + CHUNK])
            for start in range(0, len(positions), CHUNK)
        )

    def strata(self, label: str) -> dict[int, Ids]:
        """Positions per class number of a label; images without it are left out."""
        values = self.labels([label])[label].numpy()
        if not (values >= 0).any():
            raise UserError(
                f"no image of this split has the label {label!r}; data.balance needs one that is given."
            )
        return {
            int(value): np.flatnonzero(values == value) for value in np.unique(values[values >= 0])
        }

    def order(self, options: Data, seed: int) -> tuple[Order, str]:
        """The order in which images are drawn, and its definition in words; UserError: weights that do not fit the label."""
        strata = self.strata(options.balance) if options.balance else {}
        words = f"{ALGORITHM} over {len(self)}, balance {options.balance}"
        classes = (
            self.index.content["labels"][options.balance]["classes"] if options.balance else []
        )
        if weights := labels.weights(options, [classes[number] for number in strata]):
            words += f", weights {weights}"
        drawn, sizes = (len(self), seed, tuple(strata.values()), weights), np.diff(self._starts)
        window = max(1, options.window_images // int(sizes.max()))
        if not options.window_images or window >= len(sizes) or self.subset is not None:
            return Order(*drawn), words
        return Order(
            *drawn, sizes, window
        ), f"{words}, windows-v{2 if strata else 1} of {window} shards"

    def stage(self, where: str, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Copy all images once, in order, to `memory`, or to `disk` (the folder TMPDIR), one copy a node; none: leave them.

        Where they do not fit, or a stop is asked for, a line says so and they are read from where they are. What is drawn, and
        when, stays the same.
        """
        total = int(self._starts[-1])
        size = total * math.prod(self._shape)
        if where == "none" or self._copy:
            return

        def write(stream: IO[bytes]) -> None:
            for ids in np.split(np.arange(total), range(AHEAD, total, AHEAD)):
                if should_stop():
                    raise InterruptedError("a stop was asked for")
                stream.write(self._read(ids, self.space(len(ids))).numpy().data)

        try:
            name = config.digest([self.index.images_digest, self._splits, self._shape])
            copy = staging.shared(name, where, size, write)
            weakref.finalize(self, copy.close)
            # shared: a private map of a set beyond memory is refused
            whole = torch.from_file(
                f"/proc/self/fd/{copy.fileno()}", True, size, dtype=torch.uint8
            )
            self._rows, self._copy = whole.view(total, *self._shape), copy
        except (OSError, RuntimeError) as error:
            if not should_stop():
                say(
                    f"data.stage={where}: {error}; the images are read from {self.index.folder} instead."
                )

    def sweep(
        self, ids: Ids, swept: deque[int], ended: Callable[[], bool] = lambda: False
    ) -> None:
        """Read the files of these images' shards through, but for those `swept` lately: Linux then has them in memory."""
        shards = np.unique(np.searchsorted(self._starts, ids, side="right") - 1).tolist()
        for shard in [] if self._copy else [shard for shard in shards if shard not in swept]:
            swept.append(shard)
            with open(
                self.index.folder / self._entries[shard]["file"], "rb", buffering=0
            ) as stream:
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
    labels: dict[str, torch.Tensor]  # name -> [b] int64 or float32
    before: dict[
        str, torch.Tensor
    ]  # the same of the image before each, in the global batch, cyclic
    positions: Ids  # [b] in the split


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
) -> Generator[Batch, None, None]:
    """Endless slices lo:hi of the global batches of `size` that follow `clock` [images], with the `wanted` labels.

    Labels `before` come for the images before, too.

    A batch's images lie in a ring of buffers: they are valid until the next-but-one block of batches is asked for.
    """
    share, columns = hi - lo, shards.labels({*wanted, *before})
    steps = max(1, min(AHEAD, BLOCK_BYTES // shards.space(1).numel()) // share)
    ring = [shards.space(steps * share, pinned) for _ in range(2 * READERS + 2)]
    swept = deque[int](maxlen=4 * order.window)
    sweeper, pool = ThreadPoolExecutor(1, "sweeper"), ThreadPoolExecutor(READERS, "loader")
    room, ended = (
        threading.Semaphore(4),
        threading.Event(),
    )  # sweeps that wait: what falls behind is left out

    def sweep(ids: Ids) -> None:
        try:
            shards.sweep(ids, swept, ended.is_set)
        finally:
            room.release()

    def block(turn: int) -> tuple[Ids, Ids, torch.Tensor]:
        start = clock + turn * steps * size
        drawn = order.ids(start, start + steps * size)
        if (
            order.window
        ):  # on parallel file systems reading single images is slow: whole shards, a window ahead
            later = start + order.reach
            for ids in (drawn, order.ids(later, later + steps * size)):
                if room.acquire(blocking=False):
                    sweeper.submit(sweep, ids)
        rows = drawn.reshape(steps, size)
        ids, previous = rows[:, lo:hi], np.roll(rows, 1, axis=1)[:, lo:hi]
        images = shards.gather(ids.reshape(-1), ring[turn % len(ring)])
        return ids, previous, images.view(steps, share, *images.shape[1:])

    if shards._rows is None:
        _decoders()  # before two threads ask for them at once
    try:
        ahead = deque(pool.submit(block, turn) for turn in range(2 * READERS))
        for turn in itertools.count(2 * READERS):
            found = ahead.popleft().result()  # raises what went wrong in the thread
            ahead.append(pool.submit(block, turn))
            for positions, previous, images in zip(*found, strict=True):
                labels = _rows({name: columns[name] for name in wanted}, positions)
                yield Batch(
                    images,
                    labels,
                    _rows({name: columns[name] for name in before}, previous),
                    positions,
                )
    finally:  # waits: a thread inside torch while the interpreter ends would abort the process
        ended.set()  # no stop waits for a slow disk
        pool.shutdown(cancel_futures=True)
        sweeper.shutdown(cancel_futures=True)


def _rows(columns: dict[str, torch.Tensor], positions: Ids) -> dict[str, torch.Tensor]:
    """The values at positions; class numbers as int64."""
    chosen = torch.from_numpy(positions)
    found = {name: column[chosen] for name, column in columns.items()}
    return {
        name: values if values.is_floating_point() else values.long()
        for name, values in found.items()
    }


def on_device(stream: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on a device; each is copied there while the one before it is worked on."""
    if device.type == "cpu":
        yield from stream
        return
    side, waiting = torch.cuda.Stream(device), deque[tuple[Batch, torch.cuda.Event]]()
    for batch in stream:
        with torch.cuda.stream(side):
            labels, before = (
                {name: column.to(device, non_blocking=True) for name, column in columns.items()}
                for columns in (batch.labels, batch.before)
            )
            moved = Batch(
                batch.images.to(device, non_blocking=True), labels, before, batch.positions
            )
            waiting.append((moved, side.record_event()))
        if len(waiting) == 2:
            ready, copied = waiting.popleft()
            copied.synchronize()  # from here on its buffer may be filled again
            for tensor in (ready.images, *ready.labels.values(), *ready.before.values()):
                tensor.record_stream(torch.cuda.current_stream(device))
            yield ready
