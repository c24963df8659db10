"""The audit of a disassembly: above the baseline only where the name allows it, and there for certain."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.instructions import audit_listing, check_instructions, find_x18
from edgebit.targets import find_target


def listing(**functions: str) -> str:
    """What objdump prints for functions with these instructions."""
    text = "\nlib.so:     file format elf64\n\n\nDisassembly of section .text:\n"
    for i, (name, body) in enumerate(functions.items()):
        text += f"\n{i * 64:016x} <{name}>:\n"
        text += "".join(f" {i * 64 + 4 * j:>7x}:\t{line}\n" for j, line in enumerate(body.split("; ")))
    return text


ARM = {
    "eb_eval": "add\tx0, x1, x2; ret",
    "eb_gemv_t2_i8_neon": "smull\tv0.8h, v1.8b, v2.8b; ret",
    "eb_gemv_t2_i8_neon_dotprod": "sdot\tv0.4s, v1.16b, v2.16b; ret",
    "eb_dot_l2_i15_neon_dotprod": "sdot\tv0.4s, v1.16b, v2.16b; ret",
    "eb_gemm_c8_i8_neon_i8mm": "sdot\tv0.4s, v1.16b, v2.16b; smmla\tv0.4s, v1.16b, v2.16b; ret",
}
X86 = {
    "eb_eval": "addps  %xmm0,%xmm1; ret",
    "eb_gemv_t2_i8_avx2": "vpmaddubsw %ymm0,%ymm1,%ymm2; vzeroupper; ret",
    "eb_unpack_t2_avx2": "vpand  %ymm0,%ymm1,%ymm2; ret",
    "eb_gemv_t2_i8_avxvnni": "vpand  %ymm0,%ymm1,%ymm2; {vex} vpdpbusd %ymm0,%ymm1,%ymm2; ret",
    "eb_gemv_t2_i8_avx512vnni": "vmovdqu (%rdi),%xmm0; kmovw  %eax,%k1; vpdpbusd %zmm0,%zmm1,%zmm2; ret",
}


def test_sound_listings_pass():
    """Each instruction in its place."""
    assert audit_listing(listing(**ARM), "aarch64") == []
    assert audit_listing(listing(**X86), "x86_64") == []


@pytest.mark.parametrize(
    ("function", "body", "promised"),
    [
        ("eb_eval", "sdot\tv0.4s, v1.16b, v2.16b", "sdot in eb_eval, which every CPU runs"),
        ("eb_gemv_t2_i8_neon", "udot\tv0.4s, v1.16b, v2.4b[1]", "udot in eb_gemv_t2_i8_neon"),
        ("eb_eval", "ldadd\tw0, w1, [x2]", "ldadd in eb_eval"),
        ("eb_eval", "ldaddal\tw0, w1, [x2]", "ldaddal"),
        ("eb_eval", "casalb\tw0, w1, [x2]", "casalb"),
        ("eb_eval", "swp\tw0, w1, [x2]", "swp"),
        ("eb_eval", "stadd\tw0, [x2]", "stadd"),
        ("eb_gemv_t2_i8_neon_dotprod", "smmla\tv0.4s, v1.16b, v2.16b", "neon_dotprod, which CPUs without i8mm run"),
        ("eb_gemv_t2_i8_neon_dotprod", "usdot\tv0.4s, v1.16b, v2.16b", "neon_dotprod, which CPUs without i8mm run"),
        ("eb_eval", "ummla\tv0.4s, v1.16b, v2.16b", "ummla in eb_eval, which every CPU runs"),
        ("eb_gemm_c8_i8_neon_i8mm", "ld1b\t{z0.b}, p0/z, [x0]", "ld1b in eb_gemm_c8_i8_neon_i8mm, which no target"),
        ("eb_eval", "ld1b\t{z0.b}, p0/z, [x0]", "ld1b in eb_eval"),
        ("eb_eval", ".inst\t0xdeadbeef ; undefined", ".inst"),
        ("eb_gemv_t2_i8_neon_dotprod", "smull\tv0.8h, v1.8b, v2.8b", "neon_dotprod has no product of its own ISA"),
        ("eb_dot_l2_i15_neon_dotprod", "smull\tv0.8h, v1.8b, v2.8b", "neon_dotprod has no product of its own ISA"),
        ("eb_gemm_c8_i8_neon_i8mm", "sdot\tv0.4s, v1.16b, v2.16b", "neon_i8mm has no product of its own ISA"),
    ],
)
def test_arm_instruction_out_of_place(function, body, promised):
    """A Cortex-A53 would stop there; or the fast variant is not what its name says."""
    problems = audit_listing(listing(**(ARM | {function: body})), "aarch64")

    assert any(promised in problem for problem in problems)


@pytest.mark.parametrize(
    ("function", "body", "promised"),
    [
        ("eb_eval", "vaddps %ymm0,%ymm1,%ymm2", "vaddps in eb_eval, which every CPU runs"),
        ("eb_eval", "vmovd  %xmm0,%eax", "vmovd in eb_eval"),
        ("eb_eval", "vpaddd %zmm0,%zmm1,%zmm2", "vpaddd in eb_eval, which every CPU runs"),
        ("eb_eval", "kmovw  %eax,%k1", "kmovw in eb_eval"),
        ("eb_eval", "(bad)", "(bad) in eb_eval, which no target has"),
        ("eb_gemv_t2_i8_avx512vnni", "vfmadd231ps %zmm0,%zmm1,%zmm2", "vfmadd231ps in eb_gemv_t2_i8_avx512vnni"),
        ("eb_gemv_t2_i8_avx2", "vpaddd %zmm0,%zmm1,%zmm2", "avx2, which CPUs without AVX-512 run"),
        ("eb_gemv_t2_i8_avx2", "vpaddd %ymm0,%ymm1,%ymm2{%k1}", "avx2, which CPUs without AVX-512 run"),
        ("eb_gemv_t2_i8_avx2", "vpaddd %ymm0,%ymm1,%ymm16", "avx2, which CPUs without AVX-512 run"),
        ("eb_gemv_t2_i8_avx2", "vpternlogd $0xca,%ymm0,%ymm1,%ymm2", "avx2, which CPUs without AVX-512 run"),
        ("eb_gemv_t2_i8_avx2", "{vex} vpdpbusd %ymm0,%ymm1,%ymm2", "avx2, which CPUs without AVX-VNNI run"),
        ("eb_gemv_t2_i8_avxvnni", "vpdpbusd %ymm0,%ymm1,%ymm2", "avxvnni, which CPUs without AVX-512 run"),
        ("eb_gemv_t2_i8_avx512vnni", "{vex}\tvpdpbusd %ymm0,%ymm1,%ymm2", "vnni, which CPUs without AVX-VNNI run"),
        ("eb_gemv_t2_i8_avx2", "paddd  %xmm0,%xmm1", "avx2 has no product of its own ISA"),
        ("eb_gemv_t2_i8_avxvnni", "vpmaddubsw %ymm0,%ymm1,%ymm2", "avxvnni has no product of its own ISA"),
        ("eb_gemv_t2_i8_avx512vnni", "vpaddd %zmm0,%zmm1,%zmm2", "avx512vnni has no product of its own ISA"),
    ],
)  # fmt: skip
def test_x86_instruction_out_of_place(function, body, promised):
    """The same for PCs without AVX2, AVX-VNNI or AVX-512."""
    problems = audit_listing(listing(**(X86 | {function: body})), "x86_64")

    assert any(promised in problem for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        "",
        listing(**{".text": "ret; ret"}),
        listing(eb_eval="ret", eb_open="ret"),
        listing(eb_eval="sdot\tv0.4s, v1.16b, v2.16b", eb_open="ret"),
    ],
    ids=["nothing", "stripped of all names", "no micro-kernel", "stripped but for its exports"],
)
def test_what_cannot_be_judged_fails(text):
    """Where what is expected is not seen, nothing is proven, whatever else is."""
    (problem,) = audit_listing(text, "aarch64")
    assert "stripped of its function names, or has no micro-kernels" in problem


@pytest.mark.parametrize("gone", ["eb_gemm_c8_i8_neon_i8mm", "_dotprod"])
def test_an_isa_without_micro_kernels_fails(gone: str):
    """A build that left a variant out would run slowly where it is meant to be fast."""
    (problem,) = audit_listing(listing(**{name: body for name, body in ARM.items() if gone not in name}), "aarch64")

    assert f"no function *_{gone.rpartition('_')[2]}: " in problem


def test_clone_of_a_variant_may_have_its_instructions():
    """gcc splits functions: eb_..._dotprod.part.0 is of the same file."""
    parts = ARM | {"eb_gemv_t2_i8_neon_dotprod.part.0": "sdot\tv0.4s, v1.16b, v2.16b"}

    assert audit_listing(listing(**parts), "aarch64") == []


SOURCE = """
#include <arm_neon.h>
int32x4_t %s(int32x4_t a, int8x16_t b) { return vdotq_s32(a, b, b); }
int32x4_t eb_gemm_c8_i8_neon_i8mm(int32x4_t a, int8x16_t b) { return vmmlaq_s32(a, b, b); }
int32x4_t eb_dot_l2_i15_neon_dotprod(int32x4_t a, int8x16_t b) { return vdotq_s32(a, b, b); }
int eb_other(int x) { return x + 1; }
"""
FLAGS = ["-O2", "-shared", "-fPIC", "-nostdlib", "-march=armv8.2-a+dotprod+i8mm"]


@pytest.mark.parametrize(
    ("function", "status"), [("eb_gemv_t2_i8_neon_dotprod", "passed"), ("eb_gemv_t2_i8_neon", "failed")]
)
def test_real_dot_product_is_seen(tmp_path: Path, require_tool: Callable[[str], str], function: str, status: str):
    """Compiled by the cross gcc, read by objdump."""
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text(SOURCE % function)
    subprocess.run([require_tool("aarch64-linux-gnu-gcc"), source, "-o", library, *FLAGS], check=True)

    check = check_instructions(library, find_target("rpi"))

    assert check.status == status, check.detail


def test_stripped_library_fails(tmp_path: Path, require_tool: Callable[[str], str]):
    """Without names all code looks like one function: that is no proof."""
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text(SOURCE % "eb_gemv_t2_i8_neon_dotprod")
    flags = [*FLAGS, "-s", "-fvisibility=hidden"]
    subprocess.run([require_tool("aarch64-linux-gnu-gcc"), source, "-o", library, *flags], check=True)

    assert check_instructions(library, find_target("rpi")).status == "failed"


def test_a_disassembler_that_cannot_decode_proves_nothing(tmp_path: Path):
    """An old llvm-objdump prints <unknown> for sdot: its listing is not judged."""
    tool = tmp_path / "old-objdump"
    tool.write_text("#!/bin/sh\nprintf '0 <eb_eval>:\\n 0:\\t<unknown>\\n'\n")
    tool.chmod(0o755)

    check = check_instructions(tmp_path / "a.so", find_target("rpi"), tools=[str(tool)])

    assert (check.status, "too old" in check.detail) == ("not run", True)


@pytest.mark.parametrize("body", ["mov\tx18, x0", "ldr\tx1, [x18, #8]", "add\tw2, w3, w18"])
def test_x18_is_found(body):
    """By both of its names, as source and as destination; the function is named once."""
    assert find_x18(listing(**ARM, eb_tokenize=f"{body}; {body}; ret")) == [
        "x18 in eb_tokenize: on Android it belongs to the system"
    ]
    assert find_x18(listing(**ARM, eb_tokenize="ldr\tx1, [x2, #0x18]; b\t40 <eb_eval+0x18>; mov\tx1, v18.d[0]")) == []


@pytest.mark.parametrize(("target", "status"), [("android", "failed"), ("rpi", "passed")])
def test_only_android_keeps_x18(tmp_path: Path, target: str, status: str):
    """The same library may not be used there, and may everywhere else."""
    tool = tmp_path / "objdump"
    text = listing(**ARM, eb_tokenize="mov\tx18, x0; ret")
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    tool.chmod(0o755)

    check = check_instructions(tmp_path / "x.so", find_target(target), tools=[str(tool)])

    assert check.status == status
