"""One shard: a USTAR tar of images and labels, and the same labels as a table. Its bytes depend on what is in it alone."""

import functools
import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory import rundir
from facefactory.data.packing import pictures
from facefactory.data.sets.index import BLOCK, NPY_HEADER, padded

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
    return (
        b"\x93NUMPY\x01\x00"
        + (NPY_HEADER - 10).to_bytes(2, "little")
        + fields.ljust(NPY_HEADER - 11).encode()
        + b"\n"
    )


@functools.lru_cache(maxsize=4)
def _header(ending: str, size: int) -> tuple[bytes, int]:
    info = tarfile.TarInfo(f"00000000.{ending}")
    info.size = size
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return header, int(header[148:154], 8)


def member(number: int, ending: str, content: bytes) -> bytes:
    """A tar member `<8 digits>.<ending>` without owner or time, padded to whole blocks.

    Members of one size differ in name and checksum alone, and tarfile takes long for a header.
    """
    (header, checksum), name = _header(ending, len(content)), f"{number:08d}".encode()
    checksum += sum(name) - 8 * ord("0")
    header = name + header[8:148] + f"{checksum:06o}".encode() + header[154:]
    return header + content.ljust(padded(len(content)), b"\0")


def encode(image: np.ndarray, storage: str) -> tuple[str, bytes]:
    """The file of an image [H, W, C] uint8 as a shard's member: its ending and its bytes."""
    if storage == "raw":
        return "npy", npy_header(image.shape) + image.tobytes()
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
        stream, **ENCODED[storage]
    )
    return {"jpeg": "jpg"}.get(storage, storage), stream.getvalue()


def decode(files: list[bytes], channels: int) -> np.ndarray:
    """The images [n, H, W, C] uint8 in some members of an encoded shard."""
    found = []
    for content in files:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            found.append(np.asarray(image.convert("L" if channels == 1 else "RGB")))
    return np.stack(found)[..., None] if channels == 1 else np.stack(found)


def workers(count: int) -> ProcessPoolExecutor:
    """Processes that leave signals to their parent and end with it, however that ends."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _follow_parent)


def submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Hand a task to such a pool; a process that starts for it ignores signals from its first moment on."""
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
) -> dict[str, Any]:
    """Write `<stem>.tar` and `.parquet`, images `first`… of a split; its entry in index.json, with the images `skipped`.

    `read` makes an image [H, W, C] uint8 of each of `paths`, one at a time: memory does not grow with the shard. `storage`
    is raw (a shard is then an array of fixed stride) or png, jpeg, webp (the table has `_offset` and `_length` of each file).
    """
    known = [
        {name: None if value != value else value for name, value in row.items()}
        for row in rows.to_dict("records")
    ]
    texts = [json.dumps(row, ensure_ascii=True, allow_nan=False) for row in known]
    longest, pixels, whole = max(map(len, texts), default=0), hashlib.sha256(), hashlib.sha256()
    kept: list[int] = []
    spans, skipped = [], []
    tar_path, table_path = Path(f"{stem}.tar"), Path(f"{stem}.parquet")
    with rundir.atomic(tar_path) as temporary, open(temporary, "wb", 2**20) as tar:
        for number, path in enumerate(paths):
            try:
                image = read(path)
            except Exception as error:  # whatever a decoder raises on a bad file
                if pictures.machine(error):
                    raise
                skipped.append(
                    {"file": rows["file"].iloc[number], "reason": pictures.reason(error)}
                )
                continue
            key, text, (ending, content) = (
                first + len(kept),
                texts[number].ljust(longest).encode(),
                encode(image, storage),
            )
            pixels.update(content if storage == "jpeg" else image.data)
            kept.append(number)
            spans.append((tar.tell() + BLOCK, len(content)))
            whole.update(both := member(key, ending, content) + member(key, "json", text))
            tar.write(both)
        whole.update(end := bytes(2 * BLOCK))  # of the archive
        tar.write(end)
    rows = rows.iloc[kept].reset_index(drop=True)
    rows = rows.astype({name: np.int32 for name, kind in rows.dtypes.items() if kind.kind == "i"})
    entry = {"file": tar_path.name, "count": len(kept), "bytes": tar_path.stat().st_size}
    if storage == "raw":
        entry["stride"] = 2 * BLOCK + padded(spans[0][1] if spans else 0) + padded(longest)
    else:
        rows[["_offset", "_length"]] = np.array(spans, np.int64).reshape(-1, 2)
    try:
        with rundir.atomic(table_path) as temporary:
            rows.to_parquet(temporary, index=False)
    except BaseException:
        tar_path.unlink()  # without its table it is no shard
        raise
    digests = {"sha256": whole.hexdigest(), "pixels_sha256": pixels.hexdigest()}
    return {
        **entry,
        **digests,
        "table": table_path.name,
        "table_sha256": rundir.sha256(table_path),
        "skipped": skipped,
    }
