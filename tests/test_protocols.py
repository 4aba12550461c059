"""Protocols: their files, what they set, what they need, and FID equal to the programs that defined it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3

from facefactory import Missing, UserError, command, config, registry
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import Evaluation, extractors, features, scoring, subjects
from facefactory.evaluation.extractors import inception, inception_clean
from facefactory.facts import Size
from facefactory.results import Protocol
from facefactory.run import JOBS, Run, goal_of, headline_of, needs_judge, with_protocol

NAMES = sorted(path.stem for path in (JOBS / "protocols").glob("*.yaml"))
CPU = torch.device("cpu")


def run_of(*arguments: str, **layer: Any) -> Run:
    """A config tree from a preset's layer and arguments, as the command line makes it."""
    below = [with_protocol(layer), command.named_protocol(list(arguments))]
    return config.load(Run, list(arguments), below)


# -- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_sets_keys_that_exist_and_names_files_that_exist(name: str) -> None:
    options = run_of(f"evaluation.protocol={name}").evaluation
    assert options.protocol == name
    assert subjects.file(options.scoring).TAKES
    known = scoring.known(options.networks)
    for network in options.networks:
        assert network in registry.names("evaluation.extractors")
    assert options.goal is None or options.goal in known


def test_there_are_the_protocols_that_people_ask_for() -> None:
    assert {"quick", "default", "fid-legacy", "fid-clean", "classifier"} <= set(NAMES)
    assert run_of("evaluation.protocol=default").evaluation == Evaluation()


def test_what_is_named_later_comes_before_and_a_protocol_forgets_what_another_set() -> None:
    quick = run_of("evaluation.protocol=quick").evaluation
    assert (quick.networks, quick.fakes, quick.reals) == (["lite0"], 400, 2000)
    preset = run_of(evaluation={"protocol": "quick", "fakes": 50}).evaluation
    assert (preset.networks, preset.fakes, preset.reals) == (["lite0"], 50, 2000)
    more = run_of("evaluation.protocol=fid-legacy", "evaluation.fakes=99", evaluation={"fakes": 8})
    assert (more.evaluation.networks, more.evaluation.fakes) == (["inception"], 99)
    back = run_of("evaluation.protocol=default", evaluation={"protocol": "fid-legacy"}).evaluation
    assert back == Evaluation()


def test_a_protocol_of_ones_own_is_a_file_and_the_config_of_a_run_needs_it_no_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("networks: [lite0]\nfakes: 64\n")
    made = run_of(f"evaluation.protocol={path}")
    assert (made.evaluation.networks, made.evaluation.fakes) == (["lite0"], 64)
    path.unlink()
    again = run_of(**dataclasses.asdict(made))
    assert again.evaluation == made.evaluation


@pytest.mark.parametrize(
    ("text", "told"),
    [("fake: 64", "Did you mean 'fakes'"), ("protocol: quick", "has the key 'protocol'")],
)
def test_a_wrong_key_of_a_protocol_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        run_of(f"evaluation.protocol={tmp_path / 'mine.yaml'}")


def test_an_unknown_protocol_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"classifier, default, fid-clean.*mean 'fid-legacy'"):
        run_of("evaluation.protocol=fid-legcy")


# -- what they need and look for -------------------------------------------------------------------


def test_only_protocols_that_look_through_the_judge_need_one() -> None:
    needing = {name for name in NAMES if needs_judge(run_of(f"evaluation.protocol={name}"))}
    assert needing == {"default"}
    assert needs_judge(run_of("evaluation.networks=[lite0,judge]"))


def test_a_protocol_whose_weights_are_not_here_says_the_command_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    for name in ("fid-legacy", "fid-clean"):
        with pytest.raises(Missing, match="weights") as caught:
            headline_of(run_of(f"evaluation.protocol={name}"))
        assert inception.WEIGHTS.how() in str(caught.value)


def test_the_score_that_speaks_for_a_model_is_the_protocols_else_that_of_its_search() -> None:
    def both(*arguments: str) -> tuple[str, str]:
        run = run_of(*arguments)
        return goal_of(run).metric, headline_of(run).metric

    assert both() == ("kd_lite0", "kd_lite0")
    assert both("sweep.goal=mind_lite0") == ("mind_lite0", "mind_lite0")
    assert both("evaluation.protocol=quick") == ("kd_lite0", "kd_lite0")
    assert both("sweep.goal=mind_lite0", "evaluation.protocol=quick") == ("mind_lite0", "kd_lite0")
    assert both("evaluation.networks=[lite0]") == ("kd_lite0", "kd_lite0")
    with pytest.raises(UserError, match=r"never rank alone.*none: add one of .*lite0"):
        goal_of(run_of("evaluation.networks=[judge]"))
    with pytest.raises(UserError, match=r"sweep\.goal: no score 'fid'"):
        goal_of(run_of("sweep.goal=fid", "evaluation.protocol=quick"))
    with pytest.raises(UserError, match=r"evaluation\.goal: no score 'fidd'"):
        headline_of(run_of("evaluation.goal=fidd"))


def test_a_network_that_must_be_asked_for_is_in_no_usual_protocol() -> None:
    assert "inception_clean" not in extractors.usual()
    assert {"lite0", "inception", "judge"} <= set(extractors.usual())


def test_unlike_protocols_name_the_fields_that_differ() -> None:
    base = Protocol(
        *("inception", "6726825d", "bilinear", "uint8", "abc", "train", "square"),
        *(320, 1000, 0, "5", 1.0),
    )
    other = dataclasses.replace(
        base,
        resize="bicubic",
        fakes=50_000,
    )
    assert base.differs(other) == {"resize": ("bilinear", "bicubic"), "fakes": (1000, 50_000)}
    assert base.id() != other.id()


# -- FID as others compute it ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InceptionV3 with random weights that keep the features from fading, in the published file's form."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    published = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(
            feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(published, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = published("random", ["2048", "logits_unbiased"])
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def staged(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    weights = SimpleNamespace(
        digest="random00", find=lambda: random_weights, need=lambda: random_weights
    )
    for file in (inception, inception_clean):
        monkeypatch.setattr(file, "WEIGHTS", weights)
    return random_weights


def test_fid_legacy_is_torch_fidelitys_on_the_same_images(
    staged: Path, index: Index, tmp_path: Path
) -> None:
    faces = Shards(index, "train").images()[:20]
    seed = torch.Generator().manual_seed(0)
    noise = torch.randint(
        0,
        256,
        faces[:17].shape,
        dtype=torch.uint8,
        generator=seed,
    )
    sets = [faces, noise // 2 + faces[:17] // 2]
    for name, images in zip(("real", "fake"), sets, strict=True):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images.numpy()):
            Image.fromarray(image[..., 0]).save(tmp_path / name / f"{number:02d}.png")

    # theirs, from the files
    wanted = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "real"),
        input2=str(tmp_path / "fake"),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no workers
        batch_size=inception.Inception.batch,
        feature_extractor_weights_path=str(staged),
    )["frechet_inception_distance"]

    # ours, from the pixels
    eye = inception.load(Size(16, 16), CPU, None)
    kept = [features.keep(eye, [images], ["moments"]) for images in sets]
    found = scoring.score("frechet_distance", kept[0], kept[1])["fd"]
    assert wanted > 0.01
    assert found == pytest.approx(wanted, rel=1e-6)


def test_fid_clean_sees_images_of_the_networks_own_size_as_fid_legacy_does(staged: Path) -> None:
    images = torch.randint(
        0, 256, (2, 299, 299, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    legacy, clean = (
        features.look(file.load(Size(299, 299), CPU, None), images)
        for file in (inception, inception_clean)
    )
    mean = float(legacy.features.mean())
    torch.testing.assert_close(
        clean.features,
        legacy.features,
        rtol=1e-4,
        atol=1e-4 * mean,
    )
    assert legacy.logits is not None
    assert clean.logits is not None
    scale = float(legacy.logits.abs().mean())
    torch.testing.assert_close(
        clean.logits,
        legacy.logits,
        rtol=1e-3,
        atol=1e-3 * scale,
    )


def stripes(side: int) -> Tensor:
    """Columns of 0 and 255, one pixel wide, gray."""
    columns = 255 * (torch.arange(side) % 2)
    return columns.to(torch.uint8).expand(side, side)[..., None]


def test_fid_clean_shrinks_with_antialiasing_and_does_not_round() -> None:
    shrunk = inception_clean.resize(stripes(1196).numpy())
    assert shrunk.shape == (1, 299, 299)
    assert shrunk.dtype == np.float32
    assert np.abs(shrunk[..., 2:-2] - 127.5).max() < 2  # gray; without antialiasing black or white
    ramp = np.linspace(0, 255, 32).round().astype(np.uint8)[None].repeat(32, 0)[..., None]
    enlarged = inception_clean.resize(ramp)
    assert enlarged.min() >= 0
    assert enlarged.max() <= 255
    assert np.abs(enlarged - enlarged.round()).max() > 0.3
    whole = Image.fromarray(ramp[..., 0].astype(np.float32), mode="F")
    plain = np.asarray(whole.resize((299, 299), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(enlarged[0], plain.clip(0, 255))
