"""Whether a set is enough for what is asked of it: what cannot work is refused, what may not be meant is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from facefactory import UserError
from facefactory.data import enough


def faces(splits: str, group: str | None = None, kinds: dict[str, str] | None = None, **columns: list[int]) -> enough.Faces:
    """A set of one image a letter: t is in train, v in the held-out split test; classes are called by their numbers."""
    schema: dict[str, Any] = {}
    for name, codes in columns.items():
        schema[name] = {"kind": (kinds or {}).get(name, "categorical"), "classes": [f"c{n}" for n in range(max(codes) + 1)]}
    table = pd.DataFrame({"file": [f"{n}.png" for n in range(len(splits))], **columns})
    return enough.Faces(table, np.array([{"t": "train", "v": "test"}[side] for side in splits]), schema, group)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (faces("t" * 5), r"5 images are too few for the splits 0\.9 / 0\.1: none is left for 'test'\. Give at least 10, or"),
        (faces("t"), r"1 image is too few for the splits 0\.9 / 0\.1"),
        (faces("tttt", "who", who=[0, 0, 0, 0]), r"1 person is too few for the splits 0\.9 / 0\.1"),
        (faces("tttt", "who", who=[0, 0, 1, 2]), r"3 people are too few for the splits 0\.9 / 0\.1"),
    ],
)
def test_a_set_that_cannot_be_split_says_how_large_it_must_be(made: enough.Faces, message: str) -> None:
    with pytest.raises(UserError, match=message):
        raise enough.undivided(made, {"train": 0.9, "test": 0.1}, "test")


def test_the_size_that_is_named_is_enough() -> None:
    from facefactory.data import recipes

    for shares in ({"train": 0.9, "test": 0.1}, {"train": 0.8, "val": 0.1, "test": 0.1}, {"train": 2 / 3, "test": 1 / 3}):
        needed = int(str(enough.undivided(faces("tt"), shares, "test")).split("at least ")[1].split(",")[0])
        recipe = {"group": None, "splits": shares, "name": "made"}
        assert "test" in recipes.dealt(recipe, pd.DataFrame({"file": range(needed)}))
        assert "test" not in recipes.dealt(recipe, pd.DataFrame({"file": range(needed - 1)}))


def test_a_split_with_too_few_images_is_refused() -> None:
    enough.require_images(faces("ttv"), {"train": 2, "test": 1})
    with pytest.raises(UserError, match=r"the split 'test' has 1 image; at least 2 are needed\. Give more images"):
        enough.require_images(faces("ttv"), {"train": 2, "test": 2})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mood": [0, 0, 0, 0, 1]}, "mood has 1 class"),  # the other is in the held-out split alone
        ({"mood": [0, 1, 2, 3, 0]}, "mood has 4 classes for 4 images, one each"),
        ({"mood": [-1, -1, -1, -1, 0]}, "mood has 0 classes"),
        ({"mood": [0, 0, 0, 0, 0], "name": [0, 1, 2, 3, 4]}, "mood has 1 class; name has 4 classes for 4 images"),
    ],
)
def test_a_classifier_of_nothing_is_refused(columns: dict[str, list[int]], message: str) -> None:
    made = faces("ttttv", **columns)
    with pytest.raises(UserError, match=f"nothing can be classified: of the images in train, .*{message}"):
        enough.require_classes(made, columns)


def test_one_label_that_can_be_learned_is_enough() -> None:
    made = faces("ttttv", mood=[0, 0, 0, 0, 0], smile=[0, 1, 1, 0, 1])
    enough.require_classes(made, ["mood", "smile"])
    enough.require_classes(made, [])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (faces("ttt" + "v" * 9), "training.batch_size=8, but train has 3 images: a batch shows some of them twice"),
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
    made = faces("t" * 9 + "v" * 9, "who", {"who": "identity"}, who=list(range(18)), mood=[0, 1] * 9)
    assert enough.doubts(made, 8, "test", True) == []
    assert enough.doubts(faces("tt", name=[0, 1]), None, None, False) == []
