"""A file as a picture: 16 bits a channel, transparency, orientation and damaged metadata.

And what a file is that is none.
"""

import contextlib
import errno
import functools
import io
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from facefactory.data.sources import FORMATS
from facefactory.facts import Size

BITS = (8, 10, 12, 14, 16)  # of cameras; files know 8 and 16 only
TIFF_PHOTOMETRIC = 262  # the tag that says what 0 is
WHITE_IS_ZERO = 0
# of 255: a picture is told whose values lie below
DARK_MEAN = 16
DARK_MOST = 64  # its brightest one
FLAT = 2.0  # their standard deviation
STRETCH = 0.02  # by which a picture may be made wider or higher before that is told
# an image is not bad for these: the machine is
MACHINE = (
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ESTALE,
    errno.ETIMEDOUT,
)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(ValueError):
    """Why a file is skipped, as `<what it is>: <what to do>`."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: 8 bits a channel, opaque, not yet turned."""

    image: Image.Image
    orientation: int  # of EXIF, 1…8
    highest: int  # value of its 16 bits; 0: it has 8 bits, or its file says what its range is
    unseen: bool  # nothing but transparent: its colours were taken


def read(
    load: Callable[[], Image.Image], content: Callable[[], bytes] | None, bits: int
) -> Picture:
    """Decode what `load` opens; where that fails, its bytes without metadata.

    Values of 16 bits are taken as of `bits`.

    Raises:
        Unreadable: it is no picture that is read, or its range is unknown.
        Exception: whatever the decoder raises on a damaged one.
    """
    try:
        return _decoded(load, bits)
    except Exception as error:
        if machine(error) or content is None or isinstance(error, Unreadable):
            raise
        try:
            whole = content()
        except Exception:  # it cannot be read twice
            raise error from None
        # metadata that draw or turn a picture are kept at first; damaged ones go too
        for kept in ((b"tRNS", b"eXIf", b"Exif\0\0"), ()):
            less = bare(whole, kept)
            if less == whole:
                continue
            again = functools.partial(Image.open, io.BytesIO(less), formats=FORMATS)
            with contextlib.suppress(Exception):
                return _decoded(again, bits)
        if isinstance(error, UnidentifiedImageError):
            raise Unreadable(what(whole)) from None
        raise


def _decoded(load: Callable[[], Image.Image], bits: int) -> Picture:
    with load() as image:
        codec, raw = _layout(image)
        orientation = orientation_of(image)
        deep = sixteen_bits(image, raw, load)
        if deep is None:
            image.load()
            opaque, unseen = _opaque(image)
            return Picture(opaque, orientation, 0, unseen)

    # one scale for the whole set: a dark picture among bright ones stays dark
    declared = codec == "ppm"  # a PGM says its highest value, and Pillow scales it
    if declared:
        bits = 16
    colors = deep if deep.shape[2] in (1, 3) else deep[..., :-1]
    levels = _levels(colors, bits)
    if colors.shape[2] < deep.shape[2]:
        alpha = deep[..., -1:]
        alpha_bits = bits if alpha.max() < 2**bits else 16
        levels = np.concatenate([levels, _levels(alpha, alpha_bits)], 2)

    eight = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    opaque, unseen = _opaque(eight)
    highest = 0 if declared else max(1, int(colors.max()))
    return Picture(opaque, orientation, highest, unseen)


def _levels(values: npt.NDArray[np.uint16], bits: int) -> npt.NDArray[np.uint8]:
    """Values of so many bits -> 0…255."""
    return (values * (255 / (2**bits - 1))).round().clip(0, 255).astype(np.uint8)


def bits_of(highest: int) -> int:
    """The least of BITS that holds a value."""
    return next(bits for bits in BITS if highest < 2**bits)


def sixteen_bits(
    image: Image.Image, raw: str, load: Callable[[], Image.Image]
) -> npt.NDArray[np.uint16] | None:
    """The values [H, W, C] 0…65535 of an opened picture of 16 bits a channel, else None.

    It is gray or RGB, with or without alpha.

    Of colours Pillow keeps the upper byte alone; the lower ones are read in a second pass, as if
    the byte order were the other.

    Raises:
        Unreadable: floating-point or signed numbers, or larger ones: nobody knows what is white.
    """
    # gray
    if image.mode == "F":
        raise Unreadable(
            "floating-point picture: nobody knows what is white; convert it to 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return _integers(image, raw)
    if raw == "LA;16B":  # a PNG
        with load() as other:
            _read_as(other, "RGBA")  # two bytes of gray, two of alpha
            halves = np.asarray(other).astype(np.uint16)
        return halves[..., ::2] * 256 + halves[..., 1::2]

    # colours
    if raw.startswith("CMYK;16"):
        raise Unreadable(
            "picture of 16 bits an ink: it is not read; convert it to 8 bits, or to RGB"
        )
    if not raw.startswith(("RGB;16", "RGBA;16")) or image.mode not in ("RGB", "RGBA"):
        return None
    big_endian = raw.endswith("B") or (raw.endswith("N") and sys.byteorder == "big")
    other_order = "L" if big_endian else "B"
    channels = raw.partition(";")[0]
    upper = np.asarray(image).astype(np.uint16)
    with load() as other:
        _read_as(other, f"{channels};16{other_order}")
        lower = np.asarray(other)
    return upper * 256 + lower


def _integers(image: Image.Image, raw: str) -> npt.NDArray[np.uint16]:
    """The values [H, W, 1] of a gray picture of 16 or 32 bits."""
    values = np.asarray(image)
    least = int(values.min())
    most = int(values.max())
    if raw.endswith("S") or least < 0 or most > 65535:
        raise Unreadable(
            f"picture of signed or 32-bit integers: values {least} to {most}, "
            "and nobody knows what is white; convert it to 8 or 16 bits"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns 8 bits alone
        values = 65535 - values
    return values.astype(np.uint16)[..., None]


def _layout(image: Image.Image) -> tuple[str, str]:
    """Pillow's decoder of an opened picture, and its words for how the file lays out pixels.

    Empty ones where it says nothing.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return "", ""
    codec, _, _, arguments = tiles[0]
    first = arguments if isinstance(arguments, str) or not arguments else arguments[0]
    return codec, first if isinstance(first, str) else ""


def _read_as(image: Image.Image, raw: str) -> None:
    """Decode an opened picture as if its file were laid out in another way."""
    tiles = []
    for codec, extents, offset, arguments in image.tile:  # type: ignore[attr-defined]
        changed = raw if isinstance(arguments, str) else (raw, *arguments[1:])
        tiles.append((codec, extents, offset, changed))
    image.tile = tiles  # type: ignore[attr-defined]
    image.load()


def _opaque(image: Image.Image) -> tuple[Image.Image, bool]:
    """A picture on white where it is transparent, or its colours where nothing else can be seen;
    whether that is so.
    """
    if image.mode == "LAB":
        return _from_lab(image), False
    if not image.has_transparency_data:
        return image, False
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"))
    if alpha.max() <= 1:  # of 255: some programs write 0 or 1, most readers ignore it
        return image.convert("RGB"), True
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image), False


def _from_lab(image: Image.Image) -> Image.Image:
    """CIE Lab -> sRGB, which Pillow leaves to its colour management."""
    from PIL import ImageCms

    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def orientation_of(image: Image.Image) -> int:
    """EXIF's (or XMP's) orientation 1…8; 1 where it is damaged, or nothing says it."""
    said = {"exif", "xmp"} & image.info.keys()
    if image.format == "JPEG" and not said:  # looking there takes long
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        number = value[0] if isinstance(value, bytes) and value else int(value)
    except Exception:  # whatever a damaged entry makes Pillow raise
        return 1
    return number if 1 <= number <= 8 else 1


def upright(picture: Picture, color: str) -> Image.Image:
    """A picture as it is looked at: turned, gray or rgb."""
    image = picture.image
    if picture.orientation in TURNS:
        image = image.transpose(TURNS[picture.orientation])
    mode = "L" if color == "gray" else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    return image


def fitted(image: Image.Image, crop: str | int | list[int], size: Size) -> Image.Image:
    """A picture as it is packed: cropped, shrunk with an antialiasing filter (Lanczos).

    ValueError: the crop does not fit.
    """
    box = _box(crop, image, size)
    if min(box) < 0 or box[2] > image.width or box[3] > image.height:
        raise ValueError(f"crop {crop} does not fit into its {image.width}x{image.height} pixels")
    return image.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box)


def _box(crop: str | int | list[int], image: Image.Image, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is kept, pixels."""
    if isinstance(crop, list):
        left, top, right, bottom = crop
        return left, top, right, bottom
    if crop == "none":
        return 0, 0, image.width, image.height

    # a centred part of the packed images' shape: the largest, or that of a given shorter side
    if isinstance(crop, int):
        scale = crop / min(size)
    else:
        scale = min(image.height / size.height, image.width / size.width)
    high = max(1, round(scale * size.height))
    wide = max(1, round(scale * size.width))
    left = (image.width - wide) // 2
    top = (image.height - high) // 2
    return left, top, left + wide, top + high


def stretched(part: Size, size: Size) -> bool:
    """Whether a part of a picture has another shape than the images that are made of it."""
    ratio = part.height * size.width / (part.width * size.height)
    return abs(ratio - 1) > STRETCH


def fault(array: npt.NDArray[np.uint8]) -> str | None:
    """What a packed picture [H, W, C] is suspected of: `dark`, `flat` (nearly constant), nothing."""
    step = max(1, len(array) // 64)
    some = array[::step, ::step]
    if array.max() < DARK_MOST or some.mean() < DARK_MEAN:
        return "dark"
    return "flat" if some.std() < FLAT else None


# -- files that are none ---------------------------------------------------------------------------

STARTS = [  # first bytes -> what it is; what is read, damaged here, comes last
    (rb"GIF8[79]a", "GIF picture"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "HEIC picture"),
    (rb"....ftypavi[fs]", "AVIF picture"),
    (rb"....JXL |\xff\x0a", "JPEG XL picture"),
    (rb"....jP  |\xff\x4f\xff\x51", "JPEG 2000 picture"),
    (rb"8BPS", "Photoshop file"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript file"),
    (rb"\x00\x00\x01\x00", "icon"),
    (rb"v/1\x01", "OpenEXR picture"),
    (rb"#\?RADIANCE", "Radiance picture"),
    (rb"\x93NUMPY", "NumPy array"),
    (rb"\x89HDF", "HDF5 file"),
    (rb"MATLAB", "MATLAB file"),
    (rb"DDS ", "DDS picture"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "film"),
    (rb"%PDF", "PDF file"),
    (rb"PK\x03\x04|PK\x05\x06", "zip archive"),
    (rb"\x1f\x8b", "gzip file"),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "compressed archive"),
    (rb".{257}ustar", "tar archive"),
    (rb"\x00\x05\x16[\x00\x07]", "resource file of a Mac"),
    (rb"version https://git-lfs", "pointer of git-lfs"),
    (rb"(\.\./|\.git/|/)*annex/objects", "pointer of git-annex"),
    (rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", "HTML page"),
    (rb"\s*<\?xml.*<svg|\s*<svg", "SVG drawing"),
    (rb"\s*<\?xml|\s*<[a-z]+:?[a-z]*[ >]", "XML file"),
    (rb"\s*[{\[]\s*[\"{\[\]}0-9]", "JSON file"),
    (rb"\xff\xd8", "JPEG picture"),
    (rb"\x89PNG", "PNG picture"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF picture"),
    (rb"RIFF....WEBP", "WebP picture"),
    (rb"BM", "BMP picture"),
    (rb"P[1-6]\s", "PPM picture"),
]
OURS = (
    "JPEG picture",
    "PNG picture",
    "TIFF picture",
    "WebP picture",
    "BMP picture",
    "PPM picture",
)
FETCH = {
    "pointer of git-lfs": "git lfs pull fetches it",
    "pointer of git-annex": "git annex get fetches it",
}


def what(content: bytes) -> str:
    """What a file is that is not read, by its first bytes, and what to do: `<what>: <do>`."""
    if not content:
        return "empty file: copy it again"
    head = content[:1024].removeprefix(b"\xef\xbb\xbf")
    if not head.strip(b"\0"):
        return (
            f"file of zeros: its first {len(head)} bytes are 0, as after a copy that was cut; "
            "copy it again"
        )

    # by its first bytes
    kind = _kind(head)
    if kind in FETCH:
        return f"{kind}: the picture itself is not here; {FETCH[kind]}"
    if kind in OURS:
        return f"{kind}: it is damaged, or of a kind that is not read"
    if kind and kind.endswith("picture"):
        return f"{kind}: not read; convert it, e.g. to PNG"
    if kind:
        return f"{kind}: no picture that is read"

    # by what it may say
    with contextlib.suppress(UnicodeDecodeError):
        text = head.decode("ascii")
        if text.isprintable() or not re.search(r"[^\s\x20-\x7e]", text):
            return f"text: it begins with {' '.join(text.split())[:40]!r}"
    return f"unknown file: it begins with the bytes {head[:8].hex(' ')}"


def _kind(head: bytes) -> str | None:
    """The first of STARTS that fits."""
    for start, name in STARTS:
        if re.match(start, head, re.DOTALL | re.IGNORECASE):
            return name
    return None


def bare(content: bytes, kept: tuple[bytes, ...]) -> bytes:
    """A JPEG or PNG without its metadata but those that begin with (JPEG), or are called (PNG),
    one of `kept`.
    """
    if content[:3] == b"\xff\xd8\xff":
        return _bare_jpeg(content, kept)
    return _bare_png(content, kept) if content[:8] == b"\x89PNG\r\n\x1a\n" else content


def _bare_jpeg(content: bytes, kept: tuple[bytes, ...]) -> bytes:
    """Application segments and comments go, but for Adobe's, which says what the colours are."""
    parts = [content[:2]]
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, size = struct.unpack(">xBH", content[at : at + 4])
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA or size < 2:  # the scan: pixels from here on
            break

        segment = content[at : at + 2 + size]
        metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        adobe = marker == 0xEE and segment[4:9] == b"Adobe" and size >= 14
        if not metadata or adobe or segment[4:].startswith(kept):
            parts.append(segment)
        at += 2 + size
    return b"".join([*parts, content[at:]])


def _bare_png(content: bytes, kept: tuple[bytes, ...]) -> bytes:
    """Ancillary chunks (a small letter first) go; those without which there are no pixels stay."""
    parts = [content[:8]]
    at = 8
    while at + 12 <= len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        if name[:1].isupper() or name in kept:
            parts.append(content[at : at + 12 + size])
        at += 12 + size
    return b"".join(parts)


def machine(error: BaseException) -> bool:
    """Whether an error says something of the machine, not of the picture."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINE


def reason(error: Exception) -> str:
    """Why a picture is skipped, the same words every time.

    They hold no address of memory, and not the place of the file.
    """
    if isinstance(error, Unreadable):
        return str(error)
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "its bytes", words)
    return f"{type(error).__name__}: {' '.join(words.split())}"
