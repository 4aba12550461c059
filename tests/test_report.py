"""Reports of fake run folders: what the page says, what it never does."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from synthetic import search

from facefactory import UserError, confirmation
from facefactory.confirmation import Confirmed, Repeat
from facefactory.report import pages, plots, runs, studies
from facefactory.report.facts import metrics, rounded, tried
from facefactory.report.scores import place
from facefactory.report.sections.verdict import condition_verdict
from facefactory.results import Better, Claim, Contrast, Effect, Goal, Protocol, Score
from facefactory.rundir import digest, write_sealed

EVIL = "<script>alert(1)</script>"
LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.01, "log": true}}'
WIDTH = '{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32]}}'
SCALE = {"floor": -0.001, "new_people": 0.002, "blur": 0.31, "repeat": 0.9, "noise": 1.2}
PROTOCOL = Protocol(
    "lite0", "1a2b3c4d", "none", "uint8", "aa11", "train", "square", 320, 1000, 0, "0.5", 1.0
)


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def put_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    put(path, "".join(json.dumps(line) + "\n" for line in lines))


def put_picture(path: Path, columns: int = 8, rows: int = 8, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = bytes((x * 16 + y * 3) % 256 for y in range(rows * side) for x in range(columns * side))
    Image.frombytes("L", (columns * side, rows * side), ramp).save(path)


def score(name: str, value: float, protocol: Protocol, better: Better = "lower") -> dict[str, Any]:
    own = {
        "low": value * 0.9,
        "high": value * 1.1,
        "scale": SCALE,
        "valid": ("blur",),
        "blind": ("ghosting", "block_shuffling"),
    }
    return dataclasses.asdict(
        Score(name, name.partition("_")[0], value, better, protocol.id(), **own)
    )  # type: ignore[arg-type]


def put_run(
    folder: Path,
    kd: float,
    copied: bool = False,
    kind: str = "gan",
    resize: str = "none",
    evil: str = "Smiling",
    kd_judge: float = 0.5,
) -> None:
    """A trained, evaluated and interpreted generative run."""
    put_lines(
        folder / "train/metrics-001.jsonl",
        [{"kimg": k, "loss_d": 1 / k, "loss_g": k / 9, "images_per_s": 9} for k in (1.0, 2.0)],
    )
    put_picture(folder / "train/samples/samples-000002000.png")
    for name, rows in (
        ("samples", 8),
        ("nearest", 3),
        *([("reconstructions", 2)] if kind == "vae" else []),
    ):
        put_picture(folder / f"evaluate/{name}.png", rows=rows)

    # scores
    lite0 = dataclasses.replace(PROTOCOL, resize=resize)
    judge = dataclasses.replace(PROTOCOL, features="judge")
    scores = [score("kd_lite0", kd, lite0), score("kd_judge", kd_judge, judge)]
    scores.append(
        score("precision_lite0", 0.8, lite0, "higher") | {"verdicts": ("too few images: 9",)}
    )
    results = {"goal": {"metric": "kd_lite0", "better": "lower"}, "scores": scores, "kimg": 60.0}
    results["protocols"] = {one.id(): dataclasses.asdict(one) for one in (lite0, judge)}
    texts = {
        "not_staged": {"inception": "run weights.fetch"},
        "memorisation_ratio": 0.7,
        "copied": ["lite0"] * copied,
    }
    put(folder / "evaluate/results.json", {**results, **texts})

    # what its dimensions mean
    put_picture(folder / "interpret/traversals.png", rows=2)
    effect = {"value": 0.31, "low": 0.1, "high": 0.5, "q": 0.01, "nats": 0.1}
    dimensions = [
        {
            "dimension": number,
            "kl_nats": 0.2,
            "variance": 1.0,
            "levels": 2.0,
            "verdict": "inactive",
            "labels": [],
            "effects": {"Eyeglasses": {**effect, "value": 0.55}, evil: effect},
        }
        for number in range(4)
    ]
    dimensions[3] |= {
        "kl_nats": None,
        "verdict": "goes with",
        "labels": ["Eyeglasses"],
        "effects": {"Eyeglasses": effect, evil: effect},
    }
    contrast = Contrast("Eyeglasses", "", "auroc", 0.3, 400)
    named = Claim(
        "mu",
        3,
        "goes with",
        "glasses",
        "",
        "",
        contrast,
        Effect(**effect),
    )
    space = {
        "method": "cross-validated",
        "dimensions": dimensions,
        "listed": [0, 1, 2, 3],
        "traversed": [3, 1],
        "codes": {"faces": 400, "factors": ["Eyeglasses"], "scores": {}, "absent": {}},
        "claims": [dataclasses.asdict(named)],
    }
    whole = {"labels": ["Eyeglasses", evil], "not_scored": {"Male": "4 people have 0"}}
    put(
        folder / "interpret/results.json",
        {"space": "mu", **whole, "spaces": {"mu": space}, **space},
    )


def labels(name: str = "Eyeglasses") -> dict[str, Any]:
    sizes = {"images": [281, 119], "people": [32, 15]}
    accuracy = {
        "balanced_accuracy": 0.9,
        "balanced_accuracy_interval": [0.8, 0.97],
        "auroc": 0.95,
        "auroc_interval": [0.9, 0.99],
    }
    scored = {**sizes, "scored": True, **accuracy, "confusion": [[250, 31], [10, 109]]}
    counted = {
        "images": [40, 360],
        "people": [4, 36],
        "scored": False,
        "reason": "4 people have 0; a score needs 8",
    }
    binary = {"kind": "binary", "classes": ["0", "1"]}
    return {name: {**binary, **scored}, "Male": {**binary, **counted}}


def put_trial(
    number: int, state: str, scores: list[tuple[float, float]], error: str | None = None
) -> dict[str, Any]:
    return {
        "name": f"{number:03d}-ab12cd34",
        "number": number,
        "params": {"training.lr": 1e-4 * (number + 1), "model.width": 16 if number % 2 else 32},
        "distributions": {"training.lr": LR, "model.width": WIDTH},
        "state": state,
        "scores": [
            {"kimg": kimg, "kd_lite0": score, "seconds": 3 * kimg} for kimg, score in scores
        ],
        "error": error,
        "seconds": 12.3,
    }


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Eight trials, three finalists: the second wins, the third fails."""
    folder = tmp_path / "sweep_gan-demo"
    put(
        folder / "config.yaml",
        "seed: 0\npack: {recipe: orl, resolution: 32, color: gray}\nmodel: {name: gan/dcgan}\n",
    )
    put(folder / "command.txt", "python jobs/sweep_gan.py run=demo\n")
    ledger = {"time": 1.7e9, "host": "here", "job": "pid 1"}
    failed = {
        **ledger,
        "stage": "judge",
        "state": "failed",
        "error": "node went away",
        "seconds": 3,
    }
    put_lines(folder / "jobs.jsonl", [failed, {**ledger, "stage": "judge", "state": "done"}])

    # the set
    shards = folder.parent / "shards"
    splits = {"train": {"count": 320}, "test": {"count": 80}}
    origin = {"origin": "AT&T Laboratories Cambridge", "licence": f"credit them {EVIL}"}
    put(
        shards / "index.json",
        {
            "dataset": "orl",
            "resolution": 32,
            "channels": 1,
            "splits": splits,
            "skipped": [],
            **origin,
        },
    )

    # stages that ended
    done = {
        "config": {},
        "inputs": {},
        "seconds": 4.5,
        "files": {},
        "software": {"python": "3.12", "torch": "2.9"},
    }
    write_sealed(
        folder / "pack/DONE.json",
        {**done, "outputs": {"folder": str(shards), "images": "aa11", "labels": "bb22"}},
    )
    write_sealed(folder / "judge/DONE.json", {**done, "outputs": {"judge": "1a2b"}})
    judge = {
        "judge": "1a2b",
        "feature_dim": 64,
        "folds": 5,
        "people": 40,
        "images": 400,
        "folder": "x",
    }
    put(folder / "judge/results.json", {**judge, "labels": labels(EVIL)})

    # trials
    trials = [
        put_trial(n, "finished", [(4, 0.5 / (n + 1)), (12, 0.3 / (n + 1))]) for n in range(5)
    ]
    trials += [
        put_trial(5, "stopped", [(4, 0.01)]),
        put_trial(6, "failed", [], f"loss_d not finite {EVIL}"),
    ]
    trials += [put_trial(7, "interrupted", [(4, float("nan"))])]
    results = {
        "metric": "kd_lite0",
        "better": "lower",
        "sampler": "tpe",
        "rungs_kimg": [4, 12],
        "trials": trials,
    }
    put(folder / "sweep/results.json", results)
    for trial in trials:
        put_picture(folder / f"sweep/trials/{trial['name']}/train/samples/samples-1.png")

    # finalists
    entries = []
    for rank, (trial, kd, copied) in enumerate(
        [(4, 0.05, False), (3, 0.01, True), (2, None, False)]
    ):
        name = f"{rank}-{trial:03d}-ab12cd34"
        state = "failed" if kd is None else "finished"
        tail = {"error": None if kd else "out of memory", "log_tail": None if kd else "Killed\n"}
        entries.append(
            {
                "name": name,
                "trial": name[2:],
                "folder": f"finalists/{name}",
                "state": state,
                **tail,
            }
        )
        if kd:
            put_run(folder / "finalists" / name, kd, copied, evil=EVIL)
    put(folder / "finalists/results.json", {"finalists": entries})
    return folder


def written(folder: Path, repeat: dict[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """(the page without the bytes of plotly.js, report.json read strictly), checked for what holds of every page."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"report.json holds {constant}")

    page, data = pages.write(folder, repeat or {})
    assert (page, data) == (folder / "report.html", folder / "report.json")
    text = page.read_text()
    own = re.sub(r'<!-- plotly.js v.*? id="plotly">.*?</script>', "", text, flags=re.S)
    if 'class="figure"' in text:
        assert text.count("plotly.js v") == 1
        assert 1_000_000 < len(text) - len(own) < 2_500_000
    assert "could not be written" not in own
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", own)
    assert "url(" not in own
    assert "@import" not in own
    assert EVIL not in own
    facts = json.loads(data.read_text(), parse_constant=refuse)
    jsonschema.validate(facts, pages.schema())
    return own, facts


def test_a_sweep_names_its_winner_and_where_the_score_lies(sweep: Path) -> None:
    text, data = written(sweep)
    first, *others = data["verdict"]
    assert first.startswith(
        "Finalist 1-003-ab12cd34 won: kd_lite0 0.01 [0.009, 0.011], between new people (0.002) and blurred faces (0.31)"
    )
    assert "0-000" not in first
    assert "runner-up, 0-004-ab12cd34, has 0.05" in first
    assert any(
        "Caution" in one and "copied: 1-003-ab12cd34;" in one and "0-004" not in one
        for one in others
    )
    assert "On this set kd_lite0 is blind to ghosting, block shuffling." in others
    assert not any("disagree" in one for one in others)
    assert any(
        "Of 8 trials, 5 finished, 1 stopped, 1 failed, 1 interrupted" in sentence
        for sentence in others
    )
    assert any("one seed" in sentence for sentence in others)
    assert "Of 0-004-ab12cd34: 1 latent dimension: 1 goes with." in others
    assert text.count("<p>dim 3 = glasses, AUROC .31") == 2  # of either finalist that ended well
    assert first in text


def test_unlike_protocols_are_not_ranked(sweep: Path) -> None:
    put_run(sweep / "finalists/0-004-ab12cd34", 0.001, resize="bilinear")
    text, data = written(sweep)
    assert data["verdict"][0].startswith("No winner is named")
    assert "resize" in data["verdict"][0]
    assert [row["name"][:5] for row in data["leaderboard"][:3]] == [
        "0-004",
        "1-003",
        "2-002",
    ]  # as listed
    assert "resize: bilinear and none" in data["verdict"][0]
    assert "The protocols differ in resize: " in text


def test_feature_networks_that_rank_the_finalists_differently_are_both_shown(sweep: Path) -> None:
    put_run(sweep / "finalists/0-004-ab12cd34", 0.05, kd_judge=0.2)
    text, data = written(sweep)
    wanted = "Feature networks disagree (Kendall's tau -1), the best first by kd_lite0: 1-003-ab12cd34, 0-004-ab12cd34; "
    assert wanted + "kd_judge: 0-004-ab12cd34, 1-003-ab12cd34." in data["verdict"]
    assert "best first by kd_judge" in text
    assert data["verdict"][0].startswith("Finalist 1-003-ab12cd34 won")


def test_where_higher_is_better_the_highest_wins(sweep: Path) -> None:
    for path in [sweep / "sweep/results.json", *sweep.glob("finalists/*/evaluate/results.json")]:
        path.write_text(path.read_text().replace('"better": "lower"', '"better": "higher"'))
    data = written(sweep)[1]
    assert data["verdict"][0].startswith("Finalist 0-004-ab12cd34 won")
    assert [row["name"][:3] for row in data["leaderboard"][3:8]] == [
        "000",
        "001",
        "002",
        "003",
        "004",
    ]


def test_the_leaderboard_compares_trials_only_at_the_same_rung(sweep: Path) -> None:
    rows = written(sweep)[1]["leaderboard"]
    names = [row["name"][:5] for row in rows]
    assert names[:2] == ["1-003", "0-004"]
    assert [row["kind"] for row in rows[:3]] == ["finalist"] * 3
    assert names[3:9] == [
        "004-a",
        "003-a",
        "002-a",
        "001-a",
        "000-a",
        "005-a",
    ]  # 005 is best at 4 kimg, but stopped there
    assert rows[0]["params"] == rows[4]["params"]
    assert rows[0]["params"]["model.width"] == 16
    assert rows[-1]["score"] is None


def test_failures_are_shown_with_error_and_log(sweep: Path) -> None:
    text, data = written(sweep)
    found = {failure["name"]: failure for failure in data["failures"]}
    assert found.keys() == {"006-ab12cd34", "007-ab12cd34", "2-002-ab12cd34", "judge"}
    assert found["2-002-ab12cd34"]["log_tail"] == "Killed\n"
    assert '<pre tabindex="0">Killed' in text
    assert found["judge"]["what"] == "stage failed, finished later"
    assert "node went away" in text
    assert "loss_d not finite &lt;script&gt;" in text


def test_every_section_of_a_full_sweep_is_drawn(sweep: Path) -> None:
    text, data = written(
        sweep, {"000-ab12cd34": "python jobs/train_gan.py training.lr=1e-4 && true"}
    )
    for div in (
        "scale",
        "training",
        "trials",
        "front",
        "parallel-coordinates",
        "slices",
        "contours-0",
    ):
        assert f'<div id="{div}" class="figure"' in text
    assert "Not drawn: <" not in text

    # scores and their scale
    assert "other photographs of the same people" in text
    assert "<small>[0.045, 0.055]</small>" in text
    assert "<small>ghosting, block shuffling</small>" in text
    assert "too few images: 9" in text
    assert PROTOCOL.id() in text

    # pictures, and those that are missing
    assert text.count("data:image/png;base64,") == 6 + 2 * 3
    assert "pixelated" in text
    assert "finalists/2-002-ab12cd34/evaluate/samples.png is missing" in text

    # where it comes from
    assert "AT&amp;T Laboratories" in text
    assert "run weights.fetch" in text
    assert "4 people have 0; a score needs 8" in text
    assert "training.lr=1e-4 &amp;&amp; true" in text
    assert data["provenance"]["software"]["torch"] == "2.9"
    assert data["judge"]["feature_dim"] == 64


def test_only_trials_that_finished_at_the_last_rung_are_compared_by_their_parameters(
    sweep: Path,
) -> None:
    results = json.loads((sweep / "sweep/results.json").read_text())
    found = studies.study(tried(results), Goal("kd_lite0", "lower")).trials
    assert [trial.value for trial in found] == [
        0.3,
        0.3 / 2,
        0.3 / 3,
        0.3 / 4,
        0.3 / 5,
    ]
    assert [trial.params["model.width"] for trial in found] == [
        32,
        16,
        32,
        16,
        32,
    ]


def test_a_sweep_names_the_networks_that_it_tried(sweep: Path) -> None:
    text, data = written(sweep)
    assert data["networks"] == ["gan/dcgan"]
    assert "of gan/dcgan on orl" in " ".join(text.split())
    results = json.loads((sweep / "sweep/results.json").read_text())
    results["trials"][0]["params"]["model.name"] = "gan/resnet"
    put(sweep / "sweep/results.json", results)
    text, _ = written(sweep)
    assert "of gan/dcgan, gan/resnet on orl" in " ".join(text.split())


def test_what_a_small_sweep_cannot_draw_is_said(sweep: Path) -> None:
    results = json.loads((sweep / "sweep/results.json").read_text())
    put(sweep / "sweep/results.json", {**results, "trials": results["trials"][6:7]})
    assert written(sweep)[0].count("Not drawn") >= 3


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_single_generative_run(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "command.txt", f"python jobs/train_{kind}.py\n")
    put_run(tmp_path, 0.05, kind=kind)
    text, data = written(tmp_path)
    mark = "between new people (0.002) and blurred faces (0.31)"
    assert data["verdict"][0] == f"This run has kd_lite0 0.05 [0.045, 0.055], {mark}."
    assert not any("Caution" in one for one in data["verdict"])
    claim = "dim 3 = glasses, AUROC .31 [.10, .50], q = 1e-02, goes with, control not tested"
    assert claim in data["verdict"]
    assert f"<p>{claim}</p>" in text
    assert "older version" not in text
    rows = re.findall(r"<tr><td>(\d)</td><td>([\w ]+)</td><td>", text)
    assert [int(number) for number, _ in rows] == [3, 1, 0, 1, 2, 3]  # as in the strips, then all
    assert rows[0][1] == "goes with Eyeglasses"
    assert "\n0.31 <small>[0.1, 0.5], q 0.01</small>" in text
    assert ("reconstructions.png" in text) == (kind == "vae")
    assert "finalist" not in text.partition("</style>")[2]
    assert "judge/results.json is missing" in text


def test_dimensions_are_shown_as_they_are_listed_and_those_left_out_are_counted(
    tmp_path: Path,
) -> None:
    put_run(tmp_path, 0.05)
    path = tmp_path / "interpret/results.json"
    more = {
        "listed": [3, 0],
        "codes": {
            "faces": 400,
            "factors": ["Eyeglasses"],
            "scores": {"mig": 0.123},
            "absent": {"dci": "dci needs more factors."},
        },
    }
    put(path, {**json.loads(path.read_text()), **more})
    text, _ = written(tmp_path)
    rows = re.findall(r"<tr><td>(\d)</td><td>[\w ]+</td><td>", text)
    assert [int(number) for number in rows] == [3, 1, 3, 0]  # in the strips, then the listed ones
    assert "2 of 4 dimensions, without 2 that carry nothing" in text
    assert "<dt>mig</dt><dd>0.123</dd>" in text
    assert "Not scored: dci: dci needs more factors." in text


def test_a_classifier_run(tmp_path: Path) -> None:
    put(tmp_path / "config.yaml", "evaluation: {scoring: classifier}\n")
    put(
        tmp_path / "evaluate/results.json",
        {"labels": labels(), "protocols": {PROTOCOL.id(): dataclasses.asdict(PROTOCOL)}},
    )
    text, data = written(tmp_path)
    assert data["kind"] == "classifier"
    assert data["verdict"][0] == "Eyeglasses: balanced accuracy 0.9; guessing gives 0.5."
    assert "1 of 2 labels have counts only" in data["verdict"][1]
    assert "4 people have 0; a score needs 8" in text
    assert ">109</td>" in text
    assert "Traversals" not in text


@pytest.mark.parametrize("job", ["sweep", "generative", "classifier", None])
def test_an_almost_empty_folder_is_told_what_it_lacks(tmp_path: Path, job: str | None) -> None:
    if job:
        put(tmp_path / "config.yaml", json.dumps({"evaluation": {"scoring": job}}))
        put(tmp_path / "command.txt", "python jobs/any.py run=demo\n")
        put(tmp_path / "stages.json", ["pack", "sweep" if job == "sweep" else "train"])
    text, data = written(tmp_path)
    assert "missing" in data["verdict"][0]
    assert ("config.yaml is missing" in text) == (job is None)
    assert data["kind"] == (job or "generative")
    for lack in (
        "jobs.jsonl",
        *([] if job else ["command.txt"]),
        "DONE.json",
        "index.json",
        *(["sweep/results.json"] if job == "sweep" else []),
    ):
        assert lack in text
    assert "plotly.js" not in text
    assert len(text) < 50_000


def test_what_a_training_says_of_itself_at_its_end_is_told(tmp_path: Path) -> None:
    put_run(tmp_path, 0.2)
    lines = [
        {"kimg": 1.0, "loss": 2.0, "health": ["sigma ran up"]},
        {"kimg": 2.0, "loss": 1.0, "health": ["posterior collapse"]},
    ]
    put_lines(tmp_path / "train/metrics-001.jsonl", lines)
    page, facts = written(tmp_path)
    assert "Caution, the training ended ill: posterior collapse" in facts["verdict"]
    assert "sigma ran up" not in page
    assert "Not drawn" not in page.partition('id="training"')[0][-200:]
    assert plots.training_curves([{"run": "r", **line} for line in lines]).data


def test_long_curves_are_drawn_as_short_ones_are() -> None:
    lines = [{"run": "r", "kimg": kimg, "loss": 1.0} for kimg in range(1500)]
    assert {trace.type for trace in plots.training_curves(lines).data} == {"scatter"}


def test_a_training_that_was_set_back_is_told(tmp_path: Path) -> None:
    put_run(tmp_path, 0.2)
    put_lines(tmp_path / "train/metrics-001.jsonl", [{"kimg": 1.0, "loss": 2.0}])
    assert not any("set back" in words for words in written(tmp_path)[1]["verdict"])
    put_lines(tmp_path / "train/metrics-002.jsonl", [{"kimg": 2.0, "loss": 2.0, "setbacks": 2}])
    assert any(
        "set back" in words and "2 times" in words for words in written(tmp_path)[1]["verdict"]
    )


def test_a_model_that_ignores_its_condition_is_called_so() -> None:
    def label(auroc: float, reach: float) -> dict[str, Any]:
        interval = [auroc - reach, auroc + reach]
        return {"scored": True, "auroc": auroc, "auroc_interval": interval}

    heard, deaf = label(0.9, 0.05), label(0.53, 0.06)
    few = {"scored": False}
    assert condition_verdict({"Smiling": heard, "Bald": few}, "") == []
    [words] = condition_verdict({"Smiling": deaf, "Bald": few}, " of f1")
    assert "the model of f1 ignores its condition" in words and "Smiling 0.53" in words
    [words] = condition_verdict({"Smiling": heard, "Male": deaf}, "")
    assert "ignores 1 of 2 labels" in words and "Smiling" not in words


def test_newer_attempts_replace_what_they_repeat(tmp_path: Path) -> None:
    for attempt, kimgs in {1: [1, 2, 3, 4], 2: [3, 4, 5, 6], 10: [5], 9: []}.items():
        put_lines(
            tmp_path / f"metrics-{attempt:03d}.jsonl",
            [{"kimg": kimg, "attempt": attempt} for kimg in kimgs],
        )
    with open(tmp_path / "metrics-010.jsonl", "a") as stream:
        stream.write('{"kimg": 6, "att')  # cut by a kill
    assert [(line["kimg"], line["attempt"]) for line in metrics(tmp_path)] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 10),
    ]


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.0004, "between other photographs of the same people (-0.001) and new people (0.002)"),
        (-0.01, "better than even other photographs of the same people (-0.001)"),
        (0.5, "between blurred faces (0.31) and one face repeated (0.9)"),
        (7.0, "no better than the worst mark of its scale, noise (1.2)"),
    ],
)
def test_a_score_is_placed_on_its_scale(score: float, words: str) -> None:
    assert place(score, SCALE, "lower", rounded) == words


def test_a_score_that_is_better_high_is_placed_the_other_way_round() -> None:
    scale = {"new_people": 0.9, "blur": 0.5, "noise": 0.1}
    assert (
        place(0.6, scale, "higher", rounded) == "between new people (0.9) and blurred faces (0.5)"
    )
    assert place(0.95, scale, "higher", rounded) == "better than even new people (0.9)"
    assert (
        place(0.0, scale, "higher", rounded)
        == "no better than the worst mark of its scale, noise (0.1)"
    )
    assert place(0.6, {}, "higher", rounded) == "without a scale beside it"


def test_numbers_have_three_digits() -> None:
    assert [rounded(value) for value in (0.123456, 12345.6, 2e-5, 7, None, float("nan"), [0.5, 1.0])] == [
        "0.123", "12,346", "2e-05", "7", "–", "–", "0.5, 1",
    ]  # fmt: skip


def test_a_running_search_has_a_page_of_what_its_trials_have_so_far(sweep: Path) -> None:
    results = json.loads((sweep / "sweep/results.json").read_text())
    (sweep / "sweep/results.json").unlink()
    (sweep / "finalists/results.json").unlink()
    goal = {"metric": "kd_lite0", "better": "lower"}
    put(sweep / "sweep/goal.json", goal)
    put(sweep / "stages.json", ["pack", "sweep", "finalists"])

    # two trials, one of which has scored
    for trial in results["trials"][:2]:
        name = f"{trial['number']:03d}-{digest(trial['params'])[:8]}"
        made = {"number": trial["number"], "params": trial["params"]}
        put(sweep / "sweep/trials" / name / "trial.json", made)
    put_lines(sweep / "sweep/trials" / name / "scores.jsonl", trial["scores"][:1])
    _, data = written(sweep)
    assert f"Best trial so far: {name}, kd_lite0 0.25 at 4 kimg." in data["verdict"]
    assert any("The search has not ended" in words for words in data["verdict"])
    assert not any(one["what"].startswith("trial") for one in data["failures"])


def test_what_was_confirmed_stands_beside_what_the_search_chose(sweep: Path) -> None:
    repeats = []
    for seed, value in ((1, 0.02), (2, 0.04)):
        repeats.append(Repeat(f"r{seed}", f"confirm/r{seed}", seed, "finished", value))
    found = Confirmed("003-ab12cd34", 0.075, 12.0, 0.01, tuple(repeats))
    goal = Goal("kd_lite0", "lower")
    put(sweep / "confirm/results.json", confirmation.summary([found], goal, goal))
    text, data = written(sweep)
    assert data["confirmed"]["rows"][0]["mean"] == pytest.approx(0.03)
    assert data["leaderboard"][0]["confirmed"] == pytest.approx(0.03)
    wanted = "Being chosen flattered 003-ab12cd34 by 0.02 of kd_lite0 (the winner's curse)."
    assert wanted in data["verdict"]
    assert "Confirmed best, over 2 fresh seeds: 003-ab12cd34" in text


def test_a_damaged_search_has_a_page_of_what_is_left(sweep: Path) -> None:
    results = json.loads((sweep / "sweep/results.json").read_text())
    results["trials"][0] = {"name": 3}
    results["trials"][1] = None
    put(sweep / "sweep/results.json", results)
    put(sweep / "config.yaml", "a: [1,")
    _, data = written(sweep)
    assert any("Of 6 trials" in words for words in data["verdict"])
    assert data["config"] == {}


def test_a_folder_of_runs_has_a_page(sweep: Path) -> None:
    put_run(sweep.parent / "single", 0.2)
    put(sweep.parent / "single/stages.json", ["train"])
    put(sweep.parent / "broken/config.yaml", "a: [1,")
    put(sweep.parent / "no run/notes.txt", "")
    page, data = runs.write(sweep.parent)
    rows = {row["name"]: row for row in json.loads(data.read_text())["runs"]}
    assert rows.keys() == {"sweep_gan-demo", "single", "broken"}
    assert rows["single"]["state"] == "unfinished"
    assert rows["single"]["score"] == 0.2
    assert "config.yaml is missing or damaged" in rows["broken"]["note"]
    assert rows["sweep_gan-demo"]["trials"] == 8
    assert EVIL not in page.read_text()
    with pytest.raises(UserError, match="has no run"):
        runs.write(sweep.parent / "no run")


def test_importance_is_said_of_enough_trials_alone(tmp_path: Path) -> None:
    _, data = written(search(tmp_path / "few", 8))
    assert all("not enough trials" in one["absent"] for one in data["importance"])
    _, data = written(search(tmp_path / "many", 120))
    whole = next(one for one in data["importance"] if not one["whose"])
    assert whole["method"] == "PED-ANOVA"
    assert {row["param"] for row in whole["rows"][:2]} == {"model.depth", "training.lr"}
    assert all(row["low"] <= row["share"] <= row["high"] for row in whole["rows"])


def test_forests_of_trials_find_what_matters(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    _, data = written(search(tmp_path / "some", 40))
    found = next(one for one in data["importance"] if one["method"] == "fANOVA" and one["rows"])
    assert {row["param"] for row in found["rows"][:2]} == {"model.depth", "training.lr"}
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1, abs=0.01)
