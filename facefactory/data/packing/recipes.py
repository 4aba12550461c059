"""Recipes -> plans: which images of a face set are packed, with which labels, into which split. Decodes nothing."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from facefactory import UserError, config, registry
from facefactory.data import Pack, sources
from facefactory.data.packing import layout, select, tables, values
from facefactory.data.sets import labels, order

OVERRIDES = ("crop", "where", "limit", "balance", "keep", "drop", "min_prevalence", "max_bad")
NAMED = 100  # at most so many files of a kind are named in index.json


@dataclass(frozen=True)
class Plan:
    """A face set as it will be packed. The image of row i of `table` (encoded labels) is `items[places[i]]` of the source."""

    recipe: dict[str, Any]  # with overrides; its `splits` are the shares that were found
    options: Pack
    items: Sequence[Any]
    places: order.Ids
    stamp: Any
    table: pd.DataFrame
    schema: dict[str, dict[str, Any]]
    splits: np.ndarray  # name of each image's
    facts: dict[str, Any]  # what was found and what selection did, for index.json
    shares: dict[
        str, float
    ]  # by which the images were dealt; empty where the set has splits of its own

    @property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what packing reads: the recipe, names, labels and splits, and the stamp of the images."""
        words = itertools.chain(self.table["file"], map(str, self.splits))
        made = hashlib.sha256(next(words, "").encode())
        while some := list(itertools.islice(words, 2**16)):
            made.update("\n".join(["", *some]).encode())
        for name, entry in self.schema.items():
            made.update(
                self.table[name].to_numpy(np.int32 if "classes" in entry else np.float32).tobytes()
            )
        recipe = {name: value for name, value in self.recipe.items() if name != "max_bad"}
        found = config.digest([made.hexdigest(), self.schema])
        return {
            "recipe": config.digest(recipe),
            "labels": found,
            "images": config.digest(self.stamp),
        }

    @property
    def digest(self) -> str:
        """Digest of all that decides the bytes."""
        skip = ("root", "labels", "recipe", *OVERRIDES)
        made = {
            name: value for name, value in config.flat(self.options).items() if name not in skip
        }
        return config.digest([made, self.fingerprint])

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share a folder."""
        return f"{self.recipe['name']}-{self.options.resolution}-{self.digest[:8]}"


def read_recipe(options: Pack) -> tuple[dict[str, Any], Path]:
    """The recipe with every key, overrides and the layout that was found, and its file; UserError: it does not fit."""
    from facefactory.data.packing import recipe_file

    named = options.recipe.endswith((".yaml", ".yml"))
    path = (
        Path(options.recipe).expanduser()
        if named
        else Path(__file__).parents[3] / "shards" / f"{options.recipe}.yaml"
    )
    given = config.read_yaml(path)
    recipe = recipe_file.whole(given, path)
    registry.module("data.sources", recipe["source"])
    root = options.root or recipe["root"]
    if recipe["layouts"] and root is not None:
        fits = [
            one for one in recipe["layouts"] if (Path(root).expanduser() / one["needs"]).exists()
        ]
        if not fits:
            needs = ", ".join(one["needs"] for one in recipe["layouts"])
            raise UserError(
                f"below pack.root={root} there is none of {needs}. To get the set: {recipe['get']}"
            )
        recipe = recipe_file.whole(
            {**given, **{name: value for name, value in fits[0].items() if name != "needs"}}, path
        )
    recipe |= {
        name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None
    }
    recipe |= {name: recipe[name] or None for name in ("where", "balance", "keep", "drop")}
    return {**recipe, "crop": _crop(recipe["crop"])}, path


def _crop(value: Any) -> str | int | list[int]:
    """square, none, the side of a centred square, or [left, top, right, bottom]."""
    text = str(value).strip("[]")
    numbers = (
        [int(part) for part in text.split(",")] if re.fullmatch(r"\d+( *, *\d+)*", text) else []
    )
    if text in ("square", "none"):
        return text
    if len(numbers) == 1 and numbers[0] > 0:
        return numbers[0]
    if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
        return numbers
    raise UserError(
        f"crop is {value!r}; allowed are square, none, the side of a centred square, or left,top,right,bottom."
    )


def plan(options: Pack, recipe: dict[str, Any] | None = None) -> Plan:
    """Read recipe (or take it), labels and file list, select and split; decode nothing.

    Raises:
        UserError: something is missing, does not fit, or leaves no image.
    """
    recipe, path = ({**recipe}, Path(recipe["name"])) if recipe else read_recipe(options)
    root = options.root or recipe["root"]
    found = registry.module("data.sources", recipe["source"]).find(
        {**recipe, "links": options.links}, root
    )
    beside = options.labels or (
        recipe["labels"] and str(path.parent.absolute() / recipe["labels"])
    )
    specs = [*recipe["tables"], *([{"file": beside}] if beside else [])]
    raw, facts, notes = _labels(found, specs, Path(root or "").expanduser(), recipe)
    absent = {
        name for spec in specs if spec.get("optional") for name in (spec["columns"] or [])[1:]
    } - set(raw.columns)
    facts["notes"] = [
        *found.notes,
        *notes,
        *(f"{name} is in no table here; the recipe can do without" for name in sorted(absent)),
    ]

    # What the folders mean, where the recipe does not say it
    folders = layout.read(found.names)
    own = recipe["split"] or None
    by_folder = recipe["split"] is None and folders.splits is not None
    if own and own["by"] in absent:
        own = None
    elif by_folder:
        own = {"by": "its folder", "names": {name: name for name in folders.sides}}
    facts["notes"] += folders.split_notes if recipe["split"] is None else ()
    if found.folders and folders.labels and "folder" not in raw:
        facts["notes"] += _label_by_folders(raw, folders, recipe)
    recipe |= {
        key: None for key in ("group", "balance") if recipe[key] in absent or not recipe[key]
    }
    split_by = own["by"] if own and not by_folder else None
    for key, name in {
        "group": recipe["group"],
        "balance": recipe["balance"],
        "split by": split_by,
    }.items():
        if name not in {None, *raw.columns}:
            raise registry.unknown(f"{path}: {key} {name!r} is not a label", name, raw.columns)
    group, places, sides = recipe["group"], np.arange(len(raw)), np.full(len(raw), "")
    kinds = {**({group: "identity"} if group else {}), **recipe["kinds"]}
    kinds = {name: kind for name, kind in kinds.items() if name not in absent}
    for name in recipe["values"].keys() - {*raw.columns, *absent}:
        raise registry.unknown(
            f"{path}: values has {name!r}, which is not a label", name, raw.columns
        )
    if own:
        if by_folder:
            sides = np.asarray(folders.splits)
        else:
            sides = values.renamed(raw.pop(own["by"]), own["names"]).fillna("").to_numpy(str)
        places = np.flatnonzero(sides != "")
        if len(lost := np.flatnonzero(sides == "")):
            facts["notes"].append(
                f"{len(lost)} images are in no split and left out, e.g. {raw.index[lost[0]]}"
            )
    expected = {"images", *recipe["splits"], *(own["names"].values() if own else ())}
    for name, wanted in recipe["expect"].items():
        if name not in expected:
            raise registry.unknown(
                f"{path}: expect has {name!r}, which is no split", name, expected
            )
        if (
            counted := len(raw) if name == "images" else int((sides == name).sum())
        ) != wanted and (own or name == "images"):
            facts["notes"].append(
                f"{counted} {name} found; the whole set {recipe['name']} has {wanted}"
            )
    chosen: dict[str, Any] = {"found": len(raw), "of_no_split": len(raw) - len(places)}
    facts["selection"] = chosen
    left_out = sources.Account()
    left_out.join(found.left_out)
    everywhere = np.arange(len(raw))
    _note_lost(left_out, "images in no split of the set", everywhere, places, found.names)
    typed = values.typed(raw, kinds, _asked_for(recipe, raw.columns), recipe["drop"] or ())
    raw = typed.table
    facts["notes"] += typed.notes
    schema = labels.schema_of(raw, kinds)
    table = labels.encode(raw, schema, found.names)
    if group and not schema[group]["classes"]:
        raise UserError(
            f"{path}: group {group!r} is unknown for every image; mend that label, or give group: null."
        )
    if recipe["where"]:
        before = places
        places = places[select.where(recipe["where"], table, schema)[places]]
        _note_lost(left_out, "images that where does not keep", before, places, found.names)
        chosen["where"] = len(places)
    if recipe["limit"]:
        before = places
        places = places[
            np.sort(order.permute(np.arange(min(recipe["limit"], len(places))), len(places), 1))
        ]
        _note_lost(left_out, "images beyond the limit", before, places, found.names)
        chosen["limit"] = len(places)
    if not len(places):
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in chosen.items())
        known = (
            f"; a split is named by {own['by']}: {', '.join(map(str, own['names']))}"
            if own
            else ""
        )
        raise UserError(
            f"no image of {recipe['name']} is left: {told} (where={recipe['where'] or ''}){known}."
        )
    splits = sides[places] if own else dealt(recipe, table.iloc[places])
    dealt_by = {} if own else dict(recipe["splits"])
    if label := recipe["balance"]:
        if not (classes := schema.get(label, {}).get("classes")):
            raise UserError(
                f"balance={label!r} is a label without classes; there are {', '.join(schema)}."
            )
        codes = table[label].to_numpy()
        even = select.balanced(codes[places], splits, classes)
        counts = select.counts(codes[places], splits, classes)
        before = places
        places, splits = places[even], splits[even]
        _note_lost(
            left_out,
            "images beyond their split's rarest class (balance)",
            before,
            places,
            found.names,
        )
        chosen["balance"] = {
            "label": label,
            "before": counts,
            "after": select.counts(codes[places], splits, classes),
        }
    if len(places) < len(raw):  # classes that selection emptied go, kinds stay
        kinds = {**{name: entry["kind"] for name, entry in schema.items()}, **kinds}
        raw = raw.iloc[places]
        schema = labels.schema_of(raw, kinds)
        table = labels.encode(raw, schema, raw.index.tolist())
    reasons = {
        reason: {"count": entry.count, "first": entry.first} for reason, entry in left_out.items()
    }
    facts["account"] = {"found": len(found.names) + found.left_out.count, "left_out": reasons}
    if found.left_out:
        facts["notes"].append(found.left_out.told())
    if own and group:
        sided = (
            pd.Series(splits)[known := table[group].to_numpy() >= 0]
            .groupby(table[group].to_numpy()[known])
            .nunique()
        )
        facts["people_in_several_splits"] = int((sided > 1).sum())
    dropped = [name for name in recipe["drop"] or [] if name not in typed.left_out]
    facts["labels_left_out"] = typed.left_out | select.left_out(
        table, schema, {**recipe, "drop": dropped}
    )
    schema = {
        name: entry for name, entry in schema.items() if name not in facts["labels_left_out"]
    }
    shares = {
        name: float((splits == name).mean())
        for name in (own["names"].values() if own else recipe["splits"])
    }
    recipe["splits"] = {name: share for name, share in shares.items() if share}
    if empty := [name for name in shares if name not in recipe["splits"]]:
        facts["notes"].append(f"no image is left for the split {', '.join(empty)}")
    return Plan(
        recipe,
        options,
        found.items,
        places,
        found.stamp,
        table[["file", *schema]],
        schema,
        splits,
        facts,
        dealt_by,
    )


def _label_by_folders(
    raw: pd.DataFrame, folders: layout.Layout, recipe: dict[str, Any]
) -> tuple[str, ...]:
    """Add the label `folder` where there is no other, or where it tells people apart; what a person should know of it."""
    undecided = recipe["group"] is None and (folders.people or not recipe["pattern"])
    if undecided and folders.people:
        recipe["group"] = "folder"
    if raw.columns.empty or recipe["group"] == "folder":
        raw["folder"] = folders.labels
    return folders.label_notes if undecided else ()


def _note_lost(
    left_out: sources.Account,
    reason: str,
    before: order.Ids,
    after: order.Ids,
    names: Sequence[str],
) -> None:
    """Add the images of `before` that are not in `after`."""
    if len(before) > len(after):
        lost = np.setdiff1d(before, after)
        left_out[reason] = sources.LeftOut(
            len(lost), [names[place] for place in lost[: sources.NAMED]]
        )


def _labels(
    found: sources.Found, specs: list[dict[str, Any]], top: Path, recipe: dict[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Raw labels, one row an image; what has no counterpart; what a person should know of them."""
    names, notes, raw = pd.Index(found.names), list[str](), pd.DataFrame()
    if specs:
        beside = top.parent if top.is_file() else top
        images = tables.Images(names, top)
        joined = tables.read_tables(specs, beside, images, recipe["get"])
        raw, notes = joined.rows, joined.notes
    known = names.get_indexer(raw.index) >= 0  # isin is slow on text
    if len(raw) and not known.any():
        begins = f"it begins with {raw.index[0]!r}, the images with {names[0]!r}"
        way = "A column must hold places below pack.root"
        raise UserError(f"no row of {specs[0]['file']} names an image; {begins}. {way}.")
    own = None if len(raw) else pd.DataFrame(index=names) if found.table is None else found.table
    if own is not None:
        raw, known = own, names.get_indexer(own.index) >= 0

    # what has no counterpart
    without_row = names[raw.index.get_indexer(names) < 0]
    lost = {"rows_without_image": raw.index[~known], "images_without_row": without_row}
    facts = {
        name: {"count": len(files), "first": files[:NAMED].tolist()}
        for name, files in lost.items()
    }
    raw = raw.reindex(names)
    if recipe["pattern"]:
        parts = _from_names(names, recipe, notes)
        replaced = {*parts.columns, *(["folder"] if own is not None else [])}
        both = [name for name in raw.columns if name in parts.columns]
        why = "the pattern reads it from file names"
        notes += [f"label {name!r} of the table is left out: {why}" for name in both]
        raw = parts.join(raw[[name for name in raw.columns if name not in replaced]])

    # names that packed tables have themselves, and words of the recipe for values
    for name in sorted({"file", "_offset", "_length"} & set(raw.columns)):
        other = name + "_"
        while other in raw.columns:
            other += "_"
        raw = raw.rename(columns={name: other})
        why = "because packed tables have a column of that name"
        notes.append(f"label {name!r} is called {other!r}, {why}")
    for name in recipe["values"].keys() & set(raw.columns):
        renamed = values.renamed(raw[name], recipe["values"][name])
        raw[name] = renamed.fillna(values.texts(raw[name]))
    return raw, facts, notes


def _asked_for(recipe: dict[str, Any], names: pd.Index) -> set[str]:
    """Labels that the recipe selects by."""
    in_where = {name for name in names if recipe["where"] and name in recipe["where"]}
    return in_where | {*(recipe["keep"] or []), recipe["balance"]}


def _from_names(names: pd.Index, recipe: dict[str, Any], notes: list[str]) -> pd.DataFrame:
    """Labels that the recipe's pattern reads from names; UserError: it is none, or fits none."""
    told = f"pattern {recipe['pattern']!r} of {recipe['name']}"
    try:
        parts = names.to_series().str.extract(recipe["pattern"])
    except (re.error, ValueError) as error:
        raise UserError(f"{told}: {error}; it names labels as (?P<label>…).") from None
    if unnamed := [name for name in parts if not isinstance(name, str)]:
        count = f"{len(unnamed)} of its groups have no name"
        raise UserError(f"{told}: {count}: (?P<label>…), or (?:…).")
    lost = parts.isna().all(axis=1).to_numpy()
    if lost.all():
        raise UserError(f"{told} fits no file name, e.g. not {names[0]!r}.")
    if lost.any():
        example = names[int(np.flatnonzero(lost)[0])]
        count = f"{int(lost.sum())} of {len(names)} names"
        notes.append(f"{told} does not fit {count}, e.g. {example}: they have no label of it")
    return parts


def dealt(recipe: dict[str, Any], table: pd.DataFrame) -> np.ndarray:
    """The split name of each image: people (or single images, where no group is known) dealt out by a fixed shuffle."""
    groups, inverse = np.unique(labels.people(table, recipe["group"]), return_inverse=True)
    place = order.permute(np.arange(len(groups)), len(groups), 0)[inverse]
    shares = recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(
            f"splits of recipe {recipe['name']!r} are {shares}; the shares must add up to 1."
        )
    ends = np.cumsum(list(shares.values())) * len(groups)
    return np.array(list(shares))[
        np.searchsorted(ends - 1e-6, place, side="right").clip(max=len(shares) - 1)
    ]
