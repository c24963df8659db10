"""A native library as a program: its own bytes, with a start address that calls one micro-kernel and ends.

The library has no door by which it could be told to use instructions that a CPU lacks, and shall have none. To see
what such a CPU does with them, `edgebit verify` adds 192 bytes behind a copy of the library: machine code that calls
the micro-kernel, and operands for it. No compiler is needed, and what runs is the code that is shipped. Linux starts a
shared object like a program, and since nothing is imported, no loader is needed either.
"""

import struct

from edgebit.elf import ET_DYN, MACHINES, PF_X, PT_GNU_STACK, PT_LOAD, function_addresses, read_elf
from edgebit.errors import BuildError

KERNEL = "eb_peak_i8_"  # peak_i8 of each ISA (ukernel.h): products on registers alone, and a sum that is known

_PF_R = 4
_PAGE = 65536
_REACH = 1 << 27  # bytes that a call instruction bridges, on both architectures
_CODE = 64  # bytes of code and constants, before the operands
_A = bytes(i % 3 for i in range(64))  # ternary codes
_B = tuple((37 * i) % 256 - 128 for i in range(64))  # int8
_SUM = 16 * sum(a * b for a, b in zip(_A, _B, strict=True)) & 0xFFFFFFFF  # for one round


def kernel_program(library: bytes, isa: str) -> bytes:
    """The program that runs peak_i8_<isa> of `library` once: it ends with 0 if its sum is right, and with 1 if not.

    Raises BuildError where the library lacks the function, its name, or room for one more segment.
    """
    where = "the library"
    file = read_elf(library, where)
    address = function_addresses(library, where).get(KERNEL + isa)
    if address is None:
        raise BuildError(f"{where} has no function {KERNEL}{isa}, or was stripped of its function names")
    loads = file.segments_of(PT_LOAD)
    spare = [i for i, segment in enumerate(file.segments) if segment.kind == PT_GNU_STACK]
    call = {MACHINES["aarch64"]: _call_aarch64, MACHINES["x86_64"]: _call_x86_64}.get(file.machine)
    if file.type != ET_DYN or not loads or not spare or call is None:
        raise BuildError(f"{where} is no shared library of ours with a GNU_STACK segment")
    start = _round_up(max(load.vaddr + load.memory_size for load in loads))
    if max(start, address) >= _REACH:
        raise BuildError(f"{where} lies at addresses up to {max(start, address):#x}")
    offset = _round_up(len(library))
    added = call(start, address).ljust(_CODE, b"\0") + _A + struct.pack("<64b", *_B)

    program = bytearray(library.ljust(offset, b"\0") + added)
    headers = struct.unpack_from("<Q", library, 32)[0]
    segment = (PT_LOAD, _PF_R | PF_X, offset, start, start, len(added), len(added), _PAGE)
    struct.pack_into("<IIQQQQQQ", program, headers + 56 * spare[0], *segment)
    struct.pack_into("<Q", program, 24, start)
    return bytes(program)


def _round_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


# Code for the address `start`: exit(function(a, b, 1) != sum), where a and b lie _CODE bytes further on.


def _call_aarch64(start: int, function: int) -> bytes:
    branch = (function - (start + 12)) // 4
    literal = 36
    words = (
        0x10000000 | _CODE // 4 << 5,  # adr x0, a
        0x10000001 | (_CODE + 64 - 4) // 4 << 5,  # adr x1, b
        0xD2800022,  # mov x2, #1
        0x94000000 | branch & 0x3FFFFFF,  # bl function
        0x18000001 | (literal - 16) // 4 << 5,  # ldr w1, sum
        0x6B01001F,  # cmp w0, w1
        0x1A9F07E0,  # cset w0, ne
        0xD2800BC8,  # mov x8, #94: exit_group
        0xD4000001,  # svc #0
        _SUM,
    )
    return struct.pack("<10I", *words)


def _call_x86_64(start: int, function: int) -> bytes:
    return b"".join(
        (
            b"\x48\x8d\x3d" + struct.pack("<i", _CODE - 7),  # lea rdi, [rip + a]
            b"\x48\x8d\x35" + struct.pack("<i", _CODE + 64 - 14),  # lea rsi, [rip + b]
            b"\xba\x01\0\0\0",  # mov edx, 1
            b"\xe8" + struct.pack("<i", function - (start + 24)),  # call function
            b"\x3d" + struct.pack("<I", _SUM),  # cmp eax, sum
            b"\x0f\x95\xc0",  # setne al
            b"\x0f\xb6\xf8",  # movzx edi, al
            b"\xb8\xe7\0\0\0\x0f\x05",  # mov eax, 231: exit_group; syscall
        )
    )
