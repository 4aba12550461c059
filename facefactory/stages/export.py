"""The averaged generator for other programs: TorchScript, safetensors, a loader that needs torch alone, YAML for jobs/adopt.py, and ONNX."""

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from facefactory import Failed, UserError, rundir, say
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, _onnx, of
from facefactory.stages._sets import index_of

TOLERANCE = 1e-5  # between an image of the model and the same of the file, in units of -1…1
TRACED = 2  # images that are drawn to write it
CHECKED = 5  # images that are drawn to compare it
LOADER = '''\
"""Draw faces from generator.pt, which lies beside this file; it needs torch, and Pillow to save them.

    python draw.py 16

From Python: images = load()(z) with z [N, {z_dim}] standard normal gives [N, {channels}, {height}, {width}] in -1…1.
Loading TorchScript runs code of whoever wrote the file: mind where you got it from.
"""

import sys
from pathlib import Path

import torch

Z_DIM = {z_dim}
CONDITIONS = {conditions}  # what the columns of c say: binary labels as -1 and 1, others as 0 and 1 a class


def load(path=Path(__file__).with_name("generator.pt")):
    """The generator: z [N, Z_DIM], or (z, c [N, len(CONDITIONS)]), -> images in -1…1."""
    return torch.jit.load(str(path), map_location="cpu").eval()


def draw(count, seed=0, c=None):
    """[count, height, width, channels] uint8; c: zeros, which say nothing, unless they are given."""
    z = torch.randn(count, Z_DIM, generator=torch.Generator().manual_seed(seed))
    if c is None:
        c = torch.zeros(count, len(CONDITIONS))
    with torch.inference_mode():
        images = load()(z, c) if CONDITIONS else load()(z)
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1)


if __name__ == "__main__":
    from PIL import Image

    for number, image in enumerate(draw(int(sys.argv[1])).numpy()):
        Image.fromarray(image.squeeze()).save(f"{{number:04d}}.png")
'''


class Component(Stage):
    """Leaves `weights`: the digest of generator.pt."""

    sections = ("export.",)
    late = True
    kind = "cpu"
    share = "scores"

    def asks(self, run: Run) -> tuple[str, ...]:
        """The model, and the set whose labels it may be told."""
        return (of(run.subject).output(run, "checkpoint"), "pack.folder")

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """What writes the format is here."""
        if run.export.format == "onnx":
            _onnx.require()

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Write it, read it back, and compare.

        Raises:
            UserError: the model draws nothing.
            Failed: what was read back draws other images.
        """
        import torch
        import yaml
        from safetensors.torch import save_file

        from facefactory import conditions

        model = of(run.subject).made(run, folder).cpu()
        if not hasattr(model, "sample"):
            raise UserError(
                f"the model of {folder.path.name} draws no images; give run=… of a GAN or a VAE."
            )
        facts = index_of(folder).facts
        names: tuple[str, ...] = getattr(model, "conditions", ())
        columns = conditions.width(names, facts.labels)

        # the files
        target = folder.stage(self.name)
        script = target / "generator.pt"
        tensors = target / "generator.safetensors"
        generator = torch.Generator().manual_seed(run.seed)
        shown = _inputs(TRACED, model.z_dim, columns, generator)
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")  # of a form that newer ones shall replace
            traced = torch.jit.trace(_drawing(model), shown, check_trace=False)
            with rundir.atomic(script) as temporary:
                traced.save(str(temporary))
            worst = _compare(_of_script(script), model, columns, generator)
        _require_equal(script, worst, run)
        weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
        with rundir.atomic(tensors) as temporary:
            save_file(weights, temporary)

        # how to read them
        digest = rundir.sha256(script)
        words = _words(names, facts.labels)
        size = {"channels": facts.channels, "height": facts.height, "width": facts.width}
        loader = target / "draw.py"
        with rundir.atomic(loader) as temporary:
            temporary.write_text(LOADER.format(z_dim=model.z_dim, conditions=words, **size))
        foreign = {
            "name": "torchscript",
            "weights": str(script),
            "sha256": digest,
            "z_dim": model.z_dim,
            "conditions": list(names),
        }
        recipe = target / "foreign.yaml"
        with rundir.atomic(recipe) as temporary:
            told = {"foreign": foreign, "pack": dataclasses.asdict(run.pack)}
            temporary.write_text(yaml.safe_dump(told, sort_keys=False))
        say(f"export: {script}, equal to {worst:.1g}; draw.py beside it draws from it")
        files = [script, tensors, loader, recipe]
        if run.export.format == "onnx":
            graph = target / "generator.onnx"
            _onnx.write(_drawing(model), shown, graph)
            worst = _compare(partial(_onnx.draw, graph), model, columns, generator)
            _require_equal(graph, worst, run)
            say(
                f"export: {graph}, equal to {worst:.1g}; {', '.join(_onnx.NAMES[: len(shown)])} -> images"
            )
            files.append(graph)
        return {"weights": digest}, files


def _inputs(count: int, z_dim: int, columns: int, generator: Any) -> tuple[Any, ...]:
    """z, and conditions where there are some."""
    import torch

    z = torch.randn(count, z_dim, generator=generator)
    return (z, torch.randn(count, columns, generator=generator)) if columns else (z,)


def _drawing(model: Any) -> Any:  # a class that needs torch
    """`sample` as a module's forward."""
    import torch
    from torch import nn

    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
            given = z.new_zeros(z.shape[0], 0) if c is None else c
            images: torch.Tensor = self.model.sample(z, given)
            return images

    return Drawing().eval()


def _of_script(script: Path) -> Callable[[tuple[Any, ...]], Any]:
    """What draws by a file of TorchScript."""
    import torch

    read = torch.jit.load(str(script), map_location="cpu")
    return lambda inputs: read(*inputs)


def _compare(
    drawn: Callable[[tuple[Any, ...]], Any], model: Any, columns: int, generator: Any
) -> float:
    """The largest difference of an image drawn by a file from the model's own, for another number of images."""
    import torch

    inputs = _inputs(CHECKED, model.z_dim, columns, generator)
    with torch.no_grad():
        return float((drawn(inputs) - _drawing(model)(*inputs)).abs().max())


def _require_equal(path: Path, worst: float, run: Run) -> None:
    """Failed: images of a file differ from those of the run."""
    if worst > TOLERANCE:
        raise Failed(
            f"export: images of {path} differ by {worst:.2g} from those of the run (allowed is {TOLERANCE:g}): "
            f"{run.model['name']} does something that what writes such files cannot follow."
        )


def _words(names: tuple[str, ...], labels: Any) -> list[str]:
    """What each column of the condition vector says."""
    words = []
    for name in names:
        label = labels[name]
        words += [name] if label.columns == 1 else [f"{name}={word}" for word in label.classes]
    return words
