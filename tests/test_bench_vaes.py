"""What the bench of presets measures of VAEs, on a run in the small and on scores that are known."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import bench_presets
import bench_vaes
import pytest
from bench_presets import Trained

from facefactory import command, rundir
from facefactory.data.sources import drawn
from facefactory.rundir import RunDir

VAE = {
    "nats": -900.0,
    "psnr": 20.0,
    "kd_normal": 30.0,
    "kd_second_stage": 9.0,
    "mig": 0.1,
}
VQ = {
    "nats": -800.0,
    "psnr": 22.0,
    "kd_own": 12.0,
}


def runs(scores: dict[str, float]) -> list[Trained]:
    return [
        Trained(
            seed=seed,
            kimg=10.0,
            seconds=20.0,
            scores={name: value + seed for name, value in scores.items()},
        )
        for seed in bench_presets.SEEDS
    ]


def test_factors_are_labels_of_drawn_faces_and_none_stands_for_another() -> None:
    recipe = {"drawn": {"images": 4}}
    labels = set(drawn.find(recipe, None).table)
    factors = set(bench_vaes.FACTORS)
    assert factors <= labels
    assert len(factors) == len(bench_vaes.FACTORS)
    made_of = {attribute.factor for attribute in drawn.ATTRIBUTES.values()}
    assert not factors & {*made_of, "hair_color"}


def test_a_table_has_a_dash_for_what_a_model_has_not() -> None:
    rows = {
        "vae-drawn64": runs(VAE),
        "vq-drawn64": runs(VQ),
        "broken-drawn64": runs(VAE)[:1],
    }
    table = bench_presets.table("vaes64", rows)
    lines = table.splitlines()
    assert len([line for line in lines if "-drawn64" in line]) == 2
    (vq,) = [line for line in lines if "`vq-drawn64`" in line]
    assert "| – |" in vq
    assert "23.0 ± 1.0" in vq


def test_a_picture_places_samples_by_their_best_prior_and_codes_without_meaning_on_one_panel() -> (
    None
):
    rows = {
        "vae-drawn64": runs(VAE),
        "vq-drawn64": runs(VQ),
    }
    picture = bench_vaes.picture(rows)
    ElementTree.fromstring(picture)
    assert picture.count(">vae</text>") == 2
    assert picture.count(">vq</text>") == 1
    best = bench_vaes._best_prior([run.scores for run in rows["vae-drawn64"]])
    assert best is not None
    assert best.mean == pytest.approx(10)


def drawn_under(prior: str, kd: float) -> dict[str, object]:
    """Samples under a prior as results.json has them."""
    scores = [
        {"name": "kd_judge", "value": 0.1},
        {"name": "kd_lite0", "value": kd},
    ]
    return {"prior": prior, "scores": scores}


EVALUATED = {
    "reconstructions": [
        {"scores": {"psnr": 30.0}, "nats": {"neg_elbo_nats": -99.0}},
        {"scores": {"psnr": 20.0}, "nats": {"neg_elbo_nats": -9.0}},
    ],
    "priors": [drawn_under("own", 12.0)],
}


@pytest.mark.parametrize("kind", ["vae", "vq"])
def test_a_run_is_measured(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        *("cluster=local", "run=mine", "pack.recipe=drawn", "pack.limit=120"),
        *("pack.resolution=16", "model.width=4", "training.total_kimg=0.064"),
    ]
    given = [f"config={kind}-drawn64", *small]
    depth = "model.depth=2" if kind == "vae" else "model.levels=2"
    command.start(
        "train_vae",
        ("pack", "train"),
        "conv-orl32",
        [*given, depth],
    )
    folder = RunDir(tmp_path / "runs" / "mine")
    rundir.write_json(folder.path / "evaluate" / "results.json", EVALUATED)
    found = bench_vaes.measure(folder)
    of_people_never_seen = {
        "nats": -9.0,
        "psnr": 20.0,
        "kd_own": 12.0,
    }
    codes = {name: found[name] for name in found if name not in of_people_never_seen}
    assert found == {**of_people_never_seen, **codes}
    assert set(codes) == (set(bench_vaes.CODES) if kind == "vae" else set())
