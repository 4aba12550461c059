"""READ FIRST: what a section of report.html is. One section a file; the file's name is the section's name.

Beside `NAME.py` lies `NAME.html`, a template that gets the facts of the run and `data`, what the section found out; it
may have `NAME.js`, a script. What `data` returns stands in report.json under the section's name, and its annotation is
the section's part of the schema. Who writes the page asks the sections, and knows none by name.
"""

from __future__ import annotations

import typing
from typing import Any, Protocol

from markupsafe import Markup

from facefactory import registry
from facefactory.report.facts import Facts

PACKAGE = "report.sections"


class Section(Protocol):
    """A section of the page. What is not written down in its file is as here."""

    title: str
    place: int  # on the page: sections stand in this order
    kinds: tuple[str, ...] = ("sweep", "generative", "classifier", "pictures")  # of runs it is for

    @property
    def name(self) -> str:
        """The file's name."""
        return type(self).__module__.rpartition(".")[2]

    def suits(self, facts: Facts) -> bool:
        """Whether the page of this run has it."""
        return facts.kind in self.kinds

    def data(self, facts: Facts) -> Any:
        """What it tells, as report.json holds it: records, lists and dicts without NaN."""
        ...

    def figures(self, facts: Facts, data: Any) -> dict[str, Markup]:
        """Its figures, by the names that its template has for them."""
        return {}

    def scripted(self, facts: Facts, data: Any) -> Any:
        """What its script reads, as JSON; None: nothing."""
        return None


def every() -> list[Section]:
    """All sections, in the order of the page."""
    found = [registry.module(PACKAGE, name).Component() for name in registry.names(PACKAGE)]
    return sorted(found, key=lambda section: section.place)


def told(section: Section) -> Any:
    """The type of what a section tells."""
    return typing.get_type_hints(type(section).data)["return"]
