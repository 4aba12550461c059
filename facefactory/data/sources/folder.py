"""Images in a folder, a zip or an uncompressed tar (nothing is unpacked); the first level of sub-folders that differ is a label."""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from facefactory import UserError
from facefactory.data.sources import Found, located, safe

OTHERS = (".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl")  # pictures that are not read
SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def _listed(top: Path) -> Iterator[tuple[str, Any, list[int]]]:
    """(name, item, size and time) of the files below a folder; symbolic links may not lead out of it."""
    todo, real = [""], top.resolve()
    while todo:
        below = todo.pop()
        entries = list(os.scandir(top / below))
        if below and {"index.json", "identity.json"} & {entry.name for entry in entries}:
            continue  # a packed set or a run: its pictures are made of these faces
        for entry in entries:
            if entry.is_symlink() and not (target := Path(entry.path).resolve()).is_relative_to(real):
                raise UserError(f"{entry.path} is a link to {target}, out of {top}; copy it there, or give its folder as root.")
            if entry.is_dir(follow_symlinks=False):
                todo.append(f"{below}{entry.name}/")
            elif entry.name.lower().endswith((*SUFFIXES, *OTHERS)) and entry.is_file():
                stat = entry.stat()
                yield safe(below + entry.name, top), entry.path, [stat.st_size, stat.st_mtime_ns]


def members(archive: Path) -> Iterator[tuple[str, Any, list[int]]]:
    """(name, item, size and time of the archive) of what a zip or tar holds; UserError: it is damaged or compressed."""
    stamp = [archive.stat().st_size, archive.stat().st_mtime_ns]
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield from ((safe(name, archive), (str(archive), name), stamp) for name in zipped.namelist())
        else:
            with tarfile.open(archive, "r:") as tar:
                for info in tar:
                    if info.isreg():
                        yield safe(info.name, archive), (str(archive), info.offset_data, info.size), stamp
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive} is no whole zip or uncompressed tar: {error}. Copy it again, or unpack it.") from None


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Sorted naturally (s2/9 before s2/10). Raises UserError: no root, no image, or a name that leads out of the root."""
    top, inner = located(recipe, root)
    found, others, twice = dict[str, Any](), [], []
    for path, item, stamp in _listed(top) if top.is_dir() else members(top):
        name = path.removeprefix(inner)
        if not path.startswith(inner) or "/." in f"/{name}":  # hidden: a Mac's, a notebook's, what was thrown away
            continue
        if name.lower().endswith(OTHERS):
            others.append(name)
        elif name.lower().endswith(SUFFIXES):
            twice += [name] if name in found else []
            found[name] = item, stamp
    notes = [f"{len(others)} pictures are not read, e.g. {others[0]}: convert them, e.g. to PNG"] if others else []
    notes += (
        [f"{len(twice)} files have another's name, e.g. {twice[0]} (in another form of Unicode?): rename them"] if twice else []
    )
    if not found:
        raise UserError(f"no image below {top / inner}; looked for {' '.join(SUFFIXES)}.")
    names = sorted(
        found, key=lambda name: [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
    )
    around = os.path.commonpath({name.rpartition("/")[0] for name in names})  # all images, as in a zip of a folder
    inside = [name.removeprefix(f"{around}/") for name in names]
    folders = [name.split("/")[0] if "/" in name else None for name in inside]
    table = pd.DataFrame({"folder": folders} if any(folders) else {}, index=names)
    return Found(names, [found[name][0] for name in names], [(name, found[name][1]) for name in names], table, tuple(notes))
