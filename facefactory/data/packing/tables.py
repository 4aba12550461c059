"""Label tables as people give them, as text or parquet; and which row names which image."""

import csv
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data.sources.folder import SUFFIXES

EMPTY = ("", "nan", "None", "<NA>")  # file names that are none
LOOKED_AT = 1000  # rows in which a column is searched for file names
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


@dataclass
class Table:
    """Rows of a label table, and what a person should know of how it was read."""

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)


# -- reading ---------------------------------------------------------------------------


def read_table(path: Path, columns: list[str] | None = None) -> Table:
    """A label table: parquet, CSV, TSV, or columns with `;`, `|` or white space between them.

    Cells of text stay text. Lines before the header may be comments (#), `sep=;` or a count of
    the rows (CelebA's); a header may leave out the first column. `columns` are the names where
    the file has no header. UserError: no such file, no table, or cut short.
    """
    if not path.is_file():
        way = "give pack.labels=PATH of a .csv whose first column is the file name"
        raise UserError(f"no label table {path}; {way}.")
    with open(path, "rb") as stream:
        start = stream.read(2**16)
    other = _other_than_a_table(start)
    if other:
        raise UserError(f"label table {path} is {other}.")

    try:
        if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
            table = _read_parquet(path)
        else:
            table = _read_text(path, _encoding(path, start), columns)
        if not len(table.rows):
            raise ValueError("it has no rows")
    except Exception as error:
        reason = " ".join(str(error).split())
        form = "CSV (UTF-8) or parquet"
        raise UserError(f"label table {path} is not readable as {form}: {reason}") from None
    table.notes = [f"{path.name}: {note}" for note in table.notes]
    return table


def _other_than_a_table(start: bytes) -> str:
    """What a file that begins so is instead of a table, and what to do; else nothing."""
    # Text that is no table
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:2000].lower()
    if not text:
        return "empty: get it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        title = re.search(rb"<title>(.*?)</title>", start, re.IGNORECASE | re.DOTALL)
        named = ""
        if title:
            words = title[1].decode(errors="replace").split()
            named = f" ({' '.join(words)[:80]})"
        way = "its download was refused. Get it again, by hand if need be"
        return f"a web page{named}, not the table: {way}"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the table: run git lfs pull where it came from"
    if text.startswith((b"{", b"[")):
        return "JSON, no table: write it as CSV whose first column is the file name"

    # Bytes of other programs
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return "a workbook or an archive, no table of text: save it as CSV (UTF-8), or unpack it"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "compressed: unpack it"
    return ""


def _encoding(path: Path, start: bytes) -> str:
    """By the byte order mark, else UTF-8; ValueError: another one, with the line that shows it."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return encoding
    if start[1::2].count(0) > len(start) / 4:
        return "utf-16-le"
    if start[0::2].count(0) > len(start) / 4:
        return "utf-16-be"

    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                odd = f"line {number} holds the byte 0x{line[error.start]:02X}"
                command = f"iconv -f WINDOWS-1252 -t UTF-8 '{path.name}' > utf8.csv"
                way = f"Convert it, e.g. by {command} (or save it as CSV UTF-8)."
                raise ValueError(f"{odd}, so it is in another encoding. {way}") from None
    return "utf-8"


def _read_parquet(path: Path) -> Table:
    rows = pd.read_parquet(path)
    if rows.index.name or not pd.api.types.is_integer_dtype(rows.index):  # written by pandas
        rows = rows.reset_index()
    return _named(rows, list(map(str, rows.columns)))


@dataclass
class _Start:
    """What stands before a table's first line, and that line with its place."""

    mark: str | None = None  # between columns, as `sep=` gives it
    comment: str = ""  # the last line with #
    count: int | None = None  # of rows
    place: int = 0
    first: str = ""


def _start(stream: TextIO) -> _Start:
    start = _Start()
    while True:
        start.place = stream.tell()
        start.first = stream.readline()
        line = start.first.strip()
        given = re.fullmatch(r'"?sep=(.)"?', start.first.rstrip("\r\n"), re.IGNORECASE)
        if given:
            start.mark = given[1]
        elif line.startswith("#"):
            start.comment = line
        elif line.isdecimal() and start.count is None:
            start.count = int(line)
        elif line or not start.first:
            return start


def _cells(record: str, mark: str) -> list[str]:
    if len(mark) > 1:
        return [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', record)]
    reader = csv.reader([record], delimiter=mark, skipinitialspace=True)
    return [cell.strip() for cell in next(reader, [])]


def _record(stream: TextIO, mark: str) -> list[str]:
    """The next row's cells; a cell in quotes may have several lines."""
    if len(mark) > 1:
        return _cells(stream.readline(), mark)
    reader = csv.reader(iter(stream.readline, ""), delimiter=mark, skipinitialspace=True)
    return [cell.strip() for cell in next(reader, [])]


def _is_image(cell: str) -> bool:
    return cell.lower().endswith(SUFFIXES)


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?", cell) is not None


def _delimiter(path: Path, first: str, second: str) -> str:
    """What stands between columns: a character, or white space (as a pattern)."""
    bare = re.sub(r'"[^"]*"', "", first)
    mark = max(",;\t|", key=bare.count)
    if path.suffix.lower() == ".csv" and mark not in bare:
        raise ValueError("its first line has no comma, so there is no label beside the file names")
    count = first.count(mark)
    uneven = second.count(mark) not in (count, count + 1)
    return r"\s+" if mark not in bare or (mark == "\t" and uneven) else mark


def _read_text(path: Path, encoding: str, columns: list[str] | None) -> Table:
    with open(path, encoding=encoding, newline="") as stream:
        start = _start(stream)
        second = stream.readline()
        mark = start.mark or _delimiter(path, start.first, second)
        stream.seek(start.place)
        first = _record(stream, mark)
        names, has_header = _header(first, start.comment, mark, columns)

        # Where the rows begin
        if not has_header:
            stream.seek(start.place)
        begin = stream.tell()
        row = _record(stream, mark)

        # Whether they fit the header
        if columns is None and len(row) == len(names) + 1:
            names = [*names, ""] if row[-1] == "" else ["file", *names]
        fits = len(row) in (0, len(names))
        other_header = False
        if not has_header and row and not _is_image(row[0]):
            other_header = any(map(_is_image, _cells(second, mark)[:1]))
        if columns and (not fits or other_header):
            lines = f"{start.first.strip()!r}, {second.strip()!r}"
            raise ValueError(f"it begins with {lines}: the recipe's columns {columns} do not fit")

        before = _lines_before(stream, begin)
        rows = _rows(stream, mark, len(names), before)
    if start.count is not None and start.count != len(rows):
        counts = f"a count of {start.count} and holds {len(rows)} rows"
        raise ValueError(f"it begins with {counts}, so it was cut")
    return _named(rows, names)


def _header(
    first: list[str], comment: str, mark: str, columns: list[str] | None
) -> tuple[list[str], bool]:
    """Names of the columns, and whether the first line (its cells) is a header.

    It may be a line, a comment before the first row (as in LFW's attributes), or `columns`.
    ValueError: the first line is that of an image, and there is no header.
    """
    if columns is not None:
        return columns or first, first == columns or first[1:] == columns[1:]
    shows_image = any(map(_is_image, first))
    commented = _cells(comment.lstrip("#").strip(), mark)
    if len(commented) == len(first) > 1:
        numbers = any(map(_is_number, first)) and not any(map(_is_number, commented))
        if numbers or shows_image:
            return commented, False
    if shows_image:
        image = next(filter(_is_image, first))
        way = "give the columns names in a line before it"
        raise ValueError(f"its first line is that of the image {image}; {way}")
    return first, True


def _lines_before(stream: TextIO, place: int) -> int:
    """How many lines lie before a place, where the stream is left."""
    stream.seek(0)
    count = 0
    while stream.tell() != place and stream.readline():
        count += 1
    stream.seek(place)
    return count


def _rows(stream: TextIO, mark: str, width: int, before: int) -> pd.DataFrame:
    """The rest of a table as text, after `before` lines.

    ValueError: a row is wider than `width`.
    """
    form: dict[str, Any] = {
        "sep": mark,
        "header": None,
        "names": range(width),
        "index_col": False,
        "dtype": str,
        "keep_default_na": False,
        "skipinitialspace": True,
        "low_memory": False,
    }

    # A row that is too wide is an error, whatever pandas would do with it
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            rows: pd.DataFrame = pd.read_csv(stream, **form)
        except pd.errors.ParserWarning:
            more = f"more cells than its header, which has {width}"
            raise ValueError(f"its rows have {more}") from None
        except pd.errors.ParserError as error:
            wide = re.search(r"in line (\d+), saw (\d+)", str(error))
            if not wide:
                raise
            line = int(wide[1]) + before
            raise ValueError(f"its line {line} has {wide[2]} cells, its header {width}") from None
    if mark == ";":
        _point_decimals(rows)
    return rows


def _point_decimals(rows: pd.DataFrame) -> None:
    """Between semicolons a comma is the decimal point, unless the column has points, too."""
    for number in rows.columns:
        cells = rows[number].str.strip()
        decimal = cells.str.fullmatch(r"[+-]?\d+,\d+")
        if decimal.any() and not cells.str.fullmatch(r"[+-]?\d+\.\d+").any():
            pointed = cells.str.replace(",", ".", regex=False)
            rows[number] = cells.where(~decimal, pointed)


def _named(rows: pd.DataFrame, names: list[str]) -> Table:
    """Columns with a name each, all different; those without a name and without a value go."""
    table = Table(rows.set_axis(range(len(names)), axis=1))
    used = dict[int, str]()  # number of a column -> its name
    for number, given in enumerate(names):
        name = unicodedata.normalize("NFC", " ".join(given.split()))
        if not name:
            column = table.rows[number].replace("", np.nan)
            if number and column.isna().all():  # a comma at the end of each line
                continue
            name = f"column {number + 1}"
            if number:
                table.notes.append(f"a column without a name is called {name!r}")
        if name in used.values():
            first = name
            again = 2
            while name in {*used.values(), *names}:
                name = f"{first} ({again})"
                again += 1
            table.notes.append(f"two columns are called {first!r}; the second is called {name!r}")
        used[number] = name
    kept = table.rows[list(used)]
    table.rows = kept.set_axis(list(used.values()), axis=1)
    return table


# -- which row names which image -------------------------------------------------------


def plain(name: str) -> str:
    """A file name to be compared: `/` between folders, no `./`, composed Unicode."""
    text = name.strip().replace("\\", "/")
    if "./" in text:
        text = re.sub(r"(^|/)(\./)+", r"\1", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _ending(name: str, depth: int) -> str:
    """The last `depth` parts of a path, all of a shorter one."""
    return "/".join(name.rsplit("/", depth)[-depth:])


def _bare(name: str) -> str:
    """Without the ending of a picture, in lower case."""
    stem, dot, ending = name.rpartition(".")
    return (stem if dot and f".{ending}".lower() in SUFFIXES else name).casefold()


@dataclass
class Match:
    """Position of the image that each row names (-1: none)."""

    places: npt.NDArray[np.int64]
    exact: int = 0  # rows that name an image by its place below the root
    # rows that fit several images, or of which several fit one, and which these are
    unclear: list[tuple[int, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return int((self.places >= 0).sum())


class Images:
    """The images of a set, found by what tables call them.

    Args:
        names: unique places below the root.
        root: folder around them; its own name may stand in a table, too.
    """

    def __init__(self, names: Sequence[str] | pd.Index, root: Path | None = None) -> None:
        self.names = pd.Index(names, dtype=object)
        around = root.expanduser().absolute().as_posix().strip("/") if root else ""
        self.whole = [f"{around}/{name}".lstrip("/") for name in self.names]

    def match(self, rows: list[str]) -> Match:
        """Rows that name an image as it is, or differ from one image alone by leading folders."""
        places = self.names.get_indexer(pd.Index(rows, dtype=object))
        match = Match(places.astype(np.int64))
        match.exact = match.count
        if match.exact < len(rows):
            _match_endings(match, rows, list(self.names), self.whole)
        return match

    def match_bare(self, match: Match, rows: list[str]) -> None:
        """Fill in rows that differ by case or ending, too: `0001` or `0001.PNG` for `0001.jpg`."""
        bare_rows = list(map(_bare, rows))
        bare_names = list(map(_bare, self.names))
        bare_whole = list(map(_bare, self.whole))
        _match_endings(match, bare_rows, bare_names, bare_whole)


def _match_endings(match: Match, rows: list[str], names: list[str], whole: list[str]) -> None:
    """Fill in rows that end one image's whole path, then those that end with one image's name."""
    _match_rows_in_paths(match, rows, names, whole)
    _match_names_in_rows(match, rows, names)


def _match_rows_in_paths(
    match: Match, rows: list[str], names: list[str], whole: list[str]
) -> None:
    """Fill in rows that are the end of one free image's whole path."""
    left = _open_rows(match, rows)
    depths = [rows[row].count("/") + 1 for row in left]
    by_depth = _grouped(zip(depths, left, strict=True))

    # The deepest first: what names more folders knows better
    for depth in sorted(by_depth, reverse=True):
        images = np.flatnonzero(_free(match, len(names))).tolist()
        endings = [_ending(whole[image], depth) for image in images]
        by_ending = _grouped(zip(endings, images, strict=True))
        for row in by_depth[depth]:
            fitting = by_ending.get(rows[row], [])
            if len(fitting) > 1:
                match.unclear.append((row, f"{names[fitting[0]]} and {names[fitting[1]]}"))
            elif fitting:
                match.places[row] = fitting[0]


def _match_names_in_rows(match: Match, rows: list[str], names: list[str]) -> None:
    """Fill in rows that end with one free image's name: a table may know more folders."""
    depths = np.array([name.count("/") + 1 for name in names], int)
    for depth in sorted(set(depths.tolist()), reverse=True):
        left = _open_rows(match, rows)
        free = _free(match, len(names))
        so_deep = np.flatnonzero(free & (depths == depth)).tolist()
        by_name = {names[image]: image for image in so_deep}
        endings = [_ending(rows[row], depth) for row in left]
        by_ending = _grouped(zip(endings, left, strict=True))
        for ending, fitting in by_ending.items():
            if ending not in by_name:
                continue
            image = by_name[ending]
            if len({rows[row] for row in fitting}) > 1:
                match.unclear += [(row, f"{names[image]}, as other rows") for row in fitting]
            else:
                match.places[fitting] = image


def _open_rows(match: Match, rows: list[str]) -> list[int]:
    """Rows with a name that fits no image so far, and not several."""
    unclear = {row for row, _ in match.unclear}
    without_image = np.flatnonzero(match.places < 0).tolist()
    return [row for row in without_image if rows[row] and row not in unclear]


def _free(match: Match, images: int) -> npt.NDArray[np.bool_]:
    """Images that no row names so far."""
    free = np.ones(images, bool)
    free[match.places[match.places >= 0]] = False
    return free


def _grouped(pairs: Iterable[tuple[Any, int]]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def indexed(table: Table, path: Path, images: Images) -> Table:
    """The table by image: the column that names the images becomes the index, with their names.

    Rows that name no image keep what stands there. The first column is taken unless another
    names more images.
    UserError: an image is named twice, or every row fits several images.
    """
    best, column, cells = _best_match(table.rows, images)
    if best.count < len(cells):
        images.match_bare(best, cells)
    keys = np.array(cells, object)
    notes = list(table.notes)
    if column != table.rows.columns[0]:
        notes.append(f"{path.name}: the images are named by its column {column!r}")

    # Rows that name their image in other words, or several images, or none
    matched = np.flatnonzero(best.places >= 0)
    names = images.names.to_numpy()[best.places]
    other = matched[keys[matched] != names[matched]]
    if len(other):
        example = f"{keys[other[0]]} is {names[other[0]]}"
        known = f"{len(other)} rows are known by the ending of a name"
        notes.append(f"{path.name}: {known}, e.g. {example}")
    if best.unclear:
        notes.append(f"{path.name}: {_unclear(best, keys, path)}")
    empty = np.isin(keys, EMPTY) & (best.places < 0)
    if empty.any():
        notes.append(f"{path.name}: {int(empty.sum())} rows have no file name and are left out")

    # One row an image
    keys[matched] = names[matched]
    index = pd.Index(keys, dtype=object)
    rows = table.rows.drop(columns=column).set_axis(index)[~empty]
    if rows.index.has_duplicates and not best.count:  # no file names, as the caller says
        rows = rows[~rows.index.duplicated()]
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise UserError(f"label table {path} names {twice!r} twice; keep one row an image.")
    return Table(rows, notes)


def _unclear(match: Match, keys: npt.NDArray[Any], path: Path) -> str:
    """What a person should know of rows that fit several images; UserError: all do."""
    row, fitting = match.unclear[0]
    example = f"{keys[row]} fits {fitting}"
    if not match.count:
        whole = "write whole places below pack.root into the table"
        count = f"{len(match.unclear)} rows are unclear"
        raise UserError(f"label table {path}: {count}, e.g. {example}; {whole}.")
    return f"{len(match.unclear)} rows are unclear and left out, e.g. {example}"


def _plain(column: pd.Series) -> list[str]:
    return [plain(str(cell)) for cell in column.tolist()]


def _best_match(rows: pd.DataFrame, images: Images) -> tuple[Match, str, list[str]]:
    """How a table names the images, the column that does, and what stands there."""
    first, *others = map(str, rows.columns)
    keys = {first: _plain(rows[first])}
    matches = {first: images.match(keys[first])}
    most = min(len(rows), len(images.names))
    if matches[first].exact * 2 >= most:
        return matches[first], first, keys[first]

    # By whole names or their endings
    for name in others:
        cells = rows[name].head(LOOKED_AT)
        if any(isinstance(cell, str) and _is_image(cell.strip()) for cell in cells):
            keys[name] = _plain(rows[name])
            matches[name] = images.match(keys[name])
    column = max(matches, key=lambda name: matches[name].count)
    if matches[column].count or any(match.unclear for match in matches.values()):
        return matches[column], column, keys[column]

    # By names without their endings; numbers that fit by chance are no names
    for name in others:
        cells = rows[name].head(LOOKED_AT)
        single = all(isinstance(cell, str | int) for cell in cells)
        if name not in matches and single and cells.is_unique:
            keys[name] = _plain(rows[name])
            matches[name] = Match(np.full(len(rows), -1))
    for name, match in matches.items():
        images.match_bare(match, keys[name])
    column = max(matches, key=lambda name: matches[name].count)
    return matches[column], column, keys[column]


def read_tables(specs: list[Any], top: Path, images: Images, get: str | None = None) -> Table:
    """The tables of a recipe as one, by image: the same columns are stacked, others joined.

    A spec is {file: place below `top` (or several: the first that exists), columns, optional}.
    UserError: none exists (`get` then says where the set comes from), or an image is named twice.
    """
    merged: pd.DataFrame | None = None
    notes: list[str] = []
    for spec in specs:
        path = _path_of(spec, top, get)
        if path is None:
            continue
        table = indexed(read_table(path, spec.get("columns")), path, images)
        notes += table.notes
        if merged is None:
            merged = table.rows
        elif set(merged.columns) == set(table.rows.columns):
            merged = pd.concat([merged, table.rows])
        else:
            fresh = table.rows.columns.difference(merged.columns, sort=False)
            merged = merged.join(table.rows[fresh], how="outer")

    if merged is None:
        return Table(pd.DataFrame(), notes)
    if merged.index.has_duplicates:
        twice = merged.index[merged.index.duplicated()][0]
        columns = ", ".join(merged.columns)
        where = f"in two label tables with the same columns: {columns}"
        raise UserError(f"{twice!r} is {where}; keep one row an image.")
    return Table(merged, notes)


def _path_of(spec: dict[str, Any], top: Path, get: str | None) -> Path | None:
    """The first file of a spec that exists; None: none does, and the recipe can do without."""
    places = [spec["file"]] if isinstance(spec["file"], str) else spec["file"]
    for place in places:
        if (top / place).is_file():
            return top / place
    if spec.get("optional"):
        return None
    if get and not Path(places[0]).is_absolute():  # not pack.labels
        wanted = " or ".join(places)
        raise UserError(f"below {top} there is no label table {wanted}. To get the set: {get}")
    return top / places[0]
