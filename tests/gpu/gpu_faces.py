"""Drawn faces as shards, and small trainings on them: what tests and bench of this folder share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import yaml

from facefactory import registry
from facefactory.data import Data, Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.training import Training
from facefactory.training.trainer import Task

RECIPE = Path(__file__).parents[2] / "shards" / "drawn.yaml"
GAN = ({"name": "gan/dcgan"}, {"name": "adversarial"})
VAE = ({"name": "vae/conv"}, {"name": "elbo"})
CLASSIFIER = ({"name": "classifier/convnet"}, {"name": "classification"})
SMALL = {"width": 8, "depth": 2}


def packed(folder: Path, count: int, side: int, shard_images: int = 256) -> Index:
    """So many drawn faces, RGB, as shards; nine in ten are the split `train`."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["drawn"]["images"] = count
    path = folder / "drawn.yaml"
    path.write_text(yaml.safe_dump(recipe))
    options = Pack(
        recipe=str(path),
        resolution=side,
        color="rgb",
        shard_images=shard_images,
        workers=min(8, len(os.sched_getaffinity(0))),
        keep=["Smiling", "Eyeglasses", "Blond_Hair"],
    )
    return pack.pack(recipes.plan(options), folder / "shards")


def task(
    index: Index,
    folder: Path,
    kind: tuple[dict[str, Any], dict[str, Any]],
    data: Data | None = None,
    seed: int = 3,
    sizes: dict[str, Any] = SMALL,
    **options: Any,
) -> Task:
    """A training without lines, samples or checkpoints, but for the last, unless `options` of Training say otherwise."""
    model, objective = kind
    known = registry.options("models", model["name"])
    fitting = {name: value for name, value in sizes.items() if name in known}
    quiet = {"log_kimg": 0.0, "sample_kimg": 0.0, "checkpoint_s": 0.0, "log_s": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    return Task(
        model=registry.resolve("models", {**model, **fitting}),
        objective=registry.resolve("objectives", objective),
        shards=Shards(index, "train"),
        options=Training(**{**quiet, "batch_size": 12, "total_kimg": 0.072, **options}),
        seed=seed,
        folder=folder,
        identity="a training of the tests on GPUs",
        data=data or Data(),
    )


def require_device(name: str) -> torch.device:
    """A device that is there; the reason why not is an error's text."""
    if name == "cuda" and not torch.cuda.is_available():
        built = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}"
        raise LookupError(f"no GPU here: {built}, sees none")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)
