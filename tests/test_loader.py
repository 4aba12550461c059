"""The loader: the order's images in the order's order, whatever the ranks, the clock and the shards."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_shard import pack_arrays, smooth

from facefactory import UserError
from facefactory.data import Data
from facefactory.data.sets import device, loader, staging
from facefactory.data.sets.device import on_device
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Batch, Shards, batches
from facefactory.data.sets.order import Ids, Order
from facefactory.data.sets.pixels import shift, to_model, to_uint8


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of 16 images, so that a few batches cross many of them."""
    monkeypatch.setattr(loader, "AHEAD", 16)
    return 16


def read_tars(index: Index, split: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Images [N, H, W, C] and label rows of a split, read without the loader or the mapping."""
    images = []
    rows = []
    for shard in index.split(split).shards:
        with tarfile.open(index.folder / shard.file) as tar:
            for info in tar.getmembers():
                content = tar.extractfile(info).read()  # type: ignore[union-attr]
                if info.name.endswith(".npy"):
                    images.append(np.load(io.BytesIO(content)))
                else:
                    rows.append(json.loads(content))
    return np.stack(images), rows


@pytest.mark.parametrize("clock", [0, 8, 44, 45, 1003])
@pytest.mark.parametrize("balance", [None, "Glasses"])
def test_batches_are_the_orders_images(
    index: Index, short_blocks: int, clock: int, balance: str | None
) -> None:
    images, rows = read_tars(index, "train")
    shards = Shards(index, "train")
    order = shards.order(Data(balance=balance), 3)[0]
    wanted = ("Person", "Glasses", "Beard")
    for number, batch in enumerate(
        itertools.islice(batches(shards, order, clock, 8, 0, 8, False, wanted), 30)
    ):  # over 5 epochs
        ids = order.ids(clock + 8 * number, clock + 8 * number + 8)
        assert batch.positions.tolist() == ids.tolist()
        assert np.array_equal(batch.images.numpy(), images[ids])
        for name in ("Person", "Glasses", "Beard"):
            assert (
                batch.labels[name].dtype == torch.int64
            )  # tensors of a smaller type are no index and soon overflow
            assert batch.labels[name].tolist() == [rows[i][name] for i in ids]


ORDERS = {
    "whole": Data(),
    "windows": Data(window_images=16),
    "balanced": Data(balance="Glasses"),
    "weighted": Data(balance="Glasses", weights={"1": 3.0}),
    "balanced windows": Data(balance="Glasses", window_images=16),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_ranks_slices_make_up_the_global_batch_also_after_a_break(
    index: Index, short_blocks: int, ranks: int, name: str
) -> None:
    shards = Shards(index, "train")
    share = 24 // ranks
    order, _ = shards.order(ORDERS[name], 1)

    def streams(clock: int) -> list[Iterator[Batch]]:
        spans = [(rank * share, (rank + 1) * share) for rank in range(ranks)]
        return [batches(shards, order, clock, 24, lo, hi, False, ["Person"]) for lo, hi in spans]

    running = streams(7)
    for number in range(8):  # four epochs
        if number == 3:
            running = streams(7 + 24 * number)
        slices = [next(stream) for stream in running]
        ids = order.ids(7 + 24 * number, 31 + 24 * number)
        assert np.concatenate([found.positions for found in slices]).tolist() == ids.tolist()
        assert torch.equal(torch.cat([found.images for found in slices]), shards.images(ids))
        assert torch.equal(
            torch.cat([found.labels["Person"] for found in slices]),
            shards.labels(["Person"])["Person"][ids],
        )


def test_options_become_an_order_and_its_definition(index: Index) -> None:
    shards = Shards(index, "train")
    assert shards.order(Data(), 0)[1] == "feistel-6-v1 over 45, balance None"
    for name, options in ORDERS.items():
        order, words = shards.order(options, 5)
        drawn = order.ids(0, 45)
        assert (
            words
            == {
                "whole": "feistel-6-v1 over 45, balance None",
                "windows": "feistel-6-v1 over 45, balance None, windows-v1 of 1 shards",
                "balanced": "feistel-6-v1 over 45, balance Glasses",
                "weighted": "feistel-6-v1 over 45, balance Glasses, weights (1.0, 3.0)",
                "balanced windows": "feistel-6-v1 over 45, balance Glasses, windows-v2 of 1 shards",
            }[name]
        )
        assert set(np.diff(drawn // 16)) >= {0}
        assert len(set(drawn // 16)) == 3
        with_glasses = int(shards.labels(["Glasses"])["Glasses"][drawn].sum())
        assert with_glasses == {"whole": 18, "windows": 18, "weighted": 34}.get(name, 22)
    assert shards.order(Data(window_images=10**6), 0)[0].window == 0  # one window is the whole set
    assert shards.order(Data(window_images=5), 0)[0].window == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            Data(balance="Glasses", weights={"2": 1.0}),
            "give numbers from 0 on, not all 0, to the classes .*Glasses: 0, 1",
        ),
        (Data(balance="Glasses", weights={"0": -1.0}), "from 0 on"),
        (Data(balance="Glasses", weights={"0": 0.0, "1": 0.0}), "not all 0"),
        (Data(weights={"1": 1.0}), "those of a label's classes; say which by data.balance=LABEL"),
    ],
)
def test_weights_that_do_not_fit_are_refused(index: Index, options: Data, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Shards(index, "train").order(options, 0)


def test_windows_read_whole_shards_ahead_once(
    index: Index, short_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(index, "train")
    read = list[str]()
    monkeypatch.setattr(
        "builtins.open", lambda path, *_, **__: read.append(path.name) or io.BytesIO(b"x" * 10)
    )
    order = shards.order(Data(window_images=16), 0)[0]
    swept = deque[int](maxlen=4)
    shards.sweep(order.ids(0, 5), swept)
    assert len(read) == 1
    shards.sweep(order.ids(5, 10), swept)
    assert len(read) == 1
    shards.sweep(order.ids(order.reach, order.reach + 5), swept)
    assert len(read) == len(set(read)) == 2


def test_no_stop_waits_for_what_is_read_ahead(
    index: Index, short_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(index, "train")
    began = threading.Event()

    class Slow(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            began.set()
            time.sleep(0.01)
            return 1  # for ever

    monkeypatch.setattr("builtins.open", lambda *_, **__: Slow())
    stream = batches(
        shards,
        shards.order(Data(window_images=16), 0)[0],
        0,
        8,
        0,
        8,
    )
    next(stream)
    assert began.wait(10)
    stream.close()  # or the test hangs


@pytest.mark.parametrize("kind", ["raw", "png"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_staging_gives_the_same_bits(
    index: Index,
    short_blocks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    set_ = (
        index if kind == "raw" else pack_arrays(tmp_path / "set", smooth(400, 16, 3), "png", 300)
    )
    plain = Shards(set_, "train")
    staged = Shards(set_, "train", np.arange(40)[::-1].copy())
    whole = Shards(set_, "train")
    whole.stage(where)
    staged.stage(where)

    # all of it, some of it, and silently
    assert torch.equal(whole.images(), plain.images())
    assert torch.equal(staged.images(), plain.images(np.arange(40)[::-1]))
    assert capsys.readouterr().err == ""

    # and as batches
    order = whole.order(Data(balance=next(iter(set_.content.labels))), 3)[0]
    for ours, theirs in zip(
        range(5),
        zip(batches(whole, order, 9, 8, 0, 8), batches(plain, order, 9, 8, 0, 8), strict=False),
        strict=False,
    ):
        assert torch.equal(theirs[0].images, theirs[1].images), ours


def copy_of(shards: Shards) -> tuple[int, int]:
    stat = os.fstat(shards._copy.fileno())  # type: ignore[union-attr]
    return stat.st_ino, stat.st_size


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_copy_is_mapped_shared_so_that_it_may_be_larger_than_memory(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shards = Shards(index, "train")
    shards.stage(where)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    assert [
        rights[3] for _, rights, _, _, inode, *_ in maps if int(inode) == copy_of(shards)[0]
    ] == ["s"]  # p: private


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_the_ranks_of_a_node_share_one_copy_that_ends_with_them(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    ranks = [Shards(index, "train") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda shards: shards.stage(where), ranks))

    # one copy, without a name, that nobody else may read
    assert all(torch.equal(shards.images(), Shards(index, "train").images()) for shards in ranks)
    assert {copy_of(shards) for shards in ranks} == {(copy_of(ranks[0])[0], 45 * 16 * 16)}
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (
        sum(path.stat().st_size for path in folder.iterdir()) < 2000
    )  # a list of those who hold it

    # another process joins, and is killed
    held, _ = copy_of(ranks[0])
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom facefactory.data.sets import index\nfrom facefactory.data.sets.loader import Shards\n"
        f"shards = Shards(index.read(Path({str(index.folder)!r})), 'train')\nshards.stage({where!r})\n"
        "import os\nprint(os.fstat(shards._copy.fileno()).st_ino, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as other:
        assert int(other.stdout.readline()) == held  # type: ignore[union-attr]
        ranks.clear()
        late = Shards(index, "train")
        late.stage(where)
        assert copy_of(late)[0] == held  # from the other process
        other.kill()
        other.wait()
    assert torch.equal(late.images(), Shards(index, "train").images())

    # the last one leaves: a new copy
    del late
    gc.collect()
    fresh = Shards(index, "train")
    fresh.stage(where)  # nobody holds one any more
    (holders,) = folder.glob("*.jsonl")
    assert len(holders.read_text().splitlines()) == 1
    assert torch.equal(fresh.images(), Shards(index, "train").images())


def test_a_copy_in_a_container_that_cannot_be_looked_into_is_not_made_again(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = Shards(index, "train")
    second = Shards(index, "train")
    plain = Shards(index, "train")
    first.stage("memory")

    def denied(path: str, *_: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", denied)
    second.stage("memory")
    monkeypatch.undo()
    assert re.search(
        r"^data.stage=memory: .*Permission denied: '/proc/\d+/fd/\d+'; the images are read from",
        capsys.readouterr().err,
    )
    assert second._copy is None
    assert torch.equal(second.images(), plain.images())
    assert torch.equal(first.images(), plain.images())


def test_a_stop_ends_a_long_copy(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_blocks: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = iter([False, True, True])
    shards = Shards(index, "train")
    shards.stage("disk", lambda: next(asked))
    assert shards._copy is None
    assert next(asked, None) is None
    assert not list(tmp_path.glob("facefactory-*/*.jsonl"))


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("trouble", ["room", "rights", "full"])
def test_staging_without_room_says_so_and_reads_from_the_shards(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    trouble: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if trouble == "room":
        monkeypatch.setattr(staging, "free_memory", lambda: 14_000)
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=14_000))
        message = "GiB of images do not fit into 80 % of the .* GiB free"
    elif where == "memory":
        return
    elif trouble == "rights":
        (tmp_path / f"facefactory-{os.getuid()}").write_text("")  # not a folder
        message = "File exists"
    else:
        monkeypatch.setattr(os, "fdopen", lambda number, mode: Full(number, mode.replace("b", "")))
        message = "No space left on device"

    # told once, and read all the same
    shards = Shards(index, "train")
    shards.stage(where)
    monkeypatch.undo()
    assert re.search(
        rf"^data.stage={where}: .*{message}.*; the images are read from {index.folder} instead\.$",
        capsys.readouterr().err,
    )
    assert torch.equal(shards.images(), Shards(index, "train").images())
    assert not list(tmp_path.glob("facefactory-*/.*"))


def test_memory_is_what_linux_has_or_slurm_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert 2**26 < staging.free_memory() < 2**50
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64")
    assert staging.free_memory() == 2**26


def test_a_subset_is_a_set_of_its_own(index: Index, short_blocks: int) -> None:
    images, rows = read_tars(index, "train")
    chosen = np.array([44, 3, 17, 30, 16])  # of all three shards, not sorted
    subset = Shards(index, "train", chosen)
    assert len(subset) == 5
    assert np.array_equal(subset.images().numpy(), images[chosen])
    assert subset.labels(["Person"])["Person"].tolist() == [rows[i]["Person"] for i in chosen]
    assert subset.table["Beard"].tolist() == [rows[i]["Beard"] for i in chosen]
    batch = next(batches(subset, Order(5, 0), 0, 5, 0, 5))
    assert np.array_equal(batch.images.numpy(), images[chosen[batch.positions]])


def test_several_splits_are_one_array(index: Index) -> None:
    both = Shards(index, ["test", "train"])
    images = np.concatenate([read_tars(index, split)[0] for split in ("test", "train")])
    assert len(both) == len(images) == 60
    assert np.array_equal(both.images().numpy(), images)
    assert np.array_equal(both.images(np.array([59, 0, 15, 14])).numpy(), images[[59, 0, 15, 14]])


def test_strata_are_the_classes_without_missing_labels(index: Index) -> None:
    shards = Shards(index, "train")
    beard = shards.labels(["Beard"])["Beard"].numpy()
    assert -1 in beard
    assert [found.tolist() for found in shards.strata("Beard").values()] == [
        np.flatnonzero(beard == c).tolist() for c in (0, 1)
    ]


def test_labels_have_the_types_of_their_kind(index: Index) -> None:
    shards = Shards(index, "test")
    assert {str(kind) for kind in shards.table.dtypes} == {
        "int8"
    }  # as small as their classes allow
    assert {str(kind) for kind in index.table("test").drop(columns="file").dtypes} == {
        "int32"
    }  # in the files
    assert shards.labels([]) == {}


class Full(io.FileIO):
    """A file on a disk that is full."""

    def write(self, content: Any) -> int:
        raise OSError(28, "No space left on device")


class Broken(Order):
    """An order that fails after the first block."""

    def ids(self, start: int, stop: int) -> Ids:
        if start:
            raise OSError("the disk is gone")
        return super().ids(start, stop)


def test_a_reader_error_reaches_the_consumer(index: Index, short_blocks: int) -> None:
    shards = Shards(index, "train")
    stream = batches(
        shards,
        Broken(len(shards), 0),
        0,
        8,
        0,
        8,
    )
    assert [len(next(stream).images) for _ in range(2)] == [8, 8]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_batches_stay_valid_until_the_next_but_one_block(index: Index, short_blocks: int) -> None:
    shards = Shards(index, "train")
    stream = batches(
        shards,
        Order(len(shards), 0),
        0,
        8,
        0,
        8,
    )  # a block is two batches
    for _ in range(6):
        kept = [next(stream) for _ in range(4)]
        copies = [batch.images.clone() for batch in kept]
        time.sleep(0.02)  # let the reader run as far ahead as it may
        for batch, copy in zip(kept, copies, strict=True):
            assert torch.equal(batch.images, copy)
            assert torch.equal(copy, shards.images(batch.positions))


def test_closing_the_stream_ends_its_threads(index: Index, short_blocks: int) -> None:
    before = set(threading.enumerate())
    stream = batches(
        Shards(index, "train"),
        Order(45, 0),
        0,
        8,
        0,
        8,
    )
    next(stream)
    assert len(set(threading.enumerate()) - before) == loader.READERS
    stream.close()
    assert not set(threading.enumerate()) - before


def test_batches_on_the_cpu_are_handed_through(index: Index, short_blocks: int) -> None:
    stream = batches(
        Shards(index, "train"),
        Order(45, 0),
        0,
        8,
        0,
        8,
    )
    given: list[Batch] = []
    watched = (given.append(batch) or batch for batch in stream)  # type: ignore[func-returns-value]
    for got, _ in zip(on_device(watched, torch.device("cpu")), range(4), strict=False):
        assert got is given[-1]
    assert len(given) == 5  # zip asked once more


def test_batches_reach_a_device_in_order_and_the_host_waits_for_old_iterations_alone(
    index: Index, short_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: streams and events are stand-ins, and the device is torch's `meta`."""
    waited_for: dict[str, list[int]] = {"copy": [], "use": []}
    by_host: list[tuple[str, int]] = []

    class Stream:
        def __init__(self, name: str = "copy") -> None:
            self.name, self.events = name, 0

        def record_event(self) -> SimpleNamespace:
            self.events += 1
            mine = self.name, self.events
            return SimpleNamespace(mine=mine, synchronize=lambda: by_host.append(mine))

        def wait_event(self, event: SimpleNamespace) -> None:
            waited_for[self.name].append(event.mine)

    using = Stream("use")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: using)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    shards = Shards(index, "train")
    order = Order(45, 0)
    asked = 0

    def counted() -> Iterator[Batch]:
        nonlocal asked
        for batch in batches(shards, order, 0, 8, 0, 8, wanted=["Person"], before=["Person"]):
            asked += 1
            yield batch

    loaded = on_device(counted(), torch.device("meta"))
    for number in range(8):
        batch = next(loaded)
        assert batch.positions.tolist() == order.ids(8 * number, 8 * number + 8).tolist()
        tensors = (batch.images, *batch.labels.values(), *batch.before.values())
        assert {tensor.device.type for tensor in tensors} == {"meta"}
        assert len(tensors) == 3
        # the next one is on its way; this one's copy was waited for by the stream that uses it
        assert asked == number + 2
        assert waited_for["use"][-1] == ("copy", number + 1)
    assert by_host == [("use", number + 1) for number in range(7 - device.LAG)]
    loaded.close()


@pytest.mark.parametrize("held", [1, 5])
def test_buffers_stay_valid_as_long_as_they_are_held(
    index: Index, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(loader, "AHEAD", 8)  # a block is one batch
    shards = Shards(index, "train")
    order = Order(45, 0)
    stream = batches(
        shards,
        order,
        0,
        8,
        0,
        8,
        held=held,
    )
    kept = [next(stream) for _ in range(30)]
    time.sleep(0.1)  # all blocks ahead are read
    stream.close()
    for batch in kept[-held - 1 :]:
        assert torch.equal(batch.images, shards.images(batch.positions))
    assert not all(torch.equal(one.images, shards.images(one.positions)) for one in kept)


@pytest.mark.parametrize("kind", ["raw", "png"])
@pytest.mark.parametrize(
    ("clock", "lo", "hi"),
    [
        (0, 0, 8),
        (39, 0, 8),
        (16, 2, 6),
    ],
)
def test_a_set_on_the_device_gives_the_same_batches(
    index: Index, short_blocks: int, tmp_path: Path, kind: str, clock: int, lo: int, hi: int
) -> None:
    set_ = index if kind == "raw" else pack_arrays(tmp_path / "set", smooth(60, 16, 3), "png", 20)
    label = next(iter(set_.content.labels))
    for subset in (None, np.arange(30)[::-1].copy()):
        shards = Shards(set_, "train", subset)
        order = shards.order(Data(), 3)[0]
        share = device.Share(8, lo, hi, [label], [label])
        streams = [
            device.stream(shards, order, clock, share, torch.device("cpu"), stage)
            for stage in ("device", "none")
        ]
        for _ in range(20):
            one, other = (next(stream) for stream in streams)
            assert torch.equal(one.images, other.images)
            assert np.array_equal(one.positions, other.positions)
            for columns, others in ((one.labels, other.labels), (one.before, other.before)):
                assert torch.equal(columns[label], others[label])
                assert columns[label].dtype == others[label].dtype
        for stream in streams:
            stream.close()


def test_a_set_that_does_not_fit_on_the_device_is_refused_with_numbers(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "free_memory", lambda: 14_000)
    with pytest.raises(
        UserError,
        match=r"data\.stage=device: 1\.07e-05 GiB of images do not fit into 80% of the 1\.3e-05 GiB "
        r"free on cpu; give data\.stage=memory, disk or none",
    ):
        device.resident(Shards(index, "train"), torch.device("cpu"))


def test_a_stop_ends_the_way_to_the_device_and_changes_no_batch(index: Index) -> None:
    shards = Shards(index, "train")
    order = Order(45, 0)
    assert device.resident(shards, torch.device("cpu"), lambda: True) is None
    share = device.Share(8, 0, 8)
    stopped = device.stream(
        shards,
        order,
        0,
        share,
        torch.device("cpu"),
        "device",
        lambda: True,
    )
    assert torch.equal(next(stopped).images, shards.images(order.ids(0, 8)))
    stopped.close()


def test_shifting_moves_and_mirrors() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4).expand(3, 1, 4, 4)
    moved = shift(image, torch.tensor([[0.5, 0.5], [0.0, 0.99], [0.99, 0.5]]), 1)
    assert torch.equal(moved[0], image[0])
    padded = torch.nn.functional.pad(image[:1], (1, 1, 1, 1), mode="reflect")[0]
    assert torch.equal(moved[1], padded[:, 0:4, 2:6])
    assert torch.equal(moved[2], padded[:, 2:6, 1:5])
    assert moved.is_contiguous()
    assert shift(image, torch.rand(3, 2), 99).shape == image.shape


def test_pixels_survive_the_way_to_the_model_and_back() -> None:
    stored = torch.arange(256, dtype=torch.uint8).view(2, 8, 4, 4)
    floats = to_model(stored)
    assert floats.shape == (2, 4, 8, 4)
    assert floats.is_contiguous()
    assert (floats.min().item(), floats.max().item()) == (-1.0, 1.0)
    assert torch.equal(floats[0, 2, 3], stored[0, 3, :, 2] / 127.5 - 1)
    assert torch.equal(to_uint8(floats), stored)


def test_pixels_beyond_the_range_are_clamped() -> None:
    assert to_uint8(
        torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0]).view(5, 1, 1, 1)
    ).flatten().tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]


def test_a_sample_of_a_split_is_always_the_same_and_spread_over_it(index: Index) -> None:
    shards = Shards(index, "train")
    assert torch.equal(shards.some(10**6), shards.images())
    few = shards.some(12)
    again = shards.some(12)
    assert torch.equal(few, again)
    assert len(few) == 12
    places = [int((shards.images() == image).flatten(1).all(1).nonzero()[0]) for image in few]
    assert len(set(places)) == 12
    assert max(places) > 20
