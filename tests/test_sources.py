"""Sets laid out exactly like the public ones, tiny and made here: whatever they hold is packed, or named."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from facefactory import UserError, command, config
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes, survey
from facefactory.data.sets.index import Index, Named, Selection
from facefactory.facts import Label
from facefactory.run import Run, resolve
from facefactory.rundir import RunDir
from facefactory.stages import of

ATTRIBUTES = ["5_o_Clock_Shadow", "Male", "Smiling"]
SPLITS = {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9]}


def picture(number: int, size: tuple[int, int] = (178, 218), mode: str = "RGB") -> Image.Image:
    """Noise of its own with a brightness of its own, so that no two are alike."""
    noise = np.random.default_rng(number).integers(0, 60, (*size[::-1], 3)) + 12 * number
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode)


def content(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def packed(root: Path, recipe: str, folder: Path | None = None, **options: Any) -> Index:
    options = {"resolution": 8, "color": "rgb", "max_bad": 0.0} | options
    return pack.pack(
        recipes.plan(Pack(recipe=recipe, root=str(root), **options)),
        folder or root.parent / "shards",
    )


def rows(index: Index) -> pd.DataFrame:
    """Labels as words, by file, with the split."""
    parts = [index.table(split).assign(split=split) for split in index.content.splits]
    table = pd.concat(parts).set_index("file").sort_index()
    for name, entry in index.content.labels.items():
        if entry.kind != "real":
            words = [entry.classes[code] if code >= 0 else None for code in table[name]]
            table[name] = pd.Series(words, table.index, object)
    return table


# -- CelebA --------------------------------------------------------------------------------------------------------


def celeba(root: Path, images: str, tables: str, newline: str = "\n", bom: str = "") -> None:
    """Ten images as CelebA comes: `images` is folder, kaggle or zip, `tables` txt or csv."""
    root.mkdir(parents=True)
    names = [f"{number + 1:06d}.jpg" for number in range(10)]
    files = {name: content(picture(number)) for number, name in enumerate(names)}
    if images == "zip":
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            archive.writestr("img_align_celeba/", "")
            for name, file in files.items():
                archive.writestr(f"img_align_celeba/{name}", file)
            archive.writestr("__MACOSX/img_align_celeba/._000001.jpg", b"of a Mac")
    else:
        folder = root / "img_align_celeba" / ("img_align_celeba" if images == "kaggle" else "")
        folder.mkdir(parents=True)
        for name, file in files.items():
            (folder / name).write_bytes(file)

    # what the tables say
    values = [
        [name, *(1 if number % (k + 2) == 0 else -1 for k in range(3))]
        for number, name in enumerate(names)
    ]
    parts = [
        [names[number], code] for code, numbers in enumerate(SPLITS.values()) for number in numbers
    ]

    # as the authors or as Kaggle write it
    if tables == "txt":
        lines = [
            "10",
            " ".join(ATTRIBUTES) + " ",
            *("  ".join(f"{cell:>2}" for cell in row) for row in values),
        ]
        others = {
            "list_eval_partition.txt": parts,
            "identity_CelebA.txt": [[n, 100 + k // 2] for k, n in enumerate(names)],
        }
        texts = {
            name: [" ".join(map(str, row)) for row in table] for name, table in others.items()
        }
    else:
        lines = [",".join(map(str, row)) for row in [["image_id", *ATTRIBUTES], *values]]
        texts = {
            "list_eval_partition.csv": [
                "image_id,partition",
                *(",".join(map(str, row)) for row in parts),
            ]
        }
    for name, its in {f"list_attr_celeba.{tables}": lines, **texts}.items():
        (root / name).write_bytes((bom + newline.join(its) + newline).encode())


@pytest.mark.parametrize(
    ("images", "tables", "newline", "bom"),
    [
        ("zip", "txt", "\n", ""),
        ("folder", "txt", "\r\n", "\ufeff"),
        ("kaggle", "csv", "\r\n", ""),
        ("zip", "csv", "\n", "\ufeff"),
    ],
)
def test_celeba_is_packed_as_it_comes(
    tmp_path: Path, images: str, tables: str, newline: str, bom: str
) -> None:
    celeba(tmp_path / "set", images, tables, newline, bom)
    index = packed(tmp_path / "set", "celeba")
    table = rows(index)
    assert table.index.tolist() == [f"{number:06d}.jpg" for number in range(1, 11)]
    for number, (_, row) in enumerate(table.iterrows()):
        assert row["split"] == next(
            split for split, numbers in SPLITS.items() if number in numbers
        )
        assert [row[name] for name in ATTRIBUTES] == [
            str(int(number % (k + 2) == 0)) for k in range(3)
        ]
    people = index.content.labels.get("identity")
    assert (people is not None) == (tables == "txt")
    assert "partition" not in index.content.labels
    assert any(
        "10 images found; the whole set celeba has 202599" in note for note in index.content.notes
    )
    assert any("identity is in no table" in note for note in index.content.notes) == (
        tables == "csv"
    )
    means = np.concatenate(index.maps("train"))[..., 0].mean((1, 2))
    assert (np.diff(means) > 5).all()  # in the order of their names


def test_a_zip_is_packed_to_the_same_pixels_as_its_folder(tmp_path: Path) -> None:
    for images in ("zip", "folder"):
        celeba(tmp_path / images / "set", images, "txt")
    found = [packed(tmp_path / images / "set", "celeba") for images in ("zip", "folder")]
    assert found[0].images_digest == found[1].images_digest
    assert found[0].labels_digest == found[1].labels_digest


def test_a_table_of_ones_own_is_joined_to_the_sets_tables(tmp_path: Path) -> None:
    celeba(tmp_path / "set", "zip", "txt")
    (tmp_path / "mine.csv").write_text("file,Mood\n000001.jpg,calm\n000010.jpg,cross\n")
    table = rows(packed(tmp_path / "set", "celeba", labels=str(tmp_path / "mine.csv")))
    assert table["Mood"].dropna().to_dict() == {"000001.jpg": "calm", "000010.jpg": "cross"}
    assert "Male" in table
    (tmp_path / "mine.csv").write_text("file,identity\n000001.jpg,7\n")
    assert "7" not in set(
        rows(packed(tmp_path / "set", "celeba", labels=str(tmp_path / "mine.csv")))["identity"]
    )


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (str(side), ((178 - side) // 2, (218 - side) // 2, (178 + side) // 2, (218 + side) // 2))
        for side in (108, 128, 140, 148, 160)
    ]
    + [
        ("square", (0, 20, 178, 198)),
        ("none", (0, 0, 178, 218)),
        ("30,55,150,175", (30, 55, 150, 175)),
    ],
)
def test_the_crops_that_the_field_uses(
    tmp_path: Path, crop: str, box: tuple[int, int, int, int]
) -> None:
    celeba(tmp_path / "set", "folder", "txt")
    index = packed(
        tmp_path / "set",
        "celeba",
        crop=crop,
        limit=1,
        resolution=32,
    )
    (name,) = rows(index).index
    with Image.open(tmp_path / "set" / "img_align_celeba" / name) as image:
        wanted = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS, box=box))
    (split,) = index.content.splits
    assert np.array_equal(index.maps(split)[0][0], wanted)


@pytest.mark.parametrize("form", ["zip", "tar", "folder"])
def test_images_below_more_folders_than_the_table_knows_are_found(
    tmp_path: Path, form: str
) -> None:
    celeba(tmp_path / "plain", "folder", "txt")
    celeba(tmp_path / "deep", "folder", "txt")
    around = tmp_path / "deep" / "img_align_celeba"
    around.rename(tmp_path / "moved")
    (around / "img_align_celeba" / "x").mkdir(parents=True)
    (tmp_path / "moved").rename(around / "img_align_celeba" / "x" / "img_align_celeba")
    if form != "folder":
        archive = shutil.make_archive(
            str(tmp_path / "img_align_celeba"), form, tmp_path / "deep", "img_align_celeba"
        )
        shutil.rmtree(around)
        shutil.move(archive, tmp_path / "deep" / "img_align_celeba.zip")
    plain = rows(packed(tmp_path / "plain", "celeba"))
    deep = packed(tmp_path / "deep", "celeba", tmp_path / "other")
    found = rows(deep)
    assert len(found) == 10
    assert all(name.count("/") >= 1 for name in found.index)
    assert found.rename(index=lambda name: name.rpartition("/")[2]).to_dict() == plain.to_dict()
    told = [note for note in deep.content.notes if "by the ending of a name" in note]
    assert len(told) == 3
    assert told[0].startswith("list_attr_celeba.txt: 10 rows are known")


def test_tables_beside_an_archive_that_is_the_root_are_found(tmp_path: Path) -> None:
    celeba(tmp_path / "set", "zip", "txt")
    beside = rows(packed(tmp_path / "set" / "img_align_celeba.zip", "celeba", tmp_path / "shards"))
    around = rows(packed(tmp_path / "set", "celeba", tmp_path / "other"))
    assert beside["Male"].tolist() == around["Male"].tolist()
    assert beside["split"].tolist() == around["split"].tolist()


def test_a_page_in_the_place_of_a_table_is_named(tmp_path: Path) -> None:
    celeba(tmp_path / "set", "folder", "txt")
    page = "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
    (tmp_path / "set" / "list_eval_partition.txt").write_text(page)
    with pytest.raises(
        UserError,
        match=r"list_eval_partition\.txt is a web page \(Google Drive - Quota exceeded\)",
    ):
        packed(tmp_path / "set", "celeba")


def test_a_table_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    celeba(tmp_path / "set", "folder", "txt")
    table = tmp_path / "set" / "list_attr_celeba.txt"
    table.write_text(table.read_text().rpartition("000010")[0])
    with pytest.raises(
        UserError, match=r"list_attr_celeba\.txt is not readable.*count of 10 and holds 9 rows"
    ):
        packed(tmp_path / "set", "celeba")


def test_rows_without_images_and_images_without_rows_are_counted(tmp_path: Path) -> None:
    celeba(tmp_path / "set", "folder", "csv")
    (tmp_path / "set" / "img_align_celeba" / "000003.jpg").unlink()
    table = tmp_path / "set" / "list_attr_celeba.csv"
    table.write_text(
        "".join(
            line for line in table.read_text().splitlines(True) if not line.startswith("000007")
        )
    )
    index = packed(tmp_path / "set", "celeba")
    assert index.content.rows_without_image == Named(1, ["000003.jpg"])
    assert rows(index).loc["000007.jpg", "Male"] is None
    table.with_name("list_eval_partition.csv").write_text(
        "image_id,partition\n000001.jpg,0\n000002.jpg,2\n"
    )
    index = packed(tmp_path / "set", "celeba", tmp_path / "fewer")
    assert rows(index).index.tolist() == ["000001.jpg", "000002.jpg"]
    assert index.content.selection == Selection(found=9, of_no_split=7)


# -- FairFace ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_fairface_is_packed_as_it_comes(tmp_path: Path, form: str) -> None:
    ages = ["20-29", "more than 70", "0-2", "3-9"]
    races = ["Black", "East Asian", "Latino_Hispanic", "White"]
    root = tmp_path / "set"
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        lines = ["file,age,gender,race,service_test"]
        for number in range(4):
            picture(number + 5 * (part == "val"), (40, 40)).save(root / part / f"{number + 1}.jpg")
            words = [
                f"{part}/{number + 1}.jpg",
                ages[number],
                ["Male", "Female"][number % 2],
                races[number],
                str(number < 2),
            ]
            lines.append(",".join(words))
        (root / f"fairface_label_{part}.csv").write_text("\r\n".join(lines) + "\r\n")

    # or as it is downloaded
    if form == "zip":
        with zipfile.ZipFile(root / "fairface-img-margin025-trainval.zip", "w") as archive:
            for path in sorted(root.glob("*/*.jpg")):
                archive.write(path, path.relative_to(root).as_posix())
        shutil.rmtree(root / "train"), shutil.rmtree(root / "val")

    # labels are the table's
    index = packed(root, "fairface")
    table = rows(index)
    assert table.loc["val/2.jpg"].to_dict() == {
        "age": "more than 70",
        "gender": "Female",
        "race": "East Asian",
        "service_test": "1",
        "split": "test",
    }
    schema = index.content.labels
    assert {name: entry.kind for name, entry in schema.items()} == {
        **{
            "age": "ordinal",
            "gender": "categorical",
            "race": "categorical",
            "service_test": "binary",
        }
    }
    assert schema["age"].classes[:3] == ("0-2", "3-9", "10-19")
    assert len(schema["age"].classes) == 9

    # and can be asked for
    young = packed(root, "fairface", tmp_path / "young", where='age <= "20-29" and gender == Male')
    assert rows(young).index.tolist() == ["train/1.jpg", "train/3.jpg", "val/1.jpg", "val/3.jpg"]


# -- FER -----------------------------------------------------------------------------------------------------------

EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


@pytest.mark.parametrize(
    ("name", "header"),
    [("fer2013.csv", "emotion,pixels,Usage"), ("icml_face_data.csv", "emotion, Usage, pixels")],
)
def test_fer_is_packed_from_its_rows_of_numbers(tmp_path: Path, name: str, header: str) -> None:
    root = tmp_path / "set"
    faces = []
    lines = [header]
    root.mkdir()
    for number in range(9):
        faces.append(np.asarray(picture(number, (48, 48), "L")))
        cells = {"emotion": number % 7, "pixels": " ".join(map(str, faces[-1].ravel()))}
        cells["Usage"] = ["Training", "PublicTest", "PrivateTest"][number % 3]
        lines.append(",".join(str(cells[key.strip()]) for key in header.split(",")))
    (root / name).write_text("\n".join(lines) + "\n")
    index = packed(root, "fer", color="gray", resolution=48)
    table = rows(index)
    assert table["emotion"].tolist() == [EMOTIONS[number % 7] for number in range(9)]
    assert table["split"].tolist() == ["train", "val", "test"] * 3
    assert np.array_equal(index.maps("val")[0][..., 0], faces[1::3])
    lines[4] = lines[4].replace(" ", "  1 ", 1)
    (root / name).write_text("\n".join(lines) + "\n")
    again = packed(root, "fer", tmp_path / "again", color="gray", max_bad=0.2)
    (skipped,) = again.content.skipped
    assert skipped.file == "000003"
    assert "a square number of values" in skipped.reason


def test_fer_is_packed_from_a_folder_an_emotion(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(14):
        path = (
            root / ["train", "test"][number // 7] / EMOTIONS[number % 7] / f"Training_{number}.jpg"
        )
        path.parent.mkdir(parents=True)
        picture(number, (48, 48), "L").save(path)
    index = packed(root, "fer", color="gray")
    table = rows(index)
    assert sorted(table["emotion"]) == sorted(EMOTIONS * 2)
    assert set(index.content.splits) == {
        "train",
        "test",
    }
    assert all(
        name.split("/")[:2] == [row["split"], row["emotion"]] for name, row in table.iterrows()
    )
    surprised = packed(
        root, "fer", tmp_path / "surprised", color="gray", where="emotion == surprise"
    )
    assert surprised.content.labels["emotion"].classes == ("surprise",)
    assert len(rows(surprised)) == 2
    with pytest.raises(UserError, match=r"none of fer2013\.csv, .* train\. To get the set: https"):
        packed(tmp_path, "fer")


def test_ffhq_is_split_by_number_and_has_no_labels(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "thumbnails128x128.tar", "w") as tar:
        for number in (0, 1000, 59999, 60000, 69999):
            file = content(picture(number % 13, (128, 128)), "PNG")
            info = tarfile.TarInfo(f"./{number // 1000 * 1000:05d}/{number:05d}.png")
            info.size = len(file)
            tar.addfile(info, io.BytesIO(file))
    for root in (tmp_path, tmp_path / "thumbnails128x128.tar"):
        index = packed(root, "ffhq", tmp_path / "shards")
        assert index.content.labels == {}
        assert rows(index)["split"].tolist() == ["train"] * 3 + ["test"] * 2


def test_orl_has_its_400_faces_and_nothing_else() -> None:
    plan = recipes.plan(Pack())
    assert len(plan.table) == 400
    assert plan.noticed.notes == []
    assert plan.noticed.rows_without_image.count == 0


# -- your own ------------------------------------------------------------------------------------------------------


def own(folder: Path, **recipe: Any) -> str:
    fields = {"name": "mine", "source": "folder", "splits": {"train": 1.0}, **recipe}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(json.dumps(fields))
    return str(folder / "mine.yaml")


def test_every_kind_of_picture_is_handled_or_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    gray = np.tile(np.arange(16, dtype=np.uint8) * 16, (16, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.fromarray(np.stack([gray] * 3 + [np.full_like(gray, 255)], 2))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)

    # what Pillow reads, and what nobody does
    good = {
        "gray.jpg": content(Image.fromarray(gray), quality=100),
        "cmyk.jpg": content(Image.fromarray(gray).convert("RGB").convert("CMYK"), quality=100),
        "turned.png": content(Image.fromarray(gray).rotate(90), "PNG", exif=exif),
        "sixteen bits.png": content(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"),
        "alpha.png": content(clear, "PNG"),
        "palette.png": content(palette, "PNG", transparency=1),
        "Zoë & Çağ 1.webp": content(Image.fromarray(gray), "WEBP", lossless=True),
    }
    whole = content(picture(3, (64, 64)), "PNG")
    bad = {
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": content(picture(4))[:4000],
        "empty.png": b"",
        "text.jpg": b"<html>not found</html>",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "float.tif": content(Image.new("F", (16, 16), 0.5), "TIFF"),
    }
    for name, file in (good | bad).items():
        (root / name).write_bytes(file)

    # the bad are named, the good are the same picture
    index = packed(
        root,
        own(tmp_path),
        resolution=16,
        max_bad=0.5,
    )
    reasons = {item.file: item.reason for item in index.content.skipped}
    assert set(reasons) == set(bad)
    assert all(reasons.values())
    images = dict(
        zip(index.table("train")["file"], index.maps("train")[0].astype(int), strict=True)
    )
    assert set(images) == set(good)
    for name in ("gray.jpg", "cmyk.jpg", "turned.png", "sixteen bits.png", "Zoë & Çağ 1.webp"):
        assert np.abs(images[name] - gray[..., None]).max() <= 3, name
    assert images["alpha.png"][0, 0].tolist() == [255] * 3
    assert images["alpha.png"][5, 5].tolist() == [80] * 3
    assert images["palette.png"][0, 0].tolist() == [255] * 3
    assert images["palette.png"][5, 5].tolist() == [255, 0, 0]
    assert index.content.image_sizes == {"16x16": len(good)}


def test_a_bomb_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    monkeypatch.setattr("facefactory.data.sources.LARGEST", 100_000)
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for side in (16, 24, 40):
            archive.writestr(f"{side}.png", content(Image.new("L", (side, side)), "PNG"))
        archive.writestr("zeros.png", bytes(10**6))
    index = packed(
        tmp_path / "set" / "faces.zip",
        own(tmp_path),
        max_bad=1.0,
    )
    reasons = {item.file: item.reason for item in index.content.skipped}
    assert index.table("train")["file"].tolist() == ["16.png"]
    assert "DecompressionBombWarning" in reasons["24.png"]
    assert "DecompressionBombError" in reasons["40.png"]
    assert "1000000 bytes unpacked; at most 100000" in reasons["zeros.png"]


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"]
)
@pytest.mark.parametrize("where", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, where: str) -> None:
    root = tmp_path / f"set.{where}"
    file = content(picture(0), "PNG")
    if where == "zip":
        with zipfile.ZipFile(root, "w") as archive:
            archive.writestr("a.png", file)
            archive.writestr(name, file)
    else:
        with tarfile.open(root, "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(file)
            tar.addfile(info, io.BytesIO(file))
    with pytest.raises(UserError, match=r"only places below pack\.root are read"):
        packed(root, own(tmp_path))


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"]
)
def test_a_row_that_leads_out_reads_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    picture(0).save(tmp_path / "set" / "a.png")
    picture(1).save(tmp_path / "out.png")
    (tmp_path / "table.csv").write_text(f"file,A\na.png,1\n{name},0\n")
    index = packed(tmp_path / "set", own(tmp_path, labels="table.csv"))
    assert rows(index)["A"].to_dict() == {"a.png": "1"}
    assert index.content.rows_without_image == Named(1, [name.replace("\\", "/")])


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    for folder in ("set/inside", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    picture(0).save(tmp_path / "set" / "inside" / "a.png")
    picture(1).save(tmp_path / "outside" / "b.png")
    os.symlink("inside/a.png", tmp_path / "set" / "c.png")
    assert rows(packed(tmp_path / "set", own(tmp_path))).index.tolist() == [
        "c.png",
        "inside/a.png",
    ]
    for target in ("../outside/b.png", "../outside"):
        os.symlink(target, tmp_path / "set" / "link.png")
        with pytest.raises(UserError, match=r"link\.png is a link to .*outside.*copy it there"):
            packed(tmp_path / "set", own(tmp_path))
        (tmp_path / "set" / "link.png").unlink()


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "zip/faces"])
def test_folder_zip_and_tar_give_the_same_set(tmp_path: Path, form: str) -> None:
    root = tmp_path / "set"
    for number in range(4):
        path = root / ("faces" if "/" in form else "") / f"person {number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    if form != "folder":
        root = (
            Path(shutil.make_archive(str(root), form.partition("/")[0], root))
            / form.partition("/")[2]
        )
    table = rows(packed(root, own(tmp_path), tmp_path / "shards"))
    assert table["folder"].to_dict() == {
        f"person {n // 2}/{n}.png": f"person {n // 2}" for n in range(4)
    }


def test_a_folder_around_all_is_no_label_and_pictures_that_are_not_read_are_named(
    tmp_path: Path,
) -> None:
    for number in range(4):
        path = tmp_path / "set" / "faces" / f"person {number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    picture(9).save(tmp_path / "set" / "faces" / "moving.gif")
    found = packed(tmp_path / "set", own(tmp_path))
    assert rows(found)["folder"].tolist() == ["person 0", "person 0", "person 1", "person 1"]
    unread = "left out: 1 pictures in a format that is not read (convert them to PNG), e.g. faces/moving.gif"
    assert found.content.notes[-1] == unread


def test_labels_that_nobody_has_are_left_out_and_what_fits_nothing_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "set").mkdir()
    for number in range(8):
        picture(number).save(tmp_path / "set" / f"{number}.png")
    table = tmp_path / "table.csv"
    table.write_text(
        "file,Glasses,Age\n"
        + "".join(f"{n}.png,{n % 2},{'old' if n % 2 else ''}\n" for n in range(8))
    )

    # a label that no chosen image has
    found = packed(
        tmp_path / "set",
        own(tmp_path),
        labels=str(table),
        where="Glasses == 0",
    )
    assert found.content.labels_left_out == {"Age": "no image has a value"}
    assert list(found.content.labels) == ["Glasses"]
    assert survey.survey(found)["labels"].keys() == {"Glasses"}

    # what fits nothing
    with pytest.raises(
        UserError, match=r"pattern .* of mine fits no file name, e\.g\. not '0\.png'"
    ):
        packed(tmp_path / "set", own(tmp_path, pattern="^img(?P<Age>\\d+)"))
    table.write_text("file,Who\n" + "".join(f"{n}.png,\n" for n in range(8)))
    with pytest.raises(UserError, match="group 'Who' is unknown for every image"):
        packed(
            tmp_path / "set",
            own(tmp_path, group="Who"),
            labels=str(table),
        )
    table.write_text(
        "file,Score\n" + "".join(f"{n}.png,{'high' if n == 5 else n / 8}\n" for n in range(8))
    )
    with pytest.raises(
        UserError, match=r"label 'Score' holds 'high' \(of 5\.png\); kind real takes numbers"
    ):
        packed(
            tmp_path / "set",
            own(tmp_path, kinds={"Score": "real"}),
            labels=str(table),
        )
    table.write_text("file\n" + "".join(f"happy people/{n}.png\n" for n in range(8)))
    with pytest.raises(UserError, match="no label beside the file names"):
        packed(
            tmp_path / "set",
            own(tmp_path),
            labels=str(table),
        )


def write(root: Path, names: list[str], form: str = "PNG") -> None:
    """A picture of its own under each name."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content(picture(number, (16, 16)), form))


def adds_up(index: Index) -> dict[str, int]:
    """Reason -> how many were left out; found = packed + skipped + left out."""
    account = index.content.account
    counts = {reason: entry.count for reason, entry in account.left_out.items()}
    assert account.found == account.packed + account.skipped + sum(counts.values())
    assert account.packed == len(rows(index))
    assert account.skipped == len(index.content.skipped)
    assert all(0 < len(entry.first) <= entry.count for entry in account.left_out.values())
    return counts


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_the_sets_own_splits_are_kept_and_the_folders_below_are_labels(
    tmp_path: Path, form: str
) -> None:
    root = tmp_path / "set"
    names = [
        f"top/{part}/{mood}/{n}.png"
        for part in ("Train", "validation")
        for mood in ("happy", "sad")
        for n in range(3)
    ]
    write(root, names)
    if form != "folder":
        root = Path(shutil.make_archive(str(root), form, root))

    # kept, and told
    index = packed(root, "folder", tmp_path / "shards")
    table = rows(index)
    assert {name: (row["split"], row["folder"]) for name, row in table.iterrows()} == {
        name: ("val" if "validation" in name else "train", name.split("/")[2]) for name in names
    }
    assert [note for note in index.content.notes if "own splits" in note] == [
        "Train, validation are the set's own splits (train 6, val 6); the folders below or above them are the label; "
        "split: null in a recipe of yours deals them anew"
    ]
    assert adds_up(index) == {}

    # unless a recipe says no
    dealt = packed(
        root, own(tmp_path, split=None, splits={"train": 0.5, "test": 0.5}), tmp_path / "dealt"
    )
    assert set(dealt.content.splits) == {"train", "test"}


def test_own_splits_hold_with_a_table_and_what_is_in_none_is_left_out(tmp_path: Path) -> None:
    names = [f"{part}/{n}.png" for part in ("train", "test") for n in range(3)]
    write(tmp_path / "set", [*names, "extra/1.png", "cover.png"])
    (tmp_path / "t.csv").write_text(
        "file,Smile\n" + "".join(f"{name},{k % 2}\n" for k, name in enumerate(names))
    )
    index = packed(
        tmp_path / "set",
        own(tmp_path, splits={"train": 0.5, "val": 0.5}),
        labels=str(tmp_path / "t.csv"),
    )
    assert rows(index)["split"].to_dict() == {name: name.split("/")[0] for name in names}
    assert rows(index)["Smile"].to_dict() == {name: str(k % 2) for k, name in enumerate(names)}
    assert adds_up(index) == {"images in no split of the set": 2}
    assert "2 images are in no split and left out, e.g. cover.png" in index.content.notes


def test_a_set_without_a_test_part_says_how_to_score_on_its_val_part(tmp_path: Path) -> None:
    write(
        tmp_path / "set",
        [
            f"{part}/{mood}/{n}.png"
            for part in ("train", "val")
            for mood in ("happy", "sad")
            for n in range(9)
        ],
    )
    given = ["pack.recipe=folder", f"pack.root={tmp_path / 'set'}", "pack.resolution=32"]
    small = ["model.name=gan/dcgan", "model.width=8", "training.batch_size=4"]

    def check(*more: str) -> None:
        run = resolve(config.load(Run, [*given, *small, *more], []))
        command.check(run, RunDir(tmp_path / "run"), [of("pack"), of("train")])

    with pytest.raises(
        UserError,
        match=r"held_out='test' is no split of this set: give evaluation\.held_out=val; there are train, val",
    ):
        check()
    with pytest.raises(
        UserError,
        match=r"reference='all' is no split of this set: give evaluation\.reference=val; there are train, val",
    ):
        check("evaluation.reference=all")
    check("evaluation.held_out=val")


def test_selection_is_part_of_the_account(tmp_path: Path) -> None:
    write(
        tmp_path / "set",
        [f"{mood}/{n}.png" for mood in ("happy", "sad", "cross") for n in range(8)],
    )
    (tmp_path / "set" / "sad" / "0.png").write_bytes(b"no picture")
    recipe = own(tmp_path, splits={"train": 1.0})
    chosen = {"where": "folder in (happy, sad)", "limit": 13, "balance": "folder", "max_bad": 0.5}
    counts = adds_up(packed(tmp_path / "set", recipe, **chosen))
    kept = counts.pop("images beyond their split's rarest class (balance)")
    assert counts == {"images that where does not keep": 8, "images beyond the limit": 3}
    assert 1 <= kept <= 3


def test_the_two_copies_of_fer_with_folders_are_read(tmp_path: Path) -> None:
    names = [
        f"{part}/{mood}/{n}.jpg"
        for part in ("train", "validation")
        for mood in EMOTIONS
        for n in range(2)
    ]
    write(tmp_path / "fer" / "images", names, "JPEG")
    for root in (tmp_path / "fer", tmp_path / "fer" / "images"):
        index = packed(root, "fer", tmp_path / f"shards {root.name}", color="gray")
        table = rows(index)
        assert {name: (row["split"], row["emotion"]) for name, row in table.iterrows()} == {
            name: ("val" if name.startswith("validation") else "train", name.split("/")[1])
            for name in names
        }
        assert "14 val found; the whole set fer has 7066" in index.content.notes


def test_people_are_grouped_by_their_folders_unless_a_recipe_says_no(tmp_path: Path) -> None:
    people = [f"Person_{number:02d}" for number in range(20)]
    write(tmp_path / "set", [f"{who}/{n}.png" for who in people for n in range(3)])
    splits = {"train": 0.5, "test": 0.5}
    index = packed(tmp_path / "set", own(tmp_path, splits=splits))
    table = rows(index)
    assert (table.groupby(table.index.str.split("/").str[0])["split"].nunique() == 1).all()
    assert table["split"].nunique() == 2
    assert index.content.group == "folder"
    assert index.content.labels["folder"] == Label("identity", tuple(people))
    assert (
        "20 folders, Person_00 …, of 3 images (median), are taken for people"
        in index.content.notes[0]
    )

    # with labels of a table too
    (tmp_path / "t.csv").write_text(
        "file,Smile\n" + "".join(f"{who}/{n}.png,{n % 2}\n" for who in people for n in range(3))
    )
    index = packed(
        tmp_path / "set",
        own(tmp_path, splits=splits),
        tmp_path / "table",
        labels=str(tmp_path / "t.csv"),
    )
    assert index.content.group == "folder"
    assert set(index.content.labels) == {
        "folder",
        "Smile",
    }

    # undone by the recipe
    index = packed(tmp_path / "set", own(tmp_path, splits=splits, group=None), tmp_path / "undone")
    table = rows(index)
    assert (table.groupby(table.index.str.split("/").str[0])["split"].nunique() == 2).any()
    assert index.content.group is None
    assert index.content.labels["folder"].kind == "categorical"


def test_a_thousand_people_and_more_are_people_too(tmp_path: Path) -> None:
    write(tmp_path / "set", ["0.png"])
    for who in range(1001):
        (tmp_path / "set" / f"{who:05d}").mkdir()
        for number in range(2):
            os.link(tmp_path / "set" / "0.png", tmp_path / "set" / f"{who:05d}" / f"{number}.png")
    (tmp_path / "set" / "0.png").unlink()
    plan = recipes.plan(Pack(recipe="folder", root=str(tmp_path / "set")))
    sides = pd.Series(plan.splits).groupby(plan.table["file"].str[:5]).nunique()
    assert len(sides) == 1001
    assert sides.max() == 1
    assert plan.schema["folder"].kind == "identity"


def test_people_in_two_of_the_sets_own_splits_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path / "set",
        [
            f"{part}/s{who}/{n}.png"
            for part in ("train", "test")
            for who in range(20)
            for n in range(2)
        ],
    )
    index = packed(tmp_path / "set", "folder")
    assert index.content.people_in_several_splits == 20
    assert "20 people in several splits" in capsys.readouterr().err
    assert (rows(index)["split"] == rows(index).index.str.split("/").str[0]).all()


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_what_is_no_face_is_counted_by_reason(tmp_path: Path, form: str) -> None:
    root = tmp_path / "set"
    write(root, [f"{mood}/{n}.png" for mood in ("happy", "sad") for n in range(2)])
    thumbnails = [
        "happy/@eaDir/0.png/SYNOPHOTO_THUMB_M.png",
        "happy/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
        "__MACOSX/happy/._0.png",
    ]
    deleted = [
        "#recycle/old.png",
        ".Trash/b.png",
        "lost+found/c.png",
        "sad/.ipynb_checkpoints/0-checkpoint.png",
        "sad/._1.png",
    ]
    write(root, [*thumbnails, *deleted, ".cache/c.png", "happy/.hidden.png"])

    # pictures without an ending, and what is none
    shutil.copy(root / "happy" / "0.png", root / "without ending")
    shutil.copy(root / "happy" / "1.png", root / "sad" / "face.png?size=large")
    for name, file in {
        **{
            "Thumbs.db": b"x",
            "notes.txt": b"x",
            "happy/0.json": b"{}",
            "happy/1.json": b"{}",
            "README": b"BMW is no picture",
        },
        **{
            "sad/moving": b"GIF89a...",
            "sad/phone": b"\0\0\0\x18ftypheic",
            "sad/x.nef": b"II*\0",
            "empty": b"",
        },
    }.items():
        (root / name).write_bytes(file)
    if form != "folder":
        root = Path(shutil.make_archive(str(root), form, root))

    # the faces, and all others by reason
    index = packed(root, "folder", tmp_path / "shards")
    assert set(rows(index).index) == {
        *(
            "happy/0.png",
            "happy/1.png",
            "sad/0.png",
            "sad/1.png",
            "without ending",
            "sad/face.png?size=large",
        ),
    }
    assert adds_up(index) == {
        "files or folders of a file server, system or tool": 8,
        "hidden files or folders": 2,
        "files that are no pictures by their first bytes": 2,
        "pictures in a format that is not read (convert them to PNG)": 3,
        ".txt files": 1,
        ".json files": 2,
    }
    (told,) = [note for note in index.content.notes if note.startswith("left out: ")]
    assert "2 .json files, e.g. happy/" in told
    assert "8 files or folders of a file server, system or tool, e.g. " in told


def test_a_set_without_pictures_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "set", ["@eaDir/a.png"])
    (tmp_path / "set" / "faces.zip").write_bytes(b"PK")
    with pytest.raises(
        UserError,
        match=r"no image below .*left out: 1 files or folders of a file server.*; 1 \.zip files",
    ):
        recipes.plan(Pack(recipe="folder", root=str(tmp_path / "set")))


def test_links_in_a_folder_are_followed_once_and_loops_are_told(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, ["happy/0.png", "sad/1.png"])
    links = {
        "loop.png": "loop.png",
        "gone.png": "none.png",
        "sad/up": "..",
        "sad/joy": "../happy",
        "sad/2.png": "../happy/0.png",
    }
    for name, target in links.items():
        os.symlink(target, root / name)
    os.mkfifo(root / "pipe.png")
    index = packed(root, "folder", tmp_path / "shards")
    assert rows(index).index.tolist() == ["happy/0.png", "sad/1.png", "sad/2.png"]
    assert {reason: entry.first for reason, entry in index.content.account.left_out.items()} == {
        "links that lead in a circle": ["loop.png"],
        "links that lead nowhere": ["gone.png"],
        "devices, pipes or sockets": ["pipe.png"],
        "links that lead back to a folder they lie in": ["sad/up"],
        "links to folders, which are read at their own place": ["sad/joy"],
    }
    adds_up(index)


def test_links_to_another_file_system_are_read_by_ones_own_decision(tmp_path: Path) -> None:
    write(tmp_path / "store", ["joy/0.png", "joy/1.png", "grief/2.png", "grief/3.png", "4.png"])
    root = tmp_path / "set"
    (root / "sad").mkdir(parents=True)
    os.symlink(tmp_path / "store" / "joy", root / "happy")
    os.symlink(tmp_path / "store" / "joy", root / "merry")  # the same once more
    os.symlink(tmp_path / "store" / "grief" / "2.png", root / "sad" / "a.png")
    os.symlink(tmp_path / "store" / "4.png", root / "sad" / "b.png")
    os.symlink(root, tmp_path / "store" / "joy" / "set")  # leads back

    # refused unless it is wished
    with pytest.raises(
        UserError,
        match=r"happy is a link to .*store/joy, out of .*; copy it there, .* pack\.links=follow",
    ):
        packed(root, "folder")
    index = packed(root, "folder", links="follow")
    assert rows(index)["folder"].to_dict() == {
        "happy/0.png": "happy",
        "happy/1.png": "happy",
        "sad/a.png": "sad",
        "sad/b.png": "sad",
    }
    assert adds_up(index) == {
        "links to folders, which are read at their own place": 1,
        "links that lead back to a folder they lie in": 1,
    }

    # where no link leads out the wish changes nothing
    followed = Pack(
        recipe="folder",
        root=str(tmp_path / "store"),
        links="follow",
    )
    refused = Pack(recipe="folder", root=str(tmp_path / "store"))
    (tmp_path / "store" / "joy" / "set").unlink()
    assert recipes.plan(followed).digest == recipes.plan(refused).digest


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set", ["a/0.png", "b/1.png"])

    def locked(place: str) -> Any:
        if str(place).endswith("/b"):
            raise PermissionError(13, "Permission denied", place)
        return os_scandir(place)

    os_scandir = os.scandir
    monkeypatch.setattr("os.scandir", locked)
    with pytest.raises(UserError, match=r"the folder .*/set/b may not be read"):
        recipes.plan(Pack(recipe="folder", root=str(tmp_path / "set")))


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_name_that_comes_again_counts_once_and_is_told(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"set.{form}"
    files = [content(picture(number, (16, 16)), "PNG") for number in range(3)]
    names = ["a.png", "b.png", "a.png"]
    if form == "zip":
        with (
            zipfile.ZipFile(path, "w") as archive,
            pytest.warns(UserWarning, match="Duplicate name"),
        ):
            for name, file in zip(names, files, strict=True):
                archive.writestr(name, file)
    else:
        with tarfile.open(path, "w") as tar:
            for name, file in zip(names, files, strict=True):
                info = tarfile.TarInfo(name)
                info.size = len(file)
                tar.addfile(info, io.BytesIO(file))
    index = packed(path, own(tmp_path), resolution=16)
    assert rows(index).index.tolist() == ["a.png", "b.png"]
    assert np.array_equal(index.maps("train")[0][0], np.asarray(picture(2, (16, 16))))
    assert adds_up(index) == {
        "members whose name comes again (the last one counts, as in unpacking)": 1
    }


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_labels_come_from_a_table_or_from_file_names(tmp_path: Path, ending: str) -> None:
    (tmp_path / "set").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / "set" / f"{20 + number}_{number % 2}_x.jpg")
    recipe = own(
        tmp_path,
        pattern=r"^(?P<Age>\d+)_(?P<Sex>\d)_",
        kinds={"Age": "ordinal"},
    )
    assert rows(packed(tmp_path / "set", recipe))["Age"].tolist() == ["20", "21", "22", "23"]
    table = pd.DataFrame({"file": ["23_1_x.jpg", "20_0_x.jpg"], "Hair": ["None", "a, long"]})
    path = tmp_path / f"table.{ending}"
    table.to_parquet(path) if ending == "parquet" else table.to_csv(
        path, index=False, sep="\t" if ending == "tsv" else ","
    )
    found = rows(packed(tmp_path / "set", recipe, tmp_path / "both", labels=str(path)))
    assert found["Hair"].tolist() == ["a, long", None, None, "None"]
    assert found["Sex"].tolist() == [
        "0",
        "1",
        "0",
        "1",
    ]
    with pytest.raises(UserError, match=r"pattern 'x' of mine"):
        packed(tmp_path / "set", own(tmp_path, pattern="x"))


def test_labels_from_file_names_are_numbers_and_names_that_do_not_fit_are_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "set").mkdir()
    for number, age in enumerate([13, 1, 4, 101, 15]):
        picture(number).save(tmp_path / "set" / f"{age}_{number % 2}.png")
    picture(9).save(tmp_path / "set" / "61__1.png")
    pattern = r"^(?P<age>\d+)_(?P<sex>\d)\."

    # as numbers and as classes
    for kind, ages in {
        "real": [13, 1, 4, 101, 15],
        "ordinal": ["13", "1", "4", "101", "15"],
    }.items():
        recipe = own(
            tmp_path,
            pattern=pattern,
            kinds={"age": kind},
        )
        index = packed(tmp_path / "set", recipe, tmp_path / kind)
        table = rows(index)
        by_number = {
            f"{age}_{number % 2}.png": ages[number]
            for number, age in enumerate([13, 1, 4, 101, 15])
        }
        assert table["age"].dropna().to_dict() == by_number
        assert table["sex"].dropna().to_dict() == {name: name[-5] for name in by_number}
        assert index.content.labels["sex"] == Label("binary", ("0", "1"))
        assert any(
            "does not fit 1 of 6 names, e.g. 61__1.png" in note for note in index.content.notes
        )
    assert index.content.labels["age"] == Label("ordinal", ("1", "4", "13", "15", "101"))

    # names go before tables
    (tmp_path / "table.csv").write_text("file,age,folder\n1_1.png,7,a\n4_0.png,8,b\n")
    found = packed(
        tmp_path / "set",
        recipe,
        tmp_path / "both",
        labels=str(tmp_path / "table.csv"),
    )
    assert rows(found).loc["1_1.png", ["age", "folder"]].tolist() == ["1", "a"]
    assert (
        "label 'age' of the table is left out: the pattern reads it from file names"
        in found.content.notes
    )


# -- WebDataset ----------------------------------------------------------------------------------------------------


def wds(folder: Path) -> str:
    return own(
        folder,
        source="webdataset",
        drop=[],
    )


def test_shards_of_webdatasets_own_writer_are_read(tmp_path: Path) -> None:
    import webdataset

    (tmp_path / "tars").mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / "tars" / f"faces-{shard}.tar")) as writer:
            for number in range(3):
                face = np.asarray(picture(3 * shard + number, (16, 16)))
                labels = {
                    "Smile": number % 2,
                    "Hair": ["fair", "dark", "gray"][number],
                    "box": [1, 2],
                }
                key = {"__key__": f"sub/{number:04d}"}
                writer.write(
                    {
                        **key,
                        "png" if shard else "jpg": face,
                        "json": labels,
                        "cls": number,
                        "pickle": {"never": "read"},
                    }
                )
    for root in (tmp_path / "tars", tmp_path / "tars" / "faces-{0..1}.tar"):
        index = packed(
            root,
            wds(tmp_path),
            tmp_path / "shards",
            resolution=16,
        )
        table = rows(index)
        assert table.index.tolist() == [
            f"faces-{s}.tar/sub/{n:04d}.{'png' if s else 'jpg'}" for s in (0, 1) for n in range(3)
        ]
        assert table["Hair"].tolist() == ["fair", "dark", "gray"] * 2
        assert table["cls"].tolist() == ["0", "1", "2"] * 2
        assert set(index.content.labels) == {"Smile", "Hair", "cls"}
        assert np.array_equal(index.maps("train")[0][4], np.asarray(picture(4, (16, 16))))


def test_img2datasets_layout_is_read(tmp_path: Path) -> None:
    rows_of = []
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number in range(3):
            key = f"00000{number:04d}"
            fact = {
                "url": f"https://x/{number}",
                "caption": "a face",
                "key": key,
                "status": "success",
                "width": 256 + number,
            }
            rows_of.append(fact)
            files = {
                "jpg": content(picture(number, (32, 32))),
                "txt": b"a face",
                "json": json.dumps({**fact, "exif": "{}"}).encode(),
            }
            for ending, file in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(file)
                tar.addfile(info, io.BytesIO(file))

    # what lies beside its tars is no label
    pd.DataFrame(rows_of).to_parquet(tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text("{}")
    index = packed(tmp_path, "webdataset", tmp_path / "shards")
    assert rows(index).index.tolist() == [f"00000.tar/00000000{number}.jpg" for number in range(3)]
    assert index.content.labels == {}


def test_commands_addresses_and_cut_tars_are_refused(tmp_path: Path) -> None:
    for root in (f"pipe:touch {tmp_path}/ran", "https://example.org/{0..1}.tar", str(tmp_path)):
        with pytest.raises(UserError, match=r"no tar .*takes a folder or local paths"):
            recipes.plan(Pack(recipe=wds(tmp_path), root=root))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "a.tar").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match=r"a\.tar is no whole zip or uncompressed tar"):
        recipes.plan(Pack(recipe=wds(tmp_path), root=str(tmp_path)))


def tar_of(path: Path, files: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, file in files:
            info = tarfile.TarInfo(name)
            info.size = len(file)
            tar.addfile(info, io.BytesIO(file))


def jpeg(number: int) -> bytes:
    return content(picture(number, (16, 16)))


@pytest.mark.parametrize("order", ["side by side", "pictures first", "labels first"])
@pytest.mark.parametrize(
    "key", ["{:04d}", "v1.{:04d}", "sub.dir/{:04d}", "{:04d}.v2", "{:04d}.a.b"]
)
def test_a_sample_keeps_its_labels_wherever_they_stand_and_whatever_it_is_called(
    tmp_path: Path, order: str, key: str
) -> None:
    files = []
    for number in range(4):
        name = key.format(number) if number % 2 else f"{number:04d}"
        files.append((f"{name}.JPG", jpeg(number)))
        files.append((f"{name}.json", json.dumps({"number": number + 0.5}).encode()))
        files.append((f"{name}.cls", str(number % 2).encode()))
    rank = {"side by side": "", "pictures first": "Jjc", "labels first": "cjJ"}[order]
    files.sort(key=lambda file: rank.find(file[0].rpartition(".")[2][0]) if rank else 0)
    tar_of(tmp_path / "0.tar", files)
    table = rows(packed(tmp_path, wds(tmp_path), tmp_path / "shards"))
    wanted = {f"0.tar/{key.format(n) if n % 2 else f'{n:04d}'}.JPG": n + 0.5 for n in range(4)}
    assert table["number"].to_dict() == wanted
    assert sorted(table["cls"]) == ["0", "0", "1", "1"]


def test_every_ending_of_a_picture_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    forms = {
        "bmp": "BMP",
        "tif": "TIFF",
        "tiff": "TIFF",
        "jfif": "JPEG",
        "ppm": "PPM",
        "webp": "WEBP",
        "png": "PNG",
    }
    files = [
        (f"{number}.{ending}", content(picture(number), form))
        for number, (ending, form) in enumerate(forms.items())
    ]

    # no pictures, or further ones of a sample
    files += [
        (f"{number}.{ending}", b"x")
        for number in range(2)
        for ending in ("txt", "npy", "pyd", "pickle")
    ]
    files += [
        ("0.seg.png", jpeg(8)),
        ("6.jpg", jpeg(9)),
        ("7.avif", b"x"),
        ("README", b"x"),
        ("._0.jpg", b"x"),
    ]

    # each is packed or counted
    tar_of(tmp_path / "0.tar", files)
    plan = recipes.plan(Pack(recipe=wds(tmp_path), root=str(tmp_path), resolution=8))
    assert plan.table["file"].tolist() == [
        f"0.tar/{number}.{ending}" for number, ending in enumerate(forms)
    ]
    (note,) = plan.noticed.notes
    assert set(note.removeprefix("left out: ").split("; ")) == {
        *(
            f"2 .{ending} files, e.g. 0.tar/0.{ending}"
            for ending in ("txt", "npy", "pyd", "pickle")
        ),
        "1 pictures that are a further part of their sample, e.g. 0.tar/0.seg.png",
        "1 pictures that are the second of their sample, e.g. 0.tar/6.jpg",
        "1 pictures in a format that is not read (convert them to PNG), e.g. 0.tar/7.avif",
        "1 members without an ending, e.g. 0.tar/README",
        "1 hidden files or folders, e.g. 0.tar/._0.jpg",
    }


def test_words_gaps_and_damage_in_the_labels_of_tars_are_told(tmp_path: Path) -> None:
    files = [(f"{number}.jpg", jpeg(number)) for number in range(6)]
    files += [
        (f"{number}.cls", word)
        for number, word in enumerate([b"cat", b"", b"dog\n", b"cat", b"\xff"])
    ]
    texts = [
        b'{"file": "a", "hair.color": "fair", "box": [1, 2], "id": 20170109142408075}',
        b"{",
        b"3",
        b'{"file": "b"}',
    ]
    files += [(f"{number}.json", text) for number, text in enumerate(texts)]
    tar_of(tmp_path / "0.tar", files)

    # what can be read is a label
    index = packed(tmp_path, wds(tmp_path), tmp_path / "shards")
    table = rows(index)
    assert table["cls"].tolist() == ["cat", None, "dog", "cat", None, None]
    assert table["file_"].tolist() == ["a", None, None, "b", None, None]
    assert table["hair.color"].tolist()[0] == "fair"
    assert table["id"].tolist()[0] == "20170109142408075"

    # what cannot is told
    notes = "; ".join(index.content.notes)
    assert (
        "1 .cls are not readable, their pictures are without, e.g. that of 0.tar/4.jpg: " in notes
    )
    assert (
        "2 .json are not readable, their pictures are without, e.g. that of 0.tar/1.jpg: " in notes
    )
    assert "1 values of 'box' are lists or objects, no labels, e.g. that of 0.tar/0.jpg" in notes

    # and what is not wanted is left out
    recipe = own(
        tmp_path,
        source="webdataset",
        webdataset={"ignore": ["file", "id"]},
    )
    assert set(recipes.plan(Pack(recipe=recipe, root=str(tmp_path))).schema) == {
        "cls",
        "hair.color",
    }


def test_tars_at_any_depth_are_read_but_not_those_of_packed_sets(tmp_path: Path) -> None:
    for number, place in enumerate(["0.tar", "a/b/1.tar", ".hidden/2.tar", "packed/3.tar"]):
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        tar_of(tmp_path / "set" / place, [("x.jpg", jpeg(number))])
    (tmp_path / "set" / "packed" / "index.json").write_text("{}")
    plan = recipes.plan(Pack(recipe=wds(tmp_path), root=str(tmp_path / "set")))
    assert plan.table["file"].tolist() == ["0.tar/x.jpg", "a/b/1.tar/x.jpg"]


def test_classes_that_yaml_takes_for_truths_are_refused(tmp_path: Path) -> None:
    path = Path(
        own(tmp_path, kinds={"Smile": {"kind": "ordinal", "classes": ["no", "maybe", "yes"]}})
    )
    path.write_text(path.read_text().replace('"yes"', "yes"))
    with pytest.raises(
        UserError,
        match=r"mine\.yaml: kinds\.Smile\.Kind\.classes is .*put them in quotes, as 'yes'",
    ):
        recipes.plan(Pack(recipe=str(path), root=str(tmp_path)))


def test_a_column_that_is_left_out_may_be_dropped_or_asked_for(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(24):
        picture(number).save(tmp_path / "set" / f"{number}.png")
    table = tmp_path / "table.csv"
    table.write_text("file,uid,age\n" + "".join(f"{n}.png,u{n},{n}\n" for n in range(24)))
    options = {"recipe": own(tmp_path), "root": str(tmp_path / "set"), "labels": str(table)}
    plan = recipes.plan(Pack(**options, drop=["uid"]))
    assert plan.schema == {}
    assert plan.noticed.labels_left_out == dict.fromkeys(["uid", "age"], "24 values for 24 images")
    assert len(recipes.plan(Pack(**options, where="age >= 20")).table) == 4
    assert list(recipes.plan(Pack(**options, keep=["uid"])).schema) == ["uid"]


def test_patterns_of_more_tars_than_there_can_be_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stands for 1000000000 tars; at most 1000000 are read"):
        recipes.plan(Pack(recipe=wds(tmp_path), root=f"{tmp_path}/{{0..999999999}}.tar"))


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    for name in (
        "faces/a.png",
        "faces/e\u0301.png",
        "faces/\u00e9.png",
        "faces/.trash/b.png",
        ".cache/c.png",
    ):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content(picture(1), "PNG"))

    # in a folder
    split = {"by": "part", "names": {"a": "train", "b": "test"}}
    recipe = own(
        tmp_path, pattern=r"(?P<part>.)\.png$", split=split, splits={"train": 0.5, "test": 0.5}
    )
    plan = recipes.plan(Pack(recipe=recipe, root=str(tmp_path / "set")))
    assert plan.table["file"].tolist() == ["faces/a.png"]
    notes = "; ".join(plan.noticed.notes)
    assert (
        "1 files whose name another one has in another form of Unicode (rename them), e.g. faces/\u00e9.png"
        in notes
    )
    assert "1 hidden files or folders, e.g. .cache" in notes
    assert "1 files or folders of a file server, system or tool, e.g. faces/.trash" in notes
    assert "1 images are in no split and left out, e.g. faces/\u00e9.png;" in notes
    assert "no image is left for the split test" in notes

    # in a tar
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, file in {
            "a.png": content(picture(1), "PNG"),
            "b.json": b"{}",
            "c.gif": b"GIF",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(file)
            tar.addfile(info, io.BytesIO(file))
    notes = "; ".join(recipes.plan(Pack(recipe=wds(tmp_path), root=str(tmp_path))).noticed.notes)
    assert "1 samples without a picture, e.g. 0.tar/b" in notes
    assert (
        "1 pictures in a format that is not read (convert them to PNG), e.g. 0.tar/c.gif" in notes
    )


def test_tars_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as tar:
            info = tarfile.TarInfo("a.png")
            info.size = len(file := content(picture(split == "val"), "PNG"))
            tar.addfile(info, io.BytesIO(file))
    plan = recipes.plan(Pack(recipe=wds(tmp_path), root=f"{tmp_path}/{{train,val}}/0.tar"))
    assert plan.table["file"].tolist() == ["train/0.tar/a.png", "val/0.tar/a.png"]
    assert plan.splits.tolist() == ["train", "val"]
    with tarfile.open(tmp_path / "val" / "0.tar", "a") as tar:
        tar.addfile(info, io.BytesIO(file))
    with pytest.raises(UserError, match=r"val/0\.tar: .*duplicate.*Mend it"):
        recipes.plan(Pack(recipe=wds(tmp_path), root=str(tmp_path / "val")))


def test_a_csv_of_pixels_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in (b"", "emotion,pixels\n1,0 0 0 0\n".encode("utf-16")):
        (tmp_path / "a.csv").write_bytes(text)
        with pytest.raises(UserError, match=r"a\.csv is not readable as CSV"):
            recipes.plan(Pack(recipe=own(tmp_path, source="rows"), root=str(tmp_path / "a.csv")))
    with open(tmp_path / "a.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["emotion", "image"], [1, "0 0 0 0"]])
    with pytest.raises(
        UserError, match=r"a\.csv has columns emotion, image and 1 rows; wanted are 'pixels'"
    ):
        recipes.plan(Pack(recipe=own(tmp_path, source="rows"), root=str(tmp_path / "a.csv")))
