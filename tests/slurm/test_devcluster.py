"""The dev cluster is a Slurm as people have it: nodes, GPUs, records, faults; and nothing of it stays."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.conftest import SCRIPT, Cluster, why_not


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short empty folder for a second cluster."""
    if reason := why_not():
        pytest.skip(reason)
    top = Path(tempfile.mkdtemp(prefix="ffslurm-", dir="/tmp"))
    yield top
    if (top / ".devcluster").exists():
        subprocess.run(
            [SCRIPT, "down", top],
            check=True,
            timeout=60,
        )
    shutil.rmtree(top)


def traces(folder: Path) -> set[str]:
    """Every process, link and mount on this machine that belongs to the cluster in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ", "mountinfo")]
        except OSError:  # it has just ended, or is a zombie
            continue
        for kind, text in zip(("process", "process", "mount"), texts, strict=True):
            if f"{folder}/".encode() in text or f"{folder}\0".encode() in text:
                found.add(f"{kind} {process.name}: {texts[0][:100]!r}")
    links = subprocess.run(
        ["ip", "-o", "link"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return found | {f"link {link}" for link in links if f"alias {folder}" in link}


def test_a_job_has_two_hosts_with_addresses_of_their_own(slurm: Cluster) -> None:
    lines = slurm.run(
        "srun", "-N2", "bash", "-c", "echo $(hostname) $(hostname -i) $(getent hosts n1 n2)"
    ).splitlines()
    (n1, a1, *seen1), (n2, a2, *seen2) = sorted(line.split() for line in lines)
    assert (n1, n2) == ("n1", "n2")
    assert a1.startswith("10.")
    assert a1.rpartition(".")[0] == a2.rpartition(".")[0]
    assert a1 != a2
    assert seen1 == seen2 == [a1, "n1", a2, "n2"]


def test_each_task_sees_its_gpu(slurm: Cluster) -> None:
    show = ("bash", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES")
    per_task = slurm.run(
        "srun", "-N2", "--ntasks-per-node=2", "--gpus-per-task=1", *show
    ).splitlines()
    assert sorted(per_task) == ["n1 0", "n1 1", "n2 0", "n2 1"]
    assert sorted(slurm.run("srun", "-N2", "--gpus-per-node=1", *show).splitlines()) == [
        "n1 0",
        "n2 0",
    ]
    assert slurm.run("srun", "-wn1", "--gpus-per-node=2", *show).split() == ["n1", "0,1"]


def test_the_accounting_has_the_job_and_the_job_has_slurm(slurm: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = slurm.batch(
        "squeue -h -o %j; scontrol show hostnames",
        "-N2",
        "-Jhello",
        "--comment=ff:run=x",
        f"--output={out}",
    )
    assert slurm.wait(job, {"COMPLETED", "FAILED"}) == "COMPLETED"
    assert out.read_text().split() == ["hello", "n1", "n2"]
    record = ("sacct", "-nXP", "-o", "JobName,State,ExitCode,Comment,NodeList", "-j", job)
    slurm.until(
        lambda: slurm.run(*record).strip() == "hello|COMPLETED|0:0|ff:run=x|n[1-2]",
        15,
        "the record",
    )
    assert "scontrol show hostnames" in slurm.run("sacct", "-j", job, "--batch-script")


def test_every_node_has_its_own_scratch_memory(slurm: Cluster) -> None:
    script = f"for d in {slurm.local} /dev/shm; do touch $d/$(hostname); done; sleep 1; ls {slurm.local} /dev/shm"
    shown = slurm.run("srun", "-lN2", "bash", "-c", script).splitlines()
    assert [line for line in shown if line.endswith("n1")] == ["0: n1", "0: n1"]
    assert [line for line in shown if line.endswith("n2")] == ["1: n2", "1: n2"]


def test_mistakes_are_one_line_and_exit_code_2(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    mistakes: dict[str, list[str | Path]] = {
        "unknown command fly": ["fly", slurm.folder],
        "up wants a folder": ["up"],
        "holds other things": ["up", tmp_path],
        "no cluster was started there": ["down", tmp_path],
        "too long": ["up", f"/tmp/{'x' * 80}"],
        "wants a number": ["up", slurm.folder, "--nodes", "many"],
        "unknown option --node": ["up", slurm.folder, "--node", "2"],
        "n1 to n2": ["kill-node", slurm.folder, "n3"],
    }
    for part, argv in mistakes.items():
        done = subprocess.run(
            [SCRIPT, *argv],
            capture_output=True,
            text=True,
            timeout=10,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (argv, done)
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_up_and_down_twice_leave_nothing(folder: Path) -> None:
    cluster = Cluster(folder)
    first = []
    for options in (("--nodes", "3", "--cpus", "1", "--gpus", "0", "--no-accounting"), ()):
        assert (
            cluster.control("up", *options)
            == f"export SLURM_CONF={folder}/etc/slurm.conf\n"
            == (folder / "env").read_text()
        )
        assert cluster.control("up").startswith("export SLURM_CONF=")  # says that it runs already
        assert cluster.run("sinfo", "-ho", "%D %c %G").split()[:2] == (
            ["3", "1"] if options else ["2", "4"]
        )
        first.append(cluster.batch("sleep 300", "-N2"))
        cluster.wait(first[-1], "RUNNING")
        cluster.control("cut", "n2")
        assert {line.split()[0] for line in traces(folder)} == {"process", "mount", "link"}
        cluster.control("down")
        assert traces(folder) == set()
        assert {path.name for path in folder.iterdir()} == {".devcluster", "log"}
        cluster.control("down")
    assert first[0] != first[1]  # ids of an older cluster do not come again


def test_controller_and_accounting_end_and_come_back(mended: Cluster, tmp_path: Path) -> None:
    job = mended.batch(f"sleep 2; touch {tmp_path / 'ran'}")
    mended.wait(job, "RUNNING")
    mended.control("stop-ctld")
    with pytest.raises(subprocess.CalledProcessError):
        mended.run("squeue")
    mended.control("start-ctld")
    mended.control("stop-dbd")
    with pytest.raises(subprocess.CalledProcessError):
        mended.run("sacct")
    mended.control("start-dbd")
    assert "DOWN" not in mended.control("status")
    mended.run("sacct")
    mended.until((tmp_path / "ran").exists, 20, "the job to run on")


def test_a_killed_controller_comes_back(folder: Path) -> None:
    """On a cluster of its own: one killed within seconds of a submission forgets the job and gives its id to the next."""
    cluster = Cluster(folder)
    cluster.control("up", "--no-accounting")
    cluster.control("stop-ctld", "--kill")
    with pytest.raises(subprocess.CalledProcessError):
        cluster.run("squeue")
    cluster.control("start-ctld")
    cluster.idle(30)
    assert cluster.run("srun", "-N2", "hostname").split() in (["n1", "n2"], ["n2", "n1"])


@pytest.mark.slow
def test_a_low_job_gives_way_and_runs_again(mended: Cluster) -> None:
    low = mended.batch("sleep 300", "-plow", "-N2", "--exclusive")
    mended.wait(low, "RUNNING")
    high = mended.batch("sleep 5", "-N2", "--exclusive")
    assert mended.wait(high, "RUNNING", 30) == "RUNNING"
    assert (mended.state(low), mended.job(low)["Restarts"]) == ("PENDING", "1")
    mended.wait(high, "COMPLETED", 30)
    mended.wait(low, "RUNNING", 30)


@pytest.mark.slow
def test_power_loss_is_a_node_failure_and_the_job_runs_again(
    mended: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = mended.batch(f"while echo $SLURM_RESTART_COUNT >>{log}; do sleep 0.1; done", "-wn2")
    mended.until(log.exists, 20, "the job to write")
    mended.control("kill-node", "n2")
    size = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size == size  # its processes are gone at once
    assert mended.state(job) == "RUNNING"  # Slurm does not know yet
    mended.wait(job, "PENDING", 40)
    assert mended.job(job)["Restarts"] == "1"
    mended.until(
        lambda: "NODE_FAIL" in mended.run("sacct", "-DnXP", "-o", "State", "-j", job),
        10,
        "the record of the failure",
    )
    mended.control("start-node", "n2")
    mended.until(lambda: log.read_text().endswith("1\n"), 40, "the job to write again")


@pytest.mark.slow
def test_a_cut_cable_leaves_two_copies_of_a_job(mended: Cluster, tmp_path: Path) -> None:
    """The case for which a run folder has an owner."""
    log = tmp_path / "log"
    blocker = mended.batch("sleep 300", "-wn1", "--exclusive")
    job = mended.batch(f"for i in $(seq 300); do echo $(hostname) >>{log}; sleep 0.5; done")
    mended.until(log.exists, 30, "the first copy")
    mended.run("scancel", blocker)
    mended.control("cut", "n2")
    mended.until(lambda: "n1" in log.read_text(), 60, "the second copy")
    start = log.read_text().split().index("n1")
    mended.until(lambda: "n2" in log.read_text().split()[start:], 5, "both at once")
    mended.control("heal", "n2")
    mended.until(
        lambda: mended.run("sinfo", "-hNn", "n2", "-p", "gpu", "-o", "%T").strip() == "idle",
        150,
        "n2 back and without its copy",
    )
    assert mended.job(job)["NodeList"] == "n1"
