"""`facefactory.load`: what a notebook draws is what the jobs draw, and mistakes are one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Faces
from PIL import Image

import facefactory
from facefactory import UserError, command
from facefactory.facts import Label
from facefactory.loading import Loaded, codes_of

TINY = [
    "cluster=local",
    "pack.resolution=16",
    "training.total_kimg=0.048",
    "training.batch_size=12",
    "training.device=cpu",
]
MODELS = {
    "told": ["model.name=gan/facegen", "model.conditions=[Glasses,Beard]"],
    "vae": ["model.name=vae/conv", "objective.name=elbo", "model.depth=2"],
}


@pytest.fixture(scope="module")
def runs(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny runs, a conditional GAN and a VAE, and eight pictures of the first."""
    home = tmp_path_factory.mktemp("loading")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name, options in MODELS.items():
            given = [f"run={name}", f"pack.recipe={faces.recipe}", *options, *TINY]
            command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)
        for name in MODELS:
            command.start("generate", ("generate",), None, [f"run={name}", "generate.images=8"])
    return home / "runs"


def pictures(run: Path) -> torch.Tensor:
    """What jobs/generate.py drew, [8, H, W]."""
    files = sorted((run / "generate" / "images").glob("*.png"))
    return torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_is_what_the_job_draws(runs: Path, name: str) -> None:
    loaded = facefactory.load(runs / name)
    images = loaded.sample(3)
    assert images.dtype == torch.uint8
    assert images.shape == (3, 16, 16, 1)
    assert torch.equal(images[..., 0], pictures(runs / name)[:3])
    assert not torch.equal(loaded.sample(3, seed=8), images)
    shown = loaded.pictures(images)
    assert len(shown) == 3
    assert shown[1].size == (16, 16)
    assert np.array_equal(np.array(shown[1]), images[1, :, :, 0].numpy())


def test_loading_leaves_threads_alone(runs: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    facefactory.load(str(runs / "vae"))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_less_truncation_less_variety(runs: Path) -> None:
    loaded = facefactory.load(runs / "vae")
    spread = [loaded.sample(16, psi=psi).float().std(0).mean().item() for psi in (0.0, 0.5, 1.0)]
    assert spread[0] == 0 < spread[1] < spread[2]


def test_a_vae_encodes_and_decodes(runs: Path) -> None:
    loaded = facefactory.load(runs / "vae")
    images = loaded.sample(5)
    codes = loaded.encode(images)
    assert codes.shape == (5, loaded.model.z_dim)
    assert codes.dtype == torch.float32
    assert loaded.decode(codes).shape == images.shape
    z = torch.zeros(2, loaded.model.z_dim)
    assert torch.equal(loaded.decode(z), loaded.sample(2, psi=0.0))


def test_labels_are_asked_for_by_word_or_number_for_all_or_each(runs: Path) -> None:
    loaded = facefactory.load(runs / "told")
    worn = loaded.sample(4, labels={"Glasses": "1"})
    assert torch.equal(worn, loaded.sample(4, labels={"Glasses": 1}))
    assert torch.equal(worn, loaded.sample(4, labels={"Glasses": True}))
    bare = loaded.sample(4, labels={"Glasses": "0"})
    each = loaded.sample(4, labels={"Glasses": ["1", "0", "1", "0"]})
    assert not torch.equal(worn, bare)
    assert torch.equal(each[::2], worn[::2])
    assert torch.equal(each[1::2], bare[1::2])
    unknown = loaded.sample(4, labels={"Glasses": None})
    assert not torch.equal(unknown, worn)
    assert not torch.equal(unknown, bare)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda one: one.sample(0), "n=0; draw at least one"),
        (lambda one: one.sample(1, labels={"Glases": 1}), "Did you mean 'Glasses'"),
        (lambda one: one.sample(1, labels={"Glasses": 2}), "no class, and no number of one"),
        (lambda one: one.sample(3, labels={"Glasses": [1, 0]}), "2 values for 3 images"),
        (lambda one: one.encode(one.sample(1)), "told cannot encode; it can sample"),
    ],
)
def test_what_cannot_be_asked_of_a_gan(runs: Path, ask: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ask(facefactory.load(runs / "told"))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda one: one.encode(torch.zeros(1, 8, 8, 1, dtype=torch.uint8)),
            r"\['N', 16, 16, 1\]",
        ),
        (lambda one: one.encode(torch.zeros(1, 16, 16, 1)), "torch.float32"),
        (lambda one: one.decode(torch.zeros(1, 3)), r"takes \['N', "),
        (lambda one: one.sample(1, labels={"Glasses": 1}), "is told no 'Glasses'"),
    ],
)
def test_what_cannot_be_asked_of_a_vae(runs: Path, ask: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ask(facefactory.load(runs / "vae"))


def test_a_run_that_is_not_there_or_not_finished_says_so(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run folder; there are told, vae.*Did you mean 'vae'"):
        facefactory.load(runs / "vea")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "identity.json"):
        (copy / name).write_bytes((runs / "vae" / name).read_bytes())
    with pytest.raises(UserError, match="copy has no finished stage 'train'"):
        facefactory.load(copy)
    done = copy / "finalists" / "1" / "train" / "DONE.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    with pytest.raises(UserError, match=r"holds runs.* load .*copy/finalists/1\."):
        facefactory.load(copy)


def test_words_of_a_label_come_before_its_numbers() -> None:
    label = Label("categorical", ("red", "green"))
    assert codes_of("hair", label, ["green", 0, None], 3).tolist() == [1, 0, -1]


def test_the_package_itself_loads_no_torch() -> None:
    code = "import facefactory, sys; print(len([n for n in sys.modules if n in ('torch', 'PIL', 'numpy')]))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "0"
    assert facefactory.load.__annotations__["return"] == Loaded.__name__
