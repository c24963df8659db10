"""Fixtures that several test folders share: tools of the machine, the native library, reference checkpoints, models."""

import base64
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from edgebit import bionic, resources
from edgebit.convert import convert
from edgebit.errors import EngineError
from edgebit.runtime.library import Library

# A machine that is busy with something else is no fault of the code: no property is timed.
settings.register_profile("edgebit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgebit")

pytest_plugins = ("adb_fixtures", "console_fixtures", "mqtt_fixtures", "onnx_fixtures", "torch_fixtures")

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
_DOWNLOAD_S = 180


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """Gives the path of a program of this machine; without it the test is skipped, and the summary says why."""

    def require(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            _skip(f"{name} is not installed on this machine")
        return path

    return require


@pytest.fixture(scope="session")
def skip() -> Callable[[str], NoReturn]:
    """Gives the function that skips a test with a reason, for what is neither a program nor a package."""
    return _skip


def _skip(reason: str) -> NoReturn:
    """The only place in the tests that skips."""
    pytest.skip(reason)


@pytest.fixture
def small_disk(require_tool: Callable[[str], str], tmp_path: Path) -> Iterator[Path]:
    """The folder of a file system of 24 MB of its own; skips where none may be mounted."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    command = [require_tool("mount"), "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run([require_tool("umount"), "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def npm_package(
    require_tool: Callable[[str], str], pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Gives the unpacked folder of an npm package named NAME@VERSION, kept in pytest's cache; or skips.

    Called with an integrity, as npm writes it ("sha512-..."), the package must have it.
    """
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # none with -p no:cacheprovider
    kept = cache.mkdir("npm") if cache else tmp_path_factory.mktemp("npm")

    def package(name: str, integrity: str | None = None) -> Path:
        folder = kept / name.strip("@").replace("/", "-")
        if not (folder / "package").is_dir():
            folder.mkdir(exist_ok=True)
            command = [require_tool("npm"), "pack", "--silent", name]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, check=False, timeout=_DOWNLOAD_S
                )
            except subprocess.TimeoutExpired:
                _skip(f"{' '.join(command)} took longer than {_DOWNLOAD_S} s")
            if done.returncode != 0:
                _skip(f"{' '.join(command)} cannot fetch it: {done.stderr.strip()[-300:]}")
            archive = folder / done.stdout.split()[-1]
            if integrity is not None:
                kind, _, sum_ = integrity.partition("-")
                found = base64.b64encode(hashlib.new(kind, archive.read_bytes()).digest()).decode()
                assert found == sum_, f"{name} has the {kind} {found}"
            shutil.unpack_archive(archive, folder / "part", "gztar")
            (folder / "part" / "package").rename(folder / "package")
        return folder / "package"

    return package


@pytest.fixture(scope="session")
def bionic_root() -> Path:
    """The folder with a phone's loader and libc that EDGEBIT_BIONIC_ROOT names; without one the test is skipped."""
    root = bionic.find_root()
    if root is None:
        _skip(f"{bionic.ROOT_VARIABLE} names no folder with a phone's loader and libc")
    return root


@pytest.fixture(scope="session")
def pypi_wheel(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the wheel of a PyPI package named NAME==VERSION, not installed, kept in pytest's cache; or skips.

    More arguments are options of pip download, such as those for another Python.
    """
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    kept = cache.mkdir("wheels") if cache else tmp_path_factory.mktemp("wheels")

    def wheel(name: str, *options: str) -> Path:
        folder = kept / " ".join((name, *options)).replace("/", "_")
        if not list(folder.glob("*.whl")):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), *options, name]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DOWNLOAD_S)
            except subprocess.TimeoutExpired:
                _skip(f"{' '.join(command)} took longer than {_DOWNLOAD_S} s")
            if done.returncode != 0:
                _skip(f"{' '.join(command)} cannot fetch it: {done.stderr.strip()[-300:]}")
        (path,) = folder.glob("*.whl")
        return path

    return wheel


@pytest.fixture(scope="session")
def native() -> Library:
    """The host's engine, built first where that has not been done."""
    try:
        return Library.load()
    except EngineError as missing:
        if "is missing" not in str(missing):
            raise
    build = ROOT / "build" / "host"
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("w") as lock:  # test runs side by side build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (build / resources.LIBRARY_NAME).is_file():
            configure = ["cmake", "-S", str(ROOT / "kernels"), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
            for command in (configure, ["cmake", "--build", str(build), "-j2"]):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return Library.load()


@pytest.fixture(scope="session")
def isa_levels(native: Library) -> list[str]:
    """The library's ISA levels that this CPU has, lowest first: not all below the best need be among them."""
    levels = []
    for isa in native.isa_names:
        try:
            levels.append(Library.load(native.path, isa=isa).isa)
        except EngineError as error:
            if "this CPU does not have it" not in str(error):
                raise
    return levels


@pytest.fixture(scope="session")
def reference_checkpoint() -> Callable[[str], Path]:
    """Gives the folder of a reference checkpoint by its name (tests/reference/README.md)."""

    def folder(name: str) -> Path:
        path = REFERENCE / name
        assert path.is_dir(), f"no reference checkpoint {name}"
        return path

    return folder


@pytest.fixture(scope="session")
def reference_model(
    native: Library, reference_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives the model file converted from a reference checkpoint, made once a run."""
    folder = tmp_path_factory.mktemp("models")

    def model(name: str) -> Path:
        path = folder / f"{name}.ebm"
        if not path.exists():
            convert(reference_checkpoint(name), path)
        return path

    return model
