"""Where images come from: a source is a file here, named by `source:` of a recipe.

It is torch-free and has

    find(recipe, root) -> Found
        What is there; decodes nothing. `root` is pack.root, else the recipe's, else None.

    load(item, resolution, recipe) -> Image
        One image at any size (`resolution`, the longer side of what is packed, is a hint for those
        who draw). May raise: the image is then skipped. Left out, `load` of this file serves.

Options of its own stand in the recipe below the source's name. Packing does the rest: labels,
selection, splits, EXIF, colours, crop and size. Workers are spawned processes that import the
source by name and get pickled items.
"""

import functools
import io
import os
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

# Whatever a file is called: no EPS, which runs a program
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
LARGEST = 2**28  # bytes of a packed member: more is a bomb
NAMED = 20  # of what is left out for one reason, so many are named


@dataclass
class LeftOut:
    """What a source came upon and did not take, for one reason."""

    count: int = 0
    # at most NAMED names, in the order in which they were met
    first: list[str] = field(default_factory=list)


class Account(dict[str, LeftOut]):
    """Reason -> what was left out for it.

    A reason is a phrase that follows a number, as in `3 hidden files`.
    """

    def add(self, reason: str, name: str) -> None:
        entry = self.setdefault(reason, LeftOut())
        entry.count += 1
        if len(entry.first) < NAMED:
            entry.first.append(name)

    def join(self, other: "Account", where: str = "") -> None:
        """Add what another one holds; its names lie below `where`."""
        for reason, more in other.items():
            entry = self.setdefault(reason, LeftOut())
            entry.count += more.count
            room = NAMED - len(entry.first)
            entry.first += [where + name for name in more.first[:room]]

    @property
    def count(self) -> int:
        return sum(entry.count for entry in self.values())

    def told(self) -> str:
        """One line for a person; empty where nothing was left out."""
        phrases = [
            f"{entry.count} {reason}, e.g. {entry.first[0]}" for reason, entry in self.items()
        ]
        return f"left out: {'; '.join(phrases)}" if phrases else ""


@dataclass(frozen=True)
class Found:
    """The images of a set in a fixed order, and what its own files say about them."""

    # unique file name of each image below the root, with `/`
    names: "Sequence[str] | pd.Index[str]"
    items: Sequence[Any]  # what `load` needs, picklable
    stamp: Any  # JSON that changes when an image does, e.g. sizes and times of the files
    # raw labels by name, in any order; rows without an image are counted and left out
    table: "pd.DataFrame | None" = None
    notes: tuple[str, ...] = ()  # what a person should know of them
    left_out: Account = field(default_factory=Account)  # what else was there, by reason
    folders: bool = False  # the folders in the names are somebody's: they may be labels or people


def located(recipe: dict[str, Any], root: str | None) -> tuple[Path, str]:
    """Folder or file that holds the images, and, inside an archive, the folder there.

    `faces.zip/train` is allowed. `images:` of the recipe are places below the root, the first
    that exists is taken.
    UserError: no root, or none exists.
    """
    if root is None:
        way = "pack.root=/path/to/faces, or a zip or tar"
        raise UserError(f"no image folder given: {way}. {recipe.get('get') or ''}".strip())
    top = Path(root).expanduser()
    wanted = recipe.get("images") or "."
    if top.is_file():
        wanted = "."
    if isinstance(wanted, str):
        wanted = [wanted]

    # A folder, or a place in an archive
    for path in [top / place for place in wanted]:
        if path.is_dir():
            return path, ""
        archive = next(filter(Path.is_file, [path, *path.parents]), None)
        if archive == path:
            return archive, ""
        if archive:
            return archive, f"{path.relative_to(archive).as_posix()}/"

    if wanted == ["."]:
        what = f"pack.root={root} is not a folder, zip or tar"
        raise UserError(f"{what}; give what holds the images.")
    get = f" To get the set: {recipe['get']}" if recipe.get("get") else ""
    raise UserError(f"below pack.root={root} there is none of {', '.join(wanted)}.{get}")


def safe(name: str, where: Path) -> str:
    """A file name as labels may know it (composed Unicode).

    UserError: it leads out of the folder or archive `where`.
    """
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:3] == ":/" or _goes_up(plain):
        only = "only places below pack.root are read"
        raise UserError(f"{where} names {name!r}; {only}. Mend or remove that entry.")
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", os.fsencode(plain).decode(errors="backslashreplace"))
    return plain.removeprefix("./")


def _goes_up(place: str) -> bool:
    return ".." in place and ".." in place.split("/")


@functools.lru_cache(4)
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def load(item: Any, resolution: int, recipe: dict[str, Any]) -> "Image.Image":
    """Open (not decode) a path, or what `content` reads.

    Raises:
        OSError: no such file, or no image of one of FORMATS.
        ValueError: the member would unpack to more than LARGEST bytes.
    """
    from PIL import Image

    file = item if isinstance(item, str) else io.BytesIO(content(item))
    return Image.open(file, formats=FORMATS)


def content(item: Any, most: int | None = None) -> bytes:
    """The first `most` bytes, or all, of an item.

    It is a path, (zip, member), (file, offset, size in bytes), or the latter with its pieces.
    Pieces are those of a file with holes: (place in the file, bytes) of each, one behind the
    other from `offset` on.

    Raises:
        OSError: no such file.
        ValueError: all of a member would be more than LARGEST bytes, or its file ends before it.
    """
    if isinstance(item, str):
        with open(item, "rb") as stream:
            return stream.read(-1 if most is None else most)

    # How much of a member
    path, place, *rest = item
    size = rest[0] if rest else _archive(path).getinfo(place).file_size
    if most is None and size > LARGEST:
        raise ValueError(f"{size} bytes unpacked; at most {LARGEST} are read")
    wanted = size if most is None else min(most, size)
    if not rest:
        with _archive(path).open(place) as member:
            return member.read(wanted)

    # The pieces of a tar's member; holes stay zero
    pieces = rest[1] if len(rest) > 1 else [(0, size)]
    whole = bytearray(wanted)
    with open(path, "rb") as stream:
        stream.seek(place)
        for start, length in pieces:
            if start >= wanted:
                break
            piece = stream.read(min(length, wanted - start))
            whole[start : start + len(piece)] = piece
            if len(piece) < min(length, wanted - start):
                raise ValueError(f"{path} ends before this member does")
    return bytes(whole)
