"""CONTRIBUTING.md: its files are dropped into a copy of the package, edit nothing there, and work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", TEXT, re.S))
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package needs, with the files of the page."""
    top = tmp_path_factory.mktemp("contributing")
    for name in ("facefactory", "jobs", "shards"):
        unneeded = shutil.ignore_patterns("__pycache__", "packed", "judges")
        shutil.copytree(ROOT / name, top / name, ignore=unneeded)
    for name, text in FILES.items():
        assert not (top / name).exists(), f"{name} exists: the page would edit it"
        (top / name).write_text(text)
    return top


def run(checkout: Path, *arguments: str) -> str:
    """What a Python of that checkout prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_pages_files_work_where_they_are_dropped(checkout: Path) -> None:
    assert len(FILES) == 7
    for command in COMMANDS:
        if command.startswith("python "):
            run(checkout, *command.split()[1:])
    folder = checkout / "runs" / "mine"
    counts = json.loads((folder / "count" / "results.json").read_text())
    assert counts == {"train": 36, "test": 12}
    lines = (folder / "train" / "metrics-001.jsonl").read_text().splitlines()
    assert "drift" in json.loads(lines[0])


def test_the_pages_metric_is_one_of_all(checkout: Path) -> None:
    code = (
        "import numpy as np; from facefactory import registry; from facefactory.metrics import moments\n"
        "metric = registry.module('metrics.features', 'mean_distance')\n"
        "ones, twos = np.ones((4, 3)), 2 * np.ones((4, 3))\n"
        "print(metric.score(moments(ones), moments(twos)), 'mean_distance' in registry.names('metrics.features'))"
    )
    assert run(checkout, "-c", code).split() == ["{'mean_distance':", "3.0}", "True"]


AUGMENTATION = '''
"""Dimming: all values are multiplied by one draw (as brightness: Zhao et al., 2020)."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Multiply by 0.75 to 1.25."""
    return images * (0.75 + 0.5 * u[:, :1, None, None]) + 0.1
'''
TRAINED = "gan/linear adversarial"
TESTED = {  # by what is promised of a dropped-in file
    "resumed": f"a_stopped_training_goes_on_as_if_nothing_had_happened[{TRAINED}]",
    "a term resumed": "a_stopped_training_goes_on_as_if_nothing_had_happened[gan/dcgan adversarial terms drift]",
    "gradients": f"accumulation_has_the_gradients_of_the_whole_batch[{TRAINED}]",
    "gradients twice": "augmentation_is_differentiable_twice[dimming]",
    "ranks": "ranks_have_the_gradients_of_one_process_and_survive_a_break[2-first]",
    "dtype": f"every_precision_trains[bfloat16-{TRAINED}]",
    "a model documented": "a_file_is_documented[models/gan/linear]",
    "a term documented": "a_file_is_documented[objectives.terms/drift]",
    "a metric documented": "a_file_is_documented[metrics.features/mean_distance]",
    "a metric refuses": "sets_that_are_too_small_are_refused_with_how_many_are_needed[mean_distance]",
    "a stage kept": "a_stage_depends_on_keys_and_stages_that_exist[count]",
    "a source kept": "a_file_keeps_its_folders_contract[data.sources/gradients]",
}


def test_the_suite_tests_what_is_dropped_without_a_new_test(checkout: Path) -> None:
    shutil.copytree(
        ROOT / "tests",
        checkout / "tests",
        ignore=shutil.ignore_patterns("slurm"),
    )
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / "facefactory" / "training" / "augmentations" / "dimming.py").write_text(
        AUGMENTATION
    )

    # On ranks, and in what is trained, everything that is new stands among the others
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import registered; print(*registered.FIRST, *registered.AUGMENTATIONS, sep='\\n')"
    )
    assert {TRAINED, "gan/dcgan adversarial terms drift", "dimming"} <= set(
        run(checkout, "-c", code).splitlines()
    )

    names = ("training", "registered", "registry", "models", "metrics_folder")
    files = [f"tests/test_{name}.py" for name in names]
    dropped = (
        "linear or drift or dimming or mean_distance or count or sources/gradients or 2-first"
    )
    told = run(
        checkout,
        "-m",
        "pytest",
        *files,
        "-rp",
        "-m",
        "not slow",
        "-k",
        dropped,
    )
    untested = [promise for promise, test in TESTED.items() if f"::test_{test}\n" not in told]
    assert not untested


def test_every_file_that_the_page_names_is_there() -> None:
    walks = TEXT.partition("## The way of an image")[2]
    named = set(re.findall(r"`([\w/]+\.py)`", walks))
    missing = [
        name
        for name in named
        if not ((ROOT / name).exists() or (ROOT / "facefactory" / name).exists())
    ]
    assert not missing
