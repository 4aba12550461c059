"""Drawn faces as shards, and small trainings on them: what tests and bench of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from facefactory import registry
from facefactory.data import Data
from facefactory.data.sets.index import FORMAT, Content, Index, Split, write
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.shard import write_shard
from facefactory.data.sources import drawn
from facefactory.facts import Label
from facefactory.training import Training
from facefactory.training.trainer import Task

RECIPE = Path(__file__).parents[2] / "shards" / "drawn.yaml"
GAN = ({"name": "gan/dcgan"}, {"name": "adversarial"})
VAE = ({"name": "vae/conv"}, {"name": "elbo"})
CLASSIFIER = ({"name": "classifier/convnet"}, {"name": "classification"})
LABELS = ("Smiling", "Eyeglasses", "Blond_Hair")
MOST_DRAWN = 1024  # at 5 ms each
SMALL = {"width": 8, "depth": 2}


def packed(folder: Path, count: int, side: int, shard_images: int = 256) -> Index:
    """So many drawn faces, RGB, as shards of one split `train`; of a large set each face comes moved a few times.

    Written without the packer, which needs a package more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = min(count, MOST_DRAWN)
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["drawn"]["images"] = own
    table = drawn.find(recipe, None).table
    faces = [np.asarray(drawn.load(item, side, recipe).convert("RGB")) for item in range(own)]
    rows = pd.DataFrame({"file": [f"{number}.png" for number in range(count)]})
    for name in LABELS:
        rows[name] = table[name].to_numpy(np.int32)[np.arange(count) % own]

    def face(number: int) -> np.ndarray:
        return np.ascontiguousarray(np.roll(faces[number % own], number // own, axis=1))

    shards = []
    for number, first in enumerate(range(0, count, shard_images)):
        part = range(first, min(first + shard_images, count))
        stem = f"{folder}/train-{number:06d}"
        some = rows.iloc[part.start : part.stop]
        shard, skipped = write_shard(stem, first, part, some, face, "raw")
        assert not skipped
        shards.append(shard)
    content = Content(
        format=FORMAT,
        storage="raw",
        dataset="drawn",
        resolution=side,
        channels=3,
        labels=dict.fromkeys(LABELS, Label("binary", ("0", "1"))),
        splits={"train": Split(count, shards)},
    )
    return write(folder, content)


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


def lacking() -> str | None:
    """Why there is no GPU here; None: there is one."""
    if torch.cuda.is_available():
        return None
    return (
        f"no GPU here: torch {torch.__version__}, built for CUDA {torch.version.cuda}, sees none"
    )
