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
from facefactory.data import Pack, labels, order, select, sources
from facefactory.registry import nearest

# keys of a recipe beside name, source and splits; those that Pack has too may be overridden there
DEFAULTS: dict[str, Any] = {
    **{"root": None, "images": None, "layouts": [], "labels": None, "tables": [], "pattern": None, "values": {}, "kinds": {}},
    **{"group": None, "split": None, "expect": {}, "origin": None, "licence": None, "consent": None, "get": None},
    **{"crop": "square", "where": None, "limit": None, "balance": None, "keep": None, "drop": None},
    **{"min_prevalence": 0.0, "max_bad": 0.01},
}
TEXT, TABLE, LIST, NUMBER = (str,), (dict,), (list,), (int, float)
TYPES: dict[str, tuple[type, ...]] = dict.fromkeys(DEFAULTS, TEXT) | {"name": (str, int), "source": TEXT}
TYPES |= dict.fromkeys(("splits", "values", "kinds", "expect", "split"), TABLE) | {"limit": (int,), "crop": (str, int, list)}
TYPES |= dict.fromkeys(("layouts", "tables", "keep", "drop"), LIST) | {"images": TEXT + LIST}
TYPES |= dict.fromkeys(("min_prevalence", "max_bad"), NUMBER)
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

    @property
    def fingerprint(self) -> dict[str, str]:
        """Digests of what packing reads: the recipe, names, labels and splits, and the stamp of the images."""
        words = itertools.chain(self.table["file"], map(str, self.splits))
        made = hashlib.sha256(next(words, "").encode())
        while some := list(itertools.islice(words, 2**16)):
            made.update("\n".join(["", *some]).encode())
        for name, entry in self.schema.items():
            made.update(self.table[name].to_numpy(np.int32 if "classes" in entry else np.float32).tobytes())
        recipe = {name: value for name, value in self.recipe.items() if name != "max_bad"}
        found = config.digest([made.hexdigest(), self.schema])
        return {"recipe": config.digest(recipe), "labels": found, "images": config.digest(self.stamp)}

    @property
    def digest(self) -> str:
        """Digest of all that decides the bytes."""
        skip = ("root", "labels", "recipe", *OVERRIDES)
        made = {name: value for name, value in config.flat(self.options).items() if name not in skip}
        return config.digest([made, self.fingerprint])

    @property
    def folder_name(self) -> str:
        """`<set>-<resolution>-<8 hex digits>`: other options, labels or files never share a folder."""
        return f"{self.recipe['name']}-{self.options.resolution}-{self.digest[:8]}"


def read_recipe(options: Pack) -> tuple[dict[str, Any], Path]:
    """The recipe with every key, overrides and the layout that was found, and its file; UserError: it does not fit."""
    named = options.recipe.endswith((".yaml", ".yml"))
    path = Path(options.recipe).expanduser() if named else Path(__file__).parents[2] / "shards" / f"{options.recipe}.yaml"
    given = config.read_yaml(path)
    for name in {"name", "source", "splits"} - given.keys():
        raise UserError(f"{path} has no key {name!r}; copy it from shards/folder.yaml.")
    _check(path, given, {**TYPES, given["source"]: TABLE})
    if not (shares := given["splits"]) or not all(isinstance(share, NUMBER) for share in shares.values()):
        raise UserError(f"{path}: splits is {shares!r}; it takes the share of each, as {{train: 0.9, test: 0.1}}.")
    for layout in given.get("layouts") or []:
        _check(path, layout, {**TYPES, "needs": TEXT})
    registry.module("data.sources", given["source"])
    recipe = {**DEFAULTS, **given}
    root = options.root or recipe["root"]
    if recipe["layouts"] and root is not None:
        fits = [one for one in recipe["layouts"] if (Path(root).expanduser() / one["needs"]).exists()]
        if not fits:
            needs = ", ".join(one["needs"] for one in recipe["layouts"])
            raise UserError(f"below pack.root={root} there is none of {needs}. To get the set: {recipe['get']}")
        recipe |= fits[0]
    recipe |= {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    recipe |= {name: recipe[name] or None for name in ("where", "balance", "keep", "drop")}
    return {**recipe, "crop": _crop(recipe["crop"])}, path


def _check(path: Path, given: dict[str, Any], types: dict[str, tuple[type, ...]]) -> None:
    """UserError: an unknown key, or a value that it cannot have."""
    for name, value in given.items():
        if name not in types:
            raise UserError(f"{path} has an unknown key {name!r}.{nearest(name, types)} shards/README.md lists them.")
        if value is not None and not isinstance(value, types[name]):
            words = {str: "text", dict: "{key: value}", list: "a list", int: "a whole number", float: "a number"}
            allowed = " or ".join(words[kind] for kind in types[name] if kind is not int or float not in types[name])
            raise UserError(f"{path}: {name} is {value!r}; it takes {allowed}, see shards/README.md.")
    values, split = (given.get("values") or {}).values(), given.get("split")
    parts = {"tables": given.get("tables"), "layouts": given.get("layouts"), "split": split and [split], "values": values}
    for name, needed in {"tables": ["file"], "layouts": ["needs"], "split": ["by", "names"], "values": []}.items():
        for part in parts[name] or []:
            if not isinstance(part, dict) or set(needed) - part.keys():
                allowed = f"{{key: value}} with {' and '.join(needed)}" if needed else "{value: word}"
                raise UserError(f"{path}: {name} has {part!r}; it takes {allowed}, see shards/README.md.")


def _crop(value: Any) -> str | int | list[int]:
    """square, none, the side of a centred square, or [left, top, right, bottom]."""
    text = str(value).strip("[]")
    numbers = [int(part) for part in text.split(",")] if re.fullmatch(r"\d+( *, *\d+)*", text) else []
    if text in ("square", "none"):
        return text
    if len(numbers) == 1 and numbers[0] > 0:
        return numbers[0]
    if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
        return numbers
    raise UserError(f"crop is {value!r}; allowed are square, none, the side of a centred square, or left,top,right,bottom.")


def plan(options: Pack, recipe: dict[str, Any] | None = None) -> Plan:
    """Read recipe (or take it), labels and file list, select and split; decode nothing.

    Raises:
        UserError: something is missing, does not fit, or leaves no image.
    """
    recipe, path = ({**DEFAULTS, **recipe}, Path(recipe["name"])) if recipe else read_recipe(options)
    root = options.root or recipe["root"]
    found = registry.module("data.sources", recipe["source"]).find(recipe, root)
    beside = options.labels or (recipe["labels"] and str(path.parent.absolute() / recipe["labels"]))
    tables = [*recipe["tables"], *([{"file": beside}] if beside else [])]
    raw, facts = _labels(found, tables, Path(root or "").expanduser(), recipe)
    for name in {"file", "_offset", "_length"} & set(raw.columns):
        raise UserError(f"{path}: the column {name!r} is one of ours in every packed table; rename it.")
    absent = {name for spec in tables if spec.get("optional") for name in spec.get("columns", [])[1:]} - set(raw.columns)
    facts["notes"] = [*found.notes, *(f"{name} is in no table here; the recipe can do without" for name in sorted(absent))]
    own = None if recipe["split"] is None or recipe["split"]["by"] in absent else recipe["split"]
    recipe |= {key: None for key in ("group", "balance") if recipe[key] in absent or not recipe[key]}
    for key, name in {"group": recipe["group"], "balance": recipe["balance"], "split by": own and own["by"]}.items():
        if name not in {None, *raw.columns}:
            raise registry.unknown(f"{path}: {key} {name!r} is not a label", name, raw.columns)
    group, places, sides = recipe["group"], np.arange(len(raw)), np.full(len(raw), "")
    kinds = {**({group: "identity"} if group else {}), **recipe["kinds"]}
    kinds = {name: kind for name, kind in kinds.items() if name not in absent}
    if own:
        names = {str(key): name for key, name in own["names"].items()}
        sides = labels.texts(raw.pop(own["by"])).map(names).fillna("").to_numpy(str)
        places = np.flatnonzero(sides != "")
    for name, wanted in recipe["expect"].items():
        if (counted := len(raw) if name == "images" else int((sides == name).sum())) != wanted and (own or name == "images"):
            facts["notes"].append(f"{counted} {name} found; the whole set {recipe['name']} has {wanted}")
    chosen: dict[str, Any] = {"found": len(raw), "of_no_split": len(raw) - len(places)}
    facts["selection"] = chosen
    schema = labels.schema_of(raw, kinds)
    table = labels.encode(raw, schema, found.names)
    if group and not schema[group]["classes"]:
        raise UserError(f"{path}: group {group!r} is unknown for every image; mend that label, or give group: null.")
    if recipe["where"]:
        places = places[select.where(recipe["where"], table, schema)[places]]
        chosen["where"] = len(places)
    if recipe["limit"]:
        places = places[np.sort(order.permute(np.arange(min(recipe["limit"], len(places))), len(places), 1))]
        chosen["limit"] = len(places)
    if not len(places):
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in chosen.items())
        known = f"; a split is named by {own['by']}: {', '.join(map(str, own['names']))}" if own else ""
        raise UserError(f"no image of {recipe['name']} is left: {told} (where={recipe['where'] or ''}){known}.")
    splits = sides[places] if own else dealt(recipe, table.iloc[places])
    if label := recipe["balance"]:
        if not (classes := schema.get(label, {}).get("classes")):
            raise UserError(f"balance={label!r} is a label without classes; there are {', '.join(schema)}.")
        codes = table[label].to_numpy()
        even = select.balanced(codes[places], splits, classes)
        before = select.counts(codes[places], splits, classes)
        places, splits = places[even], splits[even]
        chosen["balance"] = {"label": label, "before": before, "after": select.counts(codes[places], splits, classes)}
    if len(places) < len(raw):  # classes that selection emptied go, kinds stay
        kinds = {**{name: entry["kind"] for name, entry in schema.items()}, **kinds}
        raw = raw.iloc[places]
        schema = labels.schema_of(raw, kinds)
        table = labels.encode(raw, schema, raw.index.tolist())
    if own and group:
        sided = pd.Series(splits)[known := table[group].to_numpy() >= 0].groupby(table[group].to_numpy()[known]).nunique()
        facts["people_in_several_splits"] = int((sided > 1).sum())
    facts["labels_left_out"] = {name: "too many values, or lists" for name in raw.columns if name not in schema}
    facts["labels_left_out"] |= select.left_out(table, schema, recipe)
    schema = {name: entry for name, entry in schema.items() if name not in facts["labels_left_out"]}
    shares = {name: float((splits == name).mean()) for name in (own["names"].values() if own else recipe["splits"])}
    recipe["splits"] = {name: share for name, share in shares.items() if share}
    return Plan(recipe, options, found.items, places, found.stamp, table[["file", *schema]], schema, splits, facts)


def _labels(found: sources.Found, tables: list[dict[str, Any]], top: Path, recipe: dict[str, Any]) -> tuple[pd.DataFrame, Any]:
    """Raw labels, one row an image, and which rows and images have no counterpart."""
    raw, names = labels.read_tables(tables, top, recipe["get"]), pd.Index(found.names)
    known = names.get_indexer(raw.index) >= 0  # isin is slow on text
    if len(raw) and not known.any():
        begins = f"it begins with {raw.index[0]!r}, the images with {names[0]!r}"
        raise UserError(f"no row of {tables[0]['file']} names an image; {begins}.")
    if not len(raw) and found.table is not None:
        raw, known = found.table, names.get_indexer(found.table.index) >= 0
    lost = {"rows_without_image": raw.index[~known], "images_without_row": names[raw.index.get_indexer(names) < 0]}
    facts = {name: {"count": len(files), "first": files[:NAMED].tolist()} for name, files in lost.items()}
    raw = raw.reindex(names)
    if recipe["pattern"]:
        try:
            parts = names.to_series().str.extract(recipe["pattern"])
        except (re.error, ValueError) as error:
            how = "it names labels as (?P<label>…)"
            raise UserError(f"pattern {recipe['pattern']!r} of {recipe['name']}: {error}; {how}.") from None
        if parts.isna().all(axis=None):
            raise UserError(f"pattern {recipe['pattern']!r} of {recipe['name']} fits no file name, e.g. not {names[0]!r}.")
        raw = parts.join(raw[raw.columns.difference(["folder", *parts.columns], sort=False)])
    for name in recipe["values"].keys() & set(raw.columns):
        words = {str(key): word for key, word in recipe["values"][name].items()}
        raw[name] = labels.texts(raw[name]).replace(words)
    return raw, facts


def dealt(recipe: dict[str, Any], table: pd.DataFrame) -> np.ndarray:
    """The split name of each image: people (or single images, where no group is known) dealt out by a fixed shuffle."""
    groups, inverse = np.unique(labels.people(table, recipe["group"]), return_inverse=True)
    place = order.permute(np.arange(len(groups)), len(groups), 0)[inverse]
    shares = recipe["splits"]
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"splits of recipe {recipe['name']!r} are {shares}; the shares must add up to 1.")
    ends = np.cumsum(list(shares.values())) * len(groups)
    return np.array(list(shares))[np.searchsorted(ends - 1e-6, place, side="right").clip(max=len(shares) - 1)]
