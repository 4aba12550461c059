"""The bench on GPUs, in the small on a CPU: every case runs, and what is written can be read."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The file beside this one; tests/bench.py has the same name."""
    path = Path(__file__).parent / "bench.py"
    spec = importlib.util.spec_from_file_location("gpu_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    import sys

    sys.modules["gpu_bench"] = module
    spec.loader.exec_module(module)
    return module


def test_every_case_runs_in_the_small(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert bench.main(["--tiny", "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "gpu-bench.json").read_text())
    assert report["surroundings"]["torch"] == torch.__version__
    assert "no figure means anything" in report["surroundings"]["mode"]
    measured = {line["name"]: line for line in report["cases"]}
    left_out = {line["name"] for line in report["left_out"]}
    names = {case.name for case in bench.CASES}
    assert names <= measured.keys() | left_out
    assert names & left_out == {name for name in names if name.endswith("compiled")}
    assert all(line["images_per_s"] > 0 for line in measured.values())
    for name in ("DCGAN, float32", bench.GOAL, "VAE, float32"):
        line = measured[name]
        assert line["ratio_low"] <= line["ratio"] <= line["ratio_high"]
        assert line["busy"] is None
        assert line["peak_gb"] is None

    page = (tmp_path / "gpu-bench.md").read_text()
    assert page in capsys.readouterr().out
    assert all(f"| {name} |" in page for name in measured)
    assert "not measured (–)" in page


def test_goals_are_judged_by_what_was_measured(bench: ModuleType) -> None:
    fast = bench.Measured(
        bench.GOAL,
        61_000.0,
        20_000.0,
        3.05,
        busy=0.94,
    )
    scored = bench.Measured("50,000 samples, looked at by Inception and scored", 900.0, seconds=55)
    reached = [one["reached"] for one in bench.goals([fast, scored])]
    assert reached == [True, True, False, True]
    assert [one["reached"] for one in bench.goals([])] == [None] * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("bench: no GPU here: torch ")
    assert "nothing was measured" in told
    assert not (tmp_path / "out").exists()
