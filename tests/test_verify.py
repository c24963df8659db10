"""verify: what a report says of a bundle whose native files are built again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit import verify
from edgebit.bundle.archive import hash_file, write_archive
from edgebit.bundle.manifest import (
    LIBRARY_MEMBER,
    ORT_LIBRARY_MEMBER,
    RUNNER_MEMBER,
    BuildInfo,
    Manifest,
    ModelInfo,
    TargetInfo,
)
from edgebit.checks import Check
from edgebit.cli import cli
from edgebit.cross.native import NativeFiles
from edgebit.errors import BuildError
from edgebit.resources import SONAME
from edgebit.verify import Extent, verify_bundle
from tests.artifacts.elf_writer import ElfFile

BUILD = BuildInfo(builder="system", compiler="gcc 12", toolchain_id="0123456789abcdef")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The native files of a bundle, as far as their bytes go."""
    contents = {LIBRARY_MEMBER: b"a library", ORT_LIBRARY_MEMBER: b"operators", RUNNER_MEMBER: b"a program"}
    paths = {name: tmp_path / name.replace("/", "-") for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


@pytest.fixture
def rebuilt(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """Gives the row of `--rebuild` where build_native() gives the files, changed as the test says."""

    def row(
        *, build: BuildInfo = BUILD, extent: Extent | None = None, error: Exception | None = None, **changes: object
    ) -> Check:
        bundle = tmp_path / "x.bundle"
        bundle.unlink(missing_ok=True)
        manifest = Manifest(
            name="x", edgebit="0.1", abi=2, target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
            model=ModelInfo(name="m"), build=build, files={name: hash_file(path) for name, path in files.items()},
        )  # fmt: skip
        write_archive(bundle, manifest, files)
        native = NativeFiles(
            library=files[LIBRARY_MEMBER], ort_library=files[ORT_LIBRARY_MEMBER], runner=files[RUNNER_MEMBER],
            builder="system", compiler="gcc 12", toolchain_id=BUILD.toolchain_id, from_cache=False,
        )  # fmt: skip

        def build_native(target, builder, *, fresh):
            assert fresh, "what is in the cache proves nothing"
            assert target.arch == "aarch64"
            if error is not None:
                raise error
            return dataclasses.replace(native, builder=builder, **changes)

        monkeypatch.setattr(verify, "build_native", build_native)
        report = verify_bundle(bundle, extent or Extent(run=False, rebuild=True))
        (group,) = (group for group in report.groups if group.title == "reproducible")
        return group.checks[0]

    return row


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A library of other bytes."""
    path = tmp_path / "other.so"
    path.write_bytes(b"another library")
    return path


def test_same_bytes_pass(rebuilt):
    """Also where the sources were changed in a comment only, and by the builder that the user names."""
    assert rebuilt().status == "passed"
    assert rebuilt(toolchain_id="f" * 16).status == "passed"
    by_zig = rebuilt(extent=Extent(run=False, rebuild=True, builder="zig"))
    assert (by_zig.status, "by zig" in by_zig.detail) == ("passed", True)


def test_other_bytes_of_the_same_toolchain_fail(rebuilt, other):
    """The manifest says by which sources and compiler: it is not so."""
    for field, member in (("library", LIBRARY_MEMBER), ("ort_library", ORT_LIBRARY_MEMBER), ("runner", RUNNER_MEMBER)):
        check = rebuilt(**{field: other})
        assert (check.status, check.detail.split(":")[0]) == ("failed", member)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compiler": "gcc 13", "toolchain_id": "f" * 16}, "built by gcc 12; here is gcc 13"),
        ({"toolchain_id": "f" * 16}, "built from other sources"),
    ],
    ids=["compiler", "sources"],
)
def test_other_compiler_or_sources_judge_nothing(rebuilt, other, changes, said):
    """They may give other bytes, and a row that did not run says why."""
    check = rebuilt(library=other, **changes)

    assert (check.status, said in check.detail) == ("not run", True)


def test_what_cannot_be_built_here_says_why(rebuilt):
    """No compiler, a builder whose compiler nobody noted, or nobody asked."""
    missing = rebuilt(error=BuildError("--builder system needs a compiler"))
    installed = rebuilt(build=dataclasses.replace(BUILD, builder="installed"))
    not_asked = rebuilt(extent=Extent(run=False))

    assert {check.status for check in (missing, installed, not_asked)} == {"not run"}
    assert missing.detail == "--builder system needs a compiler"
    assert "not on record" in installed.detail
    assert "--rebuild" in not_asked.detail


@pytest.mark.parametrize("name", ["android", "a-phone-of-mine", "rpi"])
def test_files_for_android_are_held_to_androids_rules(tmp_path, name):
    """Also where the target is a file of its builder's, or its name is another's here: the triple decides."""
    library = tmp_path / "lib"
    library.write_bytes(ElfFile(soname=SONAME, needed=("libcutils.so",)).to_bytes())
    manifest = Manifest(
        name="x", edgebit="0.1", abi=2, target=TargetInfo(name=name, triple="aarch64-linux-android"),
        model=ModelInfo(name="m"), build=BUILD, files={LIBRARY_MEMBER: hash_file(library)},
    )  # fmt: skip
    write_archive(tmp_path / "x.bundle", manifest, {LIBRARY_MEMBER: library})

    report = verify_bundle(tmp_path / "x.bundle", Extent(run=False))

    details = {check.name: check.detail for group in report.groups for check in group.checks}
    assert "libcutils.so is no library that Android gives" in details["libraries of Android"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_strangers_words_are_shown_and_not_obeyed(tmp_path, options):
    """A manifest may hold what a terminal would act on."""
    library = tmp_path / "lib"
    library.write_bytes(b"a library")
    manifest = Manifest(
        name="x", edgebit="0.1", abi=2, target=TargetInfo(name="x", triple="vax\x1b[2J\x9b2J"),
        model=ModelInfo(name="m"), build=BUILD, files={LIBRARY_MEMBER: hash_file(library)},
    )  # fmt: skip
    write_archive(tmp_path / "x.bundle", manifest, {LIBRARY_MEMBER: library})

    result = CliRunner().invoke(cli, ["verify", str(tmp_path / "x.bundle"), *options])

    assert result.exit_code == 3 and "vax" in result.output
    assert not {"\x1b", "\x9b"} & set(result.output)
