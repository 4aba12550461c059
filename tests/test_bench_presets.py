"""What `bench_presets.py` changes in presets, and that they fit its sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bench_presets
import pytest
import yaml

from facefactory import command


def test_all_that_is_counted_in_kimg_follows_the_budget() -> None:
    preset = {
        "model": {"width": 16, "stable_kimg": 6},
        "training": {
            "total_kimg": 60,
            "lr": {0: 3e-3, 60: 5e-4, "shape": "cosine"},
            "ema_half_lives_kimg": [5.0, {0: 0, 60: 2.0, "shape": "cosine"}],
        },
    }
    assert bench_presets.budgeted(preset, 0.5) == {
        "model": {"width": 16, "stable_kimg": 3},
        "training": {
            "total_kimg": 30,
            "lr": {0: 3e-3, 30: 5e-4, "shape": "cosine"},
            "ema_half_lives_kimg": [2.5, {0: 0, 30: 1.0, "shape": "cosine"}],
        },
    }


@pytest.mark.parametrize("name", bench_presets.COURSES)
def test_presets_fit_the_sets_that_they_are_compared_on(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    course = bench_presets.COURSES[name]
    few = dataclasses.replace(course, pack={**course.pack, "limit": 100})
    monkeypatch.setitem(bench_presets.COURSES, name, few)
    bench = bench_presets.Bench(tmp_path, name)
    for preset in few.presets:
        path = tmp_path / f"{preset}.yaml"
        path.write_text(yaml.safe_dump(bench.tree(preset, 1.0)))
        given = [f"config={path}", "dry_run=true", "cluster=local", f"paths.runs={tmp_path}"]
        capsys.readouterr()
        command.start(
            few.family.job,
            ("pack", "train"),
            few.family.preset,
            given,
        )
        assert "total_kimg: 1.0" in capsys.readouterr().out
