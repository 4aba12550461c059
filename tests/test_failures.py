"""Why things ended: each class from real exceptions, from a process that was really killed, and from what Slurm really printed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import captured

from facefactory import Missing, UserError, failures, rundir, trials
from facefactory.cluster import states, status
from facefactory.failures import Failure, Kind
from facefactory.training.health import Collapsed
from facefactory.trials import Finalist, Trial


def raised(work: Any) -> BaseException:
    """What a function raises."""
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def full() -> None:
    """Write to a device that is always full."""
    with open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")


CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB"
ALLOC = "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"


def too_much_for_numpy() -> None:
    np.empty(2**55)


def too_much_for_torch() -> None:
    torch.empty(2**55)


def too_much_for_python() -> None:
    bytearray(2**60)


def missing_key() -> None:
    assert {}["key"]


REAL: dict[str, tuple[Kind, Any]] = {
    "torch": ("host memory", too_much_for_torch),
    "numpy": ("host memory", too_much_for_numpy),
    "python": ("host memory", too_much_for_python),
    "cuda": ("gpu memory", torch.OutOfMemoryError(CUDA)),
    "cublas": ("gpu memory", RuntimeError(ALLOC)),
    "disk": ("disk", full),
    "nan": ("nan", FloatingPointError("loss_d not finite at 3 kimg")),
    "collapse": ("collapse", Collapsed("all faces are alike")),
    "user": ("user error", UserError("model.width=0; give at least 1")),
    "weights": ("user error", Missing("no weights")),
    "bug": ("unknown", missing_key),
}


@pytest.mark.parametrize("name", REAL)
def test_an_exception_tells_its_class_itself_and_by_the_words_that_it_leaves(name: str) -> None:
    kind, made = REAL[name]
    error = made
    if not isinstance(made, Exception):
        error = raised(made)
    found = failures.of_error(error)
    assert (found.kind, found.key) == (kind, failures.KINDS[kind].key)
    assert found.evidence.startswith(type(error).__name__)
    if name != "numpy":  # whose name for it is private
        assert failures.of_words(f"Traceback …\n{type(error).__name__}: {error}").kind == kind


LOG_LINES: dict[str, Kind] = {
    "slurmstepd: error: StepId=7.0 exceeded memory limit (61000 > 51200)": "host memory",
    "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch": "host memory",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT … DUE TO TIME LIMIT ***": "timeout",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT … DUE TO PREEMPTION ***": "preempted",
    "slurmstepd: error: *** JOB 7 CANCELLED AT … DUE TO NODE FAILURE …": "node",
    "failed: mode collapse: squared distances between generated images": "collapse",
    "failed: loss_g not finite at 3 kimg: the training diverged": "nan",
    "error: model.width=0": "user error",
    "train: 12 kimg, 95 images/s": "unknown",
}


@pytest.mark.parametrize("line", LOG_LINES)
def test_a_log_tells_its_class_wherever_the_line_stands(line: str) -> None:
    kind = LOG_LINES[line]
    found = failures.of_words(f"train: 1 kimg\n{line}\nsrun: error: n1: task 0: Exited")
    assert found.kind == kind
    assert found.evidence == (line if kind != "unknown" else "srun: error: n1: task 0: Exited")


def test_a_process_that_was_killed_and_one_that_refused_tell_theirs_by_exit_code() -> None:
    kill = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    code = subprocess.run([sys.executable, "-c", kill], check=False).returncode
    assert failures.of_code(code) == Failure("killed", "exit code 137", "memory_gb")
    assert failures.of_code(2).kind == "user error"
    assert failures.of_code(1).kind == "unknown"


CAPTURED: dict[str, Kind] = {
    "failed": "unknown",
    "never ran": "dependency",
    "killed": "killed",
    "cancelled": "cancelled",
    "time limit": "timeout",
    "node lost": "node",
}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_slurm_printed_tells_its_class(name: str) -> None:
    kind = CAPTURED[name]
    header, *lines = captured("sacct", name).splitlines()
    columns = header.split("|")
    wanted = [columns.index(column) for column in status.SACCT.values()]
    text = "\n".join("|".join(line.split("|")[place] for place in wanted) for line in lines)
    for facts in status.parse_sacct(text).values():
        found = status.failure_of(facts, "nothing of note")
        assert (found.kind, found.key) == (kind, failures.KINDS[kind].key)


def test_memory_is_told_from_a_step_and_from_a_kill_at_the_limit() -> None:
    step = "7|ff|FAILED|1:0|1|1|n1||100M|\n7.0|python|OUT_OF_MEMORY|0:125|1|1|n1|90M||\n"
    (facts,) = status.parse_sacct(step).values()
    assert status.failure_of(facts, None).kind == "host memory"
    killed = "7|ff|FAILED|9:0|1|1|n1||100M|\n7.0|python|CANCELLED|0:9|1|1|n1|{}M||\n"
    for used, kind in ((95, "host memory"), (40, "killed")):
        (facts,) = status.parse_sacct(killed.format(used)).values()
        assert status.failure_of(facts, None).kind == kind


def test_the_log_says_more_than_the_exit_code_and_slurm_more_than_the_log() -> None:
    nan = "failed: loss_d not finite at 1 kimg"
    assert failures.of_job("FAILED", 1, left=nan).kind == "nan"
    assert failures.of_job("TIMEOUT", 0, left=nan).kind == "timeout"
    assert failures.of_job("PREEMPTED", 0).kind == "preempted"


def test_states_codes_and_rules_name_classes_that_there_are_and_states_that_slurm_has() -> None:
    assert set(failures.KINDS) == set(get_args(Kind))
    assert failures.STATES.keys() <= states.STATES.keys()
    assert failures.CODES.keys() <= states.CODES.keys()
    told = {kind for kind, _ in failures.WORDS} | {*failures.CODES.values()}
    told |= {*failures.STATES.values(), "dependency", "unknown"}
    assert told == set(get_args(Kind))


def test_trials_and_finalists_keep_theirs_and_older_records_are_told_by_their_words(
    tmp_path: Path,
) -> None:
    folder = trials.folder_of(tmp_path, trials.name_of(0, {"x": 1}))
    folder.begin(0, {"x": 1})
    why = failures.of_error(FloatingPointError("loss not finite"))
    folder.end("failed", "FloatingPointError: loss not finite", why)
    (trial,) = trials.read(tmp_path)
    assert trial.failure == why
    assert Trial.read(json.loads(json.dumps(trial.entry()))) == trial

    # as it was written before there were classes
    rundir.write_json(folder.path / "state.json", {"state": "failed", "error": "MemoryError: no"})
    (old,) = trials.read(tmp_path)
    assert old.failure == Failure("host memory", "MemoryError: no", "memory_gb")
    entry = {"name": "0", "trial": "t", "folder": "f", "state": "failed", "error": "Missing: x"}
    finalist = Finalist.read(entry)
    assert finalist.failure
    assert finalist.failure.kind == "user error"
    assert Finalist.read(dataclasses.asdict(finalist)) == finalist


def test_what_is_no_record_of_a_failure_counts_as_none() -> None:
    for entry in (None, {}, {"kind": "moon", "evidence": ""}, {"kind": "nan"}, []):
        assert Failure.read(entry) is None
