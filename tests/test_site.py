"""What of a profile cannot work on a cluster, as far as the cluster itself tells; checked before anything is queued."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import Pretended, captured

from facefactory import UserError
from facefactory.cluster import Profile, launch, site
from facefactory.cluster.launch import Job
from facefactory.rundir import RunDir

ROWS = """\
gpu*|up|2-00:00:00|4|64|256000|gpu:a100:4(S:0-1)|a100,ib
gpu*|up|2-00:00:00|2|32|128000|gpu:v100:2|v100
cpu|up|12:00:00|10|16|64000|(null)|ib
drained|drain|infinite|2|16|64000|(null)|(null)
cloud|up|infinite|8|0+|0+|(null)|(null)
"""  # by hand, as sinfo -a -h -e -o '%P|%a|%l|%D|%c|%m|%G|%f' prints them
CONFIG = """\
AccountingStorageEnforce = associations,limits,qos
MaxArraySize            = 101
MaxJobCount             = 10000
SchedulerParameters     = bf_interval=1
"""
ASSOC = "faces||normal,long|50|1-00:00:00\nguests||normal||\n"
QOS = "normal|||\nlong|7-00:00:00|20|PartitionTimeLimit\nvip|||\n"


@pytest.fixture
def told(slurm: Pretended) -> Pretended:
    """A cluster that tells all it has."""
    for name, text in (
        ("rows", ROWS),
        ("config", CONFIG),
        ("assoc", ASSOC),
        ("qos", QOS),
        ("limits", ""),
    ):
        (slurm.folder / name).write_text(text)
    slurm.command("sinfo", "cat rows")
    slurm.command("scontrol", 'case "$*" in *config*) cat config;; *partition*) cat limits;; esac')
    slurm.command("sacctmgr", 'case "$*" in *assoc*) cat assoc;; *qos*) cat qos;; esac')
    slurm.prints("squeue", "")
    return slurm


PLAIN: dict[str, Any] = {
    "partition": "gpu",
    "account": "faces",
    "gpus_per_node": 4,
    "cpus_per_process": 8,
    "memory_gb": 32,
}
PLAIN |= {"cpu_partition": "cpu", "cpu_min": 60}
TRAIN = Job("train", [["x"]], "gpu", True, 4)
REPORT = Job("report", [["x"]], "cpu", False)


def refused(*chain: Job, **profile: Any) -> str:
    """What is said of a profile and a chain; empty if nothing is wrong."""
    made = Profile(**{**PLAIN, **profile})
    return "; ".join(
        site.problems(made, launch.requests(chain, made, Path("/shared/runs/r")), site.look())
    )


def array(stage: str, elements: int) -> Job:
    """An array of a stage."""
    key = {"pack": "pack.tasks"}.get(stage, "sweep.finalists")
    return Job(stage, [["x"]] * elements, "cpu", False, sized_by=key)


def test_what_fits_is_not_refused(told: Pretended) -> None:
    assert refused(TRAIN, REPORT) == ""
    assert (
        refused(
            TRAIN,
            REPORT,
            partition="gpu,drained,cpu".replace("drained,", ""),
            constraint="a100&ib",
            qos="long",
        )
        == ""
    )
    assert refused(dataclasses.replace(TRAIN, processes=16)) == ""
    assert (
        refused(TRAIN, cpus_per_process=16, memory_gb=62.5, gpu_min=1440) == ""
    )  # a whole node, to the last megabyte


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (
            {"partition": "gpuu"},
            "partition='gpuu' is no partition here; there are cloud, cpu, drained, gpu. Did you mean 'gpu'?",
        ),
        (
            {"partition": "nowhere", "gpus_per_node": 0},
            "partition='nowhere' is no partition",
        ),  # which no job would use
        ({"cpu_partition": "cpus"}, "cpu_partition='cpus' is no partition"),
        ({"partition": "gpu,nowhere"}, "'nowhere' is no partition"),
        ({"partition": "drained"}, "partition='drained' takes no jobs (sinfo says 'drain')"),
        (
            {"account": "face"},
            "account='face' is none of yours; there are faces, guests. Did you mean 'faces'?",
        ),
        (
            {"qos": "lang"},
            "qos='lang' is no quality of service here; there are long, normal, vip. Did you mean 'long'?",
        ),
        ({"qos": "vip"}, "qos='vip' is not open to your account; there are long, normal"),
        (
            {"qos": "long", "account": "guests"},
            "qos='long' is not open to your account; there are normal",
        ),
        (
            {"constraint": "h100"},
            "constraint='h100': no node has 'h100'; there are a100, ib, v100",
        ),
        ({"constraint": "[a100*2&(ib|opa)]"}, "no node has 'opa'"),
        (
            {"cpu_min": 721},
            "cpu_min=721, but partition cpu allows 720 minutes (report would wait for ever)",
        ),
        (
            {"gpu_min": 2881, "account": "guests"},
            "gpu_min=2881, but partition gpu allows 2880 minutes",
        ),
        (
            {"qos": "long", "gpu_min": 10081, "account": None},
            "gpu_min=10081, but qos long allows 10080 minutes",
        ),
        (
            {"memory_gb": 62.6},
            "memory_gb=62.6 for 4 processes on a node, but partition gpu has 250.0 GB (at most 62.5)",
        ),
        (
            {"cpus_per_process": 17},
            "cpus_per_process=17 for 4 processes on a node, but partition gpu has 64 CPUs (at most 16)",
        ),
        (
            {"gpus_per_node": 8, "cpus_per_process": 1, "memory_gb": 1},
            "gpus_per_node=8, but nodes of partition gpu have at most 4",
        ),
        (
            {"partition": "cpu", "cpus_per_process": 1, "memory_gb": 1},
            "nodes of partition cpu have at most 0 GPUs",
        ),
    ],
)
def test_every_key_is_held_against_the_cluster(
    told: Pretended, profile: dict[str, Any], words: str
) -> None:
    processes = profile.get("gpus_per_node", 4) or 1
    assert words in refused(dataclasses.replace(TRAIN, processes=processes), REPORT, **profile)


def test_enough_nodes_of_the_right_kind_must_be_there(told: Pretended) -> None:
    assert (
        "train needs 5 nodes with 32 CPUs, 128.0 GB and 4 GPUs each, but partition gpu has 4"
        in refused(dataclasses.replace(TRAIN, processes=20))
    )
    assert "train needs 7 nodes (gpus_per_node=4), but partition gpu gives 6" in refused(
        dataclasses.replace(TRAIN, processes=28)
    )
    (told.folder / "limits").write_text(
        "PartitionName=gpu AllowGroups=ALL MaxNodes=2 MaxTime=2-00:00:00\n"
    )
    assert "train needs 3 nodes (gpus_per_node=4), but partition gpu gives 2" in refused(
        dataclasses.replace(TRAIN, processes=12)
    )


def test_one_of_several_partitions_is_enough(told: Pretended) -> None:
    assert (
        refused(Job("report", [["x"]], "cpu", False), cpu_partition="cpu,gpu", cpu_min=1000) == ""
    )
    assert refused(TRAIN, partition="cpu,gpu") == ""


def test_a_qos_may_go_beyond_its_partition(told: Pretended) -> None:
    assert refused(TRAIN, gpu_min=5000, qos="long", account=None) == ""
    assert "gpu_min=5000" in refused(TRAIN, gpu_min=5000, account=None)


def test_what_is_asked_by_other_options_is_left_to_slurm(told: Pretended) -> None:
    assert "memory_gb" in refused(TRAIN, memory_gb=9999)
    assert refused(TRAIN, memory_gb=9999, sbatch={"mem": "0"}) == ""
    assert "partition cloud" not in refused(TRAIN, sbatch={"partition": "cloud"})
    assert refused(TRAIN, gpu_min=9999, sbatch={"time": "10"}) == ""
    assert refused(TRAIN, partition="elsewhere", sbatch={"clusters": "north"}) == ""


@pytest.mark.parametrize(
    ("stage", "key"), [("pack", "pack.tasks"), ("finalists", "sweep.finalists")]
)
def test_an_array_that_is_too_large_names_its_key(told: Pretended, stage: str, key: str) -> None:
    assert refused(array(stage, 101), account="guests") == ""
    words = f"{key}=102, but this Slurm takes arrays of at most 101 jobs (MaxArraySize)"
    assert words in refused(array(stage, 102), account="guests")
    (told.folder / "config").write_text(
        CONFIG.replace("bf_interval=1", "bf_interval=1,max_array_tasks=30")
    )
    assert f"{key}=31, but this Slurm takes arrays of at most 30" in refused(
        array(stage, 31), account="guests"
    )


def test_more_jobs_than_a_person_may_have_are_refused_with_the_key_to_lower(
    told: Pretended,
) -> None:
    assert refused(array("pack", 49), REPORT) == ""
    words = (
        "these are 51 jobs, but your account (MaxSubmitJobs) allows 50 at a time; lower pack.tasks"
    )
    assert words in refused(array("pack", 50), REPORT)
    told.prints("squeue", "faces\n" * 3 + "guests\n" * 40)
    assert refused(array("pack", 46), REPORT) == ""
    words = "these are 48 jobs beside the 3 you have, but your account (MaxSubmitJobs) allows 50 at a time; lower pack.tasks or wait"
    assert words in refused(array("pack", 47), REPORT)
    assert "qos long (MaxSubmitJobsPerUser) allows 20" in refused(
        array("pack", 20), REPORT, qos="long"
    )


def test_limits_are_read_as_sacctmgr_prints_them(told: Pretended) -> None:
    (told.folder / "assoc").write_text(captured("site", "assoc, with limits"))
    (told.folder / "qos").write_text(captured("site", "qos, with limits"))
    seen = site.look()
    assert seen.accounts[0] == site.Account("faces", "", ("normal", "tiny"), 10, 1440)
    assert seen.accounts[1] == site.Account("root", "", ("normal",), math.inf, math.inf)
    assert seen.qualities == {
        "normal": site.Quality(math.inf, math.inf, ""),
        "tiny": site.Quality(30, 3, ""),
    }
    assert "these are 11 jobs, but your account (MaxSubmitJobs) allows 10" in refused(
        array("pack", 11)
    )
    assert "cpu_min=60, but qos tiny allows 30 minutes" in refused(REPORT, qos="tiny")
    assert "gpu_min=1441, but your account (MaxWall) allows 1440 minutes" in refused(
        TRAIN, gpu_min=1441
    )
    assert refused(TRAIN, gpu_min=1441, account="root") == ""


def test_limits_that_nobody_enforces_do_not_count(told: Pretended) -> None:
    (told.folder / "config").write_text(CONFIG.replace("associations,limits,qos", "none"))
    assert refused(array("pack", 60), REPORT, account="whoever", qos="whatever") == ""


def test_nodes_whose_size_nobody_knows_yet_forbid_nothing(told: Pretended) -> None:
    assert refused(TRAIN, partition="cloud", memory_gb=9999, cpus_per_process=999) == ""


@pytest.mark.parametrize("answers", ["nothing", "errors", "news"])
def test_a_cluster_that_answers_nothing_blocks_nothing(slurm: Pretended, answers: str) -> None:
    for name in ("sinfo", "scontrol", "sacctmgr", "squeue"):
        if answers != "nothing":
            slurm.prints(
                name, "one|two\n==\nthree" if answers == "news" else "", code=answers == "errors"
            )
    profile = {
        "partition": "x",
        "account": "y",
        "qos": "z",
        "memory_gb": 9999,
        "gpu_min": 10**6,
        "constraint": "w",
    }
    assert refused(TRAIN, array("pack", 10**4), **profile) == ""


def test_nothing_is_queued_when_something_cannot_work(told: Pretended, folder: RunDir) -> None:
    profile = Profile(**{**PLAIN, "memory_gb": 9999, "gpu_min": 99999, "account": None})
    with pytest.raises(
        UserError,
        match=r"cannot work here: .*; gpu_min=99999, .*memory_gb=9999 .* nothing was queued",
    ) as error:
        launch.submit([REPORT, TRAIN], profile, folder)
    assert "\n" not in str(error.value)
    assert told.calls("sbatch") == []
