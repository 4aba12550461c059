"""The process of a Slurm job: its exit code, and how it is requeued."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Pretended, captured, refusal

from facefactory import rundir
from facefactory.cluster import Profile, entry, launch, status
from facefactory.cluster.launch import Job
from facefactory.cluster.local import STOPS
from facefactory.rundir import RunDir

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass
class Task:
    """A task of a Slurm job whose child is a line of shell."""

    slurm: Pretended
    folder: RunDir
    monkeypatch: pytest.MonkeyPatch

    def run(
        self,
        child: str,
        requeue: str = "scontrol",
        scratch: str | None = None,
        rank: int = 0,
        **variables: str,
    ) -> int:
        """The exit code of `entry.run`."""
        usual = {
            "JOB_ID": "77",
            "JOB_NAME": "ff-r-train",
            "NTASKS": "2",
            "JOB_NUM_NODES": "2",
            "NODEID": str(rank),
        }
        for name, value in {
            **usual,
            "PROCID": str(rank),
            "LOCALID": "0",
            "JOB_NODELIST": "n[1-2]",
            **variables,
        }.items():
            self.monkeypatch.setenv(f"SLURM_{name}", value)
        self.monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
        self.monkeypatch.setenv("SUBMITIT_FOLDER", str(self.folder.path / "private" / "jobs"))
        self.slurm.command("python", child)
        self.monkeypatch.setattr(sys, "executable", str(self.slurm.folder / "bin" / "python"))
        with pytest.raises(SystemExit) as end:
            entry.run(["stages", "r", "train"], str(self.folder.path), requeue, scratch)
        assert isinstance(end.value.code, int)
        return end.value.code

    @property
    def requeues(self) -> list[str]:
        return self.slurm.calls("scontrol requeue")


@pytest.fixture
def task(slurm: Pretended, folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """A task; its signal handlers, variables and waiting end with the test."""
    (folder.path / "private" / "jobs").mkdir()
    slurm.command("scontrol", 'case "$*" in show*) cat shown;; esac')
    (slurm.folder / "shown").write_text(captured("scontrol", "requeued runs"))
    monkeypatch.setattr(entry, "AWAY_S", 0.01)
    environment = dict(os.environ)
    yield Task(slurm, folder, monkeypatch)
    os.environ.clear()
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 139])
def test_a_task_ends_with_the_exit_code_of_its_work(task: Task, code: int) -> None:
    assert task.run(f"exit {code}") == code
    assert not task.slurm.calls("scontrol")


@pytest.mark.parametrize(
    "ids", [{}, {"ARRAY_JOB_ID": "80", "ARRAY_TASK_ID": "3"}], ids=["plain", "array"]
)
def test_the_job_ends_with_the_code_of_the_rank_that_ended_first(
    task: Task, tmp_path: Path, ids: dict[str, str]
) -> None:
    before = {path for path in task.folder.path.rglob("*") if path.is_file()}
    assert task.run("exit 3", rank=1, **ids) == 3
    task.run("exit 1", **ids)  # what a rank says that lost its peer
    name = "80_3" if ids else "77"
    assert (
        status.log(task.folder, name)
        == task.folder.path / "private" / "jobs" / f"{name}_1_log.out"
    )
    made = {
        path for path in task.folder.path.rglob("*") if path.is_file() and path.suffix != ".alive"
    } - before
    kept = "\n".join(f"printf %s '{path.read_text()}' >'{path}'" for path in made)
    (tmp_path / "job.sh").write_text(
        launch.script(Job("train", [["x"]], "gpu", True, 2), Profile(), task.folder.path)
    )
    for srun, code in (
        (f"{kept}\nexit 143", 3),
        ("exit 143", 143),
        ("exit 0", 0),
    ):  # nor does a restart inherit it
        task.slurm.command("srun", srun)
        assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == code


def test_a_stop_that_srun_sends_because_another_task_failed_is_no_request(
    task: Task, capfd: pytest.CaptureFixture[str]
) -> None:
    assert task.run("exit 1", rank=1) == 1  # it raised, and srun now ends the others with TERM
    assert task.run("exit 75") == 1
    assert task.requeues == []
    assert not task.slurm.calls("sbatch")
    assert "another task ended with code 1 first" in capfd.readouterr().out
    assert task.run("exit 75", rank=2) == 1
    assert (task.folder.path / "private" / "jobs" / "77-0.exit").read_text() == "1 1"


def test_a_failure_of_an_earlier_start_does_not_forbid_a_requeue(task: Task) -> None:
    task.run("exit 1", rank=1)
    assert task.run("exit 75", RESTART_COUNT="1") == 75
    assert task.requeues == ["scontrol requeue 77"]


def test_what_fails_after_a_stop_was_asked_for_does_not_stop_the_requeue(task: Task) -> None:
    assert task.run("exit 75") == 75
    assert len(task.requeues) == 1
    task.run("exit 1", rank=1)  # it lost its peer
    assert (task.folder.path / "private" / "jobs" / "77-0.exit").read_text() == "75 0"


def test_of_tasks_that_end_at_once_one_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "77-0.exit"
    with ThreadPoolExecutor(8) as pool:
        codes = set(pool.map(lambda rank: entry.first_code(path, 10 + rank, rank), range(8)))
    assert len(codes) == 1
    assert path.read_text() == f"{(code := codes.pop())} {code - 10}"
    assert [one.name for one in tmp_path.iterdir()] == ["77-0.exit"]


def test_a_preemption_is_called_one(task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    shown = captured("scontrol", "requeued runs")
    assert task.run("exit 75") == 75
    assert "preempted" not in capfd.readouterr().out
    (task.slurm.folder / "shown").write_text(
        shown + "PreemptEligibleTime=2026-11-22T10:00:00 PreemptTime=2026-11-22T10:00:05\n"
    )
    assert task.run("exit 75", RESTART_COUNT="1") == 75
    assert "job 77 is being preempted" in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_work_that_was_killed_ends_like_in_a_shell(task: Task, number: int) -> None:
    assert task.run(f"kill -{number:d} $$") == 128 + number
    assert not task.slurm.calls("scontrol")


def test_the_work_is_one_of_our_command_lines(task: Task) -> None:
    task.run("")
    assert task.slurm.calls("python") == ["python -u -m facefactory stages r train"]


def test_an_interrupted_job_is_requeued_once_by_its_first_rank(task: Task) -> None:
    assert task.run("exit 75") == 75
    assert task.requeues == ["scontrol requeue 77"]
    assert task.run("exit 75", rank=1) == 75
    assert len(task.requeues) == 1


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING", "PREEMPTED"])
def test_a_job_that_slurm_is_ending_already_is_left_alone(task: Task, state: str) -> None:
    shown = captured("scontrol", "requeued runs").replace("JobState=RUNNING", f"JobState={state}")
    (task.slurm.folder / "shown").write_text(shown)
    assert task.run("exit 75") == 75
    assert task.requeues == []


def test_a_profile_may_forbid_requeueing(task: Task) -> None:
    assert task.run("exit 75", requeue="none") == 75
    assert not task.slurm.calls("scontrol")
    assert not task.slurm.calls("sbatch")


def test_only_the_element_is_requeued_not_its_array(task: Task) -> None:
    # tried on 22.05.8: the last element to start has the array's own id, and `scontrol requeue <id>` takes the finished ones too
    (task.slurm.folder / "shown").write_text(captured("scontrol", "array, many lines"))
    task.run(
        "exit 75",
        JOB_ID="73362",
        ARRAY_JOB_ID="73362",
        ARRAY_TASK_ID="2",
    )
    assert task.requeues == ["scontrol requeue 73362_2"]
    assert task.slurm.calls("scontrol show") == ["scontrol show job 73362_2"]


def test_the_first_rank_leaves_a_heartbeat(task: Task) -> None:
    task.run("", rank=1)
    assert not list((task.folder.path / "private" / "jobs").glob("*.alive"))
    task.run("")
    task.run(
        "",
        ARRAY_JOB_ID="80",
        ARRAY_TASK_ID="3",
    )
    beats = {path.name for path in (task.folder.path / "private" / "jobs").glob("*.alive")}
    assert beats == {"77.alive", "80_3.alive"}  # as status looks for them


def test_scratch_is_expanded_on_the_node(task: Task, tmp_path: Path) -> None:
    task.monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "local disk"))
    task.run('echo "$TMPDIR" >seen', scratch="$SLURM_TMPDIR/ff")
    assert (task.slurm.folder / "seen").read_text().strip() == str(tmp_path / "local disk" / "ff")
    assert (tmp_path / "local disk" / "ff").is_dir()


def test_ranks_find_each_other_and_the_work_knows_its_log(task: Task) -> None:
    task.run('echo "$RANK $WORLD_SIZE $MASTER_ADDR $LOCAL_RANK $FACEFACTORY_LOG" >seen', rank=1)
    rank, world, address, local, log = (task.slurm.folder / "seen").read_text().split()
    assert (rank, world, address, local) == ("1", "2", "n1", "0")
    assert log == str(task.folder.path / "private" / "jobs" / "77_1_log.out")


def test_a_lone_task_starts_no_process_group(task: Task) -> None:
    task.run(
        'echo "${RANK-none} ${WORLD_SIZE-none}" >seen',
        NTASKS="1",
        JOB_NUM_NODES="1",
        JOB_NODELIST="n1",
    )
    assert (task.slurm.folder / "seen").read_text() == "none none\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_signal_does_not_end_the_task_before_its_work(task: Task, number: int) -> None:
    assert task.run(f"kill -{number:d} $PPID; exit 75") == 75
    assert len(task.requeues) == 1


LISTENS = """\
import os, signal, sys
from facefactory import runner
os.kill(os.getpid(), signal.{name})
runner.stop.listen()
sys.exit(75 if runner.stop() else 1)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
def test_a_stop_that_comes_before_the_work_listens_waits_until_it_does(
    task: Task, tmp_path: Path, name: str
) -> None:
    (tmp_path / "listens.py").write_text(LISTENS.format(name=name))
    task.monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert task.run(f"exec {sys.executable} {tmp_path / 'listens.py'}") == 75
    assert len(task.requeues) == 1


def test_a_controller_that_is_away_is_waited_for(task: Task) -> None:
    task.monkeypatch.setattr(entry, "AWAY_S", 10.0)
    task.monkeypatch.setattr(entry.time, "sleep", lambda seconds: None)
    away = refusal("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    task.slurm.command(
        "scontrol",
        f'if [ ! -e tried ]; then echo >tried\n{away}\nfi\ncase "$*" in show*) cat shown;; esac',
    )
    assert task.run("exit 75") == 75
    assert task.requeues == ["scontrol requeue 77"]


DENIED = refusal("slurm_requeue error: Access/permission denied\n")


@pytest.mark.parametrize("how", ["scontrol", "resubmit"])
@pytest.mark.parametrize(
    "shell",
    [None, DENIED, f'case "$*" in show*) cat shown;; *) {DENIED};; esac'],
    ids=["none", "no", "half"],
)
def test_what_cannot_be_requeued_is_told_in_a_line_and_is_no_failure(
    task: Task, capfd: pytest.CaptureFixture[str], how: str, shell: str | None
) -> None:
    if shell is None:  # as in a container
        (task.slurm.folder / "bin" / "scontrol").unlink()
    else:
        task.slurm.command("scontrol", shell)
    assert task.run("exit 75", requeue=how) == 75
    line = capfd.readouterr().out.splitlines()[-1]
    assert line.startswith("job 77 was interrupted and could not be requeued: ")
    assert "scontrol" in line
    assert ("denied" if shell else "No such file") in line
    assert "Give the same command again" in line
    assert "set requeue: " in line
    assert "Traceback" not in line
    assert not task.slurm.calls("sbatch")


def test_a_busy_controller_is_asked_again_but_nothing_is_submitted_twice(task: Task) -> None:
    task.monkeypatch.setattr(entry, "AWAY_S", 10.0)
    task.monkeypatch.setattr(entry.time, "sleep", lambda seconds: None)
    busy = refusal("slurm_load_jobs error: Socket timed out on send/recv operation\n")  # by hand
    answer = 'case "$*" in "show job"*) echo JobState=RUNNING;; esac'
    task.slurm.command("scontrol", f"if [ ! -e tried ]; then echo >tried\n{busy}\nfi\n{answer}")
    task.slurm.command("sbatch", busy)
    assert task.run("exit 75") == 75
    assert task.requeues == ["scontrol requeue 77"]
    assert task.run("exit 75", requeue="resubmit") == 75
    assert len(task.slurm.calls("sbatch")) == 1


def resubmitted(task: Task, waiting: str, **variables: str) -> dict[str, str]:
    """Submit again instead of requeueing; waiting job -> its new dependency."""
    task.slurm.prints("squeue", waiting)
    name = "_".join(
        filter(
            None,
            (variables.get("ARRAY_JOB_ID", variables["JOB_ID"]), variables.get("ARRAY_TASK_ID")),
        )
    )
    (task.folder.path / "private" / "jobs" / f"{name}_submitted.pkl").write_bytes(b"what to run")
    (task.slurm.folder / "shown").write_text("#!/bin/bash\n#SBATCH --mem=1G\n")
    shell = 'case "$*" in "show job"*) echo JobState=RUNNING;; write*) cat shown;; esac'
    task.slurm.command("scontrol", shell)
    assert task.run("exit 75", requeue="resubmit", **variables) == 75
    assert task.requeues == []
    updates = [
        re.fullmatch(r"scontrol update jobid=(\S+) dependency=(\S+)", line)
        for line in task.slurm.calls("scontrol update")
    ]
    return {found[1]: found[2] for found in updates if found}


def test_where_requeueing_is_forbidden_the_job_is_submitted_again_and_its_dependants_wait_for_the_copy(
    task: Task,
) -> None:
    moved = resubmitted(
        task, captured("squeue", "dependencies"), JOB_ID="73417", JOB_NAME="ff-r-sweep"
    )
    assert moved == {f"73418_{place}": "afterok:101" for place in range(3)} | {
        "73420": "afterany:101,afterany:73418,afterany:73419"
    }
    assert (task.slurm.folder / "copy").read_text() == "#!/bin/bash\n#SBATCH --mem=1G\n"
    assert (
        task.folder.path / "private" / "jobs" / "101_submitted.pkl"
    ).read_bytes() == b"what to run"
    assert "--hold" in task.slurm.calls("sbatch")[0]
    assert task.slurm.calls("scontrol")[-1] == "scontrol release 101"
    (line,) = rundir.read_jsonl(task.folder.path / "jobs.jsonl")
    assert (line["stage"], line["job"], line["instead_of"]) == ("sweep", "101", "73417")


def test_of_an_array_only_the_element_is_submitted_again(task: Task) -> None:
    ids = {"JOB_ID": "73424", "ARRAY_JOB_ID": "73424", "ARRAY_TASK_ID": "2"}
    moved = resubmitted(
        task,
        captured("squeue", "dependencies of a running array"),
        JOB_NAME="ff-r-finalists",
        **ids,
    )
    assert moved["73425_2"] == "afterok:101"
    assert "73425_1" not in moved
    assert set(moved["73428"].split(",")) == {"afterany:73424", "afterany:101", "afterany:73425"}
    assert "--array=2" in task.slurm.calls("sbatch")[0].split()
    assert (task.folder.path / "private" / "jobs" / "101_2_submitted.pkl").exists()
    assert rundir.read_jsonl(task.folder.path / "jobs.jsonl")[0]["instead_of"] == "73424_2"
    assert all(
        "73424_2" in line for line in task.slurm.calls("scontrol update") if "requeue=0" in line
    )  # not the whole array
