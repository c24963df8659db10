"""What a build, a check and a deploy need of this machine, present and absent."""

import json
import os

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.cross import toolchain
from edgebit.doctor import machine
from edgebit.doctor.machine import check_machine
from edgebit.errors import BuildError, EngineError
from edgebit.runtime.library import Library


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with a shell and nothing else: no program is on PATH or in the Python environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (machine, toolchain):
        monkeypatch.setattr(module, "find_tool", lambda name: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(machine, "choose_toolchain", no_toolchain)
    return folder


def no_toolchain(target, builder):
    raise BuildError(f"--builder {builder} needs a compiler. Install it: apt-get install it")


def named(findings):
    return {finding.name: finding for finding in findings}


def test_a_bare_machine_can_do_little_and_says_how_to_mend_it(native, bare):
    """Each thing that is missing is named with its mend; edgebit itself works."""
    findings = named(check_machine())

    missing = {"cmake", "ninja", "ssh", "adb", "--builder zig", "--builder system", "a compiler for devices"}
    assert {name for name in missing if findings[name].state == "warn" and findings[name].mend} == missing
    assert findings["--builder zig"].mend == "Install it: apt-get install it"
    assert findings["native library"].state == "ok"
    assert not [finding for finding in findings.values() if finding.state == "fail"]


def test_a_missing_library_is_a_failure(bare, monkeypatch):
    """Nothing runs without it, and the command's exit code says so."""

    def missing(cls=None):
        raise EngineError("the native library is missing: x.so. Build it: cmake")

    monkeypatch.setattr(Library, "load", missing)

    result = CliRunner().invoke(cli, ["doctor", "--json"])

    body = json.loads(result.stdout)
    (found,) = (finding for finding in body["findings"] if finding["state"] == "fail")
    assert (result.exit_code, body["ok"], found["name"], found["mend"]) == (
        1,
        False,
        "native library",
        "Build it: cmake",
    )


def test_a_program_that_does_not_run_is_told_from_one_that_is_missing(native, bare):
    """It is there and is shown so; its version is not made up."""
    (bare / "adb").write_text("#!/no/such/interpreter\n")
    (bare / "adb").chmod(0o755)

    assert named(check_machine())["adb"].detail == f"does not run ({bare / 'adb'})"


@pytest.mark.parametrize(
    ("programs", "state", "detail", "mend"),
    [
        ({}, "warn", "docker is not on PATH; podman is not on PATH", "Get one: "),
        ({"docker": "exit 1"}, "warn", "docker is there and its engine does not answer: no answer;", "Start it "),
        ({"docker": "echo 'No daemon at x.sock. Is it up?' >&2; exit 1"}, "warn", "No daemon at x.sock;", "Start it "),
        ({"docker": """echo '{"ServerVersion": "27.1"}'"""}, "ok", "docker 27.1 answers", ""),
    ],
    ids=["none", "no engine", "a question in the answer", "docker"],
)
def test_a_container_engine_must_answer(native, bare, monkeypatch, programs, state, detail, mend):
    """The command alone builds nothing."""
    for variable in ("DOCKER_HOST", "EDGEBIT_CONTAINER_ENGINE"):
        monkeypatch.delenv(variable, raising=False)
    for name, script in programs.items():
        (bare / name).write_text(f"#!/bin/sh\n{script}\n")
        (bare / name).chmod(0o755)

    found = named(check_machine())["container engine"]

    assert (found.state, detail in found.detail, found.mend.startswith(mend)) == (state, True, True), found
    assert bool(found.mend) == (state == "warn")


def test_a_cache_that_cannot_be_written_is_a_failure(native, bare, monkeypatch, tmp_path):
    """No build works then. (root may write anywhere, so the system's word is replaced.)"""
    monkeypatch.setattr(os, "access", lambda path, mode: str(tmp_path) not in str(path))

    assert named(check_machine())["cache"].state == "fail"


def test_a_broken_own_target_is_said(native, bare, monkeypatch, tmp_path):
    """Here too, since whoever looks for a target that is left out asks the doctor."""
    boards = tmp_path / "boards"
    boards.mkdir()
    (boards / "mine.toml").write_text("nonsense = 1\n")
    monkeypatch.setenv("EDGEBIT_TARGETS", str(boards))

    assert "nonsense" in named(check_machine())["own target"].detail


def test_for_people_each_mend_stands_below_its_finding(native, bare):
    """And the last line counts."""
    result = CliRunner().invoke(cli, ["doctor"])

    assert result.exit_code == 0
    assert "-> apt-get install openssh-client" in result.output
    assert result.output.splitlines()[-1].endswith("warn")
