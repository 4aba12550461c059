"""One shard: a USTAR tar of images and labels, and the same labels as a table.

Its bytes depend on what is in it alone.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from facefactory import rundir
from facefactory.data.packing import pictures
from facefactory.data.sets.index import BLOCK, NPY_HEADER, Shard, Skipped, padded

if TYPE_CHECKING:
    import pandas as pd

# storage -> Pillow's options: PNG and WebP keep every bit, JPEG does not
ENCODED: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}
MOST = 10**8  # images of a split: members are named by 8 digits
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first 128 bytes of an .npy file (format 1.0) of uint8 in C order."""
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00"
    size = (NPY_HEADER - 10).to_bytes(2, "little")  # of what follows
    return magic + size + fields.ljust(NPY_HEADER - 11).encode() + b"\n"


@functools.lru_cache(maxsize=4)
def _header(ending: str, size: int) -> tuple[bytes, int]:
    """The header of member 0, and its checksum."""
    info = tarfile.TarInfo(f"00000000.{ending}")
    info.size = size
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return header, int(header[148:154], 8)


def member(number: int, ending: str, content: bytes) -> bytes:
    """A tar member `<8 digits>.<ending>` without owner or time, padded to whole blocks.

    Members of one size differ in name and checksum alone, and tarfile takes long for a header.
    """
    header, checksum = _header(ending, len(content))
    name = f"{number:08d}".encode()
    checksum += sum(name) - 8 * ord("0")
    header = name + header[8:148] + f"{checksum:06o}".encode() + header[154:]
    return header + content.ljust(padded(len(content)), b"\0")


def encode(image: np.ndarray, storage: str) -> tuple[str, bytes]:
    """The file of an image [H, W, C] uint8 as a shard's member: its ending and its bytes."""
    if storage == "raw":
        return "npy", npy_header(image.shape) + image.tobytes()
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    stream = io.BytesIO()
    picture.save(stream, **ENCODED[storage])
    ending = "jpg" if storage == "jpeg" else storage
    return ending, stream.getvalue()


def decode(files: list[bytes], channels: int) -> np.ndarray:
    """The images [n, H, W, C] uint8 in some members of an encoded shard."""
    mode = "L" if channels == 1 else "RGB"
    images = []
    for content in files:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            images.append(np.asarray(image.convert(mode)))
    stacked = np.stack(images)
    return stacked[..., None] if channels == 1 else stacked


def workers(count: int) -> ProcessPoolExecutor:
    """Processes that leave signals to their parent and end with it, however that ends."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _follow_parent)


def submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Hand a task to such a pool.

    A process that starts for it ignores signals from its first moment on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # inherited
    try:
        return pool.submit(work, *arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    def end_with(parent: Any) -> None:
        parent.join()
        os._exit(1)

    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.Thread(target=end_with, args=[multiprocessing.parent_process()], daemon=True).start()


def write_shard(
    stem: str,
    first: int,
    paths: Sequence[Any],
    rows: pd.DataFrame,
    read: Callable[[Any], np.ndarray],
    storage: str = "raw",
) -> tuple[Shard, list[Skipped]]:
    """Write `<stem>.tar` and `.parquet`, images `first`… of a split.

    The shard, and the images that cannot be read. `read` makes an image [H, W, C] uint8 of
    each of `paths`, one at a time: memory does not grow with the shard. `storage` is raw (a shard
    is then an array of fixed stride) or png, jpeg, webp (the table has `_offset` and `_length` of
    each file).
    """
    texts = [_text(row) for row in rows.to_dict("records")]
    longest = max(map(len, texts), default=0)
    whole = hashlib.sha256()
    pixels = hashlib.sha256()
    kept: list[int] = []  # places of the packed among the paths
    spans: list[tuple[int, int]] = []  # offset and length of each image's file in the tar
    skipped: list[Skipped] = []

    # images and labels, one pair after the other
    tar_path = Path(f"{stem}.tar")
    with rundir.atomic(tar_path) as temporary, open(temporary, "wb", 2**20) as tar:
        for number, image in _readable(paths, rows["file"], read, skipped):
            key = first + len(kept)
            ending, content = encode(image, storage)
            labels = texts[number].ljust(longest).encode()
            pair = member(key, ending, content) + member(key, "json", labels)
            kept.append(number)
            spans.append((tar.tell() + BLOCK, len(content)))
            pixels.update(content if storage == "jpeg" else image.data)
            whole.update(pair)
            tar.write(pair)
        end = bytes(2 * BLOCK)  # of the archive
        whole.update(end)
        tar.write(end)

    stride = None
    if storage == "raw":
        image_bytes = spans[0][1] if spans else 0
        stride = 2 * BLOCK + padded(image_bytes) + padded(longest)

    # the labels as a table
    table_path = Path(f"{stem}.parquet")
    try:
        _write_table(table_path, rows.iloc[kept], None if storage == "raw" else spans)
    except BaseException:
        tar_path.unlink()  # without its table it is no shard
        raise
    shard = Shard(
        file=tar_path.name,
        count=len(kept),
        bytes=tar_path.stat().st_size,
        stride=stride,
        sha256=whole.hexdigest(),
        pixels_sha256=pixels.hexdigest(),
        table=table_path.name,
        table_sha256=rundir.sha256(table_path),
    )
    return shard, skipped


def _text(row: dict[Any, Any]) -> str:
    """Labels as JSON, which knows no NaN."""
    labels = {name: None if value != value else value for name, value in row.items()}
    return json.dumps(labels, ensure_ascii=True, allow_nan=False)


def _readable(
    paths: Sequence[Any],
    files: pd.Series,
    read: Callable[[Any], np.ndarray],
    skipped: list[Skipped],
) -> Iterator[tuple[int, np.ndarray]]:
    """Place and image of each path that can be read; why not goes to `skipped`."""
    for number, path in enumerate(paths):
        try:
            image = read(path)
        except Exception as error:  # whatever a decoder raises on a bad file
            if pictures.machine(error):
                raise
            reason = pictures.reason(error)
            skipped.append(Skipped(files.iloc[number], reason))
            continue
        yield number, image


def _write_table(path: Path, rows: pd.DataFrame, spans: list[tuple[int, int]] | None) -> None:
    """Labels as a .parquet; where images lie at no fixed stride, with their `spans` in the tar."""
    whole = [name for name, kind in rows.dtypes.items() if kind.kind == "i"]
    rows = rows.reset_index(drop=True).astype(dict.fromkeys(whole, np.int32))
    if spans is not None:
        rows[["_offset", "_length"]] = np.array(spans, np.int64).reshape(-1, 2)
    with rundir.atomic(path) as temporary:
        rows.to_parquet(temporary, index=False)
