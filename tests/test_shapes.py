"""Images need not be square: one size, height before width, from the command line to the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Faces
from PIL import Image

from facefactory import UserError, command, process, registry
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets import index as indexes
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import distortions
from facefactory.evaluation.distortions import Faces as Spoilable
from facefactory.evaluation.extractors import lite0
from facefactory.evaluation.extractors._imagenet import enlarged
from facefactory.facts import Facts, Size


@pytest.fixture(scope="module")
def oblong(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The test's faces, 24 high and 18 wide, in three shards and one."""
    plan = recipes.plan(Pack(recipe=str(faces.recipe), resolution="24x18", shard_images=16))
    return pack.pack(plan, tmp_path_factory.mktemp("oblong"))


# -- how a size is told ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "size"),
    [
        (64, (64, 64)),
        ("64", (64, 64)),
        ("218x178", (218, 178)),
        ("48 X 32", (48, 32)),
    ],
)
def test_height_stands_before_width(resolution: int | str, size: tuple[int, int]) -> None:
    assert Pack(resolution=resolution).size == size


def test_a_square_is_one_number_however_it_was_told(faces: Faces) -> None:
    assert Size.of("64x64").resolution == Size.of(64).resolution == 64
    assert Size.of("218x178").resolution == "218x178"


@pytest.mark.parametrize(
    "resolution", ["", "x", "64x", "x64", "64x64x3", "large", "-8", 3, "4x3", "8x4096"]
)
def test_what_is_no_size_is_refused_with_what_is_allowed(resolution: int | str) -> None:
    with pytest.raises(UserError, match=r"HEIGHTxWIDTH as in 218x178 .* from 4 to 2048"):
        _ = Pack(resolution=resolution).size


# -- packing ---------------------------------------------------------------------------------------


def test_the_index_tells_the_size_and_old_versions_refuse_it(oblong: Index, index: Index) -> None:
    assert oblong.content.resolution == "24x18"
    assert oblong.content.format == 2
    assert index.content.resolution == 16
    assert index.content.format == 1
    assert "the packed images are 24 pixels high and 18 wide" in oblong.content.notes
    assert oblong.facts == Facts(24, 18, 1, oblong.facts.labels)
    assert indexes.read(oblong.folder).size == (24, 18)


@pytest.mark.parametrize("storage", ["raw", "png"])
def test_shards_hold_the_largest_centred_part_of_that_shape(
    storage: str, faces: Faces, tmp_path: Path
) -> None:
    options = Pack(
        recipe=str(faces.recipe),
        resolution="24x18",
        storage=storage,
        limit=7,
    )  # type: ignore[arg-type]
    shards = Shards(pack.pack(recipes.plan(options), tmp_path), "train")
    files = shards.index.table("train")["file"]
    for name, packed in zip(files, shards.images().numpy(), strict=True):
        with Image.open(faces.root / name) as file:
            assert file.size == (40, 48)
            part = file.resize(
                (18, 24),
                Image.Resampling.LANCZOS,
                box=(2, 0, 38, 48),
            )
        assert np.array_equal(packed[..., 0], np.asarray(part))


CROPS = {
    "fit": (2, 0, 38, 48),
    "square": (2, 0, 38, 48),  # the word for the same thing, of square images
    "none": (0, 0, 40, 48),
    "18": (11, 12, 29, 36),  # the shorter side of a centred part
    "4,4,22,28": (4, 4, 22, 28),
}


@pytest.mark.parametrize("crop", CROPS)
def test_every_crop_makes_images_of_that_shape(crop: str, faces: Faces, tmp_path: Path) -> None:
    options = Pack(
        recipe=str(faces.recipe),
        resolution="24x18",
        crop=crop,
        limit=1,
    )
    packed = pack.pack(recipes.plan(options), tmp_path)
    (split,) = packed.content.splits
    with Image.open(faces.root / packed.table(split)["file"][0]) as file:
        wanted = file.resize(
            (18, 24),
            Image.Resampling.LANCZOS,
            box=CROPS[crop],
        )
    assert np.array_equal(packed.maps(split)[0][0, ..., 0], np.asarray(wanted))
    assert packed.content.crop == {"square": "fit", "18": 18, "4,4,22,28": [4, 4, 22, 28]}.get(
        crop, crop
    )


def test_what_is_stretched_is_told(faces: Faces, tmp_path: Path) -> None:
    options = Pack(
        recipe=str(faces.recipe),
        resolution="24x18",
        limit=9,
    )
    whole = pack.pack(recipes.plan(replace(options, crop="none")), tmp_path / "whole")
    stretched = whole.content.pictures["stretched"]
    assert stretched.count == 9
    assert len(stretched.first) == 9
    boxed = recipes.plan(replace(options, crop="0,0,40,40"))
    (note,) = [note for note in boxed.noticed.notes if "stretched" in note]
    assert "40 pixels high and 40 wide, is stretched to 24 and 18: give pack.crop=fit" in note

    # nothing is said of what keeps its shape
    own = pack.pack(
        recipes.plan(replace(options, resolution="24x20", crop="none")), tmp_path / "own"
    )
    assert "stretched" not in own.content.pictures


def test_drawn_faces_keep_their_shape() -> None:
    """A face 32 wide in an image 48 high is the middle of one that is 48 wide."""
    options = Pack(
        recipe="drawn",
        resolution="48x32",
        limit=1,
    )
    plan = recipes.plan(options)
    source = registry.module("data.sources", "drawn")
    square = source.load(0, 48, plan.recipe)
    assert square.size == (48, 48)
    from facefactory.data.packing import pictures

    assert (
        pictures.fitted(square, "fit", options.size).tobytes()
        == square.crop((8, 0, 40, 48)).tobytes()
    )


# -- looking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("models"))
@pytest.mark.parametrize(
    "size",
    [
        (48, 32),
        (32, 48),
        (218, 178),
        (45, 37),
    ],
)
def test_a_model_draws_any_size_or_refuses_it_by_its_name(
    name: str, size: tuple[int, int]
) -> None:
    known = registry.options("models", name)
    small = {key: value for key, value in {"width": 4, "depth": 3}.items() if key in known}
    facts = Facts(*size, 3)
    try:
        model = registry.build("models", {"name": name, **small}, facts)
    except UserError as error:
        assert str(error).startswith(f"{name}: ")
        assert "allowed" in str(error)
        return
    images = torch.zeros(2, 3, *size)
    empty = torch.empty(2, 0)
    with torch.no_grad():
        if hasattr(model, "sample"):
            assert model.sample(torch.zeros(2, model.z_dim), empty).shape == images.shape
        if hasattr(model, "discriminator"):
            assert model.discriminator(images, empty).shape == (2,)
        if hasattr(model, "encode"):
            assert model.decode(model.encode(images, empty)[0], empty).shape == images.shape
        if hasattr(model, "features"):
            assert len(model.features(images)) == 2


@pytest.mark.parametrize("name", registry.names("training.augmentations"))
def test_augmentations_keep_the_shape(name: str) -> None:
    images = torch.rand(3, 1, 24, 18)
    made = registry.module("training.augmentations", name).apply(images, torch.rand(3, 2))
    assert made.shape == images.shape


def test_a_shift_reaches_as_far_as_each_side_allows() -> None:
    images = torch.arange(3 * 9.0).view(1, 1, 3, 9)
    shifted = pixels.shift(images, torch.tensor([[0.5, 0.999]]), 5)
    assert torch.equal(shifted[0, 0, 0], torch.tensor([5.0, 6, 7, 8, 7, 6, 5, 4, 3]))


@pytest.mark.parametrize("name", registry.names("evaluation.distortions"))
def test_distortions_keep_the_shape(name: str, oblong: Index) -> None:
    images = Shards(oblong, "train").images()
    people = np.arange(len(images)) % 12
    module = registry.module("evaluation.distortions", name)
    spoilable = Spoilable(
        images[:16],
        images,
        people,
        True,
        images[16:],
    )
    for amount in module.AMOUNTS[::5]:
        assert module.spoil(spoilable, amount).shape[1:] == (24, 18, 1)
    assert distortions.__doc__


def test_an_image_network_sees_pictures_in_their_shape() -> None:
    sizes = {
        Size(32, 32): (64, 64),
        Size(48, 32): (96, 64),
        Size(64, 64): (128, 128),
        Size(218, 178): (224, 183),
    }
    assert {size: enlarged(size) for size in sizes} == sizes
    device = torch.device("cpu")
    assert lite0.load(Size(32, 32), device, None).resize == "to 64x64, antialiased bilinear"
    eye = lite0.load(Size(48, 32), device, None)
    assert eye.resize == "to 96x64 (height x width, in their shape), antialiased bilinear"
    features = eye(torch.zeros(eye.batch, 48, 32, 1, dtype=torch.uint8)).features
    assert features.shape == (eye.batch, 1280)


# -- the chain -------------------------------------------------------------------------------------

JUDGE = "judge.model={name: classifier/convnet, width: 4, depth: 2}"
TINY = [
    *(
        "config=tiny",
        "cluster=local",
        "pack.resolution=48x32",
        JUDGE,
        "judge.training.total_kimg=2",
    ),
    *("judge.folds=2", "judge.fold_kimg=1", "evaluation.fakes=64", "interpret.samples=64"),
    *("evaluation.networks=[lite0]", "interpret.spaces=[z]"),
    *("training.total_kimg=0.24", "model.width=4", "model.depth=3", "training.sample_kimg=0.12"),
]
MODELS = {
    "gan/dcgan": ["objective.name=adversarial", "training.augment=[translation,cutout]"],
    "vae/conv": ["objective.name=elbo", "data.shift=2"],
    "classifier/convnet": ["objective.name=classification", "evaluation.protocol=classifier"],
}


def run(job: str, stages: tuple[str, ...], preset: str | None, *arguments: str) -> int:
    """A job in this process; its exit code."""
    return process.guarded(lambda: command.start(job, stages, preset, list(arguments)))


@pytest.mark.parametrize("model", MODELS)
def test_the_chain_on_images_that_are_not_square(
    model: str, faces: Faces, tmp_path: Path, few_spoilt: None
) -> None:
    trains = [*TINY, *MODELS[model], f"model.name={model}", f"pack.recipe={faces.recipe}", "run=r"]
    assert run("train_gan", ("pack", "train"), "tiny", *trains) == 0
    for job in ("evaluate", "interpret") if model != "classifier/convnet" else ("evaluate",):
        assert run(job, ("pack", "judge", job), None, "cluster=local", "run=r") == 0
    assert run("report", ("report",), None, "cluster=local", "run=r") == 0
    folder = tmp_path / "runs" / "r"
    assert "48x32" in (folder / "report.html").read_text()
    if model == "classifier/convnet":
        return

    # what is drawn has the set's shape, and can be packed as such
    samples = sorted((folder / "train" / "samples").glob("*.png"))
    with Image.open(samples[-1]) as grid:
        assert grid.size == (8 * 32, 8 * 48)
    shards = ["generate.format=shards", "generate.images=5", "cluster=local", "run=r"]
    assert run("generate", ("generate",), None, *shards) == 0
    assert indexes.read(folder / "generate" / "images").size == (48, 32)
    found = json.loads((folder / "evaluate" / "results.json").read_text())
    rules = {entry["resize"] for entry in found["protocols"].values()}
    assert "to 96x64 (height x width, in their shape), antialiased bilinear" in rules


def test_a_model_for_squares_is_refused_by_name_before_anything_starts(
    faces: Faces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "square.py").write_text(
        "from facefactory import UserError\n"
        "from facefactory.models.gan.dcgan import Component as Any\n\n\n"
        "class Component(Any):\n"
        "    def __init__(self, facts, *, width: int = 4, depth: int = 2):\n"
        "        if facts.height != facts.width:\n"
        "            raise UserError(f'{facts.height}x{facts.width}; allowed are squares.')\n"
        "        super().__init__(facts, width=width, depth=depth)\n"
    )
    here = [*TINY, f"pack.recipe={faces.recipe}", "model.name=square.py", "run=r"]
    assert run("train_gan", ("pack", "train"), "tiny", *here) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "square.py: 48x32; allowed are squares." in told
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "shards").exists()
