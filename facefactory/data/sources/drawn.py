"""Faces drawn here: any number, any size, every factor known. They show nobody, and nobody's gender is meant.

Image i of a seed is a pure function of (seed, i): each factor has a stream of its own (Philox: Salmon et al., SC 2011), keyed by
(seed, CRC-32 of its name) and read at place i. Factors, made of sums, products and roots, are the same everywhere, pixels by one Pillow.
"""

import functools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from facefactory import UserError, config
from facefactory.data.sources import Found

Color = tuple[int, int, int]
BLACK, WHITE, FRAME = (0, 0, 0), (255, 255, 255), (26, 22, 24)
HAIR = {
    "black": (30, 25, 27),
    "brown": (82, 48, 30),
    "blond": (226, 188, 110),
    "gray": (170, 170, 174),
    "red": (178, 74, 32),
}
BACKGROUNDS = {
    "white": (226, 226, 222),
    "gray": (128, 130, 134),
    "blue": (92, 132, 184),
    "green": (98, 146, 108),
}
BACKGROUNDS |= {"ochre": (196, 160, 92), "violet": (140, 104, 160)}
SKIN = [
    (255, 236, 226),
    (244, 206, 178),
    (222, 172, 134),
    (186, 130, 92),
    (134, 86, 58),
    (86, 54, 40),
]  # skin_tone 0…1
# CelebA's attributes. Hair: share of the images; what the four leave over is red. Others: share, factor, its range without, with.
COLORED = {"Black_Hair": 0.3, "Brown_Hair": 0.25, "Blond_Hair": 0.2, "Gray_Hair": 0.15}
ATTRIBUTES = {
    "Pale_Skin": (0.15, "skin_tone", (0.25, 1.0), (0.0, 0.1)),
    "Bangs": (0.25, "fringe", (0.0, 0.0), (0.5, 1.0)),
    "Eyeglasses": (0.3, "glasses_size", (-1.0, 1.0), (-1.0, 1.0)),
    "No_Beard": (0.75, "beard", (0.5, 1.0), (0.0, 0.0)),
    "Heavy_Makeup": (0.3, "makeup", (0.0, 0.0), (0.5, 1.0)),
    "Wearing_Lipstick": (0.35, "lipstick", (0.0, 0.0), (0.5, 1.0)),
    "Smiling": (0.5, "smile", (-0.2, 0.2), (0.6, 1.0)),
    "Mouth_Slightly_Open": (0.4, "mouth_open", (0.0, 0.0), (0.5, 1.0)),
    "Bushy_Eyebrows": (0.25, "brow", (0.0, 0.4), (0.7, 1.0)),
}
# Factors without an attribute, uniform between - and + this; yaw and tilt in degrees, to the image's right and clockwise.
FREE = {"yaw": 40.0, "tilt": 8.0} | dict.fromkeys(
    ("light", "hair_length", "hair_shade", "hairline", "parting", "jaw"), 1.0
)
FREE |= dict.fromkeys(
    ("face_width", "eye_distance", "eye_size", "iris", "brow_height", "nose_size", "mouth_width"),
    1.0,
)
FREE |= dict.fromkeys(("shirt", "size", "shift_x", "shift_y", "background_shade"), 1.0)


@dataclass(frozen=True)
class Options:
    """What a recipe says below `drawn:`."""

    images: int = config.key(10_000, "how many", low=1, high=10**8)
    seed: int = config.key(0, "another seed, other faces", low=0, high=2**63 - 1)
    prevalence: dict[str, float] = config.key({}, "attribute -> share of the images that have it")
    correlate: dict[str, list[Any]] = config.key(
        {}, "attribute -> [one before it in the list, phi]; shares stay"
    )
    noise: float = config.key(
        0.0,
        "share of each attribute's labels that are flipped; the factors stay true",
        low=0,
        high=1,
    )


def chances(options: Options) -> dict[str, tuple[Any, float, float]]:
    """Attribute -> (an attribute it follows, its share of the images without that one, with it); UserError: impossible ones."""
    share = COLORED | {name: entry[0] for name, entry in ATTRIBUTES.items()}
    order = list(share)
    for name, given in options.prevalence.items():
        if name not in order or not 0 <= given <= 1:
            raise UserError(
                f"drawn.prevalence has {name}: {given}; it takes shares from 0 to 1 of {', '.join(order)}."
            )
    share |= options.prevalence
    if (total := sum(share[name] for name in COLORED)) > 1 + 1e-9:
        raise UserError(
            f"drawn.prevalence: {', '.join(COLORED)} add up to {total:g}; at most 1 is possible (the rest is red)."
        )
    found: dict[str, tuple[Any, float, float]] = {
        name: (None, given, given) for name, given in share.items()
    }
    for name, entry in options.correlate.items():
        cause, phi = entry if len(entry) == 2 else (None, None)
        if (
            name not in ATTRIBUTES
            or cause not in order[: order.index(name)]
            or not isinstance(phi, int | float)
        ):
            allowed = "an attribute (no hair colour) takes [one before it, phi], in the order"
            raise UserError(f"drawn.correlate has {name}: {entry}; {allowed} {', '.join(order)}.")
        a, b = share[name], share[cause]
        spread = (a * (1 - a) * b * (1 - b)) ** 0.5
        low, high = (
            ((max(0, a + b - 1) - a * b) / spread, (min(a, b) - a * b) / spread)
            if spread
            else (0, 0)
        )
        if not (spread and low <= phi <= high):
            allowed = f"prevalences {a:g} of {name} and {b:g} of {cause} allow phi from {low:.3f} to {high:.3f}"
            raise UserError(
                f"drawn.correlate has {name}: {entry}; {allowed}: change one of the three."
            )
        found[name] = (cause, a - phi * spread / (1 - b), a + phi * spread / b)
    return found


def uniform(name: str, options: Options, first: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) of the stream `name`, one for each of the images first…first+count-1."""
    skip = first % 4  # a step of the counter makes four numbers
    stream = np.random.Philox(
        key=np.array([options.seed, zlib.crc32(name.encode())], np.uint64), counter=first // 4
    )
    return (stream.random_raw(skip + count)[skip:] >> np.uint64(11)) * 2.0**-53


def factors(options: Options, first: int, count: int) -> pd.DataFrame:
    """What the images first…first+count-1 show: a row an image, a column a factor; hair_color, background, glasses are text."""
    draws, chance = (
        functools.partial(uniform, options=options, first=first, count=count),
        chances(options),
    )
    color = np.searchsorted(
        np.cumsum([chance[name][1] for name in COLORED]), draws("hair_color"), side="right"
    )
    has = {name: color == number for number, name in enumerate(COLORED)}
    made: dict[str, Any] = {"hair_color": np.array(list(HAIR))[color]}
    for name, (_, factor, *ranges) in ATTRIBUTES.items():
        cause, without, within = chance[name]
        has[name] = draws(name) < (np.where(has[cause], within, without) if cause else within)
        low, high = (
            np.where(has[name], present, absent) for absent, present in zip(*ranges, strict=True)
        )
        made[factor] = (low + (high - low) * draws(factor)).astype(np.float32)
    made["glasses"] = np.where(
        has["Eyeglasses"], np.where(draws("glasses") < 1 / 3, "dark", "clear"), "none"
    )
    made["background"] = np.array(list(BACKGROUNDS))[
        (draws("background") * len(BACKGROUNDS)).astype(int)
    ]
    made |= {
        name: (most * (2 * draws(name) - 1)).astype(np.float32) for name, most in FREE.items()
    }
    return pd.DataFrame(made, index=np.arange(first, first + count))


def attributes(shown: pd.DataFrame) -> pd.DataFrame:
    """CelebA's attributes (0 / 1) that follow from rows of `factors`, also from rows that were changed since."""
    found = {
        name: shown["hair_color"] == color for name, color in zip(COLORED, HAIR, strict=False)
    }
    found |= {
        name: shown[factor].between(low - 1e-6, high + 1e-6)
        for name, (_, factor, _, (low, high)) in ATTRIBUTES.items()
    }
    return pd.DataFrame(found | {"Eyeglasses": shown["glasses"] != "none"}).astype(np.int8)


def table(options: Options) -> pd.DataFrame:
    """Labels of the whole set, indexed by file name: the attributes, `noise` of them flipped, then the true factors."""
    labels = attributes(shown := factors(options, 0, options.images))
    for name in labels:
        labels[name] ^= (
            uniform(f"{name} noise", options, 0, options.images) < options.noise
        ).view(np.int8)
    return pd.concat([labels, shown], axis=1).set_axis(
        [f"{number:08d}.png" for number in shown.index]
    )


CIRCLE = np.exp(2j * np.pi * np.arange(32) / 32)  # outlines are complex: x + iy
A, U = (
    0.74,
    np.linspace(-1.0, 1.0, 13),
)  # half-width of the head, whose half-height is 1; points along a curve
ARCH = 1 - U**2
INSIDE = np.clip(1 - np.linspace(-1, 1, 64) ** 2 - np.linspace(-1, 1, 64)[:, None] ** 2, 0, 1)
FADE = Image.fromarray((255 * INSIDE**1.5 * (2 - INSIDE)).astype(np.uint8))
JAW = np.exp(1j * np.linspace(0.0, np.pi, 17))
FACE, FLAT, ROUND, BODY = range(
    4
)  # on the front of the head; in a plane that turns with it; as wide from all sides; not turning


class Patch(NamedTuple):
    """A filled outline in head coordinates: x to the right, y down, the head from (-A, -1) to (A, 1), z to the viewer."""

    outline: np.ndarray
    color: Color
    where: int = FACE
    lift: float = 0.0  # z; on FACE above the skin
    soft: bool = False  # an ellipse that fades towards its rim


def mix(a: Color, b: Color, share: float) -> Color:
    """From `a` (share 0) to `b` (share 1)."""
    return (
        int(a[0] + (b[0] - a[0]) * share),
        int(a[1] + (b[1] - a[1]) * share),
        int(a[2] + (b[2] - a[2]) * share),
    )


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Half-axes `width` and `height` around (x, y)."""
    return (width + height) / 2 * CIRCLE + (width - height) / 2 * CIRCLE.conj() + complex(x, y)


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline between two curves over the same x."""
    return np.concatenate([x + 1j * top, (x + 1j * bottom)[::-1]])


def hairline(f: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Where the hair begins, highest at the parting."""
    return -0.62 - 0.08 * f["hairline"] + 0.6 * np.abs(x - 0.2 * f["parting"]) ** 2.5


def head(f: dict[str, Any], hair: Color, skin: Color) -> Iterator[Patch]:
    """Hair behind the head, neck, clothes, skull, ears; skin below the hairline, its light, cheeks, beard, nose."""
    length, light = (1 + f["hair_length"]) / 2, f["light"]
    down = -0.5 + (1.75 * length + 0.45) * np.array([0.0, 0.3, 0.6, 0.8, 0.93, 0.99, 1.0])
    width = (A + 0.03 + 0.14 * length) * np.array([0.95, 1.02, 1.04, 1.04, 0.98, 0.8, 0.5])
    yield Patch(1j * band(down, -width, width).conj(), mix(hair, BLACK, 0.35), ROUND, -0.16)
    yield Patch(band(0.34 * U, 0 * U + 0.5, 0 * U + 1.7), mix(skin, BLACK, 0.28), BODY)
    collar = np.array(
        [0.1 + 1.44j, 0.25 + 1.36j, 0.42 + 1.16j, 0.95 + 1.36j, 1.35 + 1.7j, 1.5 + 2.2j]
    )
    yield Patch(
        np.concatenate([collar, -collar[::-1].conj()]),
        mix((40, 96, 120), (220, 90, 60), (1 + f["shirt"]) / 2),
        BODY,
    )
    yield Patch(
        ellipse(0, -0.16, A + 0.06 + 0.06 * length, 0.94 + 0.06 * length), hair, ROUND, -0.1
    )
    for side in (-1, 1):
        yield Patch(ellipse(side * A * 0.98, 0.1, 0.09, 0.18), mix(skin, BLACK, 0.12), FLAT, -0.12)
    wide = A * (0.97 + 0.04 * f["face_width"]) * np.abs(JAW.real) ** (0.8 - 0.18 * f["jaw"])
    jaw = np.copysign(wide, JAW.real) + 1j * (0.05 + 0.95 * JAW.imag)
    yield Patch(
        np.concatenate([jaw, 0.9 * A * U + 1j * hairline(f, 0.9 * A * U)]), mix(skin, BLACK, 0.16)
    )
    yield Patch(ellipse(0.25 * light, 0.12, 0.5, 0.75), mix(skin, WHITE, 0.12), soft=True)
    for side in (-1, 1) if f["makeup"] else ():
        yield Patch(
            ellipse(side * 0.42, 0.34, 0.2, 0.16),
            mix(skin, (226, 60, 84), 0.4 * f["makeup"]),
            soft=True,
        )
    if f["beard"]:
        beard = mix(skin, mix(hair, BLACK, 0.3), 0.6 + 0.35 * f["beard"])
        yield Patch(np.concatenate([jaw, 0.6 * U + 1j * (0.45 - 0.33 * U**4)]), beard)
    nose, side = 0.115 + 0.03 * f["nose_size"], np.copysign(1, -light)
    yield Patch(
        np.array([side * 0.03 - 0.02j, side * nose + 0.3j, side * 0.03 + 0.36j]),
        mix(skin, BLACK, 0.16),
        lift=0.12,
    )
    yield Patch(
        band(U * nose, 0.33 + 0.03 * ARCH, 0.35 + 0.05 * ARCH), mix(skin, BLACK, 0.3), lift=0.12
    )
    yield Patch(
        ellipse(0.02 * light, 0.26, 0.07, 0.12), mix(skin, WHITE, 0.4), lift=0.16, soft=True
    )


def features(f: dict[str, Any], hair: Color, skin: Color) -> Iterator[Patch]:
    """Mouth, eyes with their make-up, brows, glasses."""
    smile, gap = f["smile"], 0.08 * f["mouth_open"] * ARCH
    x, line = (
        U * (0.24 + 0.035 * f["mouth_width"] + 0.07 * smile),
        0.6 + 0.07 * smile - 0.2 * smile * U**2,
    )
    lips = mix(mix(skin, (176, 60, 60), 0.45), (196, 16, 52), 0.85 * f["lipstick"])
    yield Patch(
        band(x, line - gap - 0.06 * ARCH - 0.008, line + gap + 0.085 * ARCH + 0.008),
        lips,
        lift=0.04,
    )
    yield Patch(band(x, line - gap - 0.008, line + gap + 0.008), (70, 18, 24), lift=0.04)
    if f["mouth_open"]:
        yield Patch(band(x * 0.85, line - gap, line + 0.2 * gap), (244, 240, 232), lift=0.04)
    wide, high = 0.155 + 0.012 * f["eye_size"], 0.07 + 0.014 * f["eye_size"]
    thick, lens = 0.018 + 0.045 * f["brow"], 0.235 + 0.02 * f["glasses_size"]
    for side in (-1, 1):
        middle = side * (0.32 + 0.03 * f["eye_distance"])
        x = middle + U * wide
        if f["makeup"]:
            shadow = band(middle + U * 0.18, -0.16 * ARCH, 0.02 - 0.03 * ARCH)
            yield Patch(shadow, mix(skin, (92, 40, 110), 0.3 + 0.6 * f["makeup"]))
        yield Patch(band(x, -high * ARCH, 0.75 * high * ARCH), (244, 242, 238))
        yield Patch(
            ellipse(middle, -0.008, 0.066, 0.066),
            mix((64, 40, 24), (80, 132, 172), (1 + f["iris"]) / 2),
        )
        yield Patch(ellipse(middle, -0.008, 0.032, 0.032), (12, 10, 10))
        yield Patch(ellipse(middle + 0.025, -0.03, 0.016, 0.016), WHITE)
        yield Patch(
            band(x, -(high + 0.03 + 0.02 * f["makeup"]) * ARCH - 0.012, -high * ARCH + 0.004),
            mix(skin, BLACK, 0.75),
        )
        brow = -0.25 - 0.03 * f["brow_height"] - 0.05 * ARCH + 0.02 * side * U
        yield Patch(
            band(middle + U * 0.2, brow - thick * (0.5 + 0.5 * ARCH), brow + thick),
            mix(hair, BLACK, 0.4),
        )
        if f["glasses"] != "none":
            rim, hole = (
                ellipse(middle, 0.02, lens, 0.9 * lens),
                ellipse(middle, 0.02, lens - 0.05, 0.9 * lens - 0.05),
            )
            out = middle + side * (lens - 0.03)
            yield Patch(
                np.array([out - 0.05j, side * A - 0.03j, side * A + 0.02j, out + 0.01j]), FRAME
            )
            if f["glasses"] == "dark":
                yield Patch(rim, (30, 30, 36), lift=0.06)
                yield Patch(hole - (0.03 + 0.05j), (84, 86, 100), lift=0.06, soft=True)
            yield Patch(np.concatenate([rim, rim[:1], hole[:1], hole[::-1]]), FRAME, lift=0.06)
            yield Patch(
                band(0.06 * (U - side), -0.04 - 0.03 * ARCH, -0.03 * ARCH), FRAME, lift=0.1
            )


def front(f: dict[str, Any], hair: Color, skin: Color) -> Iterator[Patch]:
    """Fringe, the hair from the parting down both sides of the face, its strands and shine."""
    length, x = (1 + f["hair_length"]) / 2, 0.84 * A * U
    if f["fringe"]:
        tips = -0.52 + 0.22 * f["fringe"] + 0.12 * x**2 + 0.03 * np.cos(6 * np.pi * (U + 1))
        yield Patch(band(1.1 * x, -0.8 + 0.5 * x**2, tips), mix(hair, BLACK, 0.12), lift=0.04)
    line = hairline(f, x)
    down = -0.25 + (1.75 * length + 0.2) * np.array([0.15, 0.6, 0.85, 0.97, 1.0])
    outer = A + (0.06 + 0.14 * length) * np.array([0.9, 1.0, 0.95, 0.8, 0.5]) + 1j * down
    lock = np.concatenate([A * np.array([0.9, 0.92, 0.93, 0.98, 1.05]) + 1j * down, outer[::-1]])
    crown = [0.6 - 0.6j, 0.1 * f["parting"] - 0.9j, -0.6 - 0.6j]
    yield Patch(np.concatenate([x + 1j * (line + 0.01), lock, crown, -lock[::-1].conj()]), hair)
    for strand in (line - 0.1 - 0.08 * ARCH, line - 0.2 - 0.08 * ARCH):
        yield Patch(band(x, strand - 0.012, strand + 0.012), mix(hair, BLACK, 0.15))
    yield Patch(ellipse(0.2 * f["light"], -0.76, 0.3, 0.14), mix(hair, WHITE, 0.22), soft=True)


def project(patches: list[Patch], f: dict[str, Any], size: int) -> list[list[float]]:
    """Outlines as pixels [x, y, x, y, …] of a canvas of `size` pixels: the head turned, in perspective, tilted, moved."""
    counts = [len(patch.outline) for patch in patches]
    points = np.concatenate([patch.outline for patch in patches])
    x, y, where = points.real, points.imag, np.repeat([patch.where for patch in patches], counts)
    radius = (
        A * A * (1 - (y / np.where(y < 0, 1.08, 1.35)) ** 2)
    )  # of the head at this height, squared; the chin is in front
    z = np.where(where == FACE, np.sqrt(np.maximum(radius - x * x, 0)), 0) + np.repeat(
        [patch.lift for patch in patches], counts
    )
    turn, tilt = np.exp(1j * np.radians([f["yaw"], f["tilt"]]))
    near = z * turn.real - x * turn.imag
    across = x * np.where(where == ROUND, 1, turn.real) + z * turn.imag
    across = np.where(
        (near < 0) & (z >= 0), np.copysign(np.hypot(x, z), across), across
    )  # out of sight: to the silhouette
    turned = (across + 1j * y) / (1 - 0.1 * np.maximum(near, 0)) - 0.8j
    placed = np.where(where == BODY, points, turned * tilt + 0.8j) * (0.345 + 0.02 * f["size"])
    flat = (
        (size * (placed + complex(0.5 + 0.02 * f["shift_x"], 0.5 + 0.02 * f["shift_y"])))
        .view(np.float64)
        .tolist()
    )
    return [
        flat[end - 2 * count : end]
        for count, end in zip(counts, 2 * np.cumsum(counts), strict=True)
    ]


@functools.lru_cache(maxsize=128)
def blob(width: int, height: int) -> Image.Image:
    """A mask that falls smoothly from the middle of a box to the rim of its ellipse."""
    return FADE.resize((width, height), Image.Resampling.BILINEAR)


def draw(row: Any, resolution: int) -> Image.Image:
    """The face of a row of `factors` (dict or Series), [resolution, resolution] RGB."""
    f = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in row.items()
    }
    times = max(2, -(-128 // resolution))  # drawn larger, then averaged
    size, (step, share) = resolution * times, divmod(f["skin_tone"] * (len(SKIN) - 1), 1)
    skin = mix(SKIN[int(step)], SKIN[min(int(step) + 1, len(SKIN) - 1)], share)
    hair = mix(BLACK, HAIR[f["hair_color"]], 1 + 0.12 * f["hair_shade"])
    wall = mix(BLACK, BACKGROUNDS[f["background"]], 1 + 0.12 * f["background_shade"])
    canvas = Image.new("RGB", (size, size), mix(wall, BLACK, 0.2))
    canvas.paste(
        mix(wall, WHITE, 0.1),
        (int(-size * (0.5 + 0.2 * f["light"])), -size // 2),
        blob(2 * size, 2 * size),
    )
    pen = ImageDraw.Draw(canvas)
    patches = [patch for part in (head, features, front) for patch in part(f, hair, skin)]
    for patch, outline in zip(patches, project(patches, f, size), strict=True):
        if patch.soft:
            left, top, right, bottom = (
                int(end(outline[axis::2])) for end in (min, max) for axis in (0, 1)
            )
            canvas.paste(patch.color, (left, top), blob(right - left + 1, bottom - top + 1))
        else:
            pen.polygon(outline, patch.color)
    return canvas.reduce(times)


@functools.lru_cache(maxsize=2)
def _some(section: str, first: int) -> list[Any]:
    return factors(config.load(Options, [], [json.loads(section)]), first, 256).to_dict("records")


def load(item: int, resolution: int, recipe: dict[str, Any]) -> Image.Image:
    """The face of that number."""
    return draw(
        _some(json.dumps(recipe.get("drawn") or {}), item // 256 * 256)[item % 256], resolution
    )


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """The set that the recipe's section `drawn` describes; UserError: a key or value it cannot have, or a root."""
    if root is not None:
        raise UserError(
            f"pack.root={root}: drawn faces lie in no folder; leave it out, or give the recipe of what lies there."
        )
    labels = table(config.load(Options, [], [recipe.get("drawn") or {}]))
    return Found(
        labels.index,
        range(len(labels)),
        [recipe.get("drawn"), config.digest(Path(__file__).read_text())],
        labels,
    )
