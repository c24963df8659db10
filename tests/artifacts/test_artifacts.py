"""Each check of a native file passes on a sound one and fails on one that was built to break it."""

import dataclasses
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.artifacts import (
    check_library,
    check_ort_library,
    check_program,
    header_abi_version,
    header_exports,
    read_header,
    read_ort_header,
    require,
)
from edgebit.checks import Check
from edgebit.elf import read_elf
from edgebit.errors import BuildError
from edgebit.instructions import check_instructions
from edgebit.targets import Target, find_target, host_target

EXPORTS = frozenset({"eb_one", "eb_two"})
SOURCE = """
#define API __attribute__((visibility("default")))
static int table[] = {1, 2, 3};
int *volatile place = table;
API int eb_one(int x) { return place[x & 1]; }
API int eb_two(int x) { return x + eb_one(x); }
"""
FLAGS = [
    "-shared", "-fPIC", "-fvisibility=hidden", "-O1", "-nostdlib", "-fno-stack-protector", "-Wl,-soname,libedgebit.so",
    "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=65536",
]  # fmt: skip
PROGRAM = '#include <stdio.h>\nint main(void) { return puts("x") < 0; }\n'

Compile = Callable[..., bytes]


@pytest.fixture
def host() -> Target:
    """This machine as a target of Linux."""
    return dataclasses.replace(find_target(f"linux-{host_target().arch}"), glibc_floor="2.17")


@pytest.fixture
def compile_(tmp_path: Path, require_tool: Callable[[str], str]) -> Compile:
    """Compiles a source with this machine's gcc and gives the bytes."""
    gcc = require_tool("gcc")

    def run(source: str, flags: list[str]) -> bytes:
        (tmp_path / "source.c").write_text(source)
        out = tmp_path / "out"
        subprocess.run([gcc, tmp_path / "source.c", "-o", out, *flags], check=True, capture_output=True)
        return out.read_bytes()

    return run


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if check.status == "failed"}


def test_sound_library_passes(compile_, host):
    """The flags that kernels/CMakeLists.txt uses give a library without a finding."""
    assert failed(check_library(compile_(SOURCE, FLAGS), host, EXPORTS)) == {}


IMPORT = "int puts(); API int eb_x(void) { return puts(); }"
WEAK_IMPORT = "int __attribute__((weak)) maybe(); API int eb_x(void) { return maybe(); }"
TEXT_RELOCATION = '__asm__(".text\\n.quad eb_one\\n");'
THREAD_LOCAL = "__thread int t = 3; API int *eb_x(void) { return &t; }"
BAD_LIBRARIES = {
    "4 KB pages": (SOURCE, ["-Wl,-z,max-page-size=4096"], "page alignment", "aligned to 4096, 65536 is needed"),
    "16 KB pages": (SOURCE, ["-Wl,-z,max-page-size=16384"], "page alignment", "aligned to 16384"),
    "needs libc": (SOURCE, ["-Wl,--no-as-needed", "-lc"], "needs no library", "NEEDED libc.so.6"),
    "imports": (SOURCE + IMPORT, [], "imports nothing", "undefined: puts"),
    "weak import": (SOURCE + WEAK_IMPORT, [], "imports nothing", "undefined: maybe"),
    "lacks an export": (SOURCE.replace("API int eb_two", "int eb_two"), [], "exports", "eb_two is missing"),
    "exports more": (SOURCE + "API int helper(void) { return 1; }", [], "exports", "helper is not in edgebit.h"),
    "other name": (SOURCE, ["-Wl,-soname,libother.so"], "SONAME", "'libother.so', not 'libedgebit.so'"),
    "text relocation": (SOURCE + TEXT_RELOCATION, ["-Wl,-z,notext"], "no text relocations", "TEXTREL"),
    "writable code": (SOURCE, ["-Wl,-N"], "no writable code", "writable and executable segment"),
    "executable stack": (SOURCE, ["-Wl,-z,execstack"], "stack", "executable"),
    "no RELRO": (SOURCE, ["-Wl,-z,norelro"], "RELRO and NOW", "without RELRO"),
    "lazy": (SOURCE, ["-Wl,-z,lazy"], "RELRO and NOW", "without NOW"),
    "thread-local": (SOURCE + THREAD_LOCAL, [], "no thread-local data", "TLS"),
}


@pytest.mark.parametrize("name", BAD_LIBRARIES)
def test_bad_library_fails_its_check(compile_, host, name):
    """A check that no file can fail checks nothing."""
    source, flags, check, promised = BAD_LIBRARIES[name]

    found = failed(check_library(compile_(source, [*FLAGS, *flags]), host, EXPORTS))

    assert promised in found[check]


ORT_SOURCE = """
#define API __attribute__((visibility("default")))
API void *RegisterCustomOps(void *options, const void *base) { return options ? 0 : (void *)base; }
API unsigned long edgebit_ort_kernels(void) { return 0; }
API const char *edgebit_ort_version(void) { return "0"; }
"""
ORT_EXPORTS = frozenset({"RegisterCustomOps", "edgebit_ort_kernels", "edgebit_ort_version"})
ORT_FLAGS = [*FLAGS, "-Wl,-soname,libedgebit_ort.so"]


@pytest.mark.parametrize(
    ("source", "flags", "found"),
    [
        (ORT_SOURCE, ORT_FLAGS, {}),
        (ORT_SOURCE, FLAGS, {"SONAME": "'libedgebit.so', not 'libedgebit_ort.so'"}),
        (ORT_SOURCE + "API int eb_eval(void) { return 1; }", ORT_FLAGS, {"exports": "eb_eval is not in edgebit_ort.h"}),
        (ORT_SOURCE.replace("Ops", "Op"), ORT_FLAGS, {"exports": "RegisterCustomOps is missing"}),
        (ORT_SOURCE + IMPORT.replace("eb_x", "edgebit_x"), ORT_FLAGS, {"imports nothing": "undefined: puts"}),
    ],
    ids=["sound", "the engine's name", "the engine's functions", "not what the runtime calls", "imports"],
)
def test_operator_library_is_held_to_the_same(compile_, host, source, flags, found):
    """It has its own name and its own functions, and imports nothing of ONNX Runtime or a libc."""
    problems = failed(check_ort_library(compile_(source, flags), host, ORT_EXPORTS))

    assert all(words in problems[check] for check, words in found.items())
    assert bool(problems) is bool(found)


def test_other_architecture_fails(compile_, host):
    """A library of this machine is none for another."""
    other = {"x86_64": "linux-aarch64", "aarch64": "linux-x86_64"}[host.arch]

    found = failed(check_library(compile_(SOURCE, FLAGS), find_target(other), EXPORTS))

    assert host.arch in found["architecture"]


def test_program_instead_of_library_fails(compile_, host):
    """A program is not loaded by dlopen."""
    found = failed(check_library(compile_(PROGRAM, ["-static", "-no-pie"]), host, EXPORTS))

    assert "not a shared library" in found["library type"]


def test_static_program_passes(compile_, host):
    """A static program with large pages has no finding and needs no glibc."""
    checks = check_program(compile_(PROGRAM, ["-static", "-Wl,-z,max-page-size=65536"]), host)

    assert failed(checks) == {}
    assert Check("glibc version", "passed", "needs none") in checks


def test_dynamic_program_fails(compile_, host):
    """It would need the device's libc, of a version that it may not have."""
    data = compile_(PROGRAM, ["-Wl,-z,max-page-size=65536"])

    found = failed(check_program(data, dataclasses.replace(host, glibc_floor="2.2")))

    assert "libc.so.6" in found["static"]
    assert "devices of the target may have 2.2" in found["glibc version"]


def test_glibc_floor_is_a_version_not_a_text(compile_, host):
    """2.4 is older than 2.34, and a program below the floor has no glibc finding."""
    data = compile_(PROGRAM, [])

    for floor, is_refused in (("2.4" if host.arch == "aarch64" else "2.1", True), ("2.99", False), (None, False)):
        found = failed(check_program(data, dataclasses.replace(host, glibc_floor=floor)))
        assert ("glibc version" in found) is is_refused, floor


def test_small_pages_of_a_program_fail(compile_, host):
    """A program must load on the largest pages of its target."""
    data = compile_(PROGRAM, ["-static", "-Wl,-z,max-page-size=4096"])

    assert "page alignment" in failed(check_program(data, dataclasses.replace(host, page_kib=16)))
    assert "page alignment" not in failed(check_program(data, dataclasses.replace(host, page_kib=4)))


@pytest.mark.parametrize(
    ("data", "promised"),
    [
        (b"", "is not an ELF file"),
        (b"MZ" + b"\0" * 100, "is not an ELF file"),
        (b"\x7fELF\x01\x01\x01" + b"\0" * 100, "64-bit little-endian"),
        (b"\x7fELF\x02\x02\x01" + b"\0" * 100, "64-bit little-endian"),
        (b"\x7fELF\x02\x01\x01", "damaged ELF file"),
    ],
    ids=["empty", "Windows", "32-bit", "big-endian", "cut"],
)
def test_what_is_no_elf_is_refused(data, promised):
    """In words that name the file."""
    with pytest.raises(BuildError, match=rf"libx\.so is .*{promised.removeprefix('is ')}"):
        read_elf(data, "libx.so")


def test_damaged_elf_never_ends_in_another_error(compile_):
    """Cut at any length and with bytes changed at random: read, or refused with a BuildError."""
    data = compile_(SOURCE, FLAGS)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    useful = [i for i, byte in enumerate(data) if byte]  # headers and tables, not padding
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            broken[chance.choice(useful)] = chance.randrange(256)
        try:
            read_elf(bytes(broken[: chance.choice([len(broken), chance.randrange(len(broken))])]), "x")
        except BuildError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def test_header_is_read():
    """The exports and the ABI version come from the header itself."""
    header = (
        "#define EB_ABI_VERSION 7\nEB_API const char *eb_a(void);\nEB_API eb_status eb_b(int x,\n int y);\nint c();\n"
    )

    assert header_exports(header) == {"eb_a", "eb_b"}
    assert header_abi_version(header) == 7
    assert {"eb_abi_version", "eb_eval", "eb_probe_check"} <= header_exports(read_header())
    assert {"RegisterCustomOps", "edgebit_ort_kernels", "edgebit_ort_version"} <= header_exports(read_ort_header())


def test_require_names_every_failure():
    """A refusal tells all that is wrong at once and what to do, and passes what did not run."""
    require([Check("a", "passed", ""), Check("b", "not run", "")], "bad:", "Mend it")

    with pytest.raises(BuildError, match=r"(?s)bad:.*b: one.*c: two.*Mend it"):
        require([Check("a", "passed", ""), Check("b", "failed", "one"), Check("c", "failed", "two")], "bad:", "Mend it")


def test_instructions_without_a_disassembler_are_not_run(tmp_path, host):
    """Said, with what to install; never passed."""
    check = check_instructions(tmp_path / "x", host, tools=["no-such-objdump"])

    assert check.status == "not run"
    assert "apt-get install binutils-" in check.detail
