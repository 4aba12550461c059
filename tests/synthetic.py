"""A search that never ran: trials of four families, as a search leaves them, for reports of any size."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.01, "log": true}}'
DEPTH = '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 2, "high": 6}}'
FAMILIES = {
    "gan/dcgan": {"model.width": [16, 32, 64]},
    "gan/resnet": {"model.blocks": [2, 3, 4]},
    "gan/stylegan2": {"model.mapping": [2, 4, 8], "objective.terms.path.weight": [1, 2]},
    "gan/r3": {"model.groups": [1, 4, 16]},
}


def choice(values: list[Any]) -> str:
    return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": values}})


def trial(number: int, draw: random.Random) -> dict[str, Any]:
    """One trial: better with a learning rate near 1e-3 and with depth; a third stops at each rung."""
    family = draw.choice(list(FAMILIES))
    params: dict[str, Any] = {
        "model.name": family,
        "training.lr": 10 ** draw.uniform(-5, -2),
        "model.depth": draw.randint(2, 6),
    }
    kinds = {
        "model.name": choice(list(FAMILIES)),
        "training.lr": LR,
        "model.depth": DEPTH,
    }
    for name, values in FAMILIES[family].items():
        params[name] = draw.choice(values)
        kinds[name] = choice(values)

    # how it went
    scores = []
    state = "finished"
    quality = abs(params["training.lr"] - 1e-3) * 300 + 6 / params["model.depth"]
    for rung in (1.0, 3.0, 9.0):
        noise = draw.uniform(0.8, 1.2)
        value = 10 * noise * (quality + 3 / rung)
        scores.append({"kimg": rung, "kd_lite0": value, "seconds": 40 * rung * noise})
        if rung < 9 and draw.random() < 0.4:
            state = "stopped"
            break
    error = None
    if draw.random() < 0.03:
        state = "failed"
        error = "torch.OutOfMemoryError: CUDA out of memory"
    return {
        "name": f"{number:03d}-{draw.getrandbits(32):08x}",
        "number": number,
        "params": params,
        "distributions": kinds,
        "state": state,
        "scores": scores,
        "error": error,
    }


def search(folder: Path, trials: int) -> Path:
    """The folder of a search with so many trials and no finalist."""
    draw = random.Random(0)
    found = [trial(number, draw) for number in range(trials)]
    (folder / "sweep").mkdir(parents=True)
    config = {
        "seed": 0,
        "pack": {"recipe": "drawn", "resolution": 32, "color": "gray"},
        "model": {"name": "gan/dcgan"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    results = {"metric": "kd_lite0", "better": "lower", "trials": found}
    (folder / "sweep" / "results.json").write_text(json.dumps(results))
    return folder
