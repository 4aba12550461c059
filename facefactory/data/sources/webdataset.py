"""Other people's WebDataset tars: JPEG, PNG or WebP beside JSON and cls; local files only, nothing is unpickled or run.

Names, grouping and brace patterns are the webdataset library's; only the tars' headers and labels are read to list them.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from facefactory import UserError
from facefactory.data.sources import Found
from facefactory.data.sources.folder import members

IMAGES = ("jpg", "jpeg", "png", "webp")
LABELS: dict[str, Callable[[bytes], Any]] = {
    "json": json.loads,
    "cls": lambda content: {"cls": int(content)},
}  # all that is decoded, besides images


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """Named `<tar>/<key>.<ending>`, the tar by its place below the folder of all. UserError: no tars, a damaged one, no image."""
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys

    if root is None:
        raise UserError("no tars given: pack.root=FOLDER, or a pattern, e.g. pack.root='/data/faces-{000..011}.tar'.")
    top = Path(root).expanduser()
    paths = sorted(top.glob("*.tar")) if top.is_dir() else [Path(name) for name in expand_urls(str(top))]
    if not paths or (absent := [path for path in paths if not path.is_file()]):
        raise UserError(
            f"no tar {absent[0] if paths else top / '*.tar'}; pack.root takes a folder or local paths (no addresses)."
        )
    items, rows, lacking = {}, {}, []
    around = os.path.commonpath([path.parent for path in paths])
    tars = [path.relative_to(around).as_posix() for path in paths]
    for tar, path in zip(tars, paths, strict=True):
        listed = ({"fname": name, "data": item, "__url__": tar} for name, item, _ in members(path))
        for sample in _samples(path, group_by_keys(listed)):
            if (ending := next((ending for ending in IMAGES if ending in sample), None)) is None:
                lacking.append(f"{tar}/{sample['__key__']}")
            else:
                name = f"{tar}/{sample['__key__']}.{ending}"
                items[name] = sample[ending]
                labels = [_decoded(name, ending, sample[ending]) for ending in LABELS if ending in sample]
                rows[name] = {key: value for part in labels for key, value in part.items()}
    if not items:
        raise UserError(f"no {', '.join(IMAGES)} in {paths[0]}; other members are not read.")
    stamp = [(tar, path.stat().st_size, path.stat().st_mtime_ns) for tar, path in zip(tars, paths, strict=True)]
    table = pd.DataFrame.from_dict(rows, orient="index").drop(
        columns=(recipe.get("webdataset") or {}).get("ignore", []), errors="ignore"
    )
    notes = (f"{len(lacking)} samples have no {', '.join(IMAGES)}, e.g. {lacking[0]}; they are left out",) if lacking else ()
    return Found(list(items), list(items.values()), stamp, table, notes)


def _samples(path: Path, samples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from samples
    except UserError:
        raise
    except ValueError as error:  # webdataset's, of members that are there twice
        raise UserError(f"{path}: {error.args[0]}. Mend it or leave it out.") from None


def _decoded(name: str, ending: str, place: tuple[str, int, int]) -> dict[str, Any]:
    """The labels in a member: single values, no lists."""
    with open(place[0], "rb") as stream:
        stream.seek(place[1])
        content = stream.read(place[2])
    try:
        return {key: value for key, value in LABELS[ending](content).items() if not isinstance(value, list | dict)}
    except (ValueError, AttributeError) as error:
        raise UserError(f"the {ending} of {name} is not readable: {error}. Mend it or leave that tar out.") from None
