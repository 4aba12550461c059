"""Images and labels -> shards. The bytes depend on images, labels and options only, not on workers or the day.

A shard owns a fixed range of its split's file list, decided before anything is decoded; it appears by rename or not at all.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import UserError, config, registry, rundir
from facefactory.data import Pack, labels, order
from facefactory.data.index import FORMAT, NPY_HEADER, Index, padded, read

MAX_BAD = 0.01  # share of unreadable images beyond which packing stops


@dataclass(frozen=True)
class Plan:
    """A face set as it will be packed: `files` name -> path, `table` its encoded labels, in the same order."""

    recipe: dict[str, Any]
    options: Pack
    files: dict[str, Path]
    table: pd.DataFrame
    schema: dict[str, dict[str, Any]]

    @property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what packing reads: the recipe, the labels, and names, sizes and times of the images."""
        stats = [(name, path.stat()) for name, path in self.files.items()]
        return {
            "recipe": config.digest(self.recipe),
            "labels": config.digest([self.table.to_csv(), self.schema]),
            "images": config.digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]),
        }

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share a folder."""
        made = {key: value for key, value in asdict(self.options).items() if key not in ("workers", "root", "labels", "recipe")}
        digits = config.digest([made, self.fingerprint])[:8]
        return f"{self.recipe['name']}-{self.options.resolution}-{digits}"


def recipe_path(name: str) -> Path:
    """`orl` -> shards/orl.yaml of the checkout; anything that ends in .yaml is a path."""
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    return Path(__file__).parents[2] / "shards" / f"{name}.yaml"


def plan(options: Pack) -> Plan:
    """Read recipe, file list and labels, decode nothing.

    Raises:
        UserError: a missing recipe, folder or table, a table that matches no image, or splits that do not fit.
    """
    path = recipe_path(options.recipe)
    recipe = config.read_yaml(path)
    recipe = {"root": None, "labels": None, "kinds": {}, "group": None, "crop": "square", **recipe}
    for name in {"name", "source", "splits"} - recipe.keys():
        raise UserError(f"{path} has no key {name!r}; copy it from shards/folder.yaml.")
    files = registry.module("data.sources", recipe["source"]).images(options.root or recipe["root"])
    named = options.labels or (recipe["labels"] and path.parent / recipe["labels"])
    if named:
        raw = labels.read_table(Path(named))
        if not raw.index.isin(list(files)).any():
            raise UserError(
                f"no row of {named} names an image; it begins with {raw.index[0]!r}, the images with {next(iter(files))!r}."
            )
        raw = raw[raw.index.isin(list(files))]
    elif any("/" in name for name in files):
        raw = pd.DataFrame({"folder": [name.split("/")[0] if "/" in name else None for name in files]}, index=list(files))
    else:
        raw = pd.DataFrame(index=list(files))
    if recipe["group"] and recipe["group"] not in raw:
        raise UserError(
            f"{path}: group {recipe['group']!r} is not a label; there are {', '.join(map(str, raw.columns)) or 'none'}."
        )
    schema = labels.schema_of(raw, recipe["kinds"])
    return Plan(recipe, options, files, labels.encode(raw, schema, list(files)), schema)


def split_of(plan: Plan) -> np.ndarray:
    """The split name of each file: people (or single images, where no group is known) dealt out by a fixed shuffle."""
    group = plan.recipe["group"]
    lonely = -1 - np.arange(len(plan.table))  # an image whose person is unknown is a group of its own
    person = plan.table[group].to_numpy() if group else lonely
    groups, inverse = np.unique(np.where(person < 0, lonely, person), return_inverse=True)
    place = order.permute(np.arange(len(groups)), len(groups), 0)[inverse]
    shares = plan.recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"splits of recipe {plan.recipe['name']!r} are {shares}; the shares must add up to 1.")
    ends = np.cumsum(list(shares.values())) * len(groups)
    return np.array(list(shares))[np.searchsorted(ends - 1e-6, place, side="right").clip(max=len(shares) - 1)]


def read_image(path: Path, crop: str | list[int], resolution: int, color: str) -> np.ndarray:
    """An image file -> [H, W, C] uint8: upright, cropped, shrunk with an antialiasing filter (Lanczos)."""
    from PIL import ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if color == "gray" else "RGB")
    if crop == "square":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
    else:
        box = tuple(crop)  # type: ignore[assignment]
    resized = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized, np.uint8).reshape(resolution, resolution, -1)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first 128 bytes of an .npy file (format 1.0) of uint8 in C order."""
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (NPY_HEADER - 10).to_bytes(2, "little") + fields.ljust(NPY_HEADER - 11).encode() + b"\n"


def member(name: str, content: bytes) -> bytes:
    """A tar member without owner or time, padded to whole blocks."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(padded(len(content)), b"\0")


@dataclass(frozen=True)
class Task:
    """One shard to write: images `first`… of its split, the paths and label rows of the images it owns."""

    folder: Path
    split: str
    number: int
    first: int
    paths: list[Path]
    rows: pd.DataFrame
    crop: str | list[int]
    resolution: int
    color: str


def write_shard(task: Task) -> dict[str, Any]:
    """Decode, write tar and parquet, return the shard's entry in index.json, with the images it had to skip."""
    import hashlib

    pixels, kept, skipped = [], [], []
    for number, path in enumerate(task.paths):
        try:
            pixels.append(read_image(path, task.crop, task.resolution, task.color))
            kept.append(number)
        except Exception as error:  # whatever a decoder raises on a bad file
            skipped.append({"file": task.rows["file"].iloc[number], "reason": f"{type(error).__name__}: {error}"})
    table = task.rows.iloc[kept].reset_index(drop=True)
    rows = [{name: None if value != value else value for name, value in row.items()} for row in table.to_dict("records")]
    texts = [json.dumps(row, ensure_ascii=True, allow_nan=False) for row in rows]
    longest = max(map(len, texts), default=0)
    stem = f"{task.split}-{task.number:06d}"
    header = npy_header(pixels[0].shape) if pixels else b""
    digest = hashlib.sha256()
    with rundir.atomic(task.folder / f"{stem}.tar") as temporary, open(temporary, "wb") as tar:
        for number, (image, text) in enumerate(zip(pixels, texts, strict=True)):
            key = f"{task.first + number:08d}"
            raw = image.tobytes()
            digest.update(raw)
            tar.write(member(f"{key}.npy", header + raw))
            tar.write(member(f"{key}.json", text.ljust(longest).encode()))
        tar.write(bytes(1024))  # end of archive
    with rundir.atomic(task.folder / f"{stem}.parquet") as temporary:
        temporary.write_bytes(_parquet(table))
    tar_path, table_path = task.folder / f"{stem}.tar", task.folder / f"{stem}.parquet"
    size = pixels[0].size if pixels else 0
    return {
        "file": tar_path.name,
        "count": len(kept),
        "stride": 1024 + padded(NPY_HEADER + size) + padded(longest),
        "bytes": tar_path.stat().st_size,
        "sha256": rundir.sha256(tar_path),
        "pixels_sha256": digest.hexdigest(),
        "table": table_path.name,
        "table_sha256": rundir.sha256(table_path),
        "skipped": skipped,
    }


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def pack(plan: Plan, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Index:
    """Write all shards of a plan, then index.json (last: a folder without it is not a set). Calls `progress(done, total)`.

    Raises:
        UserError: more than 1 % of the images cannot be read.
    """
    splits = split_of(plan)
    paths, tasks = list(plan.files.values()), []
    for split in plan.recipe["splits"]:
        members = np.flatnonzero(splits == split)
        for number, first in enumerate(range(0, len(members), plan.options.shard_images)):
            owned = members[first : first + plan.options.shard_images]
            rows = plan.table.iloc[owned].reset_index(drop=True)
            shape = (plan.recipe["crop"], plan.options.resolution, plan.options.color)
            tasks.append(Task(folder, split, number, first, [paths[i] for i in owned], rows, *shape))
    entries = []
    if plan.options.workers == 1:
        for task in tasks:
            entries.append(write_shard(task))
            progress(len(entries), len(tasks))
    else:
        with ProcessPoolExecutor(plan.options.workers, multiprocessing.get_context("spawn")) as pool:
            for entry in pool.map(write_shard, tasks):
                entries.append(entry)
                progress(len(entries), len(tasks))
    skipped = [item for entry in entries for item in entry.pop("skipped")]
    if len(skipped) > MAX_BAD * len(paths):
        first_ones = "; ".join(f"{item['file']}: {item['reason']}" for item in skipped[:5])
        raise UserError(
            f"{len(skipped)} of {len(paths)} images cannot be read (at most {MAX_BAD:.0%} are skipped): {first_ones}. Remove or mend them."
        )
    shards = {split: [e for e, t in zip(entries, tasks, strict=True) if t.split == split] for split in plan.recipe["splits"]}
    content = {
        "format": FORMAT,
        "storage": "raw",
        "dataset": plan.recipe["name"],
        "resolution": plan.options.resolution,
        "channels": 1 if plan.options.color == "gray" else 3,
        "crop": plan.recipe["crop"],
        "filter": "lanczos (Pillow)",
        "labels": plan.schema,
        "group": plan.recipe["group"],
        "origin": plan.recipe.get("origin"),
        "licence": plan.recipe.get("licence"),
        "recipe": plan.recipe,
        "splits": {name: {"count": sum(e["count"] for e in found), "shards": found} for name, found in shards.items() if found},
        "skipped": skipped,
    }
    rundir.write_json(folder / "index.json", {**content, "digest": config.digest(content)})
    return read(folder)
