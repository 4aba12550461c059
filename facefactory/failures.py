"""Why a job, a rank or a trial ended before its time: its class, what shows it, and the key to change.

Told from an exception, from the words that a process left in a log, from an exit code, and from
Slurm's records of a job and its steps. `KINDS` says what each class means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal[
    "host memory",
    "gpu memory",
    "disk",
    "timeout",
    "preempted",
    "node",
    "nan",
    "collapse",
    "user error",
    "dependency",
    "cancelled",
    "killed",
    "unknown",
]
# What `sweep.retry` names, and the classes that it means
RETRIES: dict[str, tuple[Kind, ...]] = {
    "failed": get_args(Kind),
    "oom": ("host memory", "gpu memory"),
    "timeout": ("timeout",),
}
# Not of what was tried: the same command takes it up again
PASSING: tuple[Kind, ...] = ("disk", "preempted", "node", "cancelled", "killed")
SHOWN = 300  # characters of the evidence
NEARLY = 0.9  # share of the memory that was asked for, from which a kill is the memory's


@dataclass(frozen=True)
class Meaning:
    """What a class of failures means to its owner."""

    words: str  # what happened
    key: str  # what to change, of the config or of the profile; "": nothing
    advice: str


@dataclass(frozen=True)
class Failure:
    """Why something ended before its time."""

    kind: Kind
    evidence: str  # the words or the record that show it
    key: str = ""  # what to change, of the config or of the profile; "": nothing

    @classmethod
    def read(cls, entry: Any) -> Failure | None:
        """From a file; None: there is none in it, or none that can be one."""
        match entry:
            case {"kind": str(kind), "evidence": str(evidence)} if kind in get_args(Kind):
                return cls(kind, evidence, str(entry.get("key", "")))  # type: ignore[arg-type]
        return None

    def words(self) -> str:
        """What happened, and what to do about it."""
        meaning = KINDS[self.kind]
        return f"{meaning.words}; {meaning.advice}"


KINDS: dict[Kind, Meaning] = {
    "host memory": Meaning(
        "needed more memory than it had",
        "memory_gb",
        "raise memory_gb in the profile, or lower training.batch_size",
    ),
    "gpu memory": Meaning(
        "needed more memory than its GPU has",
        "training.accumulate",
        "give training.accumulate=2 (or more parts), or a smaller training.batch_size",
    ),
    "disk": Meaning(
        "found no room on a disk, or in /dev/shm",
        "paths.runs",
        "make room, or give another paths.runs, paths.data or scratch",
    ),
    "timeout": Meaning(
        "ran out of time",
        "gpu_min",
        "raise cpu_min, gpu_min or sweep_min in the profile, or signal_s if it had no time to save",
    ),
    "preempted": Meaning(
        "was preempted by a job that goes before it",
        "requeue",
        "the same command goes on with it; requeue in the profile says how it comes back by itself",
    ),
    "node": Meaning(
        "lost its node, or the node could not start it",
        "sbatch",
        "the same command goes on with it; sbatch: {exclude: NODE} in the profile avoids a node",
    ),
    "nan": Meaning("computed a number that is not finite", "training.lr", "lower training.lr"),
    "collapse": Meaning(
        "collapsed",
        "training.on_collapse",
        "try other options; training.on_collapse=rollback goes on from where it was healthy",
    ),
    "user error": Meaning("was asked for something that cannot be", "", "its message says what"),
    "dependency": Meaning("never ran, because a job before it failed", "", "mend that one"),
    "cancelled": Meaning("was cancelled by somebody", "", "the same command goes on with it"),
    "killed": Meaning(
        "was killed from outside, and nobody left word why",
        "memory_gb",
        "often memory ran out: raise memory_gb in the profile, or run fewer at once",
    ),
    "unknown": Meaning("ended for a reason that is not known here", "", "its log may say more"),
}

# A class, and words that tell it, in logs or behind the name of an exception; the first that fits
WORDS: tuple[tuple[Kind, str], ...] = (
    ("gpu memory", r"(CUDA|HIP)( error:)? out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"),
    ("disk", r"No space left on device|Disk quota exceeded|no room left (for|on a disk)"),
    ("host memory", r"^MemoryError\b|can't allocate memory|Cannot allocate memory|std::bad_alloc"),
    ("host memory", r"exceeded memory limit|oom.kill|Out Of Memory|running low on memory"),
    ("timeout", r"DUE TO TIME LIMIT"),
    ("preempted", r"DUE TO PREEMPTION"),
    ("node", r"DUE TO NODE FAILURE|^NodeDiedError\b"),
    ("collapse", r"^Collapsed\b|^failed: .*\bcollapse"),
    ("nan", r"^FloatingPointError\b|\bnot finite\b"),
    ("user error", r"^(UserError|Missing)\b|^error: "),
    ("killed", r"^(WorkerCrashedError|ActorDiedError)\b|killed by signal 9|^Killed$"),
)

# Exit codes as a shell has them: 128 more than the signal
CODES: dict[int, Kind] = {
    2: "user error",
    3: "user error",
    53: "node",
    125: "host memory",
    126: "user error",
    127: "user error",
    135: "disk",
    137: "killed",
}

# Slurm's states
STATES: dict[str, Kind] = {
    "OUT_OF_MEMORY": "host memory",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "LAUNCH_FAILED": "node",
    "RECONFIG_FAIL": "node",
    "CANCELLED": "cancelled",
}


def made(kind: Kind, evidence: str) -> Failure:
    """A failure of a class, with the key that this class asks to change."""
    return Failure(kind, evidence.strip()[:SHOWN], KINDS[kind].key)


def of_error(error: BaseException) -> Failure:
    """From an exception, by what it is and by its words."""
    names = [kind.__name__ for kind in type(error).__mro__]
    kind, _ = _told("\n".join(f"{name}: {error}" for name in names))
    return made(kind, f"{names[0]}: {error}")


def of_words(text: str) -> Failure:
    """From the words that a process left: `NameOfException: message`, or the end of its log."""
    kind, line = _told(text)
    last = text.strip().rpartition("\n")[2]
    return made(kind, line or last)


def _told(text: str) -> tuple[Kind, str]:
    """The class that a text tells, and the line that does; `unknown` and nothing where none does."""
    for kind, pattern in WORDS:
        found = re.search(rf"^.*?(?:{pattern}).*$", text, re.M)
        if found is not None:
            return kind, found[0]
    return "unknown", ""


def of_code(code: int) -> Failure:
    """From the exit code of a process; a signal as Python has it (-9) or as a shell does (137)."""
    number = code if code >= 0 else 128 - code
    return made(CODES.get(number, "unknown"), f"exit code {number}")


def of_job(
    state: str,
    code: int,
    reason: str | None = None,
    memory_mb: float | None = None,
    asked_mb: float | None = None,
    left: str | None = None,
) -> Failure:
    """From what Slurm records of a job.

    `state` is a word of Slurm's, the one of a step where that knows more; `code` an exit code as a
    shell has it; `memory_mb` the most that a step used, `asked_mb` what it had; `left`: the words
    that the job's own processes left, if any.
    """
    record = f"Slurm: {state}, exit code {code}"
    if reason is not None and reason.startswith("Dependency"):
        return made("dependency", f"{record}, {reason}")
    if state in STATES:
        return made(STATES[state], record)

    # a kill at the limit is the memory's, whatever the record calls it
    if code == 137 and memory_mb and asked_mb and memory_mb >= NEARLY * asked_mb:
        return made("host memory", f"{record}, {memory_mb:.0f} of {asked_mb:.0f} MB")
    said = of_words(left) if left else made("unknown", "")
    if said.kind != "unknown":
        return said
    return made(CODES.get(code, "unknown"), said.evidence or record)
