"""A phone's own loader and libc are copied once, whole or not at all. The phone is a fake: a folder, and a getprop."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner

from edgebit.bionic import LINKER, ROOT_FILES, find_root
from edgebit.bundle.archive import hash_file, write_archive
from edgebit.bundle.manifest import MODEL_MEMBER, RUNNER_MEMBER, BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.cli.doctor import command
from edgebit.doctor import phone_libc
from edgebit.doctor.finding import Finding
from edgebit.doctor.phone_libc import check_on_phone_libc, pull_bionic
from edgebit.errors import BuildError, TransportError
from edgebit.targets import find_target
from edgebit.transport import Completed, Options
from tests.artifacts.elf_writer import ElfFile

LIBRARY = ElfFile().to_bytes()
APEX = "apex/com.android.runtime"


@dataclass
class FakePhone:
    """A device whose files lie in a folder; its commands are run by this machine's sh."""

    folder: Path
    abis: str = "arm64-v8a"
    level: str = "34"
    build: str = "maker/phone:14/UP1A/1:user"
    url: str = "adb://FAKE"
    root: str = "/data/local/tmp"
    copied: int = 0

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        getprop = self.folder / "bin" / "getprop"
        getprop.parent.mkdir(exist_ok=True)
        getprop.write_text(
            f"#!/bin/sh\ncase $1 in *abilist64) echo {self.abis};; *sdk) echo {self.level};;\n"
            f"*) echo {self.build};; esac\n"
        )
        getprop.chmod(0o755)
        there = [str(self.folder) + word if word.startswith(("/system/", "/apex/")) else word for word in argv]
        path = f"{getprop.parent}:{os.environ['PATH']}"
        done = subprocess.run(there, capture_output=True, text=True, env={"PATH": path}, check=False)
        return Completed(done.stdout.replace(str(self.folder), ""), done.stderr, done.returncode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get(self, remote: str, local: Path) -> None:
        self.copied += 1
        shutil.copyfile(f"{self.folder}{remote}", local)


@pytest.fixture
def phone(tmp_path: Path) -> FakePhone:
    """A phone from before Android 10: its files are in /system."""
    for name in ROOT_FILES:
        file = tmp_path / "phone" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(LIBRARY)
    return FakePhone(tmp_path / "phone")


def test_files_are_copied_once(phone, tmp_path):
    """Executable, at the places an emulator looks for them; the second time they come from the cache."""
    first = pull_bionic(phone, tmp_path / "cache")
    again = pull_bionic(phone, tmp_path / "cache")

    assert (first.api_level, first.build) == (34, phone.build)
    assert (again, phone.copied) == (first, 4)
    assert [(first.root / name).read_bytes() for name in ROOT_FILES] == [LIBRARY] * 4
    assert find_root({"EDGEBIT_BIONIC_ROOT": str(first.root)}) == first.root


def test_another_build_of_the_system_is_another_folder(phone, tmp_path):
    """An update changes the phone's libc."""
    first = pull_bionic(phone, tmp_path / "cache")
    phone.build = "maker/phone:15/AP1A/2:user"

    assert pull_bionic(phone, tmp_path / "cache").root != first.root
    assert phone.copied == 8


def test_runtime_module_comes_first(phone, tmp_path):
    """Since Android 10 the files lie there."""
    newer = ElfFile(soname="libc.so").to_bytes()
    for name in ("bin/linker64", "lib64/bionic/libc.so", "lib64/bionic/libdl.so", "lib64/bionic/libm.so"):
        file = phone.folder / APEX / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(newer)

    root = pull_bionic(phone, tmp_path / "cache").root

    assert [(root / name).read_bytes() for name in ROOT_FILES] == [newer] * 4


def test_damaged_cache_is_copied_again(phone, tmp_path):
    """What does not fit its sum is not used."""
    root = pull_bionic(phone, tmp_path / "cache").root
    (root / ROOT_FILES[1]).write_bytes(b"changed")

    pull_bionic(phone, tmp_path / "cache")

    assert phone.copied == 8
    assert (root / ROOT_FILES[1]).read_bytes() == LIBRARY


@pytest.mark.parametrize(
    ("change", "promised"),
    [
        ({"abis": ""}, "runs no arm64-v8a programs, only 32-bit ones"),
        ({"abis": "x86_64"}, "only x86_64"),
        ({"level": "unknown"}, "is no Android"),
        ({"build": ""}, "is no Android"),
    ],
)
def test_what_is_no_such_phone_is_refused(phone, tmp_path, change, promised):
    """Before anything is copied."""
    for name, value in change.items():
        setattr(phone, name, value)

    with pytest.raises(TransportError, match=promised):
        pull_bionic(phone, tmp_path / "cache")

    assert phone.copied == 0


@pytest.mark.parametrize(
    ("content", "promised"),
    [
        (None, r"does not let us read .*linker64 or /system/bin/linker64"),
        (b"", "came damaged.*not an ELF file"),
        (ElfFile(machine=62).to_bytes(), "came damaged"),
    ],
    ids=["missing", "empty", "other machine"],
)
def test_a_file_that_cannot_be_had_leaves_nothing(phone, tmp_path, content, promised):
    """The message names it; the cache is as it was."""
    file = phone.folder / ROOT_FILES[0]
    file.unlink() if content is None else file.write_bytes(content)

    with pytest.raises(TransportError, match=promised):
        pull_bionic(phone, tmp_path / "cache")

    assert list((tmp_path / "cache" / "bionic").iterdir()) == []


def test_a_copy_cut_short_is_noticed(phone, tmp_path, monkeypatch):
    """By the size that the phone names."""
    monkeypatch.setattr(phone, "get", lambda remote, local: local.write_bytes(LIBRARY[:-8]))

    with pytest.raises(TransportError, match="came damaged"):
        pull_bionic(phone, tmp_path / "cache")


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qemu that says what edgebit-run would say; gives the file in which it notes its arguments."""
    program = tmp_path / "qemu-aarch64"
    levels = "case $2 in cortex-a53) l=neon;; cortex-a76) l=dotprod;; *) l=i8mm;; esac"
    program.write_text(f'#!/bin/sh\necho $* >>{tmp_path}/ran\n{levels}\necho "3 golden probes hold ($l)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "ran"


def test_probes_run_on_the_phones_libc(phone, tmp_path, emulator):
    """The emulator is told where it lies; a static program needs none; an older phone is refused."""
    libc = pull_bionic(phone, tmp_path / "cache")
    runner, static = tmp_path / "edgebit-run", tmp_path / "static"
    runner.write_bytes(ElfFile(interpreter=LINKER).to_bytes())
    static.write_text("#!/bin/sh\n")
    android = find_target("android")

    checks = check_on_phone_libc(libc, runner, tmp_path / "model", 1000, android)
    other = check_on_phone_libc(libc, static, tmp_path / "model", 1000, android)
    phone.level, phone.build = "23", "old"
    old = check_on_phone_libc(pull_bionic(phone, tmp_path / "cache"), runner, tmp_path / "model", 1000, android)

    assert [check.status for check in checks] == ["passed"] * 4
    assert f"-cpu cortex-a53 -L {libc.root} {runner} {tmp_path}/model --check" in emulator.read_text()
    assert (other[0].status, "static" in other[0].detail) == ("not run", True)
    assert [check.status for check in old] == ["failed"]


def make_bundle(folder: Path, triple: str, *names: str) -> Path:
    """A bundle for `triple`, its program and model being no more than the fake emulator looks at."""
    sources = {}
    for name in names:
        sources[name] = folder / name.replace("/", "-")
        sources[name].write_bytes(ElfFile(interpreter=LINKER).to_bytes() if name == RUNNER_MEMBER else b"model")
    manifest = Manifest(
        name="x", edgebit="0.1", abi=2, target=TargetInfo(name="x", triple=triple), model=ModelInfo(name="m"),
        build=BuildInfo(builder="system", compiler="gcc", toolchain_id="0" * 16),
        files={name: hash_file(path) for name, path in sources.items()},
    )  # fmt: skip
    write_archive(folder / "x.bundle", manifest, sources)
    return folder / "x.bundle"


def doctor(phone: FakePhone, bundle: Path | None, monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[Finding]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(phone_libc, "open_transport", lambda url, options: phone)
    return phone_libc.check_phone_libc(phone.url, Options(), bundle)


def test_doctor_runs_a_bundle_on_the_phones_libc(phone, tmp_path, monkeypatch, emulator):
    """One row for what was copied, one for each CPU; without a bundle, what to do with the copy."""
    bundle = make_bundle(tmp_path, "aarch64-linux-android", RUNNER_MEMBER, MODEL_MEMBER)

    findings = doctor(phone, bundle, monkeypatch, tmp_path)
    alone = doctor(phone, None, monkeypatch, tmp_path)

    assert [finding.state for finding in findings] == ["ok"] * 5
    assert findings[-1].name == "probes on max (qemu)" and f"-L {tmp_path}/edgebit/bionic/" in emulator.read_text()
    assert len(alone) == 1 and "EDGEBIT_BIONIC_ROOT=" in alone[0].mend


@pytest.mark.parametrize(
    ("triple", "names", "promised"),
    [
        ("aarch64-linux-gnu", (RUNNER_MEMBER, MODEL_MEMBER), "no Android"),
        ("aarch64-linux-android", (MODEL_MEMBER,), "has no bin/edgebit-run"),
    ],
)
def test_doctor_says_what_bundle_cannot_run_there(phone, tmp_path, monkeypatch, emulator, triple, names, promised):
    """A finding with its mend, and nothing is executed."""
    (finding,) = doctor(phone, make_bundle(tmp_path, triple, *names), monkeypatch, tmp_path)

    assert (finding.state, promised in finding.detail) == ("fail", True)
    assert finding.mend.startswith("Build")
    assert not emulator.exists()


@pytest.mark.parametrize("options", [["--pull-bionic"], ["local:/x", "--bundle", "."]])
def test_doctor_refuses_options_that_say_nothing(options):
    """Before anything is looked at."""
    result = CliRunner().invoke(command, options)

    assert result.exit_code == 2 and "--pull-bionic" in result.stderr


def test_a_root_that_would_fail_silently_is_refused(tmp_path):
    """A file that is not there, and one that the emulator could not execute."""
    root = tmp_path / "root"
    with pytest.raises(BuildError, match=r"has no system/bin/linker64"):
        find_root({"EDGEBIT_BIONIC_ROOT": str(root)})
    for name in ROOT_FILES[:2]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(LIBRARY)
    with pytest.raises(BuildError, match="chmod"):
        find_root({"EDGEBIT_BIONIC_ROOT": str(root)})
    assert find_root({}) is None
