"""The run folder: its owner, its ledger, which stages are done; every write is atomic.

Layout: config.yaml, command.txt, stages.json, starting.json (while a command starts it), owner.json, jobs.jsonl,
private/, report.html, `<stage>/{STAGE.json, DONE.json, …}`.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facefactory import UserError, say

DAMAGED = "is empty or cut, as a crash or a full disk leaves files"
# What each line of the ledger has, and what some have
LEDGER = {"time": int | float, "stage": str, "state": str, "host": str, "job": str}
MORE_OF_LEDGER = {"withdrawn": list, "instead_of": str, "elements": int, "failure": dict}
OWNER_TOKEN = "FACEFACTORY_OWNER"  # handed by a launcher to the processes that write in its name
FULL = (errno.ENOSPC, errno.EDQUOT)  # no room on the disk, or none left for this user


class OwnerLost(RuntimeError):
    """A newer copy of this job owns the run folder; this one must not write any more."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where the disk is full, the OSError names the file that did not fit.

    Python's own, of a write, names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename == str(path):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def no_room(error: OSError) -> str:
    """What to do about a full disk, for the person who watches."""
    if not error.filename:
        return (
            f"no room left on a disk ({error.strerror}); "
            "make room, and run the same command again: it goes on."
        )
    folder = next(place for place in Path(error.filename).absolute().parents if place.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    limit = ", but your quota is used up" if error.errno == errno.EDQUOT else ""
    return (
        f"no room left for {error.filename} ({error.strerror}); {free_gb:.3f} GB are free "
        f"there{limit}. Make room, or give another paths.runs or paths.data, and run the same "
        "command again: it goes on from what is saved."
    )


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is fsynced and renamed to `path` when the block ends well.

    Else it is removed. OSError where the disk is full names `path`.
    """
    with naming(path), _renamed(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # hosts share folders, and numbers
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the rename itself must survive a power loss
        os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, because other readers choke on it."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in a file, or None where there is no file.

    One that is damaged is named, and counts as none.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        say_once(f"{path} {DAMAGED}; it counts as missing.")
        return None


def need_json(path: Path, advice: str) -> Any:
    """The JSON in a file without which nothing can be done.

    UserError: it is missing or damaged, and what to do.
    """
    content = read_json(path)
    if content is None:
        raise UserError(f"{path} {DAMAGED if path.exists() else 'is missing'}. {advice}")
    return content


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object with the digest of its content."""
    as_read = json.loads(json.dumps(record, allow_nan=False))
    write_json(path, {**as_read, "digest": digest(as_read)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote, without the digest.

    None: there is no file, or it is damaged or holds anything else, and a line says so.
    """
    content = read_json(path)
    if content is None:
        return None
    if isinstance(content, dict):
        written = content.pop("digest", None)
        if written == digest(content):
            return content
    say_once(f"{path} holds something else than was written there; it counts as missing.")
    return None


def read_results(stage: Path) -> dict[str, Any]:
    """results.json in the folder of a stage; empty where there is none, or none that can be used.

    Where DONE.json speaks of it, its bytes must still be those.
    """
    path = stage / "results.json"
    content = read_json(path)
    if content is None:
        return {}
    done = read_sealed(stage / "DONE.json") or {}
    digest = done.get("texts", {}).get(f"{stage.name}/{path.name}")
    if isinstance(content, dict) and digest in (None, sha256(path)):
        return content
    say_once(
        f"{path} holds something else than was written there; it counts as missing. "
        "The command that made it makes it again."
    )
    return {}


@functools.cache
def say_once(text: str) -> None:
    say(text)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON-lines file; lines cut by a kill are left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").split("\n")[:-1]:
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(text)
            if isinstance(line, dict):
                lines.append(line)
    return lines


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's jobs.jsonl.

    One that cannot have been written there is left out, and told.
    """
    path = folder / "jobs.jsonl"
    whole = []
    for line in read_jsonl(path):
        fits = all(isinstance(line.get(name), kind) for name, kind in LEDGER.items())
        fits = fits and all(
            isinstance(line.get(name, kind()), kind) for name, kind in MORE_OF_LEDGER.items()
        )
        if fits:
            whole.append(line)
        else:
            say_once(f"{path} has lines that nobody writes there; they are left out.")
    return whole


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a training: `kimg`, the means of scalars and, where it is ill, `health` in words.

    One that holds anything else is left out.
    """
    lines = []
    for line in read_jsonl(path):
        words = line.get("health", [])
        numbers = [value for name, value in line.items() if name != "health"]
        fits = "kimg" in line and all(isinstance(value, int | float) for value in numbers)
        if fits and isinstance(words, list):
            lines.append(line)
    return lines


def append_json(path: Path, line: dict[str, Any]) -> None:
    """Append to a JSON-lines file.

    A line that a kill cut before is ended first, so that this one is whole.
    """
    with naming(path), open(path, "ab+") as stream:
        stream.seek(max(0, stream.tell() - 1))
        cut = stream.read() not in (b"", b"\n")
        stream.write(b"\n" * cut + json.dumps(line).encode() + b"\n")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file: processes that would do the same work wait for the first."""
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which is at work in {path.parent}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def tail(path: Path, lines: int = 15) -> str | None:
    """The last lines of a log; None where there is no file."""
    if not path.is_file():
        return None
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """The user's cache folder for verdicts and weights.

    Where no home is known, a place that can hold nothing.
    """
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(caches) / "facefactory"
    except RuntimeError:
        return Path(os.devnull)


def remember(path: Path, value: Any) -> None:
    """Write JSON that can be found out again; where it cannot be written, a line says so."""
    try:
        write_json(path, value)
    except OSError as error:
        say_once(
            f"nothing can be kept in {cache_folder()} ({error.strerror}), so checksums are taken "
            "anew by every job; XDG_CACHE_HOME=… names another folder."
        )


def settle_umask() -> None:
    """From now on nobody else may write to what this process makes.

    A group may where the umask says so (002).
    """
    inherited = os.umask(0o022)
    if inherited & 0o002:
        os.umask(inherited)


def usable(path: Path, name: str, write: bool = True) -> None:
    """Raise UserError unless a folder is or can be there and, with `write`, can be written.

    `name` is its key.
    """
    for place in (path, *path.parents):
        try:
            if place.is_symlink() and not place.exists():
                raise UserError(
                    f"{name}={path}: {place} is a link to {os.readlink(place)}, which is not there."
                )
            if not place.exists():
                continue
            if not place.is_dir():
                raise UserError(f"{name}={path}: {place} is a file; give a folder.")
            if write and not os.access(place, os.W_OK | os.X_OK):
                raise UserError(
                    f"{name}={path}: {place} cannot be written by you; give another folder."
                )
        except OSError as error:
            raise UserError(f"{name}={path}: {error.strerror}; give another folder.") from None
        return


def started(pid: int) -> str | None:
    """Start time of a live process in clock ticks: with the pid it names a process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat[0] == "Z" else stat[19]


class RunDir:
    """A run folder on shared storage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = os.environ.get(OWNER_TOKEN)
        # what this process found out once and asks for again, e.g. the plan of a set
        self.kept: dict[str, Any] = {}

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.path / name

    def running(self) -> dict[str, Any] | None:
        """The owner, if it is another process that is alive on this machine."""
        owner = self._owner()
        if owner is None or owner["host"] != socket.gethostname() or owner["pid"] == os.getpid():
            return None
        return owner if started(owner["pid"]) == owner["started"] else None

    def _owner(self) -> dict[str, Any] | None:
        match read_json(self.path / "owner.json"):
            case {"host": str(), "pid": int(), "token": str(), "started": str() | None} as owner:
                return owner
        return None

    def claim(self) -> None:
        """Become the owner; whoever owned the folder before stops at its next write."""
        self.open_private()
        self.token = secrets.token_hex(8)
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "token": self.token,
        }
        write_json(self.path / "owner.json", owner)

    def open_private(self) -> None:
        """Make the folder of what is executed or secret, for its owner's eyes only."""
        private = self.path / "private"
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.chmod(0o700)

    def guard(self) -> None:
        """Raise OwnerLost unless this process (or its launcher) still owns the folder.

        Called before every rename.
        """
        owner = self._owner()
        newer = "nobody (owner.json is gone or damaged)"
        if owner is not None:
            if owner["token"] == self.token:
                return
            newer = f"pid {owner['pid']} on {owner['host']}"
        raise OwnerLost(
            f"{self.path} is owned by {newer} now; this older copy stops without writing."
        )

    def record(self, stage: str, state: str, **facts: Any) -> None:
        """Append a line to the ledger."""
        line = {
            "time": round(time.time(), 1),
            "stage": stage,
            "state": state,
            "host": socket.gethostname(),
            "job": os.environ.get("FACEFACTORY_JOB", f"pid {os.getpid()}"),
            **facts,
        }
        append_json(self.path / "jobs.jsonl", line)

    def done(self, stage: str) -> dict[str, Any] | None:
        """DONE.json of a stage, or None: the stage is not finished, or the file is damaged."""
        return read_sealed(self.stage(stage) / "DONE.json")

    def is_complete(self, stage: str, config: dict[str, Any], inputs: dict[str, Any]) -> bool:
        """Whether DONE.json speaks of this config and these inputs.

        The files that it names must be there in full size, those of JSON as they were.
        """
        done = self.done(stage)
        if done is None or done["config"] != config or done["inputs"] != inputs:
            return False
        for name, size in done["files"].items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size != size:
                return False
        for name, digest in done["texts"].items():
            if sha256(self.path / name) != digest:
                say_once(f"{self.path / name} was changed; {stage} is done again.")
                return False
        return True

    def begin(self, stage: str, identity: str) -> None:
        """Open a stage's folder: continue what has the same identity.

        Anything else is moved aside (never deleted).
        """
        path = self.stage(stage) / "STAGE.json"
        wanted = {"identity": identity}
        if read_json(path) != wanted:
            if path.parent.exists():
                self.move_aside(stage)
            write_json(path, wanted)

    def move_aside(self, stage: str) -> None:
        """Rename a stage's folder to `<stage>.old-<n>`."""
        self.guard()
        earlier = self.path.glob(f"{stage}.old-*")
        numbers = [int(path.suffix.removeprefix(".old-")) for path in earlier]
        number = max(numbers, default=0) + 1
        self.stage(stage).rename(self.path / f"{stage}.old-{number}")

    def finish(self, stage: str, record: dict[str, Any], files: list[Path]) -> None:
        """Write DONE.json: `record` holds config, inputs, outputs and seconds.

        `files` are named with their sizes, those of JSON with their digests.
        """
        self.guard()
        sizes = {}
        texts = {}
        for path in files:
            name = str(path.relative_to(self.path))
            sizes[name] = path.stat().st_size
            if path.suffix == ".json":
                texts[name] = sha256(path)
        write_sealed(self.stage(stage) / "DONE.json", {**record, "files": sizes, "texts": texts})


def identity_of(path: Path) -> dict[str, Any] | None:
    """The config keys that a run folder was made with; None: it was never prepared.

    UserError: the file is damaged.
    """
    file = path / "identity.json"
    if not file.exists():
        return None
    advice = (
        f"If {path / 'config.yaml'} is the config that you want, remove {file.name} and give the "
        "same command again; else choose another run=…"
    )
    identity = need_json(file, advice)
    if not isinstance(identity, dict):
        raise UserError(f"{file} {DAMAGED}. {advice}")
    return identity


def check_modes(path: Path) -> None:
    """Raise UserError if everyone may write to a run folder, or to what is executed in it."""
    for place in (path, path / "code", path / "private"):
        if place.exists() and place.stat().st_mode & 0o002:
            raise UserError(
                f"{place} is writable by everyone, and jobs execute what lies there. "
                f"If nobody else wrote to it, run: chmod -R o-w {shlex.quote(str(path))} "
                "(where that changes nothing, a mount's options decide: give another paths.runs)."
            )


def check_identity(path: Path, identity: dict[str, Any], accept_changes: bool) -> bool:
    """Whether a run folder was made with this very config.

    UserError: it was made with another one, and changes are not accepted.
    """
    made = identity_of(path)
    if made is None or made == identity or accept_changes:
        return made == identity
    differences = []
    for name in sorted(made.keys() | identity.keys()):
        before = made.get(name)
        now = identity.get(name)
        if before != now:
            differences.append(f"{name} was {before!r}, now {now!r}")
    raise UserError(
        f"run {path.name!r} exists with another config: {'; '.join(differences)}. Choose another "
        "run=…, or changed=accept to run again the stages that depend on it (old results are kept)."
    )


def prepare(
    path: Path, resolved: str, identity: dict[str, Any], command: str, accept_changes: bool
) -> RunDir:
    """The run folder for a resolved config: made anew, or checked against what it was made with.

    UserError: the folder exists with another config and changes are not accepted, or others may
    write to it.
    """
    check_identity(path, identity, accept_changes)
    check_modes(path)
    write_json(path / "identity.json", identity)
    with atomic(path / "config.yaml") as temporary:
        temporary.write_text(resolved)
    with naming(path / "command.txt"), open(path / "command.txt", "a") as commands:
        commands.write(command + "\n")
    return RunDir(path)


def keep_stages(path: Path, names: Sequence[str]) -> None:
    """Keep which stages a run's command makes."""
    write_json(path / "stages.json", list(names))


def stages_of(path: Path) -> list[str]:
    """The stages that a run's command makes; none where that is not known."""
    found = read_json(path / "stages.json")
    return [str(name) for name in found] if isinstance(found, list) else []
