"""The operators and whole decoders on the real ONNX Runtime for AArch64, emulated: the same numbers as on this machine.

One C program (ort_host/ort_host.c) runs both sides, so nothing differs but the machine. What is float, and ONNX
Runtime's own, is computed in another order there: logits differ in the last places, until a value falls on the other
side of a half and an activation's int8 step flips. So rows of logits are compared one by one, and the flipped counted.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgebit.cross.ort_library import build_ort_library
from edgebit.resources import ort_library
from edgebit.targets import find_target

onnx = pytest.importorskip("onnx", reason="makes the models (pip install 'edgebit[onnx]')")
onnxruntime = pytest.importorskip("onnxruntime", reason="is this machine's side (pip install 'edgebit[onnx]')")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
SOURCES = Path(__file__).parent / "ort_host"
SYSROOT = Path("/usr/aarch64-linux-gnu")
FLOOR, NEWEST = "1.19.2", onnxruntime.__version__
CPUS = {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "dotprod", "max": "i8mm"}
PROMPT, N_MORE = [1, 5, 9, 42, 7, 3, 11], 16
N_ROWS = len(PROMPT) + N_MORE
LAST_PLACES = 5e-6  # logits are up to 18, whose last place is worth 2e-6
FLIP = 0.5  # what a flipped step may change in a logit
CPUINFO = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


@dataclass(frozen=True)
class Ran:
    """What ort_host said, and the floats that it wrote."""

    version: str
    kernels: int
    isa: str
    tokens: list[int]
    floats: np.ndarray


@dataclass(frozen=True)
class Side:
    """A machine that ort_host runs on."""

    command: list[str]
    library: Path  # libedgebit_ort.so
    runtimes: dict[str, Path]  # release -> libonnxruntime.so
    out: Path

    def run(self, model: Path, *words: object, release: str = NEWEST, operators: bool = True) -> Ran:
        arguments = [self.runtimes[release], model, self.library if operators else "none", self.out, *words]
        done = subprocess.run(
            [*self.command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
        version, binding, *tokens = done.stdout.splitlines()
        kernels, isa = binding.split()
        return Ran(version, int(kernels), isa, [int(x) for x in " ".join(tokens).split()], np.fromfile(self.out, "<f4"))


def compile_c(compiler: str, source: str, out: Path, *flags: str) -> Path:
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", *flags, str(SOURCES / source), "-o", str(out), "-ldl"]
    subprocess.run(command, check=True)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx-aarch64")


@pytest.fixture(scope="module")
def here(native, require_tool, folder: Path) -> Side:
    """This machine, with the installed ONNX Runtime."""
    program = compile_c(require_tool("gcc"), "ort_host.c", folder / "here")
    (runtime,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return Side([str(program)], ort_library(), {NEWEST: runtime}, folder / "here.out")


@pytest.fixture(scope="module")
def there(require_tool, skip, pypi_wheel, folder: Path) -> Callable[..., Side]:
    """Gives an emulated CPU: the library by a builder, the oldest and the newest runtime from their wheels."""
    gcc, qemu = require_tool("aarch64-linux-gnu-gcc"), require_tool("qemu-aarch64-static")
    if not (SYSROOT / "lib" / "libstdc++.so.6").exists():
        skip("no C++ library for AArch64 on this machine: apt-get install libstdc++6-arm64-cross")
    runtimes = {}
    for release in (FLOOR, NEWEST):
        wheel = pypi_wheel(
            f"onnxruntime=={release}", "--only-binary=:all:", "--python-version=3.12",
            *(f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (17, 27, 28)),
        )  # fmt: skip
        with zipfile.ZipFile(wheel) as archive:
            member = f"onnxruntime/capi/libonnxruntime.so.{release}"
            runtimes[release] = Path(archive.extract(member, folder / release))
    program = compile_c(gcc, "ort_host.c", folder / "there")
    shim = compile_c(gcc, "arm_cpuinfo.c", folder / "arm_cpuinfo.so", "-shared", "-fPIC")
    cpuinfo = folder / "cpuinfo"
    cpuinfo.write_text("\n".join(CPUINFO.format(number) for number in range(2)))

    def side(cpu: str, builder: str = "system") -> Side:
        library = build_ort_library(find_target("rpi"), builder)
        emulator = [qemu, "-L", str(SYSROOT), "-cpu", cpu, "-E", f"LD_PRELOAD={shim}", "-E", f"ARM_CPUINFO={cpuinfo}"]
        return Side([*emulator, str(program)], library, runtimes, folder / f"{cpu}.out")

    return side


# ---- the operators ----


def ternary_node(name: str, source: str, shape: tuple[int, int], bits: int, chance: np.random.Generator) -> tuple:
    """A TernaryMatMul of random weights, [n, k], in layout n2, with its initializers."""
    n, k = shape
    codes = chance.integers(1, 4, (n, k)).astype(np.uint8)
    fields = codes.reshape(n // 4, 4, k // 64, 16, 4).transpose(0, 2, 1, 3, 4)
    packed = fields[..., 0] | fields[..., 1] << 2 | fields[..., 2] << 4 | fields[..., 3] << 6
    scales = (chance.random(n, dtype=np.float32) + 0.5) / 100
    weights = [
        onnx.numpy_helper.from_array(packed[None], f"{name}.B"),
        onnx.numpy_helper.from_array(scales, f"{name}.S"),
    ]
    node = onnx.helper.make_node(
        "TernaryMatMul", [source, f"{name}.B", f"{name}.S"], [name], domain="ai.edgebit", K=k, N=n, activation_bits=bits
    )
    return node, weights


@pytest.fixture(scope="module")
def operators(folder: Path) -> tuple[Path, Path]:
    """A model of each operator, one behind the other, and floats for it: five tokens of 640."""
    chance = np.random.default_rng(7)
    k, n, vocabulary = 640, 192, 77
    first, first_weights = ternary_node("a", "x", (n, k), 8, chance)
    second, second_weights = ternary_node("b", "a", (n, n), 15, chance)
    head = [
        onnx.numpy_helper.from_array(chance.integers(0, 256, (vocabulary, n)).astype(np.uint8), "y.B"),
        onnx.numpy_helper.from_array(chance.random(vocabulary, dtype=np.float32) / 100, "y.S"),
    ]
    third = onnx.helper.make_node(
        "Int8MatMul", ["b", "y.B", "y.S"], ["y"], domain="ai.edgebit", K=n, N=vocabulary
    )  # fmt: skip
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["t", width])
        for name, width in (("x", k), ("y", vocabulary))
    ]
    graph = onnx.helper.make_graph(
        [first, second, third], "operators", values[:1], values[1:], [*first_weights, *second_weights, *head]
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.edgebit", 1)]
    model, floats = folder / "operators.onnx", folder / "x.f32"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), model)
    chance.standard_normal((5, k)).astype("<f4").tofile(floats)
    return model, floats


@pytest.mark.parametrize(("release", "builder"), [(FLOOR, "system"), (NEWEST, "system"), (NEWEST, "zig")])
def test_operators_give_the_same_bits(here, there, operators, release, builder):
    """On each core, with its own micro-kernels, in the oldest and the newest runtime, by either compiler."""
    model, floats = operators
    right = here.run(model, "floats", floats, 5)

    for cpu, isa in CPUS.items():
        got = there(cpu, builder).run(model, "floats", floats, 5, release=release)
        assert (got.version, got.kernels, got.isa) == (release, 3, isa)
        assert got.floats.tobytes() == right.floats.tobytes(), cpu
    assert right.floats.size == 5 * 77 and np.abs(right.floats).max() > 0


# ---- whole decoders ----


@pytest.fixture(scope="module")
def exported(folder: Path) -> Callable[[str], Path]:
    """Gives the graph of a reference model, exported for rpi: logits of all tokens, and the exact body in it."""

    def export(name: str, *form: str) -> Path:
        form = form or ("--fallback", "exact")
        out = folder / " ".join((name, *form))
        if not out.exists():
            command = [sys.executable, "-m", "edgebit", "export", "onnx", str(REFERENCE / name)]
            options = [*form, "--logits", "all", "--target", "rpi", "--builder", "system"]
            done = subprocess.run([*command, *options, "--out", str(out)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return out / "model.onnx"

    return export


def flipped_rows(got: Ran, right: Ran) -> dict[int, float]:
    """Rows of logits that are not equal to the last places, with their largest difference."""
    error = np.abs(got.floats - right.floats).reshape(N_ROWS, -1).max(axis=1)
    return {row: float(error[row]) for row in np.flatnonzero(error > LAST_PLACES).tolist()}


def answers_alike(got: Ran, right: Ran, name: str) -> bool:
    """The same tokens by the operators; at least a third of the rows equal to the last places, and none far off."""
    flipped = flipped_rows(got, right)
    print(f"{name}: {len(flipped)} rows flipped", {row: f"{error:.0e}" for row, error in flipped.items()})
    assert got.kernels == right.kernels > 0
    return got.tokens == right.tokens and 3 * len(flipped) <= 2 * N_ROWS and max(flipped.values(), default=0) < FLIP


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REFERENCE.glob("*/config.json")))
def test_decoder_answers_as_here(here, there, exported, name):
    """Each kind of model, on a core with all features; pytest -rP shows which rows flipped."""
    model, words = exported(name), ("greedy", N_MORE, *PROMPT)

    assert answers_alike(there("max").run(model, *words), here.run(model, *words), name)


@pytest.mark.parametrize("form", [("--fallback", "exact"), ("--ops", "standard")], ids=["contrib", "standard"])
def test_decoder_answers_alike_on_each_core(here, there, exported, form):
    """With the attention and norms of ONNX Runtime, and with those of opset 24."""
    model, words = exported("bitnet-packed", *form), ("greedy", N_MORE, *PROMPT)
    right = here.run(model, *words)

    assert all(answers_alike(there(cpu).run(model, *words), right, cpu) for cpu in CPUS)


def test_oldest_runtime_answers_as_here(here, there, exported):
    """Release 1.19 as a Raspberry Pi 4. What flips stays in the KV cache: logits of the prompt alone are compared."""
    model, words = exported("bitnet-packed"), ("greedy", N_MORE, *PROMPT)
    right, got = here.run(model, *words), there("cortex-a72").run(model, *words, release=FLOOR)

    assert (got.version, got.kernels, got.tokens) == (FLOOR, right.kernels, right.tokens)
    assert all(row >= len(PROMPT) for row in flipped_rows(got, right)), flipped_rows(got, right)


def test_exact_body_gives_the_operators_bits(there, exported):
    """Without the library plain operators compute the same numbers, on AArch64 too."""
    model, words = exported("bitnet-packed"), ("greedy", N_MORE, *PROMPT)

    for cpu in ("cortex-a53", "max"):
        fast, plain = there(cpu).run(model, *words), there(cpu).run(model, *words, operators=False)
        assert (fast.kernels > 0, plain.kernels) == (True, 0)
        assert fast.floats.tobytes() == plain.floats.tobytes(), cpu


def test_cpp_example_answers_on_aarch64(here, there, exported, require_tool, folder):
    """Cross-compiled, with the folder as it was exported: the library in it is the emulated machine's."""
    side, model = there("cortex-a76"), exported("bitnet-packed")
    program = folder / "generate"
    sources = sorted((ROOT / "examples" / "cpp").glob("*.cpp"))
    compiler = [require_tool("aarch64-linux-gnu-g++"), "-std=c++17", "-O1", *map(str, sources), "-ldl"]
    subprocess.run([*compiler, "-o", str(program)], check=True)

    done = subprocess.run(
        [
            *side.command[:-1], str(program), str(model.parent), ",".join(map(str, PROMPT)),
            "--tokens", str(N_MORE), "--stop", "none", "--ort", str(side.runtimes[NEWEST]),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == here.run(model, "greedy", N_MORE, *PROMPT).tokens[:N_MORE]
    assert "edgebit's kernel is bound" in done.stderr
