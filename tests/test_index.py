"""index.json vouches for itself: records in, the same records out, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from facefactory import UserError, rundir
from facefactory.data.sets.index import FORMAT, Content, Index, Split, plain, read, write


def content_of(index: Index) -> dict[str, Any]:
    """What is written, without its digest."""
    written: dict[str, Any] = json.loads((index.folder / "index.json").read_text())
    del written["digest"]
    return written


def put(folder: Path, content: dict[str, Any]) -> None:
    """Write an index that vouches for what it says."""
    digest = rundir.digest(content)
    (folder / "index.json").write_text(json.dumps({**content, "digest": digest}))


def test_an_edited_index_is_refused(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text((index.folder / "index.json").read_text())
    assert read(tmp_path).content == index.content
    whole = json.loads(path.read_text())
    for change in (
        {"licence": "mine"},
        {"digest": "0" * 64},
        {"skipped": [{"file": "a", "reason": "b"}]},
    ):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(
            UserError,
            match=r"index\.json was changed after packing: its digest does not fit .* Pack or copy",
        ):
            read(tmp_path)
    path.write_text(json.dumps(content_of(index)))
    with pytest.raises(UserError, match="its digest does not fit"):
        read(tmp_path)


def test_what_is_read_is_written_again_key_by_key(index: Index) -> None:
    assert json.dumps(plain(index.content)) == json.dumps(content_of(index))
    assert index.digest == json.loads((index.folder / "index.json").read_text())["digest"]


DAMAGES = {
    "splits.train.shards.0.count": ("splits", "train", "shards", 0, "count", "many"),
    "splits.train.shards.0.sha256": ("splits", "train", "shards", 0, "sha256", None),
    "labels.Person.kind": ("labels", "Person", "kind", "name"),
    "channels": ("channels", 2),
    "selection.found": ("selection", "found", 1.5),
}


@pytest.mark.parametrize("place", DAMAGES)
def test_what_is_no_index_is_refused_with_its_place(
    place: str, index: Index, tmp_path: Path
) -> None:
    content = content_of(index)
    *way, name, value = DAMAGES[place]
    inner: Any = content
    for step in way:
        inner = inner[step]
    inner[name] = value
    put(tmp_path, content)
    with pytest.raises(UserError, match=rf"index\.json is no index of shards: {place}: .*Pack"):
        read(tmp_path)


@pytest.mark.parametrize("resolution", ["large", "16x", None])
def test_a_size_that_is_none_is_refused(resolution: Any, index: Index, tmp_path: Path) -> None:
    put(tmp_path, {**content_of(index), "resolution": resolution})
    with pytest.raises(UserError, match="is no index of shards"):
        read(tmp_path)


def test_old_sets_that_tell_less_are_read(index: Index, tmp_path: Path) -> None:
    kept = ("format", "storage", "dataset", "resolution", "channels", "labels", "splits")
    put(tmp_path, {name: content_of(index)[name] for name in kept})
    old = read(tmp_path)
    assert old.facts == index.facts
    assert old.images_digest == index.images_digest
    assert old.content.notes is None
    assert old.content.alike is None
    old.require_different("train")


def test_what_was_written_is_read_also_with_numbers_as_keys(tmp_path: Path) -> None:
    recipe = {"classes": {2: "fear", 10: "joy"}, "box": (1, 2)}
    content = Content(
        format=FORMAT,
        storage="raw",
        dataset="made",
        resolution=8,
        channels=1,
        labels={},
        splits={"train": Split(0, [])},
        recipe=recipe,
    )
    found = write(tmp_path, content)
    assert found.content.recipe == {"classes": {"2": "fear", "10": "joy"}, "box": [1, 2]}
    assert read(tmp_path).content == found.content
