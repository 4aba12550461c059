"""What a zip or a tar holds: its files, and by reason whatever it holds besides.

Nothing of it goes missing without a word.
"""

import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from facefactory import UserError
from facefactory.data.sources import Account, safe

COMPRESSED = {  # how such a file begins -> what unpacks it
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"),
    b"Rar!": ("RAR", "unrar x"),
}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
NOT_READ = {9: "deflate64", 93: "zstd", 95: "xz", 97: "WavPack", 98: "PPMd", 99: "AES"}
MOST_LINKS = 40  # one after the other, as Linux allows
LOCAL = b"PK\3\4"  # how a member of a zip begins
END = b"PK\5\6"  # how its end does
HEADER = 30  # bytes of a member's own header, without its name
MOST_BEHIND = 100  # bytes that a member may have behind its header and its content
END_RECORD = 22  # bytes of the end, without a comment

AGAIN = "members whose name comes again (the last one counts, as in unpacking)"
NOWHERE = "links that lead nowhere"
CIRCLE = "links that lead in a circle"
OUTSIDE = "links that lead out of their archive"
FOLDERS = "links to folders, which are read at their own place"
SPECIAL = "devices, pipes or sockets"
ENCRYPTED = "encrypted members (unpack them with their password)"
UNLISTED = (
    "members that their zip holds and does not list"
    " (zips joined, or members replaced: unpack and pack anew)"
)
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    NotImplementedError,
    struct.error,
)


@dataclass
class Listing:
    """The members of an archive in their order; a name may come again."""

    # name, and what `sources.content` takes
    members: list[tuple[str, Any]] = field(default_factory=list)
    left_out: Account = field(default_factory=Account)
    notes: list[str] = field(default_factory=list)


def listed(archive: Path) -> Listing:
    """All members of a zip or an uncompressed tar.

    Raises:
        UserError: it is damaged, cut, compressed as a whole, in several volumes, or a name leads
            out of it.
    """
    with open(archive, "rb") as stream:
        begin = stream.read(tarfile.BLOCKSIZE)
    for mark, (form, tool) in COMPRESSED.items():
        if begin.startswith(mark):
            how = f"its members cannot be read one by one; unpack it ({tool} {archive.name})"
            whole = f"{archive} is compressed as a whole ({form})"
            raise UserError(f"{whole}: {how} and give the tar or the folder.")

    try:
        # A tar first: the last member of one may be a zip, which makes the whole look like a zip
        is_zip = not _is_header(begin) and zipfile.is_zipfile(archive)
        return _zip(archive) if is_zip else _tar(archive)
    except UserError:
        raise
    except DAMAGE as error:
        reason = f"{archive} is no whole zip or uncompressed tar: {error}"
        raise UserError(f"{reason}. Copy it again, or unpack it.") from None


# -- tar -------------------------------------------------------------------------------


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _tar(archive: Path) -> Listing:
    """Members of a tar, and of those that were joined to it."""
    listing = Listing()
    files = dict[str, Any]()
    links = dict[str, str]()
    parts = 0
    with open(archive, "rb") as stream:
        start: int | None = 0
        while start is not None:
            stream.seek(start)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for info in tar:
                    _take(info, archive, files, links, listing)
                end = tar.offset
            parts += 1
            start = _next_part(stream, end, listing, archive)
    if parts > 1:
        joined = f"{archive.name} is {parts} tars joined, or has a gap inside"
        listing.notes.append(f"{joined}; all are read")
    return _linked(listing, files, links)


def _take(
    info: tarfile.TarInfo,
    archive: Path,
    files: dict[str, Any],
    links: dict[str, str],
    listing: Listing,
) -> None:
    """Note one member of a tar: a file with its place, a link with its target."""
    if info.isdir():
        return
    name = safe(info.name, archive)
    if info.islnk() or info.issym():
        target = info.linkname if info.islnk() else _beside(name, info.linkname)
        target = _plain(target, archive)
        if info.islnk() and target in files:
            # as it is there now; a later member of that name is another file
            files[name] = files[target]
            listing.members.append((name, files[name]))
        else:
            links[name] = target
            listing.members.append((name, None))
    elif info.isreg():
        pieces = [tuple(info.sparse)] if info.sparse is not None else []
        files[name] = (str(archive), info.offset_data, info.size, *pieces)
        links.pop(name, None)
        listing.members.append((name, files[name]))
    else:
        listing.left_out.add(SPECIAL, name)


def _next_part(stream: IO[bytes], end: int, listing: Listing, archive: Path) -> int | None:
    """Where the next tar begins behind one whose members end at byte `end`.

    ValueError: that one is not whole.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if not block:
        cut = f"it was cut behind one of its members, at byte {end}"
        raise ValueError(f"it has no end mark, so {cut}")
    if block.strip(b"\0"):
        raise ValueError(f"it is damaged at byte {end}, and what follows cannot be listed")

    # Over the zeros that end a tar
    position = end
    while block and not block.strip(b"\0"):
        position += len(block)
        block = stream.read(2**20)
    if not block:
        return None

    zeros = len(block) - len(block.lstrip(b"\0"))
    position += zeros - zeros % tarfile.BLOCKSIZE
    stream.seek(position)
    if _is_header(stream.read(tarfile.BLOCKSIZE)):
        return position
    more = archive.stat().st_size - position
    behind = f"{more} bytes behind the end of {archive.name}"
    listing.notes.append(f"{behind} are no tar and are not read")
    return None


# -- zip -------------------------------------------------------------------------------


def _zip(archive: Path) -> Listing:
    """Members of a zip as its own list names them; what lies between those is counted."""
    listing = Listing()
    files = dict[str, Any]()
    links = dict[str, str]()
    with zipfile.ZipFile(archive) as zipped, open(archive, "rb") as stream:
        infos = zipped.infolist()
        _check_end(stream, len(infos), listing, archive)
        for info in infos:
            if info.is_dir():
                continue
            name = safe(info.filename, archive)
            unread = _unread(info)
            if unread:
                listing.left_out.add(unread, name)
            elif stat.S_ISLNK(info.external_attr >> 16) and info.file_size < 2**12:
                target = os.fsdecode(zipped.read(info))
                links[name] = _plain(_beside(name, target), archive)
                listing.members.append((name, None))
            else:
                files[name] = (str(archive), info.filename)
                links.pop(name, None)
                listing.members.append((name, files[name]))

        # What the zip's own list does not name
        for lost in _unlisted(stream, infos, zipped.start_dir):
            listing.left_out.add(UNLISTED, lost)
    return _linked(listing, files, links)


def _unread(info: zipfile.ZipInfo) -> str:
    """Why a member of a zip cannot be read; empty where it can."""
    if info.flag_bits & 1:
        return ENCRYPTED
    if info.compress_type in METHODS:
        return ""
    method = NOT_READ.get(info.compress_type, f"number {info.compress_type}")
    return f"members packed by a method that is not read ({method})"


def _check_end(stream: IO[bytes], count: int, listing: Listing, archive: Path) -> None:
    """Compare the end record with what was listed.

    UserError: one volume of several. ValueError: another number of members.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 2**16 - END_RECORD))
    tail = stream.read()
    at = tail.rfind(END)
    record = tail[at + len(END) : at + END_RECORD]
    disk, first_disk, _, told, _, _, comment = struct.unpack("<4H2LH", record)
    if {disk, first_disk} - {0, 0xFFFF}:
        join = f"zip -s 0 {archive.name} --out whole.zip joins them"
        raise UserError(f"{archive} is one volume of several; {join}, then give that.")
    if told != 0xFFFF and told != count % 2**16:
        raise ValueError(f"its end says that it has {told} members, and its list has {count}")
    more = len(tail) - at - END_RECORD - comment
    if more > 0:
        behind = f"{more} bytes behind the end of {archive.name}"
        listing.notes.append(f"{behind} are no part of that zip and are not read")


def _unlisted(stream: IO[bytes], infos: list[zipfile.ZipInfo], directory: int) -> Iterator[str]:
    """Names of members in the gaps between the listed ones.

    Gaps are looked into up to the central directory at byte `directory`.
    """
    spans = list[tuple[int, int]]()
    for info in infos:
        length = HEADER + len(info.orig_filename) + info.compress_size
        spans.append((info.header_offset, length))
    end = 0
    for offset, length in [*sorted(spans), (directory, 0)]:
        if offset - end > MOST_BEHIND:
            yield from _lost_between(stream, end, offset)
        end = max(end, offset + length)


def _lost_between(stream: IO[bytes], start: int, stop: int) -> Iterator[str]:
    """Names of the members whose local headers lie between two bytes of a zip."""
    at = start
    while at < stop - HEADER:
        # The next header
        stream.seek(at)
        block = stream.read(min(2**16, stop - at))
        inside = block.find(LOCAL)
        if inside < 0:
            at += len(block) - 3
            if len(block) < 2**16:
                return
            continue

        # Its name, and where the member ends
        at += inside
        stream.seek(at)
        header = stream.read(HEADER)
        size, _, name_length, extra_length = struct.unpack("<2L2H", header[18:30])
        name = stream.read(name_length)
        if name and not name.endswith(b"/"):
            yield name.decode(errors="replace")
        at += HEADER + name_length + extra_length + size


# -- links -----------------------------------------------------------------------------


def _beside(name: str, target: str) -> str:
    """The place that a symbolic link called `name` means."""
    if target.startswith("/"):
        return target
    return os.path.join(os.path.dirname(name), target)


def _plain(target: str, archive: Path) -> str:
    """A link's target as names of members are written; empty where it leads out."""
    place = os.path.normpath(target)
    return "" if place.startswith(("/", "..")) else safe(place, archive)


def _linked(listing: Listing, files: dict[str, Any], links: dict[str, str]) -> Listing:
    """The listing with each link replaced by the file that it means, or left out by reason.

    Links have no place so far.
    """
    if not links:
        return listing
    folders = set[str]()
    for name in files:
        folders.update(_parents(name))

    members = []
    for name, item in listing.members:
        if item is not None:
            members.append((name, item))
            continue
        if name not in links:  # a later file has its name
            listing.left_out.add(AGAIN, name)
            continue
        place = _meant(name, files, links, folders)
        if place in files:
            members.append((name, files[place]))
        else:
            listing.left_out.add(place, name)
    listing.members = members
    return listing


def _parents(name: str) -> Iterator[str]:
    """a/b/c.png -> a, a/b."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _meant(name: str, files: dict[str, Any], links: dict[str, str], folders: set[str]) -> str:
    """The name of the file that a link leads to, or the reason why there is none."""
    for _ in range(MOST_LINKS):
        places = [*_parents(name), name]
        link = next((place for place in places if place in links), None)
        if link is None and name in files:
            return name
        if link is None:
            return FOLDERS if name in folders else NOWHERE
        if not links[link]:
            return OUTSIDE
        name = os.path.normpath(links[link] + name.removeprefix(link))
    return CIRCLE
