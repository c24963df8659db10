"""The ONNX operators as C checks, without ONNX Runtime: at each ISA level, under sanitizers, on AArch64."""

from collections.abc import Callable

import pytest

from tests.kernels.conftest import CheckBuild
from tests.kernels.test_ukernels import AARCH64_LEVELS

PROGRAM = "checks/check_ort_matmul"
ENGINE = "checks/check_ort_engine"
RUNTIME = "checks/check_ort_runtime"


def test_nothing_is_left_behind_whatever_a_runtime_refuses(check_build: Callable[[str], CheckBuild]):
    """Each call refused in turn, registrations from threads, several runtimes, one that is too old."""
    assert "leave nothing behind" in check_build("host").run(RUNTIME)


def test_products_are_as_defined_at_each_isa_level(isa_levels: list[str], check_build: Callable[[str], CheckBuild]):
    """To the last bit: odd shapes, groups, 8 and 15 bits, 1 to 200 tokens, 16-bit floats, NaN, parts in any order."""
    build = check_build("host")

    for isa in isa_levels:
        assert f"all products are as defined ({isa})" in build.run(PROGRAM, isa=isa)


def test_projections_have_the_engines_bits_at_each_isa_level(
    isa_levels: list[str], check_build: Callable[[str], CheckBuild]
):
    """The same weights through the engine's layout and code, and through the operator's."""
    build = check_build("host")

    for isa in isa_levels:
        assert f"projections have the engine's bits ({isa})" in build.run(ENGINE, isa=isa)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sanitized", "threads"])
def test_products_hold_under_sanitizers(kind: str, check_build: Callable[[str], CheckBuild]):
    """No access outside of a buffer or of the scratch memory that was asked for, nothing undefined; no race."""
    build = check_build(kind)

    assert "all products are as defined" in build.run(PROGRAM)
    assert "projections have the engine's bits" in build.run(ENGINE)
    assert "leave nothing behind" in build.run(RUNTIME)


@pytest.mark.slow
@pytest.mark.parametrize(("isa", "cpu"), AARCH64_LEVELS)
def test_products_are_as_defined_on_aarch64(isa: str, cpu: str, check_build: Callable[[str], CheckBuild]):
    """And HWCAP is what getauxval() says, found without it."""
    build = check_build("aarch64")

    assert f"all products are as defined ({isa})" in build.run(PROGRAM, isa=isa, cpu=cpu)
    assert f"projections have the engine's bits ({isa})" in build.run(ENGINE, isa=isa, cpu=cpu)
