"""Who starts a run: of commands given at the same moment, one goes first.

They may be on any hosts that share its folder. The mark `starting.json` is a hard link to a file
that is whole already: link() is atomic on NFS too, while locks are not kept everywhere. Who holds
it touches it every few seconds. What a killed command left behind is taken over.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from facefactory import UserError, rundir, say

MARK = "starting.json"
BEAT_S = 5.0  # between two touches of the mark
STALE_S = 60.0  # a mark that was not touched for so long was left behind
LOOK_S = 0.2  # between two looks of those who wait


@dataclass(frozen=True)
class Holder:
    """The process that a mark names; `space` is its pid namespace, in which its pid means something."""

    host: str = "an unknown host"
    space: str = ""
    pid: int = 0
    started: str | None = None
    token: str = ""

    def is_here(self) -> bool:
        """Whether this process could see it."""
        return (self.host, self.space) == (socket.gethostname(), _space())

    def is_alive(self) -> bool:
        """Whether it lives, on this machine."""
        return rundir.started(self.pid) == self.started


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class Turn:
    """The right to start a run.

    `waited`: another command had it before, and what it did is there now.
    """

    def __init__(self, folder: Path) -> None:
        pid = os.getpid()
        token = secrets.token_hex(8)
        self.mark = folder / MARK
        self.own = folder / f".{MARK}.{token}"
        self.holder = Holder(socket.gethostname(), _space(), pid, rundir.started(pid), token)
        self.waited = False

    def check(self) -> None:
        """Raise OwnerLost if another command took the mark over.

        It does so because this one stood still for too long.
        """
        mark = _read(self.mark)
        if mark is None or mark[0] != self.holder:
            raise rundir.OwnerLost(
                f"{self.mark} is another command's now: this one stood still for {STALE_S:g} s."
            )


@contextlib.contextmanager
def first(folder: Path) -> Iterator[Turn]:
    """Hold the mark of a run folder, which is made if need be; wait for another command that holds it.

    UserError: another one holds it and neither ends nor goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    turn = Turn(folder)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(turn.own)  # the mark is the same file
                if os.stat(turn.own).st_nlink == 1:  # but where there are no hard links
                    os.utime(turn.mark)

    # one after another, each as long as its block lasts
    heart = threading.Thread(target=beat, daemon=True)
    turn.own.write_text(json.dumps(asdict(turn.holder)))
    try:
        while not _placed(turn):
            _wait(turn)
        heart.start()
        yield turn
    finally:
        ended.set()
        if heart.is_alive():
            heart.join()
        mark = _read(turn.mark)
        if mark is not None and mark[0] == turn.holder:
            turn.mark.unlink()
        turn.own.unlink(missing_ok=True)


def _placed(turn: Turn) -> bool:
    """Whether the mark is ours now."""
    try:
        os.link(turn.own, turn.mark)
    except FileExistsError:
        return os.stat(turn.own).st_nlink == 2  # made all the same: its answer was lost on the way
    except OSError:  # no hard links here
        with contextlib.suppress(FileExistsError), open(turn.mark, "x") as stream:
            stream.write(turn.own.read_text())
            return True
        return False
    return True


def _read(mark: Path) -> tuple[Holder, float] | None:
    """Who holds a mark, and when it was touched last; None: nobody does.

    Opening it makes an NFS client ask for its true times.
    """
    try:
        with open(mark) as stream:
            text = stream.read()
            touched = os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text)), touched
    except (ValueError, TypeError):  # it is being written, or was cut
        return Holder(), touched


def _wait(turn: Turn) -> None:
    """One look at a mark that another command holds, and a short sleep.

    A mark that was left behind is cleared away. UserError: its holder neither ends nor goes on.
    """
    mark = _read(turn.mark)
    if mark is None:
        return
    holder, touched = mark
    who = f"pid {holder.pid} on {holder.host}"
    os.utime(turn.own)  # both times are the file server's
    still_s = turn.own.stat().st_mtime - touched

    # is it gone? Then its mark goes too
    gone = not holder.is_alive() if holder.is_here() else still_s > STALE_S
    if gone and not holder.is_here():
        say(f"{who} began to start this run and was last heard of {still_s:.0f} s ago; going on.")
    if gone and _clear(turn.mark, holder):
        return

    # does it stand still, or another one that was to clear it away?
    right = _right(turn.mark, holder)
    if still_s > STALE_S and (not gone or _is_old(turn, right)):
        raise UserError(
            f"{who} began to start this run and has stood still for {still_s:.0f} s. End it, or, "
            f"if it is gone, remove {turn.mark} and {right}; "
            "then give the same command again."
        )

    # it is at work
    if not turn.waited:
        say(f"{who} is starting this run; waiting for it.")
    turn.waited = True
    time.sleep(LOOK_S)


def _is_old(turn: Turn, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return turn.own.stat().st_mtime - path.stat().st_mtime > STALE_S
    return False


def _right(mark: Path, holder: Holder) -> Path:
    """Whoever makes this file may remove that one holder's mark."""
    return mark.with_name(f".{MARK}.after-{holder.token}")


def _clear(mark: Path, holder: Holder) -> bool:
    """Remove a mark that was left behind; False: another command is about to.

    Of several that would, one does, and none removes a newer mark.
    """
    right = _right(mark, holder)
    try:
        open(right, "x").close()
    except FileExistsError:
        return False
    now = _read(mark)
    if now is not None and now[0] == holder:
        mark.unlink()
        mark.with_name(f".{MARK}.{holder.token}").unlink(missing_ok=True)
    right.unlink()
    return True
