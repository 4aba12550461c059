"""One copy of a set's images a node, in memory or on its disk, which all processes there read.

The copy is a file without a name: the kernel frees it when the last process that holds it has
ended, however it ends. Others come to it through /proc/<pid>/fd/<fd> of those that hold it, which
a small list below TMPDIR names.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from facefactory import rundir, surroundings

Write = Callable[[IO[bytes]], None]  # of a copy's bytes


def shared(name: str, where: str, size: int, write: Write) -> IO[bytes]:
    """The copy `name` in `memory` or on `disk`.

    `write` makes it if no process of this user here holds one.

    Raises:
        OSError: there is no room for `size` bytes, the folder belongs to somebody else, or a
            process holds a copy that this one may not see, as in another container: then there
            are not as many copies as processes.
    """
    folder = Path(tempfile.gettempdir()) / f"facefactory-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")

    # TMPDIR may be shared, numbers of processes are not
    here = f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    holders = folder / f"{name}-{where}-{here}.jsonl"
    # the first process that comes copies, the others wait for it
    with rundir.locked(folder / f"{where}-{here}.lock"):
        stream = _held(holders)
        if stream is None:
            stream = _written(name, where, folder, size, write)
            holders.unlink(missing_ok=True)
        holder = {
            "pid": os.getpid(),
            "started": rundir.started(os.getpid()),
            "fd": stream.fileno(),
            "file": _identity(stream),
        }
        rundir.append_json(holders, holder)
    return stream


def _written(name: str, where: str, folder: Path, size: int, write: Write) -> IO[bytes]:
    """A new copy; OSError: there is no room for it."""
    memory = where == "memory"
    room = free_memory() if memory else shutil.disk_usage(folder).free
    if size > 0.8 * room:
        raise OSError(
            f"{size / 2**30:.3g} GiB of images do not fit into 80 % of the {room / 2**30:.3g} GiB "
            f"free in {where if memory else folder}"
        )
    number = os.memfd_create(name) if memory else _nameless(folder)
    stream = os.fdopen(number, "w+b")
    try:
        write(stream)
        stream.flush()
    except BaseException:
        stream.close()
        raise
    return stream


def _held(holders: Path) -> IO[bytes] | None:
    """The copy of a process that still holds one."""
    for holder in reversed(rundir.read_jsonl(holders)):
        if not {"pid", "started", "fd", "file"} <= holder.keys():
            continue  # nobody's line
        if rundir.started(holder["pid"]) != holder["started"]:
            continue
        try:
            number = os.open(f"/proc/{holder['pid']}/fd/{holder['fd']}", os.O_RDONLY)
        except PermissionError:
            raise
        except OSError:  # it has let go of the copy; the number may be a socket's now
            continue
        stream = os.fdopen(number, "rb")
        if _identity(stream) == holder["file"]:
            return stream
        stream.close()
    return None


def _nameless(folder: Path) -> int:
    number, name = tempfile.mkstemp(dir=folder)
    os.unlink(name)
    return number


def _identity(stream: IO[bytes]) -> list[int]:
    stat = os.fstat(stream.fileno())
    return [stat.st_dev, stat.st_ino, stat.st_size]


def free_memory() -> int:
    """Bytes of memory that this job may take here: what Linux has, or Slurm granted."""
    after = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
    available = int(after.split()[0]) * 1024
    return min(available, surroundings.memory_granted() or available)
