"""A set of drawn faces, a device, and torch as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# read when cuBLAS is first used, which may be in a test before the one that needs it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from gpu_faces import packed, require_device

from facefactory import ranks
from facefactory.data.sets.index import Index


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU nothing is prepared for the tests that need one."""
    try:
        require_device("cuda")
    except LookupError as error:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(autouse=True)
def own_cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache folder of the person who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """60 drawn faces, 16 x 16, RGB, in several shards."""
    return packed(tmp_path_factory.mktemp("drawn"), 60, 16, 20)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The CPU, and a GPU where there is one; kernels whose bits repeat, one thread."""
    found = require_device(request.param)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ranks.set_arithmetic(deterministic=True, tf32=False)
    yield found
    ranks.set_arithmetic(deterministic=False, tf32=False)
    torch.set_num_threads(threads)
