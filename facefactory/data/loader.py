"""Batches from mapped shards, gathered thousands of images ahead by one background thread.

All shards of a split are seen as one array: a tensor that spans the lowest to the highest mapped address, whose rows
start at every tar block and overlap. An image is a row of it, so a gather over any number of shards is one call;
rows that lie between two maps are never touched.
"""

from __future__ import annotations

import ctypes
import math
import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from facefactory import UserError
from facefactory.data.index import BLOCK, Index
from facefactory.data.order import Ids, Order

AHEAD = 4096  # images gathered at once, unless they are so large that
BLOCK_BYTES = 2**28  # would be passed
RING = 4  # blocks in use: one at the consumer, one queued, one being filled, one spare


class Shards:
    """Splits (or the images `subset` of them) as an array of images with labels."""

    def __init__(self, index: Index, split: str | list[str], subset: Ids | None = None) -> None:
        splits = [split] if isinstance(split, str) else split
        self.index, self.subset = index, subset
        self.table = pd.concat([index.table(name) for name in splits], ignore_index=True)
        if subset is not None:
            self.table = self.table.iloc[subset].reset_index(drop=True)
        self.labels = {name: torch.from_numpy(self.table[name].to_numpy(copy=True)) for name in index.content["labels"]}
        self._maps = [view for name in splits for view in index.maps(name)]  # kept: the tensor below borrows their memory
        self._starts = np.cumsum([0] + [len(view) for view in self._maps])
        self._blocks = np.array([view.strides[0] // BLOCK for view in self._maps])
        addresses = np.array([view.ctypes.data for view in self._maps])
        self._first = (addresses - addresses.min()) // BLOCK
        last = max(address + view.strides[0] * (len(view) - 1) for address, view in zip(addresses, self._maps, strict=True))
        shape, strides = self._maps[0].shape[1:], self._maps[0].strides[1:]
        span = int(last - addresses.min()) + int(np.prod(shape))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * span).from_address(int(addresses.min())))
        rows = int(last - addresses.min()) // BLOCK + 1
        self._rows = torch.from_numpy(np.lib.stride_tricks.as_strided(memory, (rows, *shape), (BLOCK, *strides)))

    def __len__(self) -> int:
        return len(self.table)

    def gather(self, positions: Ids, out: torch.Tensor) -> torch.Tensor:
        """Read the images at `positions` into `out` [n, H, W, C] uint8."""
        ids = positions if self.subset is None else self.subset[positions]
        shard = np.searchsorted(self._starts, ids, side="right") - 1
        rows = self._first[shard] + (ids - self._starts[shard]) * self._blocks[shard]
        return torch.index_select(self._rows, 0, torch.from_numpy(rows), out=out)

    def images(self, positions: Ids | None = None) -> torch.Tensor:
        """Images at positions (default all), in that order, [n, H, W, C] uint8."""
        positions = np.arange(len(self)) if positions is None else positions
        return self.gather(positions, torch.empty((len(positions), *self._rows.shape[1:]), dtype=torch.uint8))

    def strata(self, label: str) -> tuple[Ids, ...]:
        """Positions per class of a label; images without it are left out."""
        values = self.labels[label].numpy()
        if not (values >= 0).any():
            raise UserError(f"no image of this split has the label {label!r}; data.balance needs one that is given.")
        return tuple(np.flatnonzero(values == value) for value in np.unique(values[values >= 0]))


@dataclass(frozen=True)
class Batch:
    """A rank's slice of a global batch: images [b, H, W, C] uint8, labels [b] each, positions [b] in the split."""

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    positions: Ids


def batches(shards: Shards, order: Order, clock: int, size: int, lo: int, hi: int) -> Generator[Batch, None, None]:
    """Endless slices lo:hi of the global batches of `size` that follow `clock` [images].

    A batch's images lie in a ring of buffers: they are valid until the next-but-one block of batches is asked for.
    """
    image_bytes = math.prod(shards._rows.shape[1:])
    steps = max(1, min(AHEAD, BLOCK_BYTES // image_bytes) // (hi - lo))
    ring = [torch.empty((steps * (hi - lo), *shards._rows.shape[1:]), dtype=torch.uint8) for _ in range(RING)]
    ready: queue.Queue[Any] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def fill() -> None:
        start, turn = clock, 0
        try:
            while not closed.is_set():
                ids = order.ids(start, start + steps * size).reshape(steps, size)[:, lo:hi]
                block = shards.gather(ids.reshape(-1), ring[turn % RING])
                _put(ready, (ids, block.view(steps, hi - lo, *block.shape[1:])), closed)
                start, turn = start + steps * size, turn + 1
        except BaseException as error:  # handed to the consumer, who raises it
            _put(ready, error, closed)

    thread = threading.Thread(target=fill, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            for positions, images in zip(*item, strict=True):
                labels = {name: column[torch.from_numpy(positions)] for name, column in shards.labels.items()}
                yield Batch(images, labels, positions)
    finally:
        closed.set()
        thread.join()  # a thread inside torch while the interpreter ends would abort the process


def _put(ready: queue.Queue[Any], item: Any, closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            return ready.put(item, timeout=0.2)
        except queue.Full:
            continue
