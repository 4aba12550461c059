"""Checkpoints on a disk that is full: the file is named, the last one stays."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from facefactory import UserError, checkpoint, process, rundir

HERE = """
import subprocess, sys
from pathlib import Path
import torch
from facefactory import checkpoint, process, rundir

def saved(values, clock):
    state = {"w": torch.arange(float(values))}
    made = checkpoint.Checkpoint({}, {}, {}, state, {}, {"5": {".": state}}, {"net": {"state": {0: {"exp_avg": state["w"]}}}}, clock, "x", [])
    checkpoint.save(folder, made, lambda: None)

folder = Path(sys.argv[1], "run")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", sys.argv[1]], check=True)
saved(20000, 1000)
print(process.guarded(lambda: saved(400000, 2000)))
print(sorted(path.name for path in folder.iterdir()), len(checkpoint.load(checkpoint.latest(folder)).networks["w"]))
filler = Path(sys.argv[1], "filler")
with open(filler, "wb") as stream:
    try: stream.write(bytes(2**21))
    except OSError: pass
print(process.guarded(lambda: [rundir.append_json(folder / "jobs.jsonl", {"a": "b" * 5000}) for _ in range(9)]))
"""


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays() -> None:
    with tempfile.TemporaryDirectory() as top:
        command = ["unshare", "--mount", sys.executable, "-c", HERE, top]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
        )
    if "unshare failed" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip("no file system of its own can be mounted here")
    assert ran.stdout.splitlines() == ["2", "['checkpoint-000000001000.pt'] 20000", "2"], (
        ran.stderr
    )
    first, second = (line for line in ran.stderr.splitlines() if line.startswith("error:"))
    path = f"{top}/run/checkpoint-000000002000.pt"
    assert first.startswith(
        f"error: no room left for {path} (No space left on device; it needs 0.005 GB); 0.001 GB are free there. "
    )
    assert first.endswith("run the same command again: it goes on from what is saved.")
    assert "Make room" in first
    assert f"no room left for {top}/run/jobs.jsonl" in second
    assert "Traceback" not in ran.stderr


def test_torchs_own_words_for_a_full_disk_become_the_disks(tmp_path: Path) -> None:
    state = {"w": torch.arange(100000.0)}
    content = {"networks": state, "average": state, "optimisers": {"net": {"state": [state["w"]]}}}
    with pytest.raises(OSError, match=r"it needs 0\.001 GB") as full:
        checkpoint._write(Path("/dev/full"), content, tmp_path / "checkpoint.pt")
    assert (full.value.errno, full.value.filename) == (
        errno.ENOSPC,
        str(tmp_path / "checkpoint.pt"),
    )
    with pytest.raises(TypeError):  # another fault of torch.save keeps its own words
        checkpoint._write(
            tmp_path / "a.pt", {**content, "odd": (one for one in "abc")}, tmp_path / "a.pt"
        )


def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(number: int) -> None:
        with rundir.atomic(tmp_path / "report.html"):
            raise OSError(number, "as a write says it, without a name")

    for number, words in (
        (errno.ENOSPC, "No space left on device"),
        (errno.EDQUOT, "Disk quota exceeded"),
    ):
        assert process.guarded(lambda number=number: write(number)) == 2  # type: ignore[misc]
        said = capsys.readouterr().err
        assert f"error: no room left for {tmp_path / 'report.html'} ({words})" in said
        assert ("quota is used up" in said) == (number == errno.EDQUOT)
    assert process.guarded(lambda: write(errno.EIO)) == 1  # another fault of the machine
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000000001000.pt").write_bytes(b"cut")
    with pytest.raises(
        UserError, match=r"checkpoint-000000001000\.pt is not a checkpoint this version reads"
    ):
        checkpoint.load(tmp_path / "checkpoint-000000001000.pt")
