"""index.json: what a folder of shards holds, as records; mapping its tars as arrays; checking them.

A shard is a USTAR tar of pairs `00000000.npy` + `00000000.json`, all of one size, so that images
lie at a fixed stride; or (storage `encoded`) of `00000000.png|jpg|webp` + `.json`, with `_offset`
and `_length` of each image's file in the table.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from facefactory import UserError, rundir
from facefactory.facts import Facts, Label, Size

if TYPE_CHECKING:
    import pandas as pd

Record = TypeVar("Record")
FORMAT = 1
OF_SHAPE = 2  # where height and width differ: versions that know format 1 alone refuse it
BLOCK = 512  # tar works in blocks
NPY_HEADER = 128


def padded(size: int) -> int:
    """`size` rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def stored(label: Label) -> npt.DTypeLike:
    """The type in which memory holds a label.

    The smallest that holds its classes and -1, float32 for a real one.
    """
    if label.kind == "real":
        return np.float32
    return np.min_scalar_type(-max(1, len(label.classes)))


# -- records ---------------------------------------------------------------------------------------


def lacking() -> Any:
    """A field that the file may lack: then it is None."""
    return dataclasses.field(default=None, metadata={"lacking": True})


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The files of a shard, beside index.json."""

    file: str
    count: int  # images
    bytes: int
    stride: int | None = lacking()  # bytes from an image to the next, in raw storage
    sha256: str
    pixels_sha256: str  # of the images alone
    table: str
    table_sha256: str


@dataclass(frozen=True)
class Split:
    """So many images, in shards."""

    count: int
    shards: list[Shard]


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Named:
    """So many files, and the first of them by name."""

    count: int
    first: list[str]


@dataclass(frozen=True)
class Balance:
    """Images of each class of a label in each split, before and after they were made equal."""

    label: str
    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]


@dataclass
class Selection:
    """Images that were found, and how many each step left."""

    found: int
    of_no_split: int = 0  # left out
    where: int | None = lacking()
    limit: int | None = lacking()
    balance: Balance | None = lacking()


@dataclass(frozen=True)
class Account:
    """Files found = packed + skipped + those left out, by reason."""

    found: int
    left_out: dict[str, Named]
    packed: int
    skipped: int


@dataclass(frozen=True)
class Pairs:
    """How many pairs of pictures are alike: the same, or nearly."""

    exact: int
    near: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Pictures that lie in two splits."""

    across_splits: Pairs
    cut: bool = False  # there may be more
    first: list[tuple[str, str, str]]  # two files, exact or near


@dataclass(frozen=True)
class Deep:
    """Pictures of 16 bits: how many, their highest value, and the bits that hold it."""

    images: int
    highest: int
    bits: int


@dataclass(frozen=True)
class Alike:
    """Images of a split, and how many of them are no copies of others there."""

    images: int
    different: int


@dataclass(frozen=True, kw_only=True)
class Content:
    """index.json without its digest; see shards/README.md."""

    format: int
    storage: Literal["raw", "encoded"]
    dataset: str
    resolution: int | str
    channels: Literal[1, 3]
    crop: str | int | list[int] | None = None
    filter: str | None = None
    labels: dict[str, Label]
    group: str | None = None
    origin: str | None = None
    licence: str | None = None
    consent: str | None = None
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    splits: dict[str, Split]
    # what happened on the way, of which old sets tell less
    skipped: list[Skipped] | None = lacking()
    rows_without_image: Named | None = lacking()
    images_without_row: Named | None = lacking()
    notes: list[str] | None = lacking()
    selection: Selection | None = lacking()
    account: Account | None = lacking()
    people_in_several_splits: int | None = lacking()
    labels_left_out: dict[str, str] | None = lacking()
    image_sizes: dict[str, int] | None = lacking()  # width x height -> files
    duplicates: Duplicates | None = lacking()
    pictures: dict[str, Named | Deep] | None = lacking()  # by what is suspicious of them
    alike: dict[str, Alike] | None = lacking()

    def __post_init__(self) -> None:
        Size.of(self.resolution)  # ValueError: it is none


def plain(value: Any) -> Any:
    """Records as containers that JSON knows."""
    if isinstance(value, Label):
        return value.entry
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if "lacking" not in field.metadata or getattr(value, field.name) is not None
        }
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Index:
    """A packed face set."""

    folder: Path
    content: Content

    @property
    def digest(self) -> str:
        """Of all that index.json says."""
        return rundir.digest(plain(self.content))

    @property
    def images_digest(self) -> str:
        """Digest of the shards' images and splits: what an unconditional model depends on."""
        return rundir.digest(self._column("pixels_sha256"))

    @property
    def labels_digest(self) -> str:
        """Digest of labels and their schema."""
        content = self.content
        tables = self._column("table_sha256")
        return rundir.digest([plain(content.labels), content.group, tables])

    def _column(self, key: str) -> dict[str, list[Any]]:
        """An entry of every shard, per split."""
        return {
            name: [getattr(shard, key) for shard in split.shards]
            for name, split in self.content.splits.items()
        }

    @property
    def facts(self) -> Facts:
        """What the data fix in a model."""
        return Facts(*self.size, self.content.channels, self.content.labels)

    @property
    def size(self) -> Size:
        """Of the images."""
        return Size.of(self.content.resolution)

    def split(self, name: str) -> Split:
        """One split; UserError: there is no such split."""
        splits = self.content.splits
        if name not in splits:
            raise UserError(f"{self.folder} has no split {name!r}; it has {', '.join(splits)}.")
        return splits[name]

    def require_different(self, split: str) -> None:
        """UserError: all pictures of a split are one, so there is nothing to learn from them."""
        alike = (self.content.alike or {}).get(split)  # sets of before say nothing
        if alike and alike.different < 2:
            raise UserError(
                f"all {alike.images} pictures of the split {split!r} in {self.folder} "
                "are one picture, or nearly; a training needs different ones. "
                f"Look at {self.folder / 'report.html'}, and pack others."
            )

    def tars(self, split: str) -> list[npt.NDArray[np.uint8]]:
        """Per shard its bytes as a memory map (copy-on-write: writing to it changes no file)."""
        return [
            np.memmap(self.folder / shard.file, np.uint8, mode="c")
            for shard in self.split(split).shards
        ]

    def maps(self, split: str) -> list[npt.NDArray[np.uint8]]:
        """Per shard of raw storage its images [n, H, W, C] uint8 in such a map."""
        height, width = self.size
        channels = self.content.channels
        first = BLOCK + NPY_HEADER  # where the pixels of the first image begin
        views = []
        for shard, tar in zip(self.split(split).shards, self.tars(split), strict=True):
            assert shard.stride is not None
            shape = (shard.count, height, width, channels)
            strides = (shard.stride, width * channels, channels, 1)
            views.append(np.ndarray(shape, np.uint8, tar, first, strides))
        return views

    def table(self, split: str) -> pd.DataFrame:
        """File names and encoded labels of a split, one row an image in packed order."""
        import pandas as pd

        paths = [self.folder / shard.table for shard in self.split(split).shards]
        return pd.concat(map(pd.read_parquet, paths), ignore_index=True)

    def columns(self, splits: list[str], names: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Some columns of the tables of some splits, one value an image in packed order.

        Labels are in their `stored` types.
        """
        schema = self.content.labels
        shards = [shard for name in splits for shard in self.split(name).shards]
        total = sum(shard.count for shard in shards)
        columns: dict[str, npt.NDArray[Any]] = {}
        for name in names:
            kind = stored(schema[name]) if name in schema else np.int64
            columns[name] = np.empty(total, kind)
        if not names:
            return columns

        # table after table, so that memory holds one of them
        import pandas as pd

        end = 0
        for shard in shards:
            start = end
            end += shard.count
            rows = pd.read_parquet(self.folder / shard.table, columns=names)
            for name, column in columns.items():
                column[start:end] = rows[name]
        return columns

    def verify(self, full: bool = False) -> None:
        """Check size and SHA-256 of every file.

        A good verdict is remembered per (path, size, time of change).

        Raises:
            UserError: a file is missing, has the wrong size or other bytes than index.json says.
        """
        for split in self.content.splits.values():
            for shard in split.shards:
                self._require_whole(shard.file, shard.sha256, shard.bytes, full)
                self._require_whole(shard.table, shard.table_sha256, None, full)

    def _require_whole(self, file: str, sha256: str, size: int | None, full: bool) -> None:
        """UserError: something is wrong with a file of a shard."""
        path = self.folder / file
        fault = _fault(path, sha256, size, full)
        if fault:
            raise UserError(
                f"shard file {path} {fault}. "
                "Pack the set again, or copy it again from where it came."
            )


def _fault(path: Path, sha256: str, size: int | None, full: bool) -> str | None:
    """What is wrong with a file."""
    if not path.is_file():
        return "is missing"
    stat = path.stat()
    if stat.st_size != (size or stat.st_size):
        return f"has {stat.st_size} bytes; index.json says {size}: it was cut or replaced"
    verdict = {
        "path": str(path.resolve()),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "sha256": sha256,
    }
    remembered = rundir.cache_folder() / "verified" / f"{rundir.digest(verdict)}.json"
    if not full and rundir.read_json(remembered) == verdict:
        return None
    there = rundir.sha256(path)
    if there != sha256:
        return f"has SHA-256 {there[:16]}…; index.json says {sha256[:16]}…: its bytes changed"
    rundir.remember(remembered, verdict)
    return None


def read_as(kind: type[Record], content: Any) -> Record:
    """What `plain` wrote, as records again; UserError: it is something else."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{place}: {first['msg']}") from None


def write(folder: Path, content: Content) -> Index:
    """Write index.json with the digest of its content; only then is the folder a set."""
    written = plain(content)
    rundir.write_json(folder / "index.json", {**written, "digest": rundir.digest(written)})
    return read(folder)


def read(folder: Path) -> Index:
    """The index of a folder of shards.

    UserError: no index.json, one of another format, or one that was edited or damaged.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no index.json; give a folder that jobs/pack_shards.py made."
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); pack the set again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not an index of shards; pack the set again.")
    if content.get("format") not in (FORMAT, OF_SHAPE):
        raise UserError(
            f"{path} has format {content.get('format')!r}; "
            f"this version reads {FORMAT} and {OF_SHAPE}. "
            "Pack the set again."
        )

    # what write put into it
    digested = {key: value for key, value in content.items() if key != "digest"}
    if content.get("digest") != rundir.digest(digested):
        raise UserError(
            f"{path} was changed after packing: its digest does not fit its content. "
            "Pack or copy the set again."
        )
    try:
        return Index(folder, read_as(Content, content))
    except UserError as error:
        raise UserError(f"{path} is no index of shards: {error}. Pack the set again.") from None
