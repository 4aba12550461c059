"""Images and labels -> shards.

The bytes depend on images, labels and options only, not on workers or the day.

A shard owns a fixed range of its split's file list, decided before anything is decoded; it appears
by rename or not at all, and `<shard>.json` beside it lets a packing that was cut short go on.
Index.json comes last and replaces these.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import UserError, registry, rundir, say
from facefactory.data import Pack, sources
from facefactory.data.packing import pictures, recipes, select
from facefactory.data.sets import index, shard
from facefactory.data.sets.index import Shard, Skipped, plain
from facefactory.data.sets.order import Ids
from facefactory.facts import Size

READ_AGAIN = 2**27  # bytes of a file that cannot be decoded: without its metadata it may be
SAMPLED = 16  # pictures that are opened before packing, to guess how many bits the set has
ABANDONED = 3600  # seconds; an older temporary file is what a kill left
TOLD = {
    "dark": "nearly black: look at them before you train",
    "flat": "nearly of one colour: look at them before you train",
    "unseen": "transparent everywhere; their colours are taken as they are",
    "stretched": "of another shape than the images made of them: pack.crop=fit would cut them",
}

Progress = Callable[[int, int, float], None]  # shards done, shards in all, seconds left


@dataclass(frozen=True)
class _Range:
    """The images of a split that make up one shard."""

    stem: str  # path of the shard without its ending
    first: int  # place of its first image in the split
    rows: Ids  # of the plan's table


@dataclass(frozen=True)
class Record:
    """A shard that is written, and what its pictures are like: what `<stem>.json` holds."""

    plan: str  # its digest
    shard: Shard
    skipped: list[Skipped]
    marks: str  # of each picture, in hexadecimal digits
    sizes: dict[str, int]  # of their files
    bits: int  # as which pictures of 16 bits were taken
    deep: int  # how many have 16 bits
    highest: int  # value of those
    told: dict[str, list[str]]  # which of them are TOLD

    @property
    def split(self) -> str:
        """The split that the shard belongs to."""
        return self.shard.file.rpartition("-")[0]


@dataclass(frozen=True)
class _Task:
    """All that a worker needs to write one shard."""

    stem: str
    first: int
    items: list[Any]  # of the source
    rows: pd.DataFrame
    recipe: dict[str, Any]
    options: Pack
    digest: str  # of the plan
    bits: int  # as which pictures of 16 bits are taken


def _write(task: _Task) -> Record:
    """Write one shard and `<stem>.json`."""
    import imagehash

    size = task.options.size
    crop = task.recipe["crop"]
    marks = bytearray()
    sizes = Counter[str]()
    highest: list[int] = []  # one value a packed picture
    told: dict[str, list[int]] = {kind: [] for kind in TOLD}  # places among the packed

    def read(item: Any) -> np.ndarray:
        # the picture as it is packed
        picture = _picture(item, task.recipe, task.options, task.bits)
        whole = pictures.upright(picture, task.options.color)
        image = pictures.fitted(whole, crop, size)
        array = np.asarray(image).reshape(*size, -1)

        # what is noted of it
        suspicion = pictures.fault(array)
        if suspicion:
            told[suspicion].append(len(highest))
        if picture.unseen:
            told["unseen"].append(len(highest))
        if crop == "none" and pictures.stretched(Size(whole.height, whole.width), size):
            told["stretched"].append(len(highest))
        small = image.reduce(max(1, min(size) // 32))  # the hash shrinks it to 17 x 16 anyway
        marks.extend(np.packbits(imagehash.dhash(small, 16).hash).tobytes())
        marks.extend(zlib.crc32(array.data).to_bytes(4))
        sizes[f"{picture.image.width}x{picture.image.height}"] += 1
        highest.append(picture.highest)
        return array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        storage = task.options.storage
        written, skipped = shard.write_shard(
            task.stem, task.first, task.items, task.rows, read, storage
        )

    # places among the packed become names
    bad = {one.file for one in skipped}
    names = [name for name in task.rows["file"] if name not in bad]
    record = Record(
        plan=task.digest,
        shard=written,
        skipped=skipped,
        marks=marks.hex(),
        sizes=dict(sizes),
        bits=task.bits,
        deep=sum(map(bool, highest)),
        highest=max(highest, default=0),
        told={kind: [names[place] for place in places] for kind, places in told.items()},
    )
    rundir.write_sealed(Path(f"{task.stem}.json"), plain(record))
    return record


def _picture(item: Any, recipe: dict[str, Any], options: Pack, bits: int) -> pictures.Picture:
    """Decode an image of a source; raises whatever is wrong with it."""
    source = registry.module("data.sources", recipe["source"])
    load = getattr(source, "load", sources.load)
    content = None
    if load is sources.load:
        content = functools.partial(sources.content, item, READ_AGAIN)
    return pictures.read(functools.partial(load, item, max(options.size), recipe), content, bits)


def _guess(plan: recipes.Plan) -> int:
    """How many bits the pictures of 16 bits will turn out to have, from a few; 16: there are none.

    A wrong guess costs time, not bits: what turns out otherwise is packed again.
    """
    highest = 0
    spread = np.linspace(0, len(plan.places) - 1, SAMPLED)
    for row in np.unique(spread.astype(int)):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = _picture(plan.items[plan.places[row]], plan.recipe, plan.options, 16)
            highest = max(highest, picture.highest)
    return pictures.bits_of(highest) if highest else 16


def _run(tasks: Iterable[_Task], workers: int) -> Generator[Record]:
    """`_write` of each task, in order."""
    if workers == 1:
        yield from map(_write, tasks)
        return

    pool = shard.workers(workers)
    waiting = deque[Any]()
    try:
        for task in tasks:
            waiting.append(shard.submit(pool, _write, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _done(stem: str, digest: str, bits: int | None) -> Record | None:
    """What `<stem>.json` says of a shard of this very plan whose files are whole, else None.

    Pictures of 16 bits must have been taken as of `bits`, if that is given.
    """
    content = rundir.read_sealed(Path(f"{stem}.json"))
    if content is None:
        return None
    try:
        record = index.read_as(Record, content)
    except UserError:  # of an earlier version
        return None
    if record.plan != digest:
        return None
    if bits is not None and record.deep and record.bits != bits:
        return None

    written = record.shard
    files = {written.file: written.sha256, written.table: written.table_sha256}
    for file, sha256 in files.items():
        path = Path(stem).parent / file
        if not path.is_file() or rundir.sha256(path) != sha256:
            return None
    return record


def _ranges(plan: recipes.Plan, folder: Path) -> list[_Range]:
    """Every shard of a plan, split by split; UserError: a split has too many images."""
    length = plan.options.shard_images
    ranges = []
    for split in plan.recipe["splits"]:
        members = np.flatnonzero(plan.splits == split)
        if len(members) > shard.MOST:
            raise UserError(
                f"{split} has {len(members)} images; a split has at most {shard.MOST}: "
                "give pack.limit, or pack parts."
            )
        for number, first in enumerate(range(0, len(members), length)):
            stem = f"{folder}/{split}-{number:06d}"
            ranges.append(_Range(stem, first, members[first : first + length]))
    return ranges


def _next(written: Generator[Record], folder: Path) -> Record:
    """The record of the next shard; UserError: the disk is full."""
    try:
        return next(written)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no room left in {folder}; make room, or give another paths.data, "
            "and run the same command again: it goes on."
        ) from None


def _require_readable(plan: recipes.Plan, folder: Path, skipped: list[Skipped]) -> None:
    """UserError: more images than pack.max_bad allows were skipped; skipped.json lists them."""
    total = len(plan.table)
    share = plan.recipe["max_bad"]
    if len(skipped) <= share * total:
        return

    listed = folder / "skipped.json"
    rundir.write_json(listed, plain(skipped))
    examples = "; ".join(f"{item.file}: {item.reason}" for item in skipped[:5])
    allowed = f"at most {share * 100:g}% are skipped, pack.max_bad"
    raise UserError(
        f"{len(skipped)} of {total} images, so far, cannot be packed ({allowed}): {examples}. "
        f"Mend or remove them, or change what does not fit them (pack.crop); {listed} has the list."
    )


def shards(
    plan: recipes.Plan,
    folder: Path,
    progress: Progress = lambda *_: None,
    part: tuple[int, int] = (0, 1),
    bits: int | None = None,
) -> list[Record]:
    """Write the shards of a plan that are not there yet.

    Of part=(k, n), of an array job, every n-th of them from the k-th.

    `bits`: how many those pictures have whose files know 16 alone; None: as a few of them look
    like, `pack` mends it. `progress` gets shards done, shards in all and seconds left after each
    one; what it raises ends the packing, and what is written stays for the next time. UserError:
    too many images cannot be read, a split has too many, or the disk is full.
    """
    digest = plan.digest
    ranges = _ranges(plan, folder)[part[0] :: part[1]]
    records = [_done(images.stem, digest, bits) for images in ranges]
    missing = [images for images, record in zip(ranges, records, strict=True) if record is None]
    taken_as = bits or 16
    if bits is None and missing:
        taken_as = _guess(plan)

    def task(images: _Range) -> _Task:
        return _Task(
            stem=images.stem,
            first=images.first,
            items=[plan.items[place] for place in plan.places[images.rows]],
            rows=plan.table.iloc[images.rows],
            recipe=plan.recipe,
            options=plan.options,
            digest=digest,
            bits=taken_as,
        )

    began = time.monotonic()
    fresh = 0
    skipped: list[Skipped] = []
    with contextlib.closing(_run(map(task, missing), plan.options.workers)) as written:
        for number, record in enumerate(records):
            if record is None:
                record = _next(written, folder)
                records[number] = record
                fresh += 1

            # too many bad images end it as soon as they are found
            skipped += record.skipped
            _require_readable(plan, folder, skipped)

            # seconds left, as long as the fresh ones took
            seconds_each = (time.monotonic() - began) / max(fresh, 1)
            progress(number + 1, len(ranges), seconds_each * records.count(None))
    return [record for record in records if record is not None]


def pack(plan: recipes.Plan, folder: Path, progress: Progress = lambda *_: None) -> index.Index:
    """Write all shards that are not there yet, then index.json: a folder without it is no set.

    Raises what `shards` raises.
    """
    _say_notes(plan.noticed)

    # all shards; those of a wrong guess of the bits once more
    records = shards(plan, folder, progress)
    deep = _deep(records)
    if any(record.bits != deep.bits for record in records if record.deep):
        records = shards(plan, folder, progress, bits=deep.bits)

    # what they say, together
    _require_images(records)
    skipped = [bad for record in records for bad in record.skipped]
    if skipped:
        example = f"{skipped[0].file}: {skipped[0].reason}"
        say(f"pack: {len(skipped)} images skipped, e.g. {example}")

    packed = index.write(folder, _content(plan, records, folder))
    _tidy(folder, records)
    return packed


def _say_notes(noticed: recipes.Noticed) -> None:
    """Say what planning noticed of labels, images and people."""
    for note in noticed.notes:
        say(f"pack: {note}")
    if noticed.rows_without_image.count:
        say(f"pack: {noticed.rows_without_image.count} rows without image")
    if noticed.images_without_row.count:
        say(f"pack: {noticed.images_without_row.count} images without row")
    if noticed.people_in_several_splits:
        say(f"pack: {noticed.people_in_several_splits} people in several splits")


def _require_images(records: list[Record]) -> None:
    """UserError: no image of a split can be read."""
    readable = {record.split for record in records if record.shard.count}
    for record in records:
        if record.split in readable:
            continue
        bad = record.skipped[0]
        raise UserError(
            f"no image of split {record.split!r} can be read, as {bad.file}: {bad.reason}. "
            "Mend or replace them."
        )


def _content(plan: recipes.Plan, records: list[Record], folder: Path) -> index.Content:
    """What index.json tells."""
    recipe = plan.recipe
    options = plan.options
    noticed = plan.noticed

    # the shards, split by split; the sizes of the files
    splits = {}
    for name in recipe["splits"]:
        there = [record.shard for record in records if record.split == name]
        splits[name] = index.Split(sum(written.count for written in there), there)
    packed = sum(split.count for split in splits.values())
    skipped = [bad for record in records for bad in record.skipped]
    sizes = Counter[str]()
    for record in records:
        sizes.update(record.sizes)
    return index.Content(
        format=index.FORMAT if options.size.is_square else index.OF_SHAPE,
        storage="raw" if options.storage == "raw" else "encoded",
        dataset=recipe["name"],
        resolution=options.size.resolution,
        channels=1 if options.color == "gray" else 3,
        crop=recipe["crop"],
        filter="lanczos (Pillow)",
        labels=plan.schema,
        group=recipe["group"],
        origin=recipe["origin"],
        licence=recipe["licence"],
        consent=recipe["consent"],
        recipe=recipe,
        splits=splits,
        skipped=skipped,
        rows_without_image=noticed.rows_without_image,
        images_without_row=noticed.images_without_row,
        notes=noticed.notes,
        selection=noticed.selection,
        account=index.Account(noticed.files, noticed.left_out, packed, len(skipped)),
        people_in_several_splits=noticed.people_in_several_splits,
        labels_left_out=noticed.labels_left_out,
        image_sizes=dict(sizes.most_common(recipes.NAMED)),
        duplicates=_duplicates(records, folder),
        pictures={**_told(records), "sixteen_bit": _deep(records)},
        alike=_alike(records),
    )


def _tidy(folder: Path, records: list[Record]) -> None:
    """Remove what was kept for a packing cut short, and what a kill left."""
    stems = {Path(record.shard.file).stem for record in records}
    for stem in stems:
        (folder / f"{stem}.json").unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        if path.name.split(".")[1] not in stems:
            continue
        if time.time() - path.stat().st_mtime > ABANDONED:  # a younger one may be another job's
            path.unlink(missing_ok=True)


def _deep(records: list[Record]) -> index.Deep:
    """Pictures of 16 bits in the whole set."""
    highest = max(record.highest for record in records)
    images = sum(record.deep for record in records)
    return index.Deep(images, highest, pictures.bits_of(highest) if images else 16)


def _told(records: list[Record]) -> dict[str, index.Named | index.Deep]:
    """Kind of TOLD -> pictures of it; says so."""
    deep = _deep(records)
    bits = deep.bits
    if bits < 16:
        say(
            f"pack: {deep.images} pictures have 16 bits, and no value above {deep.highest}: "
            f"they are taken as pictures of {bits} bits (0…{2**bits - 1})"
        )

    suspected: dict[str, index.Named | index.Deep] = {}
    for kind, words in TOLD.items():
        names = [name for record in records for name in record.told[kind]]
        if kind == "stretched" and not names:  # so that most indexes are as they always were
            continue
        suspected[kind] = index.Named(len(names), names[: recipes.NAMED])
        if names:
            noun = "picture is" if len(names) == 1 else "pictures are"
            say(f"pack: {len(names)} {noun} {words}, e.g. {names[0]}")
    return suspected


def _alike(records: list[Record]) -> dict[str, index.Alike]:
    """Per split its images, and how many of them are no copies of another; says where copies are."""
    marks: dict[str, bytearray] = {}
    for record in records:
        marks.setdefault(record.split, bytearray()).extend(bytes.fromhex(record.marks))

    alike = {}
    for split, of_split in marks.items():
        rows = np.frombuffer(of_split, np.uint8).reshape(-1, select.MARK)
        different = select.different(rows)
        alike[split] = index.Alike(len(rows), different)
        if different < len(rows):
            say(
                f"pack: {len(rows) - different} of {len(rows)} pictures in {split} are copies of "
                f"others there, or nearly: {split} has {different} different ones"
            )
    return alike


def _duplicates(records: list[Record], folder: Path) -> index.Duplicates:
    """Pictures that lie in two splits: how many pairs, and the first of them by name."""
    counts = [record.shard.count for record in records]
    splits = [record.split for record in records]
    marks = np.frombuffer(bytes.fromhex("".join(record.marks for record in records)), np.uint8)
    numbers = np.unique(splits, return_inverse=True)[1].astype(np.int8)
    pairs = select.duplicates(marks.reshape(-1, select.MARK), np.repeat(numbers, counts))

    # images of the first pairs, by name
    ends = np.cumsum(counts)

    def name(image: int) -> str:
        number = int(np.searchsorted(ends, image, side="right"))
        table = folder / records[number].shard.table
        files = pd.read_parquet(table, columns=["file"])["file"]
        return f"{splits[number]}/{files.iloc[image - ends[number]]}"

    first = []
    for (image, other), kind in itertools.islice(pairs.items(), recipes.NAMED):
        first.append((name(image), name(other), kind))

    kinds = Counter(pairs.values())
    cut = len(pairs) > select.MOST
    if first:
        image_name, other_name, kind = first[0]
        say(
            f"pack: {'at least ' * cut}{len(pairs)} pairs of pictures in two splits are alike, "
            f"e.g. {image_name} and {other_name} ({kind}); see index.json"
        )
    pairs_of_kind = index.Pairs(kinds["exact"], kinds["near"])
    return index.Duplicates(across_splits=pairs_of_kind, cut=cut, first=first)
