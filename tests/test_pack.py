"""Shards: readable by everybody's tools, the same bytes every time, and damage is named."""

from __future__ import annotations

import ast
import errno
import gc
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import EACH, PEOPLE, Faces, has_beard, has_glasses
from PIL import Image

from facefactory import UserError
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets.index import (
    BLOCK,
    Alike,
    Deep,
    Index,
    Named,
    Skipped,
    padded,
    plain,
    read,
)
from facefactory.facts import Label


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()  # statistics of the set lie in a folder beside
    }


def options_for(faces: Faces, **changes: Any) -> Pack:
    return replace(Pack(recipe=str(faces.recipe), resolution=16, shard_images=16), **changes)


def shard_members(index: Index, split: str) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Image and labels of every member, read with tarfile and numpy alone."""
    found = []
    for shard in index.split(split).shards:
        with tarfile.open(index.folder / shard.file) as tar:
            contents = [tar.extractfile(info).read() for info in tar.getmembers()]  # type: ignore[union-attr]
        found += [
            (np.load(io.BytesIO(a)), json.loads(b))
            for a, b in zip(contents[::2], contents[1::2], strict=True)
        ]
    return found


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe beside `folder`/images, with some keys changed."""
    fields = {
        "name": "mine",
        "source": "folder",
        "root": str(folder / "images"),
        "splits": {"train": 1.0},
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(
        "".join(
            f"{key}: {json.dumps(value)}\n"
            for key, value in fields.items()
            if value != "leave out"
        )
    )
    return path


def pack_images(
    folder: Path, images: dict[str, Image.Image], color: str = "gray", **recipe: Any
) -> np.ndarray:
    """Save images, pack them at their own size as one shard, answer the array [N, H, W, C]."""
    for name, image in images.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / name)
    options = Pack(
        str(write_recipe(folder, **recipe)),
        color=color,
        resolution=8,
    )  # type: ignore[arg-type]
    return np.asarray(pack.pack(recipes.plan(options), folder / "shards").maps("train")[0])


# -- the format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_tar_and_numpy_read_what_the_mapping_shows(index: Index, split: str) -> None:
    members = shard_members(index, split)
    table = index.table(split)
    mapped = np.concatenate(index.maps(split))
    assert len(members) == len(table) == index.split(split).count == len(mapped)
    for (image, row), ours, (_, labelled) in zip(members, mapped, table.iterrows(), strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, ours)
        assert row == labelled.to_dict()


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # webdataset leaves its tars to the collector
def test_webdataset_reads_the_same_images_and_labels(index: Index) -> None:
    import webdataset

    shards = [str(index.folder / shard.file) for shard in index.split("train").shards]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    gc.collect()
    members = shard_members(index, "train")
    assert [sample["__key__"] for sample in samples] == [
        f"{number:08d}" for number in range(len(members))
    ]
    for sample, (image, row) in zip(samples, members, strict=True):
        assert np.array_equal(sample["npy"], image)
        assert sample["json"] == row


def test_all_members_have_one_size_and_a_fixed_stride(index: Index) -> None:
    for shard in index.split("train").shards:
        with tarfile.open(index.folder / shard.file) as tar:
            infos = tar.getmembers()
        assert (
            len({info.size for info in infos[::2]})
            == len({info.size for info in infos[1::2]})
            == 1
        )
        assert [info.offset for info in infos[::2]] == [
            shard.stride * number for number in range(shard.count)
        ]
        assert {(info.mtime, info.uid, info.gid, info.uname) for info in infos} == {(0, 0, 0, "")}
        assert shard.stride == 2 * BLOCK + padded(infos[0].size) + padded(infos[1].size)
        assert shard.bytes == (index.folder / shard.file).stat().st_size


def test_writing_to_a_mapping_changes_no_file(index: Index) -> None:
    view = index.maps("test")[0]
    view[:] = 0
    index.verify(full=True)
    assert index.maps("test")[0].max() > 0


def test_index_tells_what_was_packed(index: Index) -> None:
    assert (index.facts.height, index.facts.width, index.facts.channels) == (16, 16, 1)
    assert index.facts.classes == {"Person": PEOPLE, "Glasses": 2, "Beard": 2}
    assert [shard.count for shard in index.split("train").shards] == [16, 16, 13]
    assert index.split("test").count == 15
    with pytest.raises(UserError, match=r"no split 'val'; it has train, test"):
        index.split("val")
    again = read(index.folder)
    assert (again.images_digest, again.labels_digest) == (index.images_digest, index.labels_digest)


def test_labels_are_those_of_the_table(index: Index) -> None:
    rows = [row for split in ("train", "test") for _, row in shard_members(index, split)]
    assert len(rows) == PEOPLE * EACH
    for row in rows:
        person = int(row["file"][1:3])
        number = int(row["file"][4])
        beard = has_beard(person, number)
        classes = index.content.labels["Person"].classes
        assert classes[row["Person"]] == str(person)
        assert row["Glasses"] == has_glasses(number)
        assert row["Beard"] == (-1 if beard is None else beard)


def test_each_person_is_on_one_side(index: Index) -> None:
    train, test = (set(index.table(split)["Person"]) for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (9, 3, set())


def test_images_without_a_person_are_groups_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "file,Who\n" + "".join(f"{n}.png,{n // 10 if n < 20 else ''}\n" for n in range(40))
    )
    for number in range(40):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "images" / f"{number}.png")
    recipe = write_recipe(
        tmp_path,
        labels="table.csv",
        kinds={"Who": "identity"},
        group="Who",
        splits={"a": 0.5, "b": 0.5},
    )
    plan = recipes.plan(Pack(str(recipe)))
    sides = plan.splits
    assert len(set(sides[:10])) == len(set(sides[10:20])) == 1
    assert set(sides[20:]) == {"a", "b"}


# -- the same bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_packing_again_gives_the_same_bytes(
    index: Index, faces: Faces, tmp_path: Path, workers: int
) -> None:
    done: list[tuple[int, int]] = []
    plan = recipes.plan(options_for(faces, workers=workers))
    pack.pack(plan, tmp_path / "again", lambda n, total, left: done.append((n, total)))
    assert bytes_of(tmp_path / "again") == bytes_of(index.folder)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_array_tasks_write_their_parts_and_the_last_step_joins_them(
    index: Index, faces: Faces, tmp_path: Path
) -> None:
    plan = recipes.plan(options_for(faces))
    folder = tmp_path / "again"
    names = [
        [record.shard.file for record in pack.shards(plan, folder, part=(k, 3))] for k in range(3)
    ]
    assert names == [
        ["train-000000.tar", "test-000000.tar"],
        ["train-000001.tar"],
        ["train-000002.tar"],
    ]
    assert not (folder / "index.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    pack.pack(plan, folder)
    assert bytes_of(folder) == bytes_of(index.folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_packing_that_was_stopped_goes_on_where_it_was(
    index: Index, faces: Faces, tmp_path: Path, workers: int
) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int, total: int, left: float) -> None:
        if done == 2:
            raise Interrupted

    plan = recipes.plan(options_for(faces, workers=workers))
    folder = tmp_path / "again"
    with pytest.raises(Interrupted):
        pack.pack(plan, folder, stop)
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("train-00000[01].tar")}
    assert len(first) == 2
    assert not (folder / "index.json").exists()
    told: list[tuple[int, int]] = []
    pack.pack(plan, folder, lambda done, total, left: told.append((done, left > 0)))
    assert [done for done, _ in told] == [1, 2, 3, 4]
    assert told[-1] == (4, False)
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == first
    assert bytes_of(folder) == bytes_of(index.folder)


def test_a_packing_that_was_killed_goes_on_and_gives_the_same_bytes(
    index: Index, faces: Faces, tmp_path: Path
) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom facefactory.data import Pack\nfrom facefactory.data.packing import pack, recipes\nfrom facefactory.data.sets import shard\n"
        "written, member = [], shard.member\n"
        "def dying(number, *content):\n"
        "    written.append(number)\n"
        "    if len(written) == 40: os.kill(os.getpid(), 9)\n"
        "    return member(number, *content)\n"
        "shard.member = dying\n"
        "pack.pack(recipes.plan(Pack(recipe=sys.argv[1], resolution=16, shard_images=16)), Path(sys.argv[2]))"
    )

    # killed within its second shard
    folder = tmp_path / "again"
    killed = subprocess.run(
        [sys.executable, "-c", code, str(faces.recipe), str(folder)], check=False
    )
    assert killed.returncode == -9
    names = {path.name for path in folder.iterdir()}
    assert {"train-000000.tar", "train-000000.json"} <= names
    assert "train-000001.tar" not in names

    # old leftovers go, what others left stays
    (left,) = (path for path in folder.iterdir() if path.suffix == ".tmp")
    os.utime(left, (1, 1))  # long ago; young ones may be another job's
    for foreign in ("my-config.json", ".draft.tmp", ".train-000001.tar.7.tmp"):
        (folder / foreign).write_text("mine")

    # and the same bytes come out
    pack.pack(recipes.plan(options_for(faces)), folder)
    assert not left.exists()
    for foreign in ("my-config.json", ".draft.tmp", ".train-000001.tar.7.tmp"):
        (folder / foreign).unlink()
    assert bytes_of(folder) == bytes_of(index.folder)


def test_shards_of_another_plan_or_with_other_bytes_are_packed_anew(
    index: Index, faces: Faces, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    pack.shards(
        recipes.plan(options_for(faces, drop=["Beard"])),
        folder,
        part=(0, 4),
    )
    pack.shards(
        recipes.plan(options_for(faces)),
        folder,
        part=(1, 4),
    )
    damaged = folder / "train-000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    pack.pack(recipes.plan(options_for(faces)), folder)
    assert bytes_of(folder) == bytes_of(index.folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_no_half_shard_and_says_so(faces: Faces, workers: int) -> None:
    code = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom facefactory import UserError\nfrom facefactory.data import Pack\nfrom facefactory.data.packing import pack, recipes\n"
        "if __name__ == '__main__':\n"
        "    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=112k', 'none', sys.argv[2]], check=True)\n"
        "    folder, options = Path(sys.argv[2]), Pack(recipe=sys.argv[1], resolution=16, shard_images=16, workers=int(sys.argv[3]))\n"
        "    try: pack.pack(recipes.plan(options), folder / 'set')\n"
        "    except UserError as error: print(error)\n"
        "    print(sorted(path.name for path in (folder / 'set').iterdir()))\n"
    )

    # on a disk of 112 kB
    with tempfile.TemporaryDirectory() as top:
        (Path(top) / "disk").mkdir()
        (Path(top) / "main.py").write_text(code)
        command = [
            "unshare",
            "--mount",
            sys.executable,
            f"{top}/main.py",
            str(faces.recipe),
            f"{top}/disk",
            str(workers),
        ]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
        )
    if "unshare failed" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip("no file system of its own can be mounted here")

    # said in a line, and no half shard
    message, left = ran.stdout.splitlines()
    assert re.match(
        r"no room left in .*/disk/set; make room, or give another paths\.data", message
    )
    names = ast.literal_eval(left)
    assert not any(".tmp" in name or name == "index.json" for name in names)
    tars, tables, records = (
        {name[: -len(end)] for name in names if name.endswith(end)}
        for end in (".tar", ".parquet", ".json")
    )
    assert records and tars == tables >= records  # what is whole stays for the next time
    assert workers > 1 or "train-000000" in records


def test_other_options_and_labels_get_another_folder(faces: Faces, tmp_path: Path) -> None:
    shutil.copytree(faces.root.parent, tmp_path / "copy")
    table = tmp_path / "copy" / "labels.csv"
    table.write_text(table.read_text().replace("p00/0.png,0,0", "p00/0.png,0,1"))
    variants = [
        {},
        {"resolution": 8},
        {"color": "rgb"},
        {"shard_images": 8},
        {"labels": str(table)},
    ]
    names = [recipes.plan(options_for(faces, **changes)).folder_name for changes in variants]
    assert len(set(names)) == len(names)
    assert recipes.plan(options_for(faces, workers=2)).folder_name == names[0]
    assert names[0].startswith("drawn-16-")


def test_labels_do_not_change_the_images_digest(
    index: Index, faces: Faces, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(faces.labels.read_text().replace("p00/0.png,0,0", "p00/0.png,0,1"))
    other = pack.pack(recipes.plan(options_for(faces, labels=str(table))), tmp_path / "other")
    assert other.images_digest == index.images_digest
    assert other.labels_digest != index.labels_digest


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(index: Index, tmp_path: Path) -> Index:
    """A copy that a test may damage; its good verdict is remembered already."""
    shutil.copytree(index.folder, tmp_path / "copied")
    found = read(tmp_path / "copied")
    found.verify()
    return found


@pytest.mark.parametrize("name", ["train-000001.tar", "test-000000.parquet"])
def test_a_flipped_byte_is_named_by_file(copied: Index, name: str) -> None:
    with open(copied.folder / name, "r+b") as stream:
        stream.seek(700)
        byte = stream.read(1)[0]
        stream.seek(700)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(
        UserError, match=rf"{name} has SHA-256 .* its bytes changed\. Pack the set again"
    ):
        copied.verify(full=True)


def test_a_truncated_shard_is_named_by_file(copied: Index) -> None:
    path = copied.folder / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(UserError, match=r"train-000002\.tar has \d+ bytes; index\.json says \d+"):
        copied.verify()


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.parquet"])
def test_a_missing_file_is_named(copied: Index, name: str) -> None:
    (copied.folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing\. Pack the set again"):
        copied.verify()


def test_a_good_verdict_is_remembered_until_the_file_changes(
    copied: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_files: list[str] = []
    monkeypatch.setattr(
        "facefactory.rundir.sha256", lambda path: read_files.append(path.name) or "other bytes"
    )
    copied.verify()
    assert read_files == []
    (copied.folder / "test-000000.tar").touch()
    with pytest.raises(UserError, match=r"test-000000\.tar"):
        copied.verify()
    assert read_files == ["test-000000.tar"]


def test_a_folder_that_is_not_a_set_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no index\.json; give a folder that jobs/pack_shards\.py made"
    ):
        read(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({**plain(index.content), "format": 99}))
    with pytest.raises(UserError, match="has format 99; this version reads 1"):
        read(tmp_path)


def test_a_split_of_which_nothing_can_be_read_or_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(120):
        Image.new("L", (8, 8), number).save(tmp_path / "images" / f"{number:03d}.png")
    options = Pack(
        str(write_recipe(tmp_path, splits={"train": 0.99, "test": 0.01}, max_bad=0.1)),
        resolution=8,
    )
    plan = recipes.plan(options)
    (alone,) = plan.table["file"][plan.splits == "test"]
    for name in (alone, plan.table["file"][plan.splits == "train"].iloc[0]):
        (tmp_path / "images" / name).write_bytes(b"not an image")
    with pytest.raises(
        UserError,
        match=f"no image of split 'test' can be read, as {alone}: text: it begins with 'not an image'",
    ):
        pack.pack(recipes.plan(options), tmp_path / "shards")
    monkeypatch.setattr("facefactory.data.sets.shard.MOST", 100)
    with pytest.raises(UserError, match="train has 119 images; a split has at most 100"):
        pack.pack(plan, tmp_path / "others")


def test_an_unreadable_image_is_skipped_with_its_reason(tmp_path: Path) -> None:
    images = {f"{number:03d}.png": Image.new("L", (8, 8), number) for number in range(120)}
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        image.save(tmp_path / "images" / name)
    (tmp_path / "images" / "007.png").write_bytes(b"not an image")
    plan = recipes.plan(Pack(str(write_recipe(tmp_path)), resolution=8, shard_images=50))
    index = pack.pack(plan, tmp_path / "shards")
    (skipped,) = index.content.skipped
    assert skipped == Skipped("007.png", "text: it begins with 'not an image'")
    assert [shard.count for shard in index.split("train").shards] == [49, 50, 20]
    assert np.concatenate(index.maps("train"))[:, 0, 0, 0].tolist() == [
        n for n in range(120) if n != 7
    ]
    assert index.table("train")["file"].tolist() == sorted(images.keys() - {"007.png"})


def test_too_many_unreadable_images_are_refused_with_a_list(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(120):
        Image.new("L", (8, 8)).save(tmp_path / "images" / f"{number:03d}.png")
    for number in (5, 77):
        (tmp_path / "images" / f"{number:03d}.png").write_bytes(b"")
    plan = recipes.plan(Pack(str(write_recipe(tmp_path)), resolution=8))
    with pytest.raises(
        UserError,
        match=r"2 of 120 images, so far, cannot be packed \(at most 1%.*005\.png: .*; 077\.png: ",
    ):
        pack.pack(plan, tmp_path / "shards")
    assert not (tmp_path / "shards" / "index.json").exists()


# -- what a user can get wrong -------------------------------------------------------------------------------------


def test_wrong_recipes_are_refused_with_the_fix(faces: Faces, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("file,Smile\nsomebody.png,1\n")
    (tmp_path / "twice.csv").write_text("file,Smile\np00/0.png,1\np00/0.png,0\n")
    (tmp_path / "empty").mkdir()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"recipe": "orll"}, r"no file .*orll\.yaml; beside it are .*orl.* Did you mean 'orl'\?"),
        (
            {"labels": str(tmp_path / "none.csv")},
            r"no label table .*none\.csv; give pack\.labels=PATH",
        ),
        (
            {"labels": str(tmp_path / "other.csv")},
            r"no row of .*other\.csv names an image.*'somebody\.png'.*'p00/0\.png'",
        ),
        ({"labels": str(tmp_path / "twice.csv")}, r"names 'p00/0\.png' twice"),
        ({"root": str(tmp_path / "nowhere")}, r"pack\.root=.*nowhere is not a folder"),
        ({"root": str(tmp_path / "empty")}, r"no image below .*empty; looked for \.bmp"),
        ({"recipe": "folder"}, r"no image folder given: pack\.root=/path/to/faces"),
    ]
    for changes, message in wrong:
        with pytest.raises(UserError, match=message):
            recipes.plan(options_for(faces, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "Who"}, r"group 'Who' is not a label; there are Person, Glasses, Beard"),
        (
            {"kinds": {"Who": "identity"}},
            r"label 'Who' of the recipe is not in the table.*Person, Glasses, Beard",
        ),
        (
            {"kinds": {"Person": "person"}},
            r"kind 'person'; allowed are binary, categorical, ordinal, identity, real",
        ),
        (
            {"source": "foldr"},
            r"no 'foldr'; there are drawn, folder, orl, rows, webdataset\. Did you mean 'folder'\?",
        ),
        ({"source": "leave out"}, r"mine\.yaml.*source"),
        ({"splits": "leave out"}, r"mine\.yaml.*splits"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    faces: Faces, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe = write_recipe(
        tmp_path, **{"root": str(faces.root), "labels": str(faces.labels), **changes}
    )
    with pytest.raises(UserError, match=message):
        recipes.plan(Pack(str(recipe)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"splits": ["train", "test"]},
            r"splits is \['train', 'test'\]\. Input should be a valid dictionary; see shards/README",
        ),
        ({"splits": {"train": "all"}}, r"splits\.train is 'all'\. Input should be a valid number"),
        (
            {"splits": {"train": -1}},
            r"splits\.train is -1\. Input should be greater than or equal to 0",
        ),
        ({"splits": {"a/b": 1.0}}, r"splits\.a/b.* is 'a/b'\. String should match"),
        ({"tables": "t.csv"}, r"tables is 't\.csv'\. Input should be a valid list"),
        ({"tables": [{"fil": "t.csv"}]}, r"unknown key 'tables\.0\.fil'"),
        (
            {"values": {"Person": ["a"]}},
            r"values\.Person is \['a'\]\. Input should be a valid dictionary",
        ),
        ({"values": {"Who": {1: "a"}}}, r"values has 'Who', which is not a label"),
        ({"split": {"by": "Person"}}, r"no key 'split\.names'"),
        (
            {"kinds": {"Age": {"kind": "ordinal", "class": [1]}}},
            r"unknown key 'kinds\.Age\.Kind\.class'",
        ),
        (
            {"expect": {"imges": 3}},
            r"expect has 'imges', which is no split; there are .*Did you mean 'images'",
        ),
        ({"max_bad": "1%"}, r"max_bad is '1%'\. Input should be a valid number"),
        ({"limit": 0.5}, r"limit is 0\.5\. Input should be a valid integer"),
        (
            {"min_prevalence": 5},
            r"min_prevalence is 5\. Input should be less than or equal to 0\.5",
        ),
        ({"layouts": [{"crop": "none"}]}, r"no key 'layouts\.0\.needs'"),
        (
            {"layouts": [{"needs": ".", "corp": "none"}]},
            r"unknown key 'corp'\. Did you mean 'crop'\?",
        ),
        ({"source": "drawn", "drawn": 3}, r"unknown key 'drawn'"),
    ],
)
def test_a_value_that_a_key_of_a_recipe_cannot_have_is_refused(
    faces: Faces, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml.*" + message):
        recipes.plan(Pack(str(write_recipe(tmp_path, **{"root": str(faces.root), **changes}))))


def test_the_command_line_beats_a_layout_and_an_optional_table_needs_no_columns(
    faces: Faces, tmp_path: Path
) -> None:
    more = {
        "layouts": [{"needs": ".", "crop": "none"}],
        "tables": [{"file": "absent.csv", "optional": True}],
    }
    recipe = str(write_recipe(tmp_path, root=str(faces.root), **more))
    assert recipes.plan(Pack(recipe)).recipe["crop"] == "none"
    assert recipes.plan(Pack(recipe, crop="4")).recipe["crop"] == 4


def test_selection_changes_no_kind(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("L", (8, 8), number).save(tmp_path / "images" / f"{number}.png")
    pd.DataFrame(
        {"Score": [0, 0.5, 1] * 2, "Emotion": range(6)}, [f"{n}.png" for n in range(6)]
    ).to_csv(tmp_path / "t.csv")
    options = Pack(
        str(write_recipe(tmp_path, labels="t.csv")),
        resolution=8,
        where="Score != 0.5 and Emotion in (0, 1, 2, 3)",
    )
    schema = recipes.plan(options).schema
    assert schema == {
        "Score": Label("real"),
        "Emotion": Label("categorical", ("0", "2", "3")),
    }


def test_shares_that_do_not_add_up_are_refused(faces: Faces, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        root=str(faces.root),
        splits={"train": 0.5, "test": 0.4},
    )
    with pytest.raises(UserError, match=r"splits of recipe 'mine'.*must add up to 1"):
        pack.pack(recipes.plan(Pack(str(recipe), resolution=8)), tmp_path / "shards")


# -- images --------------------------------------------------------------------------------------------------------


def test_gray_and_rgb_become_what_was_asked_for(tmp_path: Path) -> None:
    images = {
        "a.png": Image.new("RGB", (8, 8), (200, 100, 0)),
        "b.png": Image.new("L", (8, 8), 77),
    }
    assert pack_images(tmp_path / "rgb", images, "rgb")[:, 3, 3].tolist() == [
        [200, 100, 0],
        [77, 77, 77],
    ]
    luma = round(0.299 * 200 + 0.587 * 100)
    gray = pack_images(tmp_path / "gray", images, "gray")
    assert gray.shape == (2, 8, 8, 1)
    assert gray[:, 3, 3, 0].tolist() == [luma, 77]


def test_a_rotated_photograph_is_packed_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90° clockwise to show"
    (tmp_path / "images").mkdir()
    upright.rotate(90).save(tmp_path / "images" / "a.png", exif=exif)
    upright.rotate(90).save(
        tmp_path / "images" / "b.jpg",
        exif=exif,
        quality=100,
    )
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    upright.rotate(90).save(
        tmp_path / "images" / "c.jpg",
        xmp=xmp,
        quality=100,
    )
    upright.save(tmp_path / "images" / "d.jpg", quality=100)
    packed = pack_images(tmp_path, {})
    assert np.array_equal(packed[0, :, :, 0], np.asarray(upright))
    assert np.abs(packed[1:, :, :, 0].astype(int) - np.asarray(upright)).max() <= 2


def test_the_crop_is_the_centred_square_or_the_given_box(tmp_path: Path) -> None:
    columns = Image.fromarray(
        np.tile(np.arange(24, dtype=np.uint8) * 10, (8, 1))
    )  # 24 wide, 8 high
    square = pack_images(tmp_path / "square", {"a.png": columns})
    assert square[0, 0, :, 0].tolist() == [10 * x for x in range(8, 16)]
    box = pack_images(
        tmp_path / "box",
        {"a.png": columns},
        crop=[2, 0, 10, 8],
    )
    assert box[0, 0, :, 0].tolist() == [10 * x for x in range(2, 10)]


def test_shrinking_averages_and_does_not_alias(tmp_path: Path) -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    packed = pack_images(tmp_path, {"a.png": board})
    assert np.abs(packed.astype(int) - 127).max() <= 2


def test_files_are_sorted_naturally_and_folders_become_a_label(tmp_path: Path) -> None:
    images = {
        f"{person}/{number}.png": Image.new("L", (8, 8))
        for person in ("s10", "s2")
        for number in (10, 9)
    }
    pack_images(tmp_path, images)
    table = read(tmp_path / "shards").table("train")
    assert table["file"].tolist() == ["s2/9.png", "s2/10.png", "s10/9.png", "s10/10.png"]
    assert table["folder"].nunique() == 2


def test_a_file_name_is_kept_as_it_is(tmp_path: Path) -> None:
    name = "NaNcy/Zoë 1.png"
    pack_images(tmp_path, {name: Image.new("L", (8, 8)), "NaNcy/2.png": Image.new("L", (8, 8))})
    rows = [row for _, row in shard_members(read(tmp_path / "shards"), "train")]
    assert {row["file"] for row in rows} == {name, "NaNcy/2.png"}


def deep_set(folder: Path, number_of_images: int = 40) -> list[np.ndarray]:
    """Faces of 12 bits in PNG files of 16: only the last goes beyond 10 bits, the first is dark; their values [8, 8]."""
    draws = np.random.default_rng(0)
    values = [draws.integers(200, 1000, (8, 8)).astype(np.uint16) for _ in range(number_of_images)]
    values[0] //= 40
    values[-2] = draws.integers(200, 4096, (8, 8)).astype(
        np.uint16
    )  # not among those that are looked at first
    values[-2][0, 0] = 4095
    (folder / "images").mkdir(parents=True)
    for number, its in enumerate(values):
        Image.fromarray(its).save(folder / "images" / f"{number:03d}.png")
    Image.fromarray((values[-1] // 4).astype(np.uint8)).save(
        folder / "images" / f"{number_of_images:03d}.png"
    )  # 8 bits
    return values


def test_a_set_of_twelve_bits_is_packed_by_one_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = deep_set(tmp_path)
    recipe = write_recipe(tmp_path)
    index = pack.pack(
        recipes.plan(Pack(str(recipe), resolution=8, shard_images=10)), tmp_path / "one"
    )
    packed = np.concatenate(index.maps("train"))[..., 0].astype(int)
    for image, its in zip(packed, values, strict=False):  # the dark one too
        assert np.abs(image - its / 4095 * 255).max() <= 1
    assert np.array_equal(packed[40], values[-1] // 4)
    assert index.content.pictures["sixteen_bit"] == Deep(images=40, highest=4095, bits=12)
    dark = [
        f"{number:03d}.png" for number in range(40) if number != 38
    ]  # no value above a quarter of the set's range
    assert index.content.pictures["dark"] == Named(39, dark)
    said = capsys.readouterr().err
    assert (
        "40 pictures have 16 bits, and no value above 4095: they are taken as pictures of 12 bits (0…4095)"
        in said
    )
    assert "39 pictures are nearly black: look at them before you train, e.g. 000.png" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_the_scale_depends_on_no_worker_no_part_and_no_break(tmp_path: Path, workers: int) -> None:
    deep_set(tmp_path)
    recipe = str(write_recipe(tmp_path))
    plan = recipes.plan(Pack(recipe, resolution=8, shard_images=10))
    pack.pack(plan, tmp_path / "one")
    other = recipes.plan(Pack(recipe, resolution=8, shard_images=10, workers=workers))
    for part in range(3):
        pack.shards(
            other,
            tmp_path / "other",
            part=(part, 3),
        )
    pack.pack(other, tmp_path / "other")
    assert bytes_of(tmp_path / "other") == bytes_of(tmp_path / "one")

    class Interrupted(Exception):
        pass

    def stop(done: int, total: int, left: float) -> None:
        stops.append(done)
        if len(stops) in (3, 7):  # in the first pass, and in that which mends a wrong guess
            raise Interrupted

    stops: list[int] = []
    for _ in range(2):
        with pytest.raises(Interrupted):
            pack.pack(other, tmp_path / "third", stop)
    pack.pack(other, tmp_path / "third")
    assert bytes_of(tmp_path / "third") == bytes_of(tmp_path / "one")


def test_pictures_that_are_dark_flat_or_transparent_are_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(
        0,
        256,
        (4, 8, 8, 3),
        np.uint8,
    )
    unseen = Image.fromarray(noise[3])
    unseen.putalpha(0)
    images = {
        "a.png": Image.fromarray(noise[0]),
        "b.png": Image.fromarray(noise[1] // 16),
        "c.png": Image.new("RGB", (8, 8), "gray"),
        "d.png": unseen,
    }

    # counted in index.json, told on screen
    packed = pack_images(tmp_path, images, "rgb")
    assert np.array_equal(packed[3], noise[3])
    found = read(tmp_path / "shards").content.pictures
    assert {kind: found[kind].first for kind in ("dark", "flat", "unseen")} == {
        "dark": ["b.png"],
        "flat": ["c.png"],
        "unseen": ["d.png"],
    }
    said = capsys.readouterr().err
    for words in (
        "nearly black",
        "nearly of one colour",
        "transparent everywhere; their colours are taken",
    ):
        assert words in said


def test_copies_are_counted_and_a_set_of_one_picture_is_refused_to_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    same = {f"{number:02d}.png": Image.fromarray(noise[0]) for number in range(24)}
    pack_images(tmp_path / "same", same)
    index = read(tmp_path / "same" / "shards")
    assert index.content.alike == {"train": Alike(24, different=1)}
    assert (
        "23 of 24 pictures in train are copies of others there, or nearly: train has 1 different ones"
        in capsys.readouterr().err
    )
    with pytest.raises(
        UserError, match=r"all 24 pictures of the split 'train' in .* are one picture, or nearly"
    ):
        index.require_different("train")
    pack_images(
        tmp_path / "two",
        same | {"30.png": Image.fromarray(noise[1]), "31.png": Image.fromarray(noise[2])},
    )
    index = read(tmp_path / "two" / "shards")
    assert index.content.alike == {"train": Alike(26, different=3)}
    index.require_different("train")


def test_the_same_input_gives_the_same_index(tmp_path: Path) -> None:
    for place in ("here", "there/and/deeper"):
        top = tmp_path / place
        top.mkdir(parents=True)
        with zipfile.ZipFile(top / "a.zip", "w") as archive:
            for number in range(30):
                stream = io.BytesIO()
                Image.fromarray(
                    np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
                ).save(stream, "PNG")
                content = {3: b"no picture", 4: stream.getvalue()[:-30], 5: b"", 6: b"GIF89a"}.get(
                    number, stream.getvalue()
                )
                archive.writestr(f"{number % 2}/{number}.png", content)
        options = Pack(
            "folder",
            str(top / "a.zip"),
            resolution=8,
            max_bad=0.5,
            workers=1 if place == "here" else 2,
        )
        pack.pack(recipes.plan(options), top / "set")

    # the same bytes, and no place or address in them
    one = tmp_path / "here" / "set"
    other = tmp_path / "there/and/deeper" / "set"
    assert (one / "index.json").read_bytes() == (other / "index.json").read_bytes()
    reasons = [skipped.reason for skipped in read(one).content.skipped]
    assert len(reasons) == 4
    assert not any("0x" in reason or str(tmp_path) in reason for reason in reasons)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_a_missing_real_label_is_null_in_the_tar(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,Score\na.png,0.5\nb.png,\n")
    images = {name: Image.new("L", (8, 8)) for name in ("a.png", "b.png")}
    pack_images(tmp_path, images, labels="table.csv")
    rows = [row for _, row in shard_members(read(tmp_path / "shards"), "train")]
    assert [row["Score"] for row in rows] == [0.5, None]


def test_a_fault_of_the_machine_is_not_a_bad_image(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tired(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("facefactory.data.sources.load", tired)
    with pytest.raises(OSError, match="Input/output error"):
        pack.pack(recipes.plan(options_for(faces)), tmp_path / "set")


def test_labels_that_no_packed_table_can_hold_are_renamed_or_missing(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "faces").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(tmp_path / "faces" / f"{number}.png")
    table = tmp_path / "table.csv"
    options = Pack(
        recipe="folder",
        root=str(tmp_path / "faces"),
        labels=str(table),
        resolution=8,
    )

    # a name that packed tables have
    table.write_text(
        "name,file\n" + "".join(f"{number}.png,x{number % 2}\n" for number in range(4))
    )
    plan = recipes.plan(options)
    assert plan.table["file"].tolist() == [f"{number}.png" for number in range(4)]
    assert plan.table["file_"].tolist() == [0, 1, 0, 1]
    assert plan.schema["file_"].classes == (
        "x0",
        "x1",
    )
    assert (
        "label 'file' is called 'file_', because packed tables have a column of that name"
        in plan.noticed.notes
    )

    # a value that is no number
    table.write_text("name,score\n0.png,inf\n1.png,0.25\n2.png,0.5\n3.png,0.75\n")
    index = pack.pack(recipes.plan(options), tmp_path / "set")
    scores = pd.concat([index.table(split) for split in index.content.splits]).set_index("file")[
        "score"
    ]
    assert np.isnan(scores["0.png"])
    assert scores["3.png"] == 0.75


def test_packed_sets_and_runs_below_the_root_are_no_faces(faces: Faces, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    shutil.copytree(faces.root, root)
    before = len(recipes.plan(Pack(recipe="folder", root=str(root))).table)
    for folder, mark in (
        ("shards/packed/x-8-12345678", "index.json"),
        ("runs/r", "identity.json"),
    ):
        (root / folder / "samples").mkdir(parents=True)
        (root / folder / mark).write_text("{}")
        Image.new("L", (8, 8)).save(root / folder / "samples" / "0.png")
    assert len(recipes.plan(Pack(recipe="folder", root=str(root))).table) == before


def test_a_default_spelled_out_is_the_same_set(faces: Faces) -> None:
    plain = recipes.plan(options_for(faces)).folder_name
    assert recipes.plan(options_for(faces, where="", keep=[], crop="square")).folder_name == plain
    assert recipes.plan(options_for(faces, drop=["Beard"])).folder_name != plain
