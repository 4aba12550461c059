"""A folder of images, with sub-folders or without."""

import re
from pathlib import Path

from facefactory import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def images(root: str | None) -> dict[str, Path]:
    """Path below the root (with /) -> file, sorted naturally; UserError: no root, or no image below it."""
    if root is None:
        raise UserError("no image folder given: pack.root=/path/to/faces (sub-folders become labels).")
    top = Path(root).expanduser()
    if not top.is_dir():
        raise UserError(f"pack.root={root} is not a folder; give the folder that holds the images.")
    found = {p.relative_to(top).as_posix(): p for p in top.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()}
    if not found:
        raise UserError(f"no image below {top}; looked for {' '.join(SUFFIXES)}.")
    # s2/9 before s2/10
    order = sorted(found, key=lambda name: [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)])
    return {name: found[name] for name in order}
