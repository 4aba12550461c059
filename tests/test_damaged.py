"""Every file that a later start reads back, empty, cut or of another kind: it is named, and done again or refused in a line."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Faces
from test_jobs import base, run

# What jobs read back; pictures, pages, shards and logs are what they leave
READ_BACK = {".json", ".jsonl", ".yaml", ".pt", ".npz", ".parquet"}
TOPS = ("runs", "shards", "cache")
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
    for top in TOPS:
        for path in sorted(Path(top).rglob("*")):
            if path.suffix in READ_BACK and ".old-" not in str(path):
                found.append(path)
    return found


@dataclass(frozen=True)
class Chain:
    """Commands that are given again and again, and what they leave."""

    commands: list[list[str]]
    stages: tuple[str, ...]  # whose results.json tells what they found
    capsys: pytest.CaptureFixture[str]

    def again(self) -> list[int]:
        """The exit codes of all commands, given once more."""
        return [run(*command) for command in self.commands]

    def results(self) -> dict[str, Any]:
        """The weights, scores and codes of the run, without the time that they took."""
        home = Path("runs/r")
        done = json.loads((home / "train" / "DONE.json").read_text())
        found = {"weights": done["outputs"]["checkpoint"]}
        for stage in self.stages:
            found[stage] = json.loads((home / stage / "results.json").read_text())
        return found

    def problem(self, path: Path, whole: dict[str, Any]) -> str:
        """What is wrong after the damage of a file.

        Empty: it was named or did not matter, and all is as before.
        """
        self.capsys.readouterr()
        try:
            codes = self.again()
        except Exception:
            return traceback.format_exc()
        said = self.capsys.readouterr().err
        if not set(codes) <= {0, 2}:
            return f"{codes}\n{said}"

        # what is refused names the file, or its folder; without it the same commands go on
        if 2 in codes:
            if str(path) not in said and f"{path.parent} " not in said:
                return f"not named: {said}"
            if f"{path.parent} holds other pictures; remove it" in said:
                shutil.rmtree(path.parent)
            path.unlink(missing_ok=True)
            if any(self.again()):
                return f"{said}\nwithout it: {self.capsys.readouterr().err}"
        return "" if self.results() == whole else f"other results\n{said}"

    def problems(self, turn: int) -> str:
        """Damage each file in a way of its own, another one each turn; what is wrong after that."""
        assert not any(self.again()), self.capsys.readouterr().err
        whole = self.results()
        tops = [top for top in TOPS if Path(top).exists()]
        for top in tops:
            shutil.copytree(top, Path("kept") / top)

        found = []
        for number, path in enumerate(state_files()):
            kind = list(DAMAGES)[(number + turn) % len(DAMAGES)]
            path.write_bytes(DAMAGES[kind](path, path.read_bytes()))
            wrong = self.problem(path.absolute(), whole)
            if wrong:
                found.append(f"== {path} ({kind})\n{wrong}")
            for top in tops:
                shutil.rmtree(top)
                shutil.copytree(Path("kept") / top, top)
        return "\n".join(found)


@pytest.mark.parametrize(
    "turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, 5))]
)
def test_a_damaged_file_of_a_training_is_named_and_made_again_or_refused_in_a_line(
    faces: Faces, turn: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = Chain([["train_gan", *base(faces)], ["report", "run=r"]], (), capsys)
    assert chain.problems(turn) == ""
    names = {path.name for path in state_files()}
    assert names >= {"DONE.json", "STAGE.json", "owner.json", "identity.json", "config.yaml"}
    assert names >= {"jobs.jsonl", "index.json", "metrics-001.jsonl", "report.json"}


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(5))
def test_a_damaged_file_of_scores_is_named_and_made_again_or_refused_in_a_line(
    orl: Faces, turn: int, capsys: pytest.CaptureFixture[str], few_spoilt: None
) -> None:
    commands = [["train_gan", *base(orl)]]
    commands += [[job, "run=r"] for job in ("evaluate", "interpret", "report", "generate")]
    chain = Chain(commands, ("evaluate", "interpret"), capsys)
    assert chain.problems(turn) == ""
    names = {re.sub(r"^[0-9a-f]{16}-", "", path.name) for path in state_files()}
    assert names >= {"results.json", "sight.json", "generate.json", "index.json"}
