"""Images in a folder, a zip or an uncompressed tar.

Nothing is unpacked, and whatever is not taken is counted by reason.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facefactory import UserError
from facefactory.data import sources
from facefactory.data.packing import archives
from facefactory.data.sources import Account, Found, located, safe

SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pictures that are not read; of cameras' own formats, what Pillow reads is a thumbnail
OTHERS = (
    ".avif",
    ".gif",
    ".heic",
    ".heif",
    ".ico",
    ".jp2",
    ".jxl",
    ".psd",
    ".svg",
    ".tga",
    ".arw",
    ".cr2",
    ".cr3",
    ".dng",
    ".nef",
    ".orf",
    ".raf",
    ".rw2",
)
# Endings of what lies beside pictures; files with any other ending, or none, are looked into
BESIDE = """
    .csv .tsv .txt .json .jsonl .xml .yaml .yml .toml .ini .cfg .md .rst .html .htm .pdf .doc
    .docx .xls .xlsx .ods .lst .log .db .sqlite .lnk .url .parquet .arrow .feather .npy .npz .mat
    .h5 .hdf5 .pkl .pt .pth .onnx .pts .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .iso .mp4 .avi
    .mov .mkv .webm .mp3 .wav .py .ipynb .sh .m .c .cpp .h .js .cls .part .partial .crdownload
    .download .tmp .lock .sha256 .md5 .torrent
"""
NO_PICTURES = frozenset(BESIDE.split())
# First bytes of pictures that are not read: GIF, HEIF and AVIF, JPEG XL, JPEG 2000
BEGINS = re.compile(
    rb"GIF8|.{4}ftyp(heic|heix|hevc|heim|heis|mif1|msf1|avif|avis)|\xff\x0a|\0\0\0\x0c(JXL |jP  )",
    re.S,
)
# First bytes of those that are
READ = re.compile(rb"\xff\xd8\xff|\x89PNG|BM|P[1-6]|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP", re.S)
# Left behind by file servers, systems and tools; compared in lower case
LEFT_BEHIND = (
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "__macosx",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "icon\r",
    "system volume information",
    "network trash folder",
    "temporary items",
    "__pycache__",
    ".appledouble",
    ".appledb",
    ".appledesktop",
    ".ds_store",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".trash",
    ".trashes",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".ipynb_checkpoints",
    ".thumbnails",
)
SYSTEM = re.compile(
    "|".join([*map(re.escape, LEFT_BEHIND), r"\._.*", r"\.trash-\d+", r"\.nfs[0-9a-f]+"]), re.I
)
NUMBER = re.compile(r"(\d+)")
SKIPPED = re.compile(rf"(?:^|/)((?:{SYSTEM.pattern})(?=/|$)|\.)", re.I)

SYSTEMS = "files or folders of a file server, system or tool"
HIDDEN = "hidden files or folders"
PACKED = "packed sets or run folders"
SPECIAL = "devices, pipes or sockets"
UNREAD = "pictures in a format that is not read (convert them to PNG)"
NONE = "files that are no pictures by their first bytes"
TWIN = "files whose name another one has in another form of Unicode (rename them)"
BACK = "links that lead back to a folder they lie in"


Entry = tuple[str, Any, list[int]]  # name, what `sources.load` takes, size and time


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Sorted naturally (s2/9 before s2/10).

    Raises:
        UserError: no root, no image, or a name that leads out of the root.
    """
    top, inner = located(recipe, root)
    left_out = Account()
    notes = list[str]()
    if top.is_dir():
        entries = _walked(top, recipe.get("links") == "follow", left_out)
    else:
        entries = _listed(top, inner, left_out, notes)

    # Which of them are pictures
    files = dict[str, Any]()
    for name, item, stamp in entries:
        reason = _no_picture(name, item)
        if reason is not None:
            left_out.add(reason, name)
            continue
        if name in files:
            left_out.add(TWIN if top.is_dir() else archives.AGAIN, name)
        files[name] = item, stamp
    if not files:
        besides = f" {left_out.told()}." if left_out else ""
        endings = " ".join(SUFFIXES)
        raise UserError(f"no image below {top / inner}; looked for {endings}.{besides}")

    names = sorted(files, key=_natural)
    return Found(
        names=names,
        items=[files[name][0] for name in names],
        stamp=[(name, files[name][1]) for name in names],
        notes=tuple(notes),
        left_out=left_out,
        folders=True,
    )


def _natural(name: str) -> list[Any]:
    """Text and numbers by turns: every second part is a number, so two names compare like with like."""
    parts: list[Any] = NUMBER.split(name)
    parts[1::2] = map(int, parts[1::2])
    return parts


def _no_picture(name: str, item: Any) -> str | None:
    """Why a file is not packed.

    None: it is a picture by its ending or, if that says nothing, by its first bytes.
    """
    lower = name.lower()
    if lower.endswith(SUFFIXES):
        return None
    if lower.endswith(OTHERS):
        return UNREAD
    ending = os.path.splitext(lower)[1]
    if ending in NO_PICTURES:
        return f"{ending} files"

    # No ending that says anything
    try:
        first = sources.content(item, 32)
        if BEGINS.match(first):
            return UNREAD
        if not READ.match(first):
            return NONE
        with sources.load(item, 0, {}):
            return None
    except Exception:  # whatever a decoder raises on what is no picture
        return NONE


# -- archives --------------------------------------------------------------------------


def _listed(archive: Path, inner: str, left_out: Account, notes: list[str]) -> Iterator[Entry]:
    """What lies below `inner` in an archive, without what is hidden.

    A hidden folder counts once.
    """
    listing = archives.listed(archive)
    stat = archive.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    left_out.join(listing.left_out)
    notes += listing.notes
    skipped = set[str]()
    for path, item in listing.members:
        if not path.startswith(inner):
            continue
        name = path.removeprefix(inner)
        hidden = SKIPPED.search(name)
        if hidden is None:
            yield name, item, stamp
            continue

        # The outermost file or folder that is hidden
        end = name.find("/", hidden.start(1))
        first = name if end < 0 else name[:end]
        if first not in skipped:
            left_out.add(_skip(first.rpartition("/")[2]) or HIDDEN, first)
            skipped.add(first)


def _skip(name: str) -> str | None:
    """Why a file or folder is not looked into, by its name."""
    if SYSTEM.fullmatch(name):
        return SYSTEMS
    return HIDDEN if name.startswith(".") else None


# -- folders ---------------------------------------------------------------------------


def _walked(top: Path, follow: bool, left_out: Account) -> Iterator[Entry]:
    """(name, path, size and time) of the files below a folder.

    With `follow` also of what its links lead to outside of it. A folder is read once, at its own
    place if that is below `top`.
    UserError: a link leads out and is not followed.
    """
    real = os.path.realpath(top)
    todo = [("", real)]  # folders as they are called and where they are
    linked = list[tuple[str, str]]()
    walked = set[str]()
    while todo or linked:
        if not todo:
            todo.append(linked.pop(0))
        below, place = todo.pop()
        if place in walked:
            left_out.add(archives.FOLDERS, below.removesuffix("/"))
            continue
        walked.add(place)
        entries = _entries(place)
        if below and {"index.json", "identity.json"} & {entry.name for entry in entries}:
            left_out.add(PACKED, below.removesuffix("/"))  # its pictures are made of these faces
            continue

        # Folders and links are kept for later, files are given out
        deeper = []
        for entry in entries:
            name = below + entry.name
            target = os.path.join(place, entry.name)
            reason = _skip(entry.name)
            if reason is None and entry.is_symlink():
                target, reason = _target(target, real)
                if reason is None and not follow:
                    _check_inside(target, real, top / name, top)
                if reason is None and os.path.isdir(target):
                    linked.append((f"{name}/", target))
                    continue
            if reason is None and entry.is_dir(follow_symlinks=False):
                deeper.append((f"{name}/", target))
            elif reason is None and entry.is_file():
                stat = entry.stat()
                yield safe(name, top), str(top / name), [stat.st_size, stat.st_mtime_ns]
            else:
                left_out.add(reason or SPECIAL, name)
        todo += reversed(deeper)


def _check_inside(target: str, real: str, link: Path, top: Path) -> None:
    """UserError: the target of a link lies outside of the folder at `real`."""
    if not f"{target}/".startswith(f"{real}/"):
        ways = "copy it there, give its folder as root, or read it too by pack.links=follow"
        raise UserError(f"{link} is a link to {target}, out of {top}; {ways}.")


def _entries(place: str) -> list[os.DirEntry[str]]:
    """A folder's entries by name; UserError: it may not be read."""
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        ways = "ask for its permissions, or move it away"
        raise UserError(f"the folder {place} may not be read; {ways}.") from None


def _target(link: str, root: str) -> tuple[str, str | None]:
    """Where a symbolic link leads, and why it is not followed, if so."""
    try:
        target = os.path.realpath(link, strict=True)
    except OSError as error:
        return "", archives.CIRCLE if error.errno == errno.ELOOP else archives.NOWHERE
    around = f"{target.rstrip('/')}/"
    return target, BACK if f"{root}/".startswith(around) else None
