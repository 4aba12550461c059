"""The loader: the order's images in the order's order, whatever the ranks, the clock and the shards."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from facefactory.data import loader
from facefactory.data.index import Index
from facefactory.data.loader import Shards, batches
from facefactory.data.order import Ids, Order
from facefactory.data.pixels import to_model, to_uint8


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of 16 images, so that a few batches cross many of them."""
    monkeypatch.setattr(loader, "AHEAD", 16)
    return 16


def read_tars(index: Index, split: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Images [N, H, W, C] and label rows of a split, read without the loader or the mapping."""
    images, rows = [], []
    for shard in index.split(split)["shards"]:
        with tarfile.open(index.folder / shard["file"]) as tar:
            for info in tar.getmembers():
                content = tar.extractfile(info).read()  # type: ignore[union-attr]
                if info.name.endswith(".npy"):
                    images.append(np.load(io.BytesIO(content)))
                else:
                    rows.append(json.loads(content))
    return np.stack(images), rows


@pytest.mark.parametrize("clock", [0, 8, 44, 45, 1003])
@pytest.mark.parametrize("balance", [None, "Glasses"])
def test_batches_are_the_orders_images(index: Index, short_blocks: int, clock: int, balance: str | None) -> None:
    images, rows = read_tars(index, "train")
    shards = Shards(index, "train")
    order = Order(len(shards), 3, shards.strata(balance) if balance else ())
    for number, batch in enumerate(itertools.islice(batches(shards, order, clock, 8, 0, 8), 30)):  # over 5 epochs
        ids = order.ids(clock + 8 * number, clock + 8 * number + 8)
        assert batch.positions.tolist() == ids.tolist()
        assert np.array_equal(batch.images.numpy(), images[ids])
        for name in ("Person", "Glasses", "Beard"):
            assert batch.labels[name].tolist() == [rows[i][name] for i in ids]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_slices_make_up_the_global_batch(index: Index, short_blocks: int, ranks: int) -> None:
    shards = Shards(index, "train")
    order, share = Order(len(shards), 1), 12 // ranks
    streams = [batches(shards, order, 7, 12, rank * share, (rank + 1) * share) for rank in range(ranks)]
    for number in range(15):
        slices = [next(stream) for stream in streams]
        ids = order.ids(7 + 12 * number, 19 + 12 * number)
        assert np.concatenate([found.positions for found in slices]).tolist() == ids.tolist()
        assert torch.equal(torch.cat([found.images for found in slices]), shards.images(ids))
        assert torch.equal(torch.cat([found.labels["Person"] for found in slices]), shards.labels["Person"][ids])


def test_a_subset_is_a_set_of_its_own(index: Index, short_blocks: int) -> None:
    images, rows = read_tars(index, "train")
    chosen = np.array([44, 3, 17, 30, 16])  # of all three shards, not sorted
    subset = Shards(index, "train", chosen)
    assert len(subset) == 5
    assert np.array_equal(subset.images().numpy(), images[chosen])
    assert subset.labels["Person"].tolist() == [rows[i]["Person"] for i in chosen]
    assert subset.table["file"].tolist() == [rows[i]["file"] for i in chosen]
    batch = next(batches(subset, Order(5, 0), 0, 5, 0, 5))
    assert np.array_equal(batch.images.numpy(), images[chosen[batch.positions]])


def test_several_splits_are_one_array(index: Index) -> None:
    both = Shards(index, ["test", "train"])
    images = np.concatenate([read_tars(index, split)[0] for split in ("test", "train")])
    assert len(both) == len(images) == 60
    assert np.array_equal(both.images().numpy(), images)
    assert np.array_equal(both.images(np.array([59, 0, 15, 14])).numpy(), images[[59, 0, 15, 14]])


def test_strata_are_the_classes_without_missing_labels(index: Index) -> None:
    shards = Shards(index, "train")
    beard = shards.labels["Beard"].numpy()
    assert -1 in beard
    assert [found.tolist() for found in shards.strata("Beard")] == [np.flatnonzero(beard == c).tolist() for c in (0, 1)]


def test_labels_have_the_types_of_their_kind(index: Index) -> None:
    assert {column.dtype for column in Shards(index, "test").labels.values()} == {torch.int32}


class Broken(Order):
    """An order that fails after the first block."""

    def ids(self, start: int, stop: int) -> Ids:
        if start:
            raise OSError("the disk is gone")
        return super().ids(start, stop)


def test_a_reader_error_reaches_the_consumer(index: Index, short_blocks: int) -> None:
    shards = Shards(index, "train")
    stream = batches(shards, Broken(len(shards), 0), 0, 8, 0, 8)
    assert [len(next(stream).images) for _ in range(2)] == [8, 8]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_batches_stay_valid_until_the_next_but_one_block(index: Index, short_blocks: int) -> None:
    shards = Shards(index, "train")
    stream = batches(shards, Order(len(shards), 0), 0, 8, 0, 8)  # a block is two batches
    for _ in range(6):
        kept = [next(stream) for _ in range(4)]
        copies = [batch.images.clone() for batch in kept]
        time.sleep(0.02)  # let the reader run as far ahead as it may
        for batch, copy in zip(kept, copies, strict=True):
            assert torch.equal(batch.images, copy)
            assert torch.equal(copy, shards.images(batch.positions))


def test_closing_the_stream_ends_its_thread(index: Index, short_blocks: int) -> None:
    before = set(threading.enumerate())
    stream = batches(Shards(index, "train"), Order(45, 0), 0, 8, 0, 8)
    next(stream)
    (reader,) = set(threading.enumerate()) - before
    stream.close()
    reader.join(timeout=5)
    assert not reader.is_alive()


def test_pixels_survive_the_way_to_the_model_and_back() -> None:
    stored = torch.arange(256, dtype=torch.uint8).view(2, 8, 4, 4)
    floats = to_model(stored)
    assert floats.shape == (2, 4, 8, 4) and floats.is_contiguous()
    assert (floats.min().item(), floats.max().item()) == (-1.0, 1.0)
    assert torch.equal(floats[0, 2, 3], stored[0, 3, :, 2] / 127.5 - 1)
    assert torch.equal(to_uint8(floats), stored)


def test_pixels_beyond_the_range_are_clamped() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0]).view(5, 1, 1, 1)).flatten().tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]


def test_a_sample_of_a_split_is_always_the_same_and_spread_over_it(index: Index) -> None:
    shards = Shards(index, "train")
    assert torch.equal(shards.some(10**6), shards.images())
    few, again = shards.some(12), shards.some(12)
    assert torch.equal(few, again) and len(few) == 12
    places = [int((shards.images() == image).flatten(1).all(1).nonzero()[0]) for image in few]
    assert len(set(places)) == 12 and max(places) > 20
