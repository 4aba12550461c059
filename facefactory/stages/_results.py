"""How stages that measure leave what they found."""

from pathlib import Path
from typing import Any

from facefactory import rundir
from facefactory.stages import Outputs


def results(folder: Path, found: dict[str, Any]) -> Outputs:
    """Write results.json beside the pictures of a stage."""
    path = folder / "results.json"
    rundir.write_json(path, found)
    return {"results": rundir.sha256(path)}, [path, *sorted(folder.glob("*.png"))]
