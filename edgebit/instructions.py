"""The audit of a library's instructions: none above the baseline where a CPU that lacks it comes."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebit.checks import Check, some_of, verdict
from edgebit.targets import Target, host_target

_LSE = re.compile(
    r"(cas|casp|swp|ld(add|clr|eor|set|smax|smin|umax|umin)|st(add|clr|eor|set|smax|smin|umax|umin))(a|l|al)?(b|h)?"
)
_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+((?:\{e?vex\}\s)?\S+)\s*(.*)$")
_X18 = re.compile(r"\b[wx]18\b")  # Android's own: its libc may keep the shadow call stack there
_PRODUCT = re.compile(r"eb_(gemv4?|gemm|dot)_")  # micro-kernels that multiply: where an ISA's own product must be
_ANY = "any CPU"
_NEVER = "never"


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
            return verdict(name, not problems, f"each in its place ({tool})", some_of(problems))
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
