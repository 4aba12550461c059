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

INTERRUPTED = 75  # EX_TEMPFAIL: the work is saved; the same command goes on with it
TELL_S = 30.0  # seconds between words about runs whose output goes to logs
CODE = Path(__file__).parents[2]
LOOPBACK = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}  # ranks of one machine need no network
QUIET = {
    "TORCH_CPP_LOG_LEVEL": "ERROR"
}  # c10d warns of every name that it cannot look up backwards


def die_with_parent() -> None:
    """Ask Linux to kill this process when its launcher is gone: an orphaned rank would train on unseen."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def ranks(count: int, arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run `python -m <arguments>` as `count` ranks that end together; 0, or how the one that failed did."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {
        **QUIET,
        **environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
    }
    shared |= LOOPBACK
    own = [
        {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **surroundings.rank(rank, count)}
        for rank in range(count)
    ]
    codes = side_by_side([arguments] * count, count, [None] * count, own, together=True)
    return next((code for code in codes if code not in (0, -signal.SIGKILL)), min(codes))


def side_by_side(
    commands: Sequence[Sequence[str]],
    slots: int,
    logs: Sequence[Path | None],
    environments: Sequence[dict[str, str]],
    tell: Callable[[str], None] = lambda text: None,
    together: bool = False,
) -> list[int]:
    """Run `python -m <command>` for each command, `slots` at a time; their exit codes. A stop signal is passed on.

    A command with a log writes there, and its last line is told now and then; the others write to this process's output.
    `together`: when one fails, the others are ended.
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

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                number = waiting.pop(0)
                log = logs[number]
                env = {**os.environ, **surroundings.child(CODE), **environments[number]}
                with open(log, "ab") if log else nullcontext() as out:
                    running[number] = subprocess.Popen(
                        [sys.executable, "-m", *commands[number]], env=env, stdout=out, stderr=out
                    )
            for number, process in list(running.items()):
                if process.poll() is not None:
                    codes[number] = running.pop(number).returncode
                    if together and codes[number] not in (0, INTERRUPTED):
                        for other in running.values():
                            other.kill()
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                for log in filter(None, (logs[number] for number in running)):
                    tell(f"{log.parent.name}: {rundir.tail(log, 1)}")
            time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return [codes.get(number, INTERRUPTED) for number in range(len(commands))]
