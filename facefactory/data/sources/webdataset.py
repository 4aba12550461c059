"""Other people's WebDataset tars: pictures beside .json and .cls.

Local files only, nothing is unpickled or run. Only the tars' headers and labels are read to list
them. Brace patterns are the webdataset library's. Unlike there, the files of a sample need not
stand side by side, and a name may have dots: `v1.0000.jpg` goes with `v1.0000.json`.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from facefactory import UserError
from facefactory.data import sources
from facefactory.data.packing import archives
from facefactory.data.sources import Account, Found
from facefactory.data.sources.folder import HIDDEN, OTHERS, SUFFIXES, UNREAD

LABELS = ("json", "cls")  # all that is decoded, besides pictures
MOST_TARS = 1_000_000  # of a pattern
LONGEST = 2**24  # bytes of labels
Member = tuple[str, int, int]  # tar, offset and size


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Named `<tar>/<member>`, the tar by its place below the folder of all.

    UserError: no tars, a damaged one, no image.
    """
    paths = _tars(root)
    around = os.path.commonpath([path.parent for path in paths])
    section = recipe.get("webdataset") or {}
    ignored = set(section.get("ignore") or [])

    items = dict[str, Any]()
    labels = _Labels(ignored)
    stamp = list[tuple[str, int, int]]()
    left_out = Account()
    notes = list[str]()
    for path in paths:
        tar = path.relative_to(around).as_posix()
        for image in _samples(tar, path, left_out, notes):
            name = f"{tar}/{image.name}"
            items[name] = image.place
            labels.add(name, image.labels)
        stat = path.stat()
        stamp.append((tar, stat.st_size, stat.st_mtime_ns))
    if not items:
        endings = " ".join(SUFFIXES)
        more = f" {left_out.told()}." if left_out else ""
        raise UserError(f"no picture ({endings}) in {paths[0]}; other members are not read.{more}")

    names = list(items)
    return Found(
        names=names,
        items=list(items.values()),
        stamp=stamp,
        table=labels.table(names),
        notes=(*notes, *labels.notes()),
        left_out=left_out,
    )


def _tars(root: str | None) -> list[Path]:
    from webdataset.shardlists import expand_urls

    if root is None:
        ways = "pack.root=FOLDER, or a pattern, e.g. pack.root='/data/faces-{000..011}.tar'"
        raise UserError(f"no tars given: {ways}.")
    count = 1
    for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", root):
        count *= abs(int(last) - int(first)) + 1
    if count > MOST_TARS:
        raise UserError(f"pack.root={root} stands for {count} tars; at most {MOST_TARS} are read.")

    top = Path(root).expanduser()
    if top.is_dir():
        paths = _below(top)
    else:
        paths = list(map(Path, expand_urls(str(top))))
    absent = next((path for path in paths if not path.is_file()), None)
    if not paths or absent:
        allowed = "pack.root takes a folder or local paths (no addresses)"
        raise UserError(f"no tar {absent or top / '*.tar'}; {allowed}.")
    return paths


def _below(top: Path) -> list[Path]:
    """Tars at any depth, but for hidden folders and packed sets."""
    paths = []
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "index.json" in files:
            folders.clear()
            continue
        for name in files:
            if name.endswith(".tar") and not name.startswith("."):
                paths.append(Path(folder, name))
    return sorted(paths)


@dataclass
class _Sample:
    """A picture and the members that hold its labels."""

    name: str
    place: Member
    labels: dict[str, Member]  # by ending


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a member, at its last dot; the ending in lower case."""
    key, _, ending = name.rpartition(".")
    return (key, ending.lower()) if key and "/" not in ending else (name, "")


def _first_key(name: str) -> str:
    """The key as WebDataset has it, which ends at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


@dataclass
class _Members:
    """What a tar holds, by key."""

    pictures: dict[str, tuple[str, Member]]  # name and place
    labels: dict[str, dict[str, Member]]  # by ending


def _samples(tar: str, path: Path, left_out: Account, notes: list[str]) -> Iterator[_Sample]:
    """The pictures of a tar in their order, each with its labels, wherever these stand."""
    listing = archives.listed(path)
    notes += listing.notes
    left_out.join(listing.left_out, f"{tar}/")
    members = _members(listing.members, tar, path, left_out)

    used = set[str]()
    for key, (name, place) in members.pictures.items():
        first = _first_key(name)
        with_dots = first != key and key not in members.labels
        if with_dots and first in members.pictures:  # 0001.mask.png beside 0001.jpg
            left_out.add("pictures that are a further part of their sample", f"{tar}/{name}")
            used.add(key)
            continue
        own = key if key in members.labels else first
        used |= {key, own}
        yield _Sample(name, place, members.labels.get(own, {}))
    for key in members.labels:
        if key not in used:
            left_out.add("samples without a picture", f"{tar}/{key}")


def _members(listed: list[tuple[str, Any]], tar: str, path: Path, left_out: Account) -> _Members:
    """Pictures and labels among the members of a tar; UserError: a name comes twice."""
    members = _Members({}, {})
    names = set[str]()
    for name, place in listed:
        if name in names:
            twice = f"{path}: {name!r} is there twice, a duplicate"
            raise UserError(f"{twice}. Mend it or leave it out.")
        names.add(name)

        # Where it belongs, or why it is left out
        key, ending = _split(name)
        reason = ""
        if "/." in f"/{name}":
            reason = HIDDEN
        elif f".{ending}" in SUFFIXES and key in members.pictures:
            reason = "pictures that are the second of their sample"
        elif f".{ending}" in SUFFIXES:
            members.pictures[key] = name, place
        elif ending in LABELS:
            members.labels.setdefault(key, {})[ending] = place
        elif f".{ending}" in OTHERS:
            reason = UNREAD
        else:
            reason = f".{ending} files" if ending else "members without an ending"
        if reason:
            left_out.add(reason, f"{tar}/{name}")
    return members


class _Labels:
    """Single values of .json and .cls, by picture.

    Whatever cannot be read leaves its picture without them, and is told.
    """

    def __init__(self, ignored: set[str]) -> None:
        self.ignored = ignored
        self.count = 0  # of pictures
        self.columns: dict[str, list[Any]] = {}  # values of the first of them
        self.left = Account()

    def add(self, name: str, places: dict[str, Member]) -> None:
        """The labels of the next picture."""
        self.count += 1
        for ending in LABELS:
            if ending not in places:
                continue
            try:
                content = _decoded(ending, places[ending])
            except (ValueError, RecursionError) as error:
                unreadable = f".{ending} are not readable, their pictures are without"
                self.left.add(unreadable, f"that of {name}: {error}")
                continue
            for key, value in content.items():
                if key not in self.ignored:
                    self._take(key, value, name)

    def _take(self, key: str, value: Any, name: str) -> None:
        """One value of the picture `name`."""
        if isinstance(value, list | dict):
            reason = f"values of {key!r} are lists or objects, no labels"
            self.left.add(reason, f"that of {name}")
            return
        label = " ".join(key.split()) or "without a name"
        values = self.columns.setdefault(label, [])
        values += [None] * (self.count - len(values))
        values[-1] = value

    def table(self, names: list[str]) -> pd.DataFrame:
        """A row a picture; values stay as they are, so that long numbers lose no digit."""
        columns = {}
        for label, values in self.columns.items():
            padded = values + [None] * (self.count - len(values))
            columns[label] = pd.Series(padded, names, object)
        return pd.DataFrame(columns, index=names)

    def notes(self) -> Iterator[str]:
        for reason, entry in self.left.items():
            yield f"{entry.count} {reason}, e.g. {entry.first[0]}"


def _decoded(ending: str, place: Member) -> dict[str, Any]:
    """The values in a member; ValueError: it holds something else."""
    if place[2] > LONGEST:
        raise ValueError(f"it has {place[2]} bytes")
    content = sources.content(place)
    if ending == "cls":
        return {"cls": content.decode("utf-8-sig").strip() or None}
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, no names of labels")
    return found
