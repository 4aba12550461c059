"""`make bench`: how fast sets are read, packed and scored here, every figure beside its measure.

python tests/bench.py [loader] [pack] [step] [scores] [meaning] [million]; without arguments all but `million`,
which takes many minutes. torch is imported where it is used: a packing process imports this file
too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import io
import itertools
import os
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from facefactory.data import Data, Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets import shard
from facefactory.data.sets.index import FORMAT, Content, Index, Shard, Split, write
from facefactory.data.sets.shard import write_shard

SHARDS = 24
BATCH = 64
CORES = len(os.sched_getaffinity(0))


def pictures(seed: int, count: int, width: int, height: int) -> Iterator[Image.Image]:
    """Smooth random pictures with some noise: JPEG finds in them about as much as in photographs."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noise = rng.integers(-8, 9, (height, width, 1))
        yield Image.fromarray((np.asarray(smooth, np.int16) + noise).clip(0, 255).astype(np.uint8))


def make(folder: Path, side: int, per_shard: int) -> list[Index]:
    """The same pictures as raw shards, JPEG shards, other people's tars, and (of the first two shards) JPEGs in two folders."""
    entries: dict[str, list[Shard]] = {"raw": [], "jpeg": []}
    for number in range(SHARDS):
        arrays = []
        with tarfile.open(
            folder / f"jpeg-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for i, picture in enumerate(pictures(number, per_shard, side, side)):
                arrays.append(np.asarray(picture))
                picture.save(
                    buffer := io.BytesIO(),
                    "JPEG",
                    quality=90,
                )
                member = tarfile.TarInfo(f"{i:08d}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
                if number < 2:
                    (folder / "folders" / str(number)).mkdir(parents=True, exist_ok=True)
                    (folder / "folders" / str(number) / f"{i:08d}.jpg").write_bytes(
                        buffer.getvalue()
                    )

        # as shards
        rows = pd.DataFrame({"file": [f"{i}.jpg" for i in range(per_shard)]})
        for storage, found in entries.items():
            (folder / storage).mkdir(exist_ok=True)
            stem = f"{folder}/{storage}/train-{number:06d}"
            first = number * per_shard
            found.append(write_shard(stem, first, arrays, rows, np.asarray, storage)[0])

    # with an index each
    made = Content(
        format=FORMAT,
        storage="raw",
        dataset="made",
        resolution=side,
        channels=3,
        labels={},
        splits={"train": Split(SHARDS * per_shard, entries["raw"])},
    )
    jpegs = {"train": Split(SHARDS * per_shard, entries["jpeg"])}
    encoded = dataclasses.replace(
        made,
        storage="encoded",
        splits=jpegs,
    )
    return [write(folder / "raw", made), write(folder / "jpeg", encoded)]


def peers(folder: Path) -> Iterator[tuple[str, Iterator[Any]]]:
    """Other loaders, each in this process and with a worker process a core: shuffled batches of uint8."""
    import torch
    import webdataset
    from torchvision import datasets, transforms

    jpegs = sorted(map(str, folder.glob("jpeg-*.tar")))
    tars = (
        webdataset.WebDataset(jpegs * 1000, shardshuffle=False)
        .shuffle(1000)
        .decode("rgb8")
        .to_tuple("jpg")
        .batched(BATCH)
    )
    files = datasets.ImageFolder(str(folder / "folders"), transforms.PILToTensor())
    for workers in (0, CORES):
        load = functools.partial(torch.utils.data.DataLoader, num_workers=workers)
        yield f"webdataset + PIL, {workers} workers", iter(load(tars, None))
        yield (
            f"ImageFolder, {workers} workers",
            itertools.chain.from_iterable(itertools.repeat(load(files, BATCH, True))),
        )


def rate(step: Callable[[], int], seconds: float) -> float:
    """Images per second of a step that answers how many images it delivered; what was delivered ahead is not counted."""
    for part in (0.25 * seconds, seconds):
        done = 0
        start = time.perf_counter()
        while not done or time.perf_counter() - start < part:
            done += step()
    return done / (time.perf_counter() - start)


def warm(raw: Index, encoded: Index) -> None:
    """Print images/s: shards and the gather from memory in turns, the others one after the other, and the ratios."""
    import torch

    from facefactory.data.sets.loader import Shards, batches

    torch.set_num_threads(1)
    shards = Shards(raw, "train")
    clock = [0]
    order = shards.order(Data(), 0)[0]
    memory = shards.images()
    ours = batches(shards, order, 0, BATCH, 0, BATCH)

    def gather() -> int:
        for ids in order.ids(clock[0], clock[0] + 64 * BATCH).reshape(64, BATCH):
            memory.index_select(0, torch.from_numpy(ids))
        clock[0] += 64 * BATCH
        return 64 * BATCH

    rounds = [
        (rate(gather, 0.5), rate(lambda: sum(len(next(ours).images) for _ in range(64)), 0.5))
        for _ in range(15)
    ]
    ours.close()
    base, mine = np.median(rounds, axis=0)
    low, ratio, high = np.percentile([ours / theirs for theirs, ours in rounds], [25, 50, 75])
    print(f"  gather from memory           {base:12,.0f} images/s")
    print(
        f"  FaceFactory                  {mine:12,.0f} images/s   {ratio:.2f} of the gather (quartiles {low:.2f}, {high:.2f})"
    )
    jpegs = batches(
        Shards(encoded, "train"),
        order,
        0,
        BATCH,
        0,
        BATCH,
    )
    for _ in range(4096 // BATCH):  # until the decoding processes have started
        next(jpegs)
    decoded = rate(lambda: len(next(jpegs).images), 4)
    jpegs.close()
    others = {
        name: rate(functools.partial(_deliver, stream), 4)
        for name, stream in peers(raw.folder.parent)
    }
    for name, found in {"FaceFactory, JPEG shards": decoded, **others}.items():
        print(
            f"  {name:28s} {found:12,.0f} images/s   FaceFactory is {mine / found:.0f} times as fast"
        )
    print(f"  FaceFactory: {mine / max(others.values()):.0f} times the fastest of the others")


def _deliver(stream: Iterator[Any]) -> int:
    return len(next(stream)[0])


def cold(index: Index) -> None:
    """Print images/s of the first epoch when Linux holds nothing of the shards."""
    from facefactory.data.sets.loader import Shards, batches

    count = index.split("train").count
    tars = [index.folder / shard.file for shard in index.split("train").shards]

    def timed(what: str, work: Callable[[], None]) -> None:
        gc.collect()  # a page that is mapped stays
        for path in tars:
            with open(path, "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        work()
        print(f"  cold: {what:52s} {count / (time.perf_counter() - start):12,.0f} images/s")

    def epoch(options: Data) -> None:
        shards = Shards(index, "train")
        shards.stage(options.stage)
        stream = batches(
            shards,
            shards.order(options, 0)[0],
            0,
            BATCH,
            0,
            BATCH,
        )
        for _ in range(count // BATCH):
            next(stream)
        stream.close()

    def through() -> None:
        for path in tars:
            with open(path, "rb", buffering=0) as stream:
                while stream.read(2**22):
                    pass

    timed("the files read from end to end", through)
    timed("an epoch in random order", lambda: epoch(Data()))
    timed(
        "an epoch in windows of 4 shards", lambda: epoch(Data(window_images=4 * count // SHARDS))
    )
    timed("copied to memory first (copy and epoch)", lambda: epoch(Data(stage="memory")))


def loader(folder: Path) -> None:
    """Reading, warm and cold, at two sizes."""
    for side, per_shard in ((64, 2048), (128, 1024)):
        (folder / str(side)).mkdir()
        raw, encoded = make(folder / str(side), side, per_shard)
        print(
            f"{SHARDS} shards x {per_shard} images, {side}x{side} RGB, batches of {BATCH}, {CORES} cores"
        )
        warm(raw, encoded)
        cold(raw)


def plain(paths: list[Path]) -> None:
    """What packing cannot do without: decode, crop, resize."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(
                image.convert("RGB").resize(
                    (64, 64), Image.Resampling.LANCZOS, box=(0, 20, 178, 198)
                )
            )


def packing(folder: Path, count: int = 48_000) -> None:
    """JPEGs of CelebA's size to 64 x 64, by one process and by one a core: plain loops that run already, then a whole packing."""
    paths = [folder / "faces" / f"{number:06d}.jpg" for number in range(count)]
    paths[0].parent.mkdir()
    for path, picture in zip(paths, pictures(0, count, 178, 218), strict=True):
        picture.save(path, "JPEG", quality=90)
    os.sync()  # what is still to be written would be waited for by the first shard

    # by turns: a plain loop, then a packing
    found: dict[int, list[tuple[float, float]]] = {1: [], CORES: []}
    with shard.workers(CORES) as pool:
        list(pool.map(plain, [paths[:200]] * CORES))
        for _, (workers, rates) in itertools.product(range(3), found.items()):
            start = time.perf_counter()
            list(pool.map(plain, [paths[number::workers] for number in range(workers)]))
            between = time.perf_counter()
            options = Pack(
                "folder",
                str(folder / "faces"),
                resolution=64,
                color="rgb",
                shard_images=2000,
                workers=workers,
            )
            pack.pack(recipes.plan(options), folder / "packed")
            rates.append((count / (between - start), count / (time.perf_counter() - between)))
            shutil.rmtree(folder / "packed")

    # how many a second
    print(f"{count} JPEGs of 178x218 to 64x64 RGB, medians of 3 turns")
    for workers, rates in found.items():
        base, mine = np.median(rates, axis=0)
        ratio = np.median([ours / theirs for theirs, ours in rates])
        print(
            f"  {workers} process(es): packing {mine:,.0f} images/s, plain loops {base:,.0f}: {ratio:.2f} of them"
        )
    speedup = np.median(
        [two / one for (_, one), (_, two) in zip(found[1], found[CORES], strict=True)]
    )
    print(f"  {CORES} processes pack {speedup:.2f} times as fast as one")


def anonymous_gb() -> float:
    """Memory of this process and its children that is no file's, 2^30 bytes."""
    found = 0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in ["self", *children]:
        with contextlib.suppress(OSError, IndexError):  # it ends
            found += int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0])
    return found / 2**20


@contextlib.contextmanager
def told_memory() -> Iterator[None]:
    """Print what there is before the block, and the most while it runs, looked at 20 times a second."""
    gc.collect()
    before = anonymous_gb()
    ended = threading.Event()
    peaks = [before]

    def watch() -> None:
        while not ended.wait(0.05):
            peaks.append(anonymous_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        print(f"  memory {before:.2f} GiB before, at most {max(peaks):.2f}", flush=True)


def million(folder: Path) -> None:
    """Drawn faces packed, then read back with all their labels: what memory grows by."""
    made = {}
    for count in (10**5, 10**6):
        recipe = folder / f"drawn-{count}.yaml"
        recipe.write_text(
            f"name: drawn\nsource: drawn\nsplits: {{train: 1.0}}\ndrawn: {{images: {count}}}\n"
        )
        with told_memory():
            start = time.perf_counter()
            plan = recipes.plan(Pack(str(recipe), resolution=32, color="rgb", workers=CORES))
            planned = time.perf_counter() - start
            made[count] = pack.pack(plan, folder / f"drawn-{count}")
            seconds = time.perf_counter() - start
            print(
                f"{count} faces at 32x32: planned in {planned:.0f} s, packed in {seconds:.0f} s: {count / seconds:,.0f}/s"
            )
            del plan
    from facefactory.data.sets.loader import Shards, batches

    for count, index in made.items():
        with told_memory():
            start = time.perf_counter()
            shards = Shards(index, "train")
            stream = batches(
                shards,
                shards.order(Data(), 0)[0],
                0,
                BATCH,
                0,
                BATCH,
                wanted=index.content.labels,
            )
            for batch in itertools.islice(stream, count // BATCH):
                assert len(batch.images) == BATCH
            stream.close()
            print(f"{count} read back at {count / (time.perf_counter() - start):,.0f} images/s")


def timed(work: Callable[[], Any], turns: int = 3) -> tuple[float, float, Any]:
    """Seconds by the clock and of processor time, each the least of some turns, and the value."""
    clock = []
    processor = []
    for _ in range(turns):
        start = time.perf_counter()
        used = time.process_time()
        value = work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return min(clock), min(processor), value


def features(count: int, columns: int, seed: int) -> np.ndarray[Any, Any]:
    """Like pooled features of a network: not negative, a falling spectrum, exact in float32."""
    mixing = (
        np.random.default_rng(0).normal(size=(columns, columns))
        / np.sqrt(np.arange(1, columns + 1))[:, None]
    )
    rows = np.random.default_rng(seed).normal(size=(count, columns)) @ mixing
    return rows.clip(min=0).astype(np.float32).astype(np.float64)


def against(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], whose: str, turns: int = 2
) -> None:
    """One line: our time, theirs, their ratio by clock and by processors, what values differ by."""
    clock, used, value = timed(ours, turns)
    their_clock, their_used, published = timed(theirs, turns)
    off = abs(value - published) / abs(published)
    print(
        f"  {name:34s} {clock:7.2f} s ({used:6.2f} s of processors), "
        f"{whose} {their_clock:7.2f} s ({their_used:6.2f} s): "
        f"{their_clock / clock:5.1f} x ({their_used / used:5.1f} x), values differ by {off:.0e}",
        flush=True,
    )


def random_inception(path: Path) -> Any:
    """torch-fidelity's InceptionV3 with random weights, which are written to a file: speed is the same."""
    import warnings

    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as published

    cls = published.FeatureExtractorInceptionV3
    load = cls.load_state_dict
    fetch = published.load_state_dict_from_url
    try:
        published.load_state_dict_from_url = lambda *_, **__: {}
        cls.load_state_dict = lambda *_: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            made = cls("random", ["2048", "logits_unbiased"])
    finally:
        published.load_state_dict_from_url = fetch
        cls.load_state_dict = load
    for layer in made.modules():
        if isinstance(layer, torch.nn.Conv2d):  # torch's own scale would let the features fade
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    torch.save(made.state_dict(), path)
    return made


def inception_features(folder: Path, count: int = 64, turns: int = 3) -> None:
    """Images to InceptionV3's features, ours in two widths beside torch-fidelity's, in turns on two threads."""
    import torch

    from facefactory.evaluation.extractors import inception, inception_bfloat16
    from facefactory.metrics import moments
    from facefactory.metrics.features import frechet_distance

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    published = random_inception(folder / "inception.pth")
    cpu = torch.device("cpu")
    ours = inception.Inception(cpu, str(folder / "inception.pth"))
    narrow = inception_bfloat16.Narrow(cpu, str(folder / "inception.pth"))
    faces = [np.asarray(picture) for picture in pictures(0, 2 * count, 64, 64)]
    images = torch.from_numpy(np.stack(faces))
    ways: dict[str, Callable[[Any], Any]] = {
        "torch-fidelity": lambda part: published(part.permute(0, 3, 1, 2).contiguous())[0],
        "FaceFactory": lambda part: ours(part).features,
        "FaceFactory, bfloat16": lambda part: narrow(part).features,
    }

    # seconds by the clock and of processors for a batch, in turns
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    found: dict[str, list[Any]] = {name: [] for name in ways}
    batches = list(images.split(ours.batch))
    with torch.inference_mode():
        for turn in range(max(turns, len(batches))):
            batch = batches[turn % len(batches)]
            for name, way in ways.items():
                start = time.perf_counter()
                used = time.process_time()
                looked = way(batch).double().numpy()
                spent[name].append((time.perf_counter() - start, time.process_time() - used))
                if turn < len(batches):
                    found[name].append(looked)

    # features, and the Fréchet distance of the two halves of the images, whose rank is low
    rows = {name: np.concatenate(parts) for name, parts in found.items()}
    theirs = rows["torch-fidelity"]
    distances = {
        name: frechet_distance.score(moments(one[:count]), moments(one[count:]))["fd"]
        for name, one in rows.items()
    }
    clock, used = np.min(spent["torch-fidelity"], axis=0)
    print(f"InceptionV3 on {2 * count} images of 64 x 64, batches of {ours.batch}, 2 threads")
    for name, one in rows.items():
        mine = np.min(spent[name], axis=0)
        off = np.linalg.norm(one - theirs) / np.linalg.norm(theirs)
        fid_off = abs(distances[name] - distances["torch-fidelity"]) / distances["torch-fidelity"]
        print(
            f"  {name:24s} {ours.batch / mine[0]:6.1f} images/s, {clock / mine[0]:.2f} x by the clock, "
            f"{used / mine[1]:.2f} x by processors; features differ by {off:.0e}, the distance by {fid_off:.0e}",
            flush=True,
        )
    torch.set_num_threads(before)


def scores(folder: Path) -> None:
    """Features of InceptionV3, then metrics of features, beside torch-fidelity's and the matrix root of pytorch-fid's formula."""
    import scipy.linalg
    import torch
    from torch_fidelity import metric_kid, metric_prc

    from facefactory.metrics import moments
    from facefactory.metrics.features import (
        clipped_density_coverage,
        copying_test,
        frechet_distance,
        kernel_distance,
        kernel_distance_subsets,
        mind,
        precision_recall,
    )

    def by_value(first: Any, second: Any) -> float:
        return frechet_distance.score(first, second)["fd"]

    def by_root(first: Any, second: Any) -> float:
        shift = first.mean - second.mean
        root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
        return float(
            shift @ shift
            + np.trace(first.covariance)
            + np.trace(second.covariance)
            - 2 * np.trace(root)
        )

    inception_features(folder)
    print(f"scores of features: {torch.get_num_threads()} threads of {CORES} cores")
    for count in (1000, 5000):
        pair = [moments(features(count, 2048, seed)) for seed in (1, 2)]
        both = [functools.partial(work, *pair) for work in (by_value, by_root)]
        against(f"fd of {count} x 2048", *both, "matrix root", turns=1)

    train, held_out, fake = (features(5000, 1280, seed) for seed in (1, 2, 3))
    real_tensor = torch.from_numpy(train)
    fake_tensor = torch.from_numpy(fake)

    def subsets() -> float:
        found = metric_kid.kid_features_to_metric(real_tensor, fake_tensor, verbose=False)
        return float(found[metric_kid.KEY_METRIC_KID_MEAN])

    def precision() -> float:
        return float(metric_prc.calculate_precision_recall_full(fake_tensor, real_tensor)[0])

    kid = kernel_distance_subsets
    against(
        "kd of subsets, 5000 x 1280",
        lambda: kid.score(train, fake)["kd_subsets"],
        subsets,
        "torch-fidelity",
        turns=1,
    )
    against(
        "precision, recall, 5000 x 1280",
        lambda: precision_recall.score(train, fake)["precision"],
        precision,
        "torch-fidelity",
    )

    total = 0.0
    total_used = 0.0
    for module in (kernel_distance, mind, clipped_density_coverage, copying_test):
        sets = (train, held_out, fake) if getattr(module, "THREE", False) else (train, fake)
        clock, used, _ = timed(functools.partial(module.score, *sets))
        total += clock
        total_used += used
        name = module.__name__.rpartition(".")[2]
        print(f"  {name:34s} {clock:7.2f} s ({used:6.2f} s of processors)")
    print(f"  these four at 5000 x 1280: {total:.2f} s ({total_used:.2f} s of processors)")


def step(folder: Path) -> None:
    """The trainer beside a bare loop; in a file of its own, because it imports torch."""
    import bench_step

    bench_step.main()


def meaning(folder: Path) -> None:
    """What latent dimensions mean; in a file of its own, because it imports torch and scikit-learn."""
    import bench_meaning

    bench_meaning.main()


def report(folder: Path) -> None:
    """A report of 1,000 trials: its size, the time that it takes, and what a browser says of it."""
    import chromium
    from synthetic import search

    from facefactory.report import pages

    began = time.process_time()
    page = pages.write(search(folder / "thousand", 1000), {})[0]
    seconds = time.process_time() - began
    print(
        f"report of 1,000 trials: {page.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s of a processor"
    )
    if chromium.FOUND is None:
        return print("no chromium: not looked at")
    with chromium.browser(folder / "profile") as shown:
        shown.open(page, 1280)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        print(f"first paint after {shown.ask(paint):.0f} ms")
        for what, act in REPORT.items():
            took = [shown.ask(TIMED % act) for _ in range(5)]
            print(f"{what}: {sorted(took)[2]:.0f} ms until it is laid out (median of 5)")


# what is done in the page, and how long until it is laid out again
REPORT = {
    "sort": "document.querySelector('th[data-column=score] button').click()",
    "filter": "(f => { f.value = f.value ? '' : 'r3'; f.dispatchEvent(new Event('input')); })"
    "(document.getElementById('board-filter'))",
}
TIMED = "(() => { const t = performance.now(); %s; document.body.offsetHeight; return performance.now() - t; })()"


def main() -> None:
    """Run the parts that the command line names."""
    parts = {"loader": loader, "pack": packing, "million": million, "scores": scores}
    parts |= {"step": step, "meaning": meaning, "report": report}
    for name in sys.argv[1:] or ("loader", "pack", "step", "scores"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
