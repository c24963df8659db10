"""bench/ukernels.py: from disassembly and counts to loops, from llvm-mca's report to cycles; and one run of it all."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load(path: Path) -> Any:
    """A program of the checkout that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


ukernels = _load(ROOT / "bench" / "ukernels.py")

# An outer loop (0x1000 to 0x1018) around an inner one (0x1004 to 0x1010), and a call.
AARCH64 = """
0000000000001000 <kernel>:
    1000:      \tmov\tx2, #0x0                // =0
    1004:      \tldr\tq0, [x1], #0x10
    1008:      \tb.eq\t0x1010 <kernel+0x10>
    100c:      \tsdot\tv1.4s, v0.16b, v2.16b
    1010:      \tcbnz\tx3, 0x1004 <kernel+0x4>
    1014:      \tbl\t0x2000 <other>
    1018:      \tb.ne\t0x1000 <kernel>
    101c:      \tret
0000000000002000 <other>:
    2000:      \tb\t0x2000 <other>
"""
ROUNDS = {0x1000: 4, 0x1004: 40, 0x1008: 40, 0x100C: 30, 0x1010: 40, 0x1014: 4, 0x1018: 4, 0x101C: 1}


def test_a_disassembly_gives_instructions_functions_and_jumps():
    """Comments go, jumps know their target, calls and returns have none; x86 is read as well."""
    found = ukernels.read_disassembly(AARCH64.splitlines())
    x86 = "0000000000401000 <f>:\n  401000:      \tvmovdqu\t(%rsi), %ymm0\n  401004: \tjne\t0x401000 <f>\n"

    assert [(one.address, one.target) for one in found if one.target] == [
        (0x1008, 0x1010), (0x1010, 0x1004), (0x1018, 0x1000), (0x2000, 0x2000),
    ]  # fmt: skip
    assert found[0].text == "mov x2, #0x0"
    assert {one.function for one in found} == {"kernel", "other"}
    assert [one.target for one in ukernels.read_disassembly(x86.splitlines())] == [None, 0x401000]


def test_counts_of_an_address_that_stands_twice_are_added_up():
    """An emulator translates a block again when it has forgotten it."""
    assert ukernels.read_counts(["1000 3", "1004 1", "1000 4"]) == Counter({0x1000: 7, 0x1004: 1})


def test_each_loop_stands_without_those_inside_it():
    """The inner loop first, as it executes most; a loop that is never entered is none."""
    inner, outer = ukernels.hot_loops(ukernels.read_disassembly(AARCH64.splitlines()), Counter(ROUNDS))

    assert [one.address for one in inner.instructions] == [0x1004, 0x1008, 0x100C, 0x1010]
    assert (inner.rounds, inner.executed) == (40, 150)
    assert [one.address for one in outer.instructions] == [0x1000, 0x1014, 0x1018]
    assert (outer.rounds, outer.executed) == (4, 12)


def test_what_runs_in_few_rounds_is_no_part_of_a_loop():
    """A branch that is nearly always taken leaves out what it jumps over."""
    counts = Counter(ROUNDS | {0x100C: 5})

    inner = ukernels.hot_loops(ukernels.read_disassembly(AARCH64.splitlines()), counts)[0]

    assert 0x100C not in [one.address for one in inner.instructions]


def test_jumps_of_a_loop_go_to_one_label():
    """An address is no operand that an assembler takes."""
    inner = ukernels.hot_loops(ukernels.read_disassembly(AARCH64.splitlines()), Counter(ROUNDS))[0]

    assert ukernels.assembly_of(inner).splitlines() == [
        ".Lround:", "ldr q0, [x1], #0x10", "b.eq .Lround", "sdot v1.4s, v0.16b, v2.16b", "cbnz x3, .Lround",
    ]  # fmt: skip


def report(cycles: int, pressure: list[float], units: str = "N1Unit") -> dict[str, Any]:
    """What llvm-mca says of ten rounds of a loop of four instructions and six micro-operations."""
    uses = [{"InstructionIndex": 4, "ResourceIndex": at, "ResourceUsage": use} for at, use in enumerate(pressure)]
    summary = {"Instructions": 40, "Iterations": 10, "TotalCycles": cycles, "TotaluOps": 60, "DispatchWidth": 8}
    return {
        "CodeRegions": [{"ResourcePressureView": {"ResourcePressureInfo": uses}, "SummaryView": summary}],
        "TargetInfo": {"Resources": [f"{units}L.\0", f"{units}L.\1", f"{units}V0", f"{units}V1"]},
    }


A76 = next(core for core in ukernels.CORES if core.name == "A76")


@pytest.mark.parametrize(
    ("cycles", "pressure", "expected"),
    [
        (20, [0.5, 0.5, 1.9, 2.0], (2.0, "V1 V0")),
        (40, [3.0, 0.5, 1, 1], (4.0, "waits; L 75%")),
        (8, [0.5, 0.5, 0.8, 0.8], (1.0, "decode")),
    ],
    ids=["two full units", "nothing is full", "more than the core decodes"],
)
def test_the_model_names_what_bounds_a_loop(cycles: int, pressure: list[float], expected: tuple[float, str]):
    """Full units, most pressed first; the width of decoding, which the N1 model does not bound; or waiting."""
    found = ukernels.read_model(report(cycles, pressure), A76)

    assert (found.cycles, found.bottleneck) == expected


def test_a_model_of_another_core_is_refused():
    """An older llvm-mca takes the A57's model for -mcpu=neoverse-n1 and says nothing."""
    with pytest.raises(ukernels.Missing, match=r"no model with N1Unit\* for -mcpu=neoverse-n1"):
        ukernels.read_model(report(20, [1, 1, 1, 1], units="A57Unit"), A76)


def test_what_could_not_be_had_is_a_dash_and_a_reason():
    """A table without any tool still has its row."""
    row = ukernels.Figures(kernel="eb_gemv_t2_i8_neon", op="gemv_t2_i8", arch="aarch64", tokens=1)

    text = ukernels.markdown([row], ["llvm-mca is not here"])

    assert "| `gemv_t2_i8_neon` | - | - |\n" in text
    assert "- Not here: llvm-mca is not here." in text


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch):
    """No traceback about a file that does not exist."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ukernels.Missing, match="qemu-user"):
        ukernels.Build("riscv64", Path("ukernels")).emulator()
    with pytest.raises(ukernels.Missing, match="llvm-mca is not here"):
        ukernels.llvm_tool("llvm-mca")


@pytest.mark.slow
def test_one_command_gives_all_figures_of_a_kernel(require_tool: Callable[[str], str]):
    """The scalar kernel, which both architectures have: sane figures in each column."""
    for name in ("cmake", "cc", "aarch64-linux-gnu-gcc", "qemu-aarch64", "llvm-mca-19"):
        require_tool(name)

    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/ukernels.py"), "--only", "gemv_t2_i8_scalar", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["notes"] == []
    rows = {row["arch"]: row for row in printed["kernels"]}
    for row in rows.values():
        assert 0.1 < row["instructions_a_weight"] < 50
        assert 0.9 < row["loop_share"] <= 1
    assert set(rows["aarch64"]["cycles_a_weight"]) == {"A53", "A72", "A76"}
    for name, cycles in rows["aarch64"]["cycles_a_weight"].items():
        decode = next(core.decode for core in ukernels.CORES if core.name == name)
        assert cycles >= 0.95 * rows["aarch64"]["loop_share"] * rows["aarch64"]["instructions_a_weight"] / decode
    host = rows[ukernels.host_arch()]
    assert host["gb_s_warm"] > 0
    assert host["gb_s_cold"] > 0


@pytest.mark.slow
def test_the_counts_are_those_of_callgrind(require_tool: Callable[[str], str]):
    """Single-stepping counts each instruction of a kernel as often as valgrind, where that knows the ISA."""
    for name in ("cmake", "cc", "valgrind", "llvm-objdump"):
        require_tool(name)
    made = ukernels.build(ukernels.host_arch(), "gcc")
    kernel = next(one for one in made.kernels() if one.name == "eb_gemv_t2_i8_scalar")
    counts = made.counts(kernel)

    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect={kernel.name}",
         str(made.program), "run", kernel.name, "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    collected = next(line.split()[-1] for line in done.stderr.splitlines() if "Collected" in line)
    ours = sum(counts[one.address] for one in made.instructions() if one.function == kernel.name)
    assert ours == int(collected)
