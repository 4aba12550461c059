"""What holds of every registered file, whatever its folder: it is documented, and keeps its folder's contract."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from registered import small

from facefactory import config, registry, stages
from facefactory.data.sets.index import Index
from facefactory.evaluation import Evaluation, extractors, subjects
from facefactory.facts import Size
from facefactory.interpret import Context, Interpret, Unsuited
from facefactory.results import Goal
from facefactory.run import Run

ROOT = Path(registry.__file__).parent
# packages whose files are modules of one contract: what shared code asks of each
CONTRACTS = {
    "data.sources": ("find",),
    "evaluation.distortions": ("AMOUNTS", "spoil"),
    "evaluation.extractors": ("WEIGHTS", "NEEDS", "RANKS", "NAMES", "load"),
    "evaluation.priors": ("fit",),
    "evaluation.subjects": ("TAKES", "needs", "goal", "admit", "quick", "full"),
    "evaluation.statistics": ("Component",),
    "foreign": ("Component",),
    "interpret.spaces": ("fits", "of"),
    "metrics.codes": ("SCORES", "score"),
    "metrics.features": ("STATISTICS", "SCORES", "score"),
    "metrics.images": ("SCORES", "score"),
    "models": ("Component",),
    "objectives": ("Component",),
    "objectives.critics": ("Component",),
    "objectives.distances": ("Component",),
    "objectives.likelihoods": ("Component",),
    "objectives.strengths": ("Component",),
    "objectives.terms": ("Component",),
    "report.sections": ("Component",),
    "search.engines": ("Component",),
    "search.samplers": ("Component",),
    "search.schedulers": ("Component",),
    "stages": ("Component",),
    "training.augmentations": ("apply",),
    "training.costs": ("QUICK", "estimate"),
}
FILES = [(package, name) for package in CONTRACTS for name in registry.names(package)]

every_file = pytest.mark.parametrize(
    ("package", "name"),
    FILES,
    ids=["/".join(f) for f in FILES],
)


def public(module: ModuleType) -> list[Any]:
    """Functions and classes that a file defines, and the methods of these classes."""
    own = [
        item
        for name, item in vars(module).items()
        if not name.startswith("_") and getattr(item, "__module__", "") == module.__name__
    ]
    functions = [item for item in own if inspect.isfunction(item)]
    classes = [item for item in own if inspect.isclass(item)]
    for kind in classes:
        functions += [
            item
            for name, item in vars(kind).items()
            if inspect.isfunction(item) and not name.startswith("_")
        ]
    return [*classes, *functions]


@every_file
def test_a_file_is_documented(package: str, name: str) -> None:
    module = registry.module(package, name)
    assert inspect.getdoc(module)
    silent = [item.__qualname__ for item in public(module) if not item.__doc__]
    assert not silent


@every_file
def test_a_file_keeps_its_folders_contract(package: str, name: str) -> None:
    module = registry.module(package, name)
    lacking = [wanted for wanted in CONTRACTS[package] if not hasattr(module, wanted)]
    assert not lacking


def test_every_folder_that_is_asked_for_by_name_is_here() -> None:
    asking = r'(?:names|module|build|resolve|Nested|PACKAGE =)[ (]*"([a-z]+(?:\.[a-z]+)?)"'
    asked = set()
    for path in ROOT.rglob("*.py"):
        asked.update(re.findall(asking, path.read_text()))
    packages = {package for package in asked if (ROOT / package.replace(".", "/")).is_dir()}
    assert packages >= {"models", "stages", "objectives.terms", "evaluation.extractors"}
    assert packages <= CONTRACTS.keys()


# -- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("stages"))
def test_a_stage_depends_on_keys_and_stages_that_exist(name: str) -> None:
    stage = stages.of(name)
    keys = [key for key, _, _ in config.leaves(Run)]
    for section in stage.sections:
        known = [key for key in keys if key.startswith(section) or section.startswith(f"{key}.")]
        assert known, section
    for need in stage.needs:
        assert need.partition(".")[0] in registry.names("stages"), need
    assert stage.name == name
    assert stage.kind in ("cpu", "gpu")


# -- what is scored, and networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("evaluation.subjects"))
def test_a_subject_needs_what_stages_make_and_has_a_goal(name: str) -> None:
    subject = subjects.file(name)
    goal = subject.goal(None, Evaluation())
    assert isinstance(goal, Goal)
    assert goal.better in ("lower", "higher")
    assert set(subject.needs(Evaluation())) <= set(registry.names("stages"))


@pytest.mark.parametrize("name", registry.names("evaluation.extractors"))
def test_a_network_sees_an_image_the_same_whatever_stands_beside_it(name: str) -> None:
    if extractors.file(name).NEEDS or extractors.missing(name) is not None:
        pytest.skip("it is trained, or published weights are not here")
    eye = extractors.load(
        name,
        Size(32, 32),
        torch.device("cpu"),
        None,
    )
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(
        0,
        256,
        (eye.batch, 32, 32, 1),
        dtype=torch.uint8,
        generator=draws,
    )
    seen = eye(images).features
    assert seen.shape[0] == eye.batch
    assert seen.isfinite().all()
    assert not seen.requires_grad
    assert torch.equal(eye(images).features, seen)
    torch.testing.assert_close(eye(images.flip(0)).features.flip(0), seen)


# -- latent spaces ---------------------------------------------------------------------------------------------------

DRAWING = [name for name in registry.names("models") if not name.startswith("classifier/")]
SPACES = [(space, name) for space in registry.names("interpret.spaces") for name in DRAWING]


@pytest.mark.parametrize(("space", "name"), SPACES, ids=["-".join(pair) for pair in SPACES])
def test_a_space_has_codes_of_every_model_that_it_fits_and_decodes_them(
    space: str, name: str, index: Index
) -> None:
    model = registry.build("models", small("models", name), index.facts).eval()
    file = registry.module("interpret.spaces", space)
    if not file.fits(model):
        pytest.skip("it is for other models")
    judge = registry.build("models", small("models", "classifier/convnet"), index.facts).eval()
    context = Context(
        index,
        judge,
        Interpret(samples=50),
        0,
        [],
        [],
    )
    try:
        first = file.of(model, context)
    except Unsuited as error:
        pytest.skip(str(error))
    again = file.of(model, context)

    rows, columns = first.codes.shape
    assert first.labels == {}
    assert first.groups.shape == (rows,)
    assert first.scale.shape == (columns,)
    assert first.start.shape == (columns,)
    assert (first.codes == again.codes).all()
    assert torch.equal(first.start, again.start)
    with torch.inference_mode():
        images = first.decode(first.start.expand(2, -1))
    facts = index.facts
    assert images.shape == (2, facts.channels, facts.height, facts.width)
    assert images.isfinite().all()
