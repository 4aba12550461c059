"""The store of published weights: found on disk and checked, never downloaded by a job, never replaced by random ones."""

import os
from pathlib import Path
from typing import NamedTuple

from facefactory import UserError, rundir


class Weights(NamedTuple):
    """A published file: where it comes from and what it must contain."""

    file: str
    url: str
    sha256: str


INCEPTION = Weights(  # the standard FID network, as published with torch-fidelity (Apache 2.0), 95,628,359 bytes
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


def store() -> Path:
    """FACEFACTORY_WEIGHTS (put it on shared storage), else the user's cache folder."""
    return Path(os.environ.get("FACEFACTORY_WEIGHTS") or rundir.cache_folder() / "weights")


def find(weights: Weights) -> Path | None:
    """The file, if it is staged; UserError: the file is there but is not the published one."""
    path = store() / weights.file
    if not path.is_file():
        return None
    found = rundir.sha256(path)
    if found != weights.sha256:
        raise UserError(f"{path} has SHA-256 {found[:16]}…, not {weights.sha256[:16]}…: remove it, then {how(weights)}")
    return path


def how(weights: Weights) -> str:
    """The command that stages a file, to be run where there is internet."""
    return f"on a machine with internet: mkdir -p {store()} && curl -L -o {store() / weights.file} {weights.url}"
