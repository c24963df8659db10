"""ONNX Runtime as the doctor sees it: absent, there, with wrong kernels, and a folder in all states."""

import errno
import hashlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebit.cli import cli
from edgebit.doctor import onnx_runtime
from edgebit.doctor.onnx_runtime import check_onnx_folder, check_onnx_runtime, n2_tiles
from edgebit.errors import OnnxError
from edgebit.resources import ort_library


def named(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture
def installed(native):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.fixture
def absent(monkeypatch):
    """No onnxruntime, as on most machines."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.fixture(scope="module")
def exported(native, reference_checkpoint, tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from edgebit.export.to_onnx import export_onnx

    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export_onnx(reference_checkpoint("bitnet-packed"), folder, library=ort_library())
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "folder")


def make_foreign(folder):
    """Give it a library that is another machine's, with the sum that model.onnx has of it."""
    library, graph = folder / "libedgebit_ort.so", folder / "model.onnx"
    data = bytearray(library.read_bytes())
    before = hashlib.sha256(data).hexdigest()
    data[18:20] = b"\xf3\x00"  # e_machine: RISC-V
    library.unlink()
    library.write_bytes(data)
    whole = graph.read_bytes().replace(before.encode(), hashlib.sha256(data).hexdigest().encode())
    graph.unlink()
    graph.write_bytes(whole)


def test_that_it_is_absent_is_no_fault(absent):
    """One finding, which says what it would be for and how to get it."""
    (finding,) = check_onnx_runtime()
    assert (finding.state, finding.mend) == ("ok", "pip install 'edgebit[onnx]'")
    assert "not installed" in finding.detail


def test_our_kernels_are_tried(installed):
    findings = named(check_onnx_runtime())
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["its kernels"].detail == "both are bound, and compute what they must"
    assert findings["onnxruntime"].detail == sys.modules["onnxruntime"].__version__


def test_without_onnx_no_kernel_is_tried(installed, monkeypatch):
    """ONNX Runtime alone runs folders; only the doctor writes a graph."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    finding = named(check_onnx_runtime())["its kernels"]
    assert (finding.state, finding.mend) == ("unknown", "pip install 'edgebit[onnx]'")


def test_kernels_that_compute_something_else_are_a_fault(installed, monkeypatch):
    """Here the graph has other weights than those that the sums are taken of."""
    monkeypatch.setattr(onnx_runtime, "n2_tiles", lambda rows: n2_tiles([*rows[1:], rows[0]]))
    finding = named(check_onnx_runtime())["its kernels"]
    assert finding.state == "fail" and "TernaryMatMul gives" in finding.detail and "must give" in finding.detail


def test_a_missing_library_is_a_warning(installed, monkeypatch):
    def missing():
        raise OnnxError("the library of ONNX operators is missing: x.so. Build it: cmake")

    monkeypatch.setattr(onnx_runtime, "ort_library", missing)
    finding = named(check_onnx_runtime())["library of operators"]
    assert (finding.state, finding.mend) == ("warn", "Build it: cmake")


def test_an_old_runtime_is_a_warning(installed, monkeypatch):
    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", "1.18.1")
    finding = named(check_onnx_runtime())["onnxruntime"]
    assert (finding.state, finding.detail) == ("warn", "1.18.1, folders need 1.19 or later")


def test_a_sound_folder(folder):
    """Whose kernel runs is read off the library's own count, not off the file that lies there."""
    findings = named(check_onnx_folder(folder))
    assert findings["graph"].detail.startswith("bitnet-packed, written by edgebit")
    assert {finding.state for finding in findings.values()} <= {"ok", "unknown"}
    assert findings["fast kernel"].detail.startswith(f"bound, from {folder / 'libedgebit_ort.so'}")
    assert findings["without the library"].detail.startswith("compact: ")


def test_without_the_library_the_fallback_runs(folder):
    (folder / "libedgebit_ort.so").unlink()
    findings = named(check_onnx_folder(folder))
    assert (findings["its library"].state, findings["fast kernel"].state) == ("warn", "warn")
    assert "the fallback 'compact' runs" in findings["fast kernel"].detail


def test_a_library_that_may_not_be_read_is_said(folder, monkeypatch):
    """As a finding with the file's name, for whoever copied the folder as root."""
    library, read = folder / "libedgebit_ort.so", Path.read_bytes

    def refuse(path):
        if path == library:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    findings = named(check_onnx_folder(folder))
    for name in ("its library", "fast kernel"):
        assert findings[name].state in ("fail", "unknown"), name
        assert f"{library}" in findings[name].detail and "Permission denied" in findings[name].detail


def test_a_folder_in_the_place_of_the_library_is_a_fault(folder):
    """It is there, and no library."""
    library = folder / "libedgebit_ort.so"
    library.unlink()
    library.mkdir()
    findings = named(check_onnx_folder(folder))
    for name in ("files", "its library"):
        assert findings[name].state == "fail" and findings[name].detail.startswith(f"{library} is a folder"), name


def test_a_stock_folder_needs_none_of_it(installed, reference_checkpoint, tmp_path):
    """No library, no fallback, and no word of either."""
    from edgebit.export.to_onnx import OnnxForm, export_onnx

    export_onnx(reference_checkpoint("bitnet-packed"), tmp_path / "stock", form=OnnxForm(stock=True, fallback="none"))
    findings = named(check_onnx_folder(tmp_path / "stock"))
    assert "without the library" not in findings and {finding.state for finding in findings.values()} == {"ok"}
    assert findings["fast kernel"].detail.startswith("none is needed")


def test_a_library_for_another_machine(folder):
    """It is no fault of a folder that is made for a device; whether it runs fast there cannot be tried here."""
    make_foreign(folder)
    findings = named(check_onnx_folder(folder))
    assert findings["its library"].state == "warn" and findings["fast kernel"].state == "unknown"
    assert "riscv64" in findings["its library"].detail or "ELF machine 243" in findings["its library"].detail


@pytest.mark.parametrize("library", ["none", "foreign"])
@pytest.mark.parametrize("version", ["latest", "1.22.0"])
def test_a_folder_that_nothing_can_run_fails(exported, folder, reference_checkpoint, monkeypatch, library, version):
    """Without a library for this machine, and with no fallback or one that ONNX Runtime is too old for."""
    from edgebit.export.to_onnx import OnnxForm, export_onnx

    monkeypatch.delenv("EDGEBIT_ORT_LIBRARY", raising=False)
    if version == "latest":
        shutil.rmtree(folder)
        form = OnnxForm(fallback="none")
        export_onnx(reference_checkpoint("bitnet-packed"), folder, form=form, library=ort_library())
    else:
        monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", version)
    if library == "foreign":
        make_foreign(folder)
    else:
        (folder / "libedgebit_ort.so").unlink()
    finding = named(check_onnx_folder(folder))["fast kernel"]
    assert finding.state == "fail" and "--library" not in finding.mend
    assert "--target" in finding.mend or "pip install -U onnxruntime" in finding.mend
    assert CliRunner().invoke(cli, ["doctor", "--onnx", str(folder)]).exit_code == 1


@pytest.mark.parametrize(
    ("version", "state", "words"),
    [
        ("1.22.0", "warn", "its products of 2 bits need 1.24"),
        ("1.24.4", "warn", "multiplies two bits slowly"),
        ("1.28.0", "ok", "as fast as ONNX Runtime's own"),
    ],
)
def test_what_the_fallback_is_good_for_depends_on_the_version(exported, monkeypatch, version, state, words):
    monkeypatch.setattr(sys.modules["onnxruntime"], "__version__", version)
    finding = named(check_onnx_folder(exported))["without the library"]
    assert finding.state == state and words in finding.detail
    assert ("pip install -U onnxruntime" in finding.mend) == (state == "warn")


def test_a_damaged_folder_fails(folder):
    """Cut short, it is no folder; and the command's exit code says so."""
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    (finding,) = check_onnx_folder(folder)
    assert finding.state == "fail" and "a copy cut short" in finding.detail + finding.mend
    assert CliRunner().invoke(cli, ["doctor", "--onnx", str(folder)]).exit_code == 1


def test_a_folder_without_onnxruntime(exported, absent):
    """What needs none is told all the same; but the folder is what was asked for, and does not run."""
    findings = named(check_onnx_folder(exported))
    assert findings["its library"].state == "ok" and findings["fast kernel"].state == "fail"
    assert "pip install" in findings["fast kernel"].mend
