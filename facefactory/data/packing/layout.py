"""What the folders of a set mean: its own splits, classes, people, or numbered chunks. Names are read, files are not."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# What a folder of a split is called, without the marks in it: train, Training, train_images, test-set, PublicTest …
SPLITS = {"train": "train", "training": "train"}
SPLITS |= dict.fromkeys(
    ["val", "valid", "validation", "validate", "dev", "eval", "evaluation", "publictest"], "val"
)
SPLITS |= dict.fromkeys(["test", "testing", "privatetest"], "test")
SIDES = ("train", "val", "test")
NAMED = re.compile(
    rf"({'|'.join(SPLITS)})(sets?|splits?|data|datasets?|images?|imgs?|pictures|photos|faces)?"
)
TAR = re.compile(r"[\W_]*\d*\.tar$")  # train-000012.tar

# Folders that stand for nothing: part1, images_002, fold_3
CHUNK = re.compile(
    r"(part|chunk|batch|shard|block|vol|volume|disk|disc|images?|imgs?|dir|folder|fold|subset)[ _.-]?\d+",
    re.I,
)

# Folders that are people: s12, n000001, id10270, subject_7, yaleB01; and (below) George_W_Bush
NUMBERED = re.compile(
    r"(s|p|id|n|m|f|person|people|subject|subj|sub|user|actor|speaker|celeb|celebrity|identity|yaleB)[ _.-]?\d{1,7}",
    re.I,
)
LEAST_PEOPLE = 10  # below, a tenth of the people would be nobody
FEW_IMAGES, MANY_FOLDERS = 20, 20  # so few images (median) in so many folders are people's
PEOPLE_FOR_SURE = 200  # no face set has as many classes


@dataclass(frozen=True)
class Layout:
    """What the folders of a set say about each of its images."""

    splits: "np.ndarray | None" = (
        None  # the set's own split of each image, "" = in none; None: it has none of its own
    )
    labels: "list[str | None] | None" = (
        None  # the folder that stands for its class or person; None: there is none
    )
    people: bool = False  # the labels are people
    sides: tuple[str, ...] = ()  # the splits that there are
    split_notes: tuple[str, ...] = ()
    label_notes: tuple[str, ...] = ()


Folder = tuple[str, ...]  # the parts of its place


def read(names: Sequence[str] | pd.Index) -> Layout:
    """Splits, labels and people of images that are called so."""
    codes, uniques = pd.factorize(np.array([name.rpartition("/")[0] for name in names], object))
    if len(uniques) < 2:
        return Layout()
    folders = _inside([tuple(place.split("/")) if place else () for place in uniques.tolist()])
    counts = np.bincount(codes)

    # Splits, and the parts of each folder's place that lie above and below them
    sides = [""] * len(folders)
    depth = _split_depth(folders)
    above, below = folders, folders
    if depth is not None:
        sides, above, below = _cut(folders, depth)

    # Labels: the first folders below that differ, else those above
    notes = list[str]()
    words = _labels(below, sides if depth is not None else None, codes, names, notes)
    if words is None and depth:
        words = _labels(above, sides, codes, names, notes)

    labels, people = None, False
    if words is not None:
        table = np.array([*words, None], object)
        labels = table[codes].tolist()
        sizes = Counter[str]()
        for word, count in zip(words, counts.tolist(), strict=True):
            sizes[word or ""] += count
        del sizes[""]
        people = _are_people(sizes)
        notes += _told(sizes, people, depth is not None)
    splits = None if depth is None else np.array(sides)[codes]
    split_notes = _told_splits(splits, words is not None, folders, depth)
    sides_there = tuple(name for name in SIDES if name in sides)
    return Layout(splits, labels, people, sides_there, tuple(split_notes), tuple(notes))


# -- splits --------------------------------------------------------------------------------------------------------


def split_of(name: str) -> str:
    """The split that a folder (or tar) is called after: train, val or test; "": none."""
    plain = re.sub(r"[\W_]+", "", TAR.sub("", name).casefold())
    found = NAMED.fullmatch(plain)
    return SPLITS[found[1]] if found else ""


def _inside(folders: list[Folder], of: list[Folder] | None = None) -> list[Folder]:
    """Folders without what lies around all (those `of`); shorter ones become ()."""
    shortest, longest = min(of or folders), max(of or folders)
    common = 0
    while common < min(len(shortest), len(longest)) and shortest[common] == longest[common]:
        common += 1
    return [folder[common:] for folder in folders]


def _split_depth(folders: list[Folder]) -> int | None:
    """The level at which all folders are called after splits, at least two; or the first, if train and another are there."""
    for depth in range(min(map(len, folders))):
        sides = {split_of(folder[depth]) for folder in folders}
        if "" not in sides and len(sides) > 1:
            return depth
    sides = {split_of(folder[0]) for folder in folders if folder}
    return 0 if "train" in sides and len(sides - {""}) > 1 else None


def _cut(folders: list[Folder], depth: int) -> tuple[list[str], list[Folder], list[Folder]]:
    """The split of each folder, and the parts above and below. train/train/… is train, train/val/… is val."""
    sides = [split_of(folder[depth]) if len(folder) > depth else "" for folder in folders]
    below = [folder[depth + 1 :] for folder in folders]
    for side in dict.fromkeys(filter(None, sides)):
        places = [number for number, own in enumerate(sides) if own == side]
        while all(below[number] for number in places):
            inner = {split_of(below[number][0]) for number in places}
            if inner != {side} and not (side == "train" and "" not in inner and "train" in inner):
                break
            for number in places:
                sides[number] = split_of(below[number][0])
                below[number] = below[number][1:]
            if inner != {side}:
                break
    return sides, [folder[:depth] for folder in folders], below


def _told_splits(
    splits: "np.ndarray | None", labelled: bool, folders: list[Folder], depth: int | None
) -> Iterator[str]:
    """What a person should know of the set's own splits, or of what looks like some and is none."""
    if splits is None:
        called = sorted({part for folder in folders for part in folder if split_of(part)})
        others = sorted(
            {folder[0] for folder in folders if folder and not any(map(split_of, folder))}
        )
        if called:
            beside = (
                f"images lie elsewhere too, e.g. in {others[0]}"
                if others
                else "images lie beside them"
            )
            yield f"folders called {', '.join(called[:4])} are taken for no splits of the set's own, since {beside}"
        return
    sizes = Counter(splits.tolist())
    told = ", ".join(f"{name} {sizes[name]}" for name in SIDES if sizes[name])
    called = sorted(
        {
            folder[depth or 0]
            for folder in folders
            if len(folder) > (depth or 0) and split_of(folder[depth or 0])
        }
    )
    shown = ", ".join(called[:4]) + (" …" if len(called) > 4 else "")
    rest = "; the folders below or above them are the label" if labelled else ""
    yield f"{shown} are the set's own splits ({told}){rest}; split: null in a recipe of yours deals them anew"


# -- labels --------------------------------------------------------------------------------------------------------


def _labels(
    folders: list[Folder],
    sides: list[str] | None,
    codes: np.ndarray,
    names: Sequence[str] | pd.Index,
    notes: list[str],
) -> list[str | None] | None:
    """The first part of each folder's place that differs between them and is no chunk; None: there is none.

    With splits, a split without sub-folders (the test pictures of a contest) does not make a folder around all others one.
    """
    while True:
        inside = [
            folder
            for folder, side in zip(folders, sides or ["-"] * len(folders), strict=True)
            if folder or not sides
        ]
        if not any(inside):
            return None
        folders = _inside(folders, inside)
        words = [folder[0] if folder else None for folder in folders]
        kinds = {word for word in words if word}
        if not kinds:
            return None
        if not _are_chunks(kinds, words, codes, names):
            return words
        first = min(kinds)
        notes.append(
            f"{len(kinds)} folders, {first} …, are taken for chunks of the set, not for classes"
        )
        folders = [folder[1:] for folder in folders]


def _are_chunks(
    kinds: set[str], words: list[str | None], codes: np.ndarray, names: Sequence[str] | pd.Index
) -> bool:
    """part1, part2 …; or 00000, 00001 … whose images go on counting from folder to folder, as in FFHQ or of img2dataset."""
    if len(kinds) < 2:
        return False
    if all(map(CHUNK.fullmatch, kinds)):
        return True
    if not all(kind.isdecimal() and len(kind) >= 3 for kind in kinds):
        return False
    chunk = np.array([int(word) if word else -1 for word in words])[codes]
    numbers = pd.Series([_number(name) for name in names], dtype=float)
    spans = numbers.groupby(chunk).agg(["min", "max"]).drop(-1, errors="ignore")
    return bool(
        numbers.notna().all()
        and (spans["max"].to_numpy()[:-1] < spans["min"].to_numpy()[1:]).all()
    )


def _number(name: str) -> float:
    """The last number in a file's name, NaN: it has none."""
    found = re.findall(r"\d+", name.rpartition("/")[2].rpartition(".")[0])
    return float(found[-1]) if found else np.nan


def _are_people(sizes: Counter[str]) -> bool:
    """Folder -> images: many small folders, very many of any size, or those that are called as people are."""
    if len(sizes) < LEAST_PEOPLE:
        return False
    small = len(sizes) >= MANY_FOLDERS and statistics.median(sizes.values()) <= FEW_IMAGES
    return small or len(sizes) >= PEOPLE_FOR_SURE or _named_people(sizes)


def _named_people(sizes: Counter[str]) -> bool:
    return sum(map(_is_person, sizes)) >= 0.8 * len(sizes)


def _is_person(name: str) -> bool:
    """A kind of person with a number, or a name of two words and more, the first and last with capitals (pins_ before it)."""
    words = re.split("[ _]+", name.removeprefix("pins_"))
    named = (
        len(words) > 1
        and words[0][:1].isupper()
        and words[-1][:1].isupper()
        and not re.search(r"\d", name)
    )
    return named or NUMBERED.fullmatch(name) is not None


def _told(sizes: Counter[str], people: bool, split: bool) -> Iterator[str]:
    """What a person should know where folders are people, or could be."""
    each = f"{len(sizes)} folders, {min(sizes)} …, of {statistics.median(sizes.values()):g} images (median),"
    if people:
        kept = "" if split else ", and nobody is dealt to two splits"
        yield f"{each} are taken for people{kept}; group: null in a recipe of yours undoes it"
    elif len(sizes) >= MANY_FOLDERS or (len(sizes) > 1 and _named_people(sizes)):
        yield f"{each} are not taken for people; if they are, group: folder in a recipe of yours keeps each in one split"
