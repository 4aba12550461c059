"""Files as pictures: the right values of every depth, damaged metadata that costs nothing, and names for what is no picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from facefactory.data.packing import pictures
from facefactory.data.sources import FORMATS
from facefactory.facts import Size

RED_AS_LAB = (138, 81, 70)  # L* 54.3 (of 255), a* 80.8, b* 69.9, under the light D50 of profiles


def blurred(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    """A smooth picture in colours, unlike itself turned."""
    few = np.random.default_rng(seed).integers(
        0,
        256,
        (6, 6, 3),
        dtype=np.uint8,
    )
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, form: str = "JPEG", **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **more)
    return stream.getvalue()


def read(content: bytes, bits: int = 16) -> pictures.Picture:
    """As packing reads it."""
    return pictures.read(
        lambda: Image.open(io.BytesIO(content), formats=FORMATS), lambda: content, bits
    )


def packed(picture: pictures.Picture, crop: str, side: int, color: str) -> Image.Image:
    """As it is packed, a square."""
    return pictures.fitted(pictures.upright(picture, color), crop, Size(side, side))


def refused(content: bytes) -> str:
    """Why a file is skipped."""
    try:
        read(content)
    except Exception as error:
        return pictures.reason(error)
    pytest.fail("it was read")


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits: values [H, W, 1 to 4] of gray, gray and alpha, RGB, RGBA."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(
        ">IIBBBBB",
        width,
        height,
        16,
        kind,
        0,
        0,
        0,
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(
    values: np.ndarray, photometric: int = 1, sample_format: int = 1, order: str = "<"
) -> bytes:
    """A TIFF without compression: values [H, W, C] of any type."""
    height, width, channels = values.shape
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    bits, tags = 8 * values.dtype.itemsize, 11
    lists = 8 + 2 + 12 * tags + 4  # what does not fit into an entry lies behind all entries
    start = lists + 4 * channels

    def entry(tag: int, kind: int, count: int, content: bytes) -> bytes:
        return struct.pack(f"{order}HHI", tag, kind, count) + content.ljust(4, b"\0")

    def several(tag: int, value: int, place: int) -> bytes:
        words = struct.pack(f"{order}{channels}H", *[value] * channels)
        return entry(
            tag,
            3,
            channels,
            words if channels <= 2 else struct.pack(f"{order}I", place),
        )

    short, long = (
        (lambda value: struct.pack(f"{order}H", value)),
        (lambda value: struct.pack(f"{order}I", value)),
    )
    entries = [
        entry(256, 4, 1, long(width)),
        entry(257, 4, 1, long(height)),
        several(258, bits, lists),
        entry(259, 3, 1, short(1)),
        entry(262, 3, 1, short(photometric)),
        entry(273, 4, 1, long(start)),
        entry(277, 3, 1, short(channels)),
        entry(278, 4, 1, long(height)),
        entry(279, 4, 1, long(len(pixels))),
        entry(284, 3, 1, short(1)),
        several(339, sample_format, lists + 2 * channels),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, tags)
    tail = struct.pack(f"{order}{2 * channels}H", *[bits] * channels, *[sample_format] * channels)
    return head + b"".join(entries) + bytes(4) + tail + pixels


def ramp(most: int, channels: int = 1) -> np.ndarray:
    """Values 0…most [8, 8, C]; the last channel of two and of four is opaque."""
    values = np.linspace(0, most, 64 * channels).round().astype(np.uint16).reshape(8, 8, channels)
    if channels in (2, 4):
        values[..., -1] = 65535
    return values


# -- depths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "bits"),
    [
        (1, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (4095, 12),
        (16383, 14),
        (16384, 16),
    ],
)
def test_the_bits_of_a_set_are_the_least_that_hold_its_highest_value(most: int, bits: int) -> None:
    assert pictures.bits_of(most) == bits


@pytest.mark.parametrize("bits", pictures.BITS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_of_a_png_keep_their_brightness(bits: int, channels: int) -> None:
    values = ramp(2**bits - 1, channels)
    found = read(png16(values), bits)
    colors = values if channels in (1, 3) else values[..., :-1]
    assert found.highest == colors.max() and not found.unseen
    wanted = np.round(colors / (2**bits - 1) * 255)
    shown = np.asarray(found.image.convert("RGB" if channels > 2 else "L")).reshape(wanted.shape)
    assert np.abs(shown - wanted).max() <= 1 and shown.max() > 240


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_a_tiff_keep_their_brightness(order: str) -> None:
    for channels, photometric in ((1, 1), (3, 2)):
        values = ramp(4095, channels)
        found = read(tiff(values, photometric, order=order), 12)
        assert found.highest == 4095
        assert (
            np.abs(np.asarray(found.image).reshape(values.shape) - values / 4095 * 255).max() <= 1
        )
    packed = io.BytesIO()
    Image.fromarray(ramp(4095)[..., 0]).save(
        packed,
        "TIFF",
        compression="tiff_lzw",
    )
    assert (
        np.abs(
            np.asarray(read(packed.getvalue(), 12).image) - ramp(4095)[..., 0] / 4095 * 255
        ).max()
        <= 1
    )


def test_a_tiff_whose_zero_is_white_is_no_negative() -> None:
    values = ramp(65535)
    found = read(tiff(values, photometric=0))
    assert np.abs(np.asarray(found.image) - (255 - values[..., 0] / 257)).max() <= 1
    eight = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    assert np.array_equal(np.asarray(read(tiff(eight, photometric=0)).image), 255 - eight[..., 0])


def test_a_pgm_says_its_range_itself() -> None:
    values = ramp(1000)[..., 0]
    content = b"P5 8 8 1023\n" + values.astype(">u2").tobytes()
    found = read(content, 8)  # whatever the set's
    assert found.highest == 0
    assert np.abs(np.asarray(found.image) - values / 1023 * 255).max() <= 1
    whole = b"P5 8 8 65535\n" + ramp(4095)[..., 0].astype(">u2").tobytes()
    assert read(whole, 12).highest == 4095 and np.asarray(read(whole, 12).image).max() == 255


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            tiff(np.ones((8, 8, 1), np.float32), sample_format=3),
            "floating-point picture: nobody knows what is white",
        ),
        (
            tiff(np.full((8, 8, 1), 70000, np.int32), sample_format=2),
            "signed or 32-bit integers: values 70000 to 70000",
        ),
        (
            tiff(np.full((8, 8, 1), -3, np.int16), sample_format=2),
            "signed or 32-bit integers: values -3 to -3",
        ),
        (tiff(np.ones((8, 8, 4), np.uint16), photometric=5), "16 bits an ink"),
        (
            tiff(np.ones((8, 8, 1), np.float64), sample_format=3),
            "TIFF picture: it is damaged, or of a kind that is not read",
        ),
    ],
    ids=["float", "32 bits", "signed", "inks", "double"],
)
def test_what_has_no_known_range_is_named(content: bytes, reason: str) -> None:
    assert reason in refused(content)


def test_other_kinds_of_pixels_become_what_they_show() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 100, 0])
    bits = Image.fromarray(np.eye(8, dtype=bool))
    lab = np.broadcast_to(np.array(RED_AS_LAB, np.uint8), (8, 8, 3)).copy()
    inks = np.broadcast_to(np.array([0, 255, 255, 0], np.uint8), (8, 8, 4)).copy()
    wanted = {
        file_of(palette, "PNG"): (200, 100, 0),
        tiff(lab, photometric=8): (255, 0, 0),
        tiff(inks, photometric=5): (255, 0, 0),
        tiff(np.full((8, 8, 1), 255, np.uint32)): (255, 255, 255),
    }
    for content, color in wanted.items():
        shown = packed(read(content, 8), "square", 8, "rgb")
        assert np.abs(np.array(shown.getpixel((3, 3))) - color).max() <= 6
    assert np.array_equal(
        np.asarray(packed(read(file_of(bits, "PNG")), "square", 8, "gray")),
        np.eye(8) * 255,
    )


# -- transparency ----------------------------------------------------------------------------------------------------


def bmp_with_alpha(image: Image.Image, alpha: int) -> bytes:
    """A BMP of 32 bits whose header says that the last byte is alpha."""
    bgra = image.convert("RGBA")
    bgra.putalpha(alpha)
    rows = np.asarray(bgra)[::-1, :, [2, 1, 0, 3]].tobytes()
    sizes = struct.pack(
        "<IiiHHIIiiII",
        108,
        *image.size,
        1,
        32,
        3,
        len(rows),
        2835,
        2835,
        0,
        0,
    )
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + len(rows), 0, 0, 122) + sizes + masks + rows


@pytest.mark.parametrize("alpha", [0, 1])
def test_a_picture_that_nobody_could_see_shows_its_colours(alpha: int) -> None:
    image = blurred()
    found = read(bmp_with_alpha(image, alpha))
    assert found.unseen and np.array_equal(np.asarray(found.image), np.asarray(image))
    image.putalpha(alpha)
    assert np.array_equal(
        np.asarray(read(file_of(image, "PNG")).image), np.asarray(image.convert("RGB"))
    )


def test_what_is_partly_transparent_lies_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 4, 8))
    found = read(file_of(image, "PNG"))
    assert not found.unseen
    assert [found.image.getpixel(place)[:3] for place in ((1, 1), (6, 6))] == [
        (10, 20, 30),
        (255, 255, 255),
    ]  # type: ignore[index]


# -- metadata --------------------------------------------------------------------------------------------------------


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG of `blurred` with application segments (number, content) in front."""
    content = file_of(blurred(), quality=95)
    made = [
        bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(its) + 2) + its
        for number, its in segments
    ]
    return content[:2] + b"".join(made) + content[2:]


def exif(*entries: bytes, tail: bytes = b"", cut: int | None = None) -> bytes:
    """EXIF of whole entries, and what they point to (from byte 14 + 12 an entry on)."""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return jpeg_with((1, (b"Exif\0\0" + head + b"".join(entries) + bytes(4) + tail)[:cut]))


def turned(value: int) -> bytes:
    return struct.pack("<HHIHH", 0x112, 3, 1, value, 0)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    content = file_of(blurred(), "PNG")
    return content[:33] + b"".join(chunk(*one) for one in chunks) + content[33:]


def raw_profile(words: str) -> bytes:
    information = PngImagePlugin.PngInfo()
    information.add_text("Raw profile type exif", words)
    return file_of(blurred(), "PNG", pnginfo=information)


XMP = b"http://ns.adobe.com/xap/1.0/\0"
LARGE = zlib.compress(bytes(3 << 20))
DAMAGED = {  # name -> (file, orientation that it still says)
    "resolution of -1/0": (
        exif(turned(6), struct.pack("<HHII", 0x11A, 10, 1, 38), tail=struct.pack("<ii", -1, 0)),
        6,
    ),
    "resolution out of the file": (exif(turned(6), struct.pack("<HHII", 0x11A, 5, 1, 99999)), 6),
    "an unknown type": (exif(turned(6), struct.pack("<HHII", 0x9999, 77, 1, 26)), 6),
    "four billion letters": (exif(turned(6), struct.pack("<HHII", 0x10F, 2, 0xFFFFFFFF, 26)), 6),
    "no number": (
        exif(
            turned(6),
            struct.pack("<HHII", 0x9999, 12, 1, 38),
            tail=struct.pack("<d", float("nan")),
        ),
        6,
    ),
    "a folder in itself": (exif(turned(6), struct.pack("<HHII", 0x8769, 4, 1, 8)), 6),
    "orientation as a byte": (exif(struct.pack("<HHIBxxx", 0x112, 1, 1, 6)), 6),
    "orientation as a long": (exif(struct.pack("<HHII", 0x112, 4, 1, 6)), 6),
    "orientation as 0/0": (exif(struct.pack("<HHII", 0x112, 5, 1, 26), tail=bytes(8)), 1),
    "orientation as text": (exif(struct.pack("<HHI4s", 0x112, 2, 4, b"six\0")), 1),
    "orientation 0": (exif(turned(0)), 1),
    "orientation 9": (exif(turned(9)), 1),
    "EXIF cut in its head": (exif(turned(6), cut=12), 1),
    "EXIF cut in an entry": (exif(turned(6), cut=20), 1),
    "EXIF of nothing": (jpeg_with((1, b"Exif\0\0")), 1),
    "EXIF of junk": (jpeg_with((1, b"Exif\0\0" + b"\x99" * 50)), 1),
    "XMP cut": (jpeg_with((1, XMP + b'<x:xmpmeta tiff:Orientation="')), 1),
    "XMP of no letters": (
        jpeg_with((1, XMP + b'\xff\xfe<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>')),
        6,
    ),
    "profile cut": (jpeg_with((2, b"ICC_PROFILE\0\1")), 1),
    "profile of junk": (jpeg_with((2, b"ICC_PROFILE\0\1\1" + b"x" * 40)), 1),
    "profile cut, turned": (jpeg_with((1, exif(turned(8))[6:40]), (2, b"ICC_PROFILE\0\1")), 8),
    "Photoshop's cut": (jpeg_with((13, b"Photoshop 3.0\x008BIM\x03\xed\x05")), 1),
    "Adobe's cut": (jpeg_with((14, b"Adobe\0")), 1),
    "many pictures, but one": (jpeg_with((2, b"MPF\0junkjunk")), 1),
    "PNG text that unpacks to 3 MB": (png_with((b"zTXt", b"k\0\0" + LARGE)), 1),
    "PNG text in many tongues": (png_with((b"iTXt", b"k\0\1\0\0\0" + LARGE)), 1),
    "PNG text, 70 MB": (png_with(*[(b"tEXt", b"k\0" + b"x" * (1 << 20))] * 70), 1),
    "PNG text, packed unknown": (png_with((b"zTXt", b"k\0\7junk")), 1),
    "PNG profile, large": (png_with((b"iCCP", b"k\0\0" + LARGE)), 1),
    "PNG profile, none": (png_with((b"iCCP", b"")), 1),
    "PNG gamma cut": (png_with((b"gAMA", b"")), 1),
    "PNG size cut": (png_with((b"pHYs", b"\0")), 1),
    "PNG transparency cut": (png_with((b"tRNS", b"\0")), 1),
    "PNG film cut, turned": (png_with((b"acTL", b"\0"), (b"eXIf", exif(turned(3))[12:40])), 3),
    "PNG checksum of a text": (
        png_with((b"tEXt", b"k\0v")).replace(chunk(b"tEXt", b"k\0v")[-4:], b"\0\0\0\0"),
        1,
    ),
    "PNG EXIF of junk": (png_with((b"eXIf", b"junk")), 1),
    "PNG EXIF as text": (raw_profile("\nexif\n 10\nzzzz"), 1),
    "WebP of junk": (
        file_of(blurred(), "WEBP", quality=95, exif=b"Exif\0\0junk", icc_profile=b"x", xmp=b"<x"),
        1,
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of what is damaged; packing ignores them too
def test_damaged_metadata_costs_neither_the_picture_nor_its_orientation(name: str) -> None:
    content, orientation = DAMAGED[name]
    found = read(content)
    assert found.orientation == orientation
    assert np.abs(np.asarray(found.image).astype(int) - np.asarray(blurred())).mean() < 3
    shown = packed(found, "none", 16, "rgb")
    whole = pictures.Picture(blurred(), orientation, 0, False)
    wanted = packed(whole, "none", 16, "rgb")
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(wanted)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation: int) -> None:
    undone = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90,
    }
    image = blurred(width=16, height=16)
    tags = Image.Exif()
    tags[0x112] = orientation
    found = read(file_of(image, "PNG", exif=tags))
    shown = packed(found, "none", 16, "rgb")
    assert np.array_equal(np.asarray(shown), undone[orientation](np.asarray(image)))


def test_a_picture_that_is_cut_stays_unreadable() -> None:
    for content in (
        file_of(blurred())[:-200],
        file_of(blurred(), "PNG")[:-200],
        file_of(blurred(), "WEBP")[:-200],
    ):
        with pytest.raises(Exception, match=r"truncated|decode|read"):
            read(content)


def test_a_profile_costs_no_time_where_nothing_is_wrong() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content, opened = file_of(blurred(), "JPEG", icc_profile=profile), []

    def load() -> Image.Image:
        opened.append(1)
        return Image.open(io.BytesIO(content))

    pictures.read(load, None, 16)
    assert len(opened) == 1


# -- what is no picture ------------------------------------------------------------------------------------------------


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x24ftyp" + brand + bytes(4) + b"mif1" + bytes(500)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file: copy it again"),
        (
            bytes(5000),
            "file of zeros: its first 1024 bytes are 0, as after a copy that was cut; copy it again",
        ),
        (ftyp(b"heic"), "HEIC picture: not read; convert it, e.g. to PNG"),
        (ftyp(b"mif1"), "HEIC picture: not read; convert it, e.g. to PNG"),
        (ftyp(b"avif"), "AVIF picture: not read; convert it, e.g. to PNG"),
        (ftyp(b"isom"), "film: no picture that is read"),
        (file_of(blurred(), "GIF"), "GIF picture: not read; convert it, e.g. to PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL picture: not read; convert it, e.g. to PNG"),
        (b"\xff\x0a" + bytes(range(20)), "JPEG XL picture: not read; convert it, e.g. to PNG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 picture: not read; convert it, e.g. to PNG"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "HTML page: no picture that is read"),
        (b"<html lang=en>", "HTML page: no picture that is read"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "SVG drawing: no picture that is read"),
        (b"<Error><Code>AccessDenied</Code>", "XML file: no picture that is read"),
        (b'{"error": 404}', "JSON file: no picture that is read"),
        (b"%PDF-1.7", "PDF file: no picture that is read"),
        (b"PK\x03\x04" + bytes(30), "zip archive: no picture that is read"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "pointer of git-lfs: the picture itself is not here; git lfs pull fetches it",
        ),
        (
            b"../.git/annex/objects/xx/yy/SHA256E-s1--0.jpg",
            "pointer of git-annex: the picture itself is not here; git annex get fetches it",
        ),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "resource file of a Mac: no picture that is read"),
        (b"404: Not Found\n", "text: it begins with '404: Not Found'"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "OSError: Truncated File Read"),
        (
            b"\x89PNG\r\n\x1a\n" + bytes(9),
            "PNG picture: it is damaged, or of a kind that is not read",
        ),
        (
            b"\x91\x92\x93\x94\x95\x96\x97\x98\x99",
            "unknown file: it begins with the bytes 91 92 93 94 95 96 97 98",
        ),
    ],
)
def test_a_file_that_is_no_picture_says_what_it_is(content: bytes, reason: str) -> None:
    assert refused(content) == reason


def test_a_reason_holds_no_address_and_no_place() -> None:
    stream = io.BytesIO(b"x")
    assert (
        pictures.reason(ValueError(f"cannot read {stream!r}\n twice"))
        == "ValueError: cannot read its bytes twice"
    )
    away = FileNotFoundError(2, "No such file or directory", "/place/of/mine.png")
    assert pictures.reason(away) == "FileNotFoundError: No such file or directory"


# -- what is suspected ---------------------------------------------------------------------------------------------------


def same(value: int) -> Callable[[], np.ndarray]:
    return lambda: np.full((64, 64, 1), value, np.uint8)


def test_dark_and_flat_pictures_are_suspected_and_faces_are_not() -> None:
    draws = np.random.default_rng(0)
    assert pictures.fault(np.asarray(blurred(width=64, height=64))) is None
    assert (
        pictures.fault(np.asarray(blurred(width=64, height=64)) // 16) == "dark"
    )  # 12 bits, taken as 16
    assert pictures.fault(np.asarray(blurred(width=64, height=64)) // 2 + 60) is None
    assert [pictures.fault(same(value)()) for value in (0, 40, 128, 255)] == [
        "dark",
        "dark",
        "flat",
        "flat",
    ]
    noise = (128 + draws.integers(-2, 3, (64, 64, 1))).astype(np.uint8)
    assert pictures.fault(noise) == "flat"
    assert pictures.fault(draws.integers(0, 256, (8, 8, 3), np.uint8)) is None
