"""Images and labels -> shards. The bytes depend on images, labels and options only, not on workers or the day.

A shard owns a fixed range of its split's file list, decided before anything is decoded; it appears by rename or not at all,
and `<shard>.json` beside it lets a packing that was cut short go on. Index.json comes last and replaces these.
"""

import contextlib
import errno
import hashlib
import itertools
import re
import time
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from facefactory import UserError, config, registry, rundir, say
from facefactory.data import Pack, index, labels, order, select, shard, sources
from facefactory.registry import nearest

# keys of a recipe beside name, source and splits; those that Pack has too may be overridden there
DEFAULTS: dict[str, Any] = {
    **{"root": None, "images": None, "layouts": [], "labels": None, "tables": [], "pattern": None, "values": {}, "kinds": {}},
    **{"group": None, "split": None, "expect": {}, "origin": None, "licence": None, "consent": None, "get": None},
    **{"crop": "square", "where": None, "limit": None, "balance": None, "keep": None, "drop": None},
    **{"min_prevalence": 0.0, "max_bad": 0.01},
}
OVERRIDES = ("crop", "where", "limit", "balance", "keep", "drop", "min_prevalence", "max_bad")
NAMED = 100  # at most so many files of a kind are named in index.json


@dataclass(frozen=True)
class Plan:
    """A face set as it will be packed. The image of row i of `table` (encoded labels) is `items[places[i]]` of the source."""

    recipe: dict[str, Any]  # with overrides; its `splits` are the shares that were found
    options: Pack
    items: Sequence[Any]
    places: order.Ids
    stamp: Any
    table: pd.DataFrame
    schema: dict[str, dict[str, Any]]
    splits: np.ndarray  # name of each image's
    facts: dict[str, Any]  # what was found and what selection did, for index.json

    @property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what packing reads: the recipe, names, labels and splits, and the stamp of the images."""
        made = hashlib.sha256("\n".join([*self.table["file"], *self.splits.tolist()]).encode())
        for name in self.schema:
            made.update(self.table[name].to_numpy().tobytes())
        recipe = {name: value for name, value in self.recipe.items() if name != "max_bad"}
        found = config.digest([made.hexdigest(), self.schema])
        return {"recipe": config.digest(recipe), "labels": found, "images": config.digest(self.stamp)}

    @property
    def digest(self) -> str:
        """Digest of all that decides the bytes."""
        made = {name: value for name, value in config.flat(self.options).items() if name not in ("root", "labels", "recipe")}
        return config.digest([made, self.fingerprint])

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share a folder."""
        return f"{self.recipe['name']}-{self.options.resolution}-{self.digest[:8]}"


def read_recipe(options: Pack) -> tuple[dict[str, Any], Path]:
    """The recipe with every key, overrides and the layout that was found, and its file; UserError: it does not fit."""
    named = options.recipe.endswith((".yaml", ".yml"))
    path = Path(options.recipe).expanduser() if named else Path(__file__).parents[2] / "shards" / f"{options.recipe}.yaml"
    given = config.read_yaml(path)
    for name in {"name", "source", "splits"} - given.keys():
        raise UserError(f"{path} has no key {name!r}; copy it from shards/folder.yaml.")
    for name in given.keys() - DEFAULTS.keys() - {"name", "source", "splits", given["source"]}:
        raise UserError(f"{path} has an unknown key {name!r}.{nearest(name, DEFAULTS)} shards/README.md lists them.")
    recipe = {**DEFAULTS, **given}
    recipe |= {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    root = options.root or recipe["root"]
    if recipe["layouts"] and root is not None:
        fits = [one for one in recipe["layouts"] if (Path(root).expanduser() / one["needs"]).exists()]
        if not fits:
            needs = ", ".join(one["needs"] for one in recipe["layouts"])
            raise UserError(f"below pack.root={root} there is none of {needs}. To get the set: {recipe['get']}")
        recipe |= fits[0]
    return {**recipe, "crop": _crop(recipe["crop"])}, path


def _crop(value: Any) -> str | int | list[int]:
    """square, none, the side of a centred square, or [left, top, right, bottom]."""
    text = str(value).strip("[]")
    numbers = [int(part) for part in text.split(",")] if re.fullmatch(r"\d+( *, *\d+)*", text) else []
    if text in ("square", "none"):
        return text
    if len(numbers) == 1 and numbers[0] > 0:
        return numbers[0]
    if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
        return numbers
    raise UserError(f"crop is {value!r}; allowed are square, none, the side of a centred square, or left,top,right,bottom.")


def plan(options: Pack, recipe: dict[str, Any] | None = None) -> Plan:
    """Read recipe (or take it), labels and file list, select and split; decode nothing.

    Raises:
        UserError: something is missing, does not fit, or leaves no image.
    """
    recipe, path = ({**DEFAULTS, **recipe}, Path(recipe["name"])) if recipe else read_recipe(options)
    root = options.root or recipe["root"]
    found = registry.module("data.sources", recipe["source"]).find(recipe, root)
    beside = options.labels or (recipe["labels"] and str(path.parent.absolute() / recipe["labels"]))
    tables = [*recipe["tables"], *([{"file": beside}] if beside else [])]
    raw, facts = _labels(found, tables, Path(root or "").expanduser(), recipe)
    absent = {name for spec in tables if spec.get("optional") for name in spec["columns"][1:]} - set(raw.columns)
    facts["notes"] = [f"{name} is in no table here; the recipe can do without" for name in sorted(absent)]
    own = None if recipe["split"] is None or recipe["split"]["by"] in absent else recipe["split"]
    recipe |= {key: None for key in ("group", "balance") if recipe[key] in absent or not recipe[key]}
    for key, name in {"group": recipe["group"], "balance": recipe["balance"], "split by": own and own["by"]}.items():
        if name not in {None, *raw.columns}:
            raise UserError(f"{path}: {key} {name!r} is not a label; there are {', '.join(raw.columns) or 'none'}.")
    group, places, sides = recipe["group"], np.arange(len(raw)), np.full(len(raw), "")
    kinds = {**({group: "identity"} if group else {}), **recipe["kinds"]}
    kinds = {name: kind for name, kind in kinds.items() if name not in absent}
    if own:
        names = {str(key): name for key, name in own["names"].items()}
        sides = labels.texts(raw.pop(own["by"])).map(names).fillna("").to_numpy(str)
        places = np.flatnonzero(sides != "")
    for name, wanted in recipe["expect"].items():
        if (counted := len(raw) if name == "images" else int((sides == name).sum())) != wanted and (own or name == "images"):
            facts["notes"].append(f"{counted} {name} found; the whole set {recipe['name']} has {wanted}")
    chosen: dict[str, Any] = {"found": len(raw), "of_no_split": len(raw) - len(places)}
    facts["selection"] = chosen
    schema = labels.schema_of(raw, kinds)
    table = labels.encode(raw, schema, found.names)
    if recipe["where"]:
        places = places[select.where(recipe["where"], table, schema)[places]]
        chosen["where"] = len(places)
    if recipe["limit"]:
        places = places[np.sort(order.permute(np.arange(min(recipe["limit"], len(places))), len(places), 1))]
        chosen["limit"] = len(places)
    if not len(places):
        raise UserError(f"no image of {recipe['name']} is left: {chosen}; where={recipe['where']!r}.")
    splits = sides[places] if own else dealt(recipe, table.iloc[places])
    if label := recipe["balance"]:
        if not (classes := schema.get(label, {}).get("classes")):
            raise UserError(f"balance={label!r} is a label without classes; there are {', '.join(schema)}.")
        codes = table[label].to_numpy()
        even = select.balanced(codes[places], splits, classes)
        before = select.counts(codes[places], splits, classes)
        places, splits = places[even], splits[even]
        chosen["balance"] = {"label": label, "before": before, "after": select.counts(codes[places], splits, classes)}
    if len(places) < len(raw):  # classes that selection emptied go
        raw = raw.iloc[places]
        schema = labels.schema_of(raw, kinds)
        table = labels.encode(raw, schema, raw.index.tolist())
    if own and group:
        sided = pd.Series(splits)[known := table[group].to_numpy() >= 0].groupby(table[group].to_numpy()[known]).nunique()
        facts["people_in_several_splits"] = int((sided > 1).sum())
    facts["labels_left_out"] = {name: "too many values" for name in raw.columns if name not in schema}
    facts["labels_left_out"] |= select.left_out(table, schema, recipe)
    schema = {name: entry for name, entry in schema.items() if name not in facts["labels_left_out"]}
    shares = {name: float((splits == name).mean()) for name in (own["names"].values() if own else recipe["splits"])}
    recipe["splits"] = {name: share for name, share in shares.items() if share}
    return Plan(recipe, options, found.items, places, found.stamp, table[["file", *schema]], schema, splits, facts)


def _labels(found: sources.Found, tables: list[dict[str, Any]], top: Path, recipe: dict[str, Any]) -> tuple[pd.DataFrame, Any]:
    """Raw labels, one row an image, and which rows and images have no counterpart."""
    raw, names = labels.read_tables(tables, top), pd.Index(found.names)
    known = names.get_indexer(raw.index) >= 0  # isin is slow on text
    if len(raw) and not known.any():
        begins = f"it begins with {raw.index[0]!r}, the images with {names[0]!r}"
        raise UserError(f"no row of {tables[0]['file']} names an image; {begins}.")
    if not len(raw) and found.table is not None:
        raw, known = found.table, names.get_indexer(found.table.index) >= 0
    lost = {"rows_without_image": raw.index[~known], "images_without_row": names[raw.index.get_indexer(names) < 0]}
    facts = {name: {"count": len(files), "first": files[:NAMED].tolist()} for name, files in lost.items()}
    raw = raw.reindex(names)
    if recipe["pattern"]:
        try:
            parts = names.to_series().str.extract(recipe["pattern"])
        except (re.error, ValueError) as error:
            how = "it names labels as (?P<label>…)"
            raise UserError(f"pattern {recipe['pattern']!r} of {recipe['name']}: {error}; {how}.") from None
        raw = parts.join(raw[raw.columns.difference(["folder", *parts.columns], sort=False)])
    for name in recipe["values"].keys() & set(raw.columns):
        words = {str(key): word for key, word in recipe["values"][name].items()}
        raw[name] = labels.texts(raw[name]).replace(words)
    return raw, facts


def dealt(recipe: dict[str, Any], table: pd.DataFrame) -> np.ndarray:
    """The split name of each image: people (or single images, where no group is known) dealt out by a fixed shuffle."""
    groups, inverse = np.unique(labels.people(table, recipe["group"]), return_inverse=True)
    place = order.permute(np.arange(len(groups)), len(groups), 0)[inverse]
    shares = recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"splits of recipe {recipe['name']!r} are {shares}; the shares must add up to 1.")
    ends = np.cumsum(list(shares.values())) * len(groups)
    return np.array(list(shares))[np.searchsorted(ends - 1e-6, place, side="right").clip(max=len(shares) - 1)]


def upright(image: Image.Image, crop: str | int | list[int], resolution: int, color: str) -> Image.Image:
    """An opened image as it is packed: turned by its EXIF data, cropped, shrunk with an antialiasing filter (Lanczos).

    16 bits are divided by 257, what is transparent becomes white. ValueError: the crop does not fit, or the values are floats.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != (mode := "L" if color == "gray" else "RGB"):
        image = image.convert(mode)
    side = crop if isinstance(crop, int) else min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (0, 0, *image.size) if crop == "none" else (left, top, left + side, top + side)
    if isinstance(crop, list):
        box = (crop[0], crop[1], crop[2], crop[3])
    if min(box) < 0 or box[2] > image.width or box[3] > image.height:
        raise ValueError(f"crop {crop} does not fit into its {image.width}x{image.height} pixels")
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)


def _write(
    stem: str, first: int, items: list[Any], rows: pd.DataFrame, recipe: dict[str, Any], options: Pack, digest: str
) -> dict[str, Any]:
    """Write one shard and `<stem>.json`: its entry in index.json, the marks of its images and the sizes of their files."""
    import imagehash

    load = getattr(registry.module("data.sources", recipe["source"]), "load", sources.load)
    marks, sizes = bytearray(), Counter[str]()

    def read(item: Any) -> np.ndarray:
        with load(item, options.resolution) as opened:
            size = f"{opened.width}x{opened.height}"
            image = upright(opened, recipe["crop"], options.resolution, options.color)
        array = np.asarray(image).reshape(options.resolution, options.resolution, -1)
        small = image.convert("L").reduce(max(1, options.resolution // 32))  # the hash shrinks it to 17 x 16 anyway
        marks.extend(np.packbits(imagehash.dhash(small, 16).hash).tobytes() + zlib.crc32(array.tobytes()).to_bytes(4))
        sizes[size] += 1
        return array

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        entry = shard.write_shard(stem, first, items, rows, read, options.storage)
    record = {"plan": digest, "entry": entry, "marks": marks.hex(), "sizes": sizes}
    rundir.write_json(Path(f"{stem}.json"), record)
    return record


def _run(tasks: Iterable[tuple[Any, ...]], workers: int) -> Generator[dict[str, Any]]:
    """`_write` of each task, in order."""
    if workers == 1:
        yield from itertools.starmap(_write, tasks)
        return
    pool, waiting = shard.workers(workers), deque[Any]()
    try:
        for task in tasks:
            waiting.append(pool.submit(_write, *task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _done(stem: str, digest: str) -> dict[str, Any] | None:
    """What `<stem>.json` says of a shard of this very plan whose files are whole, else None."""
    record = rundir.read_json(Path(f"{stem}.json"))
    if record is None or record["plan"] != digest:
        return None
    folder, entry = Path(stem).parent, record["entry"]
    files = {folder / entry["file"]: entry["sha256"], folder / entry["table"]: entry["table_sha256"]}
    return record if all(path.is_file() and rundir.sha256(path) == wanted for path, wanted in files.items()) else None


def shards(
    plan: Plan, folder: Path, progress: Callable[[int, int, float], None] = lambda *_: None, part: tuple[int, int] = (0, 1)
) -> list[dict[str, Any]]:
    """Write the shards of a plan that are not there yet, or every n-th of them from the k-th for part=(k, n) of an array job.

    `progress` gets shards done, shards in all and seconds left after each one; what it raises ends the packing, and what is
    written stays for the next time. UserError: too many images cannot be read, or the disk is full.
    """
    options, digest, most = plan.options, plan.digest, plan.recipe["max_bad"] * len(plan.table)
    parts = []
    for split in plan.recipe["splits"]:
        members = np.flatnonzero(plan.splits == split)
        for number, first in enumerate(range(0, len(members), options.shard_images)):
            parts.append((f"{folder}/{split}-{number:06d}", first, members[first : first + options.shard_images]))
    parts = parts[part[0] :: part[1]]
    records = [_done(stem, digest) for stem, _, _ in parts]
    tasks = (
        (stem, first, [plan.items[i] for i in plan.places[owned]], plan.table.iloc[owned], plan.recipe, options, digest)
        for (stem, first, owned), record in zip(parts, records, strict=True)
        if record is None
    )
    began, fresh, skipped = time.monotonic(), 0, list[dict[str, str]]()
    with contextlib.closing(_run(tasks, options.workers)) as written:
        for number in range(len(parts)):
            if (record := records[number]) is None:
                try:
                    record = records[number] = next(written)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    more = "make room, or give another paths.data, and run the same command again: it goes on"
                    raise UserError(f"no room left in {folder}; {more}.") from None
                fresh += 1
            skipped += record["entry"]["skipped"]
            if len(skipped) > most:
                rundir.write_json(folder / "skipped.json", skipped)
                first_ones = "; ".join(f"{item['file']}: {item['reason']}" for item in skipped[:5])
                allowed = f"at most {plan.recipe['max_bad'] * 100:g}% are skipped, pack.max_bad"
                bad = f"{len(skipped)} of {len(plan.table)} images cannot be read ({allowed}): {first_ones}"
                raise UserError(f"{bad}. Remove or mend them; {folder / 'skipped.json'} has the list.")
            progress(number + 1, len(parts), (time.monotonic() - began) / max(fresh, 1) * sum(one is None for one in records))
    return [record for record in records if record is not None]


def pack(plan: Plan, folder: Path, progress: Callable[[int, int, float], None] = lambda *_: None) -> index.Index:
    """Write all shards that are not there yet, then index.json: a folder without it is no set. Raises what `shards` raises."""
    recipe, options, facts = plan.recipe, plan.options, plan.facts
    for note in facts["notes"]:
        say(f"pack: {note}")
    records = shards(plan, folder, progress)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in recipe["splits"]}
    skipped, sizes = [], Counter[str]()
    for record in records:
        entry = record["entry"]
        skipped += entry.pop("skipped")
        sizes.update(record["sizes"])
        found[entry["file"].rpartition("-")[0]].append(entry)
    made = {"resolution": options.resolution, "channels": 1 if options.color == "gray" else 3, "crop": recipe["crop"]}
    told = {name: recipe[name] for name in ("group", "origin", "licence", "consent")}
    counted = {name: {"count": sum(entry["count"] for entry in its), "shards": its} for name, its in found.items()}
    content = {
        "format": index.FORMAT,
        "storage": "raw" if options.storage == "raw" else "encoded",
        "dataset": recipe["name"],
        **made,
        "filter": "lanczos (Pillow)",
    }
    content |= {"labels": plan.schema, **told, "recipe": recipe, "splits": counted, "skipped": skipped, **facts}
    content |= {"image_sizes": dict(sizes.most_common(NAMED)), "duplicates": _duplicates(records, folder)}
    index.write(folder, content)
    for path in [*folder.glob("*-??????.json"), *folder.glob(".*.tmp"), *folder.glob("skipped.json")]:
        path.unlink()  # what was kept for a packing cut short, and what a kill left
    return index.read(folder)


def _duplicates(records: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Pictures that lie in two splits: how many pairs, and the first of them by name."""
    marks = np.frombuffer(bytes.fromhex("".join(record["marks"] for record in records)), np.uint8).reshape(-1, select.MARK)
    tables = [pd.read_parquet(folder / record["entry"]["table"], columns=["file"]) for record in records]
    names = np.concatenate([table["file"].to_numpy(object) for table in tables])
    splits = np.repeat([record["entry"]["file"].rpartition("-")[0] for record in records], [len(table) for table in tables])
    pairs = select.duplicates(marks, splits)
    kinds = Counter(pairs.values())
    if pairs:
        (a, b), kind = next(iter(pairs.items()))
        say(
            f"pack: {len(pairs)} pairs of pictures in two splits are alike, e.g. {names[a]} and {names[b]} ({kind}); see index.json"
        )
    listed = [[f"{splits[i]}/{names[i]}" for i in pair] + [kind] for pair, kind in itertools.islice(pairs.items(), NAMED)]
    return {"across_splits": {"exact": kinds["exact"], "near": kinds["near"]}, "first": listed}
