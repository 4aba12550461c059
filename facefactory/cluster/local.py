"""Processes on this machine: the ranks of one stage, or several runs side by side."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from facefactory import rundir, surroundings

INTERRUPTED = 75  # EX_TEMPFAIL: ended before its time; the same command goes on with it
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # signals that ask for a stop
TELL_S = 30.0  # seconds between words about runs whose output goes to logs
CODE = Path(__file__).parents[2]

# Ranks of one machine need no network
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}

# c10d warns of every name that it cannot look up backwards
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}


def die_with_parent() -> None:
    """Ask Linux to kill this process when its launcher is gone.

    An orphaned rank would train on unseen.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def ranks(count: int, arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run `python -m <arguments>` as `count` ranks that end together.

    0, or how the one that failed did.
    """
    # where they meet
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {
        **QUIET,
        **environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
        **LOOPBACK,
    }
    own = [
        {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **surroundings.rank(rank, count)}
        for rank in range(count)
    ]

    # those that were killed only followed the one that failed
    codes = side_by_side([arguments] * count, count, [None] * count, own, together=True)
    failures = (code for code in codes if code not in (0, -signal.SIGKILL))
    return next(failures, min(codes))


def side_by_side(
    commands: Sequence[Sequence[str]],
    slots: int,
    logs: Sequence[Path | None],
    environments: Sequence[dict[str, str]],
    tell: Callable[[str], None] = lambda text: None,
    together: bool = False,
) -> list[int]:
    """Run `python -m <command>` for each command, `slots` at a time; their exit codes.

    A stop signal is passed on. A command with a log writes there, and its last line is told now and
    then; the others write to this process's output. `together`: when one fails, the others are
    ended.
    """
    waiting = list(range(len(commands)))
    running: dict[int, subprocess.Popen[bytes]] = {}
    codes: dict[int, int] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        waiting.clear()
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)
        for process in running.values():
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in STOPS}
    told_at = time.monotonic()
    try:
        while waiting or running:
            # fill the slots
            while waiting and len(running) < slots:
                number = waiting.pop(0)
                running[number] = _start(commands[number], logs[number], environments[number])

            # who has ended, and whom that ends
            for number, process in list(running.items()):
                if process.poll() is None:
                    continue
                codes[number] = running.pop(number).returncode
                if together and codes[number] not in (0, INTERRUPTED):
                    for other in running.values():
                        other.kill()

            # how the others stand
            if time.monotonic() - told_at > TELL_S:
                told_at = time.monotonic()
                for log in filter(None, (logs[number] for number in running)):
                    tell(f"{log.parent.name}: {rundir.tail(log, 1)}")
            time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return [codes.get(number, INTERRUPTED) for number in range(len(commands))]


def _start(
    command: Sequence[str], log: Path | None, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `python -m <command>`; its output is appended to a log, or is this process's own."""
    whole = {**os.environ, **surroundings.child(CODE), **environment}
    with open(log, "ab") if log else nullcontext() as out:
        line = [sys.executable, "-m", *command]
        return subprocess.Popen(line, env=whole, stdout=out, stderr=out)
