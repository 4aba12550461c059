"""Slurm without Slurm: batch scripts, submission, status, check and the job's process against commands that only pretend.

What they print was captured from Slurm 22.05.8 (captures/*.txt); what newer versions print is written by hand and says so.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import pickletools
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from facefactory import UserError, chain, cluster, command, config, rundir
from facefactory.cluster import Profile, check, entry, launch, status
from facefactory.cluster.launch import Job
from facefactory.pipeline import Run
from facefactory.rundir import RunDir

CAPTURES = Path(__file__).parent / "captures"


def captured(command: str, name: str) -> str:
    """What a Slurm command printed."""
    for section in re.split(r"^== ", (CAPTURES / f"{command}.txt").read_text(), flags=re.M)[1:]:
        title, _, text = section.partition("\n")
        if title == name:
            return text
    raise KeyError(name)


def sacct(*names: str) -> str:
    """Captured rows, with the columns that status asks for."""
    lines = []
    for name in names:
        header, *rows = captured("sacct", name).splitlines()
        for row in rows:
            cells = dict(zip(header.split("|"), row.split("|"), strict=True))
            lines.append("|".join(cells[column] for column in status.SACCT) + "\n")
    return "".join(lines)


def row(**cells: str) -> str:
    """A row of sacct built by hand."""
    plain = {"JobName": "ff-r-train", "ExitCode": "0:0", "Elapsed": "00:00:05", "Timelimit": "00:10:00", "NodeList": "n1"}
    return "|".join((plain | cells).get(column, "") for column in status.SACCT) + "\n"


class Pretended:
    """Slurm commands that do what a line of shell says and note how they were called; PATH holds nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls"
        (folder / "bin").mkdir(parents=True)
        for tool in ("cat", "env", "rm"):
            (folder / "bin" / tool).symlink_to(str(shutil.which(tool)))

    def command(self, name: str, shell: str = "") -> None:
        """Make or replace a command."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\ncd {self.folder}\nprintf '%s\\n' \"{name} $*\" >>calls\n{shell}\n")
        path.chmod(0o755)

    def prints(self, name: str, text: str, code: int = 0) -> None:
        """Make a command that prints a text."""
        (self.folder / f"{name}.txt").write_text(text)
        self.command(name, f"cat {name}.txt; exit {code}")

    def calls(self, start: str = "") -> list[str]:
        """How they were called, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(start)]


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the job nor the profiles of the person who runs the tests are seen."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """sbatch that gives ids from 101 on, scontrol, scancel and srun that say nothing, and no sacct or squeue."""
    made = Pretended(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm" / "bin"))
    (made.folder / "last").write_text("100\n")
    made.command("sbatch", BATCH.format(refuse="", refuse_test=""))
    for name in ("scontrol", "scancel", "srun"):
        made.command(name)
    return made


BATCH = """\
read last <last
if [ "$1" = --test-only ]; then cat >>tested; {refuse_test}
exit 0; fi
{refuse}
last=$((last + 1)); echo $last >last
case "$*" in *--parsable*) cat >copy; echo $last;; *) echo "Submitted batch job $last";; esac"""


def refusal(text: str) -> str:
    """Shell that refuses as sbatch does."""
    return f"cat >&2 <<'END'\n{text}END\nexit 1"


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A run folder `r` that this process owns."""
    made = RunDir(tmp_path / "runs" / "r")
    made.path.mkdir(parents=True)
    made.claim()
    return made


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout in place of ours."""
    top = tmp_path / "checkout"
    for name in ("facefactory/a.py", "facefactory/__pycache__/a.pyc", "jobs/presets/p.yaml", "shards/orl.yaml"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("1")
    for name in ("shards/packed/orl/train-000000.tar", "shards/judges/j/model.pt", ".git/config", "runs/r/config.yaml"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("large or foreign")
    monkeypatch.setattr(launch, "CODE", top)
    return top


TRAIN = Job("train", [["stages", "FOLDER", "train"]], "gpu", True, 4)
CHAIN = [
    Job("prepare", [["stages", "r", "pack", "judge"]], "gpu", True),
    Job("sweep", [["sweep", "r"]], "sweep", True, 4),
    Job("finalists", [["finalist", "r", str(place)] for place in range(3)], "gpu", True, 2),
    Job("evaluate", [["finalist", "r", str(place), "evaluate"] for place in range(3)], "gpu", True, after="each"),
    Job("report", [["gather", "r", "report"]], "cpu", False, after="any"),
]


def options(script: str) -> dict[str, str]:
    """Long option -> value ("" for flags) of a batch script."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M)
    return {name: shlex.split(value)[0] if value else "" for name, value in found}


def script(job: Job = TRAIN, **profile: Any) -> str:
    """The batch script of a job."""
    return launch.script(job, Profile(**profile), Path("/shared/runs/r"))


def srun(text: str) -> list[str]:
    """The srun line of a batch script."""
    (line,) = [line for line in text.splitlines() if line.startswith("srun ")]
    return shlex.split(line, comments=True)


PROFILE = Profile(partition="gpu", processes_per_node=2)


def submitted(folder: RunDir) -> dict[str, str]:
    """Stage -> batch script, as it was given to sbatch."""
    scripts = [path.read_text() for path in sorted((folder.path / "private" / "jobs").glob("*_submission.sh"))]
    return {options(text)["job-name"].rpartition("-")[2]: text for text in scripts}


# -- profiles --------------------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"6 processes do not fill nodes of 4 evenly .* 1 to 4, or a multiple of 4, e\.g\. 8\."):
        Profile(gpus_per_node=4).nodes(6)
    with pytest.raises(UserError, match="processes_per_node"):
        script(gpus_per_node=0, processes_per_node=3)


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


def test_a_profile_is_found_by_its_path_too(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "elsewhere" / "mine.yaml", gpus_per_node=8, environment={"A": "1"})
    assert cluster.load_profile(str(path)).gpus_per_node == 8
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster.load_profile("~/elsewhere/mine.yaml").environment == {"A": "1"}


def test_without_a_name_the_users_default_is_taken_or_plain_values(shipped: Path, tmp_path: Path) -> None:
    assert cluster.load_profile(None) == Profile()
    write(tmp_path / "config" / "facefactory" / "default.yaml", account="faces")
    assert cluster.load_profile(None).account == "faces"


def test_an_unknown_profile_is_refused_with_those_that_exist(shipped: Path, tmp_path: Path) -> None:
    write(tmp_path / "config" / "facefactory" / "mine.yaml")
    with pytest.raises(UserError, match=r"no profile 'camus' in .*; there are campus, lab, mine\.") as error:
        cluster.load_profile("camus")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no file .*beside it are campus, lab"):
        cluster.load_profile(str(shipped / "camus.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"partitoin": "gpu"}, r"unknown key 'partitoin' .*Did you mean 'partition'"),
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
    assert "\n" not in said and "default.yaml" in said and "account" in said and "--help" not in said  # which shows no profiles


def test_numbers_may_be_given_as_variables(shipped: Path) -> None:
    path = write(shipped / "numbers.yaml", environment={"OMP_NUM_THREADS": 4})
    assert cluster.load_profile(str(path)).environment == {"OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize("path", sorted(cluster.SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_profiles_make_batch_scripts(path: Path) -> None:
    profile = cluster.load_profile(str(path))
    for job in CHAIN:
        processes = profile.gpus_per_node or profile.processes_per_node
        assert options(launch.script(dataclasses.replace(job, processes=processes), profile, Path("/shared/runs/r")))


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


@pytest.mark.parametrize("wanted", ["auto", "slurm"])
def test_where_the_controller_is_down_both_ways_out_are_named(slurm: Pretended, wanted: str) -> None:
    slurm.prints("scontrol", captured("scontrol", "ping, down"), code=1)
    with pytest.raises(UserError, match=r"ctl is DOWN.*cluster=local .*login node") as error:
        cluster.choose(wanted)
    assert "\n" not in str(error.value)


def test_local_is_always_obeyed(slurm: Pretended) -> None:
    assert cluster.choose("local") == "local" and slurm.calls() == []


# -- the batch script ------------------------------------------------------------------------------------------------


def test_a_profiles_keys_reach_the_batch_script() -> None:
    found = options(
        script(
            partition="gpu",
            account="faces",
            qos="normal",
            constraint="a100|h100",
            gpus_per_node=2,
            cpus_per_process=6,
            memory_gb=12.5,
            gpu_min=90,
            signal_s=300,
            sbatch={"reservation": "faces", "mail-user": "a@b.c", "exclusive": True},
        )
    )
    wanted = {
        "partition": "gpu",
        "account": "faces",
        "qos": "normal",
        "constraint": "a100|h100",
        "nodes": "2",
        "ntasks-per-node": "2",
        "gpus-per-node": "2",
        "cpus-per-task": "6",
        "mem": "25600MB",
        "time": "90",
        "signal": "USR2@300",
        "reservation": "faces",
        "mail-user": "a@b.c",
        "exclusive": "",
        "job-name": "ff-r-train",
        "comment": "ff:r:train",
        "open-mode": "append",
        "hold": "",
        "requeue": "",
    }
    assert {name: found.get(name) for name in wanted} == wanted


def test_what_a_profile_does_not_say_is_not_asked_for() -> None:
    assert not {"partition", "account", "qos", "constraint", "gpus-per-node", "wckey", "error"} & set(options(script()))


@pytest.mark.parametrize(
    ("job", "partition", "gpus", "minutes"),
    [(CHAIN[0], "gpu", "1", "20"), (CHAIN[1], "gpu", "2", "30"), (CHAIN[4], "cpu", None, "10")],
    ids=["prepare", "sweep", "report"],
)
def test_partition_gpus_and_minutes_follow_the_kind_of_job(job: Job, partition: str, gpus: str | None, minutes: str) -> None:
    profile = {"partition": "gpu", "cpu_partition": "cpu", "gpus_per_node": 2, "cpu_min": 10, "gpu_min": 20, "sweep_min": 30}
    found = options(script(job, **profile))
    assert (found["partition"], found.get("gpus-per-node"), found["time"]) == (partition, gpus, minutes)


def test_jobs_without_gpus_go_where_the_others_go_if_there_is_no_cpu_partition() -> None:
    assert options(script(CHAIN[4], partition="all", gpus_per_node=2))["partition"] == "all"


def test_training_on_cpus_uses_no_gpu_nodes() -> None:
    found = options(script(dataclasses.replace(TRAIN, gpus=False), partition="gpu", cpu_partition="cpu", gpus_per_node=2))
    assert found["partition"] == "cpu" and "gpus-per-node" not in found


def test_a_sweep_is_one_task_with_all_the_resources_of_its_nodes() -> None:
    found = options(script(CHAIN[1], gpus_per_node=2, cpus_per_process=3, memory_gb=4))
    wanted = {"nodes": "2", "ntasks-per-node": "1", "cpus-per-task": "6", "gpus-per-node": "2", "mem": "8192MB"}
    assert {name: found[name] for name in wanted} == wanted
    assert {"--overlap", "--nodes=1", "--ntasks=1"} <= set(srun(script(CHAIN[1], gpus_per_node=2)))


def test_several_commands_are_an_array() -> None:
    found = options(script(CHAIN[2], processes_per_node=2))
    assert found["array"].startswith("0-2%") and "%A_%a" in found["output"]
    assert "array" not in options(script(CHAIN[1], processes_per_node=2))


@pytest.mark.parametrize(("requeue", "flag"), [("scontrol", "requeue"), ("none", "no-requeue")])
def test_slurm_itself_requeues_unless_the_profile_says_none(requeue: str, flag: str) -> None:
    assert {"requeue", "no-requeue"} & set(options(script(requeue=requeue))) == {flag}


def test_setup_and_environment_run_before_python_and_survive_quoting(tmp_path: Path, slurm: Pretended) -> None:
    value = 'it\'s $HOME; "quoted" `cmd` # and more'
    text = script(setup=['export AFTER="$TRICKY!"'], environment={"TRICKY": value, "PLAIN": "1"})
    slurm.command("srun", 'printf "%s\\n" "$TRICKY" "$AFTER" "$PLAIN" "$PYTHONPATH" "$SUBMITIT_EXECUTOR" >seen')
    (tmp_path / "job.sh").write_text(text)
    os.environ["PYTHONPATH"] = "/site/modules"
    assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == 0
    seen = (slurm.folder / "seen").read_text().splitlines()
    assert seen == [value, f"{value}!", "1", "/shared/runs/r/code:/site/modules", "slurm"]


@pytest.mark.parametrize("code", [0, 1, 3, 75, 137])
def test_the_exit_code_of_the_work_is_the_exit_code_of_the_job(tmp_path: Path, slurm: Pretended, code: int) -> None:
    slurm.command("srun", f"exit {code}")
    (tmp_path / "job.sh").write_text(launch.script(TRAIN, Profile(setup=["true"]), tmp_path / "a run"))
    assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == code


def test_srun_gets_the_cpus_and_ends_all_ranks_with_the_first_that_fails() -> None:
    line = srun(script(cpus_per_process=6))
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=1"} <= set(line)  # since 22.05 srun does not inherit it from sbatch


@pytest.mark.parametrize("job", CHAIN[:3], ids=["plain", "sweep", "array"])
def test_python_may_be_a_containers(slurm: Pretended, folder: RunDir, tree: Path, job: Job) -> None:
    profile = dataclasses.replace(PROFILE, python="apptainer exec --nv x.sif python")
    launch.submit([job], profile, folder)
    wanted = shlex.split("apptainer exec --nv x.sif python -u -m submitit.core._submit")
    for text in (launch.script(job, profile, folder.path), submitted(folder)[job.stage]):
        line = srun(text)
        assert line[line.index("apptainer") :][: len(wanted)] == wanted


def test_without_one_it_is_the_python_that_submits(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    launch.submit(CHAIN[:1], PROFILE, folder)
    assert sys.executable in srun(submitted(folder)["prepare"])


def test_logs_lie_in_the_private_folder() -> None:
    assert options(script())["output"].startswith("/shared/runs/r/private/jobs/")


# -- submission ------------------------------------------------------------------------------------------------------


def test_a_chain_is_submitted_held_and_released_once_at_the_end(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    assert launch.submit(CHAIN, PROFILE, folder) == ["101", "102", "103", "104", "105"]
    calls = [line for line in slurm.calls() if "--test-only" not in line]
    assert [line.split()[0] for line in calls] == ["sbatch"] * 5 + ["scontrol"]
    assert calls[-1] == "scontrol release 101,102,103,104,105" and not slurm.calls("scancel")
    assert all("hold" in options(text) for text in submitted(folder).values()) and len(submitted(folder)) == 5


def test_each_job_waits_for_what_it_needs(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    launch.submit(CHAIN, PROFILE, folder)
    found = {stage: options(text) for stage, text in submitted(folder).items()}
    assert {stage: one.get("dependency") for stage, one in found.items()} == {
        "prepare": None,
        "sweep": "afterok:101",
        "finalists": "afterok:102",
        "evaluate": "aftercorr:103",
        "report": "afterany:101:102:103:104",
    }
    killed = {stage for stage, one in found.items() if one.get("kill-on-invalid-dep") == "yes"}
    assert killed == {"sweep", "finalists", "evaluate"}  # the report is written in any case


def test_a_single_element_waits_for_a_plain_job(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    one = [dataclasses.replace(job, commands=job.commands[:1]) for job in CHAIN[2:4]]
    launch.submit(one, PROFILE, folder)
    found = options(submitted(folder)["evaluate"])
    assert found["dependency"] == "afterok:101" and "array" not in found


def test_the_ledger_tells_what_was_submitted(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    launch.submit(CHAIN, PROFILE, folder)
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    assert [(line["stage"], line["state"], line["job"], line["elements"]) for line in lines] == [
        ("prepare", "submitted", "101", 1),
        ("sweep", "submitted", "102", 1),
        ("finalists", "submitted", "103", 3),
        ("evaluate", "submitted", "104", 3),
        ("report", "submitted", "105", 1),
    ]
    assert status.submitted(folder) == {line["stage"]: [line["job"]] for line in lines}


def test_jobs_are_pickled_as_a_name_and_strings(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    launch.submit(CHAIN, PROFILE, folder)
    paths = sorted((folder.path / "private" / "jobs").glob("*_submitted.pkl"))
    assert [path.name.removesuffix("_submitted.pkl") for path in paths] == sorted(
        ["101", "102", "105", *(f"{job}_{place}" for job in (103, 104) for place in range(3))]
    )
    for path in paths:
        strings = {arg for _, arg, _ in pickletools.genops(path.read_bytes()) if isinstance(arg, str)}
        ours = {text for text in strings if "facefactory" in text and not text.startswith("/")}
        assert ours == {"facefactory.cluster.entry"} and not any("cloudpickle" in text for text in strings)
    job = pickle.loads(paths[0].read_bytes())
    assert job.function is entry.run and job.args == (CHAIN[0].commands[0], str(folder.path), "scontrol", None)


def test_no_secret_is_in_a_script_or_a_pickle(
    slurm: Pretended, folder: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "5ec2e7" * 5
    for name in ("RAY_AUTH_TOKEN", "WANDB_API_KEY", rundir.OWNER_TOKEN):
        monkeypatch.setenv(name, secret)
    (folder.path / "private" / "ray.token").write_text(secret)
    launch.submit(CHAIN, PROFILE, folder)
    files = [path for path in (folder.path / "private" / "jobs").iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".sh", ".pkl"}
    for path in files:
        assert secret.encode() not in path.read_bytes() and str(folder.token).encode() not in path.read_bytes()
    assert secret not in (slurm.folder / "tested").read_text()


def test_all_is_cancelled_when_one_job_is_refused(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    text = captured("sbatch", "account, submitted")
    slurm.command("sbatch", BATCH.format(refuse=f"if [ $last = 102 ]; then\n{refusal(text)}\nfi", refuse_test=""))
    with pytest.raises(UserError, match=r"Slurm refused the job: .*Invalid account.*account.* in your profile") as error:
        launch.submit(CHAIN, PROFILE, folder)
    assert "\n" not in str(error.value)
    assert slurm.calls("scancel") == ["scancel 101 102"] and not slurm.calls("scontrol release")


def test_all_is_cancelled_when_the_release_fails(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    slurm.command("scontrol", refusal("slurm_suspend error: Access/permission denied\n"))
    with pytest.raises(UserError, match=r"Access/permission denied"):
        launch.submit(CHAIN[:2], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 101 102"]


def test_what_slurm_would_refuse_is_refused_before_anything_is_queued(slurm: Pretended, folder: RunDir, tree: Path) -> None:
    text = captured("sbatch", "memory, tested")  # of a held job Slurm notices this when it is released
    slurm.command("sbatch", BATCH.format(refuse="", refuse_test=f"if [ -e second ]; then\n{refusal(text)}\nfi; echo >second"))
    with pytest.raises(UserError, match=r"node configuration is not available.*memory_gb"):
        launch.submit(CHAIN, PROFILE, folder)
    assert all("--test-only" in line for line in slurm.calls()) and len(slurm.calls()) == 2
    assert "--hold" not in (slurm.folder / "tested").read_text()
    assert not (folder.path / "code").exists() and not (folder.path / "jobs.jsonl").exists()


REFUSALS = {  # what is wrong -> the key of the profile
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "qos limit": "qos",
    "gpus": "gpus_per_node",
    "memory": "memory_gb",
    "nodes": "partition",
    "time limit": "gpu_min",
    "constraint": "constraint",
    "reservation": "sbatch",
    "option": "sbatch",
}
ONLY_TESTED = ("gpus", "memory")  # 22.05.8 queues a held job that fits no node


@pytest.mark.parametrize(
    ("wrong", "when"),
    [(wrong, when) for when in ("tested", "submitted") for wrong in REFUSALS if when == "tested" or wrong not in ONLY_TESTED],
)
def test_a_refusal_is_one_line_that_names_the_key_to_set(wrong: str, when: str) -> None:
    said = launch.explain(captured("sbatch", f"{wrong}, {when}"))
    assert "\n" not in said and said.endswith("nothing was queued.")
    hint = re.search(r"Set (.*) in your profile", said)
    assert hint is not None and REFUSALS[wrong] in re.split(r", | or | / ", hint[1])


def test_a_refusal_nobody_foresaw_is_told_as_slurm_says_it() -> None:
    said = launch.explain("sbatch: error: Batch job submission failed: The moon is full")
    assert "The moon is full. See your profile" in said


def test_queued_jobs_import_a_copy_without_packed_sets(folder: RunDir, tree: Path) -> None:
    code = folder.path / "code"
    launch.copy_code(code)
    (tree / "facefactory" / "a.py").write_text("edited after the submission")
    files = sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file())
    assert files == ["facefactory/a.py", "jobs/presets/p.yaml", "shards/orl.yaml"]
    assert (code / "facefactory" / "a.py").read_text() == "1"


def test_a_second_copy_replaces_the_first(folder: RunDir, tree: Path) -> None:
    launch.copy_code(folder.path / "code")
    (tree / "facefactory" / "a.py").unlink()
    (tree / "facefactory" / "b.py").write_text("2")
    launch.copy_code(folder.path / "code")
    assert [path.name for path in (folder.path / "code" / "facefactory").glob("*.py")] == ["b.py"]
    assert not list(folder.path.glob(".code-*"))


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
def test_sacct_tells_the_state_of_the_last_incarnation(name: str, state: str, exit_code: str, restarts: int) -> None:
    facts = one(sacct(name))
    assert (facts["state"], facts["exit_code"], facts["restarts"]) == (state, exit_code, restarts)


def test_sacct_tells_resources_from_the_job_and_memory_from_its_steps() -> None:
    facts = one(sacct("completed"))
    assert (facts["nodes"], facts["elapsed"], facts["limit"], facts["requested"]) == ("n[1-2]", "00:00:05", "00:30:00", "1000M")
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
    assert {name: facts["restarts"] for name, facts in again.items()} == {"73441_0": 0, "73441_1": 0, "73441_2": 1}


def test_jobs_that_sacct_does_not_know_yet_are_no_jobs() -> None:
    assert status.parse_sacct("") == status.parse_sacct(sacct("unknown job")) == {}


def test_a_step_that_ran_out_of_memory_explains_a_failed_job() -> None:
    # by hand, after FACTS: with cgroups only the step's row says it; the dev cluster enforces nothing
    text = row(JobID="5", State="FAILED", ExitCode="1:0") + row(
        JobID="5.0", State="OUT_OF_MEMORY", MaxRSS="2.5G", ExitCode="0:125"
    )
    facts = one(text)
    assert facts["state"] == "OUT_OF_MEMORY" and facts["memory_mb"] == 2560


@pytest.mark.parametrize("state", ["COMPLETED", "RUNNING"])
def test_a_job_that_went_on_without_the_step_that_ran_out_of_memory_did_not_fail(state: str) -> None:
    text = row(JobID="5", State=state) + row(JobID="5.1", State="OUT_OF_MEMORY", ExitCode="0:125")  # by hand
    assert one(text)["state"] == state


def test_a_row_whose_end_came_before_its_start_is_read_all_the_same() -> None:
    # by hand: right after a very short job sacct says `allocation`, no times and no nodes
    text = row(JobID="5", JobName="allocation", State="COMPLETED", NodeList="", Timelimit="", Elapsed="")
    assert one(text)["state"] == "COMPLETED"


def test_newer_versions_of_slurm_are_read_too() -> None:
    # by hand, documented differences: the job's own row says OUT_OF_MEMORY; states of later versions; columns that are cut
    assert one(row(JobID="5", State="OUT_OF_MEMORY", ExitCode="0:125"))["state"] == "OUT_OF_MEMORY"
    assert one(row(JobID="5", State="LAUNCH_FAILED"))["state"] == "LAUNCH_FAILED"
    assert one(row(JobID="5", State="CANCELLED by 1000"))["state"] == "CANCELLED"
    assert one(row(JobID="5", State=""))["state"] == "UNKNOWN"
    assert status.parse_sacct("sacct: some news of a later version\n5|too few cells\n") == {}
    assert one(row(JobID="5", State="RUNNING", ReqMem="16Gn"))["requested"] == "16Gn"  # before 21.08: n = per node


@pytest.mark.parametrize(("text", "expected"), [("136412K", 133.21), ("5.5G", 5632), ("10.50M", 10.5), ("1T", 2**20), ("", 0)])
def test_sizes_are_megabytes(text: str, expected: float) -> None:
    assert status.megabytes(text) == pytest.approx(expected, abs=0.01)


def test_scontrol_tells_the_same_where_sacct_does_not() -> None:
    facts = status.parse_scontrol(captured("scontrol", "completed"))
    assert {"state": "COMPLETED", "nodes": "n[1-2]", "elapsed": "00:00:05", "limit": "00:30:00"}.items() <= facts.items()
    assert facts["exit_code"] == "0:0" and facts["requested"] == "500M" and facts["reason"] is None
    assert status.parse_scontrol(captured("scontrol", "failed"))["exit_code"] == "7:0"
    assert status.parse_scontrol(captured("scontrol", "can never run"))["reason"] == "DependencyNeverSatisfied"
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
        self.folder.record(stage, "submitted", job=job, **more)

    def fails(self, *names: str, says: str = "Unable to contact slurm controller (connect failure)") -> None:
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
    assert source.startswith("sacct") and {job: facts["state"] for job, facts in jobs.items()} == {
        "73322": "COMPLETED",
        "73323": "FAILED",
        "73439": "COMPLETED",
    }
    assert [len(known.slurm.calls(name)) for name in ("sacct", "squeue", "scontrol")] == [1, 1, 0]
    assert "73322,73323,73439" in known.slurm.calls("sacct")[0]


def test_a_run_without_slurm_jobs_asks_nobody(known: Known) -> None:
    known.folder.record("pack", "finished")
    assert "sacct" not in known.read()[0] and known.slurm.calls() == []


def test_pending_elements_of_an_array_are_listed_one_by_one(known: Known) -> None:
    known.records("array running")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    _, jobs = known.read()
    assert {job: facts["state"] for job, facts in jobs.items()} == {
        **{f"73353_{place}": "RUNNING" for place in (0, 1)},
        **{f"73353_{place}": "PENDING" for place in (2, 3, 4, 5)},
    }
    assert jobs["73353_2"]["reason"] == "JobArrayTaskLimit" and jobs["73353_0"]["nodes"] == "n1"


def test_pending_elements_are_not_lost_while_the_controller_is_away(known: Known) -> None:
    known.records("array running")
    known.fails("squeue", "scontrol")
    assert list(known.states.values()) == ["RUNNING"] * 2 + ["PENDING"] * 4


def test_cancelled_elements_that_never_ran_are_not_lost(known: Known) -> None:
    known.records("array partly cancelled", "array never ran")
    assert known.states == {"73364_0": "COMPLETED"} | {f"73364_{place}": "CANCELLED" for place in (1, 2, 3, 4, 5)} | {
        f"73368_{place}": "CANCELLED" for place in range(4)
    }
    assert known.read()[1]["73364_1"]["nodes"] == "n1"  # its own row, not the one it shares


def test_a_range_with_gaps_and_steps_is_spelled_out(known: Known) -> None:
    known.records(
        more=row(JobID="20_[0,2-4,9%4]", State="CANCELLED") + row(JobID="21_[1-7:3]", JobName="ff-r-sweep", State="CANCELLED")
    )
    assert set(known.states) == {"20_0", "20_2", "20_3", "20_4", "20_9", "21_1", "21_4", "21_7"}  # by hand


def test_what_the_controller_knows_of_live_jobs_is_newer_than_the_records(known: Known) -> None:
    known.records("requeue waits")
    known.slurm.prints("squeue", captured("squeue", "requeue waits"))
    facts = known.read()[1]["73356"]
    assert (facts["state"], facts["reason"], facts["requested"]) == ("PENDING", "BeginTime", "100M")
    assert facts["waits"] == status.REASONS["BeginTime"]


def test_without_accounting_squeue_and_scontrol_are_asked(known: Known) -> None:
    known.submitted("finalists", "73353")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    source, jobs = known.read()
    assert source == "squeue" and len(jobs) == 6 and not known.slurm.calls("scontrol")
    known.submitted("train", "73322")
    (known.slurm.folder / "job").write_text(captured("scontrol", "completed"))
    known.slurm.command("scontrol", 'case "$*" in *73322*) cat job;; *) exit 1;; esac')
    source, jobs = known.read()
    assert source == "squeue, scontrol" and jobs["73322"]["state"] == "COMPLETED" and jobs["73322"]["nodes"] == "n[1-2]"


def test_an_array_is_read_from_scontrol_too(known: Known) -> None:
    known.submitted("finalists", "73353")
    known.slurm.prints("scontrol", captured("scontrol", "array running"))
    assert list(known.states.values()) == ["RUNNING"] * 2 + ["PENDING"] * 4


def test_a_job_whose_record_has_not_arrived_is_asked_of_scontrol(known: Known) -> None:
    known.records("completed")
    known.submitted("sweep", "73323")
    known.slurm.prints("scontrol", captured("scontrol", "failed"))
    source, jobs = known.read()
    assert source == "sacct, squeue, scontrol" and jobs["73323"]["exit_code"] == "7:0"


def test_where_no_command_answers_the_ledger_does(known: Known) -> None:
    known.submitted("prepare", "50")
    known.submitted("train", "51")
    known.folder.record("pack", "finished", job="50")
    known.fails("sacct", "squeue", "scontrol")
    source, jobs = known.read()
    assert source == "ledger" and {job: facts["state"] for job, facts in jobs.items()} == {"50": "FINISHED", "51": "UNKNOWN"}


def test_a_run_is_waited_for_while_nobody_knows_how_it_stands(known: Known) -> None:
    known.submitted("train", "51")
    assert not chain.going(known.folder)  # squeue answers, and has no such job
    known.fails("sacct", "squeue", "scontrol")
    assert chain.going(known.folder)
    known.records("can never run")
    known.slurm.prints("squeue", captured("squeue", "array running").splitlines()[0] + "\n")
    assert not chain.going(known.folder)  # else it would be waited for, for ever


def test_a_cluster_whose_commands_are_gone_is_no_crash(known: Known) -> None:
    known.submitted("train", "51")
    for name in ("sacct", "squeue", "scontrol"):
        (known.slurm.folder / "bin" / name).unlink()
    assert known.states == {"51": "UNKNOWN"}


def test_what_slurm_has_forgotten_the_ledger_still_knows(known: Known) -> None:
    for job, stage, state in (("50", "pack", "finished"), ("51", "train", "failed"), ("52", "evaluate", "running")):
        known.submitted(stage, job)
        known.folder.record(stage, "running", job=job)
        known.folder.record(stage, state, job=job)
    source, jobs = known.read()  # no accounting, and MinJobAge is over
    assert [facts["state"] for facts in jobs.values()] == ["FINISHED", "FAILED", "UNKNOWN"]
    assert source == "squeue, ledger" and not status.read(known.folder)["healthy"]


def test_a_strangers_job_with_an_id_of_ours_is_not_ours(known: Known) -> None:
    known.submitted("train", "73353")  # the controller was killed, forgot our job and gave its id away
    known.slurm.prints("sacct", sacct("array running"))
    known.slurm.prints("squeue", captured("squeue", "array running"))
    assert known.states == {"73353": "UNKNOWN"}


def test_a_job_without_its_name_yet_is_ours(known: Known) -> None:
    known.submitted("train", "5")
    known.slurm.prints("sacct", row(JobID="5", JobName="allocation", State="COMPLETED", NodeList=""))  # by hand
    assert known.states == {"5": "COMPLETED"}


# -- status ----------------------------------------------------------------------------------------------------------


def test_reasons_are_told_in_words() -> None:
    for reason in ("Priority", "(Resources)", "Dependency", "DependencyNeverSatisfied", "BeginTime", "JobHeldUser"):
        assert status.in_words(reason) == status.REASONS[reason.strip("()")]
    assert status.in_words("ReqNodeNotAvail, UnavailableNodes:n2") == status.REASONS["ReqNodeNotAvail"]
    assert status.in_words("launch_failed_requeued_held") == status.REASONS["launch failed requeued held"]  # scontrol's spelling
    assert status.in_words("QOSMaxJobsPerUserLimit").startswith("a limit of your qos is reached")
    assert status.in_words("AssocGrpCpuLimit").startswith("a limit of your account is reached")
    assert status.in_words("JobArrayTaskLimit") == "job array task limit"
    down = status.in_words(captured("squeue", "node down").splitlines()[2].split("|")[2])
    assert "drained" in down and "DOWN" not in down
    told = status.parse_scontrol(captured("scontrol", "node down"))["reason"]
    assert status.in_words(told) == down


def test_a_healthy_run_is_healthy(known: Known) -> None:
    known.records("completed", "array running")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    found = status.read(known.folder)
    assert found["healthy"] and found["run"] == str(known.folder.path)
    assert [one["job"] for one in found["jobs"]] == ["73322", *(f"73353_{place}" for place in range(6))]
    jobs = known.read()[1]
    assert jobs["73353_4"]["waits"] == "job array task limit" and jobs["73353_0"]["waits"] is None
    assert json.loads(json.dumps(found)) == found


ILL = ("failed", "killed", "cancelled", "never ran", "can never run", "time limit", "node lost")


@pytest.mark.parametrize("name", [*ILL, "array failed", "array partly cancelled", "array never ran", "array after failed array"])
def test_what_failed_or_can_never_run_is_not_healthy(known: Known, name: str) -> None:
    known.records(name)
    known.slurm.prints("squeue", "".join(f"{line}\n" for line in captured("squeue", "array running").splitlines()[:1]))
    assert not status.read(known.folder)["healthy"]


@pytest.mark.parametrize("name", ["requeued", "preempted", "node lost, requeued", "last element requeued", "array done"])
def test_coming_back_is_no_illness(known: Known, name: str) -> None:
    known.records(name)
    assert status.read(known.folder)["healthy"] and known.slurm.calls("sacct")


def test_status_ends_with_code_1_when_something_failed(
    known: Known, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known.records("completed")
    (known.folder.path / "config.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(sys, "argv", ["status.py", f"paths.runs={known.folder.path.parent}", "run=r", "json=true"])

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
    assert code() == 2 and "there are r" in "".join(capsys.readouterr())


def test_the_end_of_a_failed_jobs_log_is_shown(known: Known) -> None:
    known.records("completed", "failed")
    (known.folder.path / "private" / "jobs").mkdir()
    for job in ("73322", "73323"):
        path = known.folder.path / "private" / "jobs" / f"{job}_0_log.out"
        path.write_text("\n".join(f"line {number}" for number in range(99)))
    _, jobs = known.read()
    assert jobs["73322"]["log_tail"] is None
    assert jobs["73323"]["log_tail"].splitlines()[-1] == "line 98" and len(jobs["73323"]["log_tail"].splitlines()) < 30


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
    text += row(JobID="60_0", State="COMPLETED", **array) + row(JobID="60_1", State="FAILED", ExitCode="75:0", **array)
    known.slurm.prints("sacct", text + row(JobID="61_1", State="RUNNING", **array))
    known.slurm.prints("squeue", "51|RUNNING|None|n1|0:05|10:00|ff-r-train\n61_1|RUNNING|None|n1|0:05|10:00|ff-r-finalists\n")
    assert known.states == {"51": "RUNNING", "60_0": "COMPLETED", "61_1": "RUNNING"}
    assert status.read(known.folder)["healthy"] and set(status.live(known.folder)) == {"51", "61_1"}
    status.record_failures(known.folder)
    assert "failed" not in (known.folder.path / "jobs.jsonl").read_text()


def test_live_jobs_are_those_that_are_queued_or_running(known: Known) -> None:
    known.records("completed", "failed", "requeue waits")
    known.slurm.prints("squeue", captured("squeue", "requeue waits"))
    assert status.live(known.folder) == {"73356": "BeginTime"}


def test_a_local_run_is_told_from_its_ledger(known: Known) -> None:
    known.folder.record("pack", "finished")
    known.folder.record("train", "running")
    found = status.read(known.folder)
    assert found["healthy"] and [(one["stage"], one["state"]) for one in found["jobs"]] == [
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
    (train / "metrics-1.jsonl").write_text('{"kimg": 1.0, "images_per_s": 90}\n{"kimg": 2.5, "images_per_s": 100}\n')
    (known.folder.path / "private" / "jobs").mkdir()
    beat = known.folder.path / "private" / "jobs" / "73322.alive"
    beat.touch()
    os.utime(beat, (time.time() - 300, time.time() - 300))
    facts = known.read()[1]["73322"]
    assert (facts["kimg"], facts["images_per_s"]) == (2.5, 100)
    assert 295 <= facts["heartbeat_s"] <= 310 and 0 <= facts["checkpoint_s"] <= 10


def test_a_sweeps_best_score_is_the_lowest_distance(known: Known) -> None:
    known.records("failed")
    for number, score in enumerate((0.5, 0.2, 0.9)):
        trial = known.folder.path / "sweep" / "trials" / str(number)
        trial.mkdir(parents=True)
        (trial / "trial.json").write_text("{}")
        (trial / "scores.jsonl").write_text(json.dumps({"kd_judge": score}) + "\n")
    facts = known.read()[1]["73323"]
    assert facts["trials"] == 3 and facts["best"] == 0.2


def shown(folder: RunDir) -> str:
    """The table as text."""
    out = io.StringIO()
    Console(file=out, width=220).print(status.table(status.read(folder)))
    return out.getvalue()


def test_the_table_shows_every_job_and_survives_brackets(known: Known) -> None:
    known.records("completed", "failed", "array running", "can never run")
    known.slurm.prints("squeue", captured("squeue", "array running"))
    text = shown(known.folder)
    assert "from sacct" in text and "n[1-2]" in text and "133M / 1000M" in text and "7:0" in text
    assert "00:00:05 / 00:30:00" in text and status.REASONS["DependencyNeverSatisfied"] in text
    for job in ("73322", "73323", "73325", "73353_0", "73353_5"):
        assert job in text
    known.fails("sacct", "squeue", "scontrol")
    assert "UNKNOWN" in shown(known.folder) and "ledger" in shown(known.folder)


def failures(folder: RunDir) -> list[tuple[str, str]]:
    """(stage, why) of the ledger's failures."""
    lines = rundir.read_jsonl(folder.path / "jobs.jsonl")
    return [(line["stage"], line["error"]) for line in lines if line["state"] == "failed"]


def test_what_slurm_knows_of_silent_ends_is_written_into_the_ledger_once(known: Known) -> None:
    known.records("killed", "never ran", "cancelled", "completed")
    for _ in range(2):
        status.record_failures(known.folder)
    found = dict(failures(known.folder))
    assert set(found) == {"killed", "finalists", "canc"} and len(failures(known.folder)) == 3
    assert "FAILED (exit code 9:0) of Slurm job 73326" in found["killed"]
    assert found["finalists"] == "Slurm job 73324 never ran, because a job before it failed"
    assert found["canc"].startswith("CANCELLED")


def test_a_job_that_a_person_cancelled_was_not_stopped_by_the_job_before(known: Known) -> None:
    known.records(more=row(JobID="5", State="CANCELLED by 0", Reason="Dependency"))  # by hand: sacct keeps the old reason
    status.record_failures(known.folder)
    ((_, why),) = failures(known.folder)
    assert "never ran" not in why


@pytest.mark.parametrize(("seconds", "expected"), [(40, "40 s ago"), (720, "12 min ago"), (12600, "3.5 h ago")])
def test_ages_are_readable(seconds: float, expected: str) -> None:
    assert status.age(seconds) == expected


# -- check -----------------------------------------------------------------------------------------------------------


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


def test_a_refused_test_job_is_a_finding(site: Pretended, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.command("sbatch", BATCH.format(refuse="", refuse_test=refusal(captured("sbatch", "account, tested"))))
    assert not check.cluster(Profile(), tmp_path / "runs", ["cpu"], 5)
    said = capsys.readouterr().out
    assert "cpu: Slurm refused the job" in said and "account" in said


# -- the process of a job --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Task:
    """A task of a Slurm job whose child is a line of shell."""

    slurm: Pretended
    folder: RunDir
    monkeypatch: pytest.MonkeyPatch

    def run(self, child: str, requeue: str = "scontrol", scratch: str | None = None, rank: int = 0, **variables: str) -> int:
        """The exit code of `entry.run`."""
        usual = {"JOB_ID": "77", "JOB_NAME": "ff-r-train", "NTASKS": "2", "JOB_NUM_NODES": "2", "NODEID": str(rank)}
        for name, value in {**usual, "PROCID": str(rank), "LOCALID": "0", "JOB_NODELIST": "n[1-2]", **variables}.items():
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
    """A task; its signal handlers and its waiting end with the test."""
    (folder.path / "private" / "jobs").mkdir()
    slurm.command("scontrol", 'case "$*" in show*) cat shown;; esac')
    (slurm.folder / "shown").write_text(captured("scontrol", "requeued runs"))
    for name in ("ENDING_S", "AWAY_S"):
        monkeypatch.setattr(entry, name, 0.01, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
    yield Task(slurm, folder, monkeypatch)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 139])
def test_a_task_ends_with_the_exit_code_of_its_work(task: Task, code: int) -> None:
    assert task.run(f"exit {code}") == code
    assert not task.slurm.calls("scontrol")


def test_the_job_ends_with_the_code_of_the_rank_that_ended_first(task: Task, tmp_path: Path) -> None:
    before = {path for path in task.folder.path.rglob("*") if path.is_file()}
    assert task.run("exit 3", rank=1) == 3
    task.run("exit 1")  # what a rank says that lost its peer
    made = {path for path in task.folder.path.rglob("*") if path.is_file() and path.suffix != ".alive"} - before
    kept = "\n".join(f"printf %s '{path.read_text()}' >'{path}'" for path in made)
    (tmp_path / "job.sh").write_text(launch.script(TRAIN, Profile(), task.folder.path))
    for srun, code in ((f"{kept}\nexit 143", 3), ("exit 143", 143), ("exit 0", 0)):  # nor does a restart inherit it
        task.slurm.command("srun", srun)
        assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == code


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
    assert task.run("exit 75") == 75 and task.requeues == []


def test_a_profile_may_forbid_requeueing(task: Task) -> None:
    assert task.run("exit 75", requeue="none") == 75
    assert task.requeues == [] and not task.slurm.calls("sbatch")


def test_only_the_element_is_requeued_not_its_array(task: Task) -> None:
    # tried on 22.05.8: the last element to start has the array's own id, and `scontrol requeue <id>` takes the finished ones too
    (task.slurm.folder / "shown").write_text(captured("scontrol", "array, many lines"))
    task.run("exit 75", JOB_ID="73362", ARRAY_JOB_ID="73362", ARRAY_TASK_ID="2")
    assert task.requeues == ["scontrol requeue 73362_2"] and task.slurm.calls("scontrol show") == ["scontrol show job 73362_2"]


def test_the_first_rank_leaves_a_heartbeat(task: Task) -> None:
    task.run("", rank=1)
    assert not list((task.folder.path / "private" / "jobs").glob("*.alive"))
    task.run("")
    task.run("", ARRAY_JOB_ID="80", ARRAY_TASK_ID="3")
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
    task.run('echo "${RANK-none} ${WORLD_SIZE-none}" >seen', NTASKS="1", JOB_NUM_NODES="1", JOB_NODELIST="n1")
    assert (task.slurm.folder / "seen").read_text() == "none none\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_signal_does_not_end_the_task_before_its_work(task: Task, number: int) -> None:
    assert task.run(f"kill -{number:d} $PPID; exit 75") == 75
    assert len(task.requeues) == 1


def test_a_controller_that_is_away_is_waited_for(task: Task) -> None:
    task.monkeypatch.setattr(entry, "AWAY_S", 10.0)
    task.monkeypatch.setattr(entry.time, "sleep", lambda seconds: None)
    away = refusal("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    task.slurm.command("scontrol", f'if [ ! -e tried ]; then echo >tried\n{away}\nfi\ncase "$*" in show*) cat shown;; esac')
    assert task.run("exit 75") == 75 and task.requeues == ["scontrol requeue 77"]


def resubmitted(task: Task, waiting: str, **variables: str) -> dict[str, str]:
    """Submit again instead of requeueing; waiting job -> its new dependency."""
    task.slurm.prints("squeue", waiting)
    name = "_".join(filter(None, (variables.get("ARRAY_JOB_ID", variables["JOB_ID"]), variables.get("ARRAY_TASK_ID"))))
    (task.folder.path / "private" / "jobs" / f"{name}_submitted.pkl").write_bytes(b"what to run")
    (task.slurm.folder / "shown").write_text("#!/bin/bash\n#SBATCH --mem=1G\n")
    shell = 'case "$*" in "show job"*) echo JobState=RUNNING;; write*) cat shown;; esac'
    task.slurm.command("scontrol", shell)
    assert task.run("exit 75", requeue="resubmit", **variables) == 75
    assert task.requeues == []
    updates = [
        re.fullmatch(r"scontrol update jobid=(\S+) dependency=(\S+)", line) for line in task.slurm.calls("scontrol update")
    ]
    return {found[1]: found[2] for found in updates if found}


def test_where_requeueing_is_forbidden_the_job_is_submitted_again_and_its_dependants_wait_for_the_copy(task: Task) -> None:
    moved = resubmitted(task, captured("squeue", "dependencies"), JOB_ID="73417", JOB_NAME="ff-r-sweep")
    assert moved == {f"73418_{place}": "afterok:101" for place in range(3)} | {
        "73420": "afterany:101,afterany:73418,afterany:73419"
    }
    assert (task.slurm.folder / "copy").read_text() == "#!/bin/bash\n#SBATCH --mem=1G\n"
    assert (task.folder.path / "private" / "jobs" / "101_submitted.pkl").read_bytes() == b"what to run"
    assert "--hold" in task.slurm.calls("sbatch")[0] and task.slurm.calls("scontrol")[-1] == "scontrol release 101"
    (line,) = rundir.read_jsonl(task.folder.path / "jobs.jsonl")
    assert (line["stage"], line["job"], line["instead_of"]) == ("sweep", "101", "73417")


def test_of_an_array_only_the_element_is_submitted_again(task: Task) -> None:
    ids = {"JOB_ID": "73424", "ARRAY_JOB_ID": "73424", "ARRAY_TASK_ID": "2"}
    moved = resubmitted(task, captured("squeue", "dependencies of a running array"), JOB_NAME="ff-r-finalists", **ids)
    assert moved["73425_2"] == "afterok:101" and "73425_1" not in moved
    assert set(moved["73428"].split(",")) == {"afterany:73424", "afterany:101", "afterany:73425"}
    assert "--array=2" in task.slurm.calls("sbatch")[0].split()
    assert (task.folder.path / "private" / "jobs" / "101_2_submitted.pkl").exists()
    assert rundir.read_jsonl(task.folder.path / "jobs.jsonl")[0]["instead_of"] == "73424_2"
    assert all("73424_2" in line for line in task.slurm.calls("scontrol update") if "requeue=0" in line)  # not the whole array


# -- which jobs a chain becomes --------------------------------------------------------------------------------------

SWEEP = ["pack", "judge", "sweep", "finalists", "report"]


def jobs_of(todo: list[str], **changes: Any) -> dict[str, Job]:
    """Stage -> job, for 4 ranks and 8 trials at once."""
    run = Run()
    run = dataclasses.replace(
        run,
        training=dataclasses.replace(run.training, ranks=4, **changes),
        sweep=dataclasses.replace(run.sweep, parallel=8, finalists=3),
    )
    jobs = chain.slurm_jobs(run, RunDir(Path("/shared/runs/r")), todo)
    assert len({job.stage for job in jobs}) == len(jobs)
    return {job.stage: job for job in jobs}


def shapes(jobs: dict[str, Job], fact: Callable[[Job], Any]) -> dict[str, Any]:
    return {stage: fact(job) for stage, job in jobs.items()}


def test_a_training_is_two_jobs() -> None:
    jobs = jobs_of(["pack", "train"])
    assert shapes(jobs, lambda job: (job.kind, job.processes, job.gpus, job.after)) == {
        "prepare": ("cpu", 1, False, "ok"),
        "train": ("gpu", 4, True, "ok"),
    }
    assert jobs["train"].commands == [["stages", "/shared/runs/r", "train"]]


def test_a_sweep_is_five_jobs() -> None:
    jobs = jobs_of(SWEEP)
    assert shapes(jobs, lambda job: (job.kind, job.processes, job.gpus, len(job.commands), job.after)) == {
        "prepare": ("gpu", 1, True, 1, "ok"),  # packs and trains the judge: one wait in the queue
        "sweep": ("sweep", 8, True, 1, "ok"),
        "finalists": ("gpu", 4, True, 3, "ok"),
        "evaluate": ("gpu", 1, True, 3, "each"),
        "report": ("cpu", 1, False, 1, "any"),
    }
    assert jobs["prepare"].commands == [["stages", "/shared/runs/r", "pack", "judge"]]
    assert jobs["report"].commands == [["gather", "/shared/runs/r", "finalists", "report"]]
    trained, scored = jobs["finalists"].commands, jobs["evaluate"].commands
    assert [command[:3] for command in trained] == [["finalist", "/shared/runs/r", str(place)] for place in range(3)]
    assert all(command[-1] == "train" for command in trained) and all("evaluate" in command for command in scored)


def test_scoring_and_meaning_are_one_job() -> None:
    assert shapes(jobs_of(["evaluate", "interpret"]), lambda job: (job.commands, job.processes)) == {
        "evaluate": ([["stages", "/shared/runs/r", "evaluate", "interpret"]], 1)
    }
    assert list(jobs_of(["pack", "judge", "evaluate"])) == ["prepare", "evaluate"]
    assert list(jobs_of(["generate"])) == ["generate"]


@pytest.mark.parametrize("done", range(len(SWEEP) + 1))
def test_complete_stages_submit_no_job(done: int) -> None:
    expected = {0: "prepare sweep finalists evaluate report", 1: "prepare sweep finalists evaluate report"}
    expected |= {2: "sweep finalists evaluate report", 3: "finalists evaluate report", 4: "report", 5: ""}
    assert list(jobs_of(SWEEP[done:])) == expected[done].split()


def test_work_on_cpus_asks_for_no_gpu() -> None:
    assert not any(job.gpus for job in jobs_of(SWEEP, device="cpu").values())


def test_every_job_of_a_chain_can_be_asked_for() -> None:
    profile = Profile(gpus_per_node=4)
    for job in jobs_of(SWEEP).values():
        assert options(launch.script(job, profile, Path("/shared/runs/r")))["job-name"] == f"ff-r-{job.stage}"
