"""The findings in sentences, the most important first."""

from collections import Counter
from typing import Any

from facefactory.report import scores
from facefactory.report.costs import costs
from facefactory.report.facts import Facts, rounded, span
from facefactory.report.failing import endings
from facefactory.report.sections import Section
from facefactory.report.sections.confirmed import confirmation
from facefactory.report.sections.scores import disagreements
from facefactory.results import Selection

TOLD = 4  # sentences about dimensions that stand at the top


class Component(Section):
    """Who won and by how much, what takes weight from that, what it cost, what failed, what to try next."""

    title = "Verdict"
    place = 10

    def data(self, facts: Facts) -> list[str]:
        """The sentences."""
        return verdict(facts)


def verdict(facts: Facts) -> list[str]:
    """All sentences that hold of the run."""
    sentences = []
    labels = facts.runs[0]["labels"] if facts.runs else {}
    if facts.kind == "classifier":
        sentences += label_verdict(labels)
    else:
        sentences.append(score_verdict(facts))
        sentences += confirmed_verdict(facts)
        sentences += _doubts(facts)
    sentences += _trainings(facts)
    if facts.sweeping:
        sentences += search_verdict(facts)
    elif facts.kind == "generative":
        seeds = "One run with one seed: how much its scores vary between seeds is not known."
        sentences.append(seeds)
    return sentences


def _doubts(facts: Facts) -> list[str]:
    """What takes weight from the score."""
    sentences = []
    copies = [run["name"] for run in facts.runs if run["copied"]]
    if copies:
        sentences.append(
            f"Caution, tests of copying say that training faces were copied: {', '.join(copies)}; "
            "look for memorised faces among the nearest."
        )
    sentences += disagreement_verdict(disagreements(facts))
    blind: tuple[str, ...] = ()
    for row in scores.rows(facts.runs):
        if row["name"] == facts.metric:
            blind = row["blind"]
    if blind:
        sentences.append(f"On this set {facts.metric} is blind to {scores.blind_words(blind)}.")
    return sentences


def _trainings(facts: Facts) -> list[str]:
    """What each run says of its training, its condition and its dimensions."""
    sentences = []
    for run in facts.runs:
        whose = f" of {run['name']}" if facts.sweeping else ""
        sentences += [
            f"Caution, the training{whose} ended ill: {words}" for words in run["health"]
        ]
        if run["setbacks"]:
            sentences.append(
                f"The training{whose} collapsed and was set back to where it was healthy, {run['setbacks']} times in all; "
                "each time other numbers were drawn and learning rates halved."
            )
    for run in facts.runs:
        whose = f" of {run['name']}" if facts.sweeping else ""
        sentences += selection_verdict(run, whose)
        sentences += condition_verdict(run.get("agreement") or {}, whose)

    # what dimensions go with
    for run in facts.runs:
        whose = f"Of {run['name']}: " if facts.sweeping else ""
        told = run["claims"][: 2 if facts.sweeping else TOLD]
        sentences += [f"{whose}{words}" for words in told]
    return sentences


def search_verdict(facts: Facts) -> list[str]:
    """How the trials ended, what they cost, what failed, what to try next, and what cannot be said."""
    if not facts.trials:
        return ["The trials are not known yet: sweep/results.json is missing."]
    states = Counter(trial.state for trial in facts.trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    sentences = [f"Of {states.total()} trials, {counts}."]
    if facts.searching:
        sentences.append(
            "The search has not ended (sweep/results.json is missing): what stands here is what its trials have so far."
        )
    if not any(run["score"] is not None for run in facts.runs):
        sentences += best_so_far(facts)

    # what it cost, what failed, what is next
    spent = costs(facts)
    if spent.total_hours:
        sentences.append(f"Its trainings took {span(3600 * spent.total_hours)} in all.")
    failed = Counter(one.cause or "cause not recorded" for one in endings(facts))
    if failed:
        why = ", ".join(f"{cause} {count}" for cause, count in failed.most_common())
        sentences.append(f"Not everything ended well ({why}): see Failures.")
    sentences += next_steps(facts)
    if not confirmation(facts).rows:
        sentences.append(
            "What the sweep cannot say: every trial ran with one seed, so small differences may be chance; the winner was "
            "picked by the score shown, which flatters it; trials that were stopped early might have caught up."
        )
    return sentences


def best_so_far(facts: Facts) -> list[str]:
    """The best of the trials that came furthest, where no finalist has a score yet."""
    scored = [(last, trial) for trial in facts.trials if (last := trial.last(facts.metric))]
    if not scored:
        return []
    (kimg, score), best = min(scored, key=lambda one: (-one[0][0], facts.sign * one[0][1]))
    return [
        f"Best trial so far: {best.name}, {facts.metric} {rounded(score)} at {rounded(kimg)} kimg."
    ]


def next_steps(facts: Facts) -> list[str]:
    """Numbers whose best value lies at an end of its range: the range was too narrow there."""
    import optuna

    scored = [(last, trial) for trial in facts.trials if (last := trial.last(facts.metric))]
    if not scored:
        return []
    furthest = max(kimg for (kimg, _), _ in scored)
    ended = [(score, trial) for (kimg, score), trial in scored if kimg == furthest]
    _, best = min(ended, key=lambda pair: facts.sign * pair[0])
    edges = []
    for name, text in best.distributions.items():
        kind = optuna.distributions.json_to_distribution(text)
        if isinstance(kind, optuna.distributions.CategoricalDistribution) or kind.single():
            continue
        place = _place(kind, best.params[name])
        if place < 0.05 or place > 0.95:
            end = "lower" if place < 0.5 else "upper"
            edges.append(f"{name} ({rounded(best.params[name])}, at the {end} end)")
    if not edges:
        return []
    return [f"To try next: a wider range of {', '.join(edges)}, where the best trial lies."]


def _place(kind: Any, value: float) -> float:
    """Where a value lies in its range, 0…1, on a logarithmic scale where it was drawn so."""
    import math

    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return (value - kind.low) / (kind.high - kind.low)


def confirmed_verdict(facts: Facts) -> list[str]:
    """The best on fresh seeds, and how much the search flattered its own; none where nothing was confirmed."""
    found = confirmation(facts)
    best = next((row for row in found.rows if row.trial == found.confirmed_best), None)
    if best is None:
        return []
    interval = f" [{rounded([best.low, best.high])}]" if best.low is not None else ""
    words = f"Confirmed best, over {best.seeds} fresh seeds: {best.trial}, {found.metric} {rounded(best.mean)}{interval}"
    if found.search_best != best.trial:
        words += f"; the search's best was {found.search_best}"
    sentences = [words + "."]
    if found.curse is not None:
        sentences.append(
            f"Being chosen flattered {found.search_best} by {rounded(abs(found.curse))} of {found.metric} (the winner's curse)."
            if facts.sign * found.curse < 0
            else f"Being chosen did not flatter {found.search_best}: fresh seeds are better by {rounded(abs(found.curse))}."
        )
    return sentences


def score_verdict(facts: Facts) -> str:
    """Who won, and where the score lies on its scale."""
    metric = facts.metric
    sweeping = facts.sweeping
    if facts.unlike:
        pairs = facts.unlike.items()
        differing = "; ".join(
            f"{name}: {' and '.join(map(rounded, values))}" for name, values in pairs
        )
        return f"No winner is named: the finalists were scored by unlike protocols ({differing})."
    ranked = [run for run in facts.runs if run["score"] is not None]
    if not ranked:
        who = f"No finalist has {metric}" if sweeping else f"This run has no {metric}"
        return f"{who} yet: evaluate/results.json is missing or lacks it."

    # the winner, on the scale and beside the next one
    best, *others = ranked
    interval = f" [{rounded(best['interval'])}]" if best["interval"][0] is not None else ""
    mark = scores.place(best["score"], best["scale"], facts.better, rounded)
    where = f"{metric} {rounded(best['score'])}{interval}, {mark}"
    if not sweeping:
        who = "These pictures have" if facts.kind == "pictures" else "This run has"
        return f"{who} {where}."
    behind = (
        f"The runner-up, {others[0]['name']}, has {rounded(others[0]['score'])}."
        if others
        else "No other has a score."
    )
    return f"Finalist {best['name']} won: {where}. {behind}"


def selection_verdict(run: dict[str, Any], whose: str) -> list[str]:
    """How the best snapshot was chosen, what it is worth, and which one the scores are of."""
    if run["selection"] is None:
        return []
    words = Selection(**run["selection"]).words()
    if run["scores"]:
        words += f" Scores and images{whose} are of the {run['snapshot']} one."
    return [words]


def condition_verdict(agreement: dict[str, Any], whose: str) -> list[str]:
    """A sentence where images do not show what they were asked to, by the AUROC of the judge's verdict."""
    scored = {name: label for name, label in agreement.items() if label["scored"]}
    ignored = [name for name, label in scored.items() if label["auroc_interval"][0] <= 0.5]
    if not ignored:
        return []
    figures = ", ".join(f"{name} {rounded(scored[name]['auroc'])}" for name in ignored)
    what = (
        "its condition"
        if len(ignored) == len(scored)
        else f"{len(ignored)} of {len(scored)} labels"
    )
    return [
        f"Caution, the model{whose} ignores {what}: the judge cannot tell images that were asked to show it from "
        f"those that were not (AUROC, 0.5 is guessing: {figures})."
    ]


def disagreement_verdict(found: list[dict[str, Any]]) -> list[str]:
    """A sentence where two feature networks rank the finalists differently."""
    sentences = []
    for one in found:
        rankings = "; ".join(
            f"{name}: {', '.join(order)}" for name, order in one["rankings"].items()
        )
        sentences.append(
            f"Feature networks disagree (Kendall's tau {rounded(one['tau'])}), the best first by {rankings}."
        )
    return sentences


def label_verdict(labels: dict[str, Any]) -> list[str]:
    """What a classifier knows, its best label first."""
    if not labels:
        return [
            "This classifier has no scores yet: evaluate/results.json is missing or names no labels."
        ]
    scored = [
        (label["balanced_accuracy"], name, len(label["classes"]))
        for name, label in labels.items()
        if label["scored"]
    ]
    sentences = [
        f"{name}: balanced accuracy {rounded(accuracy)}; guessing gives {rounded(1 / classes)}."
        for accuracy, name, classes in sorted(scored, reverse=True)
    ]
    few = f"{len(labels) - len(scored)} of {len(labels)} labels have counts only: too few examples for a score."
    return sentences + [few] * (len(scored) < len(labels))
