"""Generators of other people, taken in as they are: a file is a form in which such weights are handed on.

A file has `class Component(nn.Module)`, a `models.Generative`: its positional argument are the `Facts` of the set that it is
compared with, its keyword-only arguments are its options, `weights` and `sha256` among them. This file is torch-free.
"""

from pathlib import Path
from typing import Literal

from facefactory import UserError, rundir

Range = Literal["minus_one_to_one", "zero_to_one"]  # of the pixels that a generator gives


def checked(weights: str, sha256: str) -> Path:
    """The path of a file of weights.

    Raises:
        UserError: there is none, or it is not the one that is meant.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"foreign.weights={weights} is no file; give the path of the weights.")
    actual = rundir.sha256(path)
    if sha256 != actual:
        raise UserError(
            f"foreign.sha256={sha256 or repr('')}, but {path} has {actual}. Give that one if the file is "
            "the one you mean (its publisher says so), else get it again."
        )
    return path
