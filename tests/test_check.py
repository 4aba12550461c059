"""What check.py says of a cluster whose commands only pretend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import BATCH, Pretended, captured, refusal

from facefactory import UserError, config
from facefactory.cluster import Profile, check, launch
from facefactory.cluster.launch import Job


@pytest.fixture
def site(slurm: Pretended) -> Pretended:
    """A login node with the captured configuration."""
    slurm.prints("scontrol", captured("site", "config"))
    slurm.prints("sacctmgr", captured("site", "assoc"))
    (slurm.folder / "version").write_text(captured("site", "sinfo --version"))
    (slurm.folder / "partitions").write_text(captured("site", "sinfo"))
    slurm.command("sinfo", 'case "$*" in *--version*) cat version;; *) cat partitions;; esac')
    return slurm


def looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str], *partitions: str) -> tuple[bool, str, Profile]:
    """Whether check found no obstacle, what it said, and the profile it proposed."""
    good = check.cluster(Profile(), tmp_path / "runs", list(partitions), 0)
    text = capsys.readouterr().out
    proposed = yaml.safe_load(text[text.index("# a profile to start from") :])
    return good, text, config.load(Profile, [], [proposed])


def test_check_tells_what_the_cluster_is_and_proposes_a_profile(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, text, profile = looked_at(tmp_path, capsys)
    assert good and "Slurm 22.05.8" in text and "accounting_storage/slurmdbd" in text and "JobRequeue=1" in text
    assert "preempt/partition_prio, REQUEUE" in text and "MaxArraySize 1001" in text
    assert "partition gpu: 2 nodes, 4 CPUs, 16 GB, 2 GPUs, up to infinite" in text and "partition off" not in text
    assert (profile.partition, profile.account, profile.qos, profile.gpus_per_node) == ("gpu", "faces", "normal", 2)
    assert (profile.cpus_per_process, profile.memory_gb, profile.runs) == (2, 8.0, str(tmp_path / "runs"))
    assert not site.calls("sbatch")


def test_the_proposal_respects_time_limits_and_kinds_of_partitions(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # by hand: what bigger clusters print
    (site.folder / "partitions").write_text(
        "short*|up|1:00:00|20|64|256000+|(null)\n"
        "big|up|2-00:00:00|4|128+|1031000|gpu:a100:8(S:0-1),mps:1\n"
        "old|down|1:00|1|4|1000|(null)\n"
    )
    _, text, profile = looked_at(tmp_path, capsys)
    assert (profile.partition, profile.cpu_partition, profile.gpus_per_node) == ("big", "short", 8)
    assert profile.cpus_per_process == 16 and profile.memory_gb * 8 * 1024 <= 1031000
    assert (profile.gpu_min, profile.sweep_min) == (1440, 1440) and "8 GPUs" in text
    (site.folder / "partitions").write_text("only*|up|30:00|2|4|8000|(null)\n")
    _, _, profile = looked_at(tmp_path, capsys)
    assert (profile.gpu_min, profile.cpu_min, profile.cpu_partition) == (30, 30, None)


QUOTA = """\
Disk quotas for user ada (uid 1000):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
nas:/home   {used}     50G     60G   {grace}    120k       0       0
"""  # by hand, as `quota -s -w` of quota 4.06 prints it


def test_the_users_own_quota_is_told_where_there_is_one(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = looked_at(tmp_path, capsys)
    assert "GB free on the disk of" in text and "your quota" not in text
    site.prints("quota", QUOTA.format(used="7012M", grace=""))
    good, text, _ = looked_at(tmp_path, capsys)
    assert good and re.search(r"ok +your quota on nas:/home: 7012M used, 50G allowed, 60G at most", text)
    site.prints("quota", QUOTA.format(used="55G*", grace="6days"), code=1)
    good, text, _ = looked_at(tmp_path, capsys)
    assert good and re.search(r"note +your quota on nas:/home: 55G\* used", text) and "paths.runs" in text
    site.prints("quota", "Disk quotas for user ada (uid 1000): none\n")
    assert "your quota" not in looked_at(tmp_path, capsys)[1]


NODES = [(1, 2000), (2, 7980), (6, 15990), (64, 257111), (256, 515999)]  # CPUs, MB


@pytest.mark.parametrize(
    ("cpus", "memory_mb", "gpus"), [(cpus, memory, gpus) for cpus, memory in NODES for gpus in (0, 1, 4) if gpus <= cpus]
)
def test_a_job_of_the_proposed_profile_fits_a_node(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str], cpus: int, memory_mb: int, gpus: int
) -> None:
    (site.folder / "partitions").write_text(f"a*|up|infinite|2|{cpus}|{memory_mb}|{f'gpu:{gpus}' if gpus else '(null)'}\n")
    _, _, profile = looked_at(tmp_path, capsys)
    each = profile.gpus_per_node or profile.processes_per_node
    asked = launch.parameters(Job("train", [["x"]], "gpu", True, each), profile, tmp_path, [])
    assert each * asked["cpus_per_task"] <= cpus and int(asked["mem"].removesuffix("MB")) <= memory_mb
    assert profile.gpus_per_node == gpus


def test_what_stands_in_the_way_is_told_with_its_fix(site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "version").write_text("slurm 19.05.5\n")  # by hand, and so are the two below
    site.prints("scontrol", "AccountingStorageType   = accounting_storage/none\nJobRequeue              = 0\n")
    site.prints("sacctmgr", "", code=1)
    good, text, profile = looked_at(tmp_path, capsys)
    assert not good and "PROBLEM" in text and "20.11" in text
    assert "jobs/status.py asks squeue and scontrol instead" in text and "set requeue: resubmit" in text
    assert profile.account is None and profile.qos is None


def test_newer_versions_of_slurm_pass_the_check(site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("slurm 23.11.4", "slurm 24.05.0-0rc1", "slurm 25.11.2"):  # by hand
        (site.folder / "version").write_text(version + "\n")
        assert looked_at(tmp_path, capsys)[0]


def test_a_partition_that_is_not_up_is_refused_with_those_that_are(site: Pretended, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"partitions: 'off' is not up; there are gpu, cpu, low, short, closed\."):
        check.cluster(Profile(), tmp_path, ["off"], 0)


def test_a_cluster_without_partitions_is_a_finding(site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "partitions").write_text("")
    assert not check.cluster(Profile(), tmp_path, [], 0)
    assert "no partition is up" in capsys.readouterr().out


def test_a_refused_test_job_is_a_finding(site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.command("sbatch", BATCH.format(refuse="", refuse_test=refusal(captured("sbatch", "account, tested"))))
    assert not check.cluster(Profile(), tmp_path / "runs", ["cpu"], 5)
    said = capsys.readouterr().out
    assert "cpu: Slurm refused the job" in said and "account" in said
