"""Short folders in /tmp for what opens its own folder to everybody, as Ray does.

A folder `/tmp/ff-…` is its user's alone (0700): what lies below it is out of reach whatever its
mode. The file `held` in it names the host and is locked as long as its process lives; that tells a
folder in use from one that a kill left.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
from pathlib import Path

PREFIX = "ff-"
HELD = "held"


def place() -> Path:
    """Where such folders lie: /tmp, because paths of sockets end at 107 bytes."""
    usable = os.path.isdir("/tmp") and os.access("/tmp", os.W_OK)
    return Path("/tmp" if usable else tempfile.gettempdir())


def name() -> str:
    """A name that nobody can guess."""
    return str(place() / f"{PREFIX}{secrets.token_hex(6)}")


def hold(folder: Path, lasting: bool = False) -> int:
    """Make a folder that is held until this process ends; the lock's descriptor.

    `lasting`: what this process executes in its own place holds it on.
    FileExistsError: somebody has made it already.
    """
    new = folder.with_name(f".{folder.name}")
    new.mkdir(mode=0o700)
    new.chmod(0o700)
    lock = os.open(new / HELD, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(lock, json.dumps({"host": socket.gethostname()}).encode())
    with contextlib.suppress(OSError):  # a file system without locks: nothing will be swept there
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.fchmod(lock, 0o600)
    os.set_inheritable(lock, lasting)
    if folder.exists():
        shutil.rmtree(new)
        raise FileExistsError(f"{folder} exists")
    new.rename(folder)
    return lock


def sweep(parent: Path) -> list[Path]:
    """Remove folders of this user and host whose process is gone; those that were removed."""
    gone = [folder for folder in sorted(parent.glob(f"{PREFIX}*")) if _left_behind(folder)]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def _left_behind(folder: Path) -> bool:
    """Whether a folder is ours, was made on this host, and nobody holds it any more."""
    try:
        entry = folder.lstat()
        if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != os.geteuid():
            return False
        lock = os.open(folder / HELD, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        host = json.loads(os.read(lock, 4096) or b"{}").get("host")
        if host != socket.gethostname():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (OSError, ValueError):  # it is held, or this file system knows no locks
        return False
    finally:
        os.close(lock)


def become(folder: str, command: list[str]) -> None:
    """Become a command that works in a folder of its own, as a step of a Slurm job does.

    What it starts must not take itself for a Slurm task; the warning before a time limit is not for
    it.
    """
    sweep(Path(folder).parent)
    hold(Path(folder), lasting=True)
    inherited = os.environ.items()
    environment = {name: value for name, value in inherited if not name.startswith("SLURM_")}
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":  # python -m facefactory.scratch FOLDER COMMAND …
    become(sys.argv[1], sys.argv[2:])
