"""libedgebit_ort.so for a target: what is said where there is none, or one that is not what it should be."""

from dataclasses import replace

import pytest

from edgebit.cross import ort_library
from edgebit.cross.native import NativeFiles, build_native
from edgebit.errors import BuildError
from edgebit.resources import native_library
from edgebit.targets import host_target


@pytest.fixture
def built(native, monkeypatch) -> NativeFiles:
    """What a builder is made to give: the engine's own library in the place of the operators'."""
    files = replace(build_native(host_target()), ort_library=native_library())
    monkeypatch.setattr(ort_library, "build_native", lambda *_, **__: files)
    return files


def test_a_library_that_is_another_is_refused(built):
    """Every failed check is named; nothing is said of a bundle, since none was to be written."""
    with pytest.raises(BuildError, match=r"libedgebit_ort\.so built by installed does not hold") as refused:
        ort_library.build_ort_library(host_target())

    assert "'libedgebit.so', not 'libedgebit_ort.so'" in str(refused.value)
    assert "RegisterCustomOps is missing" in str(refused.value)
    assert "bundle" not in str(refused.value)


def test_a_library_that_is_not_there_is_named(native, monkeypatch, tmp_path):
    """And how else to come by one."""
    monkeypatch.setenv("EDGEBIT_ORT_LIBRARY", str(tmp_path / "none.so"))
    words = r"EDGEBIT_ORT_LIBRARY names .*none\.so, .*--builder system, or --builder zig"

    with pytest.raises(BuildError, match=words):
        ort_library.require_ort_library(build_native(host_target()))
