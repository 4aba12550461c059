"""Presets of others' systems: each plans, and trains a little, on drawn faces laid out as the public set that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facefactory import checkpoint, command, conditions, config
from facefactory.data.sources import drawn

PRESETS = Path(__file__).parents[1] / "jobs" / "presets"
CONTENTS = {path.stem: config.read_yaml(path) for path in sorted(PRESETS.glob("*.yaml"))}
EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
COUNT = 40
HEIGHT = 218
WIDTH = 178
SMALL = {
    "width": 8,
    "widest": 16,
    "stable_kimg": 0.02,
    "fade_kimg": 0.02,
}


def presets_of(recipe: str) -> list[str]:
    """Presets that name a public set."""
    packs = {name: content.get("pack") for name, content in CONTENTS.items()}
    return [name for name, pack in packs.items() if pack and pack.get("recipe") == recipe]


# -- public sets as they come, with drawn faces ----------------------------------------------------


def celeba(root: Path) -> None:
    """Attributes that no drawn face shows are dealt at random."""
    (root / "img_align_celeba").mkdir()
    told = [CONTENTS[name]["model"] for name in presets_of("celeba")]
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


def gray_faces() -> list[Any]:
    """48 x 48, the emotions in turn."""
    recipe = {"drawn": {"images": 8 * len(EMOTIONS)}}
    count = recipe["drawn"]["images"]
    return [drawn.load(number, 48, recipe).convert("L") for number in range(count)]


def fer_rows(root: Path) -> None:
    """A row of numbers a face."""
    lines = ["emotion,pixels,Usage"]
    for number, face in enumerate(gray_faces()):
        pixels = " ".join(map(str, np.asarray(face).ravel()))
        usage = ["Training", "Training", "PublicTest", "PrivateTest"][number // len(EMOTIONS) % 4]
        lines.append(f"{number % len(EMOTIONS)},{pixels},{usage}")
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")


def fer_folders(root: Path) -> None:
    """A folder an emotion."""
    for number, face in enumerate(gray_faces()):
        split = ["train", "test"][number // len(EMOTIONS) % 2]
        folder = root / split / EMOTIONS[number % len(EMOTIONS)]
        folder.mkdir(parents=True, exist_ok=True)
        face.save(folder / f"{number}.jpg")


LAYOUTS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "celeba": (celeba,),
    "fer": (fer_rows, fer_folders),
}
CASES = [
    pytest.param(preset, layout, id=f"{preset}-{layout.__name__}")
    for recipe, layouts in LAYOUTS.items()
    for layout in layouts
    for preset in presets_of(recipe)
]
every_preset = pytest.mark.parametrize(("preset", "layout"), CASES)
Root = Callable[[Callable[[Path], None]], Path]


@pytest.fixture(scope="module")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The folder of a public set, laid out once."""
    roots: dict[str, Path] = {}

    def root(layout: Callable[[Path], None]) -> Path:
        name = layout.__name__
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name)
            layout(roots[name])
        return roots[name]

    return root


def start(preset: str, root: Path, *more: str) -> None:
    given = [f"config={preset}", "cluster=local", f"pack.root={root}", "run=mine", *more]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


# -- what they do ----------------------------------------------------------------------------------


@every_preset
def test_it_plans_as_it_is(
    preset: str,
    layout: Callable[[Path], None],
    root_of: Root,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start(preset, root_of(layout), "dry_run=true")
    assert "  train: to run" in capsys.readouterr().out


@every_preset
def test_it_trains_a_little(
    preset: str,
    layout: Callable[[Path], None],
    root_of: Root,
) -> None:
    model = CONTENTS[preset]["model"]
    options = command.registry.options("models", model["name"])
    small = {name: value for name, value in SMALL.items() if name in options}
    for name in ("g_widths", "d_widths", "widths"):
        if name in model:
            small[name] = [8] * len(model[name])
    given = [f"model.{name}={value}" for name, value in small.items()]
    start(preset, root_of(layout), *given, "training.total_kimg=0.1", "training.batch_size=10")

    path = checkpoint.latest(Path("runs/mine/train/checkpoints"))
    assert path is not None
    made, found = checkpoint.rebuild(path)
    facts = checkpoint.facts_of(found)
    c = torch.ones(2, conditions.width(made.conditions, facts.labels))
    drawn_images = made.sample(torch.randn(2, made.z_dim), c)
    assert drawn_images.shape == (2, facts.channels, facts.height, facts.width)
    assert drawn_images.isfinite().all()


@pytest.mark.parametrize("preset", presets_of("fer"))
def test_one_key_chooses_another_emotion(preset: str, root_of: Root) -> None:
    wanted = ["pack.where=emotion == happy", "run=mine"]
    given = [f"config={preset}", "cluster=local", f"pack.root={root_of(fer_rows)}", *wanted]
    command.start("train_gan", ("pack",), "dcgan-orl32", given)
    (index,) = Path().rglob("index.json")
    labels = config.read_yaml(index)["labels"]
    assert labels["emotion"]["classes"] == ["happy"]
