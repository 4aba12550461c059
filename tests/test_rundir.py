"""The run folder: atomic writes, one owner, stages that are done or not, nothing lost."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facefactory import UserError, rundir
from facefactory.rundir import OwnerLost, RunDir

# -- files -----------------------------------------------------------------------------------------------------------


def test_a_block_that_raises_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    rundir.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="power cut"), rundir.atomic(path) as temporary:
        temporary.write_text("{half")
        raise RuntimeError("power cut")
    assert rundir.read_json(path) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["a.json"]


def test_the_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with rundir.atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename is atomic on one file system only
    assert path.read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_that_other_readers_choke_on_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        rundir.write_json(tmp_path / "a.json", {"score": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_json_is_none(tmp_path: Path) -> None:
    assert rundir.read_json(tmp_path / "a.json") is None
    assert rundir.read_jsonl(tmp_path / "a.jsonl") == []


def test_a_line_cut_by_a_kill_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3')
    assert rundir.read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_a_cut_line_does_not_spoil_the_ledger_for_those_who_write_after_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.record("pack", "running")
    with open(tmp_path / "jobs.jsonl", "a") as ledger:
        ledger.write('{"time": 1, "stage": "pa')  # killed here
    run.record("pack", "done")
    assert [line["state"] for line in rundir.read_jsonl(tmp_path / "jobs.jsonl")][-1] == "done"


def test_the_ledger_tells_who_did_what(tmp_path: Path) -> None:
    RunDir(tmp_path).record("train", "running", attempt=2)
    (line,) = rundir.read_jsonl(tmp_path / "jobs.jsonl")
    assert (line["stage"], line["state"], line["attempt"], line["job"]) == (
        "train",
        "running",
        2,
        f"pid {os.getpid()}",
    )


def test_a_lock_makes_others_wait(tmp_path: Path) -> None:
    def is_free() -> bool:
        with open(tmp_path / "lock", "a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with rundir.locked(tmp_path / "lock"):
        assert not is_free()
    assert is_free()


@pytest.mark.parametrize(
    "content", [b"", b'{"outputs": {"check', b"\xff\xfe", b"\0" * 40, b"[" * 100_000]
)
def test_a_damaged_json_is_named_and_counts_as_missing(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "DONE.json"
    path.write_bytes(content)
    assert rundir.read_json(path) is None
    assert f"{path} is empty or cut" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"DONE\.json is empty or cut.*files\. Do this\."):
        rundir.need_json(path, "Do this.")
    path.unlink()
    with pytest.raises(UserError, match=r"DONE\.json is missing\. Do this\."):
        rundir.need_json(path, "Do this.")


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'null\n3\n{"a": 1}\n\xff\n\0\0\0\n{"a": 2}\n')
    assert rundir.read_jsonl(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]


def test_what_can_be_found_out_again_needs_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for number in range(3):
        rundir.remember(rundir.cache_folder() / f"{number}.json", {})
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{tmp_path / 'file'}/facefactory (Not a directory)" in said


def test_without_a_home_nothing_is_kept_and_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    assert not (rundir.cache_folder() / "verified").exists()
    rundir.remember(rundir.cache_folder() / "verified" / "a.json", {})


@pytest.mark.parametrize(
    ("inherited", "settled"),
    [
        (0o000, 0o022),
        (0o002, 0o002),
        (0o022, 0o022),
        (0o077, 0o077),
        (0o020, 0o022),
    ],
)
def test_what_is_made_is_never_everyones_to_write(
    tmp_path: Path, inherited: int, settled: int
) -> None:
    before = os.umask(inherited)
    try:
        rundir.settle_umask()
        rundir.write_json(tmp_path / "folder" / "a.json", {})
        assert os.umask(settled) == settled
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~settled
    assert stat.S_IMODE((tmp_path / "folder" / "a.json").stat().st_mode) == 0o666 & ~settled


def test_a_folder_that_cannot_be_used_is_said_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, words in {
        "file": "is a file; give a folder",
        "file/runs": "is a file; give a folder",
        "link": "is a link to .*gone, which is not there",
        "link/runs": "is a link to .*gone, which is not there",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(UserError, match=rf"^paths\.runs={tmp_path / name}.*{words}"):
            rundir.usable(tmp_path / name, "paths.runs")
    rundir.usable(tmp_path / "new" / "runs", "paths.runs")
    monkeypatch.setattr(os, "access", lambda *_: False)
    rundir.usable(tmp_path / "new" / "runs", "paths.runs", write=False)
    with pytest.raises(UserError, match=rf"{tmp_path} cannot be written by you"):
        rundir.usable(tmp_path / "new" / "runs", "paths.runs")


def test_the_cache_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rundir.cache_folder() == tmp_path / "cache" / "facefactory"  # set by conftest
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert rundir.cache_folder() == Path("/home/someone/.cache/facefactory")


# -- owner -----------------------------------------------------------------------------------------------------------


def test_the_older_copy_stops_at_its_next_write(tmp_path: Path) -> None:
    older = RunDir(tmp_path)
    newer = RunDir(tmp_path)
    older.claim()
    older.guard()
    newer.claim()
    newer.guard()
    with pytest.raises(
        OwnerLost,
        match=rf"is owned by pid {os.getpid()} on .* now; this older copy stops without writing",
    ):
        older.guard()
    with pytest.raises(OwnerLost):
        older.finish("train", {"config": {}, "inputs": {}}, [])
    assert older.done("train") is None


def test_a_folder_that_was_removed_or_never_claimed_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(OwnerLost, match="nobody"):
        RunDir(tmp_path).guard()


def test_a_launchers_process_writes_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = RunDir(tmp_path)
    launcher.claim()
    monkeypatch.setenv(rundir.OWNER_TOKEN, str(launcher.token))
    RunDir(tmp_path).guard()
    monkeypatch.setenv(rundir.OWNER_TOKEN, "of an older launcher")
    with pytest.raises(OwnerLost):
        RunDir(tmp_path).guard()


def test_another_live_process_is_seen_and_a_dead_one_is_not(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.running() is None
    run.claim()
    assert run.running() is None  # this very process
    claim = "import sys; from facefactory.rundir import *; RunDir(Path(sys.argv[1])).claim(); print('claimed', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{claim}; input()", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "claimed\n"
        found = run.running()
        other.communicate("\n", timeout=20)
    assert found is not None
    assert found["pid"] == other.pid
    assert run.running() is None


def test_private_is_private(tmp_path: Path) -> None:
    RunDir(tmp_path).claim()
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"host": "a"'])
def test_a_damaged_owner_file_is_nobodys(tmp_path: Path, content: str) -> None:
    run = RunDir(tmp_path)
    run.claim()
    (tmp_path / "owner.json").write_text(content)
    assert run.running() is None
    with pytest.raises(OwnerLost, match=r"nobody \(owner\.json is gone or damaged\)"):
        run.guard()
    run.claim()
    run.guard()


# -- stages ----------------------------------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {"training.lr": 0.1}
INPUTS: dict[str, Any] = {"images": "abc"}


@pytest.fixture
def done(tmp_path: Path) -> RunDir:
    """A run folder whose stage `train` is complete."""
    run = RunDir(tmp_path / "run")
    run.claim()
    run.begin("train", "identity")
    (run.stage("train") / "model.pt").write_bytes(b"12345")
    run.finish("train", {"config": CONFIG, "inputs": INPUTS}, [run.stage("train") / "model.pt"])
    return run


def test_a_stage_is_complete_with_its_config_inputs_and_files(done: RunDir) -> None:
    assert done.is_complete("train", CONFIG, INPUTS)
    assert not done.is_complete("train", {"training.lr": 0.2}, INPUTS)
    assert not done.is_complete("train", CONFIG, {"images": "abd"})
    assert not done.is_complete("evaluate", CONFIG, INPUTS)


@pytest.mark.parametrize("content", [None, b"123"])
def test_a_stage_whose_file_is_missing_or_cut_is_not_complete(
    done: RunDir, content: bytes | None
) -> None:
    path = done.stage("train") / "model.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not done.is_complete("train", CONFIG, INPUTS)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": {"training.lr'])
def test_a_stage_whose_done_file_is_damaged_is_not_complete(done: RunDir, content: str) -> None:
    (done.stage("train") / "DONE.json").write_text(content)
    assert not done.is_complete("train", CONFIG, INPUTS)


def test_a_stage_of_the_same_identity_goes_on(done: RunDir) -> None:
    done.begin("train", "identity")
    assert (done.stage("train") / "model.pt").read_bytes() == b"12345"


def test_a_stage_of_another_identity_is_moved_aside_and_kept(done: RunDir) -> None:
    done.begin("train", "another")
    assert [path.name for path in done.stage("train").iterdir()] == ["STAGE.json"]
    assert not done.is_complete("train", CONFIG, INPUTS)
    assert (done.path / "train.old-1" / "model.pt").read_bytes() == b"12345"
    (done.stage("train") / "STAGE.json").unlink()  # a folder whose origin is unknown
    (done.stage("train") / "unknown").touch()
    done.begin("train", "another")
    assert (done.path / "train.old-2" / "unknown").exists()


def test_an_older_copy_moves_nothing_aside(done: RunDir) -> None:
    RunDir(done.path).claim()
    with pytest.raises(OwnerLost):
        done.begin("train", "another")
    assert (done.stage("train") / "model.pt").exists()


def test_old_folders_survive_when_somebody_removed_one_of_them(done: RunDir) -> None:
    for number in (2, 3):  # train.old-1 was removed by hand
        (done.path / f"train.old-{number}").mkdir()
        (done.path / f"train.old-{number}" / "kept").touch()
    done.begin("train", "another")
    kept = {path.name for path in done.path.glob("train.old-*/kept")} | {
        path.name for path in done.path.glob("train.old-*/model.pt")
    }
    assert kept == {"kept", "model.pt"}
    assert len(list(done.path.glob("train.old-*"))) == 3


# -- the folder ------------------------------------------------------------------------------------------------------


def test_a_new_folder_holds_config_and_command(tmp_path: Path) -> None:
    run = rundir.prepare(
        tmp_path / "run",
        "seed: 1\n",
        {"seed": 1},
        "jobs/train_gan.py seed=1",
        accept_changes=False,
    )
    assert (run.path / "config.yaml").read_text() == "seed: 1\n"
    rundir.prepare(
        run.path,
        "seed: 1\n",
        {"seed": 1},
        "again",
        accept_changes=False,
    )
    assert (run.path / "command.txt").read_text() == "jobs/train_gan.py seed=1\nagain\n"


def test_another_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    made = {"seed": 1, "training.lr": 0.1, "data.flip": True}
    rundir.prepare(tmp_path / "run", "a", made, "first", accept_changes=False)
    changed = {"seed": 1, "training.lr": 0.2, "data.balance": "Glasses"}
    message = (
        r"run 'run' exists with another config: data\.balance was None, now 'Glasses'; data\.flip was True, now None; "
        r"training\.lr was 0\.1, now 0\.2\. Choose another run=…, or changed=accept"
    )
    with pytest.raises(UserError, match=message):
        rundir.prepare(tmp_path / "run", "b", changed, "second", accept_changes=False)
    assert (tmp_path / "run" / "config.yaml").read_text() == "a"
    rundir.prepare(tmp_path / "run", "b", changed, "second", accept_changes=True)
    assert json.loads((tmp_path / "run" / "identity.json").read_text()) == changed
    assert (tmp_path / "run" / "config.yaml").read_text() == "b"


def test_a_folder_that_everyone_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(UserError, match=r"is writable by everyone.*run: chmod -R o-w .*run"):
        rundir.prepare(
            tmp_path / "run",
            "a",
            {},
            "command",
            accept_changes=False,
        )
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("place", ["", "code", "private"])
def test_what_is_executed_is_nobody_elses_to_write(tmp_path: Path, place: str) -> None:
    for name in ("code", "private"):
        (tmp_path / name).mkdir()
    rundir.check_modes(tmp_path)
    (tmp_path / place).chmod(0o775)  # a group's, on purpose
    rundir.check_modes(tmp_path)
    (tmp_path / place).chmod(0o777)
    with pytest.raises(
        UserError, match=rf"{place} is writable by everyone.*chmod -R o-w {tmp_path}"
    ):
        rundir.check_modes(tmp_path)


def test_a_damaged_identity_is_not_taken_for_a_new_run(tmp_path: Path) -> None:
    rundir.prepare(tmp_path / "run", "a: 1\n", {"a": 1}, "command", False)
    (tmp_path / "run" / "identity.json").write_text("")
    with pytest.raises(
        UserError,
        match=r"identity\.json is empty or cut.*remove identity\.json and give the same command",
    ):
        rundir.prepare(tmp_path / "run", "a: 2\n", {"a": 2}, "command", True)
    assert (tmp_path / "run" / "config.yaml").read_text() == "a: 1\n"


# -- what later starts read back ---------------------------------------------------------------------------------------


def changed(path: Path, **values: Any) -> None:
    """Replace values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_was_sealed_is_read_as_it_was_written_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "DONE.json"
    rundir.write_sealed(path, {"outputs": {1: (0.1, None)}})
    assert rundir.read_sealed(path) == {"outputs": {"1": [0.1, None]}}
    changed(path, outputs={"1": [0.2, None]})
    assert rundir.read_sealed(path) is None
    assert f"{path} holds something else than was written there" in capsys.readouterr().err
    assert rundir.read_sealed(tmp_path / "none.json") is None
    assert capsys.readouterr().err == ""


def test_results_that_a_stage_did_not_finish_with_are_left_out(
    done: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = done.stage("evaluate")
    path = stage / "results.json"
    rundir.write_json(path, {"scores": [1]})
    assert rundir.read_results(stage) == {"scores": [1]}  # the stage goes on
    record = {"config": CONFIG, "inputs": INPUTS, "outputs": {}}
    done.finish("evaluate", record, [path])
    assert done.is_complete("evaluate", CONFIG, INPUTS)
    assert rundir.read_results(stage) == {"scores": [1]}
    path.write_text(path.read_text().replace("1", "2"))  # of the same size
    assert not done.is_complete("evaluate", CONFIG, INPUTS)
    assert rundir.read_results(stage) == {}
    assert f"{path} holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"stage": None}, {"time": "now"}, {"job": 7}, {"withdrawn": 3}, {"elements": "two"}],
    ids=str,
)
def test_a_line_of_the_ledger_that_nobody_writes_is_left_out_and_told(
    done: RunDir, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    done.record(
        "train",
        "submitted",
        job="7",
        elements=2,
    )
    (whole,) = rundir.read_ledger(done.path)
    rundir.append_json(done.path / "jobs.jsonl", {**whole, **change})
    rundir.append_json(done.path / "jobs.jsonl", {**whole, "foreign": [1]})
    assert rundir.read_ledger(done.path) == [whole, {**whole, "foreign": [1]}]
    assert "jobs.jsonl has lines that nobody writes there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "owner",
    [
        {"host": 3, "pid": 1, "started": "x", "token": "y"},
        {"host": "n1", "pid": "1", "started": "x", "token": "y"},
        {"host": "n1", "pid": 1, "started": "x"},
    ],
    ids=str,
)
def test_an_owner_of_another_kind_is_nobody(done: RunDir, owner: dict[str, Any]) -> None:
    rundir.write_json(done.path / "owner.json", owner)
    assert done.running() is None
    with pytest.raises(OwnerLost, match="nobody"):
        done.guard()


def test_metric_lines_are_numbers_with_a_clock(tmp_path: Path) -> None:
    lines = [{"kimg": 1, "loss": 0.5, "health": ["ill"]}, {"loss": 1}, {"kimg": 2, "loss": "low"}]
    lines += [{"kimg": 2, "health": 3}]
    for line in lines:
        rundir.append_json(tmp_path / "metrics-001.jsonl", line)
    assert rundir.read_metrics(tmp_path / "metrics-001.jsonl") == lines[:1]
