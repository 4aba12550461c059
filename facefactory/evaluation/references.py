"""Statistics of real images, computed once a set and kept beside its shards, under the digest of their protocol."""

import contextlib
import functools
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facefactory import rundir
from facefactory.data.packing import survey
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import features, statistics
from facefactory.evaluation.extractors import Extractor
from facefactory.evaluation.features import Kept
from facefactory.results import Protocol


def folder(index: Index) -> Path:
    """Where they lie: beside the shards, or in the user's cache folder where nothing can be written there."""
    return survey.place(index) / "statistics"


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Let one process at a time compute what all others will read; all at once where nothing can be written."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            held.enter_context(rundir.locked(place / "lock"))
        yield


def of(index: Index, protocol: Protocol, extractor: Extractor, names: Collection[str]) -> Kept:
    """The statistics of a protocol's real images: `protocol.reals` of `protocol.split`, always the same ones."""
    place = folder(index)
    paths = _paths(place, protocol, names)
    kept = _read(paths)
    if len(kept) < len(paths):
        with alone(place):
            kept |= _read({name: path for name, path in paths.items() if name not in kept})
            missing = [name for name in names if name not in kept]
            if missing:
                shards = Shards(index, protocol.split)
                made = features.keep(
                    extractor, shards.chunks(shards.chosen(protocol.reals)), missing
                )
                for name in missing:
                    write(paths[name], functools.partial(_save, made[name].state()))
                kept |= made
    return kept


def known(index: Index, protocol: Protocol, names: Collection[str]) -> Kept:
    """Those of them that were computed before."""
    return _read(_paths(folder(index), protocol, names))


def _paths(place: Path, protocol: Protocol, names: Collection[str]) -> dict[str, Path]:
    return {name: place / f"{protocol.reference().id()}-{name}.npz" for name in names}


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file atomically, or not at all where nothing can be written."""
    with contextlib.suppress(OSError), rundir.atomic(path) as temporary:
        save(temporary)


def _save(state: dict[str, Any], path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, **state)


def _read(paths: dict[str, Path]) -> Kept:
    """Those that are there and whole."""
    kept: Kept = {}
    for name, path in paths.items():
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            one = statistics.make(name)
            with open(path, "rb") as stream, np.load(stream) as state:
                one.load(dict(state))
            kept[name] = one
    return kept
