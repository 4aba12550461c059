"""Random sets, mutated at random: each picture is packed with its label into its split, or named; counts always add up.

A case is a number: it decides the set (faces drawn by the project, in a folder, a zip or a tar, with or without splits,
classes and a table), its mutations and the options. A failure prints the number and what was done.
"""

from __future__ import annotations

import functools
import io
import itertools
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from facefactory import UserError
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets import index
from facefactory.data.sources import drawn

SIDE = 16
POOL = 40
LOSSLESS = {"png": "PNG", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF", "webp": "WEBP"}
CLASSES = ("angry", "happy", "sad", "calm")
HAIR = ("black", "brown", "red")
SPLITS = {"train": "train", "val": "val", "test": "test"}  # folder -> split
NO_PICTURES = (
    b"",
    b"\0" * 300,
    b"<html><body>404</body></html>",
    b"version https://git-lfs.github.com/spec/v1\n",
    b"just text\n",
)
HIDDEN = ("@eaDir/{}/SYNOPHOTO_THUMB_M.jpg", "._{}", ".{}", "__MACOSX/._{}", ".thumbnails/{}")


@functools.cache
def faces() -> np.ndarray:
    """Drawn faces [POOL, SIDE, SIDE, 3] uint8, all different."""
    some = [np.asarray(drawn.load(number, SIDE, {})) for number in range(POOL)]
    assert len({one.tobytes() for one in some}) == POOL
    return np.stack(some)


@functools.cache
def file_of(face: int, ending: str) -> bytes:
    stream = io.BytesIO()
    more = {"lossless": True} if ending == "webp" else {}
    form = LOSSLESS.get(ending, "JPEG")
    Image.fromarray(faces()[face]).save(
        stream, form, **more, **({"quality": 98, "subsampling": 0} if form == "JPEG" else {})
    )
    return stream.getvalue()


def face_in(picture: np.ndarray) -> int:
    """The number of the face that a packed picture shows; -1: none of them."""
    apart = np.abs(faces().astype(int) - picture).mean((1, 2, 3))
    nearest = int(apart.argmin())
    return nearest if apart[nearest] < 6 else -1


@dataclass
class File:
    """A file of a set: its bytes, and what must become of it."""

    name: str
    content: bytes
    face: int | None  # None: it shows none
    readable: bool | None = True  # None: it may be either, but never another picture
    split: str | None = None  # None: dealt
    label: str | None = None  # the class whose folder it lies in
    row: dict[str, str] = field(default_factory=dict)  # its cells in the table
    link: str | None = None  # another file's name: it is a link to that
    hard: bool = False


@dataclass
class Set:
    """A set on its way: files, container, table, and what was done to it."""

    dice: random.Random
    files: list[File]
    container: str  # folder, zip, tar
    table: list[str] | None = None  # columns, if there is one
    story: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    after: list[Callable[[Path], None]] = field(
        default_factory=list
    )  # what is done to the archive
    may_refuse: tuple[str, ...] = ()  # words of a refusal that is right
    form: dict[str, str] = field(default_factory=dict)  # of the table: mark, newline, bom

    @property
    def plain(self) -> list[File]:
        """Files that nothing was done to."""
        return [
            file
            for file in self.files
            if file.readable and file.face is not None and file.link is None
        ]


# -- sets ----------------------------------------------------------------------------------------------------------


def make(dice: random.Random) -> Set:
    """A set without a fault."""
    count = dice.randint(4, 30)
    layout = dice.choice(
        ["flat", "classes", "splits", "splits and classes", "table", "deep table"]
    )
    classes = dice.sample(CLASSES, dice.randint(2, 4))
    splits = dice.sample(["train", "val", "test"], 3)
    splits = ["train", *[name for name in splits if name != "train"][: dice.randint(1, 2)]]

    # its files, each where the layout has it
    files = []
    for number, face in enumerate(dice.sample(range(POOL), count)):
        ending = dice.choice([*LOSSLESS, "jpg", "png", "jpg"])
        file = File(f"{number}.{ending}", file_of(face, ending), face)
        if "splits" in layout:
            file.split = (
                splits[number % len(splits)] if number < 2 * len(splits) else dice.choice(splits)
            )
        if "classes" in layout:
            file.label = classes[number // len(splits) % len(classes)]
        if layout == "deep table":
            file.name = f"{dice.choice('ab')}/{file.name}"
        if "table" in layout:
            file.row = {
                "Smile": dice.choice("01"),
                "Hair": dice.choice(HAIR),
                "Age": str(dice.randint(10, 14) + 0.5),
            }
        file.name = "/".join(part for part in (file.split, file.label, file.name) if part)
        files.append(file)

    # what goes with them
    table = ["Smile", "Hair", "Age"] if "table" in layout else None
    return Set(
        dice, files, dice.choice(["folder", "zip", "tar"]), table, [f"{count} faces, {layout}"]
    )


# -- mutations -----------------------------------------------------------------------------------------------------


def cut(made: Set) -> str:
    file = made.dice.choice(made.plain)
    length = int(len(file.content) * made.dice.uniform(0.05, 0.95))
    file.content, file.readable = file.content[:length], None
    return f"{file.name} cut at {length}"


def overwritten(made: Set) -> str:
    file = made.dice.choice(made.plain)
    file.content, file.readable = (
        made.dice.choice([*NO_PICTURES, b"GIF89a" + bytes(50), b"%PDF-1.4 "]),
        False,
    )
    return f"{file.name} is {file.content[:12]!r}"


def no_picture_beside(made: Set) -> str:
    place = made.dice.choice(made.files).name.rpartition("/")[0]
    name = made.dice.choice(
        ["readme.txt", "notes", "list.csv", "faces.heic", "Thumbs.db", "film.mp4", "broken.jpg"]
    )
    name = f"{place}/{name}" if place else name
    if name not in {file.name for file in made.files}:
        made.files.append(File(name, made.dice.choice(NO_PICTURES[1:]), None, False))
    return f"{name} beside"


def hidden(made: Set) -> str:
    file = made.dice.choice(made.plain)
    place, _, name = file.name.rpartition("/")
    other = made.dice.choice(HIDDEN).format(name)
    other = f"{place}/{other}" if place else other
    if other not in {one.name for one in made.files}:
        made.files.append(File(other, file.content, None, False))
    return f"hidden {other}"


def renamed(made: Set) -> str:
    file = made.dice.choice(made.plain)
    place, _, name = file.name.rpartition("/")
    stem, _, ending = name.partition(".")
    ways = [
        f"{stem}.{ending.upper()}",
        f"{stem}é ü.{ending}",
        f"face {stem}.v2.{ending}",
        f"{stem}.jpeg",
        f"{stem}.png",
    ]
    new = made.dice.choice(ways if made.table else [*ways, f"face_{stem}"])
    new = f"{place}/{new}" if place else new
    if new not in {one.name for one in made.files}:
        for one in made.files:
            one.link = new if one.link == file.name else one.link
        file.name = new
    return f"{name} is called {new}"


def metadata(made: Set) -> str:
    """A PNG with damaged text is a picture."""
    file = made.dice.choice(made.plain)
    if file.content[:4] != b"\x89PNG":
        return "no PNG"
    kind = made.dice.choice([b"zTXt", b"iCCP", b"gAMA", b"acTL", b"eXIf"])
    body = made.dice.choice([b"", b"k\0\0" + zlib.compress(bytes(3 << 20)), b"k\0\7junk"])
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    file.content = file.content[:33] + chunk + file.content[33:]
    return f"{file.name} has damaged {kind!r}"


def linked(made: Set) -> str:
    """Another name for a picture, in the same folder or in another one."""
    if made.container == "zip" or made.table:
        return "no link"
    target = made.dice.choice(made.plain)
    beside = made.dice.choice(made.plain)
    place = beside.name.rpartition("/")[0]
    name = f"{place}/link.png" if place else "link.png"
    if name not in {one.name for one in made.files}:
        hard = made.dice.random() < 0.5
        link = File(
            name, b"", target.face, True, beside.split, beside.label, {}, target.name, hard
        )
        made.files.append(link)
    return f"{name} -> {target.name}"


def again(made: Set) -> str:
    """A member whose name comes again, with another face: the last one counts."""
    if made.container == "folder" or any(file.link for file in made.files):
        return "nothing again"
    first = made.dice.choice(made.plain)
    if [file.name for file in made.files].count(first.name) > 1:
        return "nothing again"
    used = {file.face for file in made.files}
    face = next(number for number in range(POOL) if number not in used or number == POOL - 1)
    made.files.append(
        File(first.name, file_of(face, "png"), face, True, first.split, first.label, first.row)
    )
    first.face, first.readable = None, False
    return f"{first.name} comes again"


def wrapped(made: Set) -> str:
    for file in made.files:
        file.name = f"faces of mine/{file.name}"
        file.link = f"faces of mine/{file.link}" if file.link else None
    return "a folder around all"


def archive_cut(made: Set) -> str:
    if made.container == "folder":
        return "no archive"
    share = made.dice.uniform(0.3, 0.999)

    def shorten(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    made.after.append(shorten)
    made.may_refuse += ("cut", "whole", "damaged", "no image")
    return f"archive cut at {share:.3f}"


def archive_joined(made: Set) -> str:
    if made.container != "tar" or made.after:
        return "not joined"
    behind = made.dice.choice([b"\0" * 5000, b"\0" * 1024])

    def lengthen(path: Path) -> None:
        path.write_bytes(path.read_bytes() + behind)

    made.after.append(lengthen)
    return f"{len(behind)} zeros behind the tar"


def set_row(made: Set, file: File, row: dict[str, str]) -> None:
    """A table has one row a name, also where an archive has the name twice."""
    for one in made.files:
        if one.name == file.name:
            one.row = row


def row_lost(made: Set) -> str:
    if not made.table:
        return "no table"
    file = made.dice.choice(made.files)
    set_row(made, file, {})
    return f"no row for {file.name}"


def cell_lost(made: Set) -> str:
    files = [file for file in made.files if file.row]
    if not files:
        return "no table"
    file = made.dice.choice(files)
    column = made.dice.choice(["Smile", "Hair", "Age"])
    set_row(made, file, {**file.row, column: made.dice.choice(["", " ", "NA", "nan"])})
    return f"no {column} for {file.name}"


def cell_padded(made: Set) -> str:
    files = [file for file in made.files if file.row]
    if not files:
        return "no table"
    file = made.dice.choice(files)
    set_row(made, file, {**file.row, "Hair": f" {file.row['Hair']} "})
    return f"blanks around the Hair of {file.name}"


def table_form(made: Set) -> str:
    made.form = {
        "mark": made.dice.choice([",", ";", "\t"]),
        "newline": made.dice.choice(["\n", "\r\n"]),
        "bom": made.dice.choice(["", "\ufeff"]),
        "names": made.dice.choice(["whole", "last part"]),
    }
    return f"table: {made.form}"


def limited(made: Set) -> str:
    made.options["limit"] = made.dice.randint(2, max(2, len(made.plain)))
    return f"limit {made.options['limit']}"


def chosen(made: Set) -> str:
    if not made.table:
        return "no where"
    made.options["where"] = made.dice.choice(
        ["Smile", "not Smile", "Hair in (black, brown)", "Age > 12"]
    )
    made.may_refuse += (
        "no image of folder is left",
        "no label",
        "is never",
        "there is no label",
        "have no order",
        "where=",
    )
    return f"where {made.options['where']}"


MUTATIONS = [
    cut,
    overwritten,
    no_picture_beside,
    hidden,
    renamed,
    metadata,
    linked,
    again,
    archive_cut,
    archive_joined,
]
MUTATIONS += [row_lost, cell_lost, cell_padded, table_form, limited, chosen]


# -- writing -------------------------------------------------------------------------------------------------------


def write(made: Set, folder: Path) -> tuple[Path, Path | None]:
    """The root and the table."""
    root = folder / {"folder": "set", "zip": "set.zip", "tar": "set.tar"}[made.container]
    if made.container == "folder":
        for file in made.files:
            path = root / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link and not file.hard:
                path.symlink_to(root / file.link)
            else:
                path.write_bytes(content_of(made, file))
    elif made.container == "zip":
        with zipfile.ZipFile(
            root, "w", made.dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            for file in made.files:
                with warnings.catch_warnings():  # a name that comes again is one of the mutations
                    warnings.filterwarnings("ignore", message="Duplicate name")
                    archive.writestr(zipfile.ZipInfo(file.name), file.content)
    else:
        with tarfile.open(
            root, "w", format=made.dice.choice([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
        ) as tar:
            for file in made.files:
                tar.addfile(*member(file))

    # what happens to it afterwards
    for change in made.after:
        change(root)
    return root, None if made.table is None else write_table(made, folder / "labels.csv")


def content_of(made: Set, file: File) -> bytes:
    """The bytes that are read under a name."""
    return next(one.content for one in made.files if one.name == (file.link or file.name))


def member(file: File) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(file.name)
    if file.link is None:
        info.size = len(file.content)
        return info, io.BytesIO(file.content)
    info.type = tarfile.LNKTYPE if file.hard else tarfile.SYMTYPE
    up = "../" * file.name.count("/")
    info.linkname = file.link if file.hard else up + file.link
    return info, None


def write_table(made: Set, path: Path) -> Path:
    mark = made.form.get("mark", ",")
    newline = made.form.get("newline", "\n")
    rows = [[("image"), *(made.table or [])]]
    listed = {file.name: file for file in made.files if file.row}
    for name in made.dice.sample(sorted(listed), len(listed)):
        named = name.rpartition("/")[2] if made.form.get("names") == "last part" else name
        rows.append([named, *(listed[name].row[column] for column in made.table or [])])
    text = newline.join(mark.join(row) for row in rows) + newline
    path.write_bytes((made.form.get("bom", "") + text).encode())
    return path


# -- what must hold --------------------------------------------------------------------------------------------------


def where_hidden(name: str) -> str | None:
    """The file or folder that hides a file; None: it is not hidden."""
    parts = name.split("/")
    for depth, part in enumerate(parts, 1):
        if part.startswith(".") or part in ("@eaDir", "__MACOSX", "Thumbs.db"):
            return "/".join(parts[:depth])
    return None


def check_account(made: Set, found: index.Index) -> set[str]:
    """Counts add up, to what was put there; the names that were left out by name."""
    account = found.content.account
    skipped = found.content.skipped
    packed = sum(split.count for split in found.content.splits.values())
    left_out = account.left_out
    assert account.packed == packed
    assert account.skipped == len(skipped)
    assert account.found == packed + len(skipped) + sum(entry.count for entry in left_out.values())
    hiding = {where_hidden(file.name) for file in made.files} - {None}
    open_files = [file for file in made.files if where_hidden(file.name) is None]
    assert account.found == len(hiding) + len(open_files)
    return {name for entry in left_out.values() for name in entry.first}


def check_files(made: Set, found: index.Index, table: pd.DataFrame, named: set[str]) -> None:
    """Each file is packed as it is, or named."""
    skipped = {one.file: one.reason for one in found.content.skipped}
    unnamed = sum(
        entry.count - len(entry.first) for entry in found.content.account.left_out.values()
    )
    shown = {
        name: face_in(picture)
        for name, picture in zip(table["file"], table["picture"], strict=True)
    }

    # each name of the set is accounted for once
    last = {file.name: file for file in made.files}
    assert set(shown) <= set(last), "a picture came from nowhere"
    for name, file in last.items():
        target = last[file.link] if file.link else file
        hider = where_hidden(name)
        if name in shown:
            assert hider is None and target.readable is not False, f"{name} is packed"
            assert shown[name] == target.face, (
                f"{name} shows face {shown[name]}, not {target.face}"
            )
        elif hider or name in named:
            assert hider is None or hider in named, f"{hider} is not named"
        elif name in skipped:
            assert not target.readable, f"{name} is skipped: {skipped[name]}"
            assert skipped[name]
            assert "0x" not in skipped[name]
        else:
            unnamed -= 1
    assert unnamed >= 0, "files are neither packed nor named"


def check_meaning(made: Set, found: index.Index, table: pd.DataFrame) -> None:
    """Splits and labels are those of the folders and of the table."""
    last = {file.name: file for file in made.files}
    told = " ".join([*found.content.notes, *found.content.labels_left_out])
    for row in table.to_dict("records"):
        file = last[row["file"]]
        if file.split is not None:
            assert row["split"] == SPLITS[file.split], f"{file.name} is in {row['split']}"
        if file.label is not None and "folder" in found.content.labels:
            assert row["folder"] == file.label, f"{file.name} is of class {row['folder']}"
    labelled = {
        file.label for file in made.files if file.label and where_hidden(file.name) is None
    }
    if len(labelled) > 1 and len({last[name].label for name in table["file"]}) > 1:
        assert "folder" in found.content.labels, "classes were lost"

    for column in made.table or []:
        if column not in found.content.labels:
            assert column in told, f"{column} went without a word"
            continue
        for row in table.to_dict("records"):
            wanted = last[row["file"]].row.get(column, "").strip()
            wanted = "" if wanted in ("NA", "nan") else wanted
            value = row[column]
            shown = "" if value is None or value != value else str(value)
            assert shown == wanted, f"{row['file']} has {column} {shown!r}, not {wanted!r}"


def packed_rows(found: index.Index) -> pd.DataFrame:
    """A row a packed picture: file, split, picture, labels as words."""
    parts = []
    for split in found.content.splits:
        rows = found.table(split).assign(split=split)
        for name, entry in found.content.labels.items():
            if entry.kind != "real":
                words = [entry.classes[code] if code >= 0 else None for code in rows[name]]
                rows[name] = pd.Series(words, rows.index, object)
        rows["picture"] = list(itertools.chain.from_iterable(found.maps(split)))
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def run_case(number: int, folder: Path) -> str:
    """One case; what came of it: packed or refused."""
    made = make(random.Random(number))
    dice = made.dice
    for mutation in dice.choices(MUTATIONS, k=dice.randint(0, 5)):
        if made.plain:
            made.story.append(mutation(made))
    if dice.random() < 0.3:
        made.story.append(wrapped(made))

    # packed as a person would
    folder.mkdir()
    root, table = write(made, folder)
    try:
        options = Pack(
            "folder",
            str(root),
            str(table) if table else None,
            SIDE,
            "rgb",
            7,
            max_bad=1.0,
            **made.options,
        )
        try:
            found = pack.pack(recipes.plan(options), folder / "packed")
        except UserError as refusal:
            check_refusal(made, str(refusal))
            return "refused"
        rows = packed_rows(found)
        named = check_account(made, found)
        check_files(made, found, rows, named)
        check_meaning(made, found, rows)
    except Exception as error:
        pytest.fail(
            f"case {number} ({made.container}; {'; '.join(made.story)}): {type(error).__name__}: {error}"
        )
    return "packed"


def check_refusal(made: Set, words: str) -> None:
    """A set is refused where nothing else can be done, with the reason."""
    assert "\n" not in words
    broken = {file.name for file in made.files if not file.readable}
    bad = [file.name for file in made.files if file.name in broken or file.link in broken]
    unreadable = "can be read, as" in words and any(name in words for name in bad)
    assert unreadable or any(word in words for word in made.may_refuse), f"refused: {words}"


def run_cases(numbers: range, folder: Path) -> None:
    came = Counter(run_case(number, folder / str(number)) for number in numbers)
    print(f"cases {numbers.start} to {numbers.stop - 1}: {dict(came)}")
    assert came["packed"] > 0.7 * len(numbers), came  # a fuzz that is always refused shows nothing


def test_forty_random_sets_are_packed_right_or_named(tmp_path: Path) -> None:
    run_cases(range(40), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_two_thousand_random_sets_are_packed_right_or_named(tmp_path: Path, first: int) -> None:
    run_cases(range(first, first + 250), tmp_path)
