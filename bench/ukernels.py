"""Tabulate every micro-kernel on its own: speed here, instructions a weight, cycles a weight on a model of ARM cores.

    python bench/ukernels.py [--only TEXT] [--json] [--markdown FILE] [--file TRY.c] [--compiler clang]

Run it from a checkout. It builds bench/ukernels.c for this machine and for AArch64; the rows are those of ukernels.inc.
What the columns mean, and how they are taken, stands under the table and in docs/decisions/micro-bench.md. What is not
installed here (llvm-mca, a cross compiler, qemu with plugins) leaves its columns empty and is named under the table.
`--file` takes a kernel that is no row yet: its name says op and ISA as in src/ukernel, and only its counts are taken.
"""

import argparse
import dataclasses
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
BUILDS = ROOT / "build"

# Loops with less than this share of the instructions of a call are left out of the model.
LOOP_SHARE = 0.01
MODEL_ITERATIONS = 1000


class Missing(Exception):
    """A tool or a permission that is not there; the text says which, and where to get it."""


# ---- cores, as llvm-mca models them ----


@dataclass(frozen=True, kw_only=True)
class Core:
    """A core that cycles are estimated for."""

    name: str
    mcpu: str  # of llvm-mca
    units: str  # what the names of the model's units begin with: tells which model -mcpu really gave
    decode: int  # instructions a cycle that the core decodes, which not every model bounds
    features: frozenset[str]  # ISA of a kernel's name that it can run


CORES = (
    Core(name="A53", mcpu="cortex-a53", units="A53Unit", decode=2, features=frozenset({"neon"})),
    Core(name="A72", mcpu="cortex-a72", units="A57Unit", decode=3, features=frozenset({"neon"})),
    Core(name="A76", mcpu="neoverse-n1", units="N1Unit", decode=4, features=frozenset({"neon", "dotprod"})),
    Core(name="A710", mcpu="neoverse-n2", units="N2Unit", decode=5, features=frozenset({"neon", "dotprod", "i8mm"})),
)


# ---- from a disassembly and execution counts to loops ----


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the disassembly."""

    address: int
    text: str  # mnemonic and operands
    function: str
    target: int | None  # where it may jump to, inside of functions; None for calls and returns


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop without those inside it, and how often it went round in one call."""

    function: str
    instructions: tuple[Instruction, ...]  # those that run in at least every second round
    rounds: int
    executed: int  # instructions in all rounds


_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*)$")
_JUMP = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s.*?0x([0-9a-f]+)(?: <|$)")


def read_disassembly(lines: Iterable[str]) -> list[Instruction]:
    """The instructions of `llvm-objdump -d --no-show-raw-insn`, AArch64 or x86."""
    found, function = [], ""
    for line in lines:
        if begins := _FUNCTION.match(line):
            function = begins[2]
        elif match := _INSTRUCTION.match(line):
            text = re.split(r"\s*(?://|#\s)", match[2].replace("\t", " "))[0].strip()
            jump = _JUMP.match(text)
            found.append(Instruction(int(match[1], 16), text, function, int(jump[1], 16) if jump else None))
    return found


def read_counts(lines: Iterable[str]) -> Counter[int]:
    """How often each address was executed, from lines "address count"; an address may stand in several."""
    counts: Counter[int] = Counter()
    for line in lines:
        address, count = line.split()
        counts[int(address, 16)] += int(count)
    return counts


def hot_loops(instructions: Sequence[Instruction], counts: Counter[int]) -> list[Loop]:
    """The executed loops, each without those inside it, most instructions first.

    A loop is what lies between an executed jump backward and its target, in one function. Where two share
    instructions, as an inner and an outer one do, these belong to the one that goes round more often.
    """
    index = {instruction.address: at for at, instruction in enumerate(instructions)}
    ranges = []
    for end, instruction in enumerate(instructions):
        if instruction.target is None or instruction.target > instruction.address or not counts[instruction.address]:
            continue
        begin = index.get(instruction.target)
        if begin is not None and instructions[begin].function == instruction.function:
            ranges.append((counts[instruction.address], begin, end))
    loops = []
    taken: set[int] = set()
    for rounds, begin, end in sorted(ranges, key=lambda r: (-r[0], r[2] - r[1])):
        body = [one for one in instructions[begin : end + 1] if one.address not in taken]
        taken.update(one.address for one in body)
        loops.append(
            Loop(
                function=instructions[begin].function,
                instructions=tuple(one for one in body if 2 * counts[one.address] >= rounds),
                rounds=rounds,
                executed=sum(counts[one.address] for one in body),
            )
        )
    return sorted(loops, key=lambda loop: -loop.executed)


def assembly_of(loop: Loop) -> str:
    """The loop as an assembler takes it: jumps go to one label, since a pipeline model goes straight on."""
    lines = [".Lround:"]
    for instruction in loop.instructions:
        text = re.sub(r"\s*<[^>]*>", "", instruction.text)
        lines.append(re.sub(r"0x[0-9a-f]+$", ".Lround", text) if instruction.target is not None else text)
    return "\n".join(lines) + "\n"


# ---- the pipeline model ----


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a pipeline model says of one loop, a round."""

    cycles: float
    bottleneck: str


def read_model(report: dict[str, Any], core: Core) -> Estimate:
    """Cycles a round, and what bounds them, from the JSON of llvm-mca.

    The bottleneck is every limit that is reached to nine tenths: a unit's pressure, the micro-operations that can be
    dispatched, the instructions that can be decoded. Where none is, instructions wait for results or their turn, and
    the nearest limit is named with its share of the cycles.
    """
    names = [name.split(".")[0] for name in report["TargetInfo"]["Resources"]]
    if not any(name.startswith(core.units) for name in names):
        raise Missing(f"this llvm-mca has no model with {core.units}* for -mcpu={core.mcpu}: LLVM 19 has")
    region = report["CodeRegions"][0]
    summary = region["SummaryView"]
    n = summary["Instructions"] // summary["Iterations"]
    pressure: dict[str, list[float]] = {}
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] == n:  # the sum over all instructions
            pressure.setdefault(names[use["ResourceIndex"]], []).append(use["ResourceUsage"])
    limits = {name.removeprefix(core.units): max(uses) for name, uses in pressure.items()}
    limits["dispatch"] = summary["TotaluOps"] / summary["Iterations"] / summary["DispatchWidth"]
    limits["decode"] = n / core.decode
    cycles = max(summary["TotalCycles"] / summary["Iterations"], limits["decode"])
    nearest = sorted(limits, key=lambda name: -limits[name])
    reached = [name for name in nearest if limits[name] >= 0.9 * cycles]
    return Estimate(cycles, " ".join(reached) or f"waits; {nearest[0]} {limits[nearest[0]] / cycles:.0%}")


def model(loop: Loop, core: Core) -> Estimate:
    """Let llvm-mca estimate `loop` on `core`."""
    command = [llvm_tool("llvm-mca"), "-mtriple=aarch64-linux-gnu", f"-mcpu={core.mcpu}", "-json"]
    return read_model(json.loads(run([*command, f"-iterations={MODEL_ITERATIONS}"], stdin=assembly_of(loop))), core)


# ---- tools ----


def run(command: Sequence[str | Path], stdin: str | None = None) -> str:
    """Standard output of `command`; it must end with code 0."""
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise SystemExit(f"{shlex.join(str(word) for word in command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def llvm_tool(name: str) -> str:
    """The newest `name`-VERSION there is, else `name`."""
    for version in range(30, 15, -1):
        if found := shutil.which(f"{name}-{version}"):
            return found
    if found := shutil.which(name):
        return found
    raise Missing(f"{name} is not here: Debian's package llvm-19 has it")


def tool(name: str, package: str) -> str:
    """The path of `name`."""
    if found := shutil.which(name):
        return found
    raise Missing(f"{name} is not here: Debian's package {package} has it")


def host_arch() -> str:
    """x86_64, aarch64, or what else this machine calls itself."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


# ---- builds of bench/ukernels.c ----


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A row of ukernels.inc and the call that is counted and timed."""

    name: str
    op: str
    runs: bool  # this CPU, or the emulated one, has its features
    tokens: int  # of a call
    counted_weights: int  # of a call that is counted, times tokens
    timed_weights: int  # of a call that is timed, times tokens
    timed_bytes: int  # of its weights

    @property
    def isa(self) -> str:
        """The end of its name: scalar, avx2, neon_dotprod."""
        return self.name.removeprefix(f"eb_{self.op}_")


@dataclass(frozen=True)
class Build:
    """The program bench/ukernels.c for one architecture."""

    arch: str
    program: Path

    def kernels(self) -> list[Kernel]:
        """Its rows, best first."""
        rows = [line.split() for line in run([*self.emulator(), self.program, "list"]).splitlines()]
        return [
            Kernel(
                name=name, op=op, runs=runs == "1", tokens=int(tokens),
                counted_weights=int(counted), timed_weights=int(timed), timed_bytes=int(size),
            )
            for name, op, runs, tokens, counted, timed, size in rows
        ]  # fmt: skip

    def emulator(self, plugin: str | None = None) -> list[str]:
        """The words before the program's name: an emulator for another architecture, or to count in."""
        if self.arch == host_arch() and not plugin:
            return []
        name = f"qemu-{self.arch}"
        if plugin is None:
            return [shutil.which(f"{name}-static") or tool(name, "qemu-user"), "-cpu", "max"]
        return [tool(name, "qemu-user"), "-cpu", "max", "-plugin", plugin]

    def counts(self, kernel: Kernel) -> Counter[int]:
        """How often each instruction is executed in one call: a run with one call less a run with none."""
        without, counts = (self._counts(kernel, calls) for calls in (0, 1))
        counts.subtract(without)
        return +counts

    def _counts(self, kernel: Kernel, calls: int) -> Counter[int]:
        if self.arch == host_arch() == "x86_64":
            return read_counts(run([self.program, "count", kernel.name, str(calls)]).splitlines())
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "counts"
            run([*self.emulator(f"{plugin_of_qemu()},out={out}"), self.program, "run", kernel.name, str(calls)])
            return read_counts(out.read_text().splitlines())

    def instructions(self) -> list[Instruction]:
        """Its disassembly."""
        text = run([llvm_tool("llvm-objdump"), "-d", "--no-show-raw-insn", self.program])
        return read_disassembly(text.splitlines())


def plugin_of_qemu() -> Path:
    """bench/qemu_count.c, compiled for this machine."""
    source, library = BENCH / "qemu_count.c", BUILDS / "qemu_count.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        run([tool("cc", "gcc"), "-O2", "-shared", "-fPIC", "-o", library, source])
    return library


def build(arch: str, compiler: str) -> Build:
    """Configure and build for `arch` with `compiler`, gcc or clang, as far as something changed."""
    folder = BUILDS / f"ukernels-{arch}-{compiler}"
    command = ["cmake", "-S", str(ROOT / "kernels"), "-B", str(folder), "-DEB_TESTS=ON"]
    command += ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    if arch != host_arch():
        cross_gcc = tool(f"{arch}-linux-gnu-gcc", f"gcc-{arch}-linux-gnu")  # clang links with its libc, too
        command += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={arch}"]
        if compiler == "gcc":
            compiler = cross_gcc
        else:
            command.append(f"-DCMAKE_C_COMPILER_TARGET={arch}-linux-gnu")
    command.append(f"-DCMAKE_C_COMPILER={llvm_tool('clang') if compiler == 'clang' else tool(compiler, 'gcc')}")
    tool("cmake", "cmake")
    run(command)
    run(["cmake", "--build", folder, "--target", "ukernels", "-j2"])
    return Build(arch, folder / "checks" / "ukernels")


def build_file(source: Path, folder: Path, compiler: str) -> Build:
    """A program with the one kernel in `source`, compiled like those of src/ukernel with the ISA of its name."""
    function = re.search(r"^\w+ (eb_(\w+))\(", source.read_text(), re.MULTILINE)
    ops = sorted(set(re.findall(r"\beb_(\w+)_fn\b", (ROOT / "kernels/src/ukernel.h").read_text())))
    op = max((op for op in ops if function and function[2].startswith(f"{op}_")), key=len, default=None)
    if not function or op is None:
        raise SystemExit(f"{source}: no function eb_<op>_<isa>(...) with an op of ukernel.h ({', '.join(ops)})")
    of_arch = dict(re.findall(r"^set\(EB_ISA_OF_(\w+) ([\w ]+)\)", (ROOT / "kernels/CMakeLists.txt").read_text(), re.M))
    rest = function[2].removeprefix(f"{op}_")
    fitting = [(isa, arch) for arch, isas in of_arch.items() for isa in isas.split() if rest.startswith(isa)]
    isa, arch = max(fitting, key=lambda pair: (len(pair[0]), pair[1] == "aarch64"), default=("", ""))
    if not isa:
        raise SystemExit(f"{source}: {rest} begins with no ISA of kernels/CMakeLists.txt")
    whole = build(arch, compiler).program.parents[1]
    commands = json.loads((whole / "compile_commands.json").read_text())
    like = next((one for one in commands if one["file"].endswith(f"_{isa}.c") and "/ukernel/" in one["file"]), None)
    bench = next(one for one in commands if one["file"].endswith("bench/ukernels.c"))
    if like is None:
        raise SystemExit(f"{source}: no kernel in src/ukernel ends in _{isa}, so its flags are not known")
    (folder / "one.inc").write_text(f"EB_UKERNEL({op}, {function[1]}, 0)\n")
    objects = [folder / "kernel.o", folder / "bench.o"]
    for command, path, out, more in (
        (like, source.resolve(), objects[0], ["-I", ROOT / "kernels/src"]),
        (bench, Path(bench["file"]), objects[1], [f'-DEB_UKERNEL_LIST="{folder}/one.inc"']),
    ):
        words = shlex.split(command["command"])
        run([*words[: words.index("-o")], *more, "-o", out, "-c", path])
    others = [one for one in (whole / "CMakeFiles/edgebit_objects.dir").rglob("*.o") if one.stem != f"{function[2]}.c"]
    words = shlex.split(bench["command"])
    words = [words[0], *(word for word in words if word.startswith("--target="))]
    run([*words, "-static", *objects, *others, "-lm", "-lpthread", "-o", folder / "ukernels"])
    return Build(arch, folder / "ukernels")


# ---- measuring ----


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of one kernel. None: not measured, and a reason stands in the notes."""

    kernel: str
    op: str
    arch: str
    tokens: int
    ns_a_cycle: float | None = None
    weights_a_cycle_warm: float | None = None
    weights_a_cycle_cold: float | None = None
    gb_s_warm: float | None = None
    gb_s_cold: float | None = None
    instructions_a_weight: float | None = None
    loop_share: float | None = None  # of the instructions, in the loops that the model looks at
    loops: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # function, rounds, instructions of a round
    cycles_a_weight: dict[str, float] = dataclasses.field(default_factory=dict)  # by core
    bottleneck: dict[str, str] = dataclasses.field(default_factory=dict)


def measure(made: Build, kernel: Kernel, code: Sequence[Instruction], notes: list[str], cold_mib: int) -> Figures:
    """All figures of one kernel that can be had here."""
    figures = Figures(kernel=kernel.name, op=kernel.op, arch=made.arch, tokens=kernel.tokens)
    if not kernel.runs:
        note(notes, f"{kernel.name} is not run: this CPU has not what it needs")
        return figures
    if made.arch == host_arch() and cold_mib:
        figures = timed(figures, made, kernel, cold_mib)
    try:
        counts = made.counts(kernel)
        figures = dataclasses.replace(figures, instructions_a_weight=counts.total() / kernel.counted_weights)
        loops = [
            loop for loop in hot_loops(code, counts) if loop.executed >= LOOP_SHARE * counts.total()
        ] if code else []  # fmt: skip
        if loops:
            figures = dataclasses.replace(
                figures,
                loop_share=sum(loop.executed for loop in loops) / counts.total(),
                loops=[
                    {"function": one.function, "rounds": one.rounds, "instructions": len(one.instructions)}
                    for one in loops
                ],
            )
            if made.arch == "aarch64":
                model_cores(figures, kernel, loops)
    except Missing as missing:
        note(notes, str(missing))
    return figures


def timed(figures: Figures, made: Build, kernel: Kernel, cold_mib: int) -> Figures:
    """`figures` with the timed ones, of this machine."""
    warm, cold, cycle = map(float, run([made.program, "time", kernel.name, str(cold_mib)]).split())
    return dataclasses.replace(
        figures,
        ns_a_cycle=cycle or None,
        weights_a_cycle_warm=kernel.timed_weights / warm * cycle if cycle else None,
        weights_a_cycle_cold=kernel.timed_weights / cold * cycle if cycle else None,
        gb_s_warm=kernel.timed_bytes / warm,
        gb_s_cold=kernel.timed_bytes / cold,
    )


def model_cores(figures: Figures, kernel: Kernel, loops: Sequence[Loop]) -> None:
    """Fill in cycles and bottlenecks of the cores that have the kernel's ISA; the first core with i8mm only for it."""
    isa = set(kernel.isa.split("_")) & {"neon", "dotprod", "i8mm"}
    for core in CORES:
        if not isa <= core.features or ("i8mm" in core.features and "i8mm" not in isa):
            continue
        estimates = [model(loop, core) for loop in loops]
        cycles = sum(loop.rounds * one.cycles for loop, one in zip(loops, estimates, strict=True))
        figures.cycles_a_weight[core.name] = cycles / kernel.counted_weights
        figures.bottleneck[core.name] = estimates[0].bottleneck


def note(notes: list[str], text: str) -> None:
    """Once each."""
    if text not in notes:
        notes.append(text)


def cold_size_mib() -> int:
    """Four times the largest cache of this machine, 64 to 512 MiB."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 1, "M": 1024}[text[-1]])
    return min(max(4 * max(sizes) // 1024, 64), 512)


# ---- the table ----


def markdown(figures: Sequence[Figures], notes: Sequence[str]) -> str:
    """Tables for each architecture, what they mean, what is missing."""
    lines = []
    for arch in dict.fromkeys(one.arch for one in figures):
        rows = [one for one in figures if one.arch == arch]
        has_speed, modelled = any(one.gb_s_cold for one in rows), arch == "aarch64"
        cores = [core.name for core in CORES if any(core.name in one.cycles_a_weight for one in rows)]
        head = ["kernel"]
        if has_speed:
            head += ["weights/cycle warm", "cold", "GB/s warm", "cold"]
        head += ["instr/weight", "in loops"]
        head += [f"{name} cycles/weight" for name in cores] if modelled else []
        lines += [f"**{arch}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for one in rows:
            cells = [f"`{one.kernel.removeprefix('eb_')}`" + (f" ({one.tokens} tokens)" if one.tokens > 1 else "")]
            if has_speed:
                cells += [number(one.weights_a_cycle_warm, 1), number(one.weights_a_cycle_cold, 1)]
                cells += [number(one.gb_s_warm, 1), number(one.gb_s_cold, 1)]
            cells += [number(one.instructions_a_weight, 4)]
            cells += ["-" if one.loop_share is None else f"{one.loop_share:.0%}"]
            for name in cores:
                found = one.cycles_a_weight.get(name)
                cells.append("-" if found is None else f"{found:.4f} ({one.bottleneck[name]})")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += legend(figures)
    lines += [f"- Not here: {text}." for text in notes]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int) -> str:
    """`value`, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def legend(figures: Sequence[Figures]) -> list[str]:
    """What the columns mean."""
    lines = ["A weight is a weight times a token where a kernel takes several tokens."]
    if cycle := next((one.ns_a_cycle for one in figures if one.ns_a_cycle), None):
        lines.append(
            f"- warm: the same 64 rows; cold: walking through {cold_size_mib()} MiB of weights; the fastest sample of"
            f" one thread. Cycles by the clock of dependent additions, {1 / cycle:.2f} GHz here. GB/s of weights."
        )
    lines.append(
        "- instr/weight: all instructions of a call, counted one by one: by single-stepping on x86-64, by qemu with"
        " our plugin on AArch64. in loops: their share in the loops that the model gets; more of each in --json."
    )
    if any(one.cycles_a_weight for one in figures):
        lines.append(
            "- cycles/weight is no measurement: llvm-mca's static model of each loop, inner and outer, all loads from"
            " the first-level cache, at least instructions / decode width. In brackets what bounds it: L loads; W or V0"
            " the NEON pipe that alone multiplies (SDOT goes to both); X or V1 the one that alone shifts; decode and"
            " dispatch the front end; waits where nothing is full: for results, or for a turn. "
            + "; ".join(f"{core.name}: -mcpu={core.mcpu}, units {core.units}*, decodes {core.decode}" for core in CORES)
            + ". LLVM has no model of the A72 and takes the A57's, and none of the A76, where -mcpu=cortex-a76 would"
            " give the A57's: Neoverse N1 is the A76's core. Those of A53 and N1 hand no sum on early to"
            " the next multiply-add, and every NEON result of the A53 takes 6 cycles. The A710 stands for cores with"
            " i8mm."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", metavar="TEXT", help="only kernels whose name holds TEXT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables into FILE")
    parser.add_argument("--file", type=Path, metavar="TRY.c", help="only this kernel, a row of ukernels.inc or not")
    parser.add_argument("--compiler", choices=("gcc", "clang"), default="gcc")
    options = parser.parse_args()
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        figures = bench(options, Path(name), notes)
    if options.json:
        rows = [dataclasses.asdict(one) for one in figures]
        print(json.dumps({"kernels": rows, "cores": [core_json(core) for core in CORES], "notes": notes}, indent=1))
    else:
        print(markdown(figures, notes), end="")
    if options.markdown:
        options.markdown.write_text(markdown(figures, notes))
    if not figures:
        sys.exit("no kernel was looked at")


def core_json(core: Core) -> dict[str, Any]:
    """`core` with its features as a list."""
    return dataclasses.asdict(core) | {"features": sorted(core.features)}


def bench(options: argparse.Namespace, folder: Path, notes: list[str]) -> list[Figures]:
    """The figures of all kernels whose name holds `only`, or of the one in `file`."""
    figures = []
    for arch in dict.fromkeys((host_arch(), "aarch64")) if options.file is None else ("of the file",):
        try:
            if options.file is None:
                made = build(arch, options.compiler)
            else:
                made = build_file(options.file, folder, options.compiler)
            kernels = [kernel for kernel in made.kernels() if options.only in kernel.name]
            try:
                code = made.instructions() if kernels else []
            except Missing as missing:
                note(notes, str(missing))
                code = []
            cold_mib = cold_size_mib() if options.file is None else 0
            figures += [measure(made, kernel, code, notes, cold_mib) for kernel in kernels]
        except Missing as missing:
            note(notes, str(missing))
    return figures


if __name__ == "__main__":
    main()
