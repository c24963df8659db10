"""What Android's loader and libc demand of an ELF file, beyond what every Linux does.

Sources: AOSP, bionic's documents "Android changes for NDK developers", "status.md" and "elf-tls.md"; the NDK's guides
"Android ABIs" and "Stable APIs".
"""

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebit import elf
from edgebit.elf import Elf, Symbol, read_elf
from edgebit.errors import BuildError
from edgebit.resources import cross_dir

LINKER = "/system/bin/linker64"
ROOT_VARIABLE = (
    "EDGEBIT_BIONIC_ROOT"  # names a folder that holds system/bin/linker64 and system/lib64/libc.so of a phone
)
ROOT_FILES = ("system/bin/linker64", "system/lib64/libc.so", "system/lib64/libdl.so", "system/lib64/libm.so")
_THREAD_LOCAL_LEVEL = 29
_RELR_LEVELS = {elf.DT_ANDROID_RELR: 28, elf.DT_RELR: 30}
_NOTE_OF_LEVEL = ("Android", 1)  # its content begins with the API level
_NOTE_OF_GLIBC = ("GNU", 1)  # that a program has from glibc's own start files


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand: what is wrong with a file, in words, and what there is to say where nothing is."""

    name: str
    problems: tuple[str, ...]
    good: str


@dataclass(frozen=True, slots=True)
class _Levels:
    libraries: dict[str, int]
    versions: dict[str, int]  # of symbols
    added: dict[str, int]  # functions that came later than API level 24; all others have always been there


@functools.cache
def _levels() -> _Levels:
    path = cross_dir() / "android" / "api_levels.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}. Install edgebit again") from error
    added = {name: int(level) for level, names in content["added"].items() for name in names}
    return _Levels(content["libraries"], content["versions"], added)


def loader_rules(file: Elf, api_level: int, page: int) -> list[Rule]:
    """The demands on a shared library or program on phones from `api_level` on with pages of up to `page` bytes."""
    return [
        _section_headers(file),
        _needed(file, api_level),
        _run_paths(file),
        _hash_table(file),
        _packed_relocations(file, api_level),
        _thread_local(file, api_level),
        _relro_end(file, page),
        _symbols(file, api_level),
        _note(file, api_level),
    ]


def program_rules(file: Elf) -> list[Rule]:
    """The further demands on a program that Android's loader starts."""
    problems = []
    if file.type != elf.ET_DYN:
        problems.append("it is not position-independent (PIE), which Android has demanded since 5.0")
    if file.interpreter != LINKER:
        problems.append(f"its loader is {file.interpreter}, Android's is {LINKER}")
    return [Rule("Android's loader", tuple(problems), LINKER)]


def static_rules(file: Elf) -> list[Rule]:
    """The demands on a static program, which the kernel starts alone."""
    problems = []
    if any((note.owner, note.kind) == _NOTE_OF_GLIBC for note in file.notes):
        problems.append("glibc is inside: it calls set_robust_list and rseq, and Android kills an app that does")
    return [Rule("system calls of Android", tuple(problems), "no glibc inside")]


def _section_headers(file: Elf) -> Rule:
    table, problems = file.section_headers, []
    if not table.count or not table.offset:
        problems.append("they were stripped: refused from API level 24 on")
    elif table.entry_size != 64:
        problems.append(f"entries of {table.entry_size} bytes instead of 64: refused from API level 26 on")
    elif not 0 < table.names < table.count:
        problems.append(f"their names are in section {table.names} of {table.count}: refused from API level 26 on")
    return Rule("section headers", tuple(problems), f"{table.count} of them")


def _needed(file: Elf, api_level: int) -> Rule:
    problems = []
    for name in file.needed:
        level = _levels().libraries.get(name)
        if "/" in name:
            problems.append(f"{name!r} is a path, and Android would look just there")
        elif level is None:
            problems.append(f"{name} is no library that Android gives to programs")
        elif level > api_level:
            problems.append(f"{name} came with API level {level}, the target is {api_level}")
    return Rule("libraries of Android", tuple(problems), ", ".join(file.needed) or "none needed")


def _run_paths(file: Elf) -> Rule:
    problems = ["RPATH, which Android does not read"] if file.has(elf.DT_RPATH) else []
    problems += [
        f"{path!r} is a folder of the build machine"
        for entry in file.run_paths
        for path in entry.split(":")
        if path and not path.startswith(("$ORIGIN", "${ORIGIN}", "/data/", "/system/", "/vendor/"))
    ]
    return Rule("library folders", tuple(problems), ":".join(file.run_paths) or "none named")


def _hash_table(file: Elf) -> Rule:
    found = [name for tag, name in ((elf.DT_GNU_HASH, "GNU"), (elf.DT_HASH, "System V")) if file.has(tag)]
    problems = () if found else ("it has none: Android finds no symbol without",)
    return Rule("hash table", problems, " and ".join(found))


def _packed_relocations(file: Elf, api_level: int) -> Rule:
    problems = tuple(
        f"RELR relocations of kind {tag:#x}, which Android reads from API level {level} on"
        for tag, level in _RELR_LEVELS.items()
        if file.has(tag) and level > api_level
    )
    return Rule("packed relocations", problems, "none that are too new")


def _thread_local(file: Elf, api_level: int) -> Rule:
    segments = file.segments_of(elf.PT_TLS)
    if not segments:
        return Rule("thread-local data of Android", (), "none")
    if api_level < _THREAD_LOCAL_LEVEL:
        text = f"a TLS segment, which Android knows from API level {_THREAD_LOCAL_LEVEL} on"
        return Rule("thread-local data of Android", (text,), "")
    return Rule("thread-local data of Android", (), f"known from API level {_THREAD_LOCAL_LEVEL} on")


def _relro_end(file: Elf, page: int) -> Rule:
    """Android makes whole pages read-only: what is written later must not begin in the last of them."""
    problems = []
    for relro in file.segments_of(elf.PT_GNU_RELRO):
        end = relro.vaddr + relro.memory_size
        end_of_page = -(-end // page) * page
        for load in file.segments_of(elf.PT_LOAD):
            first = max(load.vaddr, end)  # of the writable bytes behind
            if load.flags & elf.PF_W and first < min(load.vaddr + load.memory_size, end_of_page):
                problems.append(f"RELRO ends at {end:#x} and data goes on in the same page of {page // 1024} KB")
    return Rule("RELRO ends with a page", tuple(problems), f"of {page // 1024} KB")


def _symbols(file: Elf, api_level: int) -> Rule:
    levels = _levels()
    imported = [symbol for symbol in file.symbols if not symbol.is_defined and not symbol.is_weak]
    problems = []
    for symbol in imported:
        level = _level_of(symbol, levels)
        if level is None:
            problems.append(f"{symbol.name} wants the version {symbol.version}, which is not Android's")
        elif level > api_level:
            problems.append(f"{symbol.name} came with API level {level}, the target is {api_level}")
    return Rule("functions of Android's libc", tuple(problems), f"{len(imported)}, all of API level {api_level}")


def _level_of(symbol: Symbol, levels: _Levels) -> int | None:
    """The API level that `symbol` came with, at least; None: it is of another system."""
    added = levels.added.get(symbol.name, 0)
    if symbol.version is None:
        return added
    version = levels.versions.get(symbol.version)
    return None if version is None else max(added, version)


def _note(file: Elf, api_level: int) -> Rule:
    for note in file.notes:
        if (note.owner, note.kind) == _NOTE_OF_LEVEL and len(note.content) >= 4:
            level = int.from_bytes(note.content[:4], "little")
            problems = (f"made for API level {level}, the target is {api_level}",) if level > api_level else ()
            return Rule("API level", problems, str(level))
    return Rule("API level", (), "none named")


# ---- running such a program on this machine ----


def needs_linker(program: Path) -> bool:
    """Whether the file is a program that Android's loader starts."""
    data = program.read_bytes()
    return data[:4] == b"\x7fELF" and read_elf(data, program.name).interpreter == LINKER


def find_root(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder with a phone's loader and libc that EDGEBIT_BIONIC_ROOT names; None where it names none.

    Raises BuildError where a file is missing there, or cannot be executed: the emulator would end without a word.
    """
    named = environment.get(ROOT_VARIABLE)
    if not named:
        return None
    root = Path(named)
    for name in ROOT_FILES[:2]:
        if not (root / name).is_file():
            raise BuildError(
                f"{ROOT_VARIABLE} names {root}, which has no {name}. Name a folder with a phone's files, or unset it"
            )
        if not os.access(root / name, os.X_OK):
            raise BuildError(f"{root / name} cannot be executed, and the emulator needs that: chmod +x {root / name}")
    return root
