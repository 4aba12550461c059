"""index.json: what a folder of shards holds; mapping its tars as arrays; checking them.

A shard is a USTAR tar of pairs `00000000.npy` + `00000000.json`, all of one size, so that images lie at a fixed stride.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError, config, rundir

FORMAT = 1
BLOCK = 512  # tar works in blocks
NPY_HEADER = 128


def padded(size: int) -> int:
    """`size` rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


@dataclass(frozen=True)
class Index:
    """A packed face set.

    `content` is index.json: format, storage, dataset, resolution, channels, labels (schema), group, origin, licence,
    splits {name: {count, shards: [{file, count, stride, sha256, pixels_sha256, table, table_sha256, bytes}]}}, skipped.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def images_digest(self) -> str:
        """Digest of pixels, sizes and splits: what an unconditional model depends on."""
        return config.digest(self._column("pixels_sha256"))

    @property
    def labels_digest(self) -> str:
        """Digest of labels and their schema."""
        return config.digest([self.content["labels"], self.content["group"], self._column("table_sha256")])

    def _column(self, key: str) -> dict[str, list[Any]]:
        """An entry of every shard, per split."""
        return {name: [shard[key] for shard in split["shards"]] for name, split in self.content["splits"].items()}

    @property
    def facts(self) -> dict[str, Any]:
        """What the data fix in a model: resolution [pixels], channels, classes per label (identity included)."""
        classes = {name: len(entry["classes"]) for name, entry in self.content["labels"].items() if "classes" in entry}
        return {"resolution": self.content["resolution"], "channels": self.content["channels"], "classes": classes}

    def split(self, name: str) -> dict[str, Any]:
        """One split; UserError: there is no such split."""
        splits: dict[str, dict[str, Any]] = self.content["splits"]
        if name not in splits:
            raise UserError(f"{self.folder} has no split {name!r}; it has {', '.join(splits)}.")
        return splits[name]

    def maps(self, split: str) -> list[npt.NDArray[np.uint8]]:
        """Per shard a memory map [n, H, W, C] uint8 (copy-on-write: writing to it changes no file)."""
        side, channels = self.content["resolution"], self.content["channels"]
        views = []
        for shard in self.split(split)["shards"]:
            tar = np.memmap(self.folder / shard["file"], np.uint8, mode="c")
            shape, strides = (shard["count"], side, side, channels), (shard["stride"], side * channels, channels, 1)
            views.append(np.ndarray(shape, np.uint8, tar, BLOCK + NPY_HEADER, strides))
        return views

    def table(self, split: str) -> pd.DataFrame:
        """File names and encoded labels of a split, one row an image in packed order."""
        parts = [pd.read_parquet(self.folder / shard["table"]) for shard in self.split(split)["shards"]]
        return pd.concat(parts, ignore_index=True)

    def verify(self, full: bool = False) -> None:
        """Check size and SHA-256 of every file; a good verdict is remembered per (path, size, time of change).

        Raises:
            UserError: a file is missing, has the wrong size or other bytes than index.json says.
        """
        shards = [shard for split in self.content["splits"].values() for shard in split["shards"]]
        tars = [(shard["file"], shard["sha256"], shard["bytes"]) for shard in shards]
        again = "Pack the set again, or copy it again from where it came."
        for name, sha256, size in tars + [(shard["table"], shard["table_sha256"], None) for shard in shards]:
            path = self.folder / name
            if not path.is_file():
                raise UserError(f"shard file {path} is missing. {again}")
            stat = path.stat()
            if size is not None and stat.st_size != size:
                raise UserError(f"shard {path} has {stat.st_size} bytes; index.json says {size}: it was cut or replaced. {again}")
            verdict = {"path": str(path.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
            remembered = rundir.cache_folder() / "verified" / f"{config.digest(verdict)}.json"
            if remembered.exists() and not full:
                continue
            found = rundir.sha256(path)
            if found != sha256:
                raise UserError(
                    f"shard {path} has SHA-256 {found[:16]}…; index.json says {sha256[:16]}…: its bytes changed. {again}"
                )
            rundir.write_json(remembered, verdict)


def read(folder: Path) -> Index:
    """The index of a folder of shards; UserError: no index.json, or one of another format."""
    path = folder / "index.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no index.json; give a folder that jobs/pack_shards.py made.")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); pack the set again.") from None
    if content.get("format") != FORMAT:
        raise UserError(f"{path} has format {content.get('format')!r}; this version reads {FORMAT}. Pack the set again.")
    return Index(folder, content)
