"""Ray on three nodes that share /tmp: its starts, its folders, and a whole sweep."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Faces

from .chains import ROOT, Place
from .conftest import Cluster, why_not

pytestmark = pytest.mark.slow

STARTS = 20
LEADER = """\
import json, time
from pathlib import Path

from facefactory.cluster import ray_on_slurm

here = Path(__file__).parent
for _ in range({starts}):
    began = time.monotonic()
    code = ray_on_slurm.run(["meet"], here, 1, 0, lambda: False)
    with open(here / "starts", "a") as stream:
        stream.write(json.dumps([code, round(time.monotonic() - began, 1)]) + "\\n")
"""
MEET = """\
import json, os, stat, time
from pathlib import Path

import ray

ray.init(address=os.environ["FACEFACTORY_RAY"], log_to_driver=False)
until = time.monotonic() + 100
while len([node for node in ray.nodes() if node["Alive"]]) < 3 and time.monotonic() < until:
    time.sleep(0.1)


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def place():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()


nodes = len(set(ray.get([place.remote() for _ in range(3)], timeout=60)))
sockets = {node["RayletSocketName"] for node in ray.nodes()}
folders = sorted({"/".join(name.split("/")[:3]) for name in sockets})
modes = [stat.S_IMODE(Path(folder).stat().st_mode) for folder in folders]
with open(Path(__file__).with_name("meetings"), "a") as stream:
    stream.write(json.dumps([nodes, max(map(len, sockets)), modes, folders]) + "\\n")
"""


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """A cluster of three nodes, which share this machine's /tmp."""
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="ffslurm-", dir="/tmp")))
    try:
        cluster.control("up", "--nodes", "3", "--no-accounting")
        yield cluster
    finally:
        cluster.control("down")
        shutil.rmtree(cluster.folder)


def test_ray_starts_each_time(three: Cluster, tmp_path: Path) -> None:
    (tmp_path / "private" / "jobs").mkdir(parents=True)
    (tmp_path / "lead.py").write_text(LEADER.replace("{starts}", str(STARTS)))
    (tmp_path / "meet.py").write_text(MEET)
    paths = f"export PYTHONPATH={ROOT}:{tmp_path}"
    size = [
        "--nodes=3",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--mem=2G",
        f"--output={tmp_path}/log",
    ]
    job = three.batch(f"{paths}; {sys.executable} {tmp_path}/lead.py", *size)
    three.until(
        lambda: three.state(job) not in ("PENDING", "RUNNING"), 30 * STARTS, f"{STARTS} starts"
    )

    # every start gave three nodes, below private folders
    log = (tmp_path / "log").read_text()
    starts = [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]
    assert [code for code, _ in starts] == [0] * STARTS, log
    meetings = [json.loads(line) for line in (tmp_path / "meetings").read_text().splitlines()]
    assert [[nodes, modes] for nodes, _, modes, _ in meetings] == [[3, [0o700] * 3]] * STARTS
    assert (
        max(longest for _, longest, _, _ in meetings) + len("plasma_store") - len("raylet") <= 107
    )

    # and nothing is left
    assert "starting it again" not in log  # nothing had to be tried twice
    assert not any(Path(folder).exists() for *_, folders in meetings for folder in folders)


def test_a_sweep_runs_on_all_three(three: Cluster, tmp_path: Path, orl: Faces) -> None:
    place = Place(three, tmp_path, orl.recipe)
    arguments = [
        "config=tiny",
        "cluster=slurm",
        "run=s",
        f"pack.recipe={orl.recipe}",
        "sweep.parallel=3",
        "sweep.trials=6",
    ]
    place.job("sweep_gan", *arguments, place.profile(processes_per_node=1))
    place.until_ended("s", 400)
    report = json.loads((place.path("s") / "report.json").read_text())
    assert not report["failures"] and len(report["sweep"]["trials"]) == 6, place.logs("s")
    (address,) = (place.path("s") / "private").glob("ray-*.json")
    assert json.loads(address.read_text())["nodes"] == ["n1", "n2", "n3"]
    logs = sorted((place.path("s") / "private" / "jobs").glob("*_ray-*.log"))
    assert [re.sub(r"\d+_", "", path.name) for path in logs] == [
        "ray-n1.log",
        "ray-n2.log",
        "ray-n3.log",
    ]
