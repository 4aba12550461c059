"""What the folders of a set mean: its own splits, classes, people, or numbered chunks.

Names are read, files are not.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# What a folder of a split is called, without the marks in it:
# train, Training, train_images, test-set, PublicTest …
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
SIDES = ("train", "val", "test")
OF_IMAGES = "sets?|splits?|data|datasets?|images?|imgs?|pictures|photos|faces"
NAMED = re.compile(rf"({'|'.join(SPLITS)})({OF_IMAGES})?")
TAR = re.compile(r"[\W_]*\d*\.tar$")  # train-000012.tar

# Folders that stand for nothing: part1, images_002, fold_3
PART = "part|chunk|batch|shard|block|vol|volume|disk|disc|images?|imgs?|dir|folder|fold|subset"
CHUNK = re.compile(rf"({PART})[ _.-]?\d+", re.I)

# Folders that are people: s12, n000001, id10270, subject_7, yaleB01; and (below) George_W_Bush
SOMEBODY = (
    "s|p|id|n|m|f|person|people|subject|subj|sub|user|actor|speaker|celeb|celebrity|identity|yaleB"
)
NUMBERED = re.compile(rf"({SOMEBODY})[ _.-]?\d{{1,7}}", re.I)
LEAST_PEOPLE = 10  # below, a tenth of the people would be nobody
FEW_IMAGES = 20  # so few images (median) …
MANY_FOLDERS = 20  # … in so many folders are people's
PEOPLE_FOR_SURE = 200  # no face set has as many classes


@dataclass(frozen=True)
class Layout:
    """What the folders of a set say about each of its images."""

    # the set's own split of each image, "" = in none; None: it has none of its own
    splits: "np.ndarray | None" = None
    # the folder that stands for its class or person; None: there is none
    labels: "list[str | None] | None" = None
    people: bool = False  # the labels are people
    sides: tuple[str, ...] = ()  # the splits that there are
    split_notes: tuple[str, ...] = ()
    label_notes: tuple[str, ...] = ()


Folder = tuple[str, ...]  # the parts of its place


def read(names: Sequence[str] | pd.Index) -> Layout:
    """Splits, labels and people of images that are called so."""
    places = [name.rpartition("/")[0] for name in names]
    codes, different = pd.factorize(np.array(places, object))
    if len(different) < 2:
        return Layout()
    folders = _inside(list(map(_folder, different.tolist())))

    # Splits, and the parts of each folder's place that lie above and below them
    sides = [""] * len(folders)
    above = below = folders
    depth = _split_depth(folders)
    if depth is not None:
        sides, above, below = _cut(folders, depth)

    # Labels: the first folders below that differ, else those above
    notes = list[str]()
    words = _labels(below, sides if depth is not None else None, codes, names, notes)
    if words is None and depth:
        words = _labels(above, sides, codes, names, notes)

    # People among the labels
    labels = None
    people = False
    if words is not None:
        table = np.array([*words, None], object)
        labels = table[codes].tolist()
        sizes = _sizes(words, np.bincount(codes).tolist())
        people = _are_people(sizes)
        notes += _told(sizes, people, depth is not None)

    splits = None if depth is None else np.array(sides)[codes]
    split_notes = _told_splits(splits, words is not None, folders, depth)
    sides_there = tuple(name for name in SIDES if name in sides)
    return Layout(splits, labels, people, sides_there, tuple(split_notes), tuple(notes))


def _folder(place: str) -> Folder:
    return tuple(place.split("/")) if place else ()


def _sizes(words: list[str | None], counts: list[int]) -> Counter[str]:
    """Label -> its images, of labels and counts of images by folder."""
    sizes = Counter[str]()
    for word, count in zip(words, counts, strict=True):
        if word:
            sizes[word] += count
    return sizes


# -- splits ----------------------------------------------------------------------------


def split_of(name: str) -> str:
    """The split that a folder (or tar) is called after: train, val or test; "": none."""
    plain = re.sub(r"[\W_]+", "", TAR.sub("", name).casefold())
    found = NAMED.fullmatch(plain)
    return SPLITS[found[1]] if found else ""


def _inside(folders: list[Folder], of: list[Folder] | None = None) -> list[Folder]:
    """Folders without what lies around all (those `of`); shorter ones become ()."""
    shortest = min(of or folders)
    longest = max(of or folders)
    common = 0
    while common < min(len(shortest), len(longest)) and shortest[common] == longest[common]:
        common += 1
    return [folder[common:] for folder in folders]


def _split_depth(folders: list[Folder]) -> int | None:
    """The level at which all folders are called after splits, at least two.

    Or the first level, if train and another split are there.
    """
    for depth in range(min(map(len, folders))):
        sides = {split_of(folder[depth]) for folder in folders}
        if "" not in sides and len(sides) > 1:
            return depth
    sides = {split_of(folder[0]) for folder in folders if folder}
    return 0 if "train" in sides and len(sides - {""}) > 1 else None


def _cut(folders: list[Folder], depth: int) -> tuple[list[str], list[Folder], list[Folder]]:
    """The split of each folder, and the parts above and below.

    train/train/… is train, train/val/… is val.
    """
    sides = [split_of(folder[depth]) if len(folder) > depth else "" for folder in folders]
    above = [folder[:depth] for folder in folders]
    below = [folder[depth + 1 :] for folder in folders]

    # Splits inside of splits
    for side in dict.fromkeys(filter(None, sides)):
        places = np.flatnonzero(np.array(sides) == side).tolist()
        while all(below[number] for number in places):
            inner = {split_of(below[number][0]) for number in places}
            splits_train = side == "train" and "train" in inner and "" not in inner
            if inner != {side} and not splits_train:
                break
            for number in places:
                sides[number] = split_of(below[number][0])
                below[number] = below[number][1:]
            if inner != {side}:
                break
    return sides, above, below


def _told_splits(
    splits: "np.ndarray | None", labelled: bool, folders: list[Folder], depth: int | None
) -> Iterator[str]:
    """What a person should know of the set's own splits.

    Or of what looks like some and is none.
    """
    if splits is None:
        yield from _told_no_splits(folders)
        return
    sizes = Counter(splits.tolist())
    counts = ", ".join(f"{name} {sizes[name]}" for name in SIDES if sizes[name])

    # Folders that are called so
    level = depth or 0
    parts = {folder[level] for folder in folders if len(folder) > level}
    called = sorted(filter(split_of, parts))
    shown = ", ".join(called[:4]) + (" …" if len(called) > 4 else "")
    rest = "; the folders below or above them are the label" if labelled else ""
    anew = "split: null in a recipe of yours deals them anew"
    yield f"{shown} are the set's own splits ({counts}){rest}; {anew}"


def _told_no_splits(folders: list[Folder]) -> Iterator[str]:
    """That folders are called after splits and are none, if so."""
    called = set[str]()
    others = set[str]()
    for folder in folders:
        after_splits = list(filter(split_of, folder))
        called.update(after_splits)
        if folder and not after_splits:
            others.add(folder[0])
    if called:
        beside = "images lie beside them"
        if others:
            beside = f"images lie elsewhere too, e.g. in {min(others)}"
        some = ", ".join(sorted(called)[:4])
        none = "are taken for no splits of the set's own"
        yield f"folders called {some} {none}, since {beside}"


# -- labels ----------------------------------------------------------------------------


def _labels(
    folders: list[Folder],
    sides: list[str] | None,
    codes: np.ndarray,
    names: Sequence[str] | pd.Index,
    notes: list[str],
) -> list[str | None] | None:
    """The first part of each folder's place that differs between them and is no chunk.

    None: there is none. With splits, a split without sub-folders (the test pictures of a contest)
    does not make a folder around all others one.
    """
    while True:
        inside = list(filter(None, folders)) if sides else folders
        if not any(inside):
            return None
        folders = _inside(folders, inside)
        words = [folder[0] if folder else None for folder in folders]
        kinds = set(filter(None, words))
        if not kinds:
            return None
        if not _are_chunks(kinds, words, codes, names):
            return words
        chunks = f"{len(kinds)} folders, {min(kinds)} …,"
        notes.append(f"{chunks} are taken for chunks of the set, not for classes")
        folders = [folder[1:] for folder in folders]


def _are_chunks(
    kinds: set[str], words: list[str | None], codes: np.ndarray, names: Sequence[str] | pd.Index
) -> bool:
    """part1, part2 …; or 00000, 00001 … whose images go on counting from folder to folder.

    FFHQ has the latter, and img2dataset makes them.
    """
    if len(kinds) < 2:
        return False
    if all(map(CHUNK.fullmatch, kinds)):
        return True
    if not all(kind.isdecimal() and len(kind) >= 3 for kind in kinds):
        return False

    # First and last number of an image in each folder
    chunk = np.array([int(word) if word else -1 for word in words])[codes]
    numbers = pd.Series(list(map(_number, names)), dtype=float)
    spans = numbers.groupby(chunk).agg(["min", "max"]).drop(-1, errors="ignore")
    last = spans["max"].to_numpy()
    first = spans["min"].to_numpy()
    rising = last[:-1] < first[1:]
    return bool(numbers.notna().all() and rising.all())


def _number(name: str) -> float:
    """The last number in a file's name, NaN: it has none."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    numbers = re.findall(r"\d+", stem)
    return float(numbers[-1]) if numbers else np.nan


def _are_people(sizes: Counter[str]) -> bool:
    """Folder -> images: many small folders, very many of any size, or those called as people are."""
    if len(sizes) < LEAST_PEOPLE:
        return False
    small = len(sizes) >= MANY_FOLDERS and statistics.median(sizes.values()) <= FEW_IMAGES
    return small or len(sizes) >= PEOPLE_FOR_SURE or _named_people(sizes)


def _named_people(sizes: Counter[str]) -> bool:
    return sum(map(_is_person, sizes)) >= 0.8 * len(sizes)


def _is_person(name: str) -> bool:
    """A kind of person with a number, or a name of two words and more.

    The first and last of these begin with capitals; pins_ may stand before them.
    """
    first, *others = re.split("[ _]+", name.removeprefix("pins_"))
    capitals = bool(others) and first[:1].isupper() and others[-1][:1].isupper()
    named = capitals and not re.search(r"\d", name)
    return named or NUMBERED.fullmatch(name) is not None


def _told(sizes: Counter[str], people: bool, split: bool) -> Iterator[str]:
    """What a person should know where folders are people, or could be."""
    images = f"{statistics.median(sizes.values()):g} images (median)"
    each = f"{len(sizes)} folders, {min(sizes)} …, of {images},"
    if people:
        kept = "" if split else ", and nobody is dealt to two splits"
        yield f"{each} are taken for people{kept}; group: null in a recipe of yours undoes it"
    elif len(sizes) >= MANY_FOLDERS or (len(sizes) > 1 and _named_people(sizes)):
        way = "group: folder in a recipe of yours keeps each in one split"
        yield f"{each} are not taken for people; if they are, {way}"
