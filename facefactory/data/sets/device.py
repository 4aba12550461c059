"""Batches where networks compute: copied there ahead of use, or gathered from a set that lies there.

The host never waits for an iteration it has just queued: it runs a few ahead of the device.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from facefactory import UserError
from facefactory.data.sets import staging
from facefactory.data.sets.loader import AHEAD, Batch, Columns, Shards, batches, rows_of
from facefactory.data.sets.order import Ids, Order

LAG = 4  # iterations that the host may be ahead of the device
MOST = 0.8  # of a device's free memory that images may take
GIB = 2**30


@dataclass(frozen=True)
class Share:
    """The slice lo:hi of global batches of `size`, with the labels `wanted`, and those `before` of the image before."""

    size: int
    lo: int
    hi: int
    wanted: Collection[str] = ()
    before: Collection[str] = ()


def stream(
    shards: Shards,
    order: Order,
    clock: int,
    share: Share,
    device: torch.device,
    stage: str = "none",
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Batch, None, None]:
    """Endless batches on a device from `clock` [images] on; `stage` says where images lie, and changes no batch.

    Raises:
        UserError: they shall lie on the device, and do not fit.
    """
    if stage == "device":
        images = resident(shards, device, should_stop)
        if images is not None:
            return _paced(_gathered(shards, images, order, clock, share), device)
    else:
        shards.stage(stage, should_stop)
    pinned = device.type == "cuda"
    read = batches(
        shards,
        order,
        clock,
        share.size,
        share.lo,
        share.hi,
        pinned,
        share.wanted,
        share.before,
        held=LAG + 1,
    )
    return on_device(read, device)


def on_device(
    stream: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """The batches on a device; each is copied there while the one before it is worked on."""
    return stream if device.type == "cpu" else _paced(_copied(stream, device), device)


def _copied(
    stream: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """Batches copied on a stream of their own, for which the computing one waits and no host."""

    def moved(columns: Columns) -> Columns:
        return {name: column.to(device, non_blocking=True) for name, column in columns.items()}

    side = torch.cuda.Stream(device)
    waiting = deque[tuple[Batch, torch.cuda.Event]]()
    try:
        for batch in stream:
            with torch.cuda.stream(side):
                images = batch.images.to(device, non_blocking=True)
                copy = Batch(images, moved(batch.labels), moved(batch.before), batch.positions)
                waiting.append((copy, side.record_event()))
            if len(waiting) < 2:
                continue

            # memory that the other stream asked for is kept until this one has used it
            ready, copied = waiting.popleft()
            here = torch.cuda.current_stream(device)
            here.wait_event(copied)
            for tensor in (ready.images, *ready.labels.values(), *ready.before.values()):
                tensor.record_stream(here)
            yield ready
    finally:
        stream.close()


def _paced(
    stream: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """Batches, `LAG` of whose iterations wait on the device at most: buffers and memory are bounded."""
    ends = deque[torch.cuda.Event]()
    try:
        for batch in stream:
            yield batch
            if device.type == "cpu":
                continue
            ends.append(torch.cuda.current_stream(device).record_event())
            if len(ends) > LAG:
                ends.popleft().synchronize()
    finally:
        stream.close()


def resident(
    shards: Shards, device: torch.device, should_stop: Callable[[], bool] = lambda: False
) -> torch.Tensor | None:
    """All images in a device's memory, [n, H, W, C] uint8; None: a stop was asked for.

    Raises:
        UserError: they do not fit.
    """
    space = shards.space(AHEAD, device.type == "cuda")
    size = len(shards) * math.prod(space.shape[1:])
    cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else staging.free_memory()
    if size > MOST * free:
        raise UserError(
            f"data.stage=device: {size / GIB:.3g} GiB of images do not fit into {MOST:.0%} of the "
            f"{free / GIB:.3g} GiB free on {device}; give data.stage=memory, disk or none."
        )

    # in order, a part at a time
    images = torch.empty((len(shards), *space.shape[1:]), dtype=torch.uint8, device=device)
    for target in images.split(AHEAD):
        if should_stop():
            return None
        first = target.storage_offset() // math.prod(space.shape[1:])
        ids = np.arange(first, first + len(target))
        target.copy_(shards.gather(ids, space[: len(ids)]))
    return images


def _gathered(
    shards: Shards, images: torch.Tensor, order: Order, clock: int, share: Share
) -> Generator[Batch, None, None]:
    """Batches from images that lie on the device, as their labels do: of a batch its positions travel alone."""
    device = images.device
    columns = {
        name: column.to(device)
        for name, column in shards.labels({*share.wanted, *share.before}).items()
    }
    steps = max(1, AHEAD // share.size)  # of a block

    def block(turn: int) -> tuple[Ids, torch.Tensor]:
        start = clock + turn * steps * share.size
        rows = order.ids(start, start + steps * share.size).reshape(steps, share.size)
        pair = np.stack([rows, np.roll(rows, 1, axis=1)])[:, :, share.lo : share.hi]
        both = torch.from_numpy(pair)
        return pair[0], both.pin_memory() if device.type == "cuda" else both

    with ThreadPoolExecutor(1, "order") as pool:
        ahead = pool.submit(block, 0)
        for turn in itertools.count(1):
            drawn, both = ahead.result()
            ahead = pool.submit(block, turn)
            places, previous = both.to(device, non_blocking=True)
            for positions, here, before in zip(drawn, places, previous, strict=True):
                yield Batch(
                    images=images.index_select(0, here),
                    labels=rows_of(columns, share.wanted, here),
                    before=rows_of(columns, share.before, before),
                    positions=positions,
                )
