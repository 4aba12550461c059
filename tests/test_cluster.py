"""Profiles, and the choice between this machine and Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Pretended, captured

from facefactory import UserError, cluster
from facefactory.cluster import Profile


@pytest.mark.parametrize(
    ("profile", "processes", "expected"),
    [
        ({}, 1, (1, 1)),
        ({}, 3, (3, 1)),
        ({"processes_per_node": 4}, 3, (1, 3)),
        ({"processes_per_node": 4}, 8, (2, 4)),
        ({"gpus_per_node": 4}, 1, (1, 1)),
        ({"gpus_per_node": 4}, 4, (1, 4)),
        ({"gpus_per_node": 4, "processes_per_node": 2}, 12, (3, 4)),
    ],
)
def test_a_total_of_processes_becomes_nodes_that_are_evenly_full(
    profile: dict[str, int], processes: int, expected: tuple[int, int]
) -> None:
    assert Profile(**profile).nodes(processes) == expected


def test_processes_that_do_not_fill_nodes_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(
        UserError,
        match=r"6 processes do not fill nodes of 4 evenly .* 1 to 4, or a multiple of 4, e\.g\. 8\.",
    ):
        Profile(gpus_per_node=4).nodes(6)
    with pytest.raises(UserError, match="processes_per_node"):
        Profile(gpus_per_node=0, processes_per_node=3).nodes(4)


def write(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of slurm/, with the profiles `campus` and `lab`."""
    monkeypatch.setattr(cluster, "SHIPPED", tmp_path / "shipped")
    write(tmp_path / "shipped" / "campus.yaml", partition="shipped campus")
    write(tmp_path / "shipped" / "lab.yaml", partition="shipped lab")
    return tmp_path / "shipped"


def test_the_users_own_profile_comes_before_the_shipped_one(shipped: Path, tmp_path: Path) -> None:
    write(tmp_path / "config" / "facefactory" / "campus.yaml", partition="my campus")
    assert cluster.load_profile("campus").partition == "my campus"
    assert cluster.load_profile("lab").partition == "shipped lab"


def test_a_profile_is_found_by_its_path_too(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        tmp_path / "elsewhere" / "mine.yaml",
        gpus_per_node=8,
        environment={"A": "1"},
    )
    assert cluster.load_profile(str(path)).gpus_per_node == 8
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster.load_profile("~/elsewhere/mine.yaml").environment == {"A": "1"}


def test_without_a_name_the_users_default_is_taken_or_plain_values(
    shipped: Path, tmp_path: Path
) -> None:
    assert cluster.load_profile(None) == Profile()
    write(tmp_path / "config" / "facefactory" / "default.yaml", account="faces")
    assert cluster.load_profile(None).account == "faces"


def test_an_unknown_profile_is_refused_with_those_that_exist(
    shipped: Path, tmp_path: Path
) -> None:
    write(tmp_path / "config" / "facefactory" / "mine.yaml")
    with pytest.raises(
        UserError, match=r"no profile 'camus' in .*; there are campus, lab, mine\."
    ) as error:
        cluster.load_profile("camus")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no file .*beside it are campus, lab"):
        cluster.load_profile(str(shipped / "camus.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"partitoin": "gpu"}, r"unknown key 'partitoin'.*Did you mean 'partition'"),
        ({"gpus_per_node": "two"}, "gpus_per_node"),
        ({"gpu_min": 0}, r"gpu_min is 0; it must be at least 1"),
        ({"requeue": "maybe"}, "requeue"),
        ({"signal_s": 1}, "signal_s is 1"),
    ],
)
def test_a_wrong_key_or_value_of_a_profile_is_one_line(
    shipped: Path, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    write(tmp_path / "config" / "facefactory" / "default.yaml", **content)
    with pytest.raises(UserError, match=message) as error:
        cluster.load_profile(None)
    said = str(error.value)
    assert "\n" not in said
    assert "default.yaml" in said
    assert "account" in said
    assert "--help" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"signal_s": 600, "gpu_min": 10},
            r"signal_s=600 seconds, but gpu_min=10 is a limit of 600 seconds.*below 600",
        ),
        ({"cpu_min": 2}, r"signal_s=120 seconds, but cpu_min=2 is a limit of 120 seconds"),
        ({"sweep_min": 1, "signal_s": 61}, r"but sweep_min=1 is"),
        (
            {"sbatch": {"job-name": "mine"}},
            r"sbatch: job-name is set by the chain itself; leave it out",
        ),
        ({"sbatch": {"job_name": "mine"}}, r"sbatch: job_name is set by the chain itself"),
        ({"sbatch": {"signal": "USR1@60"}}, r"sbatch: signal is set .*; use the key signal_s"),
        ({"sbatch": {"no-requeue": True}}, r"use the key requeue"),
    ],
)
def test_a_profile_that_can_work_nowhere_is_one_line(
    shipped: Path, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    write(tmp_path / "config" / "facefactory" / "default.yaml", **content)
    with pytest.raises(UserError, match=rf"default\.yaml: .*{message}") as error:
        cluster.load_profile(None)
    assert "\n" not in str(error.value)


def test_a_job_may_be_told_just_after_it_starts(shipped: Path) -> None:
    assert (
        cluster.load_profile(str(write(shipped / "short.yaml", gpu_min=1, signal_s=59))).signal_s
        == 59
    )
    assert cluster.load_profile(
        str(write(shipped / "more.yaml", sbatch={"reservation": "r", "exclusive": True}))
    ).sbatch


def test_numbers_may_be_given_as_variables(shipped: Path) -> None:
    path = write(shipped / "numbers.yaml", environment={"OMP_NUM_THREADS": 4})
    assert cluster.load_profile(str(path)).environment == {"OMP_NUM_THREADS": "4"}


# -- where -----------------------------------------------------------------------------------------------------------


def test_without_sbatch_a_run_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.choose("auto") == "local"
    with pytest.raises(UserError, match="cluster=slurm, but no Slurm controller answers"):
        cluster.choose("slurm")


def test_where_the_controller_is_up_a_run_goes_to_slurm(slurm: Pretended) -> None:
    slurm.prints("scontrol", captured("scontrol", "ping, up"))
    assert cluster.choose("auto") == cluster.choose("slurm") == "slurm"
    assert slurm.calls() == ["scontrol ping"] * 2


def test_a_slurm_that_was_installed_and_never_set_up_is_no_cluster(slurm: Pretended) -> None:
    slurm.prints("scontrol", captured("scontrol", "ping, no slurm.conf"))
    slurm.command("scontrol", "cat scontrol.txt >&2; exit 1")
    assert cluster.choose("auto") == "local"
    with pytest.raises(UserError, match=r"no Slurm controller answers .*configuration source"):
        cluster.choose("slurm")


@pytest.mark.parametrize("wanted", ["auto", "slurm"])
def test_where_the_controller_is_down_both_ways_out_are_named(
    slurm: Pretended, wanted: str
) -> None:
    slurm.prints("scontrol", captured("scontrol", "ping, down"), code=1)
    with pytest.raises(UserError, match=r"ctl is DOWN.*cluster=local .*login node") as error:
        cluster.choose(wanted)
    assert "\n" not in str(error.value)


def test_local_is_always_obeyed(slurm: Pretended) -> None:
    assert cluster.choose("local") == "local"
    assert slurm.calls() == []
