"""index.json vouches for itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facefactory import UserError
from facefactory.data.sets.index import FORMAT, Index, read, write


def test_an_edited_index_is_refused(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text((index.folder / "index.json").read_text())
    assert read(tmp_path).content == index.content
    for change in (
        {"licence": "mine"},
        {"digest": "0" * 64},
        {"skipped": [{"file": "a", "reason": "b"}]},
    ):
        path.write_text(json.dumps({**index.content, **change}))
        with pytest.raises(
            UserError,
            match=r"index\.json was changed after packing: its digest does not fit .* Pack or copy",
        ):
            read(tmp_path)
    path.write_text(
        json.dumps({key: value for key, value in index.content.items() if key != "digest"})
    )
    with pytest.raises(UserError, match="its digest does not fit"):
        read(tmp_path)


def test_what_was_written_is_read_also_with_numbers_as_keys(tmp_path: Path) -> None:
    content = {"format": FORMAT, "recipe": {"classes": {2: "fear", 10: "joy"}, "box": (1, 2)}}
    found = write(tmp_path, content)
    assert found.content["recipe"] == {"classes": {"2": "fear", "10": "joy"}, "box": [1, 2]}
    assert read(tmp_path).content == found.content
