"""What a training will take, estimated before it starts; what a search will."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from facefactory import UserError, config, registry
from facefactory.facts import Facts, Label
from facefactory.run import Run, constraints_of, resolve
from facefactory.search.estimate import estimate
from facefactory.search.study import Sweep
from facefactory.training import costs
from facefactory.training.costs import Planned, _trial_run, seconds_per_kimg

FACTS = Facts(16, 16, 1, {"glasses": Label("binary", ("no", "yes"))})


def planned(*options: str) -> Planned:
    run = resolve(config.load(Run, ["model.depth=2", "model.width=4", *options], []))
    return Planned(run.model, run.objective, run.training, run.data, FACTS)


def test_what_is_kept_for_the_way_back_is_counted_once_and_without_weights() -> None:
    layer = nn.Linear(8, 4)
    x = torch.randn(10, 8, requires_grad=True)
    with _trial_run.kept_bytes(list(layer.parameters())) as kept:
        y = torch.relu(layer(x))
        (y * y).sum()
    inputs = 10 * 8 * 4
    outputs = 10 * 4 * 4
    assert kept() == inputs + outputs


def test_memory_grows_with_the_batch_and_not_with_its_parts() -> None:
    def memory(*options: str) -> float:
        return costs.file("memory_gb").estimate(planned(*options))

    small = memory("training.batch_size=16")
    large = memory("training.batch_size=32")
    larger = memory("training.batch_size=48")
    assert larger - large == pytest.approx(large - small)
    assert large > small
    assert memory("training.batch_size=32", "training.accumulate=2") == pytest.approx(small)


@pytest.mark.parametrize("name", registry.names(costs.PACKAGE))
@pytest.mark.parametrize(
    "options",
    [
        ("model.name=gan/dcgan",),
        ("model.name=vae/conv", "objective.name=factor"),
        ("model.name=classifier/convnet", "objective.name=classification"),
    ],
    ids=["gan", "vae", "classifier"],
)
def test_every_kind_of_model_has_costs_above_zero_and_wider_ones_higher_ones(
    name: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seconds_per_kimg, "MOST_S", 0.0)
    narrow = costs.estimates(planned(*options), [name])[name]
    wide = costs.estimates(planned(*options, "model.width=64"), [name])[name]
    assert 0 < narrow < wide


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ("{parametres: 5}", "has 'parametres'; there are .*Did you mean 'parameters'"),
        ("{parameters: many}", "parameters is 'many'; give a number above 0"),
        ("{memory_gb: 0}", "memory_gb is 0; give a number above 0"),
        ("5", "constraints is 5; give"),
    ],
)
def test_constraints_that_are_none_are_refused(bounds: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"training.lr: {{uniform: [0.1, 0.2]}}\nconstraints: {bounds}\n")
    run = resolve(config.load(Run, [f"sweep.space={path}"], []))
    with pytest.raises(UserError, match=words):
        constraints_of(run)


def test_a_search_is_estimated_by_what_its_scheduler_means_to_do() -> None:
    options = Sweep(trials=9, parallel=3, min_kimg=1, max_kimg=9, reduction=3, finalists=2)
    found = estimate(options, 9, total_kimg=29, seconds=36.0)
    assert found.kimg_least == 9
    assert found.kimg_usual == pytest.approx(9 + 3 * 2 + 1 * 6)
    assert found.kimg_most == 81
    assert found.kimg_finalists == 2 * 20
    assert found.hours == pytest.approx((21 + 40) * 36 / 3 / 3600)
    assert "21 thousand in trials (at least 9, at most 81)" in "\n".join(found.lines())


def test_without_a_scheduler_all_images_are_shown() -> None:
    options = Sweep(scheduler="none", min_kimg=1, max_kimg=9, finalists=4)
    found = estimate(options, 3, total_kimg=9, seconds=None)
    assert found.kimg_least == found.kimg_usual == found.kimg_most == 27
    assert found.kimg_finalists == 0
    assert found.hours is None
    assert not any("hours" in line for line in found.lines())
