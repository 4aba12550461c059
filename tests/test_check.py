"""What check.py says of a cluster whose commands only pretend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import BATCH, Pretended, captured, refusal

from facefactory import UserError, cluster, config
from facefactory.cluster import Profile, check, launch
from facefactory.cluster.launch import Job
from facefactory.cluster.site import look


@pytest.fixture
def site(slurm: Pretended) -> Pretended:
    """A login node with the captured configuration."""
    slurm.prints("scontrol", captured("site", "config"))
    (slurm.folder / "assoc").write_text(captured("site", "assoc"))
    slurm.command("sacctmgr", 'case "$*" in *assoc*) cat assoc;; esac')
    (slurm.folder / "version").write_text(captured("site", "sinfo --version"))
    (slurm.folder / "partitions").write_text(captured("site", "sinfo"))
    slurm.command("sinfo", 'case "$*" in *--version*) cat version;; *) cat partitions;; esac')
    return slurm


def looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *partitions: str
) -> tuple[bool, str, Profile]:
    """Whether check found no obstacle, what it said, and the profile it proposed."""
    good = check.cluster(
        Profile(),
        tmp_path / "runs",
        list(partitions),
        0,
    )
    text = capsys.readouterr().out
    proposed = yaml.safe_load(text[text.index("# a profile to start from") :])
    return good, text, config.load(Profile, [], [proposed])


def test_check_tells_what_the_cluster_is_and_proposes_a_profile(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, text, profile = looked_at(tmp_path, capsys)
    assert good
    assert "Slurm 22.05.8" in text
    assert "accounting_storage/slurmdbd" in text
    assert "JobRequeue=1" in text
    assert "preempt/partition_prio, REQUEUE" in text
    assert "MaxArraySize 1001" in text
    assert "partition gpu: 2 nodes, 4 CPUs, 16 GB, 2 GPUs, up to infinite" in text
    assert "partition off" not in text
    assert (profile.partition, profile.account, profile.qos, profile.gpus_per_node) == (
        "gpu",
        "faces",
        "normal",
        2,
    )
    assert (profile.cpus_per_process, profile.memory_gb, profile.runs) == (
        2,
        8.0,
        str(tmp_path / "runs"),
    )
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
    assert profile.cpus_per_process == 16
    assert profile.memory_gb * 8 * 1024 <= 1031000
    assert (profile.gpu_min, profile.sweep_min) == (1440, 1440)
    assert "8 GPUs" in text
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
    assert "GB free on the disk of" in text
    assert "your quota" not in text
    site.prints("quota", QUOTA.format(used="7012M", grace=""))
    good, text, _ = looked_at(tmp_path, capsys)
    assert good
    assert re.search(r"ok +your quota on nas:/home: 7012M used, 50G allowed, 60G at most", text)
    site.prints(
        "quota",
        QUOTA.format(used="55G*", grace="6days"),
        code=1,
    )
    good, text, _ = looked_at(tmp_path, capsys)
    assert good
    assert re.search(r"note +your quota on nas:/home: 55G\* used", text)
    assert "paths.runs" in text
    site.prints("quota", "Disk quotas for user ada (uid 1000): none\n")
    assert "your quota" not in looked_at(tmp_path, capsys)[1]


NODES = [(1, 2000), (2, 7980), (6, 15990), (64, 257111), (256, 515999)]  # CPUs, MB


@pytest.mark.parametrize(
    ("cpus", "memory_mb", "gpus"),
    [(cpus, memory, gpus) for cpus, memory in NODES for gpus in (0, 1, 4) if gpus <= cpus],
)
def test_a_job_of_the_proposed_profile_fits_a_node(
    site: Pretended,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cpus: int,
    memory_mb: int,
    gpus: int,
) -> None:
    (site.folder / "partitions").write_text(
        f"a*|up|infinite|2|{cpus}|{memory_mb}|{f'gpu:{gpus}' if gpus else '(null)'}\n"
    )
    _, _, profile = looked_at(tmp_path, capsys)
    each = profile.gpus_per_node or profile.processes_per_node
    asked = launch.parameters(
        Job("train", [["x"]], "gpu", True, each),
        profile,
        tmp_path,
        [],
    )
    assert each * asked["cpus_per_task"] <= cpus
    assert int(asked["mem"].removesuffix("MB")) <= memory_mb
    assert profile.gpus_per_node == gpus


def test_what_stands_in_the_way_is_told_with_its_fix(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "version").write_text("slurm 19.05.5\n")  # by hand, and so are the two below
    site.prints(
        "scontrol",
        "AccountingStorageType   = accounting_storage/none\nJobRequeue              = 0\n",
    )
    site.prints("sacctmgr", "", code=1)
    good, text, profile = looked_at(tmp_path, capsys)
    assert not good
    assert "PROBLEM" in text
    assert "20.11" in text
    assert "jobs/status.py asks squeue and scontrol instead" in text
    assert "set requeue: resubmit" in text
    assert profile.account is None
    assert profile.qos is None


def test_newer_versions_of_slurm_pass_the_check(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("slurm 23.11.4", "slurm 24.05.0-0rc1", "slurm 25.11.2"):  # by hand
        (site.folder / "version").write_text(version + "\n")
        assert looked_at(tmp_path, capsys)[0]


def test_a_partition_that_is_not_up_is_refused_with_those_that_are(
    site: Pretended, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"partitions: 'off' is not up; there are gpu, cpu, low, short, closed\."
    ):
        check.cluster(Profile(), tmp_path, ["off"], 0)


def test_a_cluster_without_partitions_is_a_finding(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "partitions").write_text("")
    assert not check.cluster(Profile(), tmp_path, [], 0)
    assert "no partition is up" in capsys.readouterr().out


def test_a_refused_test_job_is_a_finding(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.command(
        "sbatch",
        BATCH.format(refuse="", refuse_test=refusal(captured("sbatch", "account, tested"))),
    )
    assert not check.cluster(Profile(), tmp_path / "runs", ["cpu"], 5)
    said = capsys.readouterr().out
    assert "cpu: Slurm refused the job" in said
    assert "account" in said


# -- clusters of other kinds (their rows by hand) ----------------------------------------------------------------------


def rows(site: Pretended, *lines: str) -> None:
    """What sinfo prints: partition, up, limit, nodes, CPUs, MB, gres, features."""
    (site.folder / "partitions").write_text("".join(f"{line}\n" for line in lines))


def test_a_partition_without_nodes_is_a_note(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(site, "empty*|up|infinite|0|0|0|(null)|(null)", "cpu|up|infinite|2|8|16000|(null)|(null)")
    good, text, profile = looked_at(tmp_path, capsys)
    assert good
    assert re.search(r"note +partition empty: no nodes", text)
    assert (profile.partition, profile.processes_per_node, profile.cpus_per_process) == (
        "cpu",
        2,
        4,
    )
    rows(site, "empty*|up|infinite|0|0|0|(null)|(null)")
    good, text, profile = looked_at(tmp_path, capsys)
    assert good
    assert profile.partition == "empty"


def test_nodes_of_a_cloud_that_are_off_have_no_size_yet(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(site, "cloud*|up|infinite|20|0+|0+|(null)|(null)")
    good, text, profile = looked_at(tmp_path, capsys)
    assert good
    assert "partition cloud: 20 nodes, of a size not known yet, 0 GPUs" in text
    assert profile.cpus_per_process == 1
    rows(
        site,
        "cloud*|up|infinite|16|0|0|(null)|(null)",
        "cloud*|up|infinite|4|64|256000|gpu:4|(null)",
    )
    _, text, profile = looked_at(tmp_path, capsys)
    assert "4 nodes, 64 CPUs, 250 GB, 4 GPUs" in text
    assert (profile.gpus_per_node, profile.cpus_per_process, profile.memory_gb) == (4, 16, 62.5)


def test_a_partition_with_and_without_gpus_has_gpus(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(
        site,
        "all*|up|infinite|10|64|256000|(null)|(null)",
        "all*|up|infinite|2|32|128000|gpu:a100:4(S:0-1)|a100",
    )
    _, text, profile = looked_at(tmp_path, capsys)
    assert (
        "partition all: 10 nodes, 64 CPUs, 250 GB, 0 GPUs; 2 nodes, 32 CPUs, 125 GB, 4 GPUs, up to infinite"
        in text
    )
    assert (profile.gpus_per_node, profile.cpus_per_process, profile.memory_gb) == (4, 8, 31.2)
    assert profile.cpu_partition is None


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:2", 2),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:2(S:0),gpu:v100:1(S:1)", 3),
        ("gpu:a100:4,mps:400", 4),
        ("shard:8,gpu:nvidia_h100:1", 1),
        ("shard:gpu:8", 0),
        ("gpu:1g.10gb:7", 0),
        ("gpu:nvidia_a100_1g.10gb:7,gpu:a100:1", 1),
        ("mps:gpu:100,nvme:1", 0),
        ("(null)", 0),
        ("", 0),
        ("gpu", 0),
        ("gpu:(S:0)", 0),
    ],
)
def test_gpus_are_told_from_slices_and_other_resources(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str], gres: str, gpus: int
) -> None:
    rows(site, f"a*|up|infinite|2|8|16000|{gres}|(null)")
    _, text, profile = looked_at(tmp_path, capsys)
    assert f", {gpus} GPUs" in text
    assert profile.gpus_per_node == gpus
    assert ("7 slices of GPUs (MIG), which are not used here" in text) is ("1g.10gb" in gres)


@pytest.mark.parametrize(
    ("assoc", "account", "qos"),
    [
        ("|normal\n", None, None),
        ("|normal\nfaces|normal\n", "faces", "normal"),
        ("faces|\n", "faces", None),
        (
            "lab|short|fast||\nfaces||normal|100|2-00:00:00\n",
            "faces",
            "normal",
        ),  # lab is for the partition short only
        ("", None, None),
    ],
)
def test_an_account_is_proposed_only_where_there_is_one(
    site: Pretended,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    assoc: str,
    account: str | None,
    qos: str | None,
) -> None:
    (site.folder / "assoc").write_text(assoc)
    _, text, profile = looked_at(tmp_path, capsys)
    assert (profile.account, profile.qos) == (account, qos)
    assert "account: ''" not in text


@pytest.mark.parametrize(
    ("limit", "minutes", "signal_s"),
    [
        ("infinite", 1440, 120),
        ("UNLIMITED", 1440, 120),
        ("n/a", 1440, 120),
        ("1:00", 1, 30),
        ("2:00", 2, 60),
        ("5:00", 5, 120),
        ("12:00:00", 720, 120),
        ("1-00:00:00", 1440, 120),
        ("30-00:00:00", 1440, 120),
    ],
)
def test_limits_of_any_length_give_a_profile_that_works(
    site: Pretended,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    minutes: int,
    signal_s: int,
) -> None:
    rows(site, f"a*|up|{limit}|2|8|16000|(null)|(null)")
    _, _, profile = looked_at(tmp_path, capsys)
    assert (profile.gpu_min, profile.sweep_min, profile.cpu_min) == (
        minutes,
        minutes,
        min(240, minutes),
    )
    assert profile.signal_s == signal_s
    assert cluster.contradiction(profile) is None


def test_jobs_without_gpus_fit_their_own_partition(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(site, "big*|up|infinite|4|64|1000000|gpu:4|x", "small|up|1:00:00|2|4|4000|(null)|(null)")
    _, _, profile = looked_at(tmp_path, capsys)
    assert (profile.partition, profile.cpu_partition, profile.cpu_min, profile.gpu_min) == (
        "big",
        "small",
        60,
        1440,
    )
    assert profile.cpus_per_process == 4
    assert profile.memory_gb * 1024 <= 4000


def test_a_proposed_profile_never_asks_for_what_the_cluster_does_not_have(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(
        site,
        "a*|up|3:00|10|64|256000|(null)|(null)",
        "a*|up|3:00|2|32|128000|gpu:a100:4(S:0-1)|a100",
    )
    _, _, profile = looked_at(tmp_path, capsys)
    assert check.wrong(profile, tmp_path / "runs", look()) == []


def test_hidden_partitions_are_not_offered(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "config").write_text(captured("site", "config"))
    site.command(
        "scontrol",
        'case "$*" in *partition*) echo "PartitionName=low Hidden=YES MaxNodes=1";; *) cat config;; esac',
    )
    _, text, _ = looked_at(tmp_path, capsys)
    assert "partition low" not in text
    assert "partition short" in text


def test_a_profile_is_held_against_the_cluster(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = Profile(
        partition="gpuu",
        cpu_partition="cpu",
        account="nobody",
        gpus_per_node=2,
    )
    assert not check.cluster(profile, tmp_path / "runs", [], 0)
    text = capsys.readouterr().out
    assert (
        "PROBLEM profile: partition='gpuu' is no partition here; there are closed, cpu, gpu"
        in text
    )
    assert "Did you mean 'gpu'?" in text
    assert "account='nobody' is none of yours; there are faces, root" in text
    good = Profile(
        partition="gpu", account="faces", gpus_per_node=2, cpus_per_process=2, memory_gb=4
    )
    assert check.cluster(good, tmp_path / "runs", [], 0)


def test_the_test_job_is_released(
    site: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check.cluster(
        Profile(), tmp_path / "runs", ["cpu"], 5
    )  # it leaves nothing, and squeue does not show it
    assert site.calls("scontrol release") == ["scontrol release 101"]
    assert "cpu: 0 of 2 tasks answered" in capsys.readouterr().out
