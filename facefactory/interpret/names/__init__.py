"""What labels are about: a small YAML a set groups synonyms under one attribute and gives both ends a word.

`celeba.yaml` speaks of the set that a recipe calls `celeba`. Labels that no file names stand for themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from facefactory.results import Contrast


@dataclass(frozen=True)
class Names:
    """The words of a set."""

    attributes: Mapping[str, str] = field(default_factory=dict)  # label -> attribute
    words: Mapping[str, list[str]] = field(default_factory=dict)  # label -> of both ends, or []

    def attribute(self, label: str) -> str:
        """What a label is about."""
        return self.attributes.get(label, label)

    def ends(self, contrast: Contrast) -> tuple[str, str]:
        """What faces with small and large values show, in a word; "": there is none."""
        words = self.words.get(contrast.label, [])
        if words:
            return words[0], words[1]
        if contrast.against:
            return f"not {contrast.against}", contrast.against
        return ("", "") if contrast.measure == "auroc" else ("less", "more")


def of(dataset: str) -> Names:
    """The words of a set by its name; none where no file is called so."""
    path = Path(__file__).parent / f"{dataset}.yaml"
    if not path.is_file():
        return Names()
    groups = yaml.safe_load(path.read_text())
    attributes = {label: name for name, labels in groups.items() for label in labels}
    words = {label: ends for labels in groups.values() for label, ends in labels.items()}
    return Names(attributes, words)
