"""Planted models on drawn faces and on ORL: real, blurred, ghosted, noisy, copied. What a score is said to see, it orders."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facefactory import UserError, ranks, registry, rundir
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.data.sources import orl as source
from facefactory.evaluation import (
    Evaluation,
    blindness,
    features,
    references,
    scoring,
)
from facefactory.evaluation.distortions import Faces
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.subjects import Context, generator
from facefactory.report import pages
from facefactory.results import Sight
from facefactory.run import Judge as JudgeOptions
from facefactory.training import trainer

FAULTS = ("blur", "ghosting", "noise", "training_faces_copied")
SEVERITIES = (1, 3, 5)  # of six
UNSTEADY = {"is"}  # the inception score of 160 faces, of classes that no face is of
RECIPE = """\
name: {name}
source: folder
root: {root}
labels: labels.csv
kinds: {{Subject: identity}}
group: Subject
split: {{by: part, names: {{train: train, more: more, test: test}}}}
splits: {{train: 0.4, more: 0.4, test: 0.2}}
crop: [0, 14, 92, 106]
origin: AT&T Laboratories Cambridge
licence: credit them
"""
DRAWN = """\
name: drawn
source: drawn
drawn: {images: 400}
splits: {train: 0.4, more: 0.4, test: 0.2}
origin: drawn
licence: none needed
"""


def orl_recipe(folder: Path) -> Path:
    """ORL: five photographs of 32 people to learn, five more of theirs, and eight new people."""
    try:
        found = source.find({}, None)
    except UserError as error:
        pytest.skip(str(error))
    rows = [["file", "Subject", "part"]]
    for name, path in zip(found.names, found.items, strict=True):
        person, number = (int(word.strip("s")) for word in Path(name).with_suffix("").parts)
        part = "test" if person > 32 else "train" if number % 2 else "more"
        rows.append([name, str(person), part])
        (folder / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "faces" / name)
    with open(folder / "labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    (folder / "recipe.yaml").write_text(RECIPE.format(name="orl", root=folder / "faces"))
    return folder / "recipe.yaml"


def drawn_recipe(folder: Path) -> Path:
    """Drawn faces: nobody comes twice, so all that are not learned are new people."""
    (folder / "recipe.yaml").write_text(DRAWN)
    return folder / "recipe.yaml"


@dataclass(frozen=True)
class Planted:
    """A set with a judge, and what scores say of models planted on it."""

    context: Context
    pools: dict[str, Tensor]  # of models that are no fault: real, copied, new people
    sights: dict[str, Sight]  # by network
    values: dict[str, dict[str, dict[str, float]]]  # network -> model -> score -> value


def planted(images: Tensor) -> Any:
    """A model that draws each image of a pool once, and again from the first on."""

    def sample(z: Tensor, c: Tensor) -> Tensor:
        return pixels.to_model(images[torch.arange(len(z)) % len(images)])

    return SimpleNamespace(z_dim=1, sample=sample)


def judge_of(index: Index, folder: Path) -> Judge:
    """The set's own classifier, trained for some seconds."""
    options = JudgeOptions()
    task = trainer.Task(
        model=options.model,
        objective=options.objective,
        shards=Shards(index, "train"),
        options=dataclasses.replace(options.training, total_kimg=10.0),
        seed=0,
        folder=folder,
        identity="judge",
    )
    _, done = trainer.fit(task, ranks.join(torch.device("cpu")))
    return Judge(done.average, rundir.digest(index.images_digest))


def faulty(index: Index) -> dict[str, Tensor]:
    """`fault severity` -> faces as a model with this fault draws them."""
    real, train = (Shards(index, split).images() for split in ("more", "train"))
    faces = Faces(
        real,
        real,
        np.arange(len(real)),
        False,
        train,
    )
    found = {}
    for fault in FAULTS:
        module = registry.module("evaluation.distortions", fault)
        for severity in SEVERITIES:
            found[f"{fault} {severity}"] = module.spoil(faces, module.AMOUNTS[severity])
    return found


def all_scores(context: Context, network: str, pools: dict[str, Tensor]) -> dict[str, Any]:
    """Model -> score -> value."""
    eye = generator.load(network, context)
    protocol = generator.protocol(network, eye, context, 160)
    names = scoring.wanted()
    real = references.of(context.index, protocol, eye, names)
    new = features.keep(eye, [Shards(context.index, "test").images()], names)
    found: dict[str, dict[str, float]] = {}
    for model, images in pools.items():
        fake = features.keep(eye, [images], names)
        found[model] = {}
        for file in scoring.files():
            try:
                found[model] |= scoring.score(file, real, fake, new)
            except ValueError:
                continue  # it needs more images
    return found


SETS = [  # each on a worker of its own
    pytest.param(orl_recipe, id="orl"),
    pytest.param(drawn_recipe, id="drawn"),
]


@pytest.fixture(scope="module", params=SETS)
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("planted")
    plan = recipes.plan(Pack(recipe=str(request.param(folder)), resolution=32, color="gray"))
    index = pack.pack(plan, folder / "packed")
    pools = {
        name: Shards(index, split).images()
        for name, split in {"real": "more", "copied": "train", "new people": "test"}.items()
    }
    cpu = torch.device("cpu")
    judge = judge_of(index, folder)
    context = Context(index, Evaluation(fakes=160), 0, generator.GOAL, cpu, judge, "2")
    with pytest.MonkeyPatch.context() as patch:
        files = {name: registry.module("evaluation.distortions", name) for name in FAULTS}
        patch.setattr(blindness, "_files", lambda: files)
        networks = ("lite0", "judge")
        sights = {name: generator.sight(name, context) for name in networks}
        every = pools | faulty(index)
        values = {name: all_scores(context, name, every) for name in networks}
        yield Planted(context, pools, sights, values)


@pytest.mark.parametrize("network", ["lite0", "judge"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_score_that_is_valid_for_a_fault_orders_models_with_it(
    known: Planted, network: str, fault: str
) -> None:
    sight = known.sights[network]
    values = known.values[network]
    valid = [kind for kind in sight.floor if fault in sight.valid(kind) and kind not in UNSTEADY]
    for kind in valid:
        models = ["real", *(f"{fault} {severity}" for severity in SEVERITIES)]
        sign = 1 if sight.better[kind] == "lower" else -1
        worse = [sign * values[model][kind] for model in models]
        assert worse == sorted(worse), (kind, worse)  # where a score has an end, some are equal
        assert worse[0] < worse[-1], (kind, worse)
    if fault == "training_faces_copied":
        assert {"authenticity", "c_t", "nearest_ratio"} <= set(valid)


EYES = [  # the better model, the worse one
    ("real", "blur 1"),
    ("real", "ghosting 1"),
    ("real", "noise 1"),
    ("new people", "blur 1"),
    ("new people", "ghosting 5"),
    ("new people", "noise 1"),
    *((f"{fault} 1", f"{fault} 5") for fault in ("blur", "ghosting", "noise")),
]


def wrong(values: dict[str, dict[str, float]]) -> list[tuple[str, str]]:
    """The pairs that a kernel distance puts the other way round than eyes."""
    return [(good, bad) for good, bad in EYES if values[good]["kd"] >= values[bad]["kd"]]


def test_the_default_goal_orders_planted_models_as_eyes_do_and_the_judges_distance_does_not(
    known: Planted,
) -> None:
    assert generator.GOAL.metric == "kd_lite0"
    assert set(blindness.NEEDED) <= set(known.sights["lite0"].valid("kd"))
    assert wrong(known.values["lite0"]) == []
    assert wrong(known.values["judge"])
    assert "noise" in known.sights["judge"].blind("kd")


def page_of(known: Planted, images: Tensor, folder: Path) -> tuple[str, dict[str, Any]]:
    """The report of a run whose model draws from a pool, and what was found."""
    (folder / "evaluate").mkdir(parents=True)
    found = generator.full(planted(images), known.context, folder / "evaluate")
    rundir.write_json(folder / "evaluate" / "results.json", {**found, "kimg": 1.0})
    (folder / "command.txt").write_text("python jobs/train_gan.py\n")
    (folder / "config.yaml").write_text("seed: 0\n")
    page, _ = pages.write(folder, {})
    return page.read_text(), found


def test_copies_are_told_and_neither_new_people_nor_new_photographs_are_taken_for_them(
    known: Planted, tmp_path: Path
) -> None:
    verdicts = {}
    for name, images in known.pools.items():
        page, found = page_of(known, images, tmp_path / name)
        scores = {one["name"]: one for one in found["scores"]}
        verdicts[name] = "look for memorised faces" in page
        assert bool(found["copied"]) == verdicts[name] == (scoring.COPIED in page)
        marked = scoring.NEVER_ALONE in scores["kd_judge"]["verdicts"]
        assert marked
        assert scoring.NEVER_ALONE in page
        assert scoring.NEVER_ALONE not in scores["kd_lite0"]["verdicts"]
        if name == "copied":
            assert scores["c_t_lite0"]["value"] < -10
            assert scores["authenticity_lite0"]["value"] == 0
        else:
            assert scores["authenticity_lite0"]["value"] > 0.3
    assert verdicts == {"real": False, "copied": True, "new people": False}
