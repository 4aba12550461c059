"""Writes report.html, one file without any outside link, and report.json, the same facts as data."""

import base64
import functools
import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pydantic_core
from markupsafe import Markup
from PIL import Image
from pydantic import TypeAdapter

from facefactory.report import sections
from facefactory.report.facts import VERSION, Facts, Head, finite, gather, rounded, span
from facefactory.report.sections import Section
from facefactory.rundir import atomic, write_json

FIGURE = 'class="figure"'  # what is drawn by a script carries it
SCHEMA = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Part:
    """A section as the page has it."""

    name: str
    title: str
    data: Any  # as JSON can hold it
    html: Markup
    script: Markup  # what its script reads, and the script


def write(folder: Path, repeat: dict[str, str], beside: Path | None = None) -> list[Path]:
    """Write report.html and report.json of a run folder.

    Args:
        folder: a sweep, a generative run or a classifier run; whatever it lacks is named in the page.
        repeat: name of a trial or run -> the shell command that repeats it.
        beside: another run, whose claims about latent dimensions stand beside those of this one.
    """
    facts = gather(folder, repeat, beside)
    parts = list(parts_of(facts))
    content = pydantic_core.to_jsonable_python(facts.head())
    content |= {part.name: part.data for part in parts}
    return put("report.html", folder, finite(content), parts=parts)


def parts_of(facts: Facts) -> Iterator[Part]:
    """The sections that suit a run; one that fails on damaged files is named in its place."""
    environment = environment_of(facts.folder)
    context = vars(facts.head()) | {"facts": facts, "runs": facts.runs, "judge": facts.judge}
    context |= {"sweeping": facts.sweeping, "trained": facts.trained}
    for section in sections.every():
        if not section.suits(facts):
            continue
        try:
            yield _part(environment, section, facts, context)
        except Exception as error:  # other sections have something to say still
            words = f"This section could not be written from the files that are there ({type(error).__name__}: {error})."
            html = Markup('<p class="none">{}</p>').format(words)
            yield Part(section.name, section.title, None, html, Markup())


def _part(
    environment: jinja2.Environment, section: Section, facts: Facts, context: dict[str, Any]
) -> Part:
    """A section, written."""
    data = section.data(facts)
    figures = section.figures(facts, data)
    template = environment.get_template(f"{section.name}.html")
    html = Markup(template.render(**context, section=section, data=data, figures=figures))

    # what its script reads, then the script
    script = Markup()
    scripted = section.scripted(facts, data)
    if scripted is not None:
        text = in_script(finite(pydantic_core.to_jsonable_python(scripted)))
        code = Markup(environment.get_template(f"{section.name}.js").render())
        holder = (
            '<script type="application/json" id="data-{0}">{1}</script>\n<script>\n{2}</script>\n'
        )
        script = Markup(holder).format(section.name, text, code)
    return Part(section.name, section.title, pydantic_core.to_jsonable_python(data), html, script)


def schema() -> dict[str, Any]:
    """The JSON schema of report.json: of its head, and of what each section tells; a run has those that suit it."""
    adapters: list[Any] = [(Head, "serialization", TypeAdapter(Head))]
    known = sections.every()
    for section in known:
        told = TypeAdapter(sections.told(section))
        adapters.append((section.name, "serialization", told))
    found, definitions = TypeAdapter.json_schemas(adapters)
    head = definitions["$defs"].pop("Head")
    properties = dict(head["properties"])
    for section in known:
        own = found[section.name, "serialization"]
        properties[section.name] = {"anyOf": [own, {"type": "null"}]}
    return {
        "$schema": SCHEMA,
        "title": f"report.json, version {VERSION}",
        "type": "object",
        "properties": properties,
        "required": head["required"],
        "additionalProperties": False,
        **definitions,
    }


def put(template: str, folder: Path, facts: dict[str, Any], **more: Any) -> list[Path]:
    """Write report.html from a template, with the PNG files of the folder that it shows, and the facts as report.json."""
    text = rendered(template, folder, **facts, **more)
    if FIGURE in text:
        text = text.replace("</main>", f"</main>\n{library()}", 1)
    page, data = folder / "report.html", folder / "report.json"
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(data, facts)
    return [page, data]


@functools.cache
def library() -> Markup:
    """Plotly.js, packed: a script unpacks it when the first figure comes into sight."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs()
    licence = code[: code.index("*/")].strip("/* \n")
    packed = base64.b64encode(gzip.compress(code.encode(), 6, mtime=0)).decode()
    holder = '<!-- {} -->\n<script type="text/plain" id="plotly">{}</script>'
    return Markup(holder).format(Markup(licence.replace("--", "- -")), Markup(packed))


def in_script(value: Any) -> Markup:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def rendered(template: str, folder: Path, **values: Any) -> str:
    """The text of a page whose template may show the PNG files of the folder."""
    return environment_of(folder).get_template(template).render(**values)


def environment_of(folder: Path) -> jinja2.Environment:
    """What templates are rendered in: those of pages, and of sections."""
    places = ("templates", "sections")
    loaders = [jinja2.PackageLoader("facefactory.report", place) for place in places]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=jinja2.select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rounded": rounded, "span": span}
    environment.globals |= {
        "picture": partial(picture, folder),
        "first_row": partial(first_row, folder),
        "brief": brief,
        "samples": partial(samples, folder),
        "is_there": lambda name: (folder / name).is_file(),
    }
    return environment


def brief(text: Markup) -> Markup:
    """A text with 12 digits of each digest; report.json has all."""
    return Markup(re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text))


def picture(folder: Path, name: str, fit: int = 1040) -> Markup | None:
    """A PNG as an <img> that carries its bytes, enlarged by a whole number up to `fit` pixels; None without a file."""
    path = folder / name
    if not path.is_file():
        return None
    content = path.read_bytes()
    width = int.from_bytes(content[16:20])  # PNG: the header chunk begins with width and height
    return _image(content, width * min(6, max(1, fit // max(1, width))), name)


def first_row(folder: Path, name: str, height: int) -> Markup | None:
    """The uppermost `height` pixels of a PNG as an <img>, at most 8 square tiles; None: it cannot be read."""
    try:
        with Image.open(folder / name) as opened:
            row = opened.crop((0, 0, min(opened.width, 8 * height), min(opened.height, height)))
            stream = io.BytesIO()
            row.save(stream, "PNG")
    except (OSError, ValueError):
        return None
    return _image(stream.getvalue(), max(row.width, 250 // max(1, row.width) * row.width), name)


def _image(content: bytes, width: int, name: str) -> Markup:
    image = '<img loading="lazy" width="{}" alt="{}" src="data:image/png;base64,{}">'
    return Markup(image).format(width, name, base64.b64encode(content).decode())


def samples(folder: Path, run: str) -> str:
    """The sample grid that speaks for a run: evaluate's, else the last that training drew."""
    drawn = sorted(
        path.relative_to(folder) for path in (folder / run / "train/samples").glob("*.png")
    )
    judged = Path(run) / "evaluate/samples.png"
    return str(judged if (folder / judged).is_file() or not drawn else drawn[-1])
