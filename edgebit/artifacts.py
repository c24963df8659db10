"""What the native files of a bundle must hold, checked on the files themselves and never concluded from flags.

Each check has a name, says passed, failed, or not run, and why. `edgebit build` refuses a file with a failed check
before it enters a bundle; `edgebit verify` shows them all.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebit import bionic, elf
from edgebit.bionic import Rule
from edgebit.checks import Check
from edgebit.elf import Elf, read_elf
from edgebit.errors import BuildError
from edgebit.resources import kernels_dir
from edgebit.targets import Target, host_target

SONAME = "libedgebit.so"
LIBRARY_ALIGN = 65536  # loads on kernels with pages of 4, 16 and 64 KB

_LSE = re.compile(
    r"(cas|casp|swp|ld(add|clr|eor|set|smax|smin|umax|umin)|st(add|clr|eor|set|smax|smin|umax|umin))(a|l|al)?(b|h)?"
)
_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+((?:\{e?vex\}\s)?\S+)\s*(.*)$")
_X18 = re.compile(r"\b[wx]18\b")  # Android's own: its libc may keep the shadow call stack there
_PRODUCT = re.compile(r"eb_(gemv4?|gemm|dot)_")  # micro-kernels that multiply: where an ISA's own product must be
_ANY = "any CPU"
_NEVER = "never"


def require(checks: Iterable[Check], where: str, mend: str) -> None:
    """Raise BuildError naming every failed check, and how to mend it."""
    failed = [f"{check.name}: {check.detail}" for check in checks if check.status == "failed"]
    if failed:
        raise BuildError(f"{where}\n  " + "\n  ".join(failed) + f"\nNo bundle was written. {mend}")


def _check(name: str, ok: bool, good: str, bad: str) -> Check:
    return Check(name, "passed" if ok else "failed", good if ok else bad)


# ---- the file ----


def check_library(data: bytes, target: Target, exports: frozenset[str]) -> list[Check]:
    """The checks of libedgebit.so for `target`; `exports` are the functions of its header (header_exports())."""
    file = read_elf(data, SONAME)
    undefined = sorted(symbol.name for symbol in file.symbols if not symbol.is_defined)
    defined = {symbol.name for symbol in file.symbols if symbol.is_defined}
    wrong = [*(f"{name} is missing" for name in sorted(exports - defined))]
    wrong += [f"{name} is not in the header" for name in sorted(defined - exports)]
    return [
        _check_machine(file, target),
        _check(
            "library type", file.type == elf.ET_DYN, "shared library", f"ELF type {file.type}, not a shared library"
        ),
        _check("SONAME", file.soname == SONAME, SONAME, f"{file.soname!r}, not {SONAME!r}"),
        _check("needs no library", not file.needed, "no NEEDED entry", f"NEEDED {', '.join(file.needed)}"),
        _check("imports nothing", not undefined, "no undefined symbol", f"undefined: {_some(undefined)}"),
        _check("exports", not wrong, f"the {len(exports)} functions of edgebit.h", _some(wrong)),
        _check_alignment(file, LIBRARY_ALIGN),
        _check_text_relocations(file),
        _check_write_or_execute(file),
        _check_stack(file),
        _check_relro(file),
        _check(
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
        _check(
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
    own_name = _check("SONAME", file.soname is not None, str(file.soname), "none: Android demands one from 6.0 on")
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
    """The functions that the text of edgebit.h declares for its callers."""
    return frozenset(re.findall(r"^EB_API[^;(]*?\b(eb_\w+)\(", header, re.MULTILINE))


def header_abi_version(header: str) -> int:
    """EB_ABI_VERSION in the text of edgebit.h."""
    found = re.search(r"^#define EB_ABI_VERSION (\d+)$", header, re.MULTILINE)
    if found is None:
        raise BuildError("kernels/include/edgebit.h defines no EB_ABI_VERSION. Install edgebit again")
    return int(found[1])


def read_header() -> str:
    """The text of the edgebit.h that ships."""
    return (kernels_dir() / "include" / "edgebit.h").read_text(encoding="utf-8")


def _check_libc(file: Elf, target: Target) -> list[Check]:
    is_static = file.interpreter is None and not file.needed
    if target.is_android and not is_static:
        return [*_from_rules(bionic.program_rules(file)), *_check_loader_rules(file, target)]
    wrong = f"it needs a loader or {', '.join(file.needed) or 'libraries'}"
    static = _check("static", is_static, "no loader, no NEEDED entry", wrong)
    return [static, *(_from_rules(bionic.static_rules(file)) if target.is_android else [])]


def _check_loader_rules(file: Elf, target: Target) -> list[Check]:
    assert target.api_level is not None  # every Android has one
    return _from_rules(bionic.loader_rules(file, target.api_level, target.page_kib * 1024))


def _from_rules(rules: list[Rule]) -> list[Check]:
    return [_check(rule.name, not rule.problems, rule.good, _some(list(rule.problems))) for rule in rules]


def _check_machine(file: Elf, target: Target) -> Check:
    names = {number: name for name, number in elf.MACHINES.items()}
    found = names.get(file.machine, f"machine {file.machine}")
    return _check("architecture", found == target.arch, found, f"{found}, the target {target.name} is {target.arch}")


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
    return _check("page alignment", not bad, f"{min((x.align for x in loads), default=0) // 1024} KB", _some(bad))


def _check_text_relocations(file: Elf) -> Check:
    bad = file.has(elf.DT_TEXTREL) or file.flag(elf.DT_FLAGS, elf.DF_TEXTREL)
    return _check(
        "no text relocations", not bad, "none", "TEXTREL: its code is changed at load, which hardened systems refuse"
    )


def _check_write_or_execute(file: Elf) -> Check:
    both = elf.PF_W | elf.PF_X
    bad = [f"{load.vaddr:#x}" for load in file.segments_of(elf.PT_LOAD) if load.flags & both == both]
    return _check("no writable code", not bad, "no segment is both", f"writable and executable segment at {_some(bad)}")


def _check_stack(file: Elf) -> Check:
    stacks = file.segments_of(elf.PT_GNU_STACK)
    ok = bool(stacks) and not any(stack.flags & elf.PF_X for stack in stacks)
    return _check(
        "stack", ok, "not executable", "executable" if stacks else "no GNU_STACK segment: an executable stack"
    )


def _check_relro(file: Elf) -> Check:
    now = (
        file.has(elf.DT_BIND_NOW) or file.flag(elf.DT_FLAGS, elf.DF_BIND_NOW) or file.flag(elf.DT_FLAGS_1, elf.DF_1_NOW)
    )
    missing = [name for name, ok in (("RELRO", bool(file.segments_of(elf.PT_GNU_RELRO))), ("NOW", now)) if not ok]
    return _check("RELRO and NOW", not missing, "both", f"without {' and '.join(missing)}: its tables stay writable")


def _check_glibc(file: Elf, target: Target) -> Check:
    name = "glibc version"
    found = [version.removeprefix("GLIBC_") for _, version in file.versions if re.fullmatch(r"GLIBC_[0-9.]+", version)]
    if not found:
        return Check(name, "passed", "needs none")
    highest = max(found, key=_version_key)
    if target.glibc_floor is None:
        return Check(name, "passed", f"needs {highest}; the target names no floor")
    ok = _version_key(highest) <= _version_key(target.glibc_floor)
    return _check(name, ok, f"needs {highest}", f"needs {highest}, devices of the target may have {target.glibc_floor}")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---- the instructions ----


def check_instructions(path: Path, target: Target, *, tools: list[str] | None = None) -> Check:
    """No instruction above the baseline outside the micro-kernels that may have it, and each has its own.

    Disassembles the library at `path`, which must have its function names; `tools` are the disassemblers to try.
    """
    name = "instructions"
    reasons = []
    for tool in tools if tools is not None else disassemblers(target):
        program = shutil.which(tool)
        if program is None:
            continue
        done = subprocess.run(
            [program, "-d", "--no-show-raw-insn", str(path)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            reasons.append(f"{tool} does not know {target.arch}")
        elif "<unknown>" in done.stdout:
            reasons.append(f"{tool} cannot decode all of {target.arch}: it is too old")
        else:
            problems = audit_listing(done.stdout, target.arch)
            if target.is_android and target.arch == "aarch64":
                problems += find_x18(done.stdout)
            return _check(name, not problems, f"each in its place ({tool})", _some(problems))
    package = f"binutils-{target.arch.replace('_', '-')}-linux-gnu"
    return Check(name, "not run", "; ".join(reasons) or f"no objdump for {target.arch}: apt-get install {package}")


def disassemblers(target: Target) -> list[str]:
    """Programs that may disassemble the target's code, best first."""
    native = ["objdump"] if target.arch == host_target().arch else []
    return [f"{target.arch}-linux-gnu-objdump", *native, "llvm-objdump"]


def audit_listing(listing: str, arch: str) -> list[str]:
    """What is wrong with the instructions in objdump's output, in words; empty where nothing is."""
    extension, isas = _RULES[arch]
    problems: dict[str, None] = {}
    products: dict[str, dict[str, bool]] = {marker: {} for marker in isas}  # micro-kernels -> has its ISA's product
    for function, mnemonic, operands in _instructions(listing):
        marker = next((marker for marker in isas if marker in function), None)
        if mnemonic == "":
            if marker and _PRODUCT.match(function) and "." not in function:
                products[marker].setdefault(function, False)
            continue
        needs = extension(mnemonic, operands)
        if needs == _NEVER:
            problems[f"{mnemonic} in {function}, which no target has for certain"] = None
        elif needs != _ANY and marker is None:
            problems[f"{mnemonic} in {function}, which every CPU runs"] = None
        elif needs != _ANY and marker is not None and needs not in isas[marker].extensions:
            problems[f"{mnemonic} in {function}, which CPUs without {needs} run"] = None
        if marker and function in products[marker] and isas[marker].product.fullmatch(mnemonic):
            products[marker][function] = True
    absent = [f"*{marker}" for marker, found in products.items() if not found]
    if absent:  # then no other finding means anything: instructions are put down to the wrong functions
        return [
            f"no function {', '.join(absent)}: the library was stripped of its function names, or has no micro-kernels"
        ]
    for found in products.values():
        problems.update((f"{name} has no product of its own ISA", None) for name, has in found.items() if not has)
    return list(problems)


def find_x18(listing: str) -> list[str]:
    """Which functions in objdump's output touch x18, in words."""
    found = {function: None for function, _, operands in _instructions(listing) if _X18.search(operands)}
    return [f"x18 in {function}: on Android it belongs to the system" for function in found]


def _instructions(listing: str) -> Iterator[tuple[str, str, str]]:
    """Function, mnemonic, operands of each line; the mnemonic is empty where a function begins."""
    function = ""
    for line in listing.splitlines():
        if begins := _FUNCTION.match(line):
            function = begins[1]
            yield function, "", ""
        elif function and (found := _INSTRUCTION.match(line)):
            yield function, " ".join(found[1].split()), found[2]


@dataclass(frozen=True, slots=True)
class _Isa:
    """What the micro-kernels with an ISA's marker in their names are made of."""

    extensions: frozenset[str]  # whose instructions they may have, as the architecture's function below names them
    product: re.Pattern[str]  # the mnemonics of the instruction that they are there for


def _arm_extension(mnemonic: str, operands: str) -> str:
    if _LSE.fullmatch(mnemonic) or mnemonic == ".inst" or re.search(r"\bz\d+\.|\bp\d+/", operands):  # .inst: unknown
        return _NEVER
    if re.fullmatch(r"(s|u|us)mmla|usdot|sudot", mnemonic):
        return "i8mm"
    return "dotprod" if mnemonic in {"sdot", "udot"} else _ANY


# Instructions that only EVEX encodes, as far as neither a mask nor a register of AVX-512 shows it.
_EVEX_ONLY = re.compile(
    r"\{evex\} .*|vmovdq[au](8|16|32|64)|vp(and|andn|or|xor)[dq]|vpternlog[dq]|vp(compress|expand|conflict)[bwdq]"
    r"|vperm[it]2\w+|vperm[bw]|v(broadcast|insert|extract)[fi](32|64)x\d|valign[dq]|vp(rol|ror)v?[dq]|vpsravq"
    r"|vp(abs|maxs|maxu|mins|minu|sra|mull)q|vpdp\w+"
)


def _x86_extension(mnemonic: str, operands: str) -> str:
    if mnemonic == "(bad)" or re.match(r"vfn?m(add|sub)", mnemonic):  # results are the same everywhere: no fma
        return _NEVER
    if re.fullmatch(r"\{vex\} vpdp\w+", mnemonic):
        return "AVX-VNNI"
    if _EVEX_ONLY.fullmatch(mnemonic) or re.search(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]", operands):
        return "AVX-512"
    return "AVX2" if mnemonic.removeprefix("{vex} ").startswith("v") and mnemonic not in {"verr", "verw"} else _ANY


# Architecture -> (the extension that an instruction belongs to, the ISAs by the part of a function's name that marks
# their micro-kernels).
_RULES: dict[str, tuple[Callable[[str, str], str], dict[str, _Isa]]] = {
    "aarch64": (
        _arm_extension,
        {
            "_dotprod": _Isa(frozenset({"dotprod"}), re.compile("[su]dot")),
            "_i8mm": _Isa(frozenset({"dotprod", "i8mm"}), re.compile("(s|u|us)mmla")),
        },
    ),
    "x86_64": (
        _x86_extension,
        {
            "_avx2": _Isa(frozenset({"AVX2"}), re.compile("vpmadd(ubsw|wd)")),
            "_avxvnni": _Isa(frozenset({"AVX2", "AVX-VNNI"}), re.compile(r"\{vex\} vpdpbusd")),
            "_avx512vnni": _Isa(frozenset({"AVX2", "AVX-512"}), re.compile("vpdpbusd")),
        },
    ),
}
