"""What a shell, a container or another launcher has left in the environment, and what becomes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Faces

from facefactory import UserError, surroundings

ROOT = Path(__file__).parents[1]
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "far",
    "MASTER_PORT": "29500",
    "LOCAL_RANK": "1",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment that holds nothing but a home, in place of this process's own."""
    made = {"HOME": "/root"}
    monkeypatch.setattr(os, "environ", made)
    return made


def left(environment: dict[str, str]) -> dict[str, str]:
    """What is in it now, without pytest's own."""
    return {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}


# -- set aside -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *TORCHRUN,
        "LOCAL_WORLD_SIZE",
        "NODE_RANK",
        "TORCHELASTIC_RUN_ID",
        "PET_NPROC_PER_NODE",
        "RAY_ADDRESS",
        "RAY_TMPDIR",
        "RAY_AUTH_TOKEN",
        "RAY_grpc_enable_http_proxy",
        "TUNE_RESULT_BUFFER_LENGTH",
        "OPTUNA_STORAGE",
        "GRPC_VERBOSITY",
        "MPLBACKEND",
        "TORCH_DISTRIBUTED_DEBUG",
        "TORCH_LOGS",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "NVIDIA_TF32_OVERRIDE",
        "ATEN_CPU_CAPABILITY",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "CUBLAS_WORKSPACE_CONFIG",
        "PYTHONWARNINGS",
        "PYTHONINSPECT",
        "SBATCH_PARTITION",
        "SBATCH_ARRAY_INX",
        "SBATCH_EXPORT",
        "SQUEUE_PARTITION",
        "SLURM_TIME_FORMAT",
        "FACEFACTORY_RAY",
        "FACEFACTORY_OWNER",
    ],
)
def test_what_steers_libraries_is_set_aside_and_named(
    environment: dict[str, str], name: str
) -> None:
    environment[name] = "1"
    assert surroundings.settle(started_by_us=False) == [name]
    assert left(environment) == {"HOME": "/root"}


@pytest.mark.parametrize(
    "name",
    [
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "KMP_AFFINITY",
        "GOMP_CPU_AFFINITY",
    ],
)
def test_threads_are_the_runs_without_a_word(environment: dict[str, str], name: str) -> None:
    environment[name] = "64"
    assert surroundings.settle(started_by_us=False) == []
    surroundings.set_threads(3)
    environment.pop("KMP_DUPLICATE_LIB_OK", None)  # threadpoolctl's, at its import
    assert left(environment) == {"HOME": "/root", "OMP_NUM_THREADS": "3"}


LOADED = """
import numpy, scipy.linalg, threadpoolctl
from facefactory import surroundings
for threads in (1, 2):
    surroundings.set_threads(threads)
    found = threadpoolctl.threadpool_info()
    print({one["num_threads"] for one in found if one["user_api"] == "blas"} == {threads})
"""


def test_libraries_that_were_loaded_before_have_the_runs_threads_too() -> None:
    shown = subprocess.check_output([sys.executable, "-c", LOADED], text=True)
    assert shown.split() == ["True", "True"]


@pytest.mark.parametrize(
    "name",
    [
        "NCCL_SOCKET_IFNAME",
        "NCCL_DEBUG",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "GLOO_SOCKET_IFNAME",
        "PYTORCH_CUDA_ALLOC_CONF",
        "TORCH_HOME",
        "CUDA_VISIBLE_DEVICES",
        "SBATCH_ACCOUNT",
        "SLURM_CONF",
        "SLURM_JOB_ID",
        "FACEFACTORY_WEIGHTS",
        "http_proxy",
        "LC_ALL",
        "PYTHONHASHSEED",
    ],
)
def test_what_only_a_site_or_its_user_can_know_stays(
    environment: dict[str, str], name: str
) -> None:
    environment[name] = "1"
    assert surroundings.settle(started_by_us=False) == []
    assert left(environment) == {"HOME": "/root", name: "1"}


def test_a_temporary_folder_that_is_none_is_named_and_a_right_one_stays(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["TMPDIR"] = str(tmp_path / "missing")
    assert surroundings.settle(started_by_us=False) == ["TMPDIR"]
    environment["TMPDIR"] = str(tmp_path)
    assert surroundings.settle(started_by_us=False) == []
    assert environment["TMPDIR"] == str(tmp_path)


def test_modules_are_found_from_other_folders_too(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PYTHONPATH"] = "here:/there:"
    surroundings.settle(started_by_us=False)
    assert environment["PYTHONPATH"] == f"{tmp_path}/here:/there:{tmp_path}"


# -- ours ------------------------------------------------------------------------------------------------------------


def test_a_rank_is_known_by_our_own_word_for_it(environment: dict[str, str]) -> None:
    ours = TORCHRUN | surroundings.rank(1, 4)
    environment.update(ours)
    assert surroundings.settle(started_by_us=True) == []
    assert left(environment) == {"HOME": "/root", **ours}


@pytest.mark.parametrize(
    "word",
    [{}, surroundings.rank(0, 4), surroundings.rank(1, 2)],
    ids=["none", "other rank", "other size"],
)
def test_a_rank_that_is_not_ours_is_set_aside_in_our_processes_too(
    environment: dict[str, str], word: dict[str, str]
) -> None:
    environment.update(TORCHRUN | word)
    surroundings.settle(started_by_us=True)
    assert not set(TORCHRUN) & set(environment)


def test_the_driver_of_a_sweep_keeps_the_ray_it_was_given_and_nobody_elses(
    environment: dict[str, str],
) -> None:
    given = {"FACEFACTORY_RAY": "n1:1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/t"}
    environment.update(given | {"RAY_ADDRESS": "n9:1"})
    assert surroundings.settle(started_by_us=True) == ["RAY_ADDRESS"]
    assert left(environment) == {"HOME": "/root", **given}
    del environment["FACEFACTORY_RAY"]
    surroundings.settle(started_by_us=True)
    assert left(environment) == {"HOME": "/root"}


def test_a_submission_from_within_a_job_forgets_that_job(environment: dict[str, str]) -> None:
    environment.update(
        SLURM_JOB_ID="7", SLURM_MEM_PER_CPU="9", SLURM_NTASKS="4", SLURM_CONF="/etc/slurm.conf"
    )
    assert surroundings.leave_job() == ["SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_NTASKS"]
    assert left(environment) == {"HOME": "/root", "SLURM_CONF": "/etc/slurm.conf"}


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"]
)
def test_copies_of_a_job_are_refused_and_one_alone_is_not(name: str) -> None:
    surroundings.check_alone({name: "1"})
    surroundings.check_alone({})
    with pytest.raises(UserError, match=rf"{name}=4 is set.*training\.ranks.*unset {name}"):
        surroundings.check_alone({name: "4"})


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_gpus_that_are_asked_for_and_hidden_are_refused(
    environment: dict[str, str], hidden: str
) -> None:
    environment["CUDA_VISIBLE_DEVICES"] = hidden
    surroundings.check_gpus("auto")
    assert not surroundings.sees_gpus()
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES.*hides every GPU; unset it"):
        surroundings.check_gpus("cuda")
    environment["CUDA_VISIBLE_DEVICES"] = "0"
    surroundings.check_gpus("cuda")


def test_an_interface_that_is_not_there_is_named_with_those_that_are(
    environment: dict[str, str],
) -> None:
    environment.update(GLOO_SOCKET_IFNAME="lo,ib7", WORLD_SIZE="2")
    with pytest.raises(
        UserError, match=r"GLOO_SOCKET_IFNAME=lo,ib7, but .* has no interface ib7, only .*lo"
    ):
        surroundings.check_network()
    environment["GLOO_SOCKET_IFNAME"] = "lo"
    surroundings.check_network()
    environment.update(GLOO_SOCKET_IFNAME="ib7", WORLD_SIZE="1")  # one rank alone speaks to nobody
    surroundings.check_network()


# -- whole jobs ------------------------------------------------------------------------------------------------------

HOSTILE = {
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
    "TORCH_LOGS": "nonsense",
    "TORCHELASTIC_RUN_ID": "7",
    "GLOO_SOCKET_IFNAME": "ib7",
    "MASTER_ADDR": "far.away",
    "MASTER_PORT": "1",
    "WORLD_SIZE": "1",
    "RANK": "0",
    "OMP_NUM_THREADS": "abc",
    "MKL_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "64",
    "ATEN_CPU_CAPABILITY": "default",
    "MPLBACKEND": "Qt5Agg",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "LC_ALL": "C",
    "TMPDIR": "/missing",
    "PYTHONPATH": ".",
    "http_proxy": "http://127.0.0.1:9",
}


def job(
    folder: Path, run: str, faces: Faces, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A training of two ranks, seen from a folder with files named like modules."""
    line = [
        sys.executable,
        str(ROOT / "jobs" / "train_gan.py"),
        "config=tiny",
        "cluster=local",
        f"run={run}",
    ]
    line += [
        f"pack.recipe={faces.recipe}",
        "training.ranks=2",
        "training.total_kimg=0.05",
        *arguments,
    ]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def test_a_hostile_shell_changes_no_weight(faces: Faces, tmp_path: Path) -> None:
    for name in ("torch", "select", "token", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "facefactory").symlink_to(ROOT / "facefactory")  # what PYTHONPATH=. is given for
    plain = {name: value for name, value in os.environ.items() if name not in HOSTILE} | {
        "PYTHONPATH": str(ROOT)
    }

    # the same weights come out
    digests = []
    for run, environment in (
        ("calm", plain),
        ("hostile", {**plain, **HOSTILE, "PYTHONPATH": str(ROOT)}),
    ):
        ran = job(tmp_path, run, faces, environment)
        assert ran.returncode == 0, ran.stderr
        assert "Traceback" not in ran.stderr
        assert "libgomp" not in ran.stderr
        done = json.loads((tmp_path / "runs" / run / "train" / "DONE.json").read_text())
        digests.append(done["outputs"]["checkpoint"])
    assert digests[0] == digests[1]

    # and what is set aside is named
    (words,) = [
        line
        for line in ran.stderr.splitlines()
        if line.startswith("not used, because the run decides these itself: ")
    ]
    named = set(words.partition(": ")[2].split(", "))
    assert (
        {"ATEN_CPU_CAPABILITY", "WORLD_SIZE", "PYTHONWARNINGS", "TMPDIR", "TORCH_LOGS"}
        <= named
        <= set(HOSTILE)
    )


def test_copies_started_by_a_launcher_end_with_one_line(faces: Faces, tmp_path: Path) -> None:
    ran = job(
        tmp_path,
        "four",
        faces,
        {**os.environ, "PYTHONPATH": str(ROOT), **TORCHRUN},
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: WORLD_SIZE=4 is set")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
