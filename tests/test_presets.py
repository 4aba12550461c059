"""Presets of others' systems: each plans, and trains a little, on drawn faces laid out as the public set that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facefactory import checkpoint, command, conditions, config
from facefactory.data.sources import drawn

PRESETS = Path(__file__).parents[1] / "jobs" / "presets"
COUNT = 40
HEIGHT = 218
WIDTH = 178


def celeba_presets() -> list[str]:
    """Presets that name the public set."""
    contents = {path.stem: config.read_yaml(path) for path in sorted(PRESETS.glob("*.yaml"))}
    return [name for name, content in contents.items() if "celeba" in str(content.get("pack"))]


ON_CELEBA = celeba_presets()


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces as CelebA comes; attributes that no drawn face shows are dealt at random."""
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    told = [config.read_yaml(PRESETS / f"{name}.yaml")["model"] for name in ON_CELEBA]
    names = sorted({name for model in told for name in model.get("conditions", [])})
    recipe = {"drawn": {"images": COUNT}}
    shown = drawn.find(recipe, None).table
    rng = np.random.default_rng(0)
    lines = [str(COUNT), " ".join(names)]
    for number in range(COUNT):
        side = (HEIGHT - WIDTH) // 2
        face = drawn.load(number, HEIGHT, recipe).crop((side, 0, side + WIDTH, HEIGHT))
        name = f"{number + 1:06d}.jpg"
        face.convert("RGB").save(root / "img_align_celeba" / name)
        dealt = rng.integers(0, 2, len(names))
        values = [
            int(shown[attribute].iloc[number]) if attribute in shown else int(dealt[column])
            for column, attribute in enumerate(names)
        ]
        lines.append(" ".join([name, *("1" if value else "-1" for value in values)]))
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return root


def start(preset: str, root: Path, *more: str) -> None:
    given = [f"config={preset}", "cluster=local", f"pack.root={root}", "run=mine", *more]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


@pytest.mark.parametrize("preset", ON_CELEBA)
def test_it_plans_as_it_is(
    preset: str,
    celeba: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    start(preset, celeba, "dry_run=true")
    assert "  train: to run" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ON_CELEBA)
def test_it_trains_a_little(
    preset: str, celeba: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = command.registry.options(
        "models", config.read_yaml(PRESETS / f"{preset}.yaml")["model"]["name"]
    )
    small = {"width": 8, "g_widths": [8, 8, 8], "d_widths": [8, 8, 8]}
    given = [f"model.{name}={value}" for name, value in small.items() if name in options]
    start(preset, celeba, *given, "training.total_kimg=0.1", "training.batch_size=10")

    path = checkpoint.latest(Path("runs/mine/train/checkpoints"))
    assert path is not None
    model, found = checkpoint.rebuild(path)
    facts = checkpoint.facts_of(found)
    c = torch.ones(2, conditions.width(model.conditions, facts.labels))
    drawn_images = model.sample(torch.randn(2, model.z_dim), c)
    assert drawn_images.shape == (2, 3, facts.height, facts.width)
    assert drawn_images.isfinite().all()
