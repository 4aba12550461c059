"""Whether a set is enough for what is asked of it: what cannot work is refused, what may not be meant is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from facefactory import UserError, command, config
from facefactory.cluster import Profile
from facefactory.data.packing import enough, pack, recipes
from facefactory.facts import Label
from facefactory.run import Run, resolve
from facefactory.rundir import RunDir
from facefactory.stages import of


def faces(
    splits: str,
    group: str | None = None,
    kinds: dict[str, str] | None = None,
    **columns: list[int],
) -> enough.Faces:
    """A set of one image a letter: t is in train, v in the held-out split test; classes are called by their numbers."""
    schema = {}
    for name, codes in columns.items():
        kind = (kinds or {}).get(name, "categorical")
        schema[name] = Label(kind, tuple(f"c{n}" for n in range(max(codes) + 1)))  # type: ignore[arg-type]
    table = pd.DataFrame({"file": [f"{n}.png" for n in range(len(splits))], **columns})
    return enough.Faces(
        table, np.array([{"t": "train", "v": "test"}[side] for side in splits]), schema, group
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            faces("t" * 5),
            r"5 images are too few for the splits 0\.9 / 0\.1: none is left for 'test'\. Give at least 10, or",
        ),
        (faces("t"), r"1 image is too few for the splits 0\.9 / 0\.1"),
        (
            faces("tttt", "who", who=[0, 0, 0, 0]),
            r"1 person is too few for the splits 0\.9 / 0\.1",
        ),
        (
            faces("tttt", "who", who=[0, 0, 1, 2]),
            r"3 people are too few for the splits 0\.9 / 0\.1",
        ),
    ],
)
def test_a_set_that_cannot_be_split_says_how_large_it_must_be(
    made: enough.Faces, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        raise enough.undivided(made, {"train": 0.9, "test": 0.1}, "test")


def test_the_size_that_is_named_is_enough() -> None:
    from facefactory.data.packing import recipes

    for shares in (
        {"train": 0.9, "test": 0.1},
        {"train": 0.8, "val": 0.1, "test": 0.1},
        {"train": 2 / 3, "test": 1 / 3},
    ):
        needed = int(
            str(enough.undivided(faces("tt"), shares, "test")).split("at least ")[1].split(",")[0]
        )
        recipe = {"group": None, "splits": shares, "name": "made"}
        assert "test" in recipes.dealt(recipe, pd.DataFrame({"file": range(needed)}))
        assert "test" not in recipes.dealt(recipe, pd.DataFrame({"file": range(needed - 1)}))


def test_a_split_with_too_few_images_is_refused() -> None:
    enough.require_images(faces("ttv"), {"train": 2, "test": 1})
    with pytest.raises(
        UserError, match=r"the split 'test' has 1 image; at least 2 are needed\. Give more images"
    ):
        enough.require_images(faces("ttv"), {"train": 2, "test": 2})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"mood": [0, 0, 0, 0, 1]},
            "mood has 1 class",
        ),  # the other is in the held-out split alone
        ({"mood": [0, 1, 2, 3, 0]}, "mood has 4 classes for 4 images, one each"),
        ({"mood": [-1, -1, -1, -1, 0]}, "mood has 0 classes"),
        (
            {"mood": [0, 0, 0, 0, 0], "name": [0, 1, 2, 3, 4]},
            "mood has 1 class; name has 4 classes for 4 images",
        ),
    ],
)
def test_a_classifier_of_nothing_is_refused(columns: dict[str, list[int]], message: str) -> None:
    made = faces("ttttv", **columns)
    with pytest.raises(
        UserError, match=f"nothing can be classified: of the images in train, .*{message}"
    ):
        enough.require_classes(made, columns)


def test_one_label_that_can_be_learned_is_enough() -> None:
    made = faces(
        "ttttv",
        mood=[0, 0, 0, 0, 0],
        smile=[0, 1, 1, 0, 1],
    )
    enough.require_classes(made, ["mood", "smile"])
    enough.require_classes(made, [])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            faces("ttt" + "v" * 9),
            "training.batch_size=8, but train has 3 images: a batch shows some of them twice",
        ),
        (faces("t" * 9 + "v"), "the split 'test' has 1 images: scores will be about these few"),
        (
            faces("t" * 9 + "v" * 9, "who", {"who": "identity"}, who=[*range(9), *[9] * 9]),
            "the split 'test' has one person (9 images): scores will be about that person",
        ),
        (
            faces("t" * 9 + "v" * 9, mood=[0] * 18),
            "label 'mood' has one class alone, 'c0': nothing is learned from it",
        ),
        (
            faces("t" * 9 + "v" * 9, mood=[0] * 8 + [1] * 9 + [2]),
            "label 'mood': 'c2' has a single image, which is either learned or tested",
        ),
        (
            faces("t" * 9 + "v" * 9, name=[*range(16), 16, 16]),
            "16 of 17 classes of label 'name' have a single image, e.g. 'c0': are they names or numbers of images? "
            "pack.drop=[name] leaves it out",
        ),
    ],
)
def test_what_may_not_be_meant_is_said(made: enough.Faces, sentence: str) -> None:
    assert sentence in enough.doubts(made, 8, "test", True)


def test_a_sound_set_leaves_no_doubt() -> None:
    made = faces(
        "t" * 9 + "v" * 9, "who", {"who": "identity"}, who=list(range(18)), mood=[0, 1] * 9
    )
    assert enough.doubts(made, 8, "test", True) == []
    assert enough.doubts(faces("tt", name=[0, 1]), None, None, False) == []


# -- the command line ------------------------------------------------------------------------------------------------


def checked(
    tmp_path: Path, stages: tuple[str, ...], *arguments: str, profile: Profile | None = None
) -> None:
    """What a job finds before anything starts."""
    small = {
        "training": {"batch_size": 4, "total_kimg": 0.1},
        "model": {"name": "gan/dcgan", "width": 4, "depth": 2},
    }
    pictures = {"pack": {"recipe": "folder", "root": str(tmp_path / "in"), "resolution": 16}}
    run = resolve(config.load(Run, list(arguments), [small, pictures]))
    command.check(
        run,
        RunDir(tmp_path / "runs" / "r"),
        [of(name) for name in stages],
        profile,
    )


def draw(folder: Path, names: list[str], same: bool = False) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0 if same else number).integers(
            0,
            256,
            (16, 16),
            np.uint8,
        )
        Image.fromarray(noise).save(folder / name)


CLASSIFIER = (
    "model={name: classifier/convnet, width: 4, depth: 2}",
    "objective={name: classification}",
)


def test_a_training_of_five_images_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "in", [f"{number}.png" for number in range(5)])
    with pytest.raises(
        UserError,
        match=r"^5 images are too few for the splits 0\.9 / 0\.1: none is left for 'test'",
    ):
        checked(tmp_path, ("pack", "train"))
    checked(tmp_path, ("pack",))  # they can be packed, and looked at


def test_a_judge_needs_two_held_out_images(tmp_path: Path) -> None:
    draw(tmp_path / "in", [f"{number}.png" for number in range(10)])
    checked(tmp_path, ("pack", "train"))
    with pytest.raises(UserError, match="the split 'test' has 1 image; at least 2 are needed"):
        checked(tmp_path, ("pack", "judge", "evaluate"))


def test_a_classifier_of_ids_is_refused_and_a_class_of_one_picture_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{'ab'[number % 2]}/{number}.png" for number in range(20)]
    draw(tmp_path / "in", names)
    checked(tmp_path, ("pack", "train"), *CLASSIFIER)
    assert "note:" not in capsys.readouterr().err
    draw(tmp_path / "in", [*names, "c/alone.png"])
    checked(tmp_path, ("pack", "train"), *CLASSIFIER)
    assert (
        "note: label 'folder': 'c' has a single image, which is either learned or tested."
        in capsys.readouterr().err
    )
    recipe = tmp_path / "ids.yaml"
    table = "".join(f"{name},n{number}\n" for number, name in enumerate(names))
    (tmp_path / "ids.csv").write_text(f"file,name\n{table}")
    recipe.write_text(
        f"name: ids\nsource: folder\nroot: {tmp_path / 'in'}\nlabels: ids.csv\nkinds: {{name: categorical}}\ngroup: null\n"
        "keep: [name]\nsplits: {train: 0.9, test: 0.1}\n"
    )
    with pytest.raises(
        UserError,
        match=r"nothing can be classified: .* name has \d+ classes for \d+ images, one each",
    ):
        checked(tmp_path, ("pack", "train"), f"pack.recipe={recipe}", *CLASSIFIER)


def test_a_packed_set_of_one_picture_is_refused(tmp_path: Path) -> None:
    draw(
        tmp_path / "in",
        [f"{number}.png" for number in range(24)],
        same=True,
    )
    plan = recipes.plan(
        config.load(Run, [f"pack.root={tmp_path / 'in'}", "pack.recipe=folder"], []).pack
    )
    folder = pack.pack(plan, tmp_path / "set").folder
    with pytest.raises(
        UserError,
        match=r"of the split 'train' in .* are one picture, or nearly; a training needs different ones",
    ):
        checked(tmp_path, ("pack", "train"), f"data.shards={folder}")


def test_what_needs_more_memory_than_the_profile_gives_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "in", [f"{number}.png" for number in range(20)])
    small = Profile(memory_gb=0.1)
    checked(tmp_path, ("pack", "train"), "training.device=cpu", profile=small)
    told = r"gan/dcgan .* parameters and needs [0-9.]+ GB; a process of the profile \(memory_gb\) has 0\.1 GB: width=1024 is too large"
    with pytest.raises(UserError, match=told):
        checked(
            tmp_path, ("pack", "train"), "training.device=cpu", "model.width=1024", profile=small
        )
    told = r"1000000 images at once of 16x16 pixels \(height x width\) need 3\.1 GB, .* has 0\.1 GB: give a smaller training\.batch_size"
    with pytest.raises(UserError, match=told):
        checked(
            tmp_path,
            ("pack", "train"),
            "training.device=cpu",
            "training.batch_size=1000000",
            profile=small,
        )
