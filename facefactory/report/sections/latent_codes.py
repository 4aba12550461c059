"""What is known of the dimensions of latent codes: claims in words, with a link to each run's own page of them."""

import dataclasses
from typing import Any

from facefactory.report import claims, compared
from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.rundir import read_results


class Component(Section):
    """Claims of the finalists, or of the one run."""

    title = "Latent codes"
    place = 80
    kinds = ("sweep", "generative")

    def suits(self, facts: Facts) -> bool:
        """Of models that have codes."""
        return super().suits(facts) and not any(run["labels"] for run in facts.runs)

    def data(self, facts: Facts) -> dict[str, Any]:
        """The claims of the first run and of another one, compared, or why they are not; empty: none was asked for.

        What is known of single runs stands among the facts.
        """
        if facts.beside is None:
            return {}
        latents = []
        for path in (facts.folder / facts.runs[0]["folder"], facts.beside):
            latent = claims.read(read_results(path / "interpret"))
            if latent is None:
                lack = f"{path.name} has no claims about its dimensions: run jobs/interpret.py for it."
                return {"name": facts.beside.name, "lack": lack}
            latents.append(latent)
        found = compared.claims(*latents)
        found["pairs"] = [dataclasses.asdict(pair) for pair in found["pairs"]]
        return {"name": facts.beside.name, "lack": "", "whose": facts.runs[0]["name"], **found}
