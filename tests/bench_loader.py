"""`make bench`: how fast shards are read, in one run, against webdataset + PIL and against a gather from memory."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image

from facefactory.data import pack
from facefactory.data.index import Index
from facefactory.data.loader import Shards, batches
from facefactory.data.order import Order

SHARDS, PER_SHARD, SIDE, BATCH = 24, 2048, 64, 64


def make(folder: Path) -> tuple[Index, list[str]]:
    """The same smooth random images as our shards and as tars of JPEGs, 24 shards each."""
    rng = np.random.default_rng(0)
    entries, jpegs = [], []
    for number in range(SHARDS):
        coarse = rng.integers(0, 256, (PER_SHARD, 8, 8, 3), np.uint8)
        paths, table = [], []
        (folder / "png").mkdir(exist_ok=True)
        with tarfile.open(folder / f"jpeg-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i, image in enumerate(coarse):
                picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                path = folder / "png" / f"{i:08d}.bmp"
                picture.save(path)
                paths.append(path)
                table.append({"file": path.name})
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{i:08d}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
        jpegs.append(str(folder / f"jpeg-{number:06d}.tar"))
        import pandas as pd

        decode = functools.partial(pack.read_image, crop="square", resolution=SIDE, color="rgb")
        stem = f"{folder}/train-{number:06d}"
        entries.append(pack.write_shard(stem, number * PER_SHARD, paths, pd.DataFrame(table), decode))
    split = {"count": SHARDS * PER_SHARD, "shards": entries}
    return Index(folder, {"resolution": SIDE, "channels": 3, "labels": {}, "splits": {"train": split}}), jpegs


def rate(step: Callable[[], int], seconds: float = 3.0) -> float:
    """Images per second of a step that answers how many images it delivered."""
    step()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += step()
    return done / (time.perf_counter() - start)


def main() -> None:
    """Print the table: median images/s over five alternated rounds, and the ratio to the gather from memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        index, jpegs = make(Path(name))
        shards = Shards(index, "train")
        order = Order(len(shards), 0)
        memory = shards.images()
        ours = batches(shards, order, 0, BATCH, 0, BATCH)
        clock = [0]

        def tar_step() -> int:
            for _ in range(64):
                next(ours)
            return 64 * BATCH

        def memory_step() -> int:
            for ids in order.ids(clock[0], clock[0] + 64 * BATCH).reshape(64, BATCH):
                memory.index_select(0, torch.from_numpy(ids))
            clock[0] += 64 * BATCH
            return 64 * BATCH

        stream = iter(webdataset.WebDataset(jpegs * 1000, shardshuffle=False).shuffle(1000).decode("pil").to_tuple("jpg"))

        def webdataset_step() -> int:
            for _ in range(BATCH):
                np.asarray(next(stream)[0])
            return BATCH

        steps = {"gather from memory": memory_step, "FaceFactory shards": tar_step, "webdataset + PIL": webdataset_step}
        rates: dict[str, list[float]] = {label: [] for label in steps}
        for _ in range(5):
            for label, step in steps.items():
                rates[label].append(rate(step, 1.5))
    print(f"{SHARDS} shards x {PER_SHARD} images, {SIDE}x{SIDE} RGB, batches of {BATCH}, warm, {os.cpu_count()} cores")
    base = float(np.median(rates["gather from memory"]))
    for label, found in rates.items():
        print(f"{label:20s} {np.median(found):12,.0f} images/s   {np.median(found) / base:7.4f} of the gather from memory")
    ours_rate, peer = np.median(rates["FaceFactory shards"]), np.median(rates["webdataset + PIL"])
    print(f"FaceFactory / webdataset + PIL: {ours_rate / peer:.0f} x")


if __name__ == "__main__":
    main()
