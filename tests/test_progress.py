"""Progress: sparse lines in a log, a bar on a terminal."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from facefactory import progress
from facefactory.progress import Progress


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_the_first_line_one_now_and_then_and_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 100.0 + progress.SPARSE_S + 1, 140.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with contextlib.closing(Progress("pack", "shards")) as shown:
        for done in (1, 2, 3, 4):
            shown.show(done, 4, f"{4 - done} s left")
    assert capsys.readouterr().err.splitlines() == [
        "pack: 1 of 4 shards, 3 s left",
        "pack: 3 of 4 shards, 1 s left",
        "pack: 4 of 4 shards, 0 s left",
    ]


def test_a_terminal_gets_a_bar_and_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with contextlib.closing(Progress("train", "kimg")) as shown:
        shown.show(2.5, 60, "80 images/s")
        shown.show(60, 60, "90 images/s")
    told = screen.getvalue()
    assert "60 of 60 kimg, 90 images/s" in told
    assert "train" in told
    assert (
        told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1
    )  # the cursor was hidden and is back
