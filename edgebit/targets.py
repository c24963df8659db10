"""Targets: the devices that bundles are built for, one TOML file each (targets/README.md)."""

import dataclasses
import difflib
import math
import os
import platform
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.errors import TargetError
from edgebit.resources import config_dir, targets_dir

HOST = "host"
FOLDERS_VARIABLE = "EDGEBIT_TARGETS"  # of the environment: folders with a user's own targets

ARCH_FEATURES = {
    "aarch64": frozenset({"neon", "dotprod", "i8mm"}),
    "x86_64": frozenset({"avx2", "avxvnni", "avx512vnni"}),
}
_ABIS = ("gnu", "musl", "android")
_PAGES_KIB = (4, 16, 64)
_SERVICES = ("systemd", "none")
_NOT_KEYS = frozenset({"name", "path"})  # of a Target, and not of its file's content
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CyclesPerWeight:
    """Cycles that one core takes for a weight and token with data in its first-level cache, by op; None: not known."""

    gemv_t2: float | None = None  # decode, projections in layout t2
    gemv_t1: float | None = None  # the same in t1
    gemv_h4: float | None = None  # decode, the high plane of the head
    gemm_c8: float | None = None  # prefill, all projections


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One device that bundles are built for: the content of targets/<name>.toml."""

    name: str  # the file's name
    path: Path | None = None  # the file; None: there is none
    description: str
    triple: str  # "aarch64-linux-gnu"
    cpu: str = "generic"
    features: tuple[str, ...] = ()  # that every device of this target has
    stands_for: tuple[str, ...] = ()  # other targets, where devices of several kinds go by this name
    cores: int | None = None
    big_cores: int | None = None  # of kind `cpu`, where the others are slower
    clock_ghz: float | None = None
    memory_mib: int | None = None  # RAM of the smallest such device
    read_gb_s: tuple[float, float] | None = None  # all cores together, lowest and highest, 1e9 bytes a second
    read_core_gb_s: tuple[float, float] | None = None  # one core alone
    cycles_per_weight: CyclesPerWeight = CyclesPerWeight()
    idle_w: float | None = None
    load_w: float | None = None  # all cores busy
    page_kib: int = 4  # largest page size of its kernels
    throttle_c: int | None = None  # °C from which the firmware slows the cores
    glibc_floor: str | None = None  # "2.31"
    api_level: int | None = None  # oldest Android that it runs on: 24 is Android 7; None where it is no Android
    sensors: tuple[str, ...] = ()  # "thermal_zone:cpu-thermal"
    service: str = "none"  # systemd or none
    emulate_cpus: tuple[str, ...] = ()  # qemu's names
    sources: tuple[tuple[str, str], ...] = ()  # (figure, where it comes from)

    @property
    def worker_cores(self) -> int | None:
        """Cores that get a worker thread: the big ones."""
        return self.big_cores or self.cores

    @property
    def arch(self) -> str:
        """The architecture, as `uname -m` says it: "aarch64"."""
        return self.triple.partition("-")[0]

    @property
    def is_android(self) -> bool:
        """Whether its system's loader and libc are Android's."""
        return self.triple.endswith("-android")

    @property
    def compile_triple(self) -> str:
        """The triple that a compiler for Linux is asked for.

        Files for Android come from one for glibc and take nothing of it, so the library is the same for both.
        """
        return f"{self.arch}-linux-gnu" if self.is_android else self.triple

    @property
    def is_host(self) -> bool:
        """Whether this is the machine that edgebit runs on, with its installed library."""
        return self.name == HOST


def own_folders() -> list[Path]:
    """Where a user's own targets lie: the folders that EDGEBIT_TARGETS names, and edgebit/targets in the user's config.

    Raises TargetError where EDGEBIT_TARGETS names one that is not there.
    """
    named = [Path(part) for part in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if part]
    for folder in named:
        if not folder.is_dir():
            raise TargetError(f"{FOLDERS_VARIABLE} names {folder}, which is no folder. Correct it, or unset it")
    own = config_dir() / "targets"
    return [*named, *([own] if own.is_dir() else [])]


def target_files() -> dict[str, list[Path]]:
    """The files of each target's name, sorted; what ships comes first, and more than one is an ambiguity."""
    files: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(path.resolve() for path in (targets_dir(), *own_folders())):
        for path in folder.glob("*.toml"):
            files.setdefault(path.stem, []).append(path)
    return dict(sorted(files.items()))


def list_targets(report: Callable[[str], None] | None = None) -> list[Target]:
    """All targets that have a name, by it: those that ship, and the user's own.

    report: is told of each file that cannot be used, which is left out; without it such a file raises TargetError.
    """
    targets = []
    for name, paths in target_files().items():
        try:
            targets.append(_read_only(name, paths))
        except TargetError as error:
            if report is None:
                raise
            report(str(error))
    return targets


def find_target(name: str) -> Target:
    """The target `name`: one that ships, one of the user's own folders, the path of a TOML file, or "host".

    Raises TargetError naming those that there are, or the files that share the name.
    """
    if name == HOST:
        return host_target()
    if name.endswith(".toml") or "/" in name:
        return read_target(Path(name))
    files = target_files()
    if name in files:
        return _read_only(name, files[name])
    near = difflib.get_close_matches(name, [*files, HOST], n=1)
    meant = f": did you mean {near[0]}? There" if near else "; there"
    raise TargetError(
        f"there is no target {name!r}{meant} are {', '.join([*files, HOST])}. For a device of your own, write a TOML"
        " file as targets/README.md says, and give its path or put it into a folder of your targets"
    )


def _read_only(name: str, paths: list[Path]) -> Target:
    """The target of the one file that has the name: a user's file never takes the place of another unseen."""
    if len(paths) > 1:
        raise TargetError(
            f"the target {name!r} has more than one file: {', '.join(map(str, paths))}. Rename your own, or give its"
            " path instead of its name"
        )
    return read_target(paths[0])


def devices(target: Target) -> list[Target]:
    """The targets that `target` stands for, or itself alone. Raises TargetError where one is not there."""
    return [find_target(name) for name in target.stands_for] or [target]


def host_target() -> Target:
    """This machine."""
    machine = platform.machine().lower()
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)
    system = "apple-darwin" if sys.platform == "darwin" else "linux-gnu"
    return Target(
        name=HOST,
        description=f"This machine ({platform.system()}, {machine})",
        triple=f"{arch}-{system}",
        features=("neon",) if arch == "aarch64" else (),
    )


def read_target(path: Path) -> Target:
    """Read and check a target's TOML file. Raises TargetError naming file, key, and what is allowed."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(f"{path}: there is no such file") from None
    except OSError as error:
        raise TargetError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not TOML: {error}") from error
    if not _NAME.fullmatch(path.stem) or path.stem == HOST:
        raise TargetError(
            f"{path}: a target is named by its file, in lower-case letters, digits, '.', '_' and '-', not {HOST!r}"
        )
    known = {field.name for field in dataclasses.fields(Target)} - _NOT_KEYS
    if unknown := sorted(set(content) - known):
        raise TargetError(f"{path}: unknown key {unknown[0]!r}; a target has {', '.join(sorted(known))}")
    for key in ("description", "triple"):
        if key not in content:
            raise TargetError(f"{path} lacks the key {key!r}")

    values: dict[str, Any] = {"name": path.stem, "path": path}
    for key, value in content.items():
        kind, is_of_kind = _KINDS[key]
        if not is_of_kind(value):
            raise TargetError(f"{path}: {key!r} must be {kind}, not {value!r}")
        values[key] = tuple(value) if isinstance(value, list) else value
    if "cycles_per_weight" in values:
        values["cycles_per_weight"] = CyclesPerWeight(**values["cycles_per_weight"])
    if "sources" in values:
        values["sources"] = tuple(values["sources"].items())
    target = Target(**values)
    _check_triple(target, path)
    _check_figures(target, path)
    possible = ARCH_FEATURES[target.arch]
    foreign = [feature for feature in target.features if feature not in possible]
    if foreign:
        raise TargetError(f"{path}: {target.arch} has no feature {foreign[0]!r}; it has {', '.join(sorted(possible))}")
    return target


def _check_triple(target: Target, path: Path) -> None:
    arch, _, rest = target.triple.partition("-")
    system, _, abi = rest.partition("-")
    if arch.startswith("arm") and arch != "arm64":
        raise TargetError(
            f"{path}: {target.triple} is a 32-bit system; edgebit needs a 64-bit one. A Raspberry Pi from the 3 on runs"
            ' 64-bit Raspberry Pi OS: triple = "aarch64-linux-gnu"'
        )
    if arch not in ARCH_FEATURES or system != "linux" or abi not in _ABIS:
        raise TargetError(
            f"{path}: triple {target.triple!r} is none that edgebit builds for; it is ARCH-linux-ABI with ARCH one of"
            f" {', '.join(sorted(ARCH_FEATURES))} and ABI one of {', '.join(_ABIS)}"
        )


def _check_figures(target: Target, path: Path) -> None:
    if target.is_android and target.api_level is None:
        raise TargetError(f"{path} lacks the key 'api_level': the oldest Android that it is for; 24 is Android 7")
    if not target.is_android and target.api_level is not None:
        raise TargetError(f"{path}: 'api_level' is for a triple that ends in -android, not for {target.triple!r}")
    if target.is_android and target.glibc_floor is not None:
        raise TargetError(f"{path}: 'glibc_floor' is for systems with glibc, and Android has a libc of its own")
    if target.big_cores is not None and not target.big_cores <= (target.cores or 0):
        raise TargetError(
            f"{path}: 'big_cores' is {target.big_cores}, more than 'cores', {target.cores or 'not given'}"
        )
    if target.load_w is not None and not target.load_w >= (target.idle_w or math.inf):
        raise TargetError(f"{path}: 'load_w' is {target.load_w}; 'idle_w' must stand beside it and not be more")
    for figure, _ in target.sources:
        if not getattr(target, figure):
            raise TargetError(f"{path}: 'sources' has {figure!r}, a figure that does not stand in the file")
    for name in target.stands_for:
        if name in (target.name, HOST):
            raise TargetError(f"{path}: 'stands_for' names {name!r}; it names other targets")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value) and len(set(value)) == len(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-6 <= value <= 1e6


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_rate, value)) and value[0] <= value[1]


def _is_table(value: object, keys: set[str], is_of_kind: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and set(value) <= keys and all(map(is_of_kind, value.values()))


def _names_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "description": ("a text", _is_text),
    "triple": ("a text", _is_text),
    "cpu": ("a compiler's CPU name", _matches(r"[a-z0-9+._-]+")),
    "features": ("a list of different names", _is_texts),
    "cores": ("a whole number from 1 on", _is_count),
    "memory_mib": ("a whole number of MiB, from 1 on", _is_count),
    "stands_for": ("a list of different targets' names", _is_texts),
    "big_cores": ("a whole number from 1 on", _is_count),
    "clock_ghz": ("a positive number of GHz", _is_rate),
    "read_gb_s": ("[lowest, highest], two positive numbers of 1e9 bytes a second", _is_range),
    "read_core_gb_s": ("[lowest, highest], two positive numbers of 1e9 bytes a second", _is_range),
    "cycles_per_weight": (
        f"a table of positive numbers, of {', '.join(_names_of(CyclesPerWeight))}",
        lambda value: _is_table(value, set(_names_of(CyclesPerWeight)), _is_rate),
    ),
    "idle_w": ("a positive number of watts", _is_rate),
    "load_w": ("a positive number of watts", _is_rate),
    "sources": (
        "a table from the key of a figure to a text",
        lambda value: _is_table(value, set(_names_of(Target)) - {"sources"} - _NOT_KEYS, _is_text),
    ),
    "page_kib": ("4, 16 or 64", lambda value: type(value) is int and value in _PAGES_KIB),
    "throttle_c": ("a whole number of °C from 40 to 125", lambda value: type(value) is int and 40 <= value <= 125),
    "glibc_floor": ('a version as "2.31", in quotes', _matches(r"2\.[0-9]{1,3}")),
    "api_level": ("an Android API level from 24 to 99", lambda value: type(value) is int and 24 <= value <= 99),
    "sensors": ('a list of "thermal_zone:TYPE"', lambda value: _is_texts(value) and all(map(_is_sensor, value))),  # type: ignore[call-overload]
    "service": ("one of systemd, none", lambda value: value in _SERVICES),
    "emulate_cpus": ("a list of different qemu CPU names", _is_texts),
}


def _is_sensor(value: object) -> bool:
    return _matches(r"thermal_zone:[A-Za-z0-9._-]+")(value)
