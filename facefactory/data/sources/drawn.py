"""Faces drawn here: any number, any size, every factor known.

They show nobody, and nobody's gender is meant.

Image i of a seed is a pure function of (seed, i): each factor has a stream of its own (Philox:
Salmon et al., SC 2011), keyed by (seed, CRC-32 of its name) and read at place i. Factors, made of
sums, products and roots, are the same everywhere, pixels by one Pillow.
"""

import functools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from facefactory import UserError, config, rundir
from facefactory.data.sources import Found

Color = tuple[int, int, int]
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
FRAME = (26, 22, 24)
LENS = (30, 30, 36)
GLARE = (84, 86, 100)
LIPS = (176, 60, 60)
LIPSTICK = (196, 16, 52)
THROAT = (70, 18, 24)
TEETH = (244, 240, 232)
ROUGE = (226, 60, 84)
EYE_SHADOW = (92, 40, 110)
EYEBALL = (244, 242, 238)
PUPIL = (12, 10, 10)
IRIS = ((64, 40, 24), (80, 132, 172))  # from factor -1 to 1
SHIRT = ((40, 96, 120), (220, 90, 60))
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
    "ochre": (196, 160, 92),
    "violet": (140, 104, 160),
}
SKIN = [  # skin_tone 0…1
    (255, 236, 226),
    (244, 206, 178),
    (222, 172, 134),
    (186, 130, 92),
    (134, 86, 58),
    (86, 54, 40),
]


# -- factors and labels ----------------------------------------------------------------


class Attribute(NamedTuple):
    """One of CelebA's attributes, and the factor that shows it."""

    share: float  # of the images that have it
    factor: str
    without: tuple[float, float]  # range of the factor in images without the attribute
    within: tuple[float, float]  # and in images with it


# Hair: share of the images; what the four leave over is red
COLORED = {"Black_Hair": 0.3, "Brown_Hair": 0.25, "Blond_Hair": 0.2, "Gray_Hair": 0.15}
ATTRIBUTES = {
    "Pale_Skin": Attribute(
        0.15,
        "skin_tone",
        without=(0.25, 1.0),
        within=(0.0, 0.1),
    ),
    "Bangs": Attribute(
        0.25,
        "fringe",
        without=(0.0, 0.0),
        within=(0.5, 1.0),
    ),
    "Eyeglasses": Attribute(
        0.3,
        "glasses_size",
        without=(-1.0, 1.0),
        within=(-1.0, 1.0),
    ),
    "No_Beard": Attribute(
        0.75,
        "beard",
        without=(0.5, 1.0),
        within=(0.0, 0.0),
    ),
    "Heavy_Makeup": Attribute(
        0.3,
        "makeup",
        without=(0.0, 0.0),
        within=(0.5, 1.0),
    ),
    "Wearing_Lipstick": Attribute(
        0.35,
        "lipstick",
        without=(0.0, 0.0),
        within=(0.5, 1.0),
    ),
    "Smiling": Attribute(
        0.5,
        "smile",
        without=(-0.2, 0.2),
        within=(0.6, 1.0),
    ),
    "Mouth_Slightly_Open": Attribute(
        0.4,
        "mouth_open",
        without=(0.0, 0.0),
        within=(0.5, 1.0),
    ),
    "Bushy_Eyebrows": Attribute(
        0.25,
        "brow",
        without=(0.0, 0.4),
        within=(0.7, 1.0),
    ),
}
# Factors without an attribute, uniform between - and + this;
# yaw and tilt in degrees, to the image's right and clockwise
FREE = {
    "yaw": 40.0,
    "tilt": 8.0,
    "light": 1.0,
    "hair_length": 1.0,
    "hair_shade": 1.0,
    "hairline": 1.0,
    "parting": 1.0,
    "jaw": 1.0,
    "face_width": 1.0,
    "eye_distance": 1.0,
    "eye_size": 1.0,
    "iris": 1.0,
    "brow_height": 1.0,
    "nose_size": 1.0,
    "mouth_width": 1.0,
    "shirt": 1.0,
    "size": 1.0,
    "shift_x": 1.0,
    "shift_y": 1.0,
    "background_shade": 1.0,
}


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


class Chance(NamedTuple):
    """How often an attribute is there."""

    cause: str | None  # an attribute before it that it follows
    without: float  # share of the images without the cause that have it
    within: float  # and of those with the cause


def chances(options: Options) -> dict[str, Chance]:
    """How often each attribute is there; UserError: impossible shares or correlations."""
    shares = _shares(options)
    order = list(shares)
    by_name = {name: Chance(None, share, share) for name, share in shares.items()}
    for name, entry in options.correlate.items():
        cause, phi = entry if len(entry) == 2 else (None, None)
        before = order[: order.index(name)] if name in ATTRIBUTES else []
        if cause not in before or not isinstance(phi, int | float):
            allowed = "an attribute (no hair colour) takes [one before it, phi], in the order"
            raise UserError(f"drawn.correlate has {name}: {entry}; {allowed} {', '.join(order)}.")
        by_name[name] = _correlated(name, entry, shares)
    return by_name


def _shares(options: Options) -> dict[str, float]:
    """Attribute -> share of the images that have it."""
    shares = dict(COLORED)
    for name, attribute in ATTRIBUTES.items():
        shares[name] = attribute.share
    for name, given in options.prevalence.items():
        if name not in shares or not 0 <= given <= 1:
            allowed = f"it takes shares from 0 to 1 of {', '.join(shares)}"
            raise UserError(f"drawn.prevalence has {name}: {given}; {allowed}.")
    shares |= options.prevalence

    total = sum(shares[name] for name in COLORED)
    if total > 1 + 1e-9:
        colored = f"{', '.join(COLORED)} add up to {total:g}"
        allowed = "at most 1 is possible (the rest is red)"
        raise UserError(f"drawn.prevalence: {colored}; {allowed}.")
    return shares


def _correlated(name: str, entry: list[Any], shares: dict[str, float]) -> Chance:
    """The chance of an attribute whose phi with its cause is that of `entry`; both shares stay.

    UserError: two attributes with such shares cannot be so much alike.
    """
    cause, phi = entry
    a = shares[name]
    b = shares[cause]
    spread = (a * (1 - a) * b * (1 - b)) ** 0.5

    # All of the rarer one within the other, or as few as possible
    low = high = 0.0
    if spread:
        low = (max(0, a + b - 1) - a * b) / spread
        high = (min(a, b) - a * b) / spread
    if not (spread and low <= phi <= high):
        prevalences = f"prevalences {a:g} of {name} and {b:g} of {cause}"
        allowed = f"{prevalences} allow phi from {low:.3f} to {high:.3f}"
        way = "change one of the three"
        raise UserError(f"drawn.correlate has {name}: {entry}; {allowed}: {way}.")
    return Chance(
        cause,
        without=a - phi * spread / (1 - b),
        within=a + phi * spread / b,
    )


def uniform(name: str, options: Options, first: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) of the stream `name`, one for each of the images first…first+count-1."""
    number = zlib.crc32(name.encode())
    key = np.array([options.seed, number], np.uint64)
    stream = np.random.Philox(key=key, counter=first // 4)
    skip = first % 4  # a step of the counter makes four numbers
    numbers = stream.random_raw(skip + count)[skip:]
    return (numbers >> np.uint64(11)) * 2.0**-53


def factors(options: Options, first: int, count: int) -> pd.DataFrame:
    """What the images first…first+count-1 show: a row an image, a column a factor.

    hair_color, background and glasses are text.
    """
    draws = functools.partial(uniform, options=options, first=first, count=count)
    by_name = chances(options)

    # Colours of hair exclude each other
    ends = np.cumsum([by_name[name].within for name in COLORED])
    color = np.searchsorted(ends, draws("hair_color"), side="right")
    has = {name: color == number for number, name in enumerate(COLORED)}
    columns: dict[str, Any] = {"hair_color": np.array(list(HAIR))[color]}

    # Attributes, after those that they follow
    for name, attribute in ATTRIBUTES.items():
        chance = by_name[name]
        share: Any = chance.within
        if chance.cause:
            share = np.where(has[chance.cause], chance.within, chance.without)
        has[name] = draws(name) < share
        ends = np.where(has[name][:, None], attribute.within, attribute.without)
        low, high = ends.T
        values = low + (high - low) * draws(attribute.factor)
        columns[attribute.factor] = values.astype(np.float32)

    # What no attribute tells
    lenses = np.where(draws("glasses") < 1 / 3, "dark", "clear")
    columns["glasses"] = np.where(has["Eyeglasses"], lenses, "none")
    background = (draws("background") * len(BACKGROUNDS)).astype(int)
    columns["background"] = np.array(list(BACKGROUNDS))[background]
    for name, most in FREE.items():
        values = most * (2 * draws(name) - 1)
        columns[name] = values.astype(np.float32)
    return pd.DataFrame(columns, index=np.arange(first, first + count))


def attributes(shown: pd.DataFrame) -> pd.DataFrame:
    """CelebA's attributes (0 / 1) that follow from rows of `factors`.

    The rows may have been changed since they were drawn.
    """
    marks = {
        name: shown["hair_color"] == color for name, color in zip(COLORED, HAIR, strict=False)
    }
    for name, attribute in ATTRIBUTES.items():
        low, high = attribute.within
        marks[name] = shown[attribute.factor].between(low - 1e-6, high + 1e-6)
    marks["Eyeglasses"] = shown["glasses"] != "none"
    return pd.DataFrame(marks).astype(np.int8)


def table(options: Options) -> pd.DataFrame:
    """Labels of the whole set, indexed by file name.

    The attributes, `noise` of them flipped, then the true factors.
    """
    shown = factors(options, 0, options.images)
    labels = attributes(shown)
    for name in labels:
        flipped = uniform(f"{name} noise", options, 0, options.images) < options.noise
        labels[name] ^= flipped.view(np.int8)
    files = [f"{number:08d}.png" for number in shown.index]
    return pd.concat([labels, shown], axis=1).set_axis(files)


# -- outlines --------------------------------------------------------------------------
# They are complex: x + iy, in head coordinates

A = 0.74  # half-width of the head, whose half-height is 1
U = np.linspace(-1.0, 1.0, 13)  # points along a curve
ARCH = 1 - U**2
CIRCLE = np.exp(2j * np.pi * np.arange(32) / 32)
COLLAR = np.array(  # from the throat down the right shoulder
    [
        0.1 + 1.44j,
        0.25 + 1.36j,
        0.42 + 1.16j,
        0.95 + 1.36j,
        1.35 + 1.7j,
        1.5 + 2.2j,
    ]
)
CURTAIN = np.array(  # hair behind the head: share of its length, share of its width
    [
        [0.0, 0.95],
        [0.3, 1.02],
        [0.6, 1.04],
        [0.8, 1.04],
        [0.93, 0.98],
        [0.99, 0.8],
        [1.0, 0.5],
    ]
)
LOCK = np.array(  # hair beside the face: share of its length, inner and outer width
    [
        [0.15, 0.9, 0.9],
        [0.6, 0.92, 1.0],
        [0.85, 0.93, 0.95],
        [0.97, 0.98, 0.8],
        [1.0, 1.05, 0.5],
    ]
)
JAW = np.exp(1j * np.linspace(0.0, np.pi, 17))
ACROSS = np.linspace(-1, 1, 64)
INSIDE = np.clip(1 - ACROSS**2 - ACROSS[:, None] ** 2, 0, 1)
FADING = 255 * INSIDE**1.5 * (2 - INSIDE)
FADE = Image.fromarray(FADING.astype(np.uint8))

# Where an outline lies
FACE = 0  # on the front of the head
FLAT = 1  # in a plane that turns with it
ROUND = 2  # as wide from all sides
BODY = 3  # not turning


class Face(SimpleNamespace):
    """One row of `factors`, each by its name, and the colours that follow from it."""

    hair: Color
    skin: Color


class Patch(NamedTuple):
    """A filled outline: x to the right, y down, z to the viewer.

    The head reaches from (-A, -1) to (A, 1).
    """

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
    mean = (width + height) / 2
    half_difference = (width - height) / 2
    return mean * CIRCLE + half_difference * CIRCLE.conj() + complex(x, y)


def band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline between two curves over the same x."""
    back = (x + 1j * bottom)[::-1]
    return np.concatenate([x + 1j * top, back])


def hairline(face: Face, x: np.ndarray) -> np.ndarray:
    """Where the hair begins, highest at the parting."""
    from_parting = np.abs(x - 0.2 * face.parting)
    return -0.62 - 0.08 * face.hairline + 0.6 * from_parting**2.5


def head(face: Face) -> Iterator[Patch]:
    """Hair behind the head, neck, clothes, skull, ears; skin with light, cheeks, beard; nose."""
    # Hair behind everything
    length = (1 + face.hair_length) / 2
    down = -0.5 + (1.75 * length + 0.45) * CURTAIN[:, 0]
    width = (A + 0.03 + 0.14 * length) * CURTAIN[:, 1]
    curtain = 1j * band(down, -width, width).conj()
    yield Patch(curtain, mix(face.hair, BLACK, 0.35), ROUND, -0.16)

    # Neck and clothes
    neck = band(0.34 * U, 0 * U + 0.5, 0 * U + 1.7)
    yield Patch(neck, mix(face.skin, BLACK, 0.28), BODY)
    shirt = mix(*SHIRT, (1 + face.shirt) / 2)
    left = -COLLAR[::-1].conj()
    yield Patch(np.concatenate([COLLAR, left]), shirt, BODY)

    # Skull and ears
    skull = ellipse(0, -0.16, A + 0.06 + 0.06 * length, 0.94 + 0.06 * length)
    yield Patch(skull, face.hair, ROUND, -0.1)
    for side in (-1, 1):
        ear = ellipse(side * A * 0.98, 0.1, 0.09, 0.18)
        yield Patch(ear, mix(face.skin, BLACK, 0.12), FLAT, -0.12)

    yield from _skin(face)
    yield from _nose(face)


def _skin(face: Face) -> Iterator[Patch]:
    """Skin below the hairline, the light on it, cheeks, beard."""
    width = A * (0.97 + 0.04 * face.face_width)
    wide = width * np.abs(JAW.real) ** (0.8 - 0.18 * face.jaw)
    jaw = np.copysign(wide, JAW.real) + 1j * (0.05 + 0.95 * JAW.imag)
    brow = 0.9 * A * U
    below_hair = np.concatenate([jaw, brow + 1j * hairline(face, brow)])
    yield Patch(below_hair, mix(face.skin, BLACK, 0.16))
    lit = ellipse(0.25 * face.light, 0.12, 0.5, 0.75)
    yield Patch(lit, mix(face.skin, WHITE, 0.12), soft=True)

    if face.makeup:
        rouge = mix(face.skin, ROUGE, 0.4 * face.makeup)
        for side in (-1, 1):
            yield Patch(ellipse(side * 0.42, 0.34, 0.2, 0.16), rouge, soft=True)
    if face.beard:
        stubble = mix(face.hair, BLACK, 0.3)
        beard = mix(face.skin, stubble, 0.6 + 0.35 * face.beard)
        upper_lip = 0.6 * U + 1j * (0.45 - 0.33 * U**4)
        yield Patch(np.concatenate([jaw, upper_lip]), beard)


def _nose(face: Face) -> Iterator[Patch]:
    """Its shadow away from the light, its base, its shine."""
    width = 0.115 + 0.03 * face.nose_size
    dark = np.copysign(1, -face.light)
    shadow = np.array([dark * 0.03 - 0.02j, dark * width + 0.3j, dark * 0.03 + 0.36j])
    yield Patch(shadow, mix(face.skin, BLACK, 0.16), lift=0.12)
    base = band(U * width, 0.33 + 0.03 * ARCH, 0.35 + 0.05 * ARCH)
    yield Patch(base, mix(face.skin, BLACK, 0.3), lift=0.12)
    shine = ellipse(0.02 * face.light, 0.26, 0.07, 0.12)
    yield Patch(shine, mix(face.skin, WHITE, 0.4), lift=0.16, soft=True)


def features(face: Face) -> Iterator[Patch]:
    """Mouth, eyes with their make-up, brows, glasses."""
    yield from _mouth(face)
    for side in (-1, 1):
        middle = side * (0.32 + 0.03 * face.eye_distance)
        yield from _eye(face, middle)
        thick = 0.018 + 0.045 * face.brow
        brow = -0.25 - 0.03 * face.brow_height - 0.05 * ARCH + 0.02 * side * U
        top = brow - thick * (0.5 + 0.5 * ARCH)
        outline = band(middle + U * 0.2, top, brow + thick)
        yield Patch(outline, mix(face.hair, BLACK, 0.4))
        if face.glasses != "none":
            yield from _glasses(face, middle, side)


def _mouth(face: Face) -> Iterator[Patch]:
    """Lips, the gap between them, the upper teeth."""
    smile = face.smile
    gap = 0.08 * face.mouth_open * ARCH
    x = U * (0.24 + 0.035 * face.mouth_width + 0.07 * smile)
    line = 0.6 + 0.07 * smile - 0.2 * smile * U**2
    top = line - gap - 0.06 * ARCH - 0.008
    bottom = line + gap + 0.085 * ARCH + 0.008
    bare = mix(face.skin, LIPS, 0.45)
    lips = mix(bare, LIPSTICK, 0.85 * face.lipstick)
    yield Patch(band(x, top, bottom), lips, lift=0.04)
    throat = band(x, line - gap - 0.008, line + gap + 0.008)
    yield Patch(throat, THROAT, lift=0.04)
    if face.mouth_open:
        teeth = band(x * 0.85, line - gap, line + 0.2 * gap)
        yield Patch(teeth, TEETH, lift=0.04)


def _eye(face: Face, middle: float) -> Iterator[Patch]:
    """Eye shadow, eyeball, iris, pupil, glint, lashes of the eye around x = `middle`."""
    wide = 0.155 + 0.012 * face.eye_size
    high = 0.07 + 0.014 * face.eye_size
    x = middle + U * wide
    if face.makeup:
        shadow = band(middle + U * 0.18, -0.16 * ARCH, 0.02 - 0.03 * ARCH)
        violet = mix(face.skin, EYE_SHADOW, 0.3 + 0.6 * face.makeup)
        yield Patch(shadow, violet)
    ball = band(x, -high * ARCH, 0.75 * high * ARCH)
    yield Patch(ball, EYEBALL)
    iris = mix(*IRIS, (1 + face.iris) / 2)
    yield Patch(ellipse(middle, -0.008, 0.066, 0.066), iris)
    yield Patch(ellipse(middle, -0.008, 0.032, 0.032), PUPIL)
    yield Patch(ellipse(middle + 0.025, -0.03, 0.016, 0.016), WHITE)
    above = -(high + 0.03 + 0.02 * face.makeup) * ARCH - 0.012
    lashes = band(x, above, -high * ARCH + 0.004)
    yield Patch(lashes, mix(face.skin, BLACK, 0.75))


def _glasses(face: Face, middle: float, side: int) -> Iterator[Patch]:
    """Temple, lens (if it is dark), frame, half of the bridge, on one side of the face."""
    radius = 0.235 + 0.02 * face.glasses_size
    rim = ellipse(middle, 0.02, radius, 0.9 * radius)
    hole = ellipse(middle, 0.02, radius - 0.05, 0.9 * radius - 0.05)
    out = middle + side * (radius - 0.03)
    temple = np.array([out - 0.05j, side * A - 0.03j, side * A + 0.02j, out + 0.01j])
    yield Patch(temple, FRAME)
    if face.glasses == "dark":
        yield Patch(rim, LENS, lift=0.06)
        yield Patch(hole - (0.03 + 0.05j), GLARE, lift=0.06, soft=True)
    ring = [rim, rim[:1], hole[:1], hole[::-1]]
    yield Patch(np.concatenate(ring), FRAME, lift=0.06)
    bridge = band(0.06 * (U - side), -0.04 - 0.03 * ARCH, -0.03 * ARCH)
    yield Patch(bridge, FRAME, lift=0.1)


def front(face: Face) -> Iterator[Patch]:
    """Fringe, the hair from the parting down both sides of the face, its strands and shine."""
    x = 0.84 * A * U
    if face.fringe:
        waves = 0.03 * np.cos(6 * np.pi * (U + 1))
        tips = -0.52 + 0.22 * face.fringe + 0.12 * x**2 + waves
        fringe = band(1.1 * x, -0.8 + 0.5 * x**2, tips)
        yield Patch(fringe, mix(face.hair, BLACK, 0.12), lift=0.04)

    # One lock, mirrored to the other side, below the crown
    length = (1 + face.hair_length) / 2
    line = hairline(face, x)
    down = -0.25 + (1.75 * length + 0.2) * LOCK[:, 0]
    inner = A * LOCK[:, 1] + 1j * down
    outer = A + (0.06 + 0.14 * length) * LOCK[:, 2] + 1j * down
    lock = np.concatenate([inner, outer[::-1]])
    crown = [0.6 - 0.6j, 0.1 * face.parting - 0.9j, -0.6 - 0.6j]
    edge = x + 1j * (line + 0.01)
    mirrored = -lock[::-1].conj()
    yield Patch(np.concatenate([edge, lock, crown, mirrored]), face.hair)

    for height in (0.1, 0.2):
        strand = line - height - 0.08 * ARCH
        outline = band(x, strand - 0.012, strand + 0.012)
        yield Patch(outline, mix(face.hair, BLACK, 0.15))
    shine = ellipse(0.2 * face.light, -0.76, 0.3, 0.14)
    yield Patch(shine, mix(face.hair, WHITE, 0.22), soft=True)


# -- pictures --------------------------------------------------------------------------


def project(patches: list[Patch], face: Face, size: int) -> list[list[float]]:
    """Outlines as pixels [x, y, x, y, …] of a canvas of `size` pixels.

    The head is turned, in perspective, tilted and moved.
    """
    # All points at once
    counts = [len(patch.outline) for patch in patches]
    points = np.concatenate([patch.outline for patch in patches])
    where = np.repeat([patch.where for patch in patches], counts)
    lift = np.repeat([patch.lift for patch in patches], counts)
    x = points.real
    y = points.imag

    # How far in front they lie: the head's radius at this height, squared; the chin is in front
    height = np.where(y < 0, 1.08, 1.35)
    radius = A * A * (1 - (y / height) ** 2)
    surface = np.sqrt(np.maximum(radius - x * x, 0))
    z = np.where(where == FACE, surface, 0) + lift

    # Turned; what is out of sight goes to the silhouette
    turn, tilt = np.exp(1j * np.radians([face.yaw, face.tilt]))
    near = z * turn.real - x * turn.imag
    across = x * np.where(where == ROUND, 1, turn.real) + z * turn.imag
    silhouette = np.copysign(np.hypot(x, z), across)
    across = np.where((near < 0) & (z >= 0), silhouette, across)
    distance = 1 - 0.1 * np.maximum(near, 0)
    turned = (across + 1j * y) / distance - 0.8j

    # Tilted and moved
    tilted = np.where(where == BODY, points, turned * tilt + 0.8j)
    placed = tilted * (0.345 + 0.02 * face.size)
    middle = complex(0.5 + 0.02 * face.shift_x, 0.5 + 0.02 * face.shift_y)
    numbers = (size * (placed + middle)).view(np.float64).tolist()
    ends = 2 * np.cumsum(counts)
    return [numbers[end - 2 * count : end] for count, end in zip(counts, ends, strict=True)]


@functools.lru_cache(maxsize=128)
def blob(width: int, height: int) -> Image.Image:
    """A mask that falls smoothly from the middle of a box to the rim of its ellipse."""
    return FADE.resize((width, height), Image.Resampling.BILINEAR)


def draw(row: Any, resolution: int) -> Image.Image:
    """The face of a row of `factors` (dict or Series), [resolution, resolution] RGB."""
    face = Face()
    for name, value in row.items():
        setattr(face, name, value.item() if isinstance(value, np.generic) else value)
    times = max(2, -(-128 // resolution))  # drawn larger, then averaged
    size = resolution * times

    # Colours of this face
    step, share = divmod(face.skin_tone * (len(SKIN) - 1), 1)
    lighter = int(step)
    darker = min(lighter + 1, len(SKIN) - 1)
    face.skin = mix(SKIN[lighter], SKIN[darker], share)
    face.hair = mix(BLACK, HAIR[face.hair_color], 1 + 0.12 * face.hair_shade)

    # A wall that is lit from one side
    wall = mix(BLACK, BACKGROUNDS[face.background], 1 + 0.12 * face.background_shade)
    canvas = Image.new("RGB", (size, size), mix(wall, BLACK, 0.2))
    left = int(-size * (0.5 + 0.2 * face.light))
    lit = blob(2 * size, 2 * size)
    canvas.paste(mix(wall, WHITE, 0.1), (left, -size // 2), lit)

    # The face, from back to front
    pen = ImageDraw.Draw(canvas)
    patches = [*head(face), *features(face), *front(face)]
    for patch, outline in zip(patches, project(patches, face, size), strict=True):
        if not patch.soft:
            pen.polygon(outline, patch.color)
            continue
        xs = outline[0::2]
        ys = outline[1::2]
        left = int(min(xs))
        top = int(min(ys))
        width = int(max(xs)) - left + 1
        height = int(max(ys)) - top + 1
        canvas.paste(patch.color, (left, top), blob(width, height))
    return canvas.reduce(times)


SOME = 256  # images whose factors are drawn together


@functools.lru_cache(maxsize=2)
def _some(section: str, first: int) -> list[Any]:
    options = config.load(Options, [], [json.loads(section)])
    return factors(options, first, SOME).to_dict("records")


def load(item: int, resolution: int, recipe: dict[str, Any]) -> Image.Image:
    """The face of that number."""
    section = json.dumps(recipe.get("drawn") or {})
    number, place = divmod(item, SOME)
    return draw(_some(section, number * SOME)[place], resolution)


def find(recipe: dict[str, Any], root: str | None) -> Found:
    """The set that the recipe's section `drawn` describes.

    UserError: a key or value it cannot have, or a root.
    """
    if root is not None:
        way = "leave it out, or give the recipe of what lies there"
        raise UserError(f"pack.root={root}: drawn faces lie in no folder; {way}.")
    section = recipe.get("drawn")
    labels = table(config.load(Options, [], [section or {}]))
    code = rundir.digest(Path(__file__).read_text())
    return Found(labels.index, range(len(labels)), [section, code], labels)
