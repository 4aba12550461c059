"""Recipes -> plans: which images of a face set are packed, with which labels, into which split.

Decodes nothing.
"""

import contextlib
import gc
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError, config, registry, rundir
from facefactory.data import Pack, sources
from facefactory.data.packing import layout, select, tables, values
from facefactory.data.packing.pictures import stretched
from facefactory.data.sets import labels, order
from facefactory.data.sets.index import Balance, Named, Selection, plain
from facefactory.facts import Size

OVERRIDES = ("crop", "where", "limit", "balance", "keep", "drop", "min_prevalence", "max_bad")
NAMED = 100  # at most so many files of a kind are named in index.json

Recipe = dict[str, Any]  # every key of shards/*.yaml
Schema = labels.Schema
TableSpec = dict[str, Any]  # {file, columns, optional}, as `tables.read_tables` takes it


@dataclass
class Noticed:
    """What a person should know of a set, as index.json will tell it."""

    rows_without_image: Named
    images_without_row: Named
    notes: list[str]
    selection: Selection
    files: int = 0  # found
    left_out: dict[str, Named] = field(default_factory=dict)  # by reason
    people_in_several_splits: int | None = None  # where the set has splits of its own
    labels_left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A face set as it will be packed.

    The image of row i of `table` (encoded labels) is `items[places[i]]` of the source.
    """

    recipe: Recipe  # with overrides; its `splits` are the shares that were found
    options: Pack
    items: Sequence[Any]
    places: order.Ids
    stamp: Any
    table: pd.DataFrame
    schema: Schema
    splits: np.ndarray  # name of each image's
    noticed: Noticed
    # by which the images were dealt; empty where the set has splits of its own
    shares: dict[str, float]

    @property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what packing reads: recipe, names, labels, splits, and the images' stamp."""
        # Names and splits in pieces: a set may have millions
        words = itertools.chain(self.table["file"], map(str, self.splits))
        content = hashlib.sha256(next(words, "").encode())
        while some := list(itertools.islice(words, 2**16)):
            content.update("\n".join(["", *some]).encode())

        # Values of every label
        for name, label in self.schema.items():
            stored = np.float32 if label.kind == "real" else np.int32
            content.update(self.table[name].to_numpy(stored).tobytes())

        recipe = dict(self.recipe)
        recipe.pop("max_bad", None)
        return {
            "recipe": rundir.digest(recipe),
            "labels": rundir.digest([content.hexdigest(), plain(self.schema)]),
            "images": rundir.digest(self.stamp),
        }

    @property
    def digest(self) -> str:
        """Digest of all that decides the bytes."""
        options = config.flat(self.options)
        for name in ("root", "labels", "recipe", *OVERRIDES):  # the fingerprint has these
            options.pop(name, None)
        return rundir.digest([options, self.fingerprint])

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share one."""
        return f"{self.recipe['name']}-{self.options.size.resolution}-{self.digest[:8]}"


# -- the recipe ------------------------------------------------------------------------


def read_recipe(options: Pack) -> tuple[Recipe, Path]:
    """The recipe with every key, overrides and the layout that was found, and its file.

    UserError: it does not fit.
    """
    from facefactory.data.packing import recipe_file

    path = Path(options.recipe).expanduser()
    if not options.recipe.endswith((".yaml", ".yml")):
        path = Path(__file__).parents[3] / "shards" / f"{options.recipe}.yaml"
    given = config.read_yaml(path)
    recipe = recipe_file.whole(given, path)
    registry.module("data.sources", recipe["source"])

    # The first layout whose files are there
    root = options.root or recipe["root"]
    if recipe["layouts"] and root is not None:
        fitting = dict(_fitting_layout(recipe, root))
        del fitting["needs"]
        recipe = recipe_file.whole({**given, **fitting}, path)

    # What the command line says instead
    for name in OVERRIDES:
        override = getattr(options, name)
        if override is not None:
            recipe[name] = override
    for name in ("where", "balance", "keep", "drop"):
        recipe[name] = recipe[name] or None
    return recipe, path


def _fitting_layout(recipe: Recipe, root: str) -> dict[str, Any]:
    """The first layout that needs a place which exists below the root."""
    layouts: list[dict[str, Any]] = recipe["layouts"]
    for entry in layouts:
        if (Path(root).expanduser() / entry["needs"]).exists():
            return entry
    needs = ", ".join(entry["needs"] for entry in layouts)
    way = f"To get the set: {recipe['get']}"
    raise UserError(f"below pack.root={root} there is none of {needs}. {way}")


def _crop(value: Any, size: Size) -> str | int | list[int]:
    """fit (square, of square images), none, the shorter side of a centred part of the images' shape,
    or [left, top, right, bottom].
    """
    text = str(value).strip("[]")
    if text in ("fit", "square"):
        return "square" if size.is_square else "fit"
    if text == "none":
        return text
    numbers = list[int]()
    if re.fullmatch(r"\d+( *, *\d+)*", text):
        numbers = [int(part) for part in text.split(",")]
    if len(numbers) == 1 and numbers[0] > 0:
        return numbers[0]
    if len(numbers) == 4:
        left, top, right, bottom = numbers
        if left < right and top < bottom:
            return numbers
    allowed = "fit (or square), none, the shorter side of a centred part, or left,top,right,bottom"
    raise UserError(f"crop is {value!r}; allowed are {allowed}.")


# -- the plan --------------------------------------------------------------------------


@dataclass(frozen=True)
class _OwnSplits:
    """The splits that a set has of its own."""

    by: str  # the label that tells them, or words for it
    names: dict[Any, str]  # what stands there -> split
    by_folder: npt.NDArray[Any] | None = None  # split of each image, where its folder tells it


@dataclass(frozen=True)
class _Read:
    """A set as it was found, before anything of it is selected."""

    recipe: Recipe
    path: Path  # of the recipe
    found: sources.Found
    raw: pd.DataFrame  # labels as they are written, a row an image
    kinds: dict[str, Any]  # as the recipe gives them
    own: _OwnSplits | None
    sides: npt.NDArray[Any]  # own split of each image, "" = none
    noticed: Noticed


class _Selection:
    """The images that are still chosen, and why the others are not."""

    def __init__(self, found: sources.Found, counts: Selection) -> None:
        self.names = found.names
        self.places: order.Ids = np.arange(len(found.names))
        self.counts = counts
        self.left_out = sources.Account()
        self.left_out.join(found.left_out)

    def keep(self, places: order.Ids, otherwise: str) -> None:
        """Only these of the images; the reason why the others go."""
        if len(places) < len(self.places):
            lost = np.setdiff1d(self.places, places)
            first = [self.names[place] for place in lost[: sources.NAMED]]
            self.left_out[otherwise] = sources.LeftOut(len(lost), first)
        self.places = places


@contextlib.contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """A million images are millions of objects and no cycle: looking for some took a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_search_for_cycles()
def plan(options: Pack, recipe: Recipe | None = None) -> Plan:
    """Read recipe (or take it), labels and file list, select and split; decode nothing.

    Raises:
        UserError: something is missing, does not fit, or leaves no image.
    """
    if recipe:
        recipe = dict(recipe)
        path = Path(recipe["name"])
    else:
        recipe, path = read_recipe(options)
    recipe["crop"] = _crop(recipe["crop"], options.size)
    read = _read(options, recipe, path)
    own = read.own
    noticed = read.noticed
    notes = noticed.notes
    notes += _shape_notes(recipe["crop"], options.size)

    # Words become numbers and classes
    typed, schema, table = _encoded(read)
    notes += typed.notes

    # Images that the recipe asks for, and the split of each
    selection = _Selection(read.found, noticed.selection)
    _select(selection, read, table, schema)
    if own:
        splits = read.sides[selection.places]
        dealt_by = {}
    else:
        splits = dealt(recipe, table.iloc[selection.places])
        dealt_by = dict(recipe["splits"])
    if recipe["balance"]:
        splits = _balanced(selection, splits, recipe["balance"], table, schema)
    noticed.files = len(read.found.names) + read.found.left_out.count
    noticed.left_out = {
        reason: Named(entry.count, entry.first) for reason, entry in selection.left_out.items()
    }
    if read.found.left_out:
        notes.append(read.found.left_out.told())

    # Labels that these images still tell apart
    if len(selection.places) < len(typed.table):
        rows = typed.table.iloc[selection.places]
        schema, table = _narrowed(rows, schema, read.kinds)
    if own and recipe["group"]:
        people = table[recipe["group"]].to_numpy()
        noticed.people_in_several_splits = _people_in_several_splits(people, splits)
    noticed.labels_left_out = _labels_left_out(recipe, typed, table, schema)
    for name in noticed.labels_left_out:
        schema.pop(name, None)

    _share(recipe, own, splits, notes)
    return Plan(
        recipe=recipe,
        options=options,
        items=read.found.items,
        places=selection.places,
        stamp=read.found.stamp,
        table=table[["file", *schema]],
        schema=schema,
        splits=splits,
        noticed=noticed,
        shares=dealt_by,
    )


def _shape_notes(crop: str | int | list[int], size: Size) -> list[str]:
    """What a person should know of the images' shape."""
    notes = []
    if not size.is_square:
        notes.append(f"the packed images are {size.height} pixels high and {size.width} wide")
    if isinstance(crop, list):
        left, top, right, bottom = crop
        part = Size(bottom - top, right - left)
        if stretched(part, size):
            notes.append(
                f"the crop, {part.height} pixels high and {part.width} wide, is stretched to "
                f"{size.height} and {size.width}: give pack.crop=fit, or a box of that shape"
            )
    return notes


# -- what there is ---------------------------------------------------------------------


def _read(options: Pack, recipe: Recipe, path: Path) -> _Read:
    """Images, raw labels and own splits of a set; in the recipe, labels that lack become None."""
    root = options.root or recipe["root"]
    source = registry.module("data.sources", recipe["source"])
    found = source.find({**recipe, "links": options.links}, root)

    # Labels of tables and file names
    specs = list(recipe["tables"])
    if options.labels:
        specs.append({"file": options.labels})
    elif recipe["labels"]:
        specs.append({"file": str(path.parent.absolute() / recipe["labels"])})
    top = Path(root or "").expanduser()
    raw, noticed = _labels(found, specs, top, recipe)
    notes = noticed.notes
    absent = _absent(specs) - set(raw.columns)
    for name in sorted(absent):
        notes.append(f"{name} is in no table here; the recipe can do without")

    # What the folders mean, where the recipe does not say it
    folders = layout.read(found.names)
    own = _own_splits(recipe, folders, absent)
    if recipe["split"] is None:
        notes += folders.split_notes
    if found.folders and folders.labels and "folder" not in raw:
        notes += _label_by_folders(raw, folders, recipe)

    # Labels that the recipe speaks of
    for key in ("group", "balance"):
        if recipe[key] in absent or not recipe[key]:
            recipe[key] = None
    _check_names(recipe, own, raw.columns, absent, path)
    kinds = {recipe["group"]: "identity"} if recipe["group"] else {}
    kinds |= recipe["kinds"]
    for name in absent:
        kinds.pop(name, None)

    # The splits that the set has of its own
    sides = np.full(len(raw), "")
    if own:
        sides = _own_sides(own, raw, notes)
    _tell_unexpected(recipe, own, sides, path, notes)
    return _Read(recipe, path, found, raw, kinds, own, sides, noticed)


def _absent(specs: list[TableSpec]) -> set[str]:
    """Labels of the tables that a set may lack."""
    names = set[str]()
    for spec in specs:
        if spec.get("optional"):
            names.update((spec["columns"] or [])[1:])
    return names


def _own_splits(recipe: Recipe, folders: layout.Layout, absent: set[str]) -> _OwnSplits | None:
    """The set's own splits: by the label that the recipe names, or by folders if it is silent."""
    if recipe["split"]:
        by = recipe["split"]["by"]
        return None if by in absent else _OwnSplits(by, recipe["split"]["names"])
    if recipe["split"] is None and folders.splits is not None:
        names = {name: name for name in folders.sides}
        return _OwnSplits("its folder", names, np.asarray(folders.splits))
    return None


def _label_by_folders(
    raw: pd.DataFrame, folders: layout.Layout, recipe: Recipe
) -> tuple[str, ...]:
    """Add the label `folder` where there is no other, or where it tells people apart.

    Returns what a person should know of it.
    """
    undecided = recipe["group"] is None and (folders.people or not recipe["pattern"])
    if undecided and folders.people:
        recipe["group"] = "folder"
    if raw.columns.empty or recipe["group"] == "folder":
        raw["folder"] = folders.labels
    return folders.label_notes if undecided else ()


def _check_names(
    recipe: Recipe, own: _OwnSplits | None, names: pd.Index, absent: set[str], path: Path
) -> None:
    """UserError: the recipe speaks of a label that there is not."""
    spoken_of = {"group": recipe["group"], "balance": recipe["balance"]}
    if own and own.by_folder is None:
        spoken_of["split by"] = own.by
    for key, name in spoken_of.items():
        if name is not None and name not in names:
            raise registry.unknown(f"{path}: {key} {name!r} is not a label", name, names)
    for name in recipe["values"].keys() - {*names, *absent}:
        unknown = f"values has {name!r}, which is not a label"
        raise registry.unknown(f"{path}: {unknown}", name, names)


def _own_sides(own: _OwnSplits, raw: pd.DataFrame, notes: list[str]) -> npt.NDArray[Any]:
    """The own split of each image, "" = none; the label that tells it is taken out of `raw`."""
    sides = own.by_folder
    if sides is None:
        words = values.renamed(raw.pop(own.by), own.names)
        sides = words.fillna("").to_numpy(str)
    lost = np.flatnonzero(sides == "")
    if len(lost):
        example = raw.index[lost[0]]
        notes.append(f"{len(lost)} images are in no split and left out, e.g. {example}")
    return sides


def _tell_unexpected(
    recipe: Recipe,
    own: _OwnSplits | None,
    sides: npt.NDArray[Any],
    path: Path,
    notes: list[str],
) -> None:
    """Note counts that differ from those of the whole set; UserError: of what is no split."""
    names = {"images", *recipe["splits"]}
    if own:
        names.update(own.names.values())
    for name, wanted in recipe["expect"].items():
        if name not in names:
            raise registry.unknown(f"{path}: expect has {name!r}, which is no split", name, names)
        if name != "images" and own is None:
            continue
        count = len(sides) if name == "images" else int((sides == name).sum())
        if count != wanted:
            whole = f"the whole set {recipe['name']} has {wanted}"
            notes.append(f"{count} {name} found; {whole}")


# -- selection and splits --------------------------------------------------------------


def _asked_for(recipe: Recipe, names: pd.Index) -> set[str]:
    """Labels that the recipe selects by."""
    in_where = {name for name in names if recipe["where"] and name in recipe["where"]}
    return in_where | {*(recipe["keep"] or []), recipe["balance"]}


def _encoded(read: _Read) -> tuple[values.Typed, Schema, pd.DataFrame]:
    """Labels as words and numbers, their kinds and classes, and the codes of each image.

    UserError: nobody is known, although people are to be kept together.
    """
    recipe = read.recipe
    asked_for = _asked_for(recipe, read.raw.columns)
    typed = values.typed(read.raw, read.kinds, asked_for, recipe["drop"] or ())
    schema = labels.schema_of(typed.table, read.kinds)
    table = labels.encode(typed.table, schema, read.found.names)
    group = recipe["group"]
    if group and not schema[group].classes:
        unknown = f"group {group!r} is unknown for every image"
        raise UserError(f"{read.path}: {unknown}; mend that label, or give group: null.")
    return typed, schema, table


def _select(selection: _Selection, read: _Read, table: pd.DataFrame, schema: Schema) -> None:
    """Keep what is in a split, and what `where` and `limit` keep; UserError: that is nothing."""
    recipe = read.recipe
    if read.own:
        selection.keep(np.flatnonzero(read.sides != ""), "images in no split of the set")
    selection.counts.of_no_split = len(read.raw) - len(selection.places)
    if recipe["where"]:
        fitting = select.where(recipe["where"], table, schema)
        places = selection.places[fitting[selection.places]]
        selection.keep(places, "images that where does not keep")
        selection.counts.where = len(places)
    if recipe["limit"]:
        count = len(selection.places)
        most = min(recipe["limit"], count)
        evenly = order.permute(np.arange(most), count, 1)
        selection.keep(selection.places[np.sort(evenly)], "images beyond the limit")
        selection.counts.limit = len(selection.places)
    if not len(selection.places):
        raise _nothing_left(selection, read)


def _nothing_left(selection: _Selection, read: _Read) -> UserError:
    steps = []
    for name, count in plain(selection.counts).items():
        steps.append(f"{name.replace('_', ' ')} {count}")
    named = ""
    if read.own:
        values_of_splits = ", ".join(map(str, read.own.names))
        named = f"; a split is named by {read.own.by}: {values_of_splits}"
    where = f"(where={read.recipe['where'] or ''})"
    nothing = f"no image of {read.recipe['name']} is left"
    return UserError(f"{nothing}: {', '.join(steps)} {where}{named}.")


def _balanced(
    selection: _Selection,
    splits: np.ndarray,
    label: str,
    table: pd.DataFrame,
    schema: Schema,
) -> np.ndarray:
    """Keep equally many images of each class in every split; the splits of those."""
    classes = schema[label].classes if label in schema else ()
    if not classes:
        there = ", ".join(schema)
        raise UserError(f"balance={label!r} is a label without classes; there are {there}.")
    codes = table[label].to_numpy()[selection.places]
    even = select.balanced(codes, splits, classes)
    before = select.counts(codes, splits, classes)
    after = select.counts(codes[even], splits[even], classes)
    selection.counts.balance = Balance(label, before, after)
    rarest = "images beyond their split's rarest class (balance)"
    selection.keep(selection.places[even], rarest)
    return splits[even]


def _narrowed(
    rows: pd.DataFrame, schema: Schema, given: dict[str, Any]
) -> tuple[Schema, pd.DataFrame]:
    """Schema and codes of the rows alone: classes that are not in them go, kinds stay."""
    kinds = {name: label.kind for name, label in schema.items()}
    narrowed = labels.schema_of(rows, {**kinds, **given})
    return narrowed, labels.encode(rows, narrowed, rows.index.tolist())


def _labels_left_out(
    recipe: Recipe, typed: values.Typed, table: pd.DataFrame, schema: Schema
) -> dict[str, str]:
    """Label -> why it is not packed."""
    still_to_drop = [name for name in recipe["drop"] or [] if name not in typed.left_out]
    unwanted = select.left_out(table, schema, {**recipe, "drop": still_to_drop})
    return typed.left_out | unwanted


def _people_in_several_splits(people: np.ndarray, splits: np.ndarray) -> int:
    """How many people (numbers; negative: unknown) have images in more than one split."""
    known = people >= 0
    splits_of_each = pd.Series(splits[known]).groupby(people[known]).nunique()
    return int((splits_of_each > 1).sum())


def _share(recipe: Recipe, own: _OwnSplits | None, splits: np.ndarray, notes: list[str]) -> None:
    """The recipe's splits become the shares that were found; those without an image go."""
    shares = dict[str, float]()
    empty = list[str]()
    names = own.names.values() if own else recipe["splits"]
    for name in dict.fromkeys(names):
        share = float((splits == name).mean())
        if share:
            shares[name] = share
        else:
            empty.append(name)
    recipe["splits"] = shares
    if empty:
        notes.append(f"no image is left for the split {', '.join(empty)}")


def dealt(recipe: Recipe, table: pd.DataFrame) -> np.ndarray:
    """The split name of each image: people are dealt out by a fixed shuffle.

    Where no group is known, single images are.
    """
    people = labels.people(table, recipe["group"])
    groups, group_of_image = np.unique(people, return_inverse=True)
    shuffled = order.permute(np.arange(len(groups)), len(groups), 0)
    place = shuffled[group_of_image]
    shares = recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        given = f"splits of recipe {recipe['name']!r} are {shares}"
        raise UserError(f"{given}; the shares must add up to 1.")

    # The first place behind each split; rounding must not push one into the next
    ends = np.cumsum(list(shares.values())) * len(groups)
    numbers = np.searchsorted(ends - 1e-6, place, side="right")
    last = len(shares) - 1
    return np.array(list(shares))[numbers.clip(max=last)]


# -- raw labels ------------------------------------------------------------------------


def _labels(
    found: sources.Found, specs: list[TableSpec], top: Path, recipe: Recipe
) -> tuple[pd.DataFrame, Noticed]:
    """Raw labels, one row an image, and what a person should know of them."""
    names = pd.Index(found.names)
    notes = list(found.notes)
    raw = pd.DataFrame()
    if specs:
        beside = top.parent if top.is_file() else top
        images = tables.Images(names, top)
        joined = tables.read_tables(specs, beside, images, recipe["get"])
        raw = joined.rows
        notes += joined.notes
    known = names.get_indexer(raw.index) >= 0  # isin is slow on text
    if len(raw) and not known.any():
        begins = f"it begins with {raw.index[0]!r}, the images with {names[0]!r}"
        way = "A column must hold places below pack.root"
        raise UserError(f"no row of {specs[0]['file']} names an image; {begins}. {way}.")
    of_source = not len(raw)
    if of_source:
        raw = pd.DataFrame(index=names) if found.table is None else found.table
        known = names.get_indexer(raw.index) >= 0

    # What has no counterpart
    without_row = names[raw.index.get_indexer(names) < 0]
    selection = Selection(len(names))
    noticed = Noticed(_some_of(raw.index[~known]), _some_of(without_row), notes, selection)
    raw = raw.reindex(names)

    # What the file names say goes before what tables say
    if recipe["pattern"]:
        parts = _from_names(names, recipe, notes)
        both = [name for name in raw.columns if name in parts.columns]
        why = "the pattern reads it from file names"
        notes += [f"label {name!r} of the table is left out: {why}" for name in both]
        replaced = {*both, "folder"} if of_source else {*both}
        raw = parts.join(raw[[name for name in raw.columns if name not in replaced]])

    raw = _without_our_names(raw, notes)
    for name in recipe["values"].keys() & set(raw.columns):
        renamed = values.renamed(raw[name], recipe["values"][name])
        raw[name] = renamed.fillna(values.texts(raw[name]))
    return raw, noticed


def _some_of(files: pd.Index) -> Named:
    return Named(len(files), files[:NAMED].tolist())


def _without_our_names(raw: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Columns that packed tables have themselves get another name."""
    for name in sorted({"file", "_offset", "_length"} & set(raw.columns)):
        other = name + "_"
        while other in raw.columns:
            other += "_"
        raw = raw.rename(columns={name: other})
        why = "because packed tables have a column of that name"
        notes.append(f"label {name!r} is called {other!r}, {why}")
    return raw


def _from_names(names: pd.Index, recipe: Recipe, notes: list[str]) -> pd.DataFrame:
    """Labels that the recipe's pattern reads from names; UserError: it is none, or fits none."""
    pattern = f"pattern {recipe['pattern']!r} of {recipe['name']}"
    try:
        parts = names.to_series().str.extract(recipe["pattern"])
    except (re.error, ValueError) as error:
        raise UserError(f"{pattern}: {error}; it names labels as (?P<label>…).") from None
    unnamed = [name for name in parts if not isinstance(name, str)]
    if unnamed:
        count = f"{len(unnamed)} of its groups have no name"
        raise UserError(f"{pattern}: {count}: (?P<label>…), or (?:…).")

    # Names that it does not fit
    lost = parts.isna().all(axis=1).to_numpy()
    if lost.all():
        raise UserError(f"{pattern} fits no file name, e.g. not {names[0]!r}.")
    if lost.any():
        example = names[int(np.flatnonzero(lost)[0])]
        count = f"{int(lost.sum())} of {len(names)} names"
        notes.append(f"{pattern} does not fit {count}, e.g. {example}: they have no label of it")
    return parts
