"""What the folders of a set mean: its own splits, classes, people or chunks; and what is told of them."""

from __future__ import annotations

import pytest

from facefactory.data.packing import layout

MOODS = ["happy", "sad"]


def below(*tops: str, classes: list[str] | None = None, each: int = 3) -> list[str]:
    """Names of images: `each` in every class (or none) of every folder."""
    places = [f"{top}/{kind}" for top in tops for kind in classes] if classes else list(tops)
    return [f"{place}/{number}.jpg" for place in places for number in range(each)]


def sides(names: list[str]) -> dict[str, set[str]]:
    """First folder of each name that is in a split -> the splits of what lies in it."""
    found = layout.read(names).splits
    assert found is not None
    tops: dict[str, set[str]] = {}
    for name, side in zip(names, found, strict=True):
        tops.setdefault(name.split("/")[0], set()).add(str(side))
    return tops


@pytest.mark.parametrize(
    ("tops", "wanted"),
    [
        (["train", "val"], ["train", "val"]),
        (["Training", "Validation", "Testing"], ["train", "val", "test"]),
        (["TRAIN", "Valid", "Test"], ["train", "val", "test"]),
        (["train_images", "test-images"], ["train", "test"]),
        (["trainset", "dev_set", "test set"], ["train", "val", "test"]),
        (["Training", "PublicTest", "PrivateTest"], ["train", "val", "test"]),
        (["val", "test"], ["val", "test"]),
        (["train-000000.tar", "train-000001.tar", "val-000000.tar"], ["train", "train", "val"]),
    ],
)
def test_folders_called_after_splits_are_splits_and_those_below_are_the_label(
    tops: list[str], wanted: list[str]
) -> None:
    names = below(*tops, classes=MOODS)
    found = layout.read(names)
    assert sides(names) == {top: {side} for top, side in zip(tops, wanted, strict=True)}
    assert found.labels == [name.split("/")[1] for name in names]
    assert not found.people
    assert set(found.sides) == set(wanted)
    (note,) = found.split_notes
    assert "the set's own splits (" in note
    assert f"{wanted[0]} {wanted.count(wanted[0]) * 6}" in note
    assert layout.read([f"a/b/{name}" for name in names]).splits.tolist() == found.splits.tolist()  # type: ignore[union-attr]


def test_splits_are_found_at_any_depth() -> None:
    names = below("happy/train", "happy/test", "sad/train", "sad/test")
    found = layout.read(names)
    assert found.splits is not None
    assert found.splits.tolist() == ["train"] * 3 + ["test"] * 3 + ["train"] * 3 + ["test"] * 3
    assert found.labels == [name.split("/")[0] for name in names]
    names = below(
        "DATASET/train/1", "DATASET/train/2", "DATASET/test/1", "DATASET/test/2"
    )  # RAF-DB
    found = layout.read(names)
    assert found.splits is not None
    assert found.splits.tolist() == [name.split("/")[1] for name in names]
    assert found.labels == [name.split("/")[2] for name in names]


def test_a_folder_twice_and_one_inside_train_are_read_as_meant() -> None:
    names = below(
        "train/train", "test/test", classes=MOODS
    )  # a zip unpacked into a folder of its own name
    found = layout.read(names)
    assert sides(names) == {"train": {"train"}, "test": {"test"}}
    assert set(found.labels or []) == set(MOODS)
    names = below("train/train", "train/val", "test", classes=MOODS)
    found = layout.read(names)
    assert found.splits is not None
    assert found.splits.tolist() == ["train"] * 6 + ["val"] * 6 + ["test"] * 6
    assert set(found.labels or []) == set(MOODS)
    names = below(
        "train/happy", "train/test", "test/happy", "test/test"
    )  # there is a class that is called test
    found = layout.read(names)
    assert sides(names) == {"train": {"train"}, "test": {"test"}}
    assert set(found.labels or []) == {
        "happy",
        "test",
    }


def test_a_split_may_have_no_folders_below_and_one_class_is_none() -> None:
    found = layout.read([*below("train", classes=MOODS), *below("test")])
    assert found.labels == ["happy"] * 3 + ["sad"] * 3 + [None] * 3
    found = layout.read([*below("train/images", classes=MOODS), *below("test")])
    assert found.labels == ["happy"] * 3 + ["sad"] * 3 + [None] * 3
    assert layout.read(below("train/faces", "test/faces")).labels is None


def test_what_lies_beside_train_and_test_is_in_no_split() -> None:
    names = [*below("train", "test", classes=MOODS), *below("extra", each=2), "cover.jpg"]
    assert sides(names) == {"train": {"train"}, "test": {"test"}, "extra": {""}, "cover.jpg": {""}}


def test_one_name_alone_makes_no_split_and_a_class_may_be_called_test() -> None:
    found = layout.read(below("train", classes=MOODS))
    assert found.splits is None
    assert found.split_notes == ()
    assert set(found.labels or []) == set(MOODS)
    found = layout.read(below("test", "happy"))
    assert found.splits is None
    assert set(found.labels or []) == {"test", "happy"}
    assert found.split_notes == (
        "folders called test are taken for no splits of the set's own, since images lie elsewhere too, e.g. in happy",
    )
    found = layout.read([*below("test"), "a.jpg"])
    assert found.splits is None
    assert "called test are taken for no splits" in found.split_notes[0]
    found = layout.read([*below("happy/train", "happy/test"), *below("sad")])
    assert found.splits is None
    assert "called test, train are taken for no splits" in found.split_notes[0]
    assert layout.read(["a.jpg", "b.jpg"]) == layout.Layout()


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ([f"{i // 8:05d}/{i:09d}.jpg" for i in range(24)], None),  # img2dataset
        ([f"{i // 1000 * 1000:05d}/{i:05d}.png" for i in range(0, 5000, 100)], None),  # FFHQ
        ([f"part{i % 3}/{i % 2}_{i}.jpg" for i in range(30)], None),  # UTKFace
        ([f"images_{i % 3:03d}/{MOODS[i % 2]}/{i}.jpg" for i in range(30)], {*MOODS}),
        (
            [f"{1 + i % 7}/train_{i:05d}.jpg" for i in range(70)],
            {str(i) for i in range(1, 8)},
        ),  # RAF-DB
        ([f"{i % 5:03d}/{i:04d}.jpg" for i in range(50)], {f"{i:03d}" for i in range(5)}),  # ages
        (
            [f"{i % 3:05d}/x{'y' * i}.jpg" for i in range(9)],
            {f"{i:05d}" for i in range(3)},
        ),  # no numbers go on
    ],
)
def test_numbered_chunks_are_no_classes(names: list[str], labels: set[str] | None) -> None:
    found = layout.read(names)
    assert (found.labels and set(found.labels)) == labels
    assert found.splits is None
    assert any("are taken for chunks of the set" in note for note in found.label_notes) == (
        labels in (None, {*MOODS})
    )


@pytest.mark.parametrize(
    ("folders", "each", "people"),
    [
        (["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"], 40, False),
        ([f"s{number}" for number in range(1, 41)], 10, True),  # ORL
        ([f"{number}" for number in range(1, 41)], 10, True),
        ([f"class_{number:03d}" for number in range(102)], 100, False),
        ([f"{number:03d}" for number in range(1, 100)], 80, False),  # ages
        ([f"Person_{number:05d}" for number in range(1001)], 2, True),
        ([f"n{number:06d}" for number in range(150)], 90, True),  # VGGFace2, a part
        ([f"{number:07d}" for number in range(300)], 46, True),  # CASIA-WebFace, a part
        (
            [
                "Aaron_Eckhart",
                "Abdel_Madi_Shabneh",
                "AJ_Cook",
                "Ziwang_Xu",
                "George_W_Bush",
                "Jean-Pierre_Bemba",
            ]
            * 1,
            30,
            False,
        ),
        (
            [
                f"{first}_{last}"
                for first in ("Ann", "Bob", "Zoë")
                for last in ("O'Neal", "Li", "Xu", "de_la_Cruz")
            ],
            30,
            True,
        ),
        ([f"pins_{first} {last}" for first in ("Ann", "Bob") for last in "ABCDEFG"], 160, True),
        ([f"n{number:08d}" for number in range(100)], 130, False),  # ImageNet's classes
        ([f"{number}_years" for number in range(60)], 100, False),
    ],
)
def test_many_small_folders_and_those_with_peoples_names_are_people(
    folders: list[str], each: int, people: bool
) -> None:
    found = layout.read(
        [f"{folder}/img_{number % 7}{number}.jpg" for folder in folders for number in range(each)]
    )
    assert found.people == people
    assert set(found.labels or []) == set(folders)
    told = " ".join(found.label_notes)
    assert ("are taken for people" in told) == people
    unsure = not people and (len(folders) >= 20 or "Aaron_Eckhart" in folders)
    assert ("are not taken for people; if they are, group: folder" in told) == unsure


def test_people_in_splits_are_people() -> None:
    names = below(
        "train",
        "test",
        classes=[f"s{number}" for number in range(40)],
    )
    found = layout.read(names)
    assert found.people
    assert sides(names) == {"train": {"train"}, "test": {"test"}}
    assert (
        "nobody is dealt" not in found.label_notes[0]
    )  # the set's own splits may share people; packing counts them
