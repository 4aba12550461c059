"""A generator for other programs: its files draw what the run draws, without this project, and come back by jobs/adopt.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Faces
from PIL import Image
from safetensors.torch import load_file

from facefactory import Failed, command, load
from facefactory.stages import export

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
TOLD = ["model.name=gan/facegen", "model.conditions=[Glasses,Beard]"]
VAE = ["model.name=vae/conv", "objective.name=elbo", "model.depth=2"]


def trained(faces: Faces, *more: str) -> None:
    tiny = ["training.total_kimg=0.048", "training.batch_size=12", "pack.resolution=16"]
    given = ["run=r", "cluster=local", f"pack.recipe={faces.recipe}", *tiny, *more]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


@pytest.mark.parametrize("model", [[], TOLD, VAE], ids=["plain", "told", "vae"])
def test_the_files_draw_what_the_run_draws_and_come_back(
    faces: Faces, tmp_path: Path, model: list[str]
) -> None:
    trained(faces, *model)
    command.start("export", ("export",), None, ["run=r"])
    folder = tmp_path / "runs" / "r" / "export"
    own = load(tmp_path / "runs" / "r").model
    columns = 2 if model is TOLD else 0

    # TorchScript and safetensors
    z = torch.randn(7, own.z_dim)
    c = torch.randn(7, columns)
    read = torch.jit.load(str(folder / "generator.pt"))
    images = read(z, c) if columns else read(z)
    assert torch.allclose(images, own.sample(z, c), atol=1e-5)
    weights = load_file(folder / "generator.safetensors")
    assert weights.keys() == own.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in own.state_dict().items())

    # the loader knows nothing of this project
    alone = [sys.executable, "-P", "-W", "ignore", str(folder / "draw.py"), "2"]
    assert "facefactory" not in (folder / "draw.py").read_text()
    subprocess.run(
        alone,
        check=True,
        cwd=tmp_path,
    )
    drawn = torch.randn(
        2,
        own.z_dim,
        generator=torch.Generator().manual_seed(0),
    )
    shown = own.sample(drawn, torch.zeros(2, columns))
    with Image.open(tmp_path / "0001.png") as picture:
        difference = np.array(picture) / 127.5 - 1 - shown[1, 0].numpy()
    assert abs(difference).max() <= 1.01 / 255

    # and it comes back
    back = [f"config={folder / 'foreign.yaml'}", "run=back", "cluster=local"]
    command.start("adopt", ("pack", "adopt"), "foreign", back)
    adopted = load(tmp_path / "runs" / "back").sample(4).int()
    assert (adopted - load(tmp_path / "runs" / "r").sample(4).int()).abs().max() <= 1


def test_files_that_draw_something_else_are_not_left_as_done(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(faces)
    monkeypatch.setattr(export, "_compare", lambda *_: 0.5)
    with pytest.raises(Failed, match=r"differ by 0\.5 from those of the run"):
        command.start("export", ("export",), None, ["run=r"])
    assert not (tmp_path / "runs" / "r" / "export" / "DONE.json").exists()
