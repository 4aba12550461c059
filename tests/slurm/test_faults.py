"""What clusters do to jobs, on a real Slurm: each drill ends with what the undisturbed run has, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Faces

from facefactory.rundir import RunDir

from .chains import ROOT, Place
from .conftest import Cluster, reopen, why_not

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all drills run: they share the packed sets, the judge and the undisturbed runs."""
    return tmp_path_factory.mktemp("drills")


@pytest.fixture
def place(mended: Cluster, folder: Path, faces: Faces) -> Place:
    """Trainings of small drawn faces."""
    place = Place(mended, folder, faces.recipe)
    place.pace(0.1)
    return place


@pytest.fixture
def sweeps(mended: Cluster, folder: Path, orl: Faces) -> Place:
    """Sweeps over ORL, which has enough people for a judge."""
    place = Place(mended, folder, orl.recipe)
    place.pace(None)
    return place


def process(part: str, environment: str = "") -> int:
    """The pid, as this host knows it, of the oldest process with such a command line and environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            text = (path / "environ").read_bytes()
        except OSError:
            continue
        if part in line and environment.encode() in text:
            found.append(int(path.name))
    assert found, part
    return min(found)


# -- one training ----------------------------------------------------------------------------------------------------


def test_preempted(place: Place) -> None:
    place.drill("preempted", place.profile(partition="low"))
    place.until_trained("preempted", 0.3)
    other = place.cluster.batch("sleep 1", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.wait(other, "COMPLETED")
    place.same_as_undisturbed("preempted")
    assert place.status("preempted")["train"]["restarts"] == 1
    assert "interrupted" in place.ledger("preempted")


def test_preempted_where_requeueing_is_forbidden(place: Place) -> None:
    place.drill("moved", place.profile(partition="low", requeue="resubmit"))
    place.until_trained("moved", 0.3)
    job = place.ids("moved")["train"]
    other = place.cluster.batch("sleep 1", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.until(lambda: place.ids("moved")["train"] != job, 60, place.logs("moved"))
    place.cluster.wait(other, "COMPLETED")
    place.same_as_undisturbed("moved")
    row = place.status("moved")["train"]
    old = place.cluster.run("sacct", "-DnXP", "-o", "State", "-j", job).split()
    assert (row["job"], row["state"]) == (place.ids("moved")["train"], "COMPLETED") and len(
        old
    ) == 1, old
    assert place.ledger("moved").count("interrupted") == 1


def test_time_limit(place: Place) -> None:
    place.pace(0.3)
    place.drill("limit", place.profile(gpu_min=1, signal_s=50))
    job = place.ids("limit")["train"]

    def restarts() -> int:
        return int(place.cluster.job(job).get("Restarts", 0))

    place.cluster.until(lambda: restarts() >= 2, 200, "two restarts")
    place.cluster.run("scontrol", "update", f"jobid={job}", "TimeLimit=10")
    place.same_as_undisturbed("limit")
    row = place.status("limit")["train"]
    assert row["state"] == "COMPLETED"
    assert row["restarts"] >= 2
    assert "interrupted" in place.ledger("limit")


def test_requeued_by_hand(place: Place) -> None:
    place.drill("hand", place.profile())
    place.until_trained("hand", 0.3)
    place.cluster.run("scontrol", "requeue", place.ids("hand")["train"])
    place.same_as_undisturbed("hand")
    assert place.status("hand")["train"]["restarts"] == 1
    assert "interrupted" in place.ledger("hand")


def test_power_loss(place: Place) -> None:
    place.drill("power", place.profile())
    place.until_trained("power", 0.3)
    job = place.ids("power")["train"]
    node = place.cluster.job(job)["NodeList"]
    place.cluster.control("kill-node", node)
    place.cluster.until(lambda: place.cluster.job(job).get("Restarts") == "1", 60, "the requeue")
    place.cluster.control("start-node", node)
    place.same_as_undisturbed("power")
    assert "NODE_FAIL" in place.cluster.run("sacct", "-DnXP", "-o", "State", "-j", job)


def test_a_cut_off_copy_stops_at_its_next_write(place: Place) -> None:
    place.pace(0.6)
    place.drill("cut", place.profile())
    place.until_trained("cut", 0.1)
    job = place.ids("cut")["train"]
    node = place.cluster.job(job)["NodeList"]
    place.cluster.control("cut", node)
    first = (place.path("cut") / "owner.json").read_bytes()
    place.cluster.until(
        lambda: (place.path("cut") / "owner.json").read_bytes() != first, 90, "a second copy"
    )
    place.pace(None)
    place.same_as_undisturbed("cut")
    place.cluster.control("heal", node)
    place.cluster.until(lambda: "older copy stops" in place.logs("cut"), 60, place.logs("cut"))
    assert f"{node}: task 0: Exited with exit code 4" in place.logs("cut")
    assert place.status("cut")["train"]["state"] == "COMPLETED"
    assert place.ledger("cut").count("finished") == 1


def test_scancel_is_final_until_somebody_says_the_command_again(place: Place) -> None:
    place.drill("cancelled", place.profile())
    place.until_trained("cancelled", 0.3)
    job = place.ids("cancelled")["train"]
    place.cluster.run("scancel", job)
    place.until_ended("cancelled")
    place.cluster.wait(job, "CANCELLED")
    assert place.status("cancelled", code=1)["train"]["restarts"] == 0
    place.pace(None)
    place.drill("cancelled", place.profile())
    place.same_as_undisturbed("cancelled")
    assert place.ids("cancelled")["train"] != job
    assert "interrupted" in place.ledger("cancelled")


def test_requeue_none_ends_75_and_the_same_command_goes_on(place: Place) -> None:
    profile = place.profile(
        requeue="none",
        setup=["export SOMETHING=$SLURMD_NODENAME"],
        scratch="/tmp/$SOMETHING.scratch",
    )
    place.drill("none", profile)
    place.until_trained("none", 0.3)
    place.cluster.run("scancel", "--signal=TERM", place.ids("none")["train"])
    place.until_ended("none")
    row = place.status("none", code=1)["train"]
    assert (row["state"], row["exit_code"], row["restarts"]) == ("FAILED", "75:0", 0)
    assert f"scratch is /tmp/{row['nodes']}.scratch\n" in place.logs("none")
    place.pace(None)
    place.drill("none", profile)
    place.same_as_undisturbed("none")


def test_edits_after_the_submission_do_not_reach_queued_jobs(place: Place, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("facefactory", "jobs", "shards"):
        shutil.copytree(
            ROOT / name,
            checkout / name,
            ignore=shutil.ignore_patterns("__pycache__", "packed", "judges"),
        )
    place.pace(None)
    place.drill_files()

    # submitted from a checkout while the cluster is full
    own = Place(
        place.cluster, checkout, place.recipe, checkout
    )  # its own folder is where people stand when they submit
    blocker = place.cluster.batch("sleep 600", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.wait(blocker, "RUNNING")
    arguments = [
        f"paths.runs={place.folder / 'runs'}",
        f"paths.data={place.folder / 'shards'}",
        place.profile(),
    ]
    own.drill("edited", f"objective.name={place.folder / 'paced.py'}", *arguments)

    # edited before it starts
    objective = place.folder / "paced.py"
    for path in (*checkout.rglob("*.py"), objective):
        path.write_text("raise RuntimeError('this is the edited code')\n")
    place.cluster.run("scancel", blocker)
    place.until_ended("edited")
    place.drill_files()
    place.same_as_undisturbed("edited")
    assert "edited code" not in place.logs("edited")


def test_a_stop_that_comes_while_python_ends_does_no_harm() -> None:
    """Then Python has given its handlers back; a rank that had finished was killed by the warning before a time limit."""
    lines = [
        "import ctypes",
        "from facefactory import runner",
        "runner.stop.listen()",
        "print(flush=True)",
    ]
    lines += [
        "ctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).pause)"
    ]  # waits for a signal, after all of Python's own end
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        end = time.monotonic() + 2
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(signal.SIGUSR2)
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL


# -- Slurm itself ----------------------------------------------------------------------------------------------------


def test_controller_and_accounting_die_during_a_run(place: Place) -> None:
    place.pace(0.3)
    place.drill("headless", place.profile())
    place.until_trained("headless", 0.1)
    place.cluster.control("stop-dbd")
    assert place.status("headless")["source"].startswith("squeue")
    place.cluster.control("stop-ctld", "--kill")
    found = place.status("headless")
    assert found["source"] == "ledger"
    assert found["prepare"]["state"] == "FINISHED"
    assert found["train"]["state"] == "RUNNING"
    assert found["train"]["kimg"] >= 0.1
    place.cluster.control("start-dbd")
    assert place.status("headless")["source"].startswith("sacct")
    place.cluster.control("start-ctld")  # after slurmdbd, without which it does not start
    place.same_as_undisturbed("headless")
    place.cluster.until(
        lambda: place.status("headless")["train"]["state"] == "COMPLETED", 30, "the record"
    )


def test_the_controller_is_away_when_a_job_wants_to_be_requeued(place: Place) -> None:
    run = "patient"
    place.drill(run, place.profile())
    place.until_trained(run, 0.3)
    job = place.ids(run)["train"]
    place.cluster.control("stop-ctld", "--kill")
    os.kill(
        process(f"-m facefactory stages {place.path(run)} train"), signal.SIGTERM
    )  # scancel needs a controller
    place.cluster.until(lambda: "interrupted" in place.ledger(run), 60, place.logs(run))
    time.sleep(3)  # rank 0 asks again and again
    place.cluster.control("start-ctld")
    place.cluster.until(
        lambda: place.cluster.job(job).get("Restarts") == "1",
        60,
        f"the requeue\n{place.logs(run)}",
    )
    place.same_as_undisturbed(run)
    row = place.status(run)["train"]
    assert (row["job"], row["state"], row["restarts"]) == (job, "COMPLETED", 1)


def test_without_accounting(folder: Path, faces: Faces) -> None:
    if reason := why_not():
        pytest.skip(reason)

    # a cluster that keeps no accounts
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="ffslurm-", dir="/tmp")))
    try:
        cluster.control("up", "--no-accounting")
        place = Place(cluster, folder, faces.recipe)
        place.pace(0.1)
        place.drill("unaccounted", place.profile())
        place.until_trained("unaccounted", 0.2)
        found = place.status("unaccounted")
        assert "squeue" in found["source"]
        assert found["train"]["state"] == "RUNNING"

        # requeued
        cluster.run("scontrol", "requeue", place.ids("unaccounted")["train"])
        place.same_as_undisturbed("unaccounted")
        found = place.status("unaccounted")
        assert "scontrol" in found["source"]
        assert (
            found["train"]["state"],
            found["train"]["restarts"],
        ) == ("COMPLETED", 1)
        strangers(place, "unaccounted")

        # nobody answers: the ledger does
        cluster.control("stop-ctld")
        found = place.status("unaccounted")
        assert "ledger" in found["source"]
        assert found["prepare"]["state"] == found["train"]["state"] == "FINISHED"
    finally:
        cluster.control("down")
        shutil.rmtree(cluster.folder)


def strangers(place: Place, run: str) -> None:
    """A controller that is killed forgets the newest jobs and gives their ids to others: those are not ours."""
    ledger = place.path(run) / "jobs.jsonl"
    before = ledger.read_bytes()
    for script, state in (("sleep 300", "RUNNING"), ("exit 3", "FAILED")):
        stranger = place.cluster.batch(script, "--job-name=somebody")
        place.cluster.wait(stranger, state)
        RunDir(place.path(run)).record(
            "train",
            "submitted",
            job=stranger,
        )
        found = place.status(run)["train"]
        place.cluster.run("scancel", stranger)
        assert (found["job"], found["state"]) == (stranger, "UNKNOWN"), found
        ledger.write_bytes(before)


def test_a_job_id_that_was_given_to_somebody_else(place: Place) -> None:
    place.pace(None)
    place.drill("undisturbed", "cluster=local")
    strangers(place, "undisturbed")


# -- sweeps ----------------------------------------------------------------------------------------------------------

SPACE = "objective.terms.r1.gamma: {choice: [1.0, 2.0]}\nmodel.width: {choice: [4, 6]}\n"


def sweep(place: Place, run: str, *arguments: str, code: int = 0) -> str:
    """A sweep over a grid of 4 trials on two nodes."""
    place.drill_files()
    (place.folder / "space.yaml").write_text(SPACE)
    usual = ["config=tiny", "cluster=slurm", f"run={run}", f"pack.recipe={place.recipe}"]
    usual += [
        f"objective.name={place.folder / 'paced.py'}",
        f"sweep.space={place.folder / 'space.yaml'}",
    ]
    usual += [
        "sweep.sampler=grid",
        "sweep.early_stopping=false",
        "sweep.min_kimg=0.3",
        "sweep.max_kimg=0.6",
    ]
    return place.job(
        "sweep_gan",
        *usual,
        "training.total_kimg=1.0",
        *arguments,
        code=code,
    )


def trials(place: Place, run: str) -> Path:
    return place.path(run) / "sweep" / "trials"


def finished(place: Place, run: str) -> dict[Path, tuple[int, bytes]]:
    """What the finished trials of a sweep left, and when."""
    ended = [path.parent for path in trials(place, run).glob("*/state.json")]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for one in ended
        for path in one.glob("train/DONE.json")
    }


def until_saved(place: Place, run: str) -> None:
    """Wait until a trial has saved something: a sweep that saves nothing between two kills is not requeued for ever."""
    began = time.time()

    def saved() -> bool:
        return any(
            path.stat().st_mtime > began
            for path in trials(place, run).glob("*/train/checkpoints/*.pt")
        )

    place.cluster.until(saved, 90, f"a checkpoint\n{place.logs(run)}")


def until_finished(place: Place, run: str, count: int) -> dict[Path, tuple[int, bytes]]:
    place.cluster.until(
        lambda: len(finished(place, run)) >= count, 120, f"{count} trials\n{place.logs(run)}"
    )
    return finished(place, run)


def scores(place: Place, run: str) -> dict[str, Any]:
    """Trial -> its scores, without the seconds."""
    found = json.loads((place.path(run) / "sweep" / "results.json").read_text())["trials"]
    assert [one["state"] for one in found] == ["finished"] * 4, found
    keep = ("kimg", "kd_lite0", "kd_judge")
    return {
        one["name"]: [{key: line[key] for key in keep} for line in one["scores"]] for one in found
    }


def same_sweep(place: Place, run: str) -> None:
    """Assert that a sweep ended with the trials, scores and finalists of one that nothing happened to."""
    place.pace(None)
    place.until_ended(run, 300)
    if not (place.path("calm") / "report.json").exists():
        sweep(place, "calm", "cluster=local")
    assert (place.path(run) / "report.json").exists(), place.logs(run)
    assert scores(place, run) == scores(place, "calm")
    for file in (
        "finalists/results.json",
        "finalists/0-*/train/DONE.json",
        "finalists/*/evaluate/results.json",
        "finalists/*/*/results.json",
    ):
        told = [
            [facts(path) for path in sorted(place.path(one).glob(file))] for one in (run, "calm")
        ]
        assert told[0] == told[1], place.logs(run)


def facts(path: Path) -> Any:
    """What a JSON file of a run says, without what differs from run to run."""
    told = json.loads(path.read_text())
    return told["outputs"] if path.name == "DONE.json" else told


def test_a_sweep_loses_its_head_its_driver_and_a_node(sweeps: Place) -> None:
    place = sweeps
    run = "beaten"
    place.pace(0.1)
    sweep(place, run, place.profile(processes_per_node=1))
    job = place.ids(run)["sweep"]
    before = until_finished(place, run, 1)
    token = str(place.path(run) / "private" / f"ray-{job}.token")

    # first Ray's head, then the driver
    for restarts, part in ((1, "gcs_server"), (2, "-m facefactory stages")):
        until_saved(place, run)
        os.kill(process(part, token), signal.SIGKILL)
        place.cluster.until(
            lambda n=restarts: place.cluster.job(job).get("Restarts") == str(n),
            60,
            f"requeue\n{place.logs(run)}",
        )
        place.cluster.wait(job, "RUNNING")
        now = finished(place, run)
        assert before.items() <= now.items()
        before = now

    # then a node
    place.pace(0.2)
    place.cluster.control("kill-node", "n2")  # before this start has trained anything
    place.pace(None)
    place.cluster.until(
        lambda: place.cluster.job(job).get("Restarts") == "3",
        60,
        "the requeue after the power loss",
    )
    place.cluster.control("start-node", "n2")
    same_sweep(place, run)
    assert before.items() <= finished(place, run).items()


@pytest.mark.parametrize(
    ("how", "away_s"),
    [
        ("--kill", 0.0),
        ("--kill", 6.0),
        ("", 0.0),
    ],
)
def test_the_controller_restarts_while_a_sweep_starts_ray(
    sweeps: Place, how: str, away_s: float
) -> None:
    """Killed, it may have forgotten that the job runs; ended, it refuses steps for some seconds, for want of memory.

    A job that it forgot and starts a second time beside itself Slurm holds, and closes the node.
    """
    place = sweeps
    run = f"restarted{how}-{away_s:g}"
    sweep(place, run, place.profile(processes_per_node=1))
    job = place.ids(run)["sweep"]
    token = place.path(run) / "private" / f"ray-{job}.token"
    place.cluster.until(token.exists, 240, f"a start of Ray\n{place.logs(run)}")
    place.cluster.control("stop-ctld", *how.split())
    time.sleep(away_s)
    place.cluster.control("start-ctld")
    if held_or_over(place, run, job):
        assert f"scontrol release {job} lets it run" in place.status(run)["sweep"]["waits"]
        reopen(place.cluster)
        place.cluster.run("scontrol", "release", job)
    same_sweep(place, run)
    assert "failed" not in place.ledger(run, "sweep")


def held_or_over(place: Place, run: str, job: str) -> bool:
    """Wait until a sweep is over, or Slurm holds its job; whether it does.

    The reason is there a moment before the job has left its nodes.
    """
    end = place.path(run) / "sweep" / "DONE.json"

    def held() -> bool:
        known = place.cluster.job(job)
        reason = known.get("Reason")
        return reason == "launch_failed_requeued_held" and known["JobState"] == "PENDING"

    place.cluster.until(lambda: end.exists() or held(), 300, place.logs(run))
    return not end.exists()


def test_a_preempted_sweep_is_told_as_such(sweeps: Place) -> None:
    place = sweeps
    run = "yielding"
    place.pace(0.1)
    sweep(place, run, place.profile(processes_per_node=1, partition="low"))
    saved = trials(place, run)
    place.cluster.until(lambda: any(saved.glob("*/train/checkpoints/*.pt")), 240, place.logs(run))
    other = place.cluster.batch("sleep 1", "--partition=gpu", "--nodes=2", "--exclusive")
    place.cluster.wait(other, "COMPLETED")
    place.cluster.until(lambda: place.status(run)["sweep"]["restarts"] == 1, 60, place.logs(run))
    same_sweep(place, run)
    assert "the job was told to stop, and Ray with it" in place.logs(run)
    assert not any(
        words in place.logs(run) for words in ("has ended (srun", "did not come up", "Traceback")
    )


def test_two_sweeps_share_nodes_and_keep_strangers_out(sweeps: Place) -> None:
    place = sweeps
    profile = sweeps.profile(processes_per_node=1)
    place.pace(0.3)
    for run in ("one", "two"):
        sweep(place, run, profile)
    jobs = {run: place.ids(run)["sweep"] for run in ("one", "two")}
    tokens = {run: place.path(run) / "private" / f"ray-{job}.token" for run, job in jobs.items()}
    for run, job in jobs.items():
        place.cluster.until(
            lambda run=run: any(trials(place, run).glob("*/train/metrics-*.jsonl")),
            120,
            place.logs(run),
        )
        assert place.cluster.job(job)["NodeList"] == "n[1-2]"
        assert (tokens[run].parent.stat().st_mode & 0o777, tokens[run].stat().st_mode & 0o777) == (
            0o700,
            0o600,
        )
        assert tokens[run].read_text() not in place.cluster.run(
            "sacct", "-j", job, "--batch-script"
        )
    stranger = tokens["one"].read_text()
    place.cluster.run("scancel", *place.ids("one").values())
    place.until_ended("one")
    address = json.loads((tokens["two"].parent / f"ray-{jobs['two']}.json").read_text())["address"]
    join = f"import ray; ray.init(address={address!r}); print('nodes', len(ray.nodes()))"
    step = [
        "srun",
        "--overlap",
        f"--jobid={jobs['two']}",
        "-N1",
        "-n1",
        "-wn1",
        "timeout",
        "40",
        "env",
    ]

    def client(*environment: str) -> str:
        line = [*step, *environment, sys.executable, "-c", join]
        done = subprocess.run(
            line, env=place.cluster.env, capture_output=True, text=True, timeout=90
        )
        return done.stdout + done.stderr

    assert "nodes 2" in (
        told := client("RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={tokens['two']}")
    ), told
    for others in (
        ["RAY_AUTH_MODE=disabled"],
        ["RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN={stranger}"],
    ):
        told = client(*others)
        assert "InvalidAuthToken" in told and "nodes 2" not in told, told
    assert place.status("two")["sweep"]["state"] == "RUNNING"
    same_sweep(place, "two")
    assert place.status("two")["sweep"]["restarts"] == 0
    sweep(place, "one", profile)
    same_sweep(place, "one")


def test_a_failed_finalist_does_not_stop_the_other(sweeps: Place) -> None:
    place = sweeps
    run = "half"
    (place.folder / "break").touch()
    sweep(place, run, place.profile(), "sweep.finalists=4")
    place.until_ended(run, 300)
    (place.folder / "break").unlink()

    # two of four fail, and the report says so
    found = place.status(run, code=1)
    ended = json.loads((place.path(run) / "finalists" / "results.json").read_text())["finalists"]
    assert sorted(one["state"] for one in ended) == ["failed", "failed", "finished", "finished"], (
        ended
    )
    assert found["report"]["state"] == "COMPLETED"
    told = json.loads((place.path(run) / "report.json").read_text())["failures"]
    failed = {
        one["name"]
        for one in told
        if one["what"] == "finalist failed" and "broken on purpose" in one["error"]
    }
    assert failed == {one["name"] for one in ended if one["state"] == "failed"}, told

    # with error and log's tail
    page = (place.path(run) / "report.html").read_text()
    assert (
        page.count("LookupError: this finalist is broken on purpose") >= 4 and "_call_impl" in page
    )  # error and log's tail

    # jobs that waited for them were cancelled
    records = place.records(run)
    for stage, states in {
        "finalists": ("COMPLETED", "FAILED"),
        "evaluate": ("COMPLETED", "CANCELLED"),
    }.items():
        for state in states:
            assert sum(line.startswith(f"ff-{run}-{stage} {state}") for line in records) == 2, (
                records
            )


def test_submitted_again_where_requeueing_is_forbidden(sweeps: Place) -> None:
    place = sweeps
    run = "again"
    place.pace(0.05)
    sweep(place, run, place.profile(requeue="resubmit"))
    ids = place.ids(run)
    until_finished(place, run, 1)

    # the driver is killed: another job takes over
    token = str(place.path(run) / "private" / f"ray-{ids['sweep']}.token")
    os.kill(process("-m facefactory stages", token), signal.SIGKILL)  # the driver
    place.cluster.until(lambda: place.ids(run)["sweep"] != ids["sweep"], 60, place.logs(run))
    place.cluster.until(
        lambda: (place.path(run) / "sweep" / "DONE.json").exists(), 120, place.logs(run)
    )

    # a finalist is stopped: so does its own
    place.pace(0.3)  # a finalist goes on from 0.6 to 1 kimg
    place.until_trained(run, 0.7, "finalists/1-*/train")
    place.cluster.run("scancel", "--signal=TERM", f"{ids['finalists']}_1")
    place.cluster.until(
        lambda: place.ids(run)["finalists"] != ids["finalists"], 60, place.logs(run)
    )
    same_sweep(place, run)

    # nothing failed, and nobody waits for the old ones
    report = json.loads((place.path(run) / "report.json").read_text())
    assert not report["failures"], report["failures"]
    rows = json.loads(place.job("status", f"run={run}", "json=true"))["jobs"]
    assert {row["state"] for row in rows} == {"COMPLETED"}, rows
    assert ids["sweep"] not in {row["job"] for row in rows}
    assert f"{ids['finalists']}_1" not in {row["job"] for row in rows}
