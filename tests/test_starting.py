"""The mark of a start: of commands given at once one goes first, and what a killed one left blocks nobody for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from facefactory import UserError, rundir, starting
from facefactory.starting import MARK, Holder

ME = Holder(
    "login1",
    starting._space(),
    os.getpid(),
    rundir.started(os.getpid()),
    "abc",
)


@pytest.fixture(autouse=True)
def login1(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a name of its own."""
    monkeypatch.setattr(starting.socket, "gethostname", lambda: "login1")


def left(folder: Path, holder: Holder | None, age_s: float = 0.0) -> None:
    """A mark that somebody else made; without a holder it is an empty file."""
    folder.mkdir(exist_ok=True)
    (folder / MARK).write_text(json.dumps(asdict(holder)) if holder else "")
    then = time.time() - age_s
    os.utime(folder / MARK, (then, then))


def remains(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_mark_names_who_starts_and_goes_when_all_is_started(tmp_path: Path) -> None:
    with starting.first(tmp_path / "runs" / "r") as turn:
        holder = json.loads((tmp_path / "runs" / "r" / MARK).read_text())
        assert (holder["host"], holder["pid"], turn.waited) == ("login1", os.getpid(), False)
        turn.check()
    assert remains(tmp_path / "runs" / "r") == []
    with pytest.raises(RuntimeError), starting.first(tmp_path):
        raise RuntimeError("refused")
    assert remains(tmp_path) == ["runs"]


COMMAND = """
import socket, sys, time
from pathlib import Path
from facefactory import starting
socket.gethostname = lambda: sys.argv[2]
folder = Path(sys.argv[1])
with starting.first(folder) as turn:
    inside = folder / "inside"
    inside.touch(exist_ok=False)  # two at once would fail here
    with open(folder / "order", "a") as order:
        order.write(f"{sys.argv[2]} {turn.waited}\\n")
    time.sleep(0.3)
    inside.unlink()
"""


def test_of_commands_on_two_hosts_one_goes_first_and_the_others_come_after_it(
    tmp_path: Path,
) -> None:
    hosts = [f"login{number % 2 + 1}" for number in range(6)]
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(tmp_path), host], stderr=subprocess.PIPE, text=True
        )
        for host in hosts
    ]
    said = [command.communicate(timeout=60)[1] for command in commands]
    assert [command.returncode for command in commands] == [0] * 6, said
    lines = (tmp_path / "order").read_text().split()
    assert sorted(lines[::2]) == sorted(hosts)
    told = "".join(said)
    assert told.count("is starting this run; waiting for it") == lines[1::2].count("True") >= 1
    assert remains(tmp_path) == ["order"]


def test_a_file_system_without_hard_links_keeps_the_order_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(starting.os, "link", refuse)
    monkeypatch.setattr(starting, "LOOK_S", 0.01)
    waited = []

    def command() -> None:
        with starting.first(tmp_path) as turn:
            waited.append(turn.waited)

    with starting.first(tmp_path):
        second = threading.Thread(target=command)
        second.start()
        time.sleep(0.2)
        assert waited == []
    second.join(20)
    assert waited == [True]
    assert remains(tmp_path) == []


def test_a_command_that_was_killed_here_is_followed_at_once(tmp_path: Path) -> None:
    left(tmp_path, replace(ME, started="1"))  # another process had this number
    with starting.first(tmp_path) as turn:
        assert not turn.waited
    assert remains(tmp_path) == []


@pytest.mark.parametrize(
    "holder", [replace(ME, host="login2"), replace(ME, space="pid:[1]"), None]
)
def test_one_on_another_host_is_followed_when_it_has_been_silent_for_long(
    tmp_path: Path,
    holder: Holder | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left(tmp_path, holder, starting.STALE_S + 1)
    with starting.first(tmp_path):
        assert json.loads((tmp_path / MARK).read_text())["host"] == "login1"
    said = capsys.readouterr().err
    assert "last heard of 61 s ago; going on" in said
    assert "waiting" not in said
    assert remains(tmp_path) == []
    monkeypatch.setattr(starting, "STALE_S", 0.5)  # and not before
    left(tmp_path, holder)
    began = time.monotonic()
    with starting.first(tmp_path) as turn:
        assert turn.waited
        assert time.monotonic() - began > 0.4


def test_one_that_stands_still_here_is_named_with_what_to_do(tmp_path: Path) -> None:
    left(tmp_path, ME, starting.STALE_S + 1)
    with (
        pytest.raises(
            UserError, match=rf"pid {os.getpid()} on login1 .* stood still .* remove .*{MARK}"
        ),
        starting.first(tmp_path),
    ):
        pass
    assert remains(tmp_path) == [MARK]


def test_one_that_works_on_is_touched_and_so_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "BEAT_S", 0.01)
    with starting.first(tmp_path):
        os.utime(tmp_path / MARK, (1, 1))
        time.sleep(0.3)
        assert time.time() - (tmp_path / MARK).stat().st_mtime < 10


def test_of_several_that_would_clear_a_mark_away_none_removes_a_newer_one(tmp_path: Path) -> None:
    left(tmp_path, replace(ME, token="newer"))
    starting._clear(tmp_path / MARK, replace(ME, token="older"))
    assert remains(tmp_path) == [MARK]


def test_a_file_that_a_killed_clearing_left_is_named(tmp_path: Path) -> None:
    gone = replace(ME, host="login2")
    left(tmp_path, gone, starting.STALE_S + 1)
    right = starting._right(tmp_path / MARK, gone)
    right.touch()
    os.utime(right, (1, 1))
    with (
        pytest.raises(UserError, match=rf"{MARK} and .*{right.name}; then"),
        starting.first(tmp_path),
    ):
        pass


def test_who_was_overtaken_while_it_stood_still_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(rundir.OwnerLost, match="stood still"), starting.first(tmp_path) as turn:
        (tmp_path / MARK).unlink()
        left(tmp_path, replace(ME, token="newer"))
        turn.check()
    assert remains(tmp_path) == [MARK]  # it is the other's
