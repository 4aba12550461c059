"""Images and labels -> shards. The bytes depend on images, labels and options only, not on workers or the day.

A shard owns a fixed range of its split's file list, decided before anything is decoded; it appears by rename or not at all.
"""

import contextlib
import functools
import hashlib
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
from PIL import Image, ImageOps

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
        images = config.digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        made = config.digest([self.table.to_csv(), self.schema])
        return {"recipe": config.digest(self.recipe), "labels": made, "images": images}

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share a folder."""
        made = {key: value for key, value in asdict(self.options).items() if key not in ("workers", "root", "labels", "recipe")}
        return f"{self.recipe['name']}-{self.options.resolution}-{config.digest([made, self.fingerprint])[:8]}"


def plan(options: Pack) -> Plan:
    """Read recipe, file list and labels, decode nothing; UserError: one is missing, or they do not fit each other."""
    named = options.recipe.endswith((".yaml", ".yml"))
    path = Path(options.recipe).expanduser() if named else Path(__file__).parents[2] / "shards" / f"{options.recipe}.yaml"
    recipe = {"root": None, "labels": None, "kinds": {}, "group": None, "crop": "square", **config.read_yaml(path)}
    for name in {"name", "source", "splits"} - recipe.keys():
        raise UserError(f"{path} has no key {name!r}; copy it from shards/folder.yaml.")
    files = registry.module("data.sources", recipe["source"]).images(options.root or recipe["root"])
    names = list(files)
    table = options.labels or (recipe["labels"] and path.parent / recipe["labels"])
    if table:
        raw = labels.read_table(Path(table))
        if not raw.index.isin(names).any():
            raise UserError(f"no row of {table} names an image; it begins with {raw.index[0]!r}, the images with {names[0]!r}.")
        raw = raw[raw.index.isin(names)]
    else:
        folders = [name.split("/")[0] if "/" in name else None for name in names]
        raw = pd.DataFrame({"folder": folders} if any(folders) else {}, index=names)
    if recipe["group"] and recipe["group"] not in raw:
        raise UserError(f"{path}: group {recipe['group']!r} is not a label; there are {', '.join(raw.columns) or 'none'}.")
    schema = labels.schema_of(raw, recipe["kinds"])
    return Plan(recipe, options, files, labels.encode(raw, schema, names), schema)


def split_of(plan: Plan) -> np.ndarray:
    """The split name of each file: people (or single images, where no group is known) dealt out by a fixed shuffle."""
    groups, inverse = np.unique(labels.people(plan.table, plan.recipe["group"]), return_inverse=True)
    place = order.permute(np.arange(len(groups)), len(groups), 0)[inverse]
    shares = plan.recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"splits of recipe {plan.recipe['name']!r} are {shares}; the shares must add up to 1.")
    ends = np.cumsum(list(shares.values())) * len(groups)
    return np.array(list(shares))[np.searchsorted(ends - 1e-6, place, side="right").clip(max=len(shares) - 1)]


def read_image(path: Path, crop: str | list[int], resolution: int, color: str) -> np.ndarray:
    """An image file -> [H, W, C] uint8: upright, cropped, shrunk with an antialiasing filter (Lanczos)."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if color == "gray" else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side) if crop == "square" else tuple(crop)
    resized = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)  # type: ignore[arg-type]
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


def write_shard(
    stem: str, first: int, paths: list[Path], rows: pd.DataFrame, decode: Callable[[Path], np.ndarray]
) -> dict[str, Any]:
    """Write `<stem>.tar` and `.parquet`, images `first`… of a split; its entry in index.json, with the images `skipped`."""
    pixels, kept, skipped = [], [], []
    for number, path in enumerate(paths):
        try:
            pixels.append(decode(path))
            kept.append(number)
        except Exception as error:  # whatever a decoder raises on a bad file
            skipped.append({"file": rows["file"].iloc[number], "reason": f"{type(error).__name__}: {error}"})
    rows = rows.iloc[kept].reset_index(drop=True)
    known = [{name: None if value != value else value for name, value in row.items()} for row in rows.to_dict("records")]
    texts = [json.dumps(row, ensure_ascii=True, allow_nan=False) for row in known]
    longest = max(map(len, texts), default=0)
    header, digest = npy_header(pixels[0].shape) if pixels else b"", hashlib.sha256()
    tar_path, table_path = Path(f"{stem}.tar"), Path(f"{stem}.parquet")
    with rundir.atomic(tar_path) as temporary, open(temporary, "wb") as tar:
        for number, (image, text) in enumerate(zip(pixels, texts, strict=True), first):
            digest.update(raw := image.tobytes())
            tar.write(member(f"{number:08d}.npy", header + raw))
            tar.write(member(f"{number:08d}.json", text.ljust(longest).encode()))
        tar.write(bytes(1024))  # end of archive
    with rundir.atomic(table_path) as temporary:
        rows.to_parquet(temporary, index=False)
    stride = 1024 + padded(NPY_HEADER + (pixels[0].size if pixels else 0)) + padded(longest)
    images = {"file": tar_path.name, "count": len(kept), "stride": stride, "bytes": tar_path.stat().st_size}
    digests = {"sha256": rundir.sha256(tar_path), "pixels_sha256": digest.hexdigest()}
    return {**images, **digests, "table": table_path.name, "table_sha256": rundir.sha256(table_path), "skipped": skipped}


def pack(plan: Plan, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Index:
    """Write all shards, then index.json (a folder without it is no set); UserError: over 1 % of the images cannot be read."""
    recipe, options, paths, splits = plan.recipe, plan.options, list(plan.files.values()), split_of(plan)
    decode = functools.partial(read_image, crop=recipe["crop"], resolution=options.resolution, color=options.color)
    tasks: list[tuple[Any, ...]] = []
    shards: dict[str, list[dict[str, Any]]] = {}
    for split in recipe["splits"]:
        members = np.flatnonzero(splits == split)
        for number, first in enumerate(range(0, len(members), options.shard_images)):
            owned = members[first : first + options.shard_images]
            tasks.append((f"{folder}/{split}-{number:06d}", first, [paths[i] for i in owned], plan.table.iloc[owned], decode))
    with contextlib.ExitStack() as stack:
        walk: Any = map
        if options.workers > 1:
            walk = stack.enter_context(ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"))).map
        skipped = []
        for done, entry in enumerate(walk(write_shard, *zip(*tasks, strict=True)), 1):
            shards.setdefault(entry["file"].rpartition("-")[0], []).append(entry)
            skipped += entry.pop("skipped")
            progress(done, len(tasks))
    if len(skipped) > MAX_BAD * len(paths):
        first_ones = "; ".join(f"{item['file']}: {item['reason']}" for item in skipped[:5])
        most = f"at most {MAX_BAD:.0%} are skipped"
        raise UserError(f"{len(skipped)} of {len(paths)} images cannot be read ({most}): {first_ones}. Remove or mend them.")
    made = {"resolution": options.resolution, "channels": 1 if options.color == "gray" else 3, "crop": recipe["crop"]}
    known = {"labels": plan.schema, "group": recipe["group"], "origin": recipe.get("origin"), "licence": recipe.get("licence")}
    content = {"format": FORMAT, "storage": "raw", "dataset": recipe["name"], **made, "filter": "lanczos (Pillow)", **known}
    counted = {name: {"count": sum(entry["count"] for entry in found), "shards": found} for name, found in shards.items()}
    content |= {"recipe": recipe, "splits": counted, "skipped": skipped}
    rundir.write_json(folder / "index.json", {**content, "digest": config.digest(content)})
    return read(folder)
