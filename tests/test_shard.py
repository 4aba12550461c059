"""Encoded and raw shards: Pillow, tarfile and webdataset read in them what was written, and the loader reads the same."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from facefactory.data.sets.index import FORMAT, Content, Index, Skipped, Split, write
from facefactory.data.sets.loader import Shards, batches
from facefactory.data.sets.order import Order
from facefactory.data.sets.shard import write_shard
from facefactory.facts import Label

ENDINGS = {"raw": "npy", "png": "png", "jpeg": "jpg", "webp": "webp"}


def smooth(count: int, side: int, channels: int) -> np.ndarray:
    """Random pictures that compress, [count, side, side, channels]."""
    coarse = np.random.default_rng(count + side).integers(
        0, 256, (count, 4, 4, channels), np.uint8
    )
    pictures = [
        Image.fromarray(one.squeeze()).resize((side, side), Image.Resampling.BICUBIC)
        for one in coarse
    ]
    return np.stack([np.asarray(one).reshape(side, side, channels) for one in pictures])


def pack_arrays(folder: Path, images: np.ndarray, storage: str, per_shard: int = 7) -> Index:
    """Images as a set with one split `train` and the label `Even`."""
    folder.mkdir()
    rows = pd.DataFrame(
        {
            "file": [f"{n}.png" for n in range(len(images))],
            "Even": np.arange(len(images), dtype=np.int32) % 2,
        }
    )
    entries = []
    for number, first in enumerate(range(0, len(images), per_shard)):
        part = slice(first, first + per_shard)
        entry, skipped = write_shard(
            f"{folder}/train-{number:06d}",
            first,
            list(images[part]),
            rows[part],
            np.asarray,
            storage,
        )
        assert skipped == []
        entries.append(entry)

    # and what index.json says of it
    labels = {"Even": Label("binary", ("0", "1"))}
    content = Content(
        format=FORMAT,
        storage="raw" if storage == "raw" else "encoded",
        dataset="made",
        resolution=images.shape[1],
        channels=images.shape[3],
        labels=labels,
        splits={"train": Split(len(images), entries)},
    )
    return write(folder, content)


def by_pillow(index: Index) -> np.ndarray:
    """All images of a set, read with tarfile and Pillow (or numpy) alone."""
    found = []
    for shard in index.split("train").shards:
        with tarfile.open(index.folder / shard.file) as tar:
            for info in tar.getmembers()[::2]:
                content = io.BytesIO(tar.extractfile(info).read())  # type: ignore[union-attr]
                found.append(
                    np.load(content)
                    if info.name.endswith("npy")
                    else np.asarray(Image.open(content))
                )
    return np.stack(found).reshape(len(found), *found[0].shape[:2], -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("storage", ENDINGS)
def test_every_storage_gives_the_images_that_pillow_decodes(
    tmp_path: Path, storage: str, channels: int
) -> None:
    images = smooth(40, 16, channels)
    index = pack_arrays(tmp_path / "set", images, storage)
    index.verify(full=True)
    shards = Shards(index, "train")
    stored = by_pillow(index)[..., :channels]
    assert np.array_equal(shards.images().numpy(), stored)
    if storage == "jpeg":
        assert 0 < np.abs(stored.astype(int) - images).mean() < 3
    else:
        assert np.array_equal(stored, images)
    order = Order(len(shards), 1)
    for number, batch in zip(
        range(12), batches(shards, order, 3, 8, 0, 8, False, ["Even"]), strict=False
    ):
        ids = order.ids(3 + 8 * number, 11 + 8 * number)
        assert np.array_equal(batch.images.numpy(), stored[ids])
        assert batch.labels["Even"].tolist() == (ids % 2).tolist()


def test_an_encoded_subset_is_decoded_in_its_own_order(tmp_path: Path) -> None:
    images = smooth(200, 8, 3)
    chosen = np.array([150, 2, 77])
    subset = Shards(pack_arrays(tmp_path / "set", images, "png", 90), "train", chosen)
    assert np.array_equal(subset.images().numpy(), images[chosen])
    assert subset.table["Even"].tolist() == [0, 0, 1]


def test_no_images_of_an_encoded_set_are_no_images(tmp_path: Path) -> None:
    assert Shards(pack_arrays(tmp_path / "set", smooth(3, 16, 1), "png"), "train").images(
        np.arange(0)
    ).shape == (0, 16, 16, 1)


def test_lossless_storage_does_not_change_the_images_digest(tmp_path: Path) -> None:
    images = smooth(20, 16, 3)
    digests = {
        storage: pack_arrays(tmp_path / storage, images, storage).images_digest
        for storage in ENDINGS
    }
    assert digests["raw"] == digests["png"] == digests["webp"] != digests["jpeg"]


@pytest.mark.parametrize("storage", ENDINGS)
def test_the_same_images_give_the_same_bytes(tmp_path: Path, storage: str) -> None:
    one, two = (
        pack_arrays(tmp_path / name, smooth(20, 16, 3), storage) for name in ("one", "two")
    )
    assert one.content == two.content


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # webdataset leaves its tars to the collector
@pytest.mark.parametrize("storage", ENDINGS)
def test_webdataset_reads_every_storage_with_an_allow_list_of_decoders(
    tmp_path: Path, storage: str
) -> None:
    import webdataset

    def allowed(key: str, content: bytes) -> Any:
        if key == ".json":
            return json.loads(content)
        if key == ".npy":
            return np.load(io.BytesIO(content), allow_pickle=False)
        assert key in (".png", ".jpg", ".webp")
        return np.asarray(Image.open(io.BytesIO(content)))

    index = pack_arrays(tmp_path / "set", smooth(20, 16, 3), storage)
    tars = [str(index.folder / shard.file) for shard in index.split("train").shards]
    samples = list(
        webdataset.WebDataset(tars, shardshuffle=False).decode(allowed, pre=[], post=[])
    )
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(20)]
    assert [sample["json"]["file"] for sample in samples] == index.table("train")["file"].tolist()
    assert np.array_equal(
        np.stack([sample[ENDINGS[storage]] for sample in samples]), by_pillow(index)
    )


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    def read(number: int) -> np.ndarray:
        if number == 2:
            raise ValueError("not a picture")
        return np.full((8, 8, 1), number, np.uint8)

    rows = pd.DataFrame({"file": [f"{n}.png" for n in range(5)]})
    for storage in ENDINGS:
        (tmp_path / storage).mkdir()
        entry, skipped = write_shard(
            f"{tmp_path}/{storage}/train-000000", 10, list(range(5)), rows, read, storage
        )
        assert skipped == [Skipped("2.png", "ValueError: not a picture")]
        assert entry.count == 4
        assert pd.read_parquet(tmp_path / storage / entry.table)["file"].tolist() == [
            "0.png",
            "1.png",
            "3.png",
            "4.png",
        ]
        with tarfile.open(tmp_path / storage / entry.file) as tar:
            assert [name.split(".")[0] for name in tar.getnames()[::2]] == [
                "00000010",
                "00000011",
                "00000012",
                "00000013",
            ]


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_shard_that_is_not_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: BaseException
) -> None:
    def member(number: int, ending: str, content: bytes) -> bytes:
        if (number, ending) == (3, "json"):
            raise broken
        return b"x" * 512

    monkeypatch.setattr("facefactory.data.sets.shard.member", member)
    rows = pd.DataFrame({"file": [f"{n}.png" for n in range(5)]})
    with pytest.raises(type(broken)):
        write_shard(
            f"{tmp_path}/train-000000", 0, list(np.zeros((5, 8, 8, 1), np.uint8)), rows, np.asarray
        )
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    rows = pd.DataFrame({"file": [f"{n}.png" for n in range(300)]})
    tracemalloc.start()
    write_shard(
        f"{tmp_path}/train-000000",
        0,
        list(range(300)),
        rows,
        lambda number: np.full((128, 128, 3), number % 256, np.uint8),
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # the shard has 15 MB
    assert (tmp_path / "train-000000.tar").stat().st_size > 14_000_000


def test_a_damaged_member_stops_the_reader(tmp_path: Path) -> None:
    index = pack_arrays(tmp_path / "set", smooth(20, 16, 3), "png")
    with open(index.folder / "train-000001.tar", "r+b") as tar:
        tar.seek(512)
        tar.write(bytes(100))
    with pytest.raises(UnidentifiedImageError):
        Shards(index, "train").images(np.array([7]))
    assert torch.equal(
        Shards(index, "train").images(np.array([6])), torch.from_numpy(smooth(20, 16, 3)[6:7])
    )
