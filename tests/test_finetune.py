"""A training that starts from another's weights: what fits is copied or carried over, and told; frozen layers stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Faces
from test_training import ALONE, GAN, VAE, make_task, newest, same, stop_after

from facefactory import UserError, checkpoint, command, rundir
from facefactory.data.sets.index import Index
from facefactory.facts import Facts, Label
from facefactory.training import finetune
from facefactory.training.trainer import Trainer, fit

SMILING = {"Smiling": Label("binary", ("0", "1")), "Hair": Label("categorical", ("red", "black"))}
GRAY = Facts(16, 16, 1, SMILING)
DCGAN = {"name": "gan/dcgan", "width": 4, "depth": 2, "z_dim": 4}
FACEGEN = {"name": "gan/facegen", "width": 4, "z_dim": 4, "attributes": "head"}


def trained(model: dict[str, Any], facts: Facts) -> tuple[Any, checkpoint.Checkpoint]:
    """A model, and a checkpoint that holds it."""
    made = checkpoint.build(model, facts, seed=1)
    networks = dict(made.state_dict())
    plain = checkpoint.plain(facts)
    found = checkpoint.Checkpoint(
        model,
        {},
        plain,
        networks,
        {},
        {},
        {},
        9,
        "",
        [],
    )
    return made, found


def begun(
    old: dict[str, Any], old_facts: Facts, new: dict[str, Any], facts: Facts
) -> tuple[Any, Any, dict[str, finetune.Fitted]]:
    """The old model, the new one, and what became of each network."""
    before, found = trained(old, old_facts)
    made = checkpoint.build(new, facts, seed=2)
    fitted = finetune.start(made, new, facts, found)
    return before, made, {one.network: one for one in fitted}


def test_the_same_model_is_a_copy() -> None:
    before, made, fitted = begun(DCGAN, GRAY, DCGAN, GRAY)
    assert same(dict(before.state_dict()), dict(made.state_dict()))
    assert not any(one.reshaped or one.fresh for one in fitted.values())


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1)])
def test_gray_and_colour_answer_alike_to_gray_pictures(old: int, new: int) -> None:
    facts = dataclasses.replace(GRAY, channels=new)
    before, made, fitted = begun(DCGAN, dataclasses.replace(GRAY, channels=old), DCGAN, facts)
    assert not any(one.fresh for one in fitted.values())
    torch.manual_seed(0)
    gray = torch.rand(5, 1, 16, 16)
    none = torch.empty(5, 0)
    shown = [gray.expand(-1, channels, -1, -1) for channels in (old, new)]
    logits = before.discriminator(shown[0], none), made.discriminator(shown[1], none)
    if old == 1:
        assert torch.allclose(*logits, atol=1e-5)
        z = torch.randn(5, 4)
        drawn = made.eval().sample(z, none)
        expected = before.eval().sample(z, none).expand(-1, 3, -1, -1)
        assert torch.allclose(drawn, expected, atol=1e-5)
    assert list(fitted["discriminator"].reshaped.values()) == [f"channels {old} -> {new}"]


def test_another_size_keeps_the_layers_by_the_image() -> None:
    larger = dataclasses.replace(
        GRAY,
        height=32,
        width=32,
    )
    before, made, fitted = begun(
        DCGAN,
        GRAY,
        {**DCGAN, "depth": 3},
        larger,
    )
    old = before.state_dict()
    new = made.state_dict()
    last_old = [name for name in old if name.startswith("generator.up")][-2:]
    last_new = [name for name in new if name.startswith("generator.up")][-2:]
    assert last_old != last_new
    for one, other in zip(last_old, last_new, strict=True):
        assert torch.equal(old[one], new[other])
    first = "discriminator.down.0.weight"
    assert torch.equal(old[first], new[first])
    assert "project.weight" in fitted["generator"].fresh


@pytest.mark.parametrize(
    ("wanted", "kept", "how"),
    [
        (["Hair"], {0: 1, 1: 2}, "label columns 3 -> 2, 2 of them kept"),
        (["Hair", "Male"], {0: 1, 1: 2}, "label columns 3 -> 3, 2 of them kept"),
        (["Hair", "Smiling"], {0: 1, 1: 2, 2: 0}, "label columns 3 -> 3, 3 of them kept"),
        ([], {}, "label columns 3 -> 0, 0 of them kept"),
    ],
)
def test_columns_of_labels_are_found_by_their_names(
    wanted: list[str], kept: dict[int, int], how: str
) -> None:
    facts = dataclasses.replace(GRAY, labels={**SMILING, "Male": Label("binary", ("0", "1"))})
    asked = {**FACEGEN, "conditions": ["Smiling", "Hair"]}
    before, made, fitted = begun(
        asked,
        GRAY,
        {**FACEGEN, "conditions": wanted},
        facts,
    )
    [(key, words)] = fitted["generator"].reshaped.items()
    assert words == how and not fitted["generator"].fresh
    old = before.generator.state_dict()[key]
    new = made.generator.state_dict()[key]
    assert torch.equal(new[:, :4], old[:, :4])
    for here, there in kept.items():
        assert torch.equal(new[:, 4 + here], old[:, 4 + there])
    for column in set(range(new.shape[1] - 4)) - set(kept):
        assert not any(torch.equal(new[:, 4 + column], old[:, 4 + other]) for other in range(3))


def test_a_model_of_which_nothing_fits_is_refused_and_the_table_names_the_rest() -> None:
    with pytest.raises(UserError, match="nothing of its gan/dcgan fits encoder of this model"):
        begun(
            DCGAN,
            GRAY,
            {"name": "vae/conv", "width": 8, "z_dim": 3, "depth": 2},
            GRAY,
        )
    facts = dataclasses.replace(GRAY, channels=3)
    *_, fitted = begun(DCGAN, GRAY, DCGAN, facts)
    shown = finetune.table(list(fitted.values()))
    assert "reshaped: discriminator.down.0.weight: channels 1 -> 3" in shown
    assert shown.splitlines()[0].split() == ["network", "copied", "reshaped", "fresh"]


# -- training ----------------------------------------------------------------------------------------


def test_a_training_starts_there_and_goes_on_bit_for_bit(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(make_task(index, tmp_path / "first"), ALONE)
    initial = checkpoint.latest(tmp_path / "first" / "checkpoints")
    assert initial is not None
    options: dict[str, Any] = {"initial": initial, "freeze_d": 1}
    fit(make_task(index, tmp_path / "whole", **options), ALONE)
    assert "starts from" in capsys.readouterr().err
    fit(make_task(index, tmp_path / "parts", should_stop=stop_after(2), **options), ALONE)
    fit(make_task(index, tmp_path / "parts", **options), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))

    # the first layer of the discriminator is where it began, the others moved
    before = checkpoint.load(initial).networks
    after = newest(tmp_path / "whole").networks
    weights = [name for name in after if name.startswith("discriminator") and "weight" in name]
    assert [torch.equal(before[name], after[name]) for name in weights][:2] == [True, False]
    assert torch.equal(before["discriminator.down.0.bias"], after["discriminator.down.0.bias"])


def test_what_cannot_be_frozen_is_refused(index: Index, tmp_path: Path) -> None:
    task = make_task(index, tmp_path, GAN, freeze_d=9)
    with pytest.raises(UserError, match="freeze_d=9, but the discriminator has 3 layers"):
        Trainer(task, ALONE)
    with pytest.raises(UserError, match="freeze_d=1, but no discriminator is trained here"):
        make_task(index, tmp_path, VAE, freeze_d=1).options.check((".",))


# -- jobs --------------------------------------------------------------------------------------------


def train(faces: Faces, name: str, *more: str) -> None:
    tiny = ["training.total_kimg=0.048", "training.batch_size=12", "training.device=cpu"]
    model = ["pack.resolution=16", "model.width=4", "model.depth=2"]
    given = [f"run={name}", "cluster=local", f"pack.recipe={faces.recipe}", *tiny, *model, *more]
    command.start("train_gan", ("pack", "train"), "dcgan-orl32", given)


def done(name: str) -> dict[str, Any]:
    found = rundir.RunDir(Path("runs", name)).done("train")
    assert found is not None
    return found


def test_what_a_run_started_from_is_part_of_what_it_is(faces: Faces, tmp_path: Path) -> None:
    train(faces, "first")
    train(faces, "second", "init_from=first", "pack.color=rgb")
    before = done("second")
    assert before["inputs"]["init_from"] == done("first")["outputs"]["checkpoint"]
    assert before["config"]["init_from"] == str(tmp_path / "runs" / "first")
    train(faces, "second", "init_from=first", "pack.color=rgb")
    assert done("second") == before  # complete

    # the first run becomes another, and the second is trained anew
    train(faces, "first", "seed=5", "changed=accept")
    train(faces, "second", "init_from=first", "pack.color=rgb")
    after = done("second")
    assert after["inputs"]["init_from"] == done("first")["outputs"]["checkpoint"]
    assert after["outputs"]["checkpoint"] != before["outputs"]["checkpoint"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["init_from=frist"], "frist is no run folder; there are begun, first"),
        (["init_from=begun"], "no finished stage 'train'"),
        (["init_from=first", "model.width=5", "model.z_dim=7"], "nothing of its gan/dcgan fits"),
        (["training.freeze_d=3"], "give at most 2"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    faces: Faces, tmp_path: Path, more: list[str], words: str
) -> None:
    train(faces, "first")
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=words):
        train(faces, "second", *more)
    assert not (tmp_path / "runs" / "second").exists()
