"""Generators as ONNX graphs: onnxruntime draws what torch draws, for any number of images; without the extra it is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import Faces
from registered import FACTS, small
from test_export import TOLD, trained

from facefactory import UserError, command, conditions, load, registry
from facefactory.stages import _onnx, export

ABSENT = [name for name in _onnx.PACKAGES if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(
    bool(ABSENT), reason=f"{', '.join(ABSENT)} not installed: pip install '.[onnx]'"
)
quiet = pytest.mark.filterwarnings("ignore")  # of the packages' own parts
DRAWING = [
    name
    for name in registry.names("models")
    if hasattr(registry.module("models", name).Component, "sample")
]


def test_without_the_extra_it_is_one_line_before_anything_starts(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(faces)
    monkeypatch.setattr(_onnx, "PACKAGES", ("no_such_package", "torch"))
    with pytest.raises(UserError, match=r"onnx needs no_such_package: pip install"):
        command.start("export", ("export",), None, ["run=r", "export.format=onnx"])
    assert not (tmp_path / "runs" / "r" / "export").exists()


@needs_onnx
@quiet
@pytest.mark.parametrize("name", DRAWING)
def test_every_generator_draws_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = registry.build("models", small("models", name), FACTS).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    drawing = export._drawing(model)
    columns = conditions.width(model.conditions, FACTS.labels)

    shown = export._inputs(
        2,
        model.z_dim,
        columns,
        torch.Generator().manual_seed(1),
    )
    path = tmp_path / "generator.onnx"
    _onnx.write(drawing, shown, path)
    for count in (1, 5):
        inputs = export._inputs(
            count,
            model.z_dim,
            columns,
            torch.Generator().manual_seed(2),
        )
        with torch.no_grad():
            expected = drawing(*inputs)
        found = _onnx.draw(path, inputs)
        assert found.shape == expected.shape
        assert expected.std() > 1e-3
        assert torch.allclose(found, expected, atol=export.TOLERANCE)


@needs_onnx
@quiet
def test_the_job_writes_it_beside_the_others(faces: Faces, tmp_path: Path) -> None:
    trained(faces, *TOLD)
    command.start("export", ("export",), None, ["run=r", "export.format=onnx"])
    folder = tmp_path / "runs" / "r" / "export"
    assert (folder / "generator.pt").exists()
    own = load(tmp_path / "runs" / "r").model
    inputs = torch.randn(3, own.z_dim), torch.randn(3, 2)
    found = _onnx.draw(folder / "generator.onnx", inputs)
    assert torch.allclose(found, own.sample(*inputs), atol=export.TOLERANCE)
