"""Work that processes share: what several make of a model is, byte for byte, what one makes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Faces
from test_interpret import BrightnessJudge, FakeGAN
from test_jobs import base, run
from torch import Tensor

from facefactory import rundir
from facefactory.data.sets import loader
from facefactory.data.sets.index import Index
from facefactory.interpret import Interpret, claims, control
from facefactory.interpret.sharing import Pending, Sharing
from facefactory.run import load_run
from facefactory.rundir import RunDir
from facefactory.stages import of


def squares(sharing: Sharing, made: list[int], numbers: tuple[int, ...] = (3, 1, 4, 5)) -> Any:
    def make(number: int) -> dict[str, Any]:
        made.append(number)
        return {"the square": np.asarray(number**2), "itself": np.asarray([number])}

    return sharing.items("squares", numbers, make)


def test_each_makes_its_share_once_and_the_last_finds_all(tmp_path: Path) -> None:
    made: list[int] = []
    for part in (0, 1):
        with pytest.raises(Pending, match="of 4 items of squares"):
            squares(Sharing(tmp_path / f"{part}", part, 2), made)
    assert made == [3, 4, 1, 5]
    shutil.copytree(tmp_path / "0", tmp_path / "1", dirs_exist_ok=True)
    found = squares(Sharing(tmp_path / "1"), made)
    assert {number: int(item["the square"]) for number, item in found.items()} == {
        3: 9,
        1: 1,
        4: 16,
        5: 25,
    }
    assert list(found) == [3, 1, 4, 5]
    assert len(made) == 4


@pytest.mark.parametrize("damage", [lambda text: b"", lambda text: text[:-20], lambda text: b"x"])
def test_what_cannot_be_read_is_made_again(damage: Any, tmp_path: Path) -> None:
    made: list[int] = []
    with pytest.raises(Pending):
        squares(Sharing(tmp_path, 0, 2), made)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert len(squares(Sharing(tmp_path), made)) == 4
    assert made == [3, 4, 3, 1, 4, 5]


# -- all of a model --------------------------------------------------------------------------------


class PixelVAE:
    """Its codes are the means of some rows of a face."""

    z_dim = 4

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        means = images[:, :, ::4].mean((1, 3)) * 3
        return means, torch.full_like(means, -1.0)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        rows = (z / 4).clamp(-1, 1).repeat_interleave(4, 1)
        return rows[:, None, :, None].repeat(1, 1, 1, 16)

    decode = sample


@pytest.mark.parametrize("model", [PixelVAE(), FakeGAN()], ids=["codes of faces", "drawn faces"])
@pytest.mark.parametrize("tasks", [2, 7])
def test_some_processes_and_then_one_find_what_one_finds(
    model: Any, tasks: int, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 9)
    walked = []
    once = control._Base.walked

    def counted(self: Any, dimension: int) -> Any:
        walked.append(dimension)
        return once(self, dimension)

    monkeypatch.setattr(control._Base, "walked", counted)
    judge = BrightnessJudge(*(index.content.labels.keys() - {"Person"}))

    def found(folder: Path, sharing: Sharing) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        options = Interpret(samples=60, min_effect=0.0)
        return claims.interpret(model, judge, index, options, 0, folder, sharing=sharing)

    alone = found(tmp_path / "alone", Sharing())
    by_one = sorted(walked)
    assert by_one  # something is walked, or nothing is shown
    walked.clear()
    place = tmp_path / "parts"
    for _ in ("faces", "walks"):
        for part in range(tasks):
            with pytest.raises(Pending):
                found(tmp_path / "part", Sharing(place, part, tasks))
    assert sorted(walked) == by_one
    assert not list((tmp_path / "part").iterdir())  # pictures are the last one's
    together = found(tmp_path / "together", Sharing(place))
    assert sorted(walked) == by_one
    assert together == alone
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert names == {path.name for path in (tmp_path / "together").iterdir()}
    for name in names:
        pictures = [tmp_path / folder / name for folder in ("alone", "together")]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_jobs_share_it_and_the_last_one_cleans_up(faces: Faces, tmp_path: Path) -> None:
    hasty = ["judge.training.total_kimg=0.1", "judge.fold_kimg=0.1"]
    assert run("train_gan", *base(faces), *hasty) == 0
    assert run("interpret", "run=r") == 0
    folder = RunDir(tmp_path / "runs" / "r")
    stage = of("interpret")
    alone = rundir.read_results(folder.stage("interpret"))

    job = load_run(folder.path, ["interpret.tasks=2", "interpret.spaces=[z]"])
    first, second, last = stage.jobs(job, folder, ["interpret.tasks=2"])
    assert first.commands == second.commands
    assert {first.stage, second.stage, last.stage} == {"faces", "walks", "interpret"}
    assert [command[3] for command in first.commands] == ["0/2", "1/2"]
    assert all(command[4:] == ["interpret.tasks=2"] for command in first.commands)
    assert last.commands == [["stages", str(folder.path), "interpret", "interpret.tasks=2"]]
    for command in first.commands:
        stage.part(job, folder, command[3:])
    assert list(folder.path.glob("private/interpret-*/z-judged.*"))
    stage.work(job, folder)
    assert rundir.read_results(folder.stage("interpret")) == alone
    assert not list(folder.path.glob("private/interpret-*"))
