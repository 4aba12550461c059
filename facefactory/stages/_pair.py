"""What `data=…` and `reference=…` on a command line stand for: keys of the config tree, with the size at which both are looked at."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facefactory import UserError, say
from facefactory.data import Pack
from facefactory.facts import Size

PRESET = "pictures"
WORDS = ("data", "reference")
PROBED = 64  # pictures of a set whose headers are read
GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")  # of Pillow's modes


@dataclass(frozen=True)
class Pictures:
    """A set of pictures as its files' headers tell it, or its index."""

    word: str  # data or reference
    sizes: tuple[Size, ...]  # the commonest first
    gray: bool
    splits: tuple[str, ...] = ()  # of a set that is packed; others are packed here

    @property
    def size(self) -> Size:
        """Theirs, or, where they differ, a square as long as the shortest side of any of them."""
        if len(self.sizes) == 1:
            return self.sizes[0]
        side = min(min(size) for size in self.sizes)
        return Size(side, side)


def is_given(arguments: Sequence[str]) -> bool:
    """Whether a command line compares two sets."""
    return any(argument.startswith(tuple(f"{word}=" for word in WORDS)) for argument in arguments)


def spelled(arguments: Sequence[str]) -> list[str]:
    """The same command line in keys of the config tree; a line says what is done to pictures before they are compared.

    UserError: a set is missing, has no picture, or the two do not go together.
    """
    given = {}
    rest = []
    for argument in arguments:
        word, _, value = argument.partition("=")
        if word in WORDS:
            given[word] = str(Path(os.path.expandvars(value)).expanduser().absolute())
        else:
            rest.append(argument)
    for word in WORDS:
        if not given.get(word):
            raise UserError(
                f"{word}=… is missing: give data=FOLDER reference=FOLDER (folders, zips, tars or packed sets)."
            )
    data, reference = (look(word, given[word]) for word in WORDS)

    # how the reference is read, and whom the other one follows
    keys = {
        "subject": "pictures",
        "compare.data": given["data"],
        "evaluation.scoring": "pictures",
    }
    keys["data.shards" if reference.splits else "pack.root"] = given["reference"]
    if "test" not in reference.splits:
        keys["evaluation.held_out"] = ""
    leading = [one for one in (reference, data) if one.splits] or [reference, data]
    smaller = min((one.size for one in leading), key=lambda size: size.height * size.width)
    keys["pack.resolution"] = str(smaller.resolution)
    keys["pack.color"] = _color(data, reference, rest)

    # what the person says herself comes before
    said = {argument.partition("=")[0] for argument in rest}
    own = [a.partition("=")[2] for a in rest if a.startswith("pack.resolution=")]
    size = Pack(resolution=own[-1]).size if own else smaller
    for one in (data, reference):
        _say_changes(one, size)
    return [f"{key}={value}" for key, value in keys.items() if key not in said] + rest


def look(word: str, place: str) -> Pictures:
    """What there is, by the headers of some pictures; UserError: nothing."""
    from facefactory.data import sources
    from facefactory.data.sets import index
    from facefactory.data.sources import folder

    if (Path(place) / "index.json").is_file():
        packed = index.read(Path(place))
        splits = tuple(packed.content.splits)
        return Pictures(word, (packed.size,), packed.content.channels == 1, splits)
    recipe = {"links": "refuse"}
    try:
        items = folder.find(recipe, place).items
    except UserError as error:
        raise UserError(str(error).replace("pack.root=", f"{word}=")) from None

    # some of them, evenly spread
    sizes = Counter[Size]()
    modes = set[str]()
    step = max(1, len(items) // PROBED)
    for item in items[::step]:
        try:
            with sources.load(item, 0, recipe) as image:
                sizes[Size(image.height, image.width)] += 1
                modes.add(image.mode)
        except Exception:  # packing says what is wrong with it
            continue
    if not sizes:
        raise UserError(f"{word}={place}: none of its pictures can be read.")
    commonest = tuple(size for size, _ in sizes.most_common())
    return Pictures(word, commonest, all(mode in GRAY for mode in modes))


def _color(data: Pictures, reference: Pictures, rest: Sequence[str]) -> str:
    """The colours in which both are compared; UserError: they differ, and nobody says which."""
    said = any(argument.startswith("pack.color=") for argument in rest)
    if data.gray != reference.gray and (not said or data.splits or reference.splits):
        words = {True: "gray", False: "coloured"}
        raise UserError(
            f"data has {words[data.gray]} pictures, reference {words[reference.gray]} ones; "
            "give pack.color=gray or pack.color=rgb to compare both so (packed sets must be alike)."
        )
    return "gray" if reference.gray else "rgb"


def _say_changes(one: Pictures, size: Size) -> None:
    """A line: whether pictures are compared as they are."""
    changes = []
    if any(each.height * size.width != each.width * size.height for each in one.sizes):
        changes.append("cropped to their largest centred part of that shape (pack.crop)")
    scales = [min(each.height / size.height, each.width / size.width) for each in one.sizes]
    if any(scale > 1 for scale in scales):
        changes.append("shrunk by Lanczos's filter, which antialiases")
    if any(scale < 1 for scale in scales):
        changes.append("enlarged")
    more = f" and {len(one.sizes) - 1} other sizes" if len(one.sizes) > 1 else ""
    what = f"at {size}, {', '.join(changes)}" if changes else "as they are"
    say(f"{one.word}: pictures of {one.sizes[0]} pixels{more} are compared {what}.")
