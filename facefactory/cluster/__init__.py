"""Where the chain runs. Today: this machine."""

from __future__ import annotations

import shutil

from facefactory import UserError


def choose(wanted: str) -> str:
    """`auto` or `local` -> `local`.

    Raises:
        UserError: Slurm is on this machine, and the user has not said that the chain shall run here all the same.
    """
    if wanted == "auto" and shutil.which("sbatch"):
        raise UserError(
            "sbatch is on PATH, but this version cannot submit yet: give cluster=local inside an allocation (salloc) to run here."
        )
    return "local"
