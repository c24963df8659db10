"""Golden probes and forced micro-kernels, through programs and an emulator that say what they were given."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit import probe_runs
from edgebit.probe_runs import CPU_LEVELS, LEVELS, check_model_probes, check_must_crash, check_refusal, plan_runs
from edgebit.targets import Target, find_target, host_target

HERE = host_target().arch


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def foreign() -> Target:
    """A target of another architecture than this machine's."""
    return find_target("linux-x86_64" if HERE == "aarch64" else "linux-aarch64")


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """Stands for edgebit-run: ends as it does, at the level that it was asked for."""
    return script(tmp_path / "edgebit-run", 'echo "3 golden probes hold (${EDGEBIT_ISA:-best})"; basename "$1" >&2')


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Target) -> Callable[[str], None]:
    """Gives qemu for the foreign target another meaning: shell lines that know $2, the CPU, and $EDGEBIT_ISA."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def set_lines(lines: str) -> None:
        script(folder / f"qemu-{foreign.arch}", lines)

    return set_lines


def level_of_each_cpu(target: Target) -> str:
    """Shell lines that take the level of the CPU, or the mask."""
    cases = " ".join(f"{cpu}) level={level} ;;" for cpu, level in CPU_LEVELS[target.arch].items())
    return f'case $2 in {cases} esac; echo "3 golden probes hold (${{EDGEBIT_ISA:-$level}})"'


# ---- plans ----


@pytest.mark.parametrize("name", ["rpi", "rpi5", "rk3588", "linux-x86_64"])
def test_every_level_of_a_foreign_target_is_run(monkeypatch, name):
    """Each CPU with the level that it must get, each level below the best by a mask, and larger pages."""
    monkeypatch.setattr(
        probe_runs, "host_target", lambda: dataclasses.replace(host_target(), triple="riscv64-linux-gnu")
    )
    monkeypatch.setattr(probe_runs, "find_emulator", lambda arch: f"qemu-{arch}")
    target = find_target(name)

    runs = plan_runs(target, every_level=True)

    known = CPU_LEVELS[target.arch]
    assert [(run.emulator[-1], run.level) for run in runs if run.mask is None and len(run.emulator) == 3] == [
        *((cpu, known[cpu]) for cpu in target.emulate_cpus),
        *((cpu, level) for cpu, level in known.items() if cpu not in target.emulate_cpus),
    ]
    best = list(known.values())[-1]
    masks = [run.mask for run in runs if run.mask]
    assert masks == list(LEVELS[target.arch][: LEVELS[target.arch].index(best)])
    pages = [run.emulator[-1] for run in runs if "-p" in run.emulator]
    assert pages == (["16384"] if target.arch == "aarch64" else [])


def test_a_build_runs_the_cpus_of_its_target(foreign, emulator):
    """No more: it is done at each build."""
    emulator("")
    runs = plan_runs(foreign, every_level=False)

    assert [run.emulator[-1] for run in runs] == list(foreign.emulate_cpus)


def test_this_machine_runs_each_level_by_a_mask():
    """And first without one."""
    runs = plan_runs(host_target(), every_level=True)

    assert [(run.mask, run.level, run.emulator) for run in runs] == [
        (None, None, ()), *((level, level, ()) for level in LEVELS[HERE]),
    ]  # fmt: skip


# ---- golden probes ----


def test_the_level_that_was_taken_is_asserted(foreign, emulator, runner, tmp_path):
    """Probes that hold at another level than the CPU's prove nothing of this one."""
    emulator(level_of_each_cpu(foreign))
    right = check_model_probes(runner, tmp_path / "m", 1000, foreign, every_level=True)
    emulator('echo "3 golden probes hold (scalar)"')
    wrong = check_model_probes(runner, tmp_path / "m", 1000, foreign, every_level=False)

    assert {check.status for check in right} == {"passed"}
    best = next(check for check in wrong if "scalar" not in CPU_LEVELS[foreign.arch][check.name.split()[2]])
    assert (best.status, "the level must be" in best.detail) == ("failed", True)


@pytest.mark.parametrize(
    ("lines", "status", "detail"),
    [
        ("echo loading >&2; echo 'probe 1: layer 2 differs' >&2; exit 14", "failed", "probe 1: layer 2 differs"),
        ("kill -ILL $$", "failed", "ended by SIGILL"),
        ("exit 3", "failed", "exit code 3"),
        ("echo all is well", "failed", "all is well"),
        ("echo 'the model has no golden probes'", "not run", "the model has no golden probes"),
    ],
    ids=["differs", "crash", "silent", "no result", "no probes"],
)
def test_whatever_is_not_a_result_does_not_pass(tmp_path, lines, status, detail):
    """Its exit code decides first, then the line that says how many probes held."""
    program = script(tmp_path / "program", lines)

    checks = check_model_probes(program, tmp_path / "m", 1000, host_target())

    assert {(check.status, check.detail) for check in checks} == {(status, detail)}


def test_a_level_that_this_cpu_lacks_is_not_run(tmp_path):
    """The program refuses it; that is no fault of the bundle."""
    refuse = "echo 'edgebit-run: ISA level x was asked for, and this CPU does not have it' >&2; exit 9"
    program = script(tmp_path / "program", f'[ "$EDGEBIT_ISA" ] && {{ {refuse}; }}; echo "1 golden probes hold (y)"')

    checks = check_model_probes(program, tmp_path / "m", 1000, host_target(), every_level=True)

    assert [check.status for check in checks] == ["passed", *["not run"] * len(LEVELS[HERE])]


def test_a_small_model_runs_its_own_probes(runner, tmp_path):
    """At this machine's best level, and at the one that every CPU has."""
    checks = check_model_probes(runner, tmp_path / "small.ebm", 1000, host_target())

    assert [check.detail for check in checks] == ["3 golden probes hold (best)", "3 golden probes hold (scalar)"]


def test_a_large_model_is_stood_in_for_at_the_slow_levels(native, tmp_path):
    """Its own probes run at this machine's best level, the shipped model's at each."""
    log = tmp_path / "log"
    program = script(tmp_path / "p", f'basename "$1" >> {log}; echo "3 golden probes hold (${{EDGEBIT_ISA:-best}})"')

    checks = check_model_probes(program, tmp_path / "large.ebm", probe_runs.EMULATED_MODEL_MAX + 1, host_target())

    assert log.read_text().split() == ["demo.ebm", "demo.ebm", "large.ebm"]
    assert ["shipped model" in check.name for check in checks] == [True, True, False]


def test_a_large_model_for_another_architecture_says_where_its_probes_run(native, foreign, emulator, runner, tmp_path):
    """What did not run is said, never counted as passed."""
    emulator(level_of_each_cpu(foreign))
    checks = check_model_probes(runner, tmp_path / "large.ebm", probe_runs.EMULATED_MODEL_MAX + 1, foreign)

    assert checks[-1].status == "not run"
    assert "the device runs them" in checks[-1].detail


def test_probes_without_an_emulator_are_not_run(foreign, tmp_path, runner, monkeypatch):
    """Said, with what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = check_model_probes(runner, tmp_path / "m", 1000, foreign, every_level=True)
    checks += [check_refusal(runner, foreign), *check_must_crash(b"", foreign)]

    assert {check.status for check in checks} == {"not run"}
    assert all("apt-get install qemu-user-static" in check.detail for check in checks)


def test_a_target_that_no_emulated_cpu_is_named_for_is_not_run(foreign, tmp_path, runner):
    """A user's own file may name none."""
    silent = dataclasses.replace(foreign, emulate_cpus=())

    assert [check.status for check in check_model_probes(runner, tmp_path / "m", 1, silent)] == ["not run"]


def test_a_model_too_slow_to_emulate_is_tried_once(foreign, emulator, runner, tmp_path, monkeypatch):
    """The other CPUs would take as long; each row says that it did not run."""
    emulator(f"echo $2 >> {tmp_path}/ran; exec sleep 60")
    monkeypatch.setattr(probe_runs, "PROBE_TIMEOUT_S", 0.5)

    checks = check_model_probes(runner, tmp_path / "m", 1000, foreign)

    assert {check.status for check in checks} == {"not run"}
    assert (tmp_path / "ran").read_text().split() == [foreign.emulate_cpus[0]]


def test_a_program_that_needs_a_loader_is_not_run(tmp_path, require_tool):
    """A phone's edgebit-run needs the phone's own loader."""
    source = tmp_path / "x.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run([require_tool("gcc"), source, "-o", tmp_path / "dynamic"], check=True)

    (check,) = check_model_probes(tmp_path / "dynamic", tmp_path / "m", 1000, host_target())

    assert (check.status, "needs /lib" in check.detail) == ("not run", True)


# ---- forced instructions ----


def test_refusal_must_be_one_in_words(foreign, emulator, runner):
    """Another exit code than the engine's own, or none at all, is a failure."""
    emulator("echo 'edgebit-run: ISA level i8mm was asked for, and this CPU does not have it' >&2; exit 9")
    assert check_refusal(runner, foreign).status == "passed"

    for lines in (
        "echo ok",
        "echo 'this CPU does not have it' >&2; exit 1",
        "kill -ILL $$",
        "echo damaged >&2; exit 9",
    ):
        emulator(lines)
        assert check_refusal(runner, foreign).status == "failed", lines


def test_must_crash_needs_the_crash_and_the_right_sum(native, emulator, foreign, monkeypatch):
    """SIGILL where the CPU lacks the instructions, and the sum where it has them: either alone is a failure."""
    monkeypatch.setattr(probe_runs, "kernel_program", lambda library, isa: b"#!/bin/sh\n")
    lacking = " ".join(f"{cpu}) l={place} ;;" for place, cpu in enumerate(CPU_LEVELS[foreign.arch]))
    needs = "case $3 in *dotprod) n=2 ;; *i8mm) n=3 ;; *avx2) n=1 ;; esac"
    right = f"case $2 in {lacking} esac; {needs}; [ $l -ge $n ] || kill -ILL $$"
    emulator(right)
    assert {check.status for check in check_must_crash(b"", foreign)} == {"passed"}

    emulator("exit 0")
    assert all("it went on" in check.detail for check in check_must_crash(b"", foreign))
    emulator(f"{right}; exit 1")
    assert all("its sum is wrong" in check.detail for check in check_must_crash(b"", foreign))
    emulator("kill -SEGV $$")
    assert all("ended by SIGSEGV" in check.detail for check in check_must_crash(b"", foreign))


def test_what_is_no_library_fails_its_crash_test(foreign, emulator):
    """Said by its row, not by a traceback."""
    emulator("exit 0")

    assert {check.status for check in check_must_crash(b"nonsense", foreign)} == {"failed"}
