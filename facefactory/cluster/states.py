"""What Slurm says of a job, and what that means for us: its state, why it waits, how it ended."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["alive", "well", "badly", "lost", "unknown"]


@dataclass(frozen=True)
class Meaning:
    """What a state means for us.

    `alive`: runs or will run, so nothing is submitted in its place. `well`, `badly`: it is over.
    `lost`: over badly, unless squeue still shows it, because Slurm may bring it back.
    """

    kind: Kind
    words: str


HELD = "is held"

# All that squeue and sacct of Slurm 22.05 know, and after them what later versions added
STATES = {
    "PENDING": Meaning("alive", "waits in the queue"),
    "CONFIGURING": Meaning("alive", "its nodes are made ready"),
    "RUNNING": Meaning("alive", "runs"),
    "COMPLETING": Meaning("alive", "is ending"),
    "SUSPENDED": Meaning("alive", "is suspended, and goes on when its nodes are free again"),
    "STOPPED": Meaning(
        "alive", "was stopped and keeps its nodes; scontrol or its owner lets it go on"
    ),
    "RESIZING": Meaning("alive", "is changing its size"),
    "SIGNALING": Meaning("alive", "is being sent a signal"),
    "STAGE_OUT": Meaning("alive", "copies its files out of a burst buffer"),
    "REQUEUED": Meaning("alive", "goes back into the queue"),
    "REQUEUE_FED": Meaning("alive", "goes back into the queues of all clusters of the federation"),
    "REQUEUE_HOLD": Meaning("alive", HELD),
    "SPECIAL_EXIT": Meaning("alive", HELD),
    "RESV_DEL_HOLD": Meaning("alive", HELD),
    "COMPLETED": Meaning("well", "has ended well"),
    "FAILED": Meaning("badly", "has failed"),
    "CANCELLED": Meaning("badly", "was cancelled"),
    "TIMEOUT": Meaning(
        "badly",
        "ran out of time: raise the minutes in the profile, or signal_s if it had no time to save",
    ),
    "DEADLINE": Meaning("badly", "could not end before its deadline"),
    "OUT_OF_MEMORY": Meaning(
        "badly", "needed more memory than it had asked for: raise memory_gb in the profile"
    ),
    "PREEMPTED": Meaning(
        "lost", "was preempted by a job that goes before it, and not brought back"
    ),
    "NODE_FAIL": Meaning("lost", "lost a node, and was not brought back"),
    "BOOT_FAIL": Meaning("lost", "its nodes did not start"),
    "REVOKED": Meaning("lost", "was given to another cluster of the federation"),
    "POWER_UP_NODE": Meaning("alive", "its nodes are being switched on"),
    "UPDATE_DB": Meaning("alive", "is being written into the records"),
    "STAGE_IN": Meaning("alive", "copies its files into a burst buffer"),
    "EXPEDITING": Meaning("alive", "was requeued and goes first"),
    "LAUNCH_FAILED": Meaning("lost", "could not be started on its nodes"),
    "RECONFIG_FAIL": Meaning("lost", "its nodes could not be configured"),
}
RELEASE = f"{HELD}: scontrol release {{job}} lets it run, scancel {{job}} ends it"
ASK = "; if Slurm refuses that, ask those who run the cluster"

# Slurm's word for why a job waits -> what it means to its owner
REASONS = {
    "Priority": "jobs with a higher priority are before it",
    "Resources": "waits for nodes to become free",
    "Dependency": "waits for the job before it",
    "DependencyNeverSatisfied": "can never run, because the job before it failed",
    "BeginTime": "was requeued and starts in a moment",
    "PartitionTimeLimit": (
        "asks for more minutes than the partition allows: lower the profile's minutes"
    ),
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "PartitionDown": "its partition takes no jobs now; see sinfo",
    "PartitionInactive": "its partition takes no jobs now; see sinfo",
    "ReqNodeNotAvail": "the nodes it needs are down, drained or reserved",
    "JobHeldUser": RELEASE,
    "JobHeldAdmin": f"{RELEASE}{ASK}",
    "JobHoldMaxRequeue": f"{RELEASE} (it was requeued too often){ASK}",
    "MaxRequeueReached": f"{RELEASE} (it was requeued too often){ASK}",
    "launch failed requeued held": (
        f"{RELEASE} (it could not be started; see the node with scontrol show node){ASK}"
    ),
    "job requeued in held state": f"{RELEASE} (somebody requeued it so){ASK}",
    "ReservationDeleted": (
        f"{RELEASE} (its reservation was deleted; see the profile's sbatch){ASK}"
    ),
    "REQUEUE_HOLD": f"{RELEASE} (somebody requeued it so){ASK}",
    "SPECIAL_EXIT": (
        f"{RELEASE} (it was requeued as a special case, by an administrator or a prolog){ASK}"
    ),
    "RESV_DEL_HOLD": f"{RELEASE} (its reservation was deleted; see the profile's sbatch){ASK}",
}

# Exit code -> what it means; Slurm's `0:9` (code 0, signal 9) is 137 here, as in a shell
CODES = {
    2: "refused its config or its files; its log says what to change",
    3: "lacks published weights; its log says how they are fetched (jobs/weights.py)",
    4: "stopped because a newer copy of it owns the run folder",
    53: (
        "Slurm could not write its log: the node does not see the run folder, "
        "or may not write there (paths.runs)"
    ),
    75: "was interrupted and could not come back; the same command goes on with it",
    125: "needed more memory than it had asked for: raise memory_gb in the profile",
    126: "a command could not be executed on the node (python or setup of the profile)",
    127: "a command was not found on the node (python or setup of the profile)",
    134: "was ended by a library's abort (SIGABRT)",
    135: "lost memory that it had mapped (SIGBUS): often /dev/shm or the disk of scratch is full",
    137: "was killed (SIGKILL): often because memory ran out (memory_gb of the profile)",
    139: "crashed in compiled code (SIGSEGV)",
    143: "was ended (SIGTERM) before it could save",
}
WORDS_OF_SLURM = ("53", "125")  # not signals, though they stand where signals do


def kind(state: str, queued: bool = False) -> Kind:
    """What a state means; `queued`: squeue shows the job, so that what nobody knows is alive."""
    meant = STATES[state].kind if state in STATES else "unknown"
    if meant in ("lost", "unknown") and queued:
        return "alive"
    return "badly" if meant == "lost" else meant


def first_word(said: str) -> str:
    """`CANCELLED by 0`, `CANCELLED+`, `PENDING,REQUEUED` -> the state."""
    return (re.findall(r"\w+", said) or ["UNKNOWN"])[0]


def in_words(reason: str, job: str = "ID") -> str:
    """Why a job waits, as a phrase; `job`: its id, for what its owner can do."""
    reason = reason.strip("()")
    spaced = reason.replace("_", " ")
    beginning = spaced.partition(",")[0]  # of `ReqNodeNotAvail, UnavailableNodes:n2`
    for known in (reason, spaced, beginning):
        if known in REASONS:
            return REASONS[known].format(job=job)
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", spaced).lower()
    if reason.startswith("QOS"):
        return f"a limit of your qos is reached ({split})"
    if reason.startswith("Assoc"):
        return f"a limit of your account is reached ({split})"
    return split


def is_held(reason: str) -> bool:
    """Whether a job that waits for this reason waits for a person."""
    return in_words(reason).startswith(HELD)


def ending(state: str, exit_code: str) -> str:
    """How a job ended, as a phrase; `exit_code` as Slurm writes it, `code:signal`."""
    number = shell_code(exit_code)
    if state not in STATES:
        general = f"is {state}, of which nothing is known here"
    else:
        general = STATES[state].words
    says_why = state in STATES and state not in ("FAILED", "CANCELLED")
    return general if says_why or number not in CODES else f"{general}: {CODES[number]}"


def shell_code(exit_code: str) -> int:
    """The exit code that a shell would have told; `exit_code` as Slurm writes it, `code:signal`."""
    code, _, signal = exit_code.partition(":")
    number = int(code) if code.isdigit() else 0
    if number == 0 and signal.isdigit() and signal != "0":
        number = int(signal) if signal in WORDS_OF_SLURM else 128 + int(signal)
    if number == 9:  # how a task that was killed by the job's memory guard is told
        number = 137
    return number
