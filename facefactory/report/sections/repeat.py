"""How to repeat it: what was called, the command of each run and trial, and a paragraph of methods for a paper."""

from dataclasses import dataclass
from typing import Any

from facefactory.report.facts import Facts, rounded, text_of
from facefactory.report.sections import Section
from facefactory.report.sections.leaderboard import caption
from facefactory.rundir import read_sealed


@dataclass(frozen=True)
class Repeat:
    """Commands and words."""

    called: str
    commands: dict[str, str]  # of a run or trial -> the command that repeats it
    methods: str


class Component(Section):
    """Commands, and a paragraph of methods."""

    title = "Repeat"
    place = 120

    def data(self, facts: Facts) -> Repeat:
        """What the config and the commands say."""
        called = text_of(facts.folder / "command.txt")
        return Repeat(called, facts.repeat, methods(facts))


def methods(facts: Facts) -> str:
    """What was done, from the config alone; empty: there is none."""
    config = facts.config
    training = config.get("training") or {}
    if not config:
        return ""
    sentences = [_data_words(config.get("pack") or {})]
    if facts.trained and facts.networks:
        objective = config.get("objective") or {}
        words = f"We trained {', '.join(facts.networks)}"
        words += f" with the objective {_named(objective)}" if objective else ""
        words += (
            f" on {rounded(float(training['total_kimg']))} thousand images"
            if ("total_kimg" in training)
            else ""
        )
        sentences.append(words + _training_words(training) + ".")
    if facts.sweeping:
        sentences.append(_search_words(facts))
    if any(run["scores"] for run in facts.runs):
        sentences.append(caption(facts).replace(f"Trials of {facts.name} by", "Scored by"))
    sentences.append(_software_words(facts))
    return " ".join(filter(None, sentences))


def _named(spec: dict[str, Any]) -> str:
    """A component with its options, in words."""
    options = [f"{name} {_option(value)}" for name, value in spec.items() if name != "name"]
    return f"{spec.get('name', '')} ({'; '.join(options)})" if options else str(spec.get("name"))


def _option(value: Any) -> str:
    if isinstance(value, dict):
        return (
            _named(value)
            if "name" in value
            else ", ".join(f"{name} ({_option(one)})" for name, one in value.items())
        )
    return rounded(value)


def _data_words(pack: dict[str, Any]) -> str:
    if not pack.get("recipe"):
        return ""
    return (
        f"Faces: {pack['recipe']}, {pack.get('resolution', '?')} pixels, "
        f"{pack.get('color', 'as they are')}."
    )


def _training_words(training: dict[str, Any]) -> str:
    """Optimiser, rates and averaging, as far as the config names them."""
    named = {
        "optimiser": "optimiser {}",
        "lr": "learning rate {}",
        "betas": "betas {}",
        "batch_size": "batches of {}",
        "precision": "{}",
        "augment": "augmentation {}",
        "ema_half_lives_kimg": "averaged weights of half-life {} kimg",
    }
    words = [
        text.format(rounded(training[key])) for key, text in named.items() if training.get(key)
    ]
    return f" ({', '.join(words)})" if words else ""


def _search_words(facts: Facts) -> str:
    """How trials were found, compared and stopped."""
    options = facts.config.get("sweep") or {}
    if not options:
        return ""
    scheduler = options.get("scheduler")
    if scheduler is None:
        scheduler = "asha" if options.get("early_stopping", True) else "none"
    return (
        f"{len(facts.trials)} trials of the space {options.get('space', '?')} were proposed by "
        f"{options.get('sampler', '?')} and compared by {facts.metric} between {rounded(options.get('min_kimg'))} and "
        f"{rounded(options.get('max_kimg'))} thousand images (scheduler {scheduler}, factor {rounded(options.get('reduction'))}); "
        f"the best {rounded(options.get('finalists'))} went on to the full budget. Seed {facts.config.get('seed', '?')}."
    )


def _software_words(facts: Facts) -> str:
    """Package versions of a stage that finished."""
    for path in sorted(facts.folder.glob("*/DONE.json")):
        software = (read_sealed(path) or {}).get("software")
        if software:
            versions = [
                f"{name} {value}" for name, value in software.items() if isinstance(value, str)
            ]
            return f"Software: FaceFactory; {', '.join(versions)}."
    return ""
