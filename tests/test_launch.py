"""Batch scripts and the submission of a chain, against an sbatch that only pretends."""

from __future__ import annotations

import dataclasses
import os
import pickle
import pickletools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BATCH, Pretended, captured, refusal

from facefactory import UserError, cluster, rundir
from facefactory.cluster import Profile, entry, launch, status
from facefactory.cluster.launch import Job
from facefactory.rundir import RunDir


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout in place of ours."""
    top = tmp_path / "checkout"
    for name in (
        "facefactory/a.py",
        "facefactory/__pycache__/a.pyc",
        "jobs/presets/p.yaml",
        "shards/orl.yaml",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("1")
    for name in (
        "shards/packed/orl/train-000000.tar",
        "shards/judges/j/model.pt",
        ".git/config",
        "runs/r/config.yaml",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("large or foreign")
    monkeypatch.setattr(launch, "CODE", top)
    return top


TRAIN = Job(
    "train",
    [["stages", "FOLDER", "train"]],
    "gpu",
    True,
    4,
)
CHAIN = [
    Job("prepare", [["stages", "r", "pack", "judge"]], "gpu", True),
    Job("sweep", [["sweep", "r"]], "sweep", True, 4, starts_ray=True),
    Job(
        "finalists", [["part", "r", "finalists", str(place)] for place in range(3)], "gpu", True, 2
    ),
    Job(
        "evaluate",
        [["part", "r", "finalists", str(place), "evaluate"] for place in range(3)],
        "gpu",
        True,
        after="each",
    ),
    Job("report", [["last", "r", "report"]], "cpu", False, after="any"),
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
    scripts = [
        path.read_text()
        for path in sorted((folder.path / "private" / "jobs").glob("*_submission.sh"))
    ]
    return {options(text)["job-name"].rpartition("-")[2]: text for text in scripts}


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

    # in Slurm's words
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
    assert not {
        "partition",
        "account",
        "qos",
        "constraint",
        "gpus-per-node",
        "wckey",
        "error",
    } & set(options(script()))


@pytest.mark.parametrize(
    ("job", "partition", "gpus", "minutes"),
    [
        (CHAIN[0], "gpu", "1", "20"),
        (CHAIN[1], "gpu", "2", "30"),
        (CHAIN[4], "cpu", None, "10"),
    ],
    ids=["prepare", "sweep", "report"],
)
def test_partition_gpus_and_minutes_follow_the_kind_of_job(
    job: Job, partition: str, gpus: str | None, minutes: str
) -> None:
    profile = {
        "partition": "gpu",
        "cpu_partition": "cpu",
        "gpus_per_node": 2,
        "cpu_min": 10,
        "gpu_min": 20,
        "sweep_min": 30,
    }
    found = options(script(job, **profile))
    assert (found["partition"], found.get("gpus-per-node"), found["time"]) == (
        partition,
        gpus,
        minutes,
    )


def test_jobs_without_gpus_go_where_the_others_go_if_there_is_no_cpu_partition() -> None:
    assert options(script(CHAIN[4], partition="all", gpus_per_node=2))["partition"] == "all"


def test_training_on_cpus_uses_no_gpu_nodes() -> None:
    found = options(
        script(
            dataclasses.replace(TRAIN, gpus=False),
            partition="gpu",
            cpu_partition="cpu",
            gpus_per_node=2,
        )
    )
    assert found["partition"] == "cpu"
    assert "gpus-per-node" not in found


def test_a_sweep_is_one_task_with_all_the_resources_of_its_nodes() -> None:
    found = options(script(CHAIN[1], gpus_per_node=2, cpus_per_process=3, memory_gb=4))
    wanted = {
        "nodes": "2",
        "ntasks-per-node": "1",
        "cpus-per-task": "6",
        "gpus-per-node": "2",
        "mem": "8192MB",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert {"--overlap", "--nodes=1", "--ntasks=1"} <= set(srun(script(CHAIN[1], gpus_per_node=2)))


@pytest.mark.parametrize(
    ("share", "nodes", "gpus"),
    [
        (0.5, "1", "2"),
        (0.25, "1", "1"),
        (1.0, "2", "2"),
        (2.0, "4", "2"),
    ],
)
def test_trials_share_the_gpus_of_a_node_or_have_several(
    share: float, nodes: str, gpus: str
) -> None:
    job = dataclasses.replace(CHAIN[1], gpu_share=share)
    found = options(script(job, gpus_per_node=2))
    assert found["nodes"] == nodes
    assert found["gpus-per-node"] == gpus


def test_a_trial_that_no_node_can_hold_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match="needs 4 GPUs, and a node of the profile has 2"):
        Profile(gpus_per_node=2).nodes(1, gpu_share=4)


def test_several_commands_are_an_array() -> None:
    found = options(script(CHAIN[2], processes_per_node=2))
    assert found["array"].startswith("0-2%")
    assert "%A_%a" in found["output"]
    assert "array" not in options(script(CHAIN[1], processes_per_node=2))


@pytest.mark.parametrize(("requeue", "flag"), [("scontrol", "requeue"), ("none", "no-requeue")])
def test_slurm_itself_requeues_unless_the_profile_says_none(requeue: str, flag: str) -> None:
    assert {"requeue", "no-requeue"} & set(options(script(requeue=requeue))) == {flag}


def test_setup_and_environment_run_before_python_and_survive_quoting(
    tmp_path: Path, slurm: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 'it\'s $HOME; "quoted" `cmd` # and more'
    text = script(setup=['export AFTER="$TRICKY!"'], environment={"TRICKY": value, "PLAIN": "1"})
    slurm.command(
        "srun",
        'printf "%s\\n" "$TRICKY" "$AFTER" "$PLAIN" "$PYTHONPATH" "$SUBMITIT_EXECUTOR" >seen',
    )
    (tmp_path / "job.sh").write_text(text)
    monkeypatch.setenv("PYTHONPATH", "/site/modules")
    assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == 0
    seen = (slurm.folder / "seen").read_text().splitlines()
    assert seen == [value, f"{value}!", "1", "/shared/runs/r/code:/site/modules", "slurm"]


@pytest.mark.parametrize("code", [0, 1, 3, 75, 137])
def test_the_exit_code_of_the_work_is_the_exit_code_of_the_job(
    tmp_path: Path, slurm: Pretended, code: int
) -> None:
    slurm.command("srun", f"exit {code}")
    (tmp_path / "job.sh").write_text(
        launch.script(TRAIN, Profile(setup=["true"]), tmp_path / "a run")
    )
    assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == code


def test_srun_gets_the_cpus_and_ends_all_ranks_with_the_first_that_fails() -> None:
    line = srun(script(cpus_per_process=6))
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=1"} <= set(
        line
    )  # since 22.05 srun does not inherit it from sbatch


@pytest.mark.parametrize("job", CHAIN[:3], ids=["plain", "sweep", "array"])
def test_python_may_be_a_containers(
    slurm: Pretended, folder: RunDir, tree: Path, job: Job
) -> None:
    profile = dataclasses.replace(PROFILE, python="apptainer exec --nv x.sif python")
    launch.submit([job], profile, folder)
    wanted = shlex.split("apptainer exec --nv x.sif python -u -m submitit.core._submit")
    for text in (launch.script(job, profile, folder.path), submitted(folder)[job.stage]):
        line = srun(text)
        assert line[line.index("apptainer") :][: len(wanted)] == wanted


def test_without_one_it_is_the_python_that_submits(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    launch.submit(CHAIN[:1], PROFILE, folder)
    assert sys.executable in srun(submitted(folder)["prepare"])


def test_logs_lie_in_the_private_folder() -> None:
    assert options(script())["output"].startswith("/shared/runs/r/private/jobs/")


@pytest.mark.parametrize(
    "path", sorted(cluster.SHIPPED.glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_profiles_make_batch_scripts(path: Path) -> None:
    profile = cluster.load_profile(str(path))
    for job in CHAIN:
        processes = profile.gpus_per_node or profile.processes_per_node
        assert options(
            launch.script(
                dataclasses.replace(job, processes=processes), profile, Path("/shared/runs/r")
            )
        )


# -- submission ------------------------------------------------------------------------------------------------------


def test_a_chain_is_submitted_held_and_released_once_at_the_end(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    assert launch.submit(CHAIN, PROFILE, folder) == ["101", "102", "103", "104", "105"]
    calls = [line for line in slurm.calls() if "--test-only" not in line and " show " not in line]
    assert [line.split()[0] for line in calls] == ["sbatch"] * 5 + ["scontrol"]
    assert calls[-1] == "scontrol release 101,102,103,104,105"
    assert not slurm.calls("scancel")
    assert all("hold" in options(text) for text in submitted(folder).values())
    assert len(submitted(folder)) == 5


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


def test_a_single_element_waits_for_a_plain_job(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    one = [dataclasses.replace(job, commands=job.commands[:1]) for job in CHAIN[2:4]]
    launch.submit(one, PROFILE, folder)
    found = options(submitted(folder)["evaluate"])
    assert found["dependency"] == "afterok:101"
    assert "array" not in found


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


def test_jobs_are_pickled_as_a_name_and_strings(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    launch.submit(CHAIN, PROFILE, folder)
    paths = sorted((folder.path / "private" / "jobs").glob("*_submitted.pkl"))
    assert [path.name.removesuffix("_submitted.pkl") for path in paths] == sorted(
        ["101", "102", "105", *(f"{job}_{place}" for job in (103, 104) for place in range(3))]
    )
    for path in paths:
        strings = {
            arg for _, arg, _ in pickletools.genops(path.read_bytes()) if isinstance(arg, str)
        }
        ours = {text for text in strings if "facefactory" in text and not text.startswith("/")}
        assert ours == {"facefactory.cluster.entry"}
        assert not any("cloudpickle" in text for text in strings)
    job = pickle.loads(paths[0].read_bytes())
    assert job.function is entry.run
    assert job.args == (
        CHAIN[0].commands[0],
        str(folder.path),
        "scontrol",
        None,
    )


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
        assert secret.encode() not in path.read_bytes()
        assert str(folder.token).encode() not in path.read_bytes()
    assert secret not in (slurm.folder / "tested").read_text()


def test_all_is_cancelled_when_one_job_is_refused(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    text = captured("sbatch", "account, submitted")
    slurm.command(
        "sbatch",
        BATCH.format(refuse=f"if [ $last = 102 ]; then\n{refusal(text)}\nfi", refuse_test=""),
    )
    with pytest.raises(
        UserError, match=r"Slurm refused the job: .*Invalid account.*account.* in your profile"
    ) as error:
        launch.submit(CHAIN, PROFILE, folder)
    assert "\n" not in str(error.value)
    assert slurm.calls("scancel") == ["scancel 101 102"]
    assert not slurm.calls("scontrol release")
    assert not status.read(folder)["healthy"]  # and jobs/status.py says why
    states = [line["state"] for line in rundir.read_jsonl(folder.path / "jobs.jsonl")]
    assert states == ["submitted", "submitted", "withdrawn", "refused"]
    assert [row["state"] for row in status.read(folder)["jobs"]] == [
        "REFUSED"
    ]  # what was cancelled unseen is not shown


def test_a_chain_that_lost_its_folder_leaves_the_other_ones_jobs_on_show(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    launch.submit(CHAIN[:2], PROFILE, folder)
    late = RunDir(folder.path)
    late.token = "of a command that stood still meanwhile"
    with pytest.raises(rundir.OwnerLost):
        launch.submit(CHAIN[:2], PROFILE, late)
    assert slurm.calls("scancel") == ["scancel 103 104"]
    assert slurm.calls("scontrol release") == ["scontrol release 101,102"]
    assert status.submitted(folder) == {"prepare": ["101"], "sweep": ["102"]}


def test_jobs_that_could_not_be_cancelled_stay_on_show(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    away = refusal("slurm_suspend error: Unable to contact slurm controller (connect failure)\n")
    slurm.command("scontrol", f'case "$*" in release*) {away}\nesac')
    slurm.command("scancel", "exit 1")
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        launch.submit(CHAIN[:2], PROFILE, folder)
    assert status.submitted(folder) == {
        "prepare": ["101"],
        "sweep": ["102"],
    }  # held, and nothing is submitted beside them


def test_a_submission_that_is_broken_off_leaves_nothing_in_the_queue(
    slurm: Pretended, folder: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = 'if [ "$1" = --test-only ]; then exit 0; fi; for script; do :; done; echo "$script" >path; kill -INT $PPID; sleep 0.1'
    slurm.command("sbatch", said)
    (slurm.folder / "bin" / "sleep").symlink_to("/bin/sleep")
    slurm.command(
        "squeue", 'case "$*" in *%o*) read path <path; echo "120001|JobHeldUser|$path";; esac'
    )
    with pytest.raises(KeyboardInterrupt):
        launch.submit(CHAIN[:1], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 120001"]


TEST_ONLY = 'if [ "$1" = --test-only ]; then exit 0; fi; for script; do :; done'


@pytest.mark.parametrize("squeue", ["cat queue", "exit 1"])
def test_a_job_that_is_queued_while_its_submission_is_broken_off_is_cancelled_too(
    slurm: Pretended,
    folder: RunDir,
    tree: Path,
    squeue: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (slurm.folder / "bin" / "sleep").symlink_to("/bin/sleep")
    (slurm.folder / "queue").write_text("")
    queued = 'echo "120001|JobHeldUser|$script" >queue; echo Submitted batch job 120001'
    slurm.command("sbatch", f"{TEST_ONLY}; kill -INT $PPID; sleep 0.6; {queued}")
    slurm.command("squeue", squeue)
    with pytest.raises(KeyboardInterrupt):
        launch.submit(CHAIN[:1], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 120001"]
    assert "what was queued was cancelled: 120001" in capsys.readouterr().err


def test_an_sbatch_that_never_answers_is_ended_and_where_to_look_is_said(
    slurm: Pretended,
    folder: RunDir,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (slurm.folder / "bin" / "sleep").symlink_to("/bin/sleep")
    monkeypatch.setattr(launch, "ANSWER_S", 0.1)
    slurm.command("sbatch", f"{TEST_ONLY}; kill -INT $PPID; exec sleep 60")
    slurm.command("squeue")
    with pytest.raises(KeyboardInterrupt):
        launch.submit(CHAIN[:1], PROFILE, folder)
    assert "look with squeue --me for a held job ff-r-prepare" in capsys.readouterr().err


def test_what_a_killed_submission_left_in_the_queue_is_cancelled_by_the_next_start(
    slurm: Pretended, folder: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = folder.path / "private" / "jobs"
    jobs.mkdir(parents=True)
    left = jobs / f"{'ab' * 8}_submission.sh"
    left.touch()
    queue = f"120001|JobHeldUser|{left}\n7|JobHeldUser|/else/where.sh\n8|Priority|{left}\n"
    slurm.prints("squeue", queue)
    launch.clear(folder)
    assert slurm.calls("scancel") == ["scancel 120001"]
    assert "cancelled 120001, which a submission that was killed had queued" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("reason", ["JobHeldUser", "Priority"])
def test_a_part_of_a_chain_that_was_never_released_is_cancelled_whole(
    slurm: Pretended, folder: RunDir, reason: str
) -> None:
    folder.record("prepare", "submitted", job="101", elements=1)
    folder.record("train", "submitted", job="102", elements=1)
    rundir.write_json(folder.path / launch.UNRELEASED, ["101", "102", "103"])
    slurm.prints("squeue", f"101|{reason}|a.sh\n102|Dependency|b.sh\n7|JobHeldUser|c.sh\n")
    launch.clear(folder)
    if reason == "Priority":  # it was killed after it had released them
        assert not slurm.calls("scancel")
        assert status.submitted(folder) == {"prepare": ["101"], "train": ["102"]}
    else:
        assert [sorted(call.split()[1:]) for call in slurm.calls("scancel")] == [
            ["101", "102", "103"]
        ]
        assert status.submitted(folder) == {}


def test_a_chain_that_was_released_is_not_withdrawn_when_somebody_holds_it(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    ids = launch.submit(CHAIN, PROFILE, folder)
    slurm.prints("squeue", "".join(f"{job}|JobHeldUser|a.sh\n" for job in ids))
    launch.clear(folder)
    assert not slurm.calls("scancel")


WRAPPED = [  # what sites' wrappers of sbatch print around the id
    "@",
    "@;north",
    "Submitted batch job @ on cluster north",
    "Your account has 4711 hours left.\nSubmitted batch job @",
    "sbatch: job 1 of 1 checked\nSubmitted batch job @\n",
    "[lint] 0 errors, 3 warnings\n[site] job @ was queued",
]


@pytest.mark.parametrize("answer", WRAPPED)
def test_the_id_is_found_whatever_a_wrapper_prints_around_it(
    slurm: Pretended, folder: RunDir, tree: Path, answer: str
) -> None:
    (slurm.folder / "said").write_text(answer.replace("@", "120001") + "\n")
    said = 'if [ "$1" = --test-only ]; then exit 0; fi; for script; do :; done; echo "$script" >path; cat said'
    slurm.command("sbatch", said)
    queue = 'read path <path; echo "3|JobHeldUser|/else/where.sh"; echo "120001|JobHeldUser|$path"'
    slurm.command("squeue", f'case "$*" in *%o*) {queue};; esac')
    assert launch.submit(CHAIN[:1], PROFILE, folder) == ["120001"]
    assert slurm.calls("scontrol release") == ["scontrol release 120001"]


def test_a_job_whose_id_nobody_can_tell_is_cancelled_and_that_is_said(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    said = 'if [ "$1" = --test-only ]; then exit 0; fi; for script; do :; done; echo "$script" >path; echo "job 7 of 9: thank you"'
    slurm.command("sbatch", said)
    queue = 'read path <path; echo "7|JobHeldUser|/else/where.sh"; echo "120001|JobHeldUser|$path"'
    slurm.command("squeue", f'case "$*" in *%o*) {queue};; esac')
    with pytest.raises(
        UserError, match=r"sbatch answered 'job 7 of 9: thank you'.*job 120001 was cancelled"
    ):
        launch.submit(CHAIN[:1], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 120001"]
    assert not slurm.calls("scontrol release")


def test_a_job_whose_answer_was_lost_does_not_stay_in_the_queue(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    lost = refusal(
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    )
    said = f'if [ "$1" = --test-only ]; then exit 0; fi; for script; do :; done; echo "$script" >path\n{lost}'
    slurm.command("sbatch", said)
    slurm.command(
        "squeue", 'case "$*" in *%o*) read path <path; echo "120001|JobHeldUser|$path";; esac'
    )
    with pytest.raises(UserError, match="Socket timed out"):
        launch.submit(CHAIN[:1], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 120001"]


def test_variables_of_the_shell_do_not_overrule_the_batch_script(
    slurm: Pretended, folder: RunDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "JOB_NAME",
        "OUTPUT",
        "TIMELIMIT",
        "MEM_PER_CPU",
        "WAIT",
        "EXPORT",
        "PARTITION",
        "ACCOUNT",
    ):
        monkeypatch.setenv(f"SBATCH_{name}", "1")
    slurm.command("sbatch", 'env >seen; echo "Submitted batch job 5"')
    launch.submit(CHAIN[:1], PROFILE, folder)
    left = {
        line.partition("=")[0]
        for line in (slurm.folder / "seen").read_text().splitlines()
        if line.startswith("SBATCH_")
    }
    assert left == {"SBATCH_ACCOUNT"}  # of which the profile says nothing


@pytest.mark.parametrize("name", ["20%noise", "a\\b", "two\nlines", "100%"])
def test_a_folder_whose_logs_slurm_would_write_elsewhere_is_refused(
    slurm: Pretended, tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        UserError, match=r"Slurm replaces in the names of logs; give another run="
    ) as error:
        launch.script(TRAIN, PROFILE, tmp_path / name)
    assert "\n" not in str(error.value)
    assert slurm.calls() == []


@pytest.mark.parametrize("name", ["a|b", "it's", 'say "x"', "$HOME", "`id`", "a b;c", "#x"])
def test_other_names_are_quoted_and_the_job_is_called_something_plain(
    tmp_path: Path, slurm: Pretended, name: str
) -> None:
    folder = tmp_path / name
    text = launch.script(TRAIN, PROFILE, folder)
    assert re.fullmatch(r"ff-[\w.]+-train", options(text)["job-name"])
    assert options(text)["output"] == f"{folder}/private/jobs/%j_0_log.out"
    slurm.command("srun", 'printf "%s\\n" "$@" >seen; exit 5')
    (tmp_path / "job.sh").write_text(text)
    assert os.spawnv(os.P_WAIT, "/bin/bash", ["bash", str(tmp_path / "job.sh")]) == 5
    seen = (slurm.folder / "seen").read_text().splitlines()
    assert f"{folder}/private/jobs" in seen
    assert f"{folder}/private/jobs/%j_%t_log.out" in seen


def test_all_is_cancelled_when_the_release_fails(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    slurm.command("scontrol", refusal("slurm_suspend error: Access/permission denied\n"))
    with pytest.raises(UserError, match=r"Access/permission denied"):
        launch.submit(CHAIN[:2], PROFILE, folder)
    assert slurm.calls("scancel") == ["scancel 101 102"]


def test_what_slurm_would_refuse_is_refused_before_anything_is_queued(
    slurm: Pretended, folder: RunDir, tree: Path
) -> None:
    text = captured(
        "sbatch", "memory, tested"
    )  # of a held job Slurm notices this when it is released
    slurm.command(
        "sbatch",
        BATCH.format(
            refuse="", refuse_test=f"if [ -e second ]; then\n{refusal(text)}\nfi; echo >second"
        ),
    )
    with pytest.raises(UserError, match=r"node configuration is not available.*memory_gb"):
        launch.submit(CHAIN, PROFILE, folder)
    assert all("--test-only" in line for line in slurm.calls("sbatch"))
    assert len(slurm.calls("sbatch")) == 2
    assert "--hold" not in (slurm.folder / "tested").read_text()
    (line,) = rundir.read_jsonl(folder.path / "jobs.jsonl")
    assert not (folder.path / "code").exists()
    assert line["state"] == "refused"
    assert "memory_gb" in line["error"]


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
    [
        (wrong, when)
        for when in ("tested", "submitted")
        for wrong in REFUSALS
        if when == "tested" or wrong not in ONLY_TESTED
    ],
)
def test_a_refusal_is_one_line_that_names_the_key_to_set(wrong: str, when: str) -> None:
    said = launch.explain(captured("sbatch", f"{wrong}, {when}"))
    assert "\n" not in said
    assert said.endswith("nothing was queued.")
    hint = re.search(r"Set (.*) in your profile", said)
    assert hint is not None
    assert REFUSALS[wrong] in re.split(r", | or | / ", hint[1])


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


def test_a_copy_is_its_owners_whatever_the_checkout_is(folder: RunDir, tree: Path) -> None:
    (tree / "facefactory" / "a.py").chmod(0o666)
    (tree / "facefactory").chmod(0o777)
    (tree / "shards" / "orl.yaml").chmod(0o444)
    (tree / "shards").chmod(0o555)
    for _ in range(2):  # the second replaces the first
        launch.copy_code(folder.path / "code")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.path / "code").rglob("*")}
    assert (modes["facefactory"], modes["a.py"], modes["shards"], modes["orl.yaml"]) == (
        0o755,
        0o644,
        0o755,
        0o644,
    )
    (tree / "shards").chmod(0o755)


@pytest.mark.parametrize("place", ["", "code", "code/facefactory/a.py", "private"])
def test_a_job_ends_before_it_runs_code_that_everyone_may_write(
    folder: RunDir, tree: Path, place: str
) -> None:
    launch.copy_code(folder.path / "code")
    (folder.path / "code" / "link").symlink_to("facefactory")  # links have all modes
    line = launch._guarded(folder.path)
    assert line in launch.script(CHAIN[0], Profile(), folder.path)
    assert (
        subprocess.run(["bash", "-c", f"{line}; echo ran"], capture_output=True, text=True).stdout
        == "ran\n"
    )
    (folder.path / place).chmod((folder.path / place).stat().st_mode | 0o002)
    ended = subprocess.run(
        ["bash", "-c", f"{line}; echo ran"],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"is writable by everyone; run: chmod -R o-w {folder.path}" in ended.stderr


def test_a_second_copy_replaces_the_first(folder: RunDir, tree: Path) -> None:
    launch.copy_code(folder.path / "code")
    (tree / "facefactory" / "a.py").unlink()
    (tree / "facefactory" / "b.py").write_text("2")
    launch.copy_code(folder.path / "code")
    assert [path.name for path in (folder.path / "code" / "facefactory").glob("*.py")] == ["b.py"]
    assert not list(folder.path.glob(".code-*"))
