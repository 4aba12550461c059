"""Images and labels -> shards. The bytes depend on images, labels and options only, not on workers or the day.

A shard owns a fixed range of its split's file list, decided before anything is decoded; it appears by rename or not at all,
and `<shard>.json` beside it lets a packing that was cut short go on. Index.json comes last and replaces these.
"""

import contextlib
import errno
import functools
import itertools
import time
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import UserError, registry, rundir, say
from facefactory.data import Pack, sources
from facefactory.data.packing import pictures, recipes, select
from facefactory.data.sets import index, shard

READ_AGAIN = 2**27  # bytes of a file that cannot be decoded: without its metadata it may be
SAMPLED = 16  # pictures that are opened before packing, to guess how many bits the set has
TOLD = {
    "dark": "nearly black: look at them before you train",
    "flat": "nearly of one colour: look at them before you train",
    "unseen": "transparent everywhere; their colours are taken as they are",
}


def _write(
    stem: str,
    first: int,
    items: list[Any],
    rows: pd.DataFrame,
    recipe: dict[str, Any],
    options: Pack,
    digest: str,
    bits: int,
) -> dict[str, Any]:
    """Write one shard and `<stem>.json`: its entry in index.json, and what its pictures are like.

    That is their marks, the sizes of their files, which of them are TOLD, how many have 16 bits, and the highest value of those.
    """
    import imagehash

    marks, sizes, highest = bytearray(), Counter[str](), list[int]()
    told: dict[str, list[int]] = {kind: [] for kind in TOLD}  # places among the packed

    def read(item: Any) -> np.ndarray:
        # the picture as it is packed
        picture = _picture(item, recipe, options, bits)
        image = pictures.upright(picture, recipe["crop"], options.resolution, options.color)
        array = np.asarray(image).reshape(options.resolution, options.resolution, -1)

        # what is noted of it
        small = image.reduce(
            max(1, options.resolution // 32)
        )  # the hash shrinks it to 17 x 16 anyway
        suspicion = pictures.fault(array)
        if suspicion:
            told[suspicion].append(len(highest))
        if picture.unseen:
            told["unseen"].append(len(highest))
        marks.extend(
            np.packbits(imagehash.dhash(small, 16).hash).tobytes()
            + zlib.crc32(array.data).to_bytes(4)
        )
        sizes[f"{picture.image.width}x{picture.image.height}"] += 1
        highest.append(picture.highest)
        return array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        entry = shard.write_shard(stem, first, items, rows, read, options.storage)

    skipped = {one["file"] for one in entry["skipped"]}
    names = [name for name in rows["file"] if name not in skipped]
    record = {"plan": digest, "entry": entry, "marks": marks.hex(), "sizes": sizes, "bits": bits}
    record["deep"] = {"images": sum(map(bool, highest)), "highest": max(highest, default=0)}
    record["told"] = {kind: [names[place] for place in places] for kind, places in told.items()}
    rundir.write_json(Path(f"{stem}.json"), record)
    return record


def _picture(item: Any, recipe: dict[str, Any], options: Pack, bits: int) -> pictures.Picture:
    """Decode an image of a source; raises whatever is wrong with it."""
    load = getattr(registry.module("data.sources", recipe["source"]), "load", sources.load)
    content = (
        functools.partial(sources.content, item, READ_AGAIN) if load is sources.load else None
    )
    return pictures.read(functools.partial(load, item, options.resolution, recipe), content, bits)


def _guess(plan: recipes.Plan) -> int:
    """How many bits the pictures of 16 bits will turn out to have, from a few; 16 where there are none.

    A wrong guess costs time, not bits: what turns out otherwise is packed again.
    """
    highest = 0
    for place in np.unique(np.linspace(0, len(plan.places) - 1, SAMPLED).astype(int)):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _picture(plan.items[plan.places[place]], plan.recipe, plan.options, 16)
            highest = max(highest, found.highest)
    return pictures.bits_of(highest) if highest else 16


def _run(tasks: Iterable[tuple[Any, ...]], workers: int) -> Generator[dict[str, Any]]:
    """`_write` of each task, in order."""
    if workers == 1:
        yield from itertools.starmap(_write, tasks)
        return
    pool, waiting = shard.workers(workers), deque[Any]()
    try:
        for task in tasks:
            waiting.append(shard.submit(pool, _write, *task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _done(stem: str, digest: str, bits: int | None) -> dict[str, Any] | None:
    """What `<stem>.json` says of a shard of this very plan whose files are whole, else None.

    Pictures of 16 bits must have been taken as of `bits`, if that is given.
    """
    record = rundir.read_json(Path(f"{stem}.json"))
    if record is None or record["plan"] != digest or "deep" not in record:
        return None
    if bits is not None and record["deep"]["images"] and record["bits"] != bits:
        return None
    folder, entry = Path(stem).parent, record["entry"]
    files = {
        folder / entry["file"]: entry["sha256"],
        folder / entry["table"]: entry["table_sha256"],
    }
    return (
        record
        if all(path.is_file() and rundir.sha256(path) == wanted for path, wanted in files.items())
        else None
    )


def shards(
    plan: recipes.Plan,
    folder: Path,
    progress: Callable[[int, int, float], None] = lambda *_: None,
    part: tuple[int, int] = (0, 1),
    bits: int | None = None,
) -> list[dict[str, Any]]:
    """Write the shards of a plan that are not there yet, or every n-th of them from the k-th for part=(k, n) of an array job.

    `bits`: how many those pictures have whose files know 16 alone; None: as a few of them look like, `pack` mends it.
    `progress` gets shards done, shards in all and seconds left after each one; what it raises ends the packing, and what is
    written stays for the next time. UserError: too many images cannot be read, a split has too many, or the disk is full.
    """
    options, digest, most = plan.options, plan.digest, plan.recipe["max_bad"] * len(plan.table)
    parts = []
    for split in plan.recipe["splits"]:
        members = np.flatnonzero(plan.splits == split)
        if len(members) > shard.MOST:
            raise UserError(
                f"{split} has {len(members)} images; a split has at most {shard.MOST}: give pack.limit, or pack parts."
            )
        for number, first in enumerate(range(0, len(members), options.shard_images)):
            parts.append(
                (
                    f"{folder}/{split}-{number:06d}",
                    first,
                    members[first : first + options.shard_images],
                )
            )
    parts = parts[part[0] :: part[1]]
    records = [_done(stem, digest, bits) for stem, _, _ in parts]
    taken_as = _guess(plan) if bits is None and None in records else bits or 16
    tasks = (
        (
            stem,
            first,
            [plan.items[i] for i in plan.places[owned]],
            plan.table.iloc[owned],
            plan.recipe,
            options,
            digest,
            taken_as,
        )
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
            record["marks"] = bytes.fromhex(record["marks"])
            skipped += record["entry"]["skipped"]
            if len(skipped) > most:
                rundir.write_json(folder / "skipped.json", skipped)
                first_ones = "; ".join(f"{item['file']}: {item['reason']}" for item in skipped[:5])
                allowed = f"at most {plan.recipe['max_bad'] * 100:g}% are skipped, pack.max_bad"
                bad = f"{len(skipped)} of {len(plan.table)} images, so far, cannot be packed ({allowed}): {first_ones}"
                mend = "Mend or remove them, or change what does not fit them (pack.crop)"
                raise UserError(f"{bad}. {mend}; {folder / 'skipped.json'} has the list.")
            progress(
                number + 1,
                len(parts),
                (time.monotonic() - began) / max(fresh, 1) * sum(one is None for one in records),
            )
    return [record for record in records if record is not None]


def pack(
    plan: recipes.Plan, folder: Path, progress: Callable[[int, int, float], None] = lambda *_: None
) -> index.Index:
    """Write all shards that are not there yet, then index.json: a folder without it is no set. Raises what `shards` raises."""
    recipe, options, facts = plan.recipe, plan.options, plan.facts
    counts = {
        name.replace("_", " "): its["count"]
        for name, its in facts.items()
        if name.endswith(("_row", "_image"))
    }
    counts["people in several splits"] = facts.get("people_in_several_splits", 0)
    for note in [*facts["notes"], *(f"{count} {what}" for what, count in counts.items() if count)]:
        say(f"pack: {note}")
    records = shards(plan, folder, progress)
    deep = _deep(records)
    if any(record["bits"] != deep["bits"] for record in records if record["deep"]["images"]):
        records = shards(plan, folder, progress, bits=deep["bits"])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in recipe["splits"]}
    for record in records:
        found[record["entry"]["file"].rpartition("-")[0]].append(record["entry"])
    for name in [name for name, its in found.items() if not any(entry["count"] for entry in its)]:
        bad = found[name][0]["skipped"][0]
        raise UserError(
            f"no image of split {name!r} can be read, as {bad['file']}: {bad['reason']}. Mend or replace them."
        )
    skipped, sizes = [], Counter[str]()
    for record in records:
        skipped += record["entry"].pop("skipped")
        sizes.update(record["sizes"])
    if skipped:
        say(
            f"pack: {len(skipped)} images skipped, e.g. {skipped[0]['file']}: {skipped[0]['reason']}"
        )
    made = {
        "resolution": options.resolution,
        "channels": 1 if options.color == "gray" else 3,
        "crop": recipe["crop"],
    }
    told = {name: recipe[name] for name in ("group", "origin", "licence", "consent")}
    counted = {
        name: {"count": sum(entry["count"] for entry in its), "shards": its}
        for name, its in found.items()
    }
    storage = "raw" if options.storage == "raw" else "encoded"
    content = {
        "format": index.FORMAT,
        "storage": storage,
        "dataset": recipe["name"],
        **made,
        "filter": "lanczos (Pillow)",
    }
    content |= {
        "labels": plan.schema,
        **told,
        "recipe": recipe,
        "splits": counted,
        "skipped": skipped,
        **facts,
    }
    packed = sum(split["count"] for split in counted.values())
    content["account"] = {**facts["account"], "packed": packed, "skipped": len(skipped)}
    content |= {
        "image_sizes": dict(sizes.most_common(recipes.NAMED)),
        "duplicates": _duplicates(records, folder),
    }
    content |= {"pictures": {**_told(records), "sixteen_bit": deep}, "alike": _alike(records)}
    index.write(folder, content)
    stems = {Path(record["entry"]["file"]).stem for record in records}
    for stem in stems:  # what was kept for a packing cut short
        (folder / f"{stem}.json").unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):  # what a kill left; a younger one may be another job's
        if path.name.split(".")[1] in stems and time.time() - path.stat().st_mtime > 3600:
            path.unlink(missing_ok=True)
    return index.read(folder)


def _deep(records: list[dict[str, Any]]) -> dict[str, int]:
    """Pictures of 16 bits: how many, their highest value in the whole set, and the bits that hold it."""
    highest = max(record["deep"]["highest"] for record in records)
    images = sum(record["deep"]["images"] for record in records)
    return {
        "images": images,
        "highest": highest,
        "bits": pictures.bits_of(highest) if images else 16,
    }


def _told(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Kind of TOLD -> how many pictures are of it, and the first of them by name; says so."""
    deep, found = _deep(records), dict[str, Any]()
    if deep["bits"] < 16:
        one_of = f"{deep['images']} pictures have 16 bits, and no value above {deep['highest']}"
        say(
            f"pack: {one_of}: they are taken as pictures of {deep['bits']} bits (0…{2 ** deep['bits'] - 1})"
        )
    for kind, words in TOLD.items():
        names = [name for record in records for name in record["told"][kind]]
        found[kind] = {"count": len(names), "first": names[: recipes.NAMED]}
        if names:
            noun = "picture is" if len(names) == 1 else "pictures are"
            say(f"pack: {len(names)} {noun} {words}, e.g. {names[0]}")
    return found


def _alike(records: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Per split its images, and how many of them are no copies of another; says where copies are."""
    marks: dict[str, list[bytes]] = {}
    for record in records:
        marks.setdefault(record["entry"]["file"].rpartition("-")[0], []).append(record["marks"])
    found = {}
    for split, parts in marks.items():
        rows = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, select.MARK)
        found[split] = {"images": len(rows), "different": select.different(rows)}
        copies = len(rows) - found[split]["different"]
        if copies:
            more = f"{split} has {found[split]['different']} different ones"
            say(
                f"pack: {copies} of {len(rows)} pictures in {split} are copies of others there, or nearly: {more}"
            )
    return found


def _duplicates(records: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Pictures that lie in two splits: how many pairs, and the first of them by name."""
    marks = np.frombuffer(b"".join(record["marks"] for record in records), np.uint8).reshape(
        -1, select.MARK
    )
    entries, ends = (
        [record["entry"] for record in records],
        np.cumsum([record["entry"]["count"] for record in records]),
    )
    sides = [entry["file"].rpartition("-")[0] for entry in entries]
    pairs = select.duplicates(
        marks,
        np.repeat(
            np.unique(sides, return_inverse=True)[1].astype(np.int8), np.diff(ends, prepend=0)
        ),
    )

    def name(image: int) -> str:
        shard = int(np.searchsorted(ends, image, side="right"))
        files = pd.read_parquet(folder / entries[shard]["table"], columns=["file"])["file"]
        return f"{sides[shard]}/{files.iloc[image - ends[shard]]}"

    listed = [
        [*map(name, pair), kind] for pair, kind in itertools.islice(pairs.items(), recipes.NAMED)
    ]
    kinds, cut = Counter(pairs.values()), len(pairs) > select.MOST
    if listed:
        (a, b, kind), most = listed[0], "at least " * cut
        say(
            f"pack: {most}{len(pairs)} pairs of pictures in two splits are alike, e.g. {a} and {b} ({kind}); see index.json"
        )
    return {
        "across_splits": {"exact": kinds["exact"], "near": kinds["near"]},
        "cut": cut,
        "first": listed,
    }
