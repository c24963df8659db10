"""This machine: what builds, checks and deploys bundles."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgebit import __version__
from edgebit.cross.container import find_container_engine
from edgebit.cross.toolchain import choose_toolchain, find_tool, install_zig
from edgebit.doctor.finding import Finding, State, of_error
from edgebit.errors import BuildError, EngineError, TargetError
from edgebit.instructions import disassemblers
from edgebit.probe_runs import find_emulator
from edgebit.resources import cache_dir
from edgebit.runtime.library import Library
from edgebit.targets import find_target, list_targets

GROUP = "this machine"

_FOREIGN = "linux-aarch64"  # what a machine needs most: the tools for devices of another architecture
_FREE_WANTED = 2 << 30  # bytes for caches: zig's libc and a container image take most
_ASK_S = 30


def check_machine() -> list[Finding]:
    """All of it, in the order that a build meets it."""
    return [
        _python(),
        _library(),
        *_targets(),
        *_compilers(),
        *_build_tools(),
        _container_engine(),
        _disassembler(),
        *_emulator(),
        _cache(),
        _free_space(),
        _temporary_folder(),
        _broker(),
        _program("ssh", "-V", "ssh:// devices", "apt-get install openssh-client"),
        _program("adb", "version", "adb:// devices", "apt-get install adb"),
    ]


def _found(name: str, state: State, detail: str, mend: str = "") -> Finding:
    return Finding(GROUP, name, state, detail, mend)


def _python() -> Finding:
    return _found("edgebit", "ok", f"{__version__}, Python {platform.python_version()} ({sys.executable})")


def _library() -> Finding:
    try:
        library = Library.load()
    except EngineError as error:
        return of_error(GROUP, "native library", error)
    return _found("native library", "ok", f"{library.version}, micro-kernels for {library.isa}, {library.path}")


def _targets() -> Iterator[Finding]:
    problems: list[str] = []
    try:
        known = len(list_targets(problems.append))
    except TargetError as error:
        yield of_error(GROUP, "targets", error)
        return
    yield _found("targets", "ok", f"{known} by name")
    yield from (
        _found("own target", "warn", problem, "edgebit targets lists those that can be used") for problem in problems
    )


def _compilers() -> Iterator[Finding]:
    """The builders that need no image; without them and one there is no bundle for another architecture."""
    target = find_target(_FOREIGN)
    found = 0
    findings = []
    for builder in ("zig", "system"):
        name = f"--builder {builder}"
        try:
            findings.append(_found(name, "ok", choose_toolchain(target, builder).compiler))
            found += 1
        except BuildError as error:
            findings.append(of_error(GROUP, name, error, "warn"))
    yield from findings
    if not found:
        detail = f"none for {target.arch}, unless an image was built (edgebit cross list)"
        yield _found("a compiler for devices", "warn", detail, install_zig())


def _build_tools() -> Iterator[Finding]:
    for name in ("cmake", "ninja"):
        path = find_tool(name)
        if path is None:
            yield _found(
                name, "warn", "not found: no native files can be built", f"{sys.executable} -m pip install {name}"
            )
        else:
            yield _found(name, "ok", f"{_first_line([str(path), '--version'])} ({path})")


def _container_engine() -> Finding:
    """What `--builder docker` and `edgebit cross` run; a command without an engine that answers builds nothing."""
    name = "container engine"
    try:
        engine = find_container_engine()
    except BuildError as error:
        return of_error(GROUP, name, error, "warn")
    return _found(name, "ok", f"{engine.name} {engine.version} answers ({engine.program})")


def _disassembler() -> Finding:
    target = find_target(_FOREIGN)
    name = f"objdump for {target.arch}"
    for tool in disassemblers(target):
        if path := shutil.which(tool):
            return _found(name, "ok", f"{_first_line([path, '--version'])} ({path})")
    mend = f"apt-get install binutils-{target.arch}-linux-gnu"
    return _found(name, "warn", "not found: instructions of a library are not checked", mend)


def _emulator() -> Iterator[Finding]:
    arch = find_target(_FOREIGN).arch
    if arch == platform.machine():
        return
    name = f"qemu for {arch}"
    program = find_emulator(arch)
    if program is None:
        detail = "not found: golden probes run on the device only"
        yield _found(name, "warn", detail, "apt-get install qemu-user-static")
        return
    yield _found(name, "ok", f"{_first_line([program, '--version'])} ({program})")
    registered = Path(f"/proc/sys/fs/binfmt_misc/qemu-{arch}")
    detail = "registered" if registered.exists() else "not registered; nothing of edgebit needs it, containers do"
    yield _found(f"binfmt for {arch}", "ok", detail)


def _cache() -> Finding:
    near = _existing(cache_dir())
    if os.access(near, os.W_OK | os.X_OK):
        return _found("cache", "ok", str(cache_dir()))
    return _found("cache", "fail", f"{near} cannot be written", "let its owner be you, or set XDG_CACHE_HOME")


def _free_space() -> Finding:
    near = _existing(cache_dir())
    free = shutil.disk_usage(near).free
    detail = f"{free / 1e9:.1f} GB free at {near}"
    if free >= _FREE_WANTED:
        return _found("disk", "ok", detail)
    return _found("disk", "warn", detail, f"make room for {_FREE_WANTED / 1e9:.0f} GB, or set XDG_CACHE_HOME")


def _existing(place: Path) -> Path:
    """The nearest folder above `place` that is there, or itself."""
    return next(path for path in (place, *place.parents) if path.exists())


def _temporary_folder() -> Finding:
    """verify executes copies that it lays there."""
    folder = tempfile.gettempdir()
    if hasattr(os, "ST_NOEXEC") and os.statvfs(folder).f_flag & os.ST_NOEXEC:
        detail = f"{folder} is mounted noexec: no program of a bundle can be checked there"
        return _found("temporary folder", "warn", detail, "set TMPDIR to another folder")
    return _found("temporary folder", "ok", folder)


def _broker() -> Finding:
    if path := shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"):
        return _found("broker for the demo", "ok", path)
    if importlib.util.find_spec("amqtt"):
        return _found("broker for the demo", "ok", "amqtt")
    mend = f"apt-get install mosquitto, or {sys.executable} -m pip install 'edgebit[demo]'"
    return _found("broker for the demo", "warn", "neither mosquitto nor amqtt", mend)


def _program(name: str, version: str, serves: str, install: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return _found(name, "warn", f"not found: no {serves}", install)
    return _found(name, "ok", f"{_first_line([path, version])} ({path})")


def _first_line(argv: list[str]) -> str:
    """What a program says of itself; "does not run" where it does not, or does not end."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=_ASK_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "does not run"
    return next(iter((done.stdout.strip() or done.stderr.strip()).splitlines()), "says no version")
