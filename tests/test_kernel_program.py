"""The native library as a program: every micro-kernel of this machine computes, and whatever is wrong is told."""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from edgebit.elf import PT_LOAD, function_addresses, read_elf
from edgebit.errors import BuildError
from edgebit.kernel_program import KERNEL, kernel_program
from edgebit.probe_runs import LEVELS
from edgebit.resources import native_library
from edgebit.targets import host_target

RETURN_ZERO = {"x86_64": b"\x31\xc0\xc3", "aarch64": struct.pack("<2I", 0x52800000, 0xD65F03C0)}
ARCH = host_target().arch


@pytest.fixture
def library(native) -> bytes:
    """The library of this machine."""
    return native_library().read_bytes()


def start(folder: Path, program: bytes) -> int:
    """Its exit code."""
    path = folder / "program"
    path.write_bytes(program)
    path.chmod(0o700)
    return subprocess.run([path], capture_output=True, check=False, timeout=60).returncode


def changed(library: bytes, isa: str, code: bytes) -> bytes:
    """The library with other code in its micro-kernel."""
    address = function_addresses(library, "x")[KERNEL + isa]
    (load,) = (
        load
        for load in read_elf(library, "x").segments_of(PT_LOAD)
        if load.vaddr <= address < load.vaddr + load.file_size
    )
    offset = load.offset + address - load.vaddr
    return library[:offset] + code + library[offset + len(code) :]


def isas_of(levels: list[str]) -> list[str]:
    """The ISAs of the micro-kernels of these levels."""
    return [f"neon_{level}" if level in ("dotprod", "i8mm") else level for level in levels]


def test_each_micro_kernel_of_this_cpu_gives_the_known_sum(isa_levels, library, tmp_path):
    """The code that ships, started without a loader."""
    for isa in isas_of(isa_levels):
        assert start(tmp_path, kernel_program(library, isa)) == 0, isa


def test_a_wrong_sum_is_told(library, tmp_path):
    """A micro-kernel that gives 0 ends the program with 1: it is not enough that it ran."""
    broken = changed(library, "scalar", RETURN_ZERO[ARCH])

    assert start(tmp_path, kernel_program(broken, "scalar")) == 1


def test_a_library_without_function_names_is_refused(library, tmp_path, require_tool):
    """Nothing could be called."""
    (tmp_path / "full.so").write_bytes(library)
    subprocess.run([require_tool("strip"), "-o", tmp_path / "bare.so", tmp_path / "full.so"], check=True)

    with pytest.raises(BuildError, match="stripped of its function names"):
        kernel_program((tmp_path / "bare.so").read_bytes(), "scalar")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(60)], ids=["empty", "cut", "hollow"])
def test_what_is_no_library_is_refused(data):
    """In words."""
    with pytest.raises(BuildError):
        kernel_program(data, "scalar")


def test_damaged_library_never_ends_in_another_error(library):
    """Bytes of its headers and tables changed at random: a program, or a BuildError."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    sections = struct.unpack_from("<Q", library, 40)[0]
    places = [*range(16, 700), *range(sections, len(library))]
    for _ in range(150):
        broken = bytearray(library)
        for _ in range(chance.randint(1, 4)):
            broken[chance.choice(places)] = chance.randrange(256)
        try:
            kernel_program(bytes(broken), "scalar")
        except BuildError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def test_levels_are_those_of_the_library(native):
    """The list that runs are planned by, and the library's own."""
    assert list(LEVELS[ARCH]) == native.isa_names
