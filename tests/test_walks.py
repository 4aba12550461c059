"""Walks between images and grids of truncations: through the right places, and as files of a job."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Faces
from PIL import Image
from torch import Tensor

from facefactory import UserError, command, sampling
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.draws import normal
from facefactory.evaluation import Evaluation, references
from facefactory.evaluation.subjects import Context, generator
from facefactory.rundir import RunDir
from facefactory.stages import _scores
from facefactory.stages._sets import index_of

NONE = torch.empty(1, 0)


class Plain:
    """z [N, 4] shown as it is: a pixel a number."""

    z_dim = 4

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        return (z / 8).view(-1, 1, 2, 2)


class WithW(Plain):
    """The same with a w, twice z, whose mean is 1."""

    def to_w(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor:
        return 1 + psi * (2 * z - 1)

    def from_w(self, w: Tensor) -> Tensor:
        return (w / 16).view(-1, 1, 2, 2)


def codes(count: int) -> Tensor:
    return normal(3, 0, "generate", 256, 4)[:count]


def shown(z: Tensor) -> Tensor:
    """As `Plain` shows it, [N, 4]."""
    return (((z / 8) + 1) * 127.5).round().clamp(0, 255)


def test_a_great_circle_keeps_the_length() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    half = sampling.slerp(first, second, 0.5)
    assert torch.allclose(half, torch.full((2,), math.sqrt(0.5)))
    assert torch.allclose(sampling.slerp(first, second, 0.0), first)
    assert torch.allclose(sampling.slerp(first, second, 1.0), second)
    assert torch.allclose(sampling.slerp(first, 3 * first, 0.5), 2 * first)
    assert sampling.slerp(first, -first, 0.25).isfinite().all()


def test_a_walk_goes_through_the_first_images_and_back() -> None:
    frames = sampling.walk(
        Plain(),
        NONE,
        3,
        stops=3,
        frames=12,
    )
    z = codes(3)
    assert frames.shape == (12, 2, 2, 1)
    assert torch.equal(frames[::4].flatten(1).float(), shown(z))
    between = sampling.slerp(z[2], z[0], 0.5)
    assert torch.equal(frames[10].flatten().float(), shown(between))


def test_a_walk_is_straight_in_w() -> None:
    frames = sampling.walk(
        WithW(),
        NONE,
        3,
        stops=2,
        frames=4,
        psi=0.5,
    )
    w = WithW().to_w(codes(2), NONE, 0.5)
    assert torch.equal(frames[1].flatten().float(), shown(w.mean(0) / 2))
    assert torch.equal(frames[1], frames[3])


@pytest.mark.parametrize("model", [Plain(), WithW()])
def test_truncation_leads_from_one_image_to_all_of_them(model: Plain) -> None:
    grid = sampling.truncations(model, torch.empty(5, 0), 3, (0.0, 0.5, 1.0)).view(3, 5, 4)
    assert (grid[0] == grid[0, 0]).all()
    assert torch.equal(grid[2], sampling.draw(model, torch.empty(5, 0), 3, "generate").view(5, 4))
    spread = grid.float().std(1).mean(1)
    assert spread[0] < spread[1] < spread[2]


# -- jobs --------------------------------------------------------------------------------------------


def generate(*options: str) -> None:
    given = ["run=r", *(f"generate.{option}" for option in options)]
    command.start("generate", ("generate",), None, given)


def forget(identity: Path, *keys: str) -> None:
    """Make a run one of an earlier version, which did not know these keys."""
    known = json.loads(identity.read_text())
    for key in keys:
        del known[key]
    identity.write_text(json.dumps(known))


def train(faces: Faces) -> None:
    tiny = ["training.total_kimg=0.12", "training.batch_size=12", "training.lr=0.01"]
    told = ["model.name=gan/facegen", "model.conditions=[Glasses]", "pack.resolution=16"]
    given = ["run=r", "cluster=local", f"pack.recipe={faces.recipe}", *tiny, *told]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


def test_the_job_writes_them(faces: Faces, tmp_path: Path) -> None:
    train(faces)
    images = tmp_path / "runs" / "r" / "generate" / "images"
    for kind in ("gif", "webp"):
        generate(f"format={kind}", "images=10", "stops=2")
        with Image.open(images / f"walk.{kind}") as walk:
            assert (walk.n_frames, walk.size) == (10, (16, 16))  # type: ignore[attr-defined]
            assert walk.info["loop"] == 0
    generate("format=truncation", "images=3")
    with Image.open(images / "truncation.png") as grid:
        assert grid.width > 3 * 16 and grid.height == 5 * 16
        last = np.array(grid)[64:, -48:-32]

    # the row of psi = 1 is what is drawn otherwise
    generate("images=2")
    with Image.open(images / "00000000.png") as picture:
        assert np.array_equal(np.array(picture), last)
    forget(tmp_path / "runs" / "r" / "identity.json", "generate.psi", "generate.stops")
    generate("images=2", "psi=0")
    with Image.open(images / "00000000.png") as picture:
        assert not np.array_equal(np.array(picture), last)


# -- precision and recall ----------------------------------------------------------------------------

FEW = Evaluation(
    networks=["lite0"],
    goal="kd_lite0",
    quick_fakes=24,
    reals=2000,
)


def quick_context(index: Index) -> Context:
    goal = generator.goal(None, FEW)
    return Context(index, FEW, 0, goal, torch.device("cpu"))


def look(index: Index) -> None:
    """At the real images, as scores do."""
    context = quick_context(index)
    extractor = generator.load("lite0", context)
    protocol = generator.protocol("lite0", extractor, context, 0)
    references.of(index, protocol, extractor, ["sample"])


class Copying:
    """Draws faces of the set, always the same one where z is 0."""

    z_dim = 1

    def __init__(self, index: Index) -> None:
        self.faces = pixels.to_model(Shards(index, "train").some(45))

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        places = (z[:, 0].abs() * 45).long() % 45
        return self.faces[places]


@pytest.fixture
def own_index(faces: Faces, tmp_path: Path) -> Index:
    """A set beside which statistics may be kept."""
    plan = recipes.plan(Pack(recipe=str(faces.recipe), resolution=16))
    return pack.pack(plan, tmp_path / "shards")


def test_one_face_has_precision_and_no_recall_and_many_have_both(own_index: Index) -> None:
    context = quick_context(own_index)
    with pytest.raises(UserError, match="no scores on lite0 were computed on this set yet"):
        generator.truncated(Copying(own_index), context, (0.0, 1.0))
    look(own_index)
    found = generator.truncated(Copying(own_index), context, (0.0, 1.0))
    one, many = found.rows
    assert (one.psi, one.precision) == (0.0, 1.0)
    assert one.recall < 0.1
    assert many.precision == 1.0
    assert many.recall > 0.5
    assert (found.protocol["features"], found.protocol["fakes"]) == ("lite0", 24)
    assert "truncation" not in found.protocol


def test_a_grid_has_them_once_the_set_was_scored(
    faces: Faces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_scores, "quick_options", lambda: FEW)
    train(faces)
    images = tmp_path / "runs" / "r" / "generate" / "images"
    generate("format=truncation", "images=2")
    assert "evaluate.py run=r evaluation.protocol=quick" in capsys.readouterr().err
    assert not (images / "truncation.json").exists()
    with Image.open(images / "truncation.png") as grid:
        narrow = grid.width

    # the same command, when it is known what real faces look like
    look(index_of(RunDir(tmp_path / "runs" / "r")))
    generate("format=truncation", "images=2")
    found = json.loads((images / "truncation.json").read_text())
    assert [row["psi"] for row in found["rows"]] == [0, 0.25, 0.5, 0.75, 1]
    assert all(0 <= row[name] <= 1 for row in found["rows"] for name in ("precision", "recall"))
    with Image.open(images / "truncation.png") as grid:
        assert grid.width > narrow
    capsys.readouterr()
    generate("format=truncation", "images=2")
    assert "generate: complete" in capsys.readouterr().err
