"""Jobs as people run them: mistakes are one line, stale results are made again, finished ones are not."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BATCH, Faces, Pretended
from PIL import Image

from facefactory import UserError, command, config, process, rundir, runner, starting
from facefactory.cluster import status
from facefactory.data.packing import recipes
from facefactory.run import Run, resolve, space_of
from facefactory.stages import _networks, of
from facefactory.training.costs import seconds_per_kimg

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
CHAINS = {
    "pack_shards": ("pack",),
    "train_gan": ("pack", "train"),
    "train_vae": ("pack", "train"),
    "train_classifier": ("pack", "train"),
    "evaluate": ("pack", "judge", "evaluate"),
    "interpret": ("pack", "judge", "interpret"),
    "report": ("report",),
    "generate": ("generate",),
    "sweep_gan": ("pack", "judge", "sweep", "finalists", "report"),
}
PRESETS = {
    "pack_shards": "orl32",
    "sweep_gan": "sweep-dcgan-orl32",
    "train_gan": "dcgan-orl32",
    "train_vae": "conv-orl32",
    "train_classifier": "convnet-orl32",
}


def run(job: str, *arguments: str) -> int:
    """A job in this process; its exit code."""
    here = ["cluster=local", *arguments]
    return process.guarded(lambda: command.start(job, CHAINS[job], PRESETS.get(job), here))


def base(faces: Faces) -> list[str]:
    """A training of less than a second, whose dimensions are looked at in one space."""
    usual = ["config=tiny", f"pack.recipe={faces.recipe}", "interpret.spaces=[z]"]
    return [*usual, "run=r", "training.total_kimg=0.12"]


def stages_run(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The stages whose work was done since the last look."""
    return {
        line.split(":")[0] for line in capsys.readouterr().err.splitlines() if ": done in" in line
    }


# -- help and plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", JOBS)
def test_help_of_every_job_names_keys_and_needs_no_torch(job: str) -> None:
    code = "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path({!r}, run_name='__main__')\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'ray' not in sys.modules"
    shown = subprocess.run(
        [sys.executable, "-c", code.format(str(ROOT / "jobs" / f"{job}.py"))],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    named = {
        "status": "watch=False",
        "check": "wait_min=10.0",
        "weights": "profile=None",
    }.get(job, "training.total_kimg=60.0")
    assert named in shown.stdout
    assert "usage: python" in shown.stdout


TIMED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""


def processor_s(*arguments: str) -> float:
    """What a Python takes of a processor: on a busy machine little more than on an idle one."""
    line = [sys.executable, "-c", TIMED, sys.executable, *arguments]
    return float(subprocess.check_output(line))


def least_ratio(arguments: tuple[str, ...], bare: str) -> float:
    """How many times as long a process takes as bare imports, by turns; the least of each counts."""
    ours = list[float]()
    theirs = list[float]()
    for _ in range(3):
        ours.append(processor_s(*arguments))
        theirs.append(processor_s("-c", bare))
    return min(ours) / min(theirs)


TYPICAL = ("train_gan", "sweep_gan", "status")


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=[] if job in TYPICAL else [pytest.mark.slow]) for job in JOBS]
)
def test_help_of_every_job_costs_little_more_than_the_imports_of_its_libraries(job: str) -> None:
    """Measured: 0.16 to 0.19 s beside 0.07 s, 2.3 to 2.7 times. (The others: make torture.)"""
    script = str(ROOT / "jobs" / f"{job}.py")
    assert least_ratio((script, "--help"), "import yaml, pydantic") < 4


FIRST_IMAGE = """
import os, sys
from facefactory import process
from facefactory.data import sources

def first_image(*arguments):
    assert not {"torch", "ray", "rich", "submitit"} & sys.modules.keys()
    os._exit(0)

sources.load = first_image
process.main(["part", sys.argv[1], "pack", "0/1"])
sys.exit("no image was opened")
"""


def test_a_packing_element_costs_little_more_than_its_libraries_before_its_first_image(
    faces: Faces, tmp_path: Path
) -> None:
    """Measured: 0.57 s beside 0.53 s of pandas and the others."""
    assert run("pack_shards", f"pack.recipe={faces.recipe}", "run=r", "pack.workers=1") == 0
    (packed,) = tmp_path.glob("**/packed/*/")
    shutil.rmtree(packed)
    element = ("-c", FIRST_IMAGE, str(tmp_path / "runs" / "r"))
    assert least_ratio(element, "import omegaconf, pandas, PIL.Image, pydantic, yaml") < 1.5


def test_help_of_a_model_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    run("train_gan", "--help", "model.name=gan/dcgan")
    assert "model.width=16" in capsys.readouterr().out


def section(preset: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = config.read_yaml(ROOT / "jobs" / "presets" / f"{preset}.yaml")
    return found.get(name, {})


# a sweep builds a network for every point that it tries, so presets of single trainings are planned for it in `make torture`
PLANNED = [
    pytest.param(
        job,
        preset,
        marks=[pytest.mark.slow]
        if job.startswith("sweep") and not preset.startswith(("sweep", "tiny", "pictures"))
        else [],
    )
    for job in JOBS
    if job.startswith(("train", "sweep", "pack"))
    for preset in sorted(path.stem for path in (ROOT / "jobs" / "presets").glob("*.yaml"))
]


@pytest.mark.parametrize(("job", "preset"), PLANNED)
def test_dry_run_of_every_job_and_preset_plans_and_starts_nothing(
    job: str,
    preset: str,
    faces: Faces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seconds_per_kimg, "MOST_S", 0.0)
    found: dict[str, tuple[str, tuple[str, ...], str]] = {}
    monkeypatch.setattr(
        command, "main", lambda name, stages, preset: found.update({"job": (name, stages, preset)})
    )
    import runpy

    runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="__main__")
    name, names, default = found["job"]
    wanted = section(preset, "model")
    usual = section(default, "model").get("name", "")
    trains = wanted.get("name", usual)
    if usual and trains.split("/")[0] != usual.split("/")[0]:
        pytest.skip(f"{preset} trains {trains}, the job {usual}")
    arguments = [f"config={preset}", "dry_run=true", "cluster=local"]
    arguments.append(f"pack.recipe={faces.recipe}")
    # labels that this set has not
    if "conditions" in wanted:
        arguments.append("model.conditions=[Glasses]")
    if "where" in section(preset, "pack"):
        arguments.append("pack.where=Glasses == 1")
    try:
        command.start(name, names, default, arguments)
    except UserError as error:  # a preset of another model than the space searches, say
        assert job.startswith("sweep")
        assert not preset.startswith("sweep")
        assert re.match(r"sweep\.space=\w+ does not fit: .* has no option", str(error))
        return
    shown = capsys.readouterr().out
    asked = [stage for stage in map(of, names) if not stage.optional and stage.wanted(Run())]
    assert all(f"  {stage.name}: to run" in shown for stage in asked)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "shards").exists()


# -- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    "trainin.lr=1": "Did you mean",
    "training.lrr=1": "Did you mean 'training.lr'",
    "training.lr=fast": "training.lr",
    "training.precision=float8": "bfloat16",
    "training.batch_size=0": "at least 1",
    "training.batch_size=7 training.ranks=2": "multiple of 2",
    "model.name=gan/dcgann": "Did you mean 'gan/dcgan'",
    "model.widht=8": "Did you mean 'width'",
    "model.width=wide": "a whole number",
    "model.depth=9": "depth=9",
    "objective.critic=hing": "hinge",
    "training.augment=[flip]": "allowed are anisotropic, brightness",
    "pack.root=nowhere": "not a folder",
    "pack.resolution=64x": "HEIGHTxWIDTH as in 218x178",
    "pack.labels=nowhere.csv": "no label table",
    "pack.recipe=orrl": "Did you mean 'orl'",
    "config=dcgan-orl": "Did you mean 'dcgan-orl32'",
    "data.shards=nowhere": "no index.json",
    "data.balance=Hats": "no label",
    "total_kimg": "key=value",
    "training.device=cuda": "sees no GPU",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    mistake: str, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in mistake:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    recipe = [] if "pack.recipe" in mistake else [f"pack.recipe={faces.recipe}"]
    config = [] if "config=" in mistake else ["config=tiny"]
    assert run("train_gan", *config, *recipe, *mistake.split()) == 2
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if not line.startswith(("run folder", "pack:"))
    ]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert MISTAKES[mistake] in lines[0]
    assert not list(Path("runs").glob("*/train/checkpoints/*"))


def test_a_mistake_shows_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "train_gan.py"), "model.nam=x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_jobs_on_runs_name_the_runs_that_exist(
    faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate") == 2
    assert "run=NAME" in capsys.readouterr().err
    run("train_gan", *base(faces))
    capsys.readouterr()
    assert run("evaluate", "run=s") == 2
    assert "there are r" in capsys.readouterr().err
    assert run("evaluate", "run=r", "training.lr=1") == 2
    assert "cannot change any more" in capsys.readouterr().err


NAMES = {
    "": "begins with none of",
    ".": "begins with none of",
    "..": "begins with none of",
    "-r": "begins with none of",
    " r": "begins with none of",
    "a/b": "paths.runs=… names another folder",
    "a\nb": "'\\n'",
    "20%": "has '%'",
    "a|b": "has '|'",
    "it's": "letters, digits",
    "${": "names a variable that is not set",
    "a:b": "has ':'",
    "caf\udce9": "UTF-8",
    "é" * 101: "202 bytes; give a name of at most 200",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_folder_or_job_can_have_is_refused(
    name: str, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train_gan", *base(faces), f"run={name}") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert NAMES[name] in said
    assert list(Path().iterdir()) == []


def test_other_names_are_folders(faces: Faces) -> None:
    for name in ("été 2026", "lr=1e-3,b=[2]", "x" * 200):
        assert run("train_gan", *base(faces), f"run={name}", "training.total_kimg=0.012") == 0
        assert Path("runs", name, "train", "DONE.json").exists()


@pytest.mark.parametrize("key", ["paths.runs", "paths.data"])
def test_a_place_that_can_hold_nothing_is_said_first(
    key: str, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    Path("link").symlink_to("gone")
    for place, words in {
        "file": "is a file",
        "file/below": "is a file",
        "link": "is a link to gone",
    }.items():
        assert run("train_gan", *base(faces), f"{key}={place}") == 2
        assert re.search(rf"^error: {key}=.*{words}", capsys.readouterr().err, re.M)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "link"]


# -- stale and fresh -------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(
    faces: Faces,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    few_spoilt: None,
) -> Faces:
    """A copy of the faces, and a GAN of them that is trained, scored, interpreted and reported; the current folder."""
    home = tmp_path_factory.getbasetemp() / "trained"  # always here: a set is known by its path
    kept = home.with_name("kept")
    own = Faces(home / "own" / "faces", home / "own" / "labels.csv", home / "own" / "recipe.yaml")
    shutil.rmtree(home, ignore_errors=True)
    if kept.exists():
        shutil.copytree(kept, home)
        monkeypatch.chdir(home)
        return own

    shutil.copytree(faces.root.parent, home / "own")
    shutil.copyfile(faces.recipe, own.recipe)
    own.recipe.write_text(own.recipe.read_text().replace(str(faces.root), str(own.root)))
    monkeypatch.chdir(home)
    assert everything(own) == [0, 0, 0, 0], capsys.readouterr().err
    assert stages_run(capsys) == {"pack", "train", "judge", "evaluate", "interpret", "report"}
    shutil.copytree(home, kept)
    return own


def everything(faces: Faces, *more: str) -> list[int]:
    """Train, score, interpret, report: the exit codes."""
    codes = [run("train_gan", *base(faces), *more)]
    return codes + [run(job, "run=r") for job in ("evaluate", "interpret", "report")]


def test_run_again_nothing_is_done_again(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    assert everything(trained) == [0, 0, 0, 0]
    assert stages_run(capsys) == set()


def test_dry_run_of_jobs_on_a_run_plans_and_starts_nothing(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in ("evaluate", "interpret", "report", "generate"):
        assert run(job, "run=r", "dry_run=true") == 0
        assert "  generate: to run" in capsys.readouterr().out or job != "generate"
    assert not Path("runs/r/generate").exists()


def test_a_changed_config_is_refused_with_the_difference(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train_gan", *base(trained), "training.lr=0.001") == 2
    assert "training.lr was 0.0008, now 0.001" in capsys.readouterr().err


def test_an_accepted_change_runs_exactly_what_depends_on_it_and_keeps_the_old(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    everything(trained, "interpret.samples=100", "changed=accept")
    assert stages_run(capsys) == {"interpret", "report"}
    everything(trained, "interpret.samples=100", "evaluation.fakes=100", "changed=accept")
    assert stages_run(capsys) == {"evaluate", "report"}
    everything(
        trained,
        "interpret.samples=100",
        "evaluation.fakes=100",
        "training.lr=0.001",
        "changed=accept",
    )
    assert stages_run(capsys) == {"train", "evaluate", "interpret", "report"}
    assert Path("runs/r/train.old-1/DONE.json").exists()


def test_a_longer_budget_goes_on_from_the_last_checkpoint(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train_gan", *base(trained)[:-1], "training.total_kimg=0.24", "changed=accept")
    assert "train: 0.12 of 0.24 kimg" in capsys.readouterr().err
    assert not Path("runs/r/train.old-1").exists()


def test_a_changed_label_spares_what_depends_on_pixels_only(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(trained.labels, newline="") as stream:
        rows = list(csv.reader(stream))
    rows[1][3] = str(1 - int(rows[1][3]))
    with open(trained.labels, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    everything(trained)
    assert stages_run(capsys) == {"pack", "judge", "evaluate", "interpret", "report"}


def test_a_changed_image_runs_everything_again(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.root / "p00" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    everything(trained)
    assert stages_run(capsys) == {"pack", "train", "judge", "evaluate", "interpret", "report"}


def test_an_interrupted_training_refuses_changed_images_until_told(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs/r/train/DONE.json").unlink()
    path = trained.root / "p00" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert run("train_gan", *base(trained)) == 2
    assert "data.changed=accept" in capsys.readouterr().err
    assert (
        run(
            "train_gan",
            *base(trained)[:-1],
            "training.total_kimg=0.24",
            "changed=accept",
            "data.changed=accept",
        )
        == 0
    )


def test_a_damaged_shard_is_named_and_packed_anew(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = Path("shards").glob("packed/*/train-000000.tar")
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    everything(trained)
    shown = capsys.readouterr().err
    assert "train-000000.tar" in shown
    assert "pack: done" in shown
    assert "train: complete" in shown


def test_a_damaged_shard_of_others_stops_the_training_before_it_starts(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = Path("shards").glob("packed/*/train-000000.tar")
    shard.write_bytes(shard.read_bytes()[:-512])
    assert run("train_gan", "config=tiny", f"data.shards={shard.parent}", "run=q") == 2
    assert "train-000000.tar" in capsys.readouterr().err
    assert not Path("runs/q").exists()


# -- runs ------------------------------------------------------------------------------------------------------------


def test_generated_images_become_files_or_shards_and_repeat(trained: Faces) -> None:
    assert run("generate", "run=r", "generate.images=10", "generate.out=a") == 0
    assert run("generate", "run=r", "generate.images=300", "generate.out=b") == 0
    assert sorted(path.name for path in Path("a").iterdir()) == [
        *(f"{i:08d}.png" for i in range(10)),
        "generate.json",
    ]
    assert (
        run("generate", "run=r", "generate.images=10", "generate.out=b") == 2
    )  # 290 others would stay
    assert len(list(Path("b").glob("*.png"))) == 300
    assert all(
        (Path("a") / f"{i:08d}.png").read_bytes() == (Path("b") / f"{i:08d}.png").read_bytes()
        for i in range(10)
    )
    assert (
        run("generate", "run=r", "generate.images=10", "generate.out=c", "generate.format=shards")
        == 0
    )
    with tarfile.open("c/train-000000.tar") as tar:
        member = tar.extractfile("00000000.npy")
        assert member is not None
        first = np.load(io.BytesIO(member.read()))
    assert (first[..., 0] == np.asarray(Image.open("a/00000000.png"))).all()


def test_packing_alone_asks_for_nothing_that_a_training_needs(
    faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [
        "cluster=local",
        "config=tiny",
        f"pack.recipe={faces.recipe}",
        "pack.limit=1",
    ]  # none of the test split
    assert process.guarded(lambda: command.start("pack_shards", ("pack",), "orl32", chosen)) == 0

    # a number of YAML is the class of that name; what is no class's name is refused
    balanced = (*base(faces), "data.balance=Glasses")
    assert run("train_gan", *balanced, "data.weights={yes: 3.0}") == 2
    assert "True" in capsys.readouterr().err
    assert run("train_gan", *balanced, "data.weights={1: 3.0}", "dry_run=true") == 0
    assert "'1': 3.0" in capsys.readouterr().out


def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by one whenever a set is planned."""
    calls = []
    plan = recipes.plan

    def counted(options: Any, *more: Any) -> Any:
        calls.append(options.recipe)
        return plan(options, *more)

    monkeypatch.setattr(recipes, "plan", counted)
    return calls


def test_a_command_plans_its_set_once(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = planned(monkeypatch)
    for _ in range(2):  # packed anew, and found packed
        assert run("train_gan", *base(faces)) == 0
        assert len(calls) == 1
        calls.clear()
    assert run("train_gan", *base(faces), "training.total_kimg=0.2", "changed=accept") == 0
    assert len(calls) == 1
    calls.clear()
    for names in (["train"], ["pack", "train"]):  # of a Slurm job
        assert process.main(["stages", "runs/r", *names]) == 0
    assert len(calls) == 1


def test_a_set_that_is_packed_is_only_read(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train_gan", *base(faces)) == 0
    (packed,) = Path("shards/packed").glob("*/")
    before = {path: path.stat().st_mtime_ns for path in Path("shards").rglob("*")}
    access = os.access

    def refuse(path: Any, mode: int) -> bool:
        return not Path(path).absolute().is_relative_to(Path("shards").absolute()) and access(
            path, mode
        )

    def fail(*_: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "access", refuse)
    monkeypatch.setattr(rundir, "locked", fail)
    assert run("train_gan", *base(faces), "run=second") == 0
    assert (
        run(
            "train_gan",
            "config=tiny",
            f"data.shards={packed}",
            "run=third",
            "training.total_kimg=0.012",
        )
        == 0
    )
    assert {path: path.stat().st_mtime_ns for path in Path("shards").rglob("*")} == before
    capsys.readouterr()
    assert run("train_gan", *base(faces), "pack.resolution=8", "run=fourth") == 2
    assert re.search(
        r"^error: paths\.data=.*cannot be written by you", capsys.readouterr().err, re.M
    )


def test_a_judge_that_is_trained_is_only_read(
    trained: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(rundir, "locked", fail)
    shutil.rmtree("runs/r/judge")
    assert run("evaluate", "run=r") == 0


def test_a_run_that_is_complete_is_only_read(
    faces: Faces, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train_gan", *base(faces)) == run("report", "run=r") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    capsys.readouterr()
    assert run("train_gan", *base(faces)) == run("report", "run=r") == 0
    assert command._status(command.Status(run="r")) is None
    said = capsys.readouterr().err
    assert "train: complete" in said
    assert "report: complete" in said
    assert "FINISHED" in said
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "runs" not in str(path) and access(path, mode)
    )
    assert run("train_gan", *base(faces), "training.total_kimg=0.2", "changed=accept") == 2
    assert "cannot be written by you" in capsys.readouterr().err


def test_a_config_that_was_cut_is_not_filled_with_defaults(
    faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train_gan", *base(faces)) == 0
    path = Path("runs/r/config.yaml")
    path.write_text(path.read_text().partition("training:")[0])
    assert process.main(["stages", "runs/r", "train"]) == run("report", "run=r") == 2
    assert re.search(
        r"config\.yaml is empty or cut.*it has no training\..*command\.txt",
        capsys.readouterr().err,
    )
    assert run("train_gan", *base(faces), "training.total_kimg=0.2", "changed=accept") == 0
    assert run("report", "run=r") == 0


def test_a_run_made_under_umask_000_is_its_owners(faces: Faces, slurm: Pretended) -> None:
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    before = os.umask(0)
    try:
        assert run("train_gan", *base(faces)) == run("train_gan", *base(faces)) == 0
        os.umask(0)
        line = [*base(faces), "run=s", "cluster=slurm"]
        assert (
            process.guarded(
                lambda: command.start("train_gan", CHAINS["train_gan"], "dcgan-orl32", line)
            )
            == 0
        )
    finally:
        os.umask(before)
    made = [Path("runs"), Path("shards"), *Path("runs").rglob("*"), *Path("shards").rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o022] == []
    assert Path("runs/s/code/facefactory/chain.py").exists()
    assert process.main(["stages", "runs/r", "train"]) == 0
    Path("runs/r/code").mkdir()
    Path("runs/r/code").chmod(0o777)
    assert process.main(["stages", "runs/r", "train"]) == run("report", "run=r") == 2


def test_a_second_copy_says_that_the_first_is_running(
    faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train_gan", *base(faces))
    other = subprocess.Popen(["sleep", "60"])
    try:
        rundir.write_json(
            Path("runs/r/owner.json"),
            {
                "host": __import__("socket").gethostname(),
                "pid": other.pid,
                "started": rundir.started(other.pid),
                "token": "x",
            },
        )
        capsys.readouterr()
        assert run("train_gan", *base(faces)) == 0
        assert f"already running: pid {other.pid}" in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()


TOOLS = {tool: str(shutil.which(tool)) for tool in ("sed", "sleep")}
QUEUE = r"""
if [ "$1" = --test-only ]; then cat >>tested; exit 0; fi
read last <last; last=$((last + 1)); echo $last >last
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1"); sleep 0.3
echo "$last|PENDING|Dependency||0:00|10:00|$name" >>queue
echo Submitted batch job $last
"""
LOGIN = """
import runpy, socket, sys
_, host, *sys.argv = sys.argv
socket.gethostname = lambda: host
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_same_command_on_two_login_nodes_at_once_submits_one_chain(
    faces: Faces, slurm: Pretended
) -> None:
    for tool, path in TOOLS.items():
        (slurm.folder / "bin" / tool).symlink_to(path)
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    slurm.command("sbatch", QUEUE)
    slurm.command("squeue", "cat queue 2>/dev/null; true")

    # three times at once
    line = [str(ROOT / "jobs" / "train_gan.py"), *base(faces), "cluster=slurm"]
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", LOGIN, host, *line], stderr=subprocess.PIPE, text=True
        )
        for host in ("login1", "login2", "login1")
    ]
    said = [command.communicate(timeout=300)[1] for command in commands]

    # one of them submits, the others show it
    assert [command.returncode for command in commands] == [0, 0, 0], "\n".join(said)
    assert len(slurm.calls("sbatch /")) == 2
    assert len(slurm.calls("scontrol release")) == 1
    assert sorted(
        text.count("already running: Slurm jobs 101, 102; nothing was started.") for text in said
    ) == [0, 1, 1]
    assert all(
        "ff-r-" not in text and "prepare" in text and "PENDING" in text for text in said
    )  # each shows them
    assert len(rundir.read_jsonl(Path("runs/r/jobs.jsonl"))) == 2
    assert not Path("runs/r", starting.MARK).exists()


def test_where_slurm_does_not_answer_nothing_is_submitted_twice(
    faces: Faces, slurm: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    line = [*base(faces), "cluster=slurm"]
    assert (
        process.guarded(
            lambda: command.start("train_gan", CHAINS["train_gan"], "dcgan-orl32", line)
        )
        == 0
    )
    submitted = slurm.calls("sbatch /")
    assert len(submitted) == 2
    assert (
        process.guarded(
            lambda: command.start("train_gan", CHAINS["train_gan"], "dcgan-orl32", line)
        )
        == 2
    )
    assert "squeue does not answer" in capsys.readouterr().err
    assert slurm.calls("sbatch /") == submitted


def test_a_ledger_that_a_crash_emptied_lets_nothing_be_submitted_twice(
    faces: Faces, slurm: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    line = [*base(faces), "cluster=slurm"]

    def submit() -> tuple[int, int]:
        code = process.guarded(
            lambda: command.start("train_gan", CHAINS["train_gan"], "dcgan-orl32", line)
        )
        return code, len(slurm.calls("sbatch /"))

    assert submit() == (0, 2)
    Path("runs/r/jobs.jsonl").write_text("")
    slurm.prints("squeue", "7\n102\n")
    assert submit() == (0, 2)
    assert (
        "already running: Slurm jobs 102, of which jobs.jsonl has lost its lines"
        in capsys.readouterr().err
    )
    slurm.prints("squeue", "7\n")
    assert submit() == (0, 4)


def test_a_report_loads_no_torch(faces: Faces) -> None:
    assert run("train_gan", *base(faces)) == 0
    code = "import sys; from facefactory import process; print(process.main(['stages', 'runs/r', 'report']), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0 False\n"
    assert "report: done" in done.stderr


def test_a_connection_lost_while_jobs_are_submitted_leaves_none_in_the_queue(
    faces: Faces, slurm: Pretended
) -> None:
    (slurm.folder / "bin" / "sleep").symlink_to(TOOLS["sleep"])
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    slurm.command(
        "sbatch", f"{BATCH.format(refuse='', refuse_test='')}\n[ $last != 102 ] || sleep 2"
    )
    line = [str(ROOT / "jobs" / "train_gan.py"), *base(faces), "cluster=slurm"]
    job = subprocess.Popen(
        [sys.executable, *line],
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(slurm.calls("sbatch /")) < 2:
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGHUP)
    job.communicate(timeout=200)
    assert job.returncode == 130
    assert slurm.calls("scancel") == ["scancel 102", "scancel 101"]
    assert not slurm.calls("scontrol release")
    assert not Path("runs/r", starting.MARK).exists()


def test_a_terminal_that_closes_during_the_first_submission_leaves_no_job(
    faces: Faces, slurm: Pretended
) -> None:
    for tool in ("sed", "sleep"):
        (slurm.folder / "bin" / tool).symlink_to(TOOLS[tool])
    slurm.prints("scontrol", "Slurmctld(primary) at c1 is UP\n")
    queued = "; ".join(["sleep 1", 'echo "101|JobHeldUser|$1" >queue', "echo 101"])
    slurm.command("sbatch", f'if [ "$1" = --test-only ]; then exit 0; fi; {queued}')
    slurm.command("squeue", 'case "$*" in *%o*) cat queue;; esac')
    line = [str(ROOT / "jobs" / "train_gan.py"), *base(faces), "cluster=slurm"]
    job = subprocess.Popen(
        [sys.executable, *line], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not slurm.calls("sbatch /"):
        assert job.poll() is None
        time.sleep(0.05)
    assert job.stderr is not None
    job.stderr.close()  # the terminal
    for _ in range(3):  # the kernel tells the whole group, the shell its jobs
        os.killpg(job.pid, signal.SIGHUP)
        time.sleep(0.1)
    assert job.wait(timeout=200) == 130
    assert slurm.calls("scancel") == ["scancel 101"]
    assert not slurm.calls("scontrol release")
    assert status.submitted(rundir.RunDir(Path("runs/r"))) == {}


def test_two_jobs_at_once_the_older_stops_at_its_next_write(
    faces: Faces, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()

    def usurp() -> bool:
        rundir.RunDir(Path("runs/r")).claim()
        return False

    for module in (runner, _networks):
        monkeypatch.setattr(module, "stop", usurp)
    monkeypatch.setattr(usurp, "listen", lambda: None, raising=False)
    assert run("train_gan", *base(faces)) == 4
    assert "older copy stops" in capsys.readouterr().err
    assert time.monotonic() - started < 60
    assert not list(Path("runs/r/train").glob("checkpoints/*.pt"))


# -- what a stranger tried -------------------------------------------------------------------------------------------

MORE_MISTAKES = {
    "training.betas=[0.9]": "two numbers",
    "training.betas=[0.5,1]": "below 1",
    "judge.training.ranks=2": "one process",
    "evaluation.held_out=val": "no split of this set",
    "model.name=vae/conv": "trains no vae/conv",
}


@pytest.mark.parametrize("mistake", MORE_MISTAKES)
def test_what_would_break_later_is_said_before_anything_starts(
    mistake: str, faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    width = [] if "vae" in mistake else ["config=tiny"]
    job = "sweep_gan" if mistake.startswith("judge") else "train_gan"
    assert run(job, *width, f"pack.recipe={faces.recipe}", mistake) == 2
    assert MORE_MISTAKES[mistake] in capsys.readouterr().err


def test_a_job_on_a_run_takes_its_own_options_to_the_cluster(
    trained: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    line = ["run=r", "generate.images=7", "generate.out=faces", "dry_run=true", "cluster=slurm"]
    assert process.guarded(lambda: command.start("generate", CHAINS["generate"], None, line)) == 0
    shown = capsys.readouterr().out
    assert "generate.images=7" in shown
    assert f"{Path.cwd()}/faces" in shown
    assert (
        process.main(
            [
                "stages",
                "runs/r",
                "generate",
                "generate.images=7",
                f'generate.out="{Path.cwd()}/faces"',
            ]
        )
        == 0
    )
    assert len(list(Path("faces").glob("*.png"))) == 7


def test_an_edited_search_space_is_another_sweep(faces: Faces, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model.width: {choice: [8, 16]}\n")
    tree = resolve(config.load(Run, [f"sweep.space={space}"], []))
    folder = rundir.RunDir(tmp_path / "run")
    for stage, outputs in (("pack", {"images": "a"}), ("judge", {"judge": "b"})):
        rundir.write_sealed(folder.path / stage / "DONE.json", {"outputs": outputs})
    before = of("sweep").inputs(tree, folder)
    space.write_text("model.width: {choice: [8, 24]}\n")
    assert of("sweep").inputs(tree, folder) != before
    space.write_text("evaluation.fakes: {choice: [100, 1000]}\n")
    with pytest.raises(UserError, match=r"evaluation\.fakes is the same for all trials"):
        space_of(tree)


def test_an_edited_model_file_is_another_training(faces: Faces, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("from facefactory.models.gan.dcgan import Component\n")
    tree = resolve(config.load(Run, [f"model.name={own}"], []))
    before = of("train").config(tree)
    own.write_text("from facefactory.models.gan.dcgan import Component  # changed\n")
    assert of("train").config(tree) != before
