"""Generators of other people: TorchScript and safetensors, by a few lines of YAML; then every job works on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Faces
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from facefactory import UserError, command, process, registry, rundir
from facefactory.facts import Facts, Label
from facefactory.stages import of

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
CHAINS = {
    "adopt": (("pack", "adopt"), "foreign"),
    "evaluate": (("pack", "judge", "evaluate"), None),
    "interpret": (("pack", "judge", "interpret"), None),
    "generate": (("generate",), None),
    "report": (("report",), None),
}
FACTS = Facts(
    16,
    16,
    1,
    {"Glasses": Label("binary", ("0", "1"))},
)


class Painter(nn.Module):
    """z [N, 4] -> images [N, 1, 16, 16] in 0…1, as somebody else writes it; with labels, brighter for those that have them."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 256)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.map(z)).view(-1, 1, 16, 16)


class Asked(Painter):
    def forward(self, z: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sigmoid(self.map(z) + 3 * c).view(-1, 1, 16, 16)


def scripted(folder: Path, module: nn.Module | None = None) -> dict[str, Any]:
    """A TorchScript file, and what the YAML says of it."""
    torch.manual_seed(0)
    path = folder / "generator.pt"
    torch.jit.save(torch.jit.script(module or Painter()), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": "torchscript",
        "weights": str(path),
        "sha256": digest,
        "z_dim": 4,
        "range": "zero_to_one",
    }


def tensors(folder: Path) -> dict[str, Any]:
    """The generator of a registered network as safetensors, and what the YAML says of it."""
    network = {"name": "gan/dcgan", "width": 4, "depth": 2, "z_dim": 4}
    model = registry.build("models", network, FACTS)
    path = folder / "generator.safetensors"
    save_file(model.generator.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": "safetensors", "weights": str(path), "sha256": digest, "network": network}


def built(spec: dict[str, Any]) -> Any:
    return registry.build("foreign", spec, FACTS).eval()


# -- the two forms ---------------------------------------------------------------------------------


def test_torchscript_draws_what_its_module_draws_in_our_range(tmp_path: Path) -> None:
    spec = scripted(tmp_path)
    model = built({**spec, "batch": 3})
    z = torch.randn(8, 4)
    with torch.inference_mode():
        wanted = torch.jit.load(spec["weights"])(z)
        found = model.sample(z, torch.empty(8, 0))
    torch.testing.assert_close(
        (found + 1) / 2,
        wanted,
        rtol=0,
        atol=1e-6,
    )
    assert (model.z_dim, model.conditions) == (4, ())


def test_a_conditional_module_takes_the_vector_of_its_labels(tmp_path: Path) -> None:
    model = built({**scripted(tmp_path, Asked()), "conditions": ["Glasses"]})
    z = torch.zeros(2, 4)
    with torch.inference_mode():
        without, within = model.sample(z, torch.tensor([[-1.0], [1.0]])).flatten(1).mean(1)
    assert model.conditions == ("Glasses",)
    assert within > without + 0.5


def test_safetensors_fill_a_registered_network_and_nothing_of_the_file_is_run(
    tmp_path: Path,
) -> None:
    spec = tensors(tmp_path)
    model = built(spec)
    again = built(spec)
    z = torch.randn(3, 4)
    with torch.inference_mode():
        images = model.sample(z, torch.empty(3, 0))
        assert torch.equal(images, again.sample(z, torch.empty(3, 0)))
    assert images.shape == (3, 1, 16, 16)
    assert images.abs().max() <= 1


def test_wrong_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    spec = scripted(tmp_path)
    with pytest.raises(UserError, match="is no file"):
        built({**spec, "weights": "nowhere.pt"})
    with pytest.raises(UserError, match=f"has {spec['sha256']}"):
        built({**spec, "sha256": "0" * 64})
    pickle = tmp_path / "pickle.pt"
    torch.save(Painter(), pickle)
    digest = hashlib.sha256(pickle.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="is no TorchScript file"):
        built({**spec, "weights": str(pickle), "sha256": digest})
    other = tensors(tmp_path)
    with pytest.raises(UserError, match=r"does not fit foreign\.part='generator'"):
        built({**other, "network": {**other["network"], "width": 8}})
    with pytest.raises(UserError, match="option 'z_dim' is missing"):
        built({name: value for name, value in spec.items() if name != "z_dim"})


# -- a run of it -----------------------------------------------------------------------------------


def run(job: str, *arguments: str) -> int:
    names, preset = CHAINS[job]
    here = ["cluster=local", *arguments]
    return process.guarded(lambda: command.start(job, names, preset, here))


def written(faces: Faces, spec: dict[str, Any], **more: Any) -> str:
    """The YAML of a person who brings a generator."""
    content = {
        "pack": {"recipe": str(faces.recipe), "resolution": 16, "color": "gray"},
        "foreign": spec,
        "judge": {
            "model": {"name": "classifier/convnet", "width": 4, "depth": 2},
            "training": {"total_kimg": 0.1},
            "folds": 2,
            "fold_kimg": 0.1,
        },
        **more,
    }
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    return "config=mine.yaml"


def test_every_job_works_on_it(
    faces: Faces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = (written(faces, scripted(tmp_path)), "run=foreign")
    assert run("adopt", *told) == 0, capsys.readouterr().err
    with Image.open("runs/foreign/adopt/samples.png") as shown:
        assert shown.size == (128, 32)
    assert run("generate", "run=foreign", "generate.images=9", "generate.out=drawn") == 0
    drawn = {path.read_bytes() for path in Path("drawn").glob("*.png")}
    assert len(drawn) == 9
    assert run("interpret", "run=foreign", "interpret.samples=60") == 0
    found = rundir.read_json(Path("runs/foreign/interpret/results.json"))
    assert found["space"] == "z"
    assert len(found["dimensions"]) == 4
    capsys.readouterr()

    # the same command again does nothing; other weights are another run
    assert run("adopt", *told) == 0
    assert ": done in" not in capsys.readouterr().err
    torch.manual_seed(1)
    torch.jit.save(torch.jit.script(Painter()), "other.pt")
    digest = hashlib.sha256(Path("other.pt").read_bytes()).hexdigest()
    spec = {**scripted(tmp_path), "weights": "other.pt", "sha256": digest}
    assert run("adopt", written(faces, spec), "run=foreign") == 2
    assert "foreign was" in capsys.readouterr().err


def test_its_score_knows_no_average_and_depends_on_the_weights(
    faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_spoilt: None
) -> None:
    from facefactory.evaluation import scoring

    kept = {name: scoring.files()[name] for name in ("kernel_distance",)}
    monkeypatch.setattr(scoring, "files", lambda: kept)
    assert run("adopt", written(faces, scripted(tmp_path)), "run=foreign") == 0
    quick = ("evaluation.protocol=quick", "evaluation.fakes=40", "evaluation.held_out=test")
    assert run("evaluate", "run=foreign", *quick) == 0
    found = rundir.read_json(Path("runs/foreign/evaluate/results.json"))
    (protocol,) = found["protocols"].values()
    assert (protocol["average"], protocol["fakes"], found["kimg"]) == ("", 40, None)
    assert run("report", "run=foreign") == 0
    assert (
        "a generator of other people (torchscript" in Path("runs/foreign/report.html").read_text()
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"range": "minus_one_to_one"}, None),  # 0…1 lies within -1…1: nobody can tell
        ({"range": "percent"}, "allowed are minus_one_to_one"),
        ({"z_dim": 5}, "it draws nothing from z"),
        ({"conditions": ["Hats"]}, "no label 'Hats'"),
        ({"sha256": ""}, "foreign.sha256"),
        ({"weight": "x"}, "no option 'weight'"),
        ({"name": "pickle"}, "foreign: no 'pickle'"),
    ],
)
def test_mistakes_are_found_before_anything_starts(
    change: dict[str, Any],
    told: str | None,
    faces: Faces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = written(faces, {**scripted(tmp_path), **change})
    assert run("adopt", line, "dry_run=true") == (0 if told is None else 2)
    assert told is None or told in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_set_of_another_size_is_refused_with_both_sizes(
    faces: Faces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = written(faces, scripted(tmp_path))
    assert run("adopt", line, "pack.resolution=8", "dry_run=true") == 2
    assert "it draws [16, 1, 16, 16], the set has [16, 1, 8, 8]" in capsys.readouterr().err
    assert run("adopt", "dry_run=true", f"pack.recipe={faces.recipe}") == 2
    assert "foreign is not given" in capsys.readouterr().err


def test_pixels_out_of_range_are_told(faces: Faces, tmp_path: Path) -> None:
    class Bytes(Painter):
        def forward(self, z: Tensor) -> Tensor:
            return 255 * torch.sigmoid(self.map(z)).view(-1, 1, 16, 16)

    from facefactory.stages import adopt

    with pytest.raises(UserError, match=r"foreign\.range: .* % of its pixels lie outside"):
        adopt._drawn(built(scripted(tmp_path, Bytes())), FACTS)
    assert of("adopt").optional is False
