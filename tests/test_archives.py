"""What a zip or tar holds and what was read of it agree, or the difference is named."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from facefactory import UserError
from facefactory.data import sources
from facefactory.data.packing import archives


def word(number: int) -> bytes:
    """Contents of a member, of a size of its own."""
    return f"face {number} ".encode() * (100 + number)


def write_tar(
    path: Path, members: dict[str, bytes | tuple[bytes, str]], form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """Files (bytes) and links (their type, their target); the bytes of the tar."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return path.read_bytes()


def contents(path: Path) -> dict[str, bytes]:
    """Name -> bytes of all that is listed; of a name that comes again, the last."""
    return {name: sources.content(item) for name, item in archives.listed(path).members}


def left_out(path: Path) -> dict[str, list[str]]:
    return {reason: entry.first for reason, entry in archives.listed(path).left_out.items()}


# -- tar -----------------------------------------------------------------------------------------------------------


def test_links_inside_a_tar_are_followed_and_others_are_named(tmp_path: Path) -> None:
    hard = tarfile.LNKTYPE
    symbolic = tarfile.SYMTYPE
    path = tmp_path / "a.tar"
    write_tar(
        path,
        {
            "./happy/0.jpg": word(0),
            "sad/1.jpg": (hard, "./happy/0.jpg"),
            "sad/2.jpg": (symbolic, "../happy/0.jpg"),
            "sad/3.jpg": (symbolic, "2.jpg"),  # a link to a link
            "sad/4.jpg": (symbolic, "../later/5.jpg"),
            "later/5.jpg": word(5),
            "again": (symbolic, "later"),
            "sad/6.jpg": (symbolic, "../again/5.jpg"),  # through a folder that is a link
            "sad/7.jpg": (hard, "sad/2.jpg"),
            "none.jpg": (symbolic, "no/such.jpg"),
            "lost.jpg": (hard, "no/such.jpg"),
            "loop.jpg": (symbolic, "pool.jpg"),
            "pool.jpg": (symbolic, "loop.jpg"),
            "out.jpg": (symbolic, "../../etc/passwd.jpg"),
            "root.jpg": (symbolic, "/etc/passwd.jpg"),
            "pipe.jpg": (tarfile.FIFOTYPE, ""),
        },
    )

    # what a link means is read, what it does not is named
    first = word(0)
    fifth = word(5)
    assert contents(path) == {
        **{
            "happy/0.jpg": first,
            "sad/1.jpg": first,
            "sad/2.jpg": first,
            "sad/3.jpg": first,
            "sad/7.jpg": first,
        },
        **{"later/5.jpg": fifth, "sad/4.jpg": fifth, "sad/6.jpg": fifth},
    }
    assert left_out(path) == {
        archives.SPECIAL: ["pipe.jpg"],
        archives.FOLDERS: ["again"],
        archives.NOWHERE: ["none.jpg", "lost.jpg"],
        archives.CIRCLE: ["loop.jpg", "pool.jpg"],
        archives.OUTSIDE: ["out.jpg", "root.jpg"],
    }


def test_a_hard_link_is_the_file_that_was_there_when_it_was_packed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.jpg", word(1)), ("b.jpg", None), ("a.jpg", word(2))):
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    assert contents(path) == {"a.jpg": word(2), "b.jpg": word(1)}


@pytest.mark.parametrize("form", [["gnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]])
def test_sparse_members_are_read_at_their_right_places(tmp_path: Path, form: list[str]) -> None:
    if (
        b"GNU tar"
        not in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout
    ):
        pytest.skip("this tar is not GNU's")

    # files with holes
    whole = {}
    for number in range(3):
        content = bytearray(40 * 4096 + 7 * number)
        for start in range(
            number, 40, 3 + 6 * number
        ):  # the first has so many pieces that a header more is needed
            content[4096 * start : 4096 * (start + 1)] = bytes([start + 1]) * 4096
        with open(tmp_path / f"{number}.bmp", "wb") as stream:
            for start in range(0, len(content), 4096):
                if any(content[start : start + 4096]):
                    stream.seek(start)
                    stream.write(content[start : start + 4096])
            stream.truncate(len(content))
        whole[f"{number}.bmp"] = bytes(content)

    # packed as GNU tar does
    version = [f"--sparse-version={form[1]}"] if form[1:] else []
    command = ["tar", "-S", f"--format={form[0]}", *version, "-cf", "a.tar", *whole]
    subprocess.run(
        command,
        cwd=tmp_path,
        check=True,
    )
    with tarfile.open(tmp_path / "a.tar") as tar:
        if not any(info.issparse() for info in tar):
            pytest.skip("this file system keeps no holes")
    assert contents(tmp_path / "a.tar") == whole
    item = dict(archives.listed(tmp_path / "a.tar").members)["1.bmp"]
    assert sources.content(item, 5000) == whole["1.bmp"][:5000]


def test_a_tar_that_was_cut_or_damaged_is_refused_wherever_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = write_tar(path, {f"{number}.jpg": word(number) for number in range(6)})
    with tarfile.open(path) as tar:
        header = tar.getmembers()[3].offset
    for end in (header - 600, header - 100, header, header + 100, header + 512, header + 700):
        path.write_bytes(whole[:end])
        with pytest.raises(
            UserError, match=r"a\.tar is no whole zip or uncompressed tar: .*Copy it again"
        ):
            archives.listed(path)
    path.write_bytes(whole[:header] + b"x" * 512 + whole[header + 512 :])
    with pytest.raises(
        UserError, match=rf"damaged at byte {header}, and what follows cannot be listed"
    ):
        archives.listed(path)
    path.write_bytes(whole[: header + 148] + b"0" * 8 + whole[header + 156 :])  # its checksum
    with pytest.raises(UserError, match=rf"damaged at byte {header}"):
        archives.listed(path)


def test_tars_that_were_joined_are_read_whole_and_garbage_behind_the_end_is_told(
    tmp_path: Path,
) -> None:
    parts = [
        write_tar(
            tmp_path / f"{part}.tar", {f"{part}/{n}.jpg": word(10 * part + n) for n in range(3)}
        )
        for part in range(3)
    ]
    path = tmp_path / "all.tar"
    path.write_bytes(parts[0] + parts[1] + parts[2])
    assert contents(path) == {
        f"{part}/{n}.jpg": word(10 * part + n) for part in range(3) for n in range(3)
    }
    assert archives.listed(path).notes == [
        "all.tar is 3 tars joined, or has a gap inside; all are read"
    ]
    path.write_bytes(parts[0] + parts[1][:3000])
    with pytest.raises(UserError, match="is no whole zip or uncompressed tar"):
        archives.listed(path)
    path.write_bytes(parts[0] + b"<html>an error of the server</html>")
    assert len(contents(path)) == 3
    assert archives.listed(path).notes == [
        "35 bytes behind the end of all.tar are no tar and are not read"
    ]


def test_a_tar_whose_last_member_is_a_zip_is_a_tar(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        zipped.writestr("inside.jpg", word(9))
    write_tar(tmp_path / "a.tar", {"a.jpg": word(1), "more.zip": stream.getvalue()})
    assert list(contents(tmp_path / "a.tar")) == ["a.jpg", "more.zip"]


@pytest.mark.parametrize(
    ("ending", "form"),
    [
        ("gz", "gzip"),
        ("bz2", "bzip2"),
        ("xz", "xz"),
    ],
)
def test_a_tar_that_is_compressed_as_a_whole_says_what_unpacks_it(
    tmp_path: Path, ending: str, form: str
) -> None:
    path = tmp_path / f"a.tar.{ending}"
    with tarfile.open(path, f"w:{ending}") as tar:  # type: ignore[call-overload]
        tar.add(__file__, "a.jpg")
    with pytest.raises(
        UserError, match=rf"is compressed as a whole \({form}\): .*un.* a\.tar\.{ending}\)"
    ):
        archives.listed(path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for content in (b"", b"x" * 3000, b"PK\3\4" + b"x" * 3000):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no whole zip or uncompressed tar"):
            archives.listed(path)


# -- zip -----------------------------------------------------------------------------------------------------------


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path.read_bytes()


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_whole_zip_is_read_without_a_word(tmp_path: Path, method: int) -> None:
    members = {f"Zoë/{'long name ' * 9}{number}.jpg": word(number) for number in range(4)}
    write_zip(tmp_path / "a.zip", {"Zoë/": b"", **members}, method)
    listing = archives.listed(tmp_path / "a.zip")
    assert contents(tmp_path / "a.zip") == members
    assert not listing.left_out
    assert not listing.notes
    item = listing.members[2][1]
    assert sources.content(item, 10) == word(2)[:10]


def test_a_zip_written_to_a_pipe_is_read_without_a_word(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        written = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, content: object) -> int:
            self.written += content  # type: ignore[operator]
            return len(content)  # type: ignore[arg-type]

    with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as zipped:  # type: ignore[arg-type]
        for number in range(3):
            zipped.writestr(f"{number}.jpg", os.urandom(200))
    (tmp_path / "a.zip").write_bytes(Pipe.written)
    listing = archives.listed(tmp_path / "a.zip")
    assert len(listing.members) == 3
    assert not listing.left_out
    assert not listing.notes


def test_members_that_a_zip_holds_and_does_not_list_are_counted(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "a.zip", {f"a/{number}.jpg": word(number) for number in range(3)})
    two = write_zip(tmp_path / "b.zip", {f"b/{number}.jpg": word(number) for number in range(2)})
    path = tmp_path / "joined.zip"
    path.write_bytes(one + two)
    assert set(contents(path)) == {"b/0.jpg", "b/1.jpg"}
    assert left_out(path) == {archives.UNLISTED: ["a/0.jpg", "a/1.jpg", "a/2.jpg"]}
    path.write_bytes(b"#!/bin/sh\n" + two)  # one that unpacks itself
    assert set(contents(path)) == {"b/0.jpg", "b/1.jpg"}
    assert not left_out(path)


def test_what_lies_behind_the_end_of_a_zip_is_told(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", {"a.jpg": word(1)})
    (tmp_path / "a.zip").write_bytes(whole + b"more")
    assert contents(tmp_path / "a.zip") == {"a.jpg": word(1)}
    (note,) = archives.listed(tmp_path / "a.zip").notes
    assert note == "4 bytes behind the end of a.zip are no part of that zip and are not read"
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as zipped:
        zipped.comment = b"of my own"
    assert not archives.listed(tmp_path / "a.zip").notes


def test_a_zip_that_is_cut_or_one_volume_of_several_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    whole = write_zip(path, {f"{number}.jpg": word(number) for number in range(3)})
    for end in (len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="is no whole zip or uncompressed tar"):
            archives.listed(path)
    path.write_bytes(whole[:-18] + b"\2\0\2\0" + whole[-14:])
    with pytest.raises(
        UserError, match=r"is one volume of several; zip -s 0 a\.zip --out whole\.zip joins them"
    ):
        archives.listed(path)
    path.write_bytes(whole[:-12] + b"\5\0" + whole[-10:])
    with pytest.raises(UserError, match="its end says that it has 5 members, and its list has 3"):
        archives.listed(path)


def test_encrypted_members_and_unknown_methods_are_left_out_by_reason(tmp_path: Path) -> None:
    whole = bytearray(
        write_zip(tmp_path / "a.zip", {f"{number}.jpg": word(number) for number in range(3)})
    )
    entries = [at for at in range(len(whole)) if whole[at : at + 4] == b"PK\1\2"]
    whole[entries[0] + 8] |= 1
    whole[entries[1] + 10] = 9
    (tmp_path / "a.zip").write_bytes(whole)
    assert contents(tmp_path / "a.zip") == {"2.jpg": word(2)}
    deflate64 = "members packed by a method that is not read (deflate64)"
    assert left_out(tmp_path / "a.zip") == {archives.ENCRYPTED: ["0.jpg"], deflate64: ["1.jpg"]}


def test_links_inside_a_zip_are_followed(tmp_path: Path) -> None:
    (tmp_path / "set" / "happy").mkdir(parents=True)
    (tmp_path / "set" / "happy" / "0.jpg").write_bytes(word(0))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.write(tmp_path / "set" / "happy" / "0.jpg", "happy/0.jpg")
        for name, target in {"sad/1.jpg": "../happy/0.jpg", "sad/2.jpg": "3.jpg"}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            zipped.writestr(info, target)
    shutil.rmtree(tmp_path / "set")
    assert contents(tmp_path / "a.zip") == {"happy/0.jpg": word(0), "sad/1.jpg": word(0)}
    assert left_out(tmp_path / "a.zip") == {archives.NOWHERE: ["sad/2.jpg"]}
