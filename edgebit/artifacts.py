"""What native files must hold for a target, checked on the files themselves and never concluded from flags.

Each check has a name, says passed, failed, or not run, and why. `edgebit build` refuses a file with a failed check
before it enters a bundle; `edgebit verify` shows them all.
"""

import re
from collections.abc import Iterable

from edgebit import bionic, elf
from edgebit.bionic import Rule
from edgebit.checks import Check, some_of, verdict
from edgebit.elf import Elf, read_elf
from edgebit.errors import BuildError
from edgebit.resources import ORT_SONAME, SONAME, kernels_dir
from edgebit.targets import Target

LIBRARY_ALIGN = 65536  # loads on kernels with pages of 4, 16 and 64 KB


def require(checks: Iterable[Check], where: str, mend: str) -> None:
    """Raise BuildError naming every failed check, and how to mend it."""
    failed = [f"{check.name}: {check.detail}" for check in checks if check.status == "failed"]
    if failed:
        raise BuildError(f"{where}\n  " + "\n  ".join(failed) + f"\n{mend}")


def check_library(data: bytes, target: Target, exports: frozenset[str]) -> list[Check]:
    """The checks of libedgebit.so for `target`; `exports` are the functions of its header (header_exports())."""
    return _check_shared_library(data, target, SONAME, exports, "edgebit.h")


def check_ort_library(data: bytes, target: Target, exports: frozenset[str]) -> list[Check]:
    """The same of libedgebit_ort.so, the operators for ONNX Runtime."""
    return _check_shared_library(data, target, ORT_SONAME, exports, "edgebit_ort.h")


def _check_shared_library(
    data: bytes, target: Target, soname: str, exports: frozenset[str], declared_in: str
) -> list[Check]:
    """Those of a library that imports nothing, and exports no other functions than the declared ones."""
    file = read_elf(data, soname)
    undefined = sorted(symbol.name for symbol in file.symbols if not symbol.is_defined)
    defined = {symbol.name for symbol in file.symbols if symbol.is_defined}
    wrong = [*(f"{name} is missing" for name in sorted(exports - defined))]
    wrong += [f"{name} is not in {declared_in}" for name in sorted(defined - exports)]
    return [
        _check_machine(file, target),
        verdict(
            "library type", file.type == elf.ET_DYN, "shared library", f"ELF type {file.type}, not a shared library"
        ),
        verdict("SONAME", file.soname == soname, soname, f"{file.soname!r}, not {soname!r}"),
        verdict("needs no library", not file.needed, "no NEEDED entry", f"NEEDED {', '.join(file.needed)}"),
        verdict("imports nothing", not undefined, "no undefined symbol", f"undefined: {some_of(undefined)}"),
        verdict("exports", not wrong, f"the {len(exports)} functions of {declared_in}", some_of(wrong)),
        _check_alignment(file, LIBRARY_ALIGN),
        _check_text_relocations(file),
        _check_write_or_execute(file),
        _check_stack(file),
        _check_relro(file),
        verdict(
            "no thread-local data",
            not file.segments_of(elf.PT_TLS),
            "none",
            "it has a TLS segment: old Androids cannot load it",
        ),
        *(_check_loader_rules(file, target) if target.is_android else ()),
    ]


def check_program(data: bytes, target: Target, *, name: str = "edgebit-run") -> list[Check]:
    """The checks of the program edgebit-run for `target`: static, or for an Android with the phone's own libc."""
    file = read_elf(data, name)
    return [
        _check_machine(file, target),
        verdict(
            "program type", file.type in (elf.ET_EXEC, elf.ET_DYN), "program", f"ELF type {file.type}, not a program"
        ),
        *_check_libc(file, target),
        _check_glibc(file, target),
        _check_alignment(file, target.page_kib * 1024),
        _check_text_relocations(file),
        _check_write_or_execute(file),
        _check_stack(file),
    ]


def check_for_android(data: bytes, target: Target, *, name: str) -> list[Check]:
    """The checks of anybody's library or program for `target`, an Android."""
    file = read_elf(data, name)
    is_program = file.interpreter is not None
    own_name = verdict("SONAME", file.soname is not None, str(file.soname), "none: Android demands one from 6.0 on")
    return [
        _check_machine(file, target),
        *([] if is_program else [own_name]),
        *(_from_rules(bionic.program_rules(file)) if is_program else []),
        *_check_loader_rules(file, target),
        _check_alignment(file, target.page_kib * 1024),
        _check_text_relocations(file),
        _check_write_or_execute(file),
    ]


def header_exports(header: str) -> frozenset[str]:
    """The functions that the text of edgebit.h or edgebit_ort.h declares for its callers."""
    return frozenset(re.findall(r"^EB_API[^;(]*?\b(\w+)\(", header, re.MULTILINE))


def header_abi_version(header: str) -> int:
    """EB_ABI_VERSION in the text of edgebit.h."""
    found = re.search(r"^#define EB_ABI_VERSION (\d+)$", header, re.MULTILINE)
    if found is None:
        raise BuildError("kernels/include/edgebit.h defines no EB_ABI_VERSION. Install edgebit again")
    return int(found[1])


def read_header() -> str:
    """The text of the edgebit.h that ships."""
    return (kernels_dir() / "include" / "edgebit.h").read_text(encoding="utf-8")


def read_ort_header() -> str:
    """The text of the edgebit_ort.h that ships."""
    return (kernels_dir() / "ort" / "edgebit_ort.h").read_text(encoding="utf-8")


def _check_libc(file: Elf, target: Target) -> list[Check]:
    is_static = file.interpreter is None and not file.needed
    if target.is_android and not is_static:
        return [*_from_rules(bionic.program_rules(file)), *_check_loader_rules(file, target)]
    wrong = f"it needs a loader or {', '.join(file.needed) or 'libraries'}"
    static = verdict("static", is_static, "no loader, no NEEDED entry", wrong)
    return [static, *(_from_rules(bionic.static_rules(file)) if target.is_android else [])]


def _check_loader_rules(file: Elf, target: Target) -> list[Check]:
    assert target.api_level is not None  # every Android has one
    return _from_rules(bionic.loader_rules(file, target.api_level, target.page_kib * 1024))


def _from_rules(rules: list[Rule]) -> list[Check]:
    return [verdict(rule.name, not rule.problems, rule.good, some_of(list(rule.problems))) for rule in rules]


def _check_machine(file: Elf, target: Target) -> Check:
    found = elf.machine_name(file.machine)
    return verdict("architecture", found == target.arch, found, f"{found}, the target {target.name} is {target.arch}")


def _check_alignment(file: Elf, least: int) -> Check:
    loads = file.segments_of(elf.PT_LOAD)
    bad = [
        f"a segment at {load.offset:#x} is aligned to {load.align}, {least} is needed"
        for load in loads
        if load.align < least or load.align & (load.align - 1)
    ]
    bad += [
        f"a segment lies at {load.offset:#x} in the file and {load.vaddr:#x} in memory: not congruent to {load.align}"
        for load in loads
        if load.align and (load.offset - load.vaddr) % load.align
    ]
    if not loads:
        bad.append("nothing is loaded")
    return verdict("page alignment", not bad, f"{min((x.align for x in loads), default=0) // 1024} KB", some_of(bad))


def _check_text_relocations(file: Elf) -> Check:
    bad = file.has(elf.DT_TEXTREL) or file.flag(elf.DT_FLAGS, elf.DF_TEXTREL)
    return verdict(
        "no text relocations", not bad, "none", "TEXTREL: its code is changed at load, which hardened systems refuse"
    )


def _check_write_or_execute(file: Elf) -> Check:
    both = elf.PF_W | elf.PF_X
    bad = [f"{load.vaddr:#x}" for load in file.segments_of(elf.PT_LOAD) if load.flags & both == both]
    return verdict(
        "no writable code", not bad, "no segment is both", f"writable and executable segment at {some_of(bad)}"
    )


def _check_stack(file: Elf) -> Check:
    stacks = file.segments_of(elf.PT_GNU_STACK)
    ok = bool(stacks) and not any(stack.flags & elf.PF_X for stack in stacks)
    return verdict(
        "stack", ok, "not executable", "executable" if stacks else "no GNU_STACK segment: an executable stack"
    )


def _check_relro(file: Elf) -> Check:
    now = (
        file.has(elf.DT_BIND_NOW) or file.flag(elf.DT_FLAGS, elf.DF_BIND_NOW) or file.flag(elf.DT_FLAGS_1, elf.DF_1_NOW)
    )
    missing = [name for name, ok in (("RELRO", bool(file.segments_of(elf.PT_GNU_RELRO))), ("NOW", now)) if not ok]
    return verdict("RELRO and NOW", not missing, "both", f"without {' and '.join(missing)}: its tables stay writable")


def _check_glibc(file: Elf, target: Target) -> Check:
    name = "glibc version"
    found = [version.removeprefix("GLIBC_") for _, version in file.versions if re.fullmatch(r"GLIBC_[0-9.]+", version)]
    if not found:
        return Check(name, "passed", "needs none")
    highest = max(found, key=_version_key)
    if target.glibc_floor is None:
        return Check(name, "passed", f"needs {highest}; the target names no floor")
    ok = _version_key(highest) <= _version_key(target.glibc_floor)
    return verdict(
        name, ok, f"needs {highest}", f"needs {highest}, devices of the target may have {target.glibc_floor}"
    )


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
