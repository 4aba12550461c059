"""Batches from mapped shards, gathered thousands of images ahead by one background thread.

All shards of a split are seen as one array: a tensor that spans the lowest to the highest mapped address, whose rows
start at every tar block and overlap. An image is a row of it, so a gather over any number of shards is one call;
rows that lie between two maps are never touched.
"""

import ctypes
import itertools
import math
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from facefactory import UserError
from facefactory.data.index import BLOCK, Index
from facefactory.data.order import Ids, Order, permute

AHEAD = 4096  # images gathered at once, unless they are so large that
BLOCK_BYTES = 2**28  # would be passed
RING = 4  # blocks in use: two at the consumer (a batch outlives its block), two being filled
CHUNK = 256  # images that a model sees at once outside of training


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
        rows = int((self._first + self._blocks * (np.diff(self._starts) - 1)).max()) + 1
        shape, strides = self._maps[0].shape[1:], self._maps[0].strides[1:]
        memory = (ctypes.c_uint8 * ((rows - 1) * BLOCK + math.prod(shape))).from_address(int(addresses.min()))
        self._rows = torch.frombuffer(memory, dtype=torch.uint8).as_strided((rows, *shape), (BLOCK, *strides))

    def __len__(self) -> int:
        return len(self.table)

    def gather(self, positions: Ids, out: torch.Tensor) -> torch.Tensor:
        """Read the images at `positions` into `out` [n, H, W, C] uint8."""
        ids = positions if self.subset is None else self.subset[positions]
        shard = np.searchsorted(self._starts, ids, side="right") - 1
        rows = self._first[shard] + (ids - self._starts[shard]) * self._blocks[shard]
        return torch.index_select(self._rows, 0, torch.from_numpy(rows), out=out)

    def space(self, count: int) -> torch.Tensor:
        """Room for so many images, [count, H, W, C] uint8."""
        return torch.empty((count, *self._rows.shape[1:]), dtype=torch.uint8)

    def images(self, positions: Ids | None = None) -> torch.Tensor:
        """Images at positions (default all), in that order, [n, H, W, C] uint8."""
        positions = np.arange(len(self)) if positions is None else positions
        return self.gather(positions, self.space(len(positions)))

    def some(self, count: int) -> torch.Tensor:
        """At most `count` images, always the same ones, [n, H, W, C] uint8."""
        chosen = np.arange(min(count, len(self)))
        return self.images(chosen if len(self) <= count else np.sort(permute(chosen, len(self), 2)))

    def chunks(self, positions: Ids | None = None) -> Iterator[torch.Tensor]:
        """The same a few hundred at a time, for models: memory does not grow with the set."""
        positions = np.arange(len(self)) if positions is None else positions
        return (self.images(positions[start : start + CHUNK]) for start in range(0, len(positions), CHUNK))

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
    share = hi - lo
    steps = max(1, min(AHEAD, BLOCK_BYTES // shards.space(1).numel()) // share)
    ring = [shards.space(steps * share) for _ in range(RING)]

    def block(turn: int) -> tuple[Ids, torch.Tensor]:
        start = clock + turn * steps * size
        ids = order.ids(start, start + steps * size).reshape(steps, size)[:, lo:hi]
        images = shards.gather(ids.reshape(-1), ring[turn % RING])
        return ids, images.view(steps, share, *images.shape[1:])

    pool = ThreadPoolExecutor(1, "loader")
    try:
        ahead = deque(pool.submit(block, turn) for turn in range(RING - 2))
        for turn in itertools.count(RING - 2):
            found = ahead.popleft().result()  # raises what went wrong in the thread
            ahead.append(pool.submit(block, turn))
            for positions, images in zip(*found, strict=True):
                labels = {name: column[torch.from_numpy(positions)] for name, column in shards.labels.items()}
                yield Batch(images, labels, positions)
    finally:  # waits: a thread inside torch while the interpreter ends would abort the process
        pool.shutdown(cancel_futures=True)
