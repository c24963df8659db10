"""Real cross builds: every check holds, the bytes repeat, and all CPUs and compilers compute the same bits."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.build import check_native
from edgebit.bundle.archive import open_bundle
from edgebit.checks import Check
from edgebit.cli import cli
from edgebit.cross.native import PRODUCTS, NativeFiles, build_native, plan
from edgebit.cross.ort_library import check_ort_file, require_ort_library
from edgebit.cross.toolchain import choose_toolchain, find_tool
from edgebit.elf import PT_LOAD, function_addresses, read_elf
from edgebit.probe_runs import check_model_probes, check_must_crash, check_refusal
from edgebit.resources import assistant_model_dir, cross_dir, kernels_dir
from edgebit.targets import find_target

# zig compiles its own libc on first use on a machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

BUILDERS = ["zig", "system"]
TARGETS = ["rpi", "linux-aarch64", "linux-x86_64"]
IDS = "1,5,9,42,7,3,11"


def levels_of(checks: list[Check]) -> set[str]:
    """The ISA levels that probes were computed at: "3 golden probes hold (neon)"."""
    return {check.detail.rpartition("(")[2].rstrip(")") for check in checks}


@pytest.fixture(scope="session")
def built(require_tool: Callable[[str], str]) -> Callable[[str, str], NativeFiles]:
    """Native files for a target by a builder, made once in the user's cache."""

    def build(target: str, builder: str) -> NativeFiles:
        if builder == "system":
            require_tool({"aarch64": "aarch64-linux-gnu-gcc", "x86_64": "gcc"}[find_target(target).arch])
        return build_native(find_target(target), builder)

    return build


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("target", TARGETS)
def test_built_files_pass_every_check(built, require_tool, target, builder):
    """Nothing fails, and the instructions were judged."""
    require_tool("aarch64-linux-gnu-objdump")
    native = built(target, builder)
    checks = check_native(native, find_target(target))
    checks += check_ort_file(require_ort_library(native), find_target(target))

    assert [check for check in checks if check.status != "passed"] == []


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("target", TARGETS)
def test_golden_probes_hold(built, require_tool, reference_model, target, builder):
    """At each ISA level, emulated where the target is not this machine's kind."""
    require_tool("qemu-aarch64-static")
    runner = built(target, builder).runner

    model = reference_model("bitnet-packed")

    checks = check_model_probes(runner, model, model.stat().st_size, find_target(target), every_level=True)

    unlike_this_cpu = [check for check in checks if check.detail.startswith("this CPU has no")]
    assert [check for check in checks if check.status != "passed"] == unlike_this_cpu
    assert {"scalar", "neon", "dotprod", "i8mm"} <= levels_of(checks) or find_target(target).arch == "x86_64"


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("target", [*TARGETS, "android"])
def test_shipped_assistant_is_small(built, tmp_path, target, builder):
    """All that a device needs of it, in 4 MB; with what is compiled here."""
    built(target, builder)
    out = tmp_path / "assistant.bundle"
    options = ["--target", target, "--builder", builder, "--out", str(out)]
    done = CliRunner().invoke(cli, ["build", str(assistant_model_dir()), *options])

    assert done.exit_code == 0, done.output
    assert "bin/edgebit-run" in open_bundle(out).members
    assert out.stat().st_size <= 4_000_000


def test_all_builds_give_the_same_logits(built, require_tool, reference_model, tmp_path):
    """Both compilers, both architectures, each ISA level, 1 to 3 threads and 16 KB pages: the same bytes."""
    qemu = require_tool("qemu-aarch64-static")
    model = reference_model("bitnet-packed-odd-untied")
    runs: dict[str, list[str]] = {}
    for builder in BUILDERS:
        arm, pc = str(built("rpi", builder).runner), str(built("linux-x86_64", builder).runner)
        for cpu in ("cortex-a53", "cortex-a76", "max"):
            runs[f"{builder} {cpu}"] = [qemu, "-cpu", cpu, arm]
        runs[f"{builder} 16 KB pages"] = [qemu, "-cpu", "cortex-a76", "-p", "16384", arm]
        for isa in ("scalar", "avx2"):
            runs[f"{builder} {isa}"] = ["env", f"EDGEBIT_ISA={isa}", pc]
    results = {}
    for number, (name, argv) in enumerate(runs.items()):
        out = tmp_path / f"{number}.f32"
        options = ["--ids", IDS, "-n", "0", "--threads", str(1 + number % 3), "--logits-out", str(out)]
        subprocess.run([*argv, str(model), *options], check=True, capture_output=True)
        results[name] = out.read_bytes()

    assert len(next(iter(results.values()))) > 0
    assert len(set(results.values())) == 1, {name: hash(data) for name, data in results.items()}


@pytest.mark.parametrize("builder", BUILDERS)
def test_same_bytes_from_two_folders(require_tool, tmp_path, builder):
    """Nothing of the place or the time of a build is in its files."""
    if builder == "system":
        require_tool("aarch64-linux-gnu-gcc")
    target = find_target("rpi")
    toolchain = choose_toolchain(target, builder)
    products = []
    for name in ("one", "another/deeper"):
        place = tmp_path / name
        shutil.copytree(kernels_dir(), place / "sources")
        shutil.copytree(cross_dir(), place / "cross")
        planned = plan(
            target, toolchain, place / "build", kernels=place / "sources", cross=place / "cross",
            cmake=str(find_tool("cmake")), ninja=str(find_tool("ninja")),
        )  # fmt: skip
        for command in planned.commands:
            subprocess.run(command, env=dict(planned.env), check=True, capture_output=True)
        products.append({file: (place / "build" / file).read_bytes() for file in PRODUCTS})
        assert not any(str(tmp_path).encode() in data for data in products[-1].values())

    for file in products[0]:
        assert products[0][file] == products[1][file], file


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_level_that_a_cpu_lacks_is_refused_and_its_instructions_crash(built, require_tool, builder):
    """In words where it is asked for; by SIGILL where a program is made that forces it."""
    require_tool("qemu-aarch64-static")
    files, target = built("rpi", builder), find_target("rpi")

    refused = check_refusal(files.runner, target)
    crashed = check_must_crash(files.library.read_bytes(), target)

    assert (refused.status, "i8mm was asked for" in refused.detail) == ("passed", True)
    assert [(check.name, check.status) for check in crashed] == [
        ("dotprod must crash on cortex-a72 (qemu)", "passed"),
        ("i8mm must crash on cortex-a76 (qemu)", "passed"),
    ]


def test_micro_kernels_without_their_instructions_do_not_pass(built, require_tool):
    """Where a dotprod micro-kernel were plain code, nothing would crash; and where it were nothing, no sum be right."""
    require_tool("qemu-aarch64-static")
    library = built("rpi", "system").library.read_bytes()
    addresses, name = function_addresses(library, "x"), "eb_peak_i8_neon"
    swapped = library.replace(f"{name}_dotprod\0".encode(), b"x" * len(f"{name}_dotprod") + b"\0")
    swapped = swapped.replace(f"{name}_i8mm\0".encode(), b"x" * len(f"{name}_i8mm") + b"\0")

    (missing, _) = check_must_crash(swapped, find_target("rpi"))
    assert missing.status == "failed" and "has no function" in missing.detail

    branch = 0x14000000 | (addresses[name] - addresses[f"{name}_dotprod"]) // 4 & 0x3FFFFFF  # b eb_peak_i8_neon
    at = addresses[f"{name}_dotprod"]
    (load,) = (x for x in read_elf(library, "x").segments_of(PT_LOAD) if x.vaddr <= at < x.vaddr + x.file_size)
    offset = load.offset + at - load.vaddr
    plain = library[:offset] + branch.to_bytes(4, "little") + library[offset + 4 :]
    (went_on, _) = check_must_crash(plain, find_target("rpi"))
    assert went_on.status == "failed" and "it went on, on cortex-a72" in went_on.detail


def test_wrong_model_fails_its_probes(built, require_tool, reference_model, tmp_path):
    """A weight that was changed after the probes were made is found on any CPU."""
    require_tool("qemu-aarch64-static")
    data = bytearray(reference_model("bitnet-packed").read_bytes())
    data[-len(data) // 3] ^= 0b01
    damaged = Path(tmp_path / "damaged.ebm")
    damaged.write_bytes(data)

    target = find_target("rpi")
    checks = check_model_probes(built("rpi", "system").runner, damaged, damaged.stat().st_size, target)

    assert {check.status for check in checks} == {"failed"}
