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


def test_every_file_that_the_page_names_is_there() -> None:
    walks = TEXT.partition("## The way of an image")[2]
    named = set(re.findall(r"`([\w/]+\.py)`", walks))
    missing = [
        name
        for name in named
        if not ((ROOT / name).exists() or (ROOT / "facefactory" / name).exists())
    ]
    assert not missing
