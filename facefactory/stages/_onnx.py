"""A generator as an ONNX graph, for onnxruntime and what else reads such files: z [N, z_dim], and c [N, columns], of any N.

torch writes it by torch.export, with onnx and onnxscript; onnxruntime says whether it draws the same.
"""

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

from facefactory import Failed, UserError, rundir

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
NAMES = ("z", "c")


def require() -> None:
    """UserError: packages that it takes are not here."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"export.format=onnx needs {', '.join(missing)}: pip install '.[onnx]' here, "
            f"or pip install {' '.join(missing)}; export.format=torch needs nothing."
        )


def write(drawing: Any, shown: tuple[Any, ...], path: Path) -> None:
    """Write a module that draws; `shown`: two or more rows of what it takes.

    Failed: it does something that torch cannot write as ONNX.
    """
    import torch

    rows = torch.export.Dim("images", min=1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter's own parts
            with torch.inference_mode(False), torch.no_grad():
                program = torch.onnx.export(
                    drawing,
                    shown,
                    dynamo=True,
                    input_names=NAMES[: len(shown)],
                    output_names=["images"],
                    dynamic_shapes=tuple({0: rows} for _ in shown),
                    verbose=False,
                )
    except Exception as error:  # of its many kinds none is promised
        reason = str(error).strip().partition("\n")[0]
        raise Failed(
            f"export: torch cannot write this generator as ONNX ({type(error).__name__}: {reason}); "
            "give export.format=torch."
        ) from error
    assert program is not None

    # where torch cannot follow a number of rows it fixes it, and does not say so
    shape = program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):
        raise Failed(
            f"export: torch writes this generator as ONNX for {len(shown[0])} images at once only; "
            "give export.format=torch."
        )
    with rundir.atomic(path) as temporary:
        program.save(str(temporary), external_data=False)


def draw(path: Path, inputs: tuple[Any, ...]) -> Any:
    """Images [N, C, H, W] that onnxruntime draws by a file, on the CPU."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: tensor.numpy() for name, tensor in zip(NAMES, inputs, strict=False)}
    (images,) = session.run(None, given)
    return torch.from_numpy(images)
