"""Comparing builds: what must be equal, what may differ, and what is said of each. No compiler runs."""

from pathlib import Path

import pytest

from edgebit.cross import reproduce
from edgebit.cross.reproduce import Rebuild, check_reproducible, compare_builders, compare_builds
from edgebit.cross.toolchain import BUILDERS, Toolchain
from edgebit.errors import BuildError
from edgebit.targets import Target, find_target

RPI = find_target("rpi")
FILES = {"libedgebit.so": "1", "libedgebit_ort.so": "2", "edgebit-run": "3"}
OTHER_OPERATORS = FILES | {"libedgebit_ort.so": "x"}
OTHER_LIBRARY, OTHER_PROGRAM = FILES | {"libedgebit.so": "x"}, FILES | {"edgebit-run": "x"}
MUSL = {"compiler": "gcc 12, ld 2.40, musl", "identity": "b"}


def built(
    builder: str, *sums: dict[str, str], compiler: str = "gcc 12, ld 2.40, glibc 2.36", identity: str = "a"
) -> Rebuild:
    toolchain = Toolchain(builder=builder, name="gcc", compiler=compiler)
    return Rebuild(builder=builder, toolchain=toolchain, toolchain_id=identity, sums=sums or (FILES, FILES))


def test_one_builder_must_repeat():
    """The file that differs is named."""
    assert compare_builds(built("zig")).status == "passed"

    check = compare_builds(built("zig", FILES, FILES | {"edgebit-run": "other"}))

    assert check.status == "failed"
    assert check.detail.startswith("edgebit-run: not the same bytes")


@pytest.mark.parametrize(
    ("second", "status", "words"),
    [
        (built("system"), "passed", "libedgebit.so, libedgebit_ort.so, edgebit-run: the same bytes"),
        (built("system", OTHER_PROGRAM), "failed", "edgebit-run"),
        (built("system", OTHER_PROGRAM, **MUSL), "passed", "libedgebit.so"),
        (built("system", OTHER_LIBRARY, **MUSL), "failed", "libedgebit.so"),
        (built("system", OTHER_OPERATORS, **MUSL), "failed", "libedgebit_ort.so"),
        (built("zig", OTHER_LIBRARY, compiler="zig 1", identity="c"), "not run", "other compilers"),
    ],
)  # fmt: skip
def test_builders_agree_as_far_as_their_compilers_do(second, status, words):
    """All with one toolchain id, the library with one compiler and another libc, nothing with another compiler."""
    (check,) = compare_builders([built("docker"), second])

    assert check.status == status
    assert words in check.detail


def test_sources_are_compiled_in_two_places(monkeypatch):
    """From copies, in folders of different names, and with what they hold unchanged."""
    seen: list[tuple[Path, Path, str]] = []

    def compile_native(target: Target, toolchain: Toolchain, build_dir: Path, **place: object) -> dict[str, Path]:
        assert (Path(str(place["kernels"])) / "CMakeLists.txt").is_file()
        seen.append((build_dir, Path(str(place["kernels"])), str(place["place"])))
        for name in FILES:
            (build_dir / name).write_text(name)
        return {name: build_dir / name for name in FILES}

    monkeypatch.setattr(reproduce, "compile_native", compile_native)
    toolchain = Toolchain(builder="system", name="gcc", compiler="gcc")

    checks, rebuilds = check_reproducible(RPI, ("system",), choose=lambda target, builder: toolchain)

    assert [check.status for check in checks] == ["passed"]
    assert len({place for place, _, _ in seen}) == len({there for _, _, there in seen}) == 2
    assert rebuilds[0].sums[0] == rebuilds[0].sums[1]
    assert not any(place.exists() for place, _, _ in seen)


def test_a_named_builder_that_cannot_be_had_is_an_error():
    """One that was not named is a check that did not run, with the reason."""

    def choose(target: Target, builder: str) -> Toolchain:
        raise BuildError(f"{builder} is not here")

    with pytest.raises(BuildError, match="docker is not here"):
        check_reproducible(RPI, ("docker",), choose=choose)
    checks, rebuilds = check_reproducible(RPI, (), choose=choose)

    can_build = set(BUILDERS) - {"auto", "ndk"}  # an NDK builds for Android alone
    assert {check.detail for check in checks} == {f"{builder} is not here" for builder in can_build}
    for_android, _ = check_reproducible(find_target("android"), (), choose=choose)
    assert "ndk is not here" in {check.detail for check in for_android}
    assert {check.status for check in checks} == {"not run"}
    assert rebuilds == []
