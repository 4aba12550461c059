"""Pictures of equal tiles, cut into a small picture a block that a page carries in itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from facefactory.results import Sheet

QUALITIES = (90, 75, 60, 40)  # of WebP, tried in turn until all pictures fit
ROOM = 3_400_000  # bytes of all pictures of a page; written as text they take a third more


@dataclass(frozen=True)
class Sprite:
    """A block of a sheet as a page holds it."""

    title: str
    block: int | str
    src: str  # data URL of a WebP
    width: int  # of a tile [pixels]
    height: int
    lines: int
    columns: list[str]
    walks: bool


def embedded(folder: Path, wanted: Sequence[Sheet], spaces: int = 1) -> tuple[list[Sprite], str]:
    """All blocks of the sheets in a folder, and what a reader must know of them.

    `spaces`: how many share the room of the page; these sheets are of one.
    Sheets whose file is missing or no picture are left out, and named.
    """
    blocks = []
    missing = []
    for sheet in wanted:
        try:
            blocks += [(sheet, *block) for block in _cut(folder / sheet.file, sheet)]
        except (OSError, UnidentifiedImageError, ValueError) as error:
            missing.append(f"{sheet.file} ({error})")

    # as good as there is room
    quality = QUALITIES[0]
    coded: list[bytes] = []
    for quality in QUALITIES:
        coded = [_webp(tiles, quality) for _, _, tiles in blocks]
        if sum(map(len, coded)) <= ROOM // spaces:
            break
    sprites = []
    room = ROOM // spaces
    for (sheet, block, tiles), content in zip(blocks, coded, strict=True):
        room -= len(content)
        if room < 0:
            break
        src = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        width = tiles.width // len(sheet.columns)
        height = tiles.height // sheet.lines
        sprites.append(
            Sprite(sheet.title, block, src, width, height, sheet.lines, sheet.columns, sheet.walks)
        )

    # what is lost
    words = []
    if sprites:
        words.append(f"Pictures are WebP of quality {quality}; the PNG files have every bit.")
    if len(sprites) < len(blocks):
        words.append(f"The page has room for {len(sprites)} of {len(blocks)} of them.")
    if missing:
        words.append(f"Missing: {', '.join(missing)}.")
    return sprites, " ".join(words)


def _cut(path: Path, sheet: Sheet) -> list[tuple[int | str, Image.Image]]:
    """Block -> its lines of tiles; ValueError: the picture is not made of such tiles."""
    if not path.is_file():
        raise ValueError("there is no such file")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    rows = len(sheet.blocks) * sheet.lines
    if not rows or picture.height % rows or picture.width % max(1, len(sheet.columns)):
        raise ValueError(f"{picture.size} is not {rows} lines of {len(sheet.columns)} tiles")
    height = picture.height // len(sheet.blocks)
    cut = []
    for number, block in enumerate(sheet.blocks):
        box = (0, number * height, picture.width, (number + 1) * height)
        cut.append((block, picture.crop(box)))
    return cut


def _webp(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()
