"""Service: built native files at work, on each CPU that this machine is or can be: golden probes, forced micro-kernels.

Nothing is assumed of a CPU: each run says which ISA level it took, and another than the CPU's best is a failure.
"""

import dataclasses
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebit import bionic
from edgebit.checks import Check
from edgebit.convert import convert
from edgebit.elf import read_elf
from edgebit.errors import BuildError
from edgebit.kernel_program import kernel_program
from edgebit.resources import assistant_model_dir
from edgebit.targets import Target, host_target

EMULATED_MODEL_MAX = 256 << 20  # bytes: a 2B model took more than ten minutes for its first probe under qemu
PROBE_TIMEOUT_S = 300

# The ISA levels of a library (kernels/src/cpu.c), lowest first.
LEVELS = {
    "aarch64": ("scalar", "neon", "dotprod", "i8mm"),
    "x86_64": ("scalar", "avx2", "avxvnni", "avx512vnni"),
}
# qemu's CPUs that stand for the levels, and the level that each must get, lowest first. Sources: Arm's Technical
# Reference Manuals (Cortex-A53 and A72 have no FEAT_DotProd, the A76 has it and no FEAT_I8MM); qemu emulates no VNNI.
CPU_LEVELS: Mapping[str, Mapping[str, str]] = {
    "aarch64": {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "dotprod", "max": "i8mm"},
    "x86_64": {"Nehalem": "scalar", "Haswell": "avx2"},
}

_EXIT_ENGINE = 9  # of edgebit-run, where the CPU lacks the level that was asked for
_LACKS = "this CPU does not have it"
_HOLD = re.compile(r"\d+ golden probes hold \((\w+)\)")
_NO_QEMU = "no qemu: apt-get install qemu-user-static"


@dataclass(frozen=True, slots=True)
class Run:
    """Where a program runs, and the ISA level that must be taken there."""

    name: str
    emulator: tuple[str, ...] = ()  # what starts the program; nothing: this machine itself
    mask: str | None = None  # the highest level that may be used
    level: str | None = None  # that must be used; None: the best, whatever it is


# ---- golden probes ----


def check_model_probes(
    runner: Path,
    model: Path,
    model_size: int,
    target: Target,
    *,
    every_level: bool = False,
    bionic_root: Path | None = None,
) -> list[Check]:
    """Run the golden probes of `model`, a model file or a bundle, whose model has `model_size` bytes.

    every_level: on CPUs of all ISA levels, by masks too, and with larger pages; else on the CPUs of the target.
    bionic_root: where a phone's loader and libc lie, for a program that needs them; else EDGEBIT_BIONIC_ROOT says.
    A model too large to emulate is stood in for by the one that ships: it goes through the same micro-kernels. Its own
    probes then run on the device, before it goes live, and here where this machine has the target's architecture.
    """
    runs = plan_runs(target, every_level=every_level)
    if isinstance(runs, Check):
        return [runs]
    if loader := _loader(runner):
        root = _root_for(loader, bionic_root)
        if root is None:
            return [Check("probes", "not run", f"{_needs(loader)}; the device runs them")]
        # With the phone's own page size, which its loader is made for.
        emulated = [run for run in runs if run.emulator and "-p" not in run.emulator]
        runs = [dataclasses.replace(run, emulator=(*run.emulator, "-L", str(root))) for run in emulated]
    if model_size <= EMULATED_MODEL_MAX:
        return check_probes(runner, model, runs)
    with tempfile.TemporaryDirectory(prefix="edgebit-probes-") as folder:
        stand_in = Path(folder, "demo.ebm")
        convert(assistant_model_dir(), stand_in)
        checks = [
            dataclasses.replace(check, name=f"{check.name}, the shipped model's")
            for check in check_probes(runner, stand_in, runs)
        ]
    if target.arch == host_target().arch and not loader:
        return [*checks, *check_probes(runner, model, [Run("this machine")])]
    text = f"{model_size >> 20} MiB are too many to emulate; the device runs them before the bundle goes live"
    return [*checks, Check("probes of this model", "not run", text)]


def plan_runs(target: Target, *, every_level: bool) -> list[Run] | Check:
    """On what the probes of `target` run here; or the check that says why they do not run at all."""
    levels = LEVELS[target.arch]
    if target.arch == host_target().arch:
        masks = levels if every_level else levels[:1]
        return [Run("this machine"), *(Run(f"this machine ({mask})", (), mask, mask) for mask in masks)]
    known = CPU_LEVELS[target.arch]
    cpus = list(dict.fromkeys([*target.emulate_cpus, *(known if every_level else ())]))
    if not cpus:
        return Check("probes", "not run", f"the target {target.name} names no emulate_cpus")
    emulator = find_emulator(target.arch)
    if emulator is None:
        return Check(f"probes on {', '.join(cpus)}", "not run", _NO_QEMU)
    runs = [Run(f"{cpu} (qemu)", (emulator, "-cpu", cpu), None, known.get(cpu)) for cpu in cpus]
    if every_level:
        best = list(known)[-1]
        lower = levels[: levels.index(known[best])]
        runs += [Run(f"{best} held to {mask} (qemu)", (emulator, "-cpu", best), mask, mask) for mask in lower]
    if every_level and target.arch == "aarch64":  # x86-64 has no other page size
        cpu = cpus[-1]
        for page_kib in sorted({16, target.page_kib} - {4}):
            pages = (emulator, "-cpu", cpu, "-p", str(page_kib * 1024))
            runs.append(Run(f"{cpu} with pages of {page_kib} KB (qemu)", pages, None, known.get(cpu)))
    return runs


def find_emulator(arch: str) -> str | None:
    """qemu's program that runs programs of `arch` here."""
    return shutil.which(f"qemu-{arch}") or shutil.which(f"qemu-{arch}-static")


def check_probes(runner: Path, model: Path, runs: list[Run]) -> list[Check]:
    """The golden probes of `model` with edgebit-run, on each of `runs`."""
    checks: list[Check] = []
    for run in runs:
        name = f"probes on {run.name}"
        if checks and checks[-1].status == "not run" and run.emulator:  # too slow before, and would be again
            checks.append(Check(name, "not run", checks[-1].detail))
        else:
            checks.append(_check_probes_on(name, run, runner, model))
    return checks


def _check_probes_on(name: str, run: Run, runner: Path, model: Path) -> Check:
    done = _start([*run.emulator, str(runner.absolute()), str(model.absolute()), "--check"], run.mask)
    if done is None:
        late = f"no result within {PROBE_TIMEOUT_S} s: too large to emulate; the device runs them"
        return Check(name, "not run", late)
    said = _last_line(done)
    if done.returncode == _EXIT_ENGINE and run.mask and _LACKS in said and not run.emulator:
        return Check(name, "not run", f"this CPU has no {run.mask}")
    if done.returncode != 0:
        return Check(name, "failed", said)
    held = _HOLD.fullmatch(said)
    if held is None:
        return Check(name, "not run" if "no golden probes" in said else "failed", said)
    if run.level is not None and held[1] != run.level:
        return Check(name, "failed", f"{said}: the level must be {run.level}")
    return Check(name, "passed", said)


def _start(argv: list[str], mask: str | None = None) -> subprocess.CompletedProcess[str] | None:
    """Run a built program in an empty environment, without a core file where it crashes; None where it never ends."""
    try:
        return subprocess.run(
            ["/bin/sh", "-c", 'ulimit -c 0; exec "$@"', "sh", *argv],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S, check=False, env={"EDGEBIT_ISA": mask} if mask else {},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}"
    texts = (done.stdout, done.stderr) if done.returncode == 0 else (done.stderr, done.stdout)  # qemu warns on stderr
    lines = next((text for text in texts if text.strip()), f"exit code {done.returncode}").strip().splitlines()
    return lines[-1]


def _loader(runner: Path) -> str | None:
    """The loader that a program names, which this machine may not have; None: it is static, or no ELF file at all."""
    try:
        return read_elf(runner.read_bytes(), runner.name).interpreter
    except BuildError:
        return None


def _root_for(loader: str, bionic_root: Path | None) -> Path | None:
    """Where this machine has the libraries of a program that names `loader`."""
    return (bionic_root or bionic.find_root()) if loader == bionic.LINKER else None


def _needs(loader: str) -> str:
    has = f" ({bionic.ROOT_VARIABLE} may name a copy)" if loader == bionic.LINKER else ""
    return f"edgebit-run needs {loader} of the device{has}"


# ---- forced instructions ----


def check_refusal(runner: Path, target: Target) -> Check:
    """A level that a CPU lacks is refused in words: EDGEBIT_ISA is a mask and never a wish."""
    known = CPU_LEVELS[target.arch]
    lowest, highest = next(iter(known)), list(known.values())[-1]
    name = f"{highest} is refused on {lowest} (qemu)"
    emulator = find_emulator(target.arch)
    if emulator is None:
        return Check(name, "not run", _NO_QEMU)
    libraries: list[str] = []
    if loader := _loader(runner):
        root = _root_for(loader, None)
        if root is None:
            return Check(name, "not run", _needs(loader))
        libraries = ["-L", str(root)]
    done = _start([emulator, "-cpu", lowest, *libraries, str(runner.absolute()), "--isa"], highest)
    if done is None:
        return Check(name, "failed", f"no result within {PROBE_TIMEOUT_S} s")
    said = _last_line(done)
    return Check(name, "passed" if done.returncode == _EXIT_ENGINE and _LACKS in said else "failed", said)


def check_must_crash(library: bytes, target: Target) -> list[Check]:
    """The micro-kernels of an ISA do what its name says: without it the CPU stops them, with it they compute.

    A level that no emulated CPU has is left out: nothing could show that its micro-kernel works at all.
    """
    known = CPU_LEVELS[target.arch]
    emulator = find_emulator(target.arch)
    levels = LEVELS[target.arch]
    checks = []
    for has, level in known.items():
        lacking = [cpu for cpu, other in known.items() if levels.index(other) < levels.index(level)]
        if level in ("scalar", "neon") or not lacking:  # every CPU of the architecture has it
            continue
        name = f"{level} must crash on {lacking[-1]} (qemu)"
        if emulator is None:
            checks.append(Check(name, "not run", _NO_QEMU))
            continue
        isa = level if target.arch == "x86_64" else f"neon_{level}"
        checks.append(_check_crash(name, library, isa, (emulator, "-cpu"), lacking[-1], has))
    return checks


def _check_crash(name: str, library: bytes, isa: str, emulator: tuple[str, ...], lacking: str, has: str) -> Check:
    try:
        program = kernel_program(library, isa)
    except BuildError as error:
        return Check(name, "failed", str(error))
    with tempfile.TemporaryDirectory(prefix="edgebit-kernel-") as folder:
        path = Path(folder, f"peak_i8_{isa}")
        path.write_bytes(program)
        path.chmod(0o700)
        without, with_it = (_start([*emulator, cpu, str(path)]) for cpu in (lacking, has))
    if without is None or with_it is None:
        return Check(name, "failed", f"no result within {PROBE_TIMEOUT_S} s")
    if without.returncode != -signal.SIGILL:
        return Check(name, "failed", f"it went on, on {lacking}: {_last_line(without)}")
    if with_it.returncode != 0:
        return Check(name, "failed", f"its sum is wrong on {has}, which has the instructions: {_last_line(with_it)}")
    return Check(name, "passed", f"SIGILL on {lacking}, the right sum on {has}")
