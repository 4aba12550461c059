"""Every file that a later start reads back, empty, cut or of another kind: it is named, and done again or refused in a line."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Faces
from test_jobs import base, quiet_signals, run

assert quiet_signals  # a fixture of every test here

# What jobs read back; pictures, pages, shards and logs are what they leave
READ_BACK = {".json", ".jsonl", ".yaml", ".pt", ".npz", ".parquet"}
TEXTS = {".json", ".jsonl", ".yaml"}


def otherwise(value: Any) -> Any:
    """JSON of the same shape whose values are of other types."""
    if isinstance(value, dict):
        return {name: otherwise(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [otherwise(entry) for entry in value] or 3
    return 3 if isinstance(value, str) or value is None else "three"


def of_other_types(path: Path, content: bytes) -> bytes:
    """The file with values of other types in their places."""
    if path.suffix == ".yaml":
        return b"training: {total_kimg: [a, b], lr: {c: d}}\n"
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    return b"\n".join(json.dumps(otherwise(json.loads(line))).encode() for line in lines) + b"\n"


def of_other_tensors(path: Path, content: bytes) -> bytes:
    """A checkpoint whose parts are something else."""
    if path.suffix != ".pt":
        return b"PK\x03\x04 no array"
    whole = torch.load(path, weights_only=True)
    torch.save({name: entry if name == "format" else "x" for name, entry in whole.items()}, path)
    return path.read_bytes()


DAMAGES: dict[str, Callable[[Path, bytes], bytes]] = {
    "empty": lambda path, content: b"",
    "cut": lambda path, content: content[: len(content) // 2],
    "another kind": lambda path, content: b"3\n" if path.name[0] < "j" else b"[]\n",
    "foreign": lambda path, content: b'{"foreign": {"key": [1, null]}}\n',
    "types": lambda path, content: (
        of_other_types(path, content) if path.suffix in TEXTS else of_other_tensors(path, content)
    ),
}


def state_files() -> list[Path]:
    """All of them, below the folder where jobs work."""
    found = []
    for top in ("runs", "shards", "cache"):
        for path in sorted(Path(top).rglob("*")):
            if path.suffix in READ_BACK and ".old-" not in str(path):
                found.append(path)
    return found


def results(path: Path) -> dict[str, Any]:
    """What a run found: its weights, scores and codes, without the time that it took."""
    done = json.loads((path / "train" / "DONE.json").read_text())["outputs"]
    found = {"weights": done["checkpoint"]}
    for stage in ("evaluate", "interpret"):
        found[stage] = json.loads((path / stage / "results.json").read_text())
    return found


def again(faces: Faces) -> list[int]:
    """The commands of a run once more: their exit codes."""
    codes = [run("train_gan", *base(faces))]
    return codes + [run(job, "run=r") for job in ("evaluate", "interpret", "report", "generate")]


def problem(faces: Faces, path: Path, whole: dict[str, Any], capsys: Any) -> str:
    """What is wrong after the damage of a file; empty: it was named or did not matter, and all is as before."""
    try:
        codes = again(faces)
    except Exception:
        return traceback.format_exc()
    said = capsys.readouterr().err
    if not set(codes) <= {0, 2}:
        return f"{codes}\n{said}"

    # what is refused names the file, or its folder; without it the same commands go on
    if 2 in codes:
        if not {str(path), str(path.parent), path.name} & set(re.findall(r"[\w./-]+\w", said)):
            return f"not named: {said}"
        if f"{path.parent} holds other pictures; remove it" in said:
            shutil.rmtree(path.parent)
        path.unlink(missing_ok=True)
        if again(faces) != [0] * 5:
            return f"{said}\nwithout it: {capsys.readouterr().err}"
    return "" if results(Path("runs/r")) == whole else f"other results\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(DAMAGES)))
def test_a_damaged_file_is_named_and_made_again_or_refused_in_a_line(
    orl: Faces, turn: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each turn damages every file in one way, another one each."""
    assert again(orl) == [0] * 5
    whole = results(Path("runs/r"))
    tops = ("runs", "shards", "cache")
    for top in tops:
        shutil.copytree(top, Path("kept") / top)
    files = state_files()
    assert len({path.name for path in files}) > 12

    problems = []
    for number, path in enumerate(files):
        kind = list(DAMAGES)[(number + turn) % len(DAMAGES)]
        path.write_bytes(DAMAGES[kind](path, path.read_bytes()))
        capsys.readouterr()
        found = problem(orl, path.absolute(), whole, capsys)
        if found:
            problems.append(f"== {path} ({kind})\n{found}")
        for top in tops:
            shutil.rmtree(top)
            shutil.copytree(Path("kept") / top, top)
    assert not problems, "\n".join(problems)
