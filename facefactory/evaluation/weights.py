"""The published InceptionV3: found on disk and checked, never downloaded by a job, never replaced by random weights."""

import os
from pathlib import Path

from facefactory import UserError, rundir

FILE = "weights-inception-2015-12-05-6726825d.pth"  # of the original FID, as published with torch-fidelity (Apache 2.0), 96 MB
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def store() -> Path:
    """FACEFACTORY_WEIGHTS (put it on shared storage), else the user's cache folder."""
    return Path(os.environ.get("FACEFACTORY_WEIGHTS") or rundir.cache_folder() / "weights")


def find() -> Path | None:
    """The file, if it is staged; UserError: the file is there but is not the published one."""
    path = store() / FILE
    if not path.is_file():
        return None
    found = rundir.sha256(path)
    if found != SHA256:
        raise UserError(
            f"{path} has SHA-256 {found[:16]}…, not {SHA256[:16]}…: remove it, then {how()}"
        )
    return path


def how() -> str:
    """What to do to stage the file. It stands in results, so it names no folder of one user's."""
    fetch = f'curl -L --create-dirs -o "$FACEFACTORY_WEIGHTS/{FILE}" {URL}'
    return f"set FACEFACTORY_WEIGHTS to a folder on shared storage; then, where there is internet: {fetch}"
