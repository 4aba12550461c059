"""How jobs stand, from what Slurm's commands print.

Their answers were captured from Slurm 22.05.8 (captures/*.txt); what newer versions print is written by hand and says so.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import Pretended, captured, refusal
from rich.console import Console

from facefactory import Failed, chain, cluster, command, rundir
from facefactory.cluster import states, status
from facefactory.rundir import RunDir


def sacct(*names: str) -> str:
    """Captured rows, with the columns that status asks for."""
    lines = []
    for name in names:
        header, *rows = captured("sacct", name).splitlines()
        for row in rows:
            cells = dict(zip(header.split("|"), row.split("|"), strict=True))
            lines.append("|".join(cells[column] for column in status.SACCT.values()) + "\n")
    return "".join(lines)


def row(**cells: str) -> str:
    """A row of sacct built by hand."""
    plain = {
        "JobName": "ff-r-train",
        "ExitCode": "0:0",
        "Elapsed": "00:00:05",
        "Timelimit": "00:10:00",
        "NodeList": "n1",
    }
    return "|".join((plain | cells).get(column, "") for column in status.SACCT.values()) + "\n"


# -- what sacct, squeue and scontrol say -----------------------------------------------------------------------------


def one(text: str) -> dict[str, Any]:
    """The only job that sacct tells of."""
    (facts,) = status.parse_sacct(text).values()
    return facts


@pytest.mark.parametrize(
    ("name", "state", "exit_code", "restarts"),
    [
        ("completed", "COMPLETED", "0:0", 0),
        ("failed", "FAILED", "7:0", 0),
        ("killed", "FAILED", "9:0", 0),
        ("cancelled", "CANCELLED", "0:0", 0),
        ("never ran", "CANCELLED", "0:0", 0),
        ("can never run", "PENDING", "0:0", 0),
        ("requeue waits", "REQUEUED", "0:0", 0),
        ("requeued", "COMPLETED", "0:0", 1),
        ("preempted", "COMPLETED", "0:0", 1),
        ("time limit", "TIMEOUT", "0:0", 0),
        ("node lost", "NODE_FAIL", "0:0", 0),
        ("node lost, requeued", "COMPLETED", "0:0", 1),
    ],
)
def test_sacct_tells_the_state_of_the_last_incarnation(
    name: str, state: str, exit_code: str, restarts: int
) -> None:
    facts = one(sacct(name))
    assert (facts["state"], facts["exit_code"], facts["restarts"]) == (state, exit_code, restarts)


def test_sacct_tells_resources_from_the_job_and_memory_from_its_steps() -> None:
    facts = one(sacct("completed"))
    assert (facts["nodes"], facts["elapsed"], facts["limit"], facts["requested"]) == (
        "n[1-2]",
        "00:00:05",
        "00:30:00",
        "1000M",
    )
    assert facts["memory_mb"] == pytest.approx(136412 / 1024)
    assert one(sacct("never ran"))["nodes"] == ""  # sacct: None assigned


def test_the_memory_of_an_earlier_incarnation_is_not_the_last_ones() -> None:
    facts = one(sacct("requeued"))
    assert facts["memory_mb"] == pytest.approx(10708 / 1024)


def test_elements_of_an_array_are_jobs_of_their_own() -> None:
    found = status.parse_sacct(sacct("array done"))
    assert list(found) == [f"73353_{place}" for place in range(6)]
    assert found["73353_2"]["memory_mb"] == pytest.approx(10.5)
    again = status.parse_sacct(sacct("last element requeued"))
    assert {name: facts["restarts"] for name, facts in again.items()} == {
        "73441_0": 0,
        "73441_1": 0,
        "73441_2": 1,
    }


def test_jobs_that_sacct_does_not_know_yet_are_no_jobs() -> None:
    assert status.parse_sacct("") == status.parse_sacct(sacct("unknown job")) == {}


def test_a_step_that_ran_out_of_memory_explains_a_failed_job() -> None:
    # by hand, after FACTS: with cgroups only the step's row says it; the dev cluster enforces nothing
    text = row(JobID="5", State="FAILED", ExitCode="1:0") + row(
        JobID="5.0", State="OUT_OF_MEMORY", MaxRSS="2.5G", ExitCode="0:125"
    )
    facts = one(text)
    assert facts["state"] == "OUT_OF_MEMORY"
    assert facts["memory_mb"] == 2560


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING"])
def test_a_job_that_went_on_without_the_step_that_ran_out_of_memory_did_not_fail(
    state: str,
) -> None:
    text = row(JobID="5", State=state) + row(
        JobID="5.1", State="OUT_OF_MEMORY", ExitCode="0:125"
    )  # by hand
    assert one(text)["state"] == state


def test_a_row_whose_end_came_before_its_start_is_read_all_the_same() -> None:
    # by hand: right after a very short job sacct says `allocation`, no times and no nodes
    text = row(
        JobID="5", JobName="allocation", State="COMPLETED", NodeList="", Timelimit="", Elapsed=""
    )
    assert one(text)["state"] == "COMPLETED"


def test_newer_versions_of_slurm_are_read_too() -> None:
    # by hand, documented differences: the job's own row says OUT_OF_MEMORY; states of later versions; columns that are cut
    assert one(row(JobID="5", State="OUT_OF_MEMORY", ExitCode="0:125"))["state"] == "OUT_OF_MEMORY"
    assert one(row(JobID="5", State="LAUNCH_FAILED"))["state"] == "LAUNCH_FAILED"
    assert one(row(JobID="5", State="CANCELLED by 1000"))["state"] == "CANCELLED"
    assert one(row(JobID="5", State=""))["state"] == "UNKNOWN"
    assert status.parse_sacct("sacct: some news of a later version\n5|too few cells\n") == {}
    assert (
        one(row(JobID="5", State="RUNNING", ReqMem="16Gn"))["requested"] == "16Gn"
    )  # before 21.08: n = per node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("136412K", 133.21),
        ("5.5G", 5632),
        ("10.50M", 10.5),
        ("1T", 2**20),
        ("", 0),
    ],
)
def test_sizes_are_megabytes(text: str, expected: float) -> None:
    assert status.megabytes(text) == pytest.approx(expected, abs=0.01)


def test_scontrol_tells_the_same_where_sacct_does_not() -> None:
    facts = status.parse_scontrol(captured("scontrol", "completed"))
    assert {
        "state": "COMPLETED",
        "nodes": "n[1-2]",
        "elapsed": "00:00:05",
        "limit": "00:30:00",
    }.items() <= facts.items()
    assert facts["exit_code"] == "0:0"
    assert facts["requested"] == "500M"
    assert facts["reason"] is None
    assert status.parse_scontrol(captured("scontrol", "failed"))["exit_code"] == "7:0"
    assert (
        status.parse_scontrol(captured("scontrol", "can never run"))["reason"]
        == "DependencyNeverSatisfied"
    )
    assert status.parse_scontrol(captured("scontrol", "requeue waits"))["restarts"] == 1
    assert status.parse_scontrol(captured("scontrol", "node lost"))["state"] == "NODE_FAIL"
    assert status.parse_scontrol(captured("scontrol", "element, many lines"))["state"] == "RUNNING"
    assert set(facts) == set(one(sacct("completed")))  # whoever was asked, the same facts


def test_what_newer_versions_of_scontrol_add_does_no_harm() -> None:
    # by hand: 23.11 and later print more keys, and NodeList's neighbours have changed their order
    text = (
        "JobId=5 JobName=ff-r-train JobState=RUNNING Reason=None FailedNode=n9 Restarts=2 ExitCode=0:0 RunTime=00:01:00 "
        "TimeLimit=00:10:00 ReqNodeList=(null) ExcNodeList=n3 NodeList=n1 ReqTRES=cpu=1,mem=4G AllocTRES=cpu=1,mem=4G "
        "MinMemoryNode=4G SubmitLine=sbatch --job-name=NodeList=evil x.sh WorkDir=/home/ada TresPerTask=cpu=1"
    )
    facts = status.parse_scontrol(text)
    assert (facts["state"], facts["restarts"], facts["requested"]) == ("RUNNING", 2, "4G")


# -- whom to ask -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Known:
    """A run folder whose ledger names jobs, and the Slurm that is asked for them; squeue says nothing at first."""

    slurm: Pretended
    folder: RunDir

    def records(self, *names: str, more: str = "") -> None:
        """Captured records, and a ledger that names their jobs; `more`: records made by hand."""
        text = sacct(*names) + more
        self.slurm.prints("sacct", text)
        for line in text.splitlines():
            job, name = line.split("|")[:2]
            if "." not in job:
                self.submitted(name.rpartition("-")[2], job.partition("_")[0])

    def submitted(self, stage: str, job: str, **more: str) -> None:
        """A line of the ledger."""
        self.folder.record(
            stage,
            "submitted",
            job=job,
            **more,
        )

    def fails(
        self, *names: str, says: str = "Unable to contact slurm controller (connect failure)"
    ) -> None:
        """Commands fail."""
        for name in names:
            self.slurm.command(name, refusal(f"{name}: error: {says}\n"))

    def read(self) -> tuple[str, dict[str, dict[str, Any]]]:
        """Who answered, and job -> what is known."""
        found = status.read(self.folder)
        assert found["healthy"] == all(one["healthy"] for one in found["jobs"])
        return found["source"], {one["job"]: one for one in found["jobs"]}

    @property
    def states(self) -> dict[str, str]:
        return {job: facts["state"] for job, facts in self.read()[1].items()}


@pytest.fixture
def known(slurm: Pretended, folder: RunDir) -> Known:
    """A run whose jobs Slurm is asked for."""
    made = Known(slurm, folder)
    slurm.prints("squeue", "")
    made.fails("sacct", says="Problem talking to the database: Connection refused")
    made.fails("scontrol", says="Invalid job id specified")
    return made


def test_sacct_is_asked_once_for_all_jobs(known: Known) -> None:
    known.records("completed", "failed", "preempted")
    source, jobs = known.read()
    assert source.startswith("sacct")
    assert {job: facts["state"] for job, facts in jobs.items()} == {
        "73322": "COMPLETED",
        "73323": "FAILED",
        "73439": "COMPLETED",
    }
    assert [len(known.slurm.calls(name)) for name in ("sacct", "squeue", "scontrol")] == [1, 1, 0]
    assert "73322,73323,73439" in known.slurm.calls("sacct")[0]


def test_a_run_without_slurm_jobs_asks_nobody(known: Known) -> None:
    known.folder.record("pack", "finished")
    assert "sacct" not in known.read()[0]
    assert known.slurm.calls() == []


def test_pending_elements_of_an_array_are_listed_one_by_one(known: Known) -> None:
    known.records("array running")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    _, jobs = known.read()
    assert {job: facts["state"] for job, facts in jobs.items()} == {
        **{f"73353_{place}": "RUNNING" for place in (0, 1)},
        **{f"73353_{place}": "PENDING" for place in (2, 3, 4, 5)},
    }
    assert jobs["73353_2"]["reason"] == "JobArrayTaskLimit"
    assert jobs["73353_0"]["nodes"] == "n1"


def test_pending_elements_are_not_lost_while_the_controller_is_away(known: Known) -> None:
    known.records("array running")
    known.fails("squeue", "scontrol")
    assert list(known.states.values()) == ["RUNNING"] * 2 + ["PENDING"] * 4


def test_cancelled_elements_that_never_ran_are_not_lost(known: Known) -> None:
    known.records("array partly cancelled", "array never ran")
    assert known.states == {"73364_0": "COMPLETED"} | {
        f"73364_{place}": "CANCELLED" for place in (1, 2, 3, 4, 5)
    } | {f"73368_{place}": "CANCELLED" for place in range(4)}
    assert known.read()[1]["73364_1"]["nodes"] == "n1"  # its own row, not the one it shares


def test_a_range_with_gaps_and_steps_is_spelled_out(known: Known) -> None:
    known.records(
        more=row(JobID="20_[0,2-4,9%4]", State="CANCELLED")
        + row(JobID="21_[1-7:3]", JobName="ff-r-sweep", State="CANCELLED")
    )
    assert set(known.states) == {
        "20_0",
        "20_2",
        "20_3",
        "20_4",
        "20_9",
        "21_1",
        "21_4",
        "21_7",
    }  # by hand


def test_what_the_controller_knows_of_live_jobs_is_newer_than_the_records(known: Known) -> None:
    known.records("requeue waits")
    known.slurm.prints("squeue", captured("squeue", "requeue waits"))
    facts = known.read()[1]["73356"]
    assert (facts["state"], facts["reason"], facts["requested"]) == (
        "PENDING",
        "BeginTime",
        "100M",
    )
    assert facts["waits"] == states.REASONS["BeginTime"]


def test_without_accounting_squeue_and_scontrol_are_asked(known: Known) -> None:
    known.submitted("finalists", "73353")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    source, jobs = known.read()
    assert source == "squeue"
    assert len(jobs) == 6
    assert not known.slurm.calls("scontrol")
    known.submitted("train", "73322")
    (known.slurm.folder / "job").write_text(captured("scontrol", "completed"))
    known.slurm.command("scontrol", 'case "$*" in *73322*) cat job;; *) exit 1;; esac')
    source, jobs = known.read()
    assert source == "squeue, scontrol"
    assert jobs["73322"]["state"] == "COMPLETED"
    assert jobs["73322"]["nodes"] == "n[1-2]"


def test_an_array_is_read_from_scontrol_too(known: Known) -> None:
    known.submitted("finalists", "73353")
    known.slurm.prints("scontrol", captured("scontrol", "array running"))
    assert list(known.states.values()) == ["RUNNING"] * 2 + ["PENDING"] * 4


def test_a_job_whose_record_has_not_arrived_is_asked_of_scontrol(known: Known) -> None:
    known.records("completed")
    known.submitted("sweep", "73323")
    known.slurm.prints("scontrol", captured("scontrol", "failed"))
    source, jobs = known.read()
    assert source == "sacct, squeue, scontrol"
    assert jobs["73323"]["exit_code"] == "7:0"


def test_where_no_command_answers_the_ledger_does(known: Known) -> None:
    known.submitted("prepare", "50")
    known.submitted("train", "51")
    known.folder.record("pack", "finished", job="50")
    known.fails("sacct", "squeue", "scontrol")
    source, jobs = known.read()
    assert source == "ledger"
    assert {job: facts["state"] for job, facts in jobs.items()} == {
        "50": "FINISHED",
        "51": "UNKNOWN",
    }


def test_a_run_is_waited_for_while_nobody_knows_how_it_stands(known: Known) -> None:
    known.submitted("train", "51")
    assert not status.read(known.folder)["going"]  # squeue answers, and has no such job
    known.fails("sacct", "squeue", "scontrol")
    assert status.read(known.folder)["going"]
    known.records("can never run")
    known.slurm.prints("squeue", captured("squeue", "array running").splitlines()[0] + "\n")
    assert not status.read(known.folder)["going"]  # else it would be waited for, for ever


def test_a_cluster_whose_commands_are_gone_is_no_crash(known: Known) -> None:
    known.submitted("train", "51")
    for name in ("sacct", "squeue", "scontrol"):
        (known.slurm.folder / "bin" / name).unlink()
    assert known.states == {"51": "UNKNOWN"}


def test_what_slurm_has_forgotten_the_ledger_still_knows(known: Known) -> None:
    for job, stage, state in (
        ("50", "pack", "finished"),
        ("51", "train", "failed"),
        ("52", "evaluate", "running"),
    ):
        known.submitted(stage, job)
        known.folder.record(stage, "running", job=job)
        known.folder.record(stage, state, job=job)
    source, jobs = known.read()  # no accounting, and MinJobAge is over
    assert [facts["state"] for facts in jobs.values()] == ["FINISHED", "FAILED", "UNKNOWN"]
    assert source == "squeue, ledger"
    assert not status.read(known.folder)["healthy"]


def test_a_strangers_job_with_an_id_of_ours_is_not_ours(known: Known) -> None:
    known.submitted(
        "train", "73353"
    )  # the controller was killed, forgot our job and gave its id away
    known.slurm.prints("sacct", sacct("array running"))
    known.slurm.prints("squeue", captured("squeue", "array running"))
    assert known.states == {"73353": "UNKNOWN"}


def test_a_job_without_its_name_yet_is_ours(known: Known) -> None:
    known.submitted("train", "5")
    known.slurm.prints(
        "sacct", row(JobID="5", JobName="allocation", State="COMPLETED", NodeList="")
    )  # by hand
    assert known.states == {"5": "COMPLETED"}


# -- status ----------------------------------------------------------------------------------------------------------


def test_reasons_are_told_in_words() -> None:
    for reason in (
        "Priority",
        "(Resources)",
        "Dependency",
        "DependencyNeverSatisfied",
        "BeginTime",
    ):
        assert status.in_words(reason) == states.REASONS[reason.strip("()")]
    assert (
        status.in_words("ReqNodeNotAvail, UnavailableNodes:n2")
        == states.REASONS["ReqNodeNotAvail"]
    )
    for spelling in (
        "launch_failed_requeued_held",
        "launch failed requeued held",
    ):  # scontrol's and squeue's
        assert "scontrol release 77 lets it run" in status.in_words(spelling, "77")

    # limits, and what is in no list
    assert status.in_words("QOSMaxJobsPerUserLimit").startswith("a limit of your qos is reached")
    assert status.in_words("AssocGrpCpuLimit").startswith("a limit of your account is reached")
    assert status.in_words("JobArrayTaskLimit") == "job array task limit"

    # of a node that is down, by squeue and by scontrol
    down = status.in_words(captured("squeue", "node down").splitlines()[2].split("|")[2])
    assert "drained" in down
    assert "DOWN" not in down
    told = status.parse_scontrol(captured("scontrol", "node down"))["reason"]
    assert status.in_words(told) == down


def test_a_healthy_run_is_healthy(known: Known) -> None:
    known.records("completed", "array running")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    found = status.read(known.folder)
    assert found["healthy"]
    assert found["run"] == str(known.folder.path)
    assert [one["job"] for one in found["jobs"]] == [
        "73322",
        *(f"73353_{place}" for place in range(6)),
    ]
    jobs = known.read()[1]
    assert jobs["73353_4"]["waits"] == "job array task limit"
    assert jobs["73353_0"]["waits"] is None
    assert json.loads(json.dumps(found)) == found


ILL = ("failed", "killed", "cancelled", "never ran", "can never run", "time limit", "node lost")


@pytest.mark.parametrize(
    "name",
    [
        *ILL,
        "array failed",
        "array partly cancelled",
        "array never ran",
        "array after failed array",
    ],
)
def test_what_failed_or_can_never_run_is_not_healthy(known: Known, name: str) -> None:
    known.records(name)
    known.slurm.prints(
        "squeue",
        "".join(f"{line}\n" for line in captured("squeue", "array running").splitlines()[:1]),
    )
    assert not status.read(known.folder)["healthy"]


@pytest.mark.parametrize(
    "name", ["requeued", "preempted", "node lost, requeued", "last element requeued", "array done"]
)
def test_coming_back_is_no_illness(known: Known, name: str) -> None:
    known.records(name)
    assert status.read(known.folder)["healthy"]
    assert known.slurm.calls("sacct")


def test_status_ends_with_code_1_when_something_failed(
    known: Known, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known.records("completed")
    (known.folder.path / "config.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(
        sys, "argv", ["status.py", f"paths.runs={known.folder.path.parent}", "run=r", "json=true"]
    )

    def code() -> Any:
        with pytest.raises(SystemExit) as end:
            command.tell_status()
        return end.value.code or 0

    assert code() == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["state"] == "COMPLETED"
    known.records("completed", "failed")
    assert code() == 1
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [*sys.argv[:2], "run=s"])
    assert code() == 2
    assert "there are r" in "".join(capsys.readouterr())


# -- states ----------------------------------------------------------------------------------------------------------

WELL = {"COMPLETED"}
BADLY = {"FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"}
LOST = {
    "PREEMPTED",
    "NODE_FAIL",
    "BOOT_FAIL",
    "REVOKED",
    "LAUNCH_FAILED",
    "RECONFIG_FAIL",
}  # over, unless squeue shows them
HELD = {"REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
VALID = (  # what `squeue --states=x` of 22.05.8 names
    "PENDING,RUNNING,SUSPENDED,COMPLETED,CANCELLED,FAILED,TIMEOUT,NODE_FAIL,PREEMPTED,BOOT_FAIL,DEADLINE,OUT_OF_MEMORY,COMPLETING,"
    "CONFIGURING,RESIZING,RESV_DEL_HOLD,REQUEUED,REQUEUE_FED,REQUEUE_HOLD,REVOKED,SIGNALING,SPECIAL_EXIT,STAGE_OUT,STOPPED"
)


def test_every_state_of_slurms_manual_has_a_meaning() -> None:
    assert set(VALID.split(",")) <= set(states.STATES)
    assert {state for state in states.STATES if states.kind(state) == "well"} == WELL
    assert {state for state in states.STATES if states.kind(state) == "badly"} == BADLY | LOST


@pytest.mark.parametrize("state", [*states.STATES, "NEVER_MET"])
def test_what_squeue_shows_is_alive_and_nothing_is_submitted_in_its_place(
    known: Known, state: str
) -> None:
    known.submitted("train", "5")
    known.slurm.prints("sacct", row(JobID="5", State="RUNNING"))
    known.slurm.prints("squeue", f"5|{state}|None|n1|0:05|10:00|ff-r-train\n")
    alive = state not in WELL | BADLY
    assert (set(status.live(known.folder)) == {"5"}) is alive
    found = status.read(known.folder)
    assert found["going"] is alive
    assert found["healthy"] is (alive or state in WELL)
    assert found["jobs"][0]["state"] == state  # told as it is


@pytest.mark.parametrize("state", sorted({*WELL, *BADLY, *LOST, "NEVER_MET"}))
def test_what_only_the_records_have_is_over(known: Known, state: str) -> None:
    known.submitted("train", "5")
    known.slurm.prints("sacct", row(JobID="5", State=state))
    known.slurm.prints("scontrol", f"JobId=5 JobName=ff-r-train JobState={state} ExitCode=0:0\n")
    found = status.read(known.folder)
    assert status.live(known.folder) == {}
    assert not found["going"]
    assert (found["healthy"], found["well"]) == (state in WELL, state in WELL)
    assert found["jobs"][0]["state"] == state


@pytest.mark.parametrize("state", sorted(HELD))
def test_a_held_job_is_told_with_the_command_that_releases_it(known: Known, state: str) -> None:
    known.submitted("train", "5")
    known.submitted("report", "6")
    known.slurm.prints(
        "squeue",
        f"5|{state}|JobHeldAdmin|||10:00|ff-r-train\n6|PENDING|Dependency|||10:00|ff-r-report\n",
    )
    assert "scontrol release 5 lets it run" in known.read()[1]["5"]["waits"]
    told = status.standing(status.live(known.folder))
    assert told.startswith("Slurm jobs 5, 6; 5 is held: scontrol release 5 ")
    assert "scancel 5" in told


def test_a_job_that_was_held_by_hand_is_told_so(known: Known) -> None:
    known.submitted("train", "5")
    known.slurm.prints("squeue", "5|PENDING|JobHeldUser|||10:00|ff-r-train\n")
    assert "scontrol release 5" in shown(known.folder)
    known.slurm.prints("squeue", "5|PENDING|Priority|||10:00|ff-r-train\n")
    assert status.standing(status.live(known.folder)) == "Slurm jobs 5"


def test_variables_that_change_what_commands_print_do_not_reach_them(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "all")
    monkeypatch.setenv("SQUEUE_PARTITION", "elsewhere")
    monkeypatch.setenv("SLURM_CLUSTERS", "north")  # where the user's jobs are: that stays
    known.submitted("train", "5")
    known.slurm.command(
        "squeue",
        'echo "${SQUEUE_STATES-none} ${SQUEUE_PARTITION-none} $SLURM_CLUSTERS $SLURM_BITSTR_LEN" >seen',
    )
    status.live(known.folder)
    assert (known.slurm.folder / "seen").read_text() == "none none north 0\n"


def test_a_strangers_job_whose_name_has_lines_and_bars_does_no_harm(known: Known) -> None:
    known.submitted("train", "5")
    known.slurm.prints(
        "squeue", "9|RUNNING|None|n1|0:05|10:00|a\nb|c\n5|RUNNING|None|n1|0:05|10:00|ff-r-train\n"
    )
    assert known.states == {"5": "RUNNING"}
    known.slurm.prints("squeue", "")
    known.slurm.prints(
        "sacct",
        row(JobID="5", JobName="ff-r-train|COMPLETED|x", State="FAILED")
        + row(JobID="5", State="FAILED"),
    )
    assert known.states == {"5": "FAILED"}


@pytest.mark.parametrize("name", ["a|b", "it's", 'say "x"', "two words", "naïve", "x" * 200])
def test_a_run_of_any_name_finds_its_jobs(known: Known, tmp_path: Path, name: str) -> None:
    folder = RunDir(tmp_path / "runs" / name)
    folder.path.mkdir(parents=True)
    folder.record("train", "submitted", job="5")
    called = cluster.job_name(name, "train")
    assert re.fullmatch(r"ff-[\w.]+-train", called, re.ASCII)
    assert len(called) < 128
    known.slurm.prints("sacct", row(JobID="5", JobName=called, State="FAILED", ExitCode="1:0"))
    assert not status.read(folder)["healthy"]


def test_earlier_ends_are_told_by_their_names(known: Known) -> None:
    known.records("preempted", "node lost, requeued", "requeued")
    text = shown(known.folder)
    assert "1 (preempted)" in text
    assert "1 (node fail)" in text
    assert "1 (requeued)" in text


ENDS = [
    ("FAILED", "0:53", "does not see the run folder"),
    ("FAILED", "0:15", "(SIGTERM) before it could save"),
    ("FAILED", "0:9", "(SIGKILL)"),
    ("FAILED", "9:0", "(SIGKILL)"),
    ("FAILED", "137:0", "memory_gb"),
    ("FAILED", "0:125", "memory_gb"),
    ("OUT_OF_MEMORY", "0:125", "memory_gb"),
    ("FAILED", "127:0", "was not found on the node"),
    ("FAILED", "126:0", "could not be executed"),
    ("FAILED", "139:0", "(SIGSEGV)"),
    ("FAILED", "135:0", "/dev/shm"),
    ("FAILED", "75:0", "the same command goes on"),
    ("FAILED", "4:0", "a newer copy"),
    ("TIMEOUT", "0:0", "ran out of time"),
    ("PREEMPTED", "0:0", "was preempted"),
    ("NODE_FAIL", "0:0", "lost a node"),
    ("DEADLINE", "0:0", "deadline"),
    ("FAILED", "1:0", "has failed"),
    ("NEVER_MET", "", "is NEVER_MET"),
]


@pytest.mark.parametrize(("state", "code", "words"), ENDS)
def test_how_a_job_ended_is_told_in_words(known: Known, state: str, code: str, words: str) -> None:
    assert words in states.ending(state, code)
    known.records(more=row(JobID="5", State=state, ExitCode=code))
    assert words in " ".join(shown(known.folder).split())
    status.record_failures(known.folder)
    ((_, why),) = failures(known.folder)
    assert words in why


def test_a_refused_submission_is_told_until_one_is_accepted(known: Known) -> None:
    known.folder.record(
        "train", "refused", job="", error="Slurm refused the job: The moon is full."
    )
    found = status.read(known.folder)
    assert not found["healthy"]
    assert not found["well"]
    assert not found["going"]
    assert "REFUSED" in shown(known.folder)
    assert "The moon is full" in shown(known.folder)
    known.submitted("train", "5")
    known.slurm.prints("sacct", row(JobID="5", State="COMPLETED"))
    assert known.states == {"5": "COMPLETED"}
    assert status.read(known.folder)["well"]
    known.folder.record(
        "evaluate",
        "refused",
        job="",
        error="Slurm refused the job: no.",
    )
    assert list(known.states.values()) == ["COMPLETED", "REFUSED"]
    known.folder.record("evaluate", "running")  # then it was done without Slurm
    assert list(known.states.values()) == ["COMPLETED"]


def test_a_run_of_which_nothing_was_begun_is_no_empty_table(known: Known) -> None:
    assert not status.read(known.folder)["healthy"]
    assert known.slurm.calls() == []
    assert "nothing of this run was ever begun" in " ".join(shown(known.folder).split())


@pytest.mark.parametrize(
    ("state", "well"),
    [
        ("COMPLETED", True),
        ("FAILED", False),
        ("CANCELLED", False),
        ("PREEMPTED", False),
    ],
)
def test_who_waits_learns_how_it_ended(known: Known, state: str, well: bool) -> None:
    known.submitted("train", "5")
    known.slurm.prints("sacct", row(JobID="5", State=state))
    with nullcontext() if well else pytest.raises(Failed):
        chain.wait(known.folder)


def test_who_waits_for_what_slurm_has_forgotten_is_not_told_that_all_is_well(known: Known) -> None:
    known.submitted("train", "5")
    with pytest.raises(Failed, match="nobody knows"):
        chain.wait(known.folder)
    known.folder.record("train", "interrupted", job="5")
    with pytest.raises(Failed):
        chain.wait(known.folder)
    known.folder.record("train", "finished", job="5")
    chain.wait(known.folder)


def test_what_slurm_has_forgotten_has_ended_well_if_its_stage_is_done(known: Known) -> None:
    stages = {
        "pack": "pack",
        "prepare": "judge",
        "finalists": "finalists",
        "evaluate": "finalists",
    }
    for number, stage in enumerate(stages):
        known.submitted(stage, str(50 + number))
    assert set(known.states.values()) == {"UNKNOWN"}
    for place in set(stages.values()):
        (known.folder.stage(place)).mkdir()
        (known.folder.stage(place) / "DONE.json").write_text("{}")
    assert set(known.states.values()) == {"FINISHED"}
    chain.wait(known.folder)
    os.utime(known.folder.stage("judge") / "DONE.json", (1, 1))  # of an earlier submission
    assert known.states["51"] == "UNKNOWN"
    os.utime(
        known.folder.stage("pack") / "DONE.json", (1, 1)
    )  # of a file server whose clock is wrong
    assert known.states["50"] == "UNKNOWN"
    known.folder.record("pack", "finished")
    assert known.states["50"] == "FINISHED"


def test_a_stage_that_was_done_before_its_job_was_submitted_is_not_that_jobs(known: Known) -> None:
    path = known.folder.stage("train") / "DONE.json"
    path.parent.mkdir()
    known.folder.record("train", "finished")
    path.write_text("{}")
    earlier = time.time() - 5
    os.utime(path, (earlier, earlier))
    known.submitted("train", "52")
    assert known.states["52"] == "UNKNOWN"


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_the_end_of_a_failed_jobs_log_is_shown(known: Known) -> None:
    known.records("completed", "failed")
    (known.folder.path / "private" / "jobs").mkdir()
    for job in ("73322", "73323"):
        path = known.folder.path / "private" / "jobs" / f"{job}_0_log.out"
        path.write_text("\n".join(f"line {number}" for number in range(99)))
    _, jobs = known.read()
    assert jobs["73322"]["log_tail"] is None
    assert jobs["73323"]["log_tail"].splitlines()[-1] == "line 98"
    assert len(jobs["73323"]["log_tail"].splitlines()) < 30


def test_of_several_tasks_the_log_of_the_one_that_failed_first_is_shown(known: Known) -> None:
    known.records("failed")
    jobs = known.folder.path / "private" / "jobs"
    jobs.mkdir()
    for task in (0, 1, 2):
        (jobs / f"73323_{task}_log.out").write_text(f"task {task}\n")
    assert known.read()[1]["73323"]["log_tail"] == "task 0"  # nobody knows
    (jobs / "73323-0.exit").write_text("75 0")
    os.utime(jobs / "73323-0.exit", (1, 1))
    (jobs / "73323-1.exit").write_text("1 2")
    assert known.read()[1]["73323"]["log_tail"] == "task 2"
    status.record_failures(known.folder)
    (line,) = [
        line
        for line in rundir.read_jsonl(known.folder.path / "jobs.jsonl")
        if line["state"] == "failed"
    ]
    assert line["log"] == str(jobs / "73323_2_log.out")


def test_only_the_newest_submission_of_a_stage_counts(known: Known) -> None:
    known.submitted("train", "73300")
    known.records("completed")
    assert known.states == {"73322": "COMPLETED"}


def test_a_job_that_was_submitted_again_is_judged_by_its_copy(known: Known) -> None:
    known.submitted("train", "50")
    known.submitted("finalists", "60")
    known.submitted("train", "51", instead_of="50")
    known.submitted("finalists", "61", instead_of="60_1")
    array = {"JobName": "ff-r-finalists"}
    text = row(JobID="50", State="FAILED", ExitCode="75:0") + row(JobID="51", State="RUNNING")
    text += row(JobID="60_0", State="COMPLETED", **array) + row(
        JobID="60_1", State="FAILED", ExitCode="75:0", **array
    )
    known.slurm.prints("sacct", text + row(JobID="61_1", State="RUNNING", **array))
    known.slurm.prints(
        "squeue",
        "51|RUNNING|None|n1|0:05|10:00|ff-r-train\n61_1|RUNNING|None|n1|0:05|10:00|ff-r-finalists\n",
    )
    assert known.states == {"51": "RUNNING", "60_0": "COMPLETED", "61_1": "RUNNING"}
    assert status.read(known.folder)["healthy"]
    assert set(status.live(known.folder)) == {
        "51",
        "61_1",
    }
    status.record_failures(known.folder)
    assert "failed" not in (known.folder.path / "jobs.jsonl").read_text()


def test_live_jobs_are_those_that_are_queued_or_running(known: Known) -> None:
    known.records("completed", "failed", "requeue waits")
    known.slurm.prints("squeue", captured("squeue", "requeue waits"))
    assert status.live(known.folder) == {"73356": "BeginTime"}


def test_what_can_never_run_is_not_waited_for(known: Known) -> None:
    known.records("can never run")  # it stays in the queue for ever
    job, name = sacct("can never run").split("|")[:2]
    known.slurm.prints("squeue", f"{job}|PENDING|DependencyNeverSatisfied||0:00|10:00|{name}\n")
    facts = known.read()[1][job]
    assert facts["state"] == "PENDING"
    assert not facts["live"]
    assert not facts["healthy"]
    assert status.live(known.folder) == {}
    assert not status.read(known.folder)["going"]


def test_a_local_run_is_told_from_its_ledger(known: Known) -> None:
    known.folder.record("pack", "finished")
    known.folder.record("train", "running")
    found = status.read(known.folder)
    assert found["healthy"]
    assert [(one["stage"], one["state"]) for one in found["jobs"]] == [
        ("pack", "FINISHED"),
        ("train", "RUNNING"),
    ]
    known.folder.record("train", "failed")
    assert not status.read(known.folder)["healthy"]


def test_progress_comes_from_the_runs_own_files(known: Known) -> None:
    known.records("completed")
    train = known.folder.path / "train"
    (train / "checkpoints").mkdir(parents=True)
    (train / "checkpoints" / "checkpoint-000000001024.pt").touch()
    (train / "metrics-1.jsonl").write_text(
        '{"kimg": 1.0, "images_per_s": 90}\n{"kimg": 2.5, "images_per_s": 100}\n'
    )
    (known.folder.path / "private" / "jobs").mkdir()
    beat = known.folder.path / "private" / "jobs" / "73322.alive"
    beat.touch()
    os.utime(beat, (time.time() - 300, time.time() - 300))
    facts = known.read()[1]["73322"]
    assert (facts["kimg"], facts["images_per_s"]) == (2.5, 100)
    assert 295 <= facts["heartbeat_s"] <= 310
    assert 0 <= facts["checkpoint_s"] <= 10


@pytest.mark.parametrize(("better", "best"), [("lower", 0.2), ("higher", 0.9)])
def test_a_sweeps_best_score_is_that_of_what_it_looks_for(
    known: Known, better: str, best: float
) -> None:
    known.records("failed")
    for number, score in enumerate((0.5, 0.2, 0.9)):
        trial = known.folder.path / "sweep" / "trials" / str(number)
        trial.mkdir(parents=True)
        (trial / "trial.json").write_text("{}")
        line = {"kimg": 4.0, "fit": score, "other": 0.0}
        (trial / "scores.jsonl").write_text(json.dumps(line) + "\n")
    assert known.read()[1]["73323"]["best"] is None  # nothing says yet what is looked for
    (known.folder.path / "sweep" / "goal.json").write_text(
        json.dumps({"metric": "fit", "better": better})
    )
    facts = known.read()[1]["73323"]
    assert facts["trials"] == 3
    assert facts["best"] == best


def shown(folder: RunDir) -> str:
    """The table as text."""
    out = io.StringIO()
    Console(file=out, width=220).print(status.table(status.read(folder)))
    return out.getvalue()


def test_the_table_shows_every_job_and_survives_brackets(known: Known) -> None:
    known.records("completed", "failed", "array running", "can never run")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    text = shown(known.folder)
    assert "from sacct" in text
    assert "n[1-2]" in text
    assert "133M / 1000M" in text
    assert "7:0" in text
    assert "00:00:05 / 00:30:00" in text
    assert states.REASONS["DependencyNeverSatisfied"] in text
    for job in ("73322", "73323", "73325", "73353_0", "73353_5"):
        assert job in text
    known.fails("sacct", "squeue", "scontrol")
    assert "UNKNOWN" in shown(known.folder)
    assert "ledger" in shown(known.folder)


def failures(folder: RunDir) -> list[tuple[str, str]]:
    """(stage, why) of the ledger's failures."""
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    return [(line["stage"], line["error"]) for line in lines if line["state"] == "failed"]


def test_what_slurm_knows_of_silent_ends_is_written_into_the_ledger_once(known: Known) -> None:
    known.records("killed", "never ran", "cancelled", "completed")
    for _ in range(2):
        status.record_failures(known.folder)
    found = dict(failures(known.folder))
    assert set(found) == {"killed", "finalists", "canc"}
    assert len(failures(known.folder)) == 3
    assert "FAILED (exit code 9:0) of Slurm job 73326" in found["killed"]
    assert found["finalists"] == "Slurm job 73324 never ran, because a job before it failed"
    assert found["canc"].startswith("CANCELLED")


def test_a_job_that_slurm_cancelled_before_it_ran_never_ran_whatever_its_record_has_for_a_reason(
    known: Known,
) -> None:
    known.records(
        more=row(JobID="5", State="CANCELLED", NodeList="None assigned", Reason="None")
    )  # seen in one of four
    status.record_failures(known.folder)
    assert failures(known.folder) == [
        ("train", "Slurm job 5 never ran, because a job before it failed")
    ]


def test_a_job_that_a_person_cancelled_was_not_stopped_by_the_job_before(known: Known) -> None:
    known.records(
        more=row(JobID="5", State="CANCELLED by 0", Reason="Dependency")
    )  # by hand: sacct keeps the old reason
    status.record_failures(known.folder)
    ((_, why),) = failures(known.folder)
    assert "never ran" not in why


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (40, "40 s ago"),
        (720, "12 min ago"),
        (12600, "3.5 h ago"),
    ],
)
def test_ages_are_readable(seconds: float, expected: str) -> None:
    assert status.age(seconds) == expected
