"""Two sets of pictures compared with no training run: what the words stand for, mistakes, and a whole comparison."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Faces, Pretended
from PIL import Image

from facefactory import UserError, command, process, rundir
from facefactory.data.sets import index as indices
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import scoring
from facefactory.stages import _pair

SINGLE = ("pack", "judge", "evaluate")
PAIR = ("pack", "pictures", "evaluate", "report")


def run(*arguments: str) -> int:
    """The job in this process; its exit code."""
    here = (
        [*arguments]
        if any("cluster=" in one for one in arguments)
        else ["cluster=local", *arguments]
    )
    return process.guarded(lambda: command.start("evaluate", SINGLE, None, here, PAIR))


def pictures(folder: Path, count: int, size: tuple[int, int] = (16, 16), mode: str = "L") -> Path:
    """Random ones."""
    rng = np.random.default_rng(count)
    folder.mkdir(parents=True)
    for number in range(count):
        shape = size[::-1] if mode == "L" else (*size[::-1], 3)
        values = rng.integers(
            0,
            256,
            shape,
            dtype=np.uint8,
        )
        Image.fromarray(values).save(folder / f"{number:03d}.png")
    return folder


# -- what the words stand for ----------------------------------------------------------------------


def keys(*arguments: str) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in _pair.spelled(list(arguments)))


def test_pictures_are_compared_at_the_smaller_size_and_a_line_says_what_is_done_to_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "small", 9)
    pictures(tmp_path / "large", 9, (40, 24))
    found = keys("data=small", "reference=large", "seed=3")
    assert (found["pack.resolution"], found["pack.color"], found["seed"]) == ("16", "gray", "3")
    assert found["compare.data"] == str(tmp_path / "small")
    assert found["pack.root"] == str(tmp_path / "large")
    told = capsys.readouterr().err
    assert "data: pictures of 16x16 pixels are compared as they are" in told
    assert "reference: pictures of 24x40 pixels are compared at 16x16, cropped" in told
    assert "shrunk by Lanczos's filter" in told
    chosen = keys("data=small", "reference=large", "pack.resolution=24")
    assert chosen["pack.resolution"] == "24"
    assert (
        "data: pictures of 16x16 pixels are compared at 24x24, enlarged" in capsys.readouterr().err
    )


def test_pictures_of_one_shape_keep_it(tmp_path: Path) -> None:
    pictures(tmp_path / "portraits", 9, (18, 24))
    assert keys("data=portraits", "reference=portraits")["pack.resolution"] == "24x18"


def test_a_packed_set_leads_and_its_test_split_is_held_out(index: Index, tmp_path: Path) -> None:
    pictures(tmp_path / "small", 9, (24, 24))
    found = keys("data=small", f"reference={index.folder}")
    assert found["data.shards"] == str(index.folder)
    assert "pack.root" not in found
    assert found["pack.resolution"] == "16"
    assert "evaluation.held_out" not in found
    other = keys(f"data={index.folder}", "reference=small")
    assert other["pack.resolution"] == "16"
    assert other["evaluation.held_out"] == ""


# -- mistakes --------------------------------------------------------------------------------------


def test_mistakes_are_one_line_before_anything_is_queued(
    tmp_path: Path, slurm: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "gray", 9)
    pictures(tmp_path / "colour", 9, mode="RGB")
    pictures(tmp_path / "few", 7)
    (tmp_path / "empty").mkdir()

    # what is typed, and what is said
    mistakes = {
        "data=gray": "reference=… is missing",
        "reference=gray": "data=… is missing",
        "data=gray reference=nowhere": "reference=",
        "data=nowhere reference=gray": "is not a folder, zip or tar",
        "data=empty reference=gray": "no image below",
        "data=gray reference=colour": "pack.color=gray or pack.color=rgb",
        "data=few reference=gray": "has 7 pictures; scores need 8",
        "data=gray reference=few": "reference has 7 pictures",
        "data=gray reference=gray evaluation.networks=[judge]": "no judge is trained",
        "data=gray reference=gray evaluation.networks=[lite0,judge]": "no judge is trained",
        "data=gray reference=gray evaluation.protocol=quickk": "Did you mean 'quick'",
    }
    for where in (["cluster=local"], ["cluster=slurm", "dry_run=true"]):
        for line, told in mistakes.items():
            assert run(*line.split(), *where) == 2, line
            error = [one for one in capsys.readouterr().err.splitlines() if "error:" in one]
            assert len(error) == 1 and told in error[0], (line, error)
    assert not (tmp_path / "runs").exists()
    assert not slurm.calls("sbatch")


def test_without_the_two_words_the_job_asks_for_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "give run=NAME" in capsys.readouterr().err


# -- a whole comparison ----------------------------------------------------------------------------


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch, few_spoilt: None) -> None:
    """Few spoilt faces and metrics: a test has not all day."""
    kept = {name: scoring.files()[name] for name in ("kernel_distance", "authenticity")}
    monkeypatch.setattr(scoring, "files", lambda: kept)


def test_a_zip_against_a_folder_ends_with_scores_and_a_page_and_is_not_done_again(
    index: Index, tmp_path: Path, fewer: None, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = Shards(index, "train").images().numpy()[..., 0]
    for name, faces in {"real": reference, "copies": reference[:20]}.items():
        (tmp_path / name).mkdir()
        for number, face in enumerate(faces):
            Image.fromarray(face).save(tmp_path / name / f"{number:02d}.png")
    shutil.make_archive(str(tmp_path / "copies"), "zip", tmp_path / "copies")

    told = ["data=copies.zip", "reference=real", "run=pair", "evaluation.protocol=quick"]
    assert run(*told) == 0
    found = rundir.read_json(tmp_path / "runs/pair/evaluate/results.json")
    (protocol,) = found["protocols"].values()
    assert (protocol["fakes"], protocol["reals"], protocol["split"]) == (20, 45, "train")
    scores = {one["name"]: one for one in found["scores"]}
    assert scores["authenticity_lite0"]["value"] == 0  # copies, all of them
    assert scores["kd_lite0"]["low"] < 0.1
    assert scores["kd_lite0"]["valid"]
    assert "new_people" not in scores["kd_lite0"]["scale"]
    assert found["memorisation_ratio"] is None

    # both sets are packed as they are, and shown
    packed = Path(rundir.read_json(tmp_path / "runs/pair/pictures/DONE.json")["outputs"]["path"])
    np.testing.assert_array_equal(
        Shards(indices.read(packed), "train").images()[..., 0], reference[:20]
    )
    page = (tmp_path / "runs/pair/report.html").read_text()
    assert "These pictures have kd_lite0" in page
    assert "copies.zip" in page
    assert page.count("<img ") == 4  # samples, reference, nearest by pixels and by features
    assert "Latent codes" not in page
    assert "Curves" not in page
    capsys.readouterr()

    # the same command again does nothing; other pictures are another comparison
    assert run(*told) == 0
    assert ": done in" not in capsys.readouterr().err
    assert (tmp_path / "runs/pair/command.txt").read_text().splitlines() == [
        "python jobs/evaluate.py cluster=local " + " ".join(told)
    ]
    Image.fromarray(reference[30]).save(tmp_path / "real" / "99.png")
    assert run(*told) == 0
    assert "evaluate: done in" in capsys.readouterr().err


def test_on_slurm_it_is_three_jobs(
    tmp_path: Path, slurm: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / name, 9)
    assert run("data=a", "reference=b", "cluster=slurm", "dry_run=true") == 0
    shown = capsys.readouterr().out
    scripts = [line for line in shown.splitlines() if line.startswith("# batch script")]
    assert scripts == [f"# batch script: {name}" for name in ("prepare", "evaluate", "report")]
    assert "pack pictures" in shown
    assert not (tmp_path / "runs").exists()


def test_a_set_of_another_size_is_refused(index: Index, faces: Faces, tmp_path: Path) -> None:
    pictures(tmp_path / "small", 9)
    with pytest.raises(UserError, match="data has resolution 8, the reference 16"):
        command.start(
            "evaluate",
            SINGLE,
            None,
            ["cluster=local", "data=small", f"reference={index.folder}", "pack.resolution=8"],
            PAIR,
        )
