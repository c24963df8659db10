"""Which library a session registers, what is said of one that cannot be, and whether its kernels run."""

import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from edgebit.errors import OnnxError
from edgebit.onnx_engine.binding import OperatorLibrary, find_library
from edgebit.onnx_engine.folder import LIBRARY_VARIABLE, OnnxFolder
from edgebit.onnx_engine.session import OnnxSession

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

MACHINE_AT = 18  # of an ELF header: e_machine, two bytes
ANOTHER = {62: 183, 183: 62}  # x86-64, aarch64

DUMB = """
void *RegisterCustomOps(void *options, const void *api) { (void)options; (void)api; return 0; }
unsigned long long edgebit_ort_kernels(void) { return 0; }
const char *edgebit_ort_version(void) { return "0.0.0"; }
"""


# The table's first function is CreateStatus(code, message): the only one that a refusal needs.
REFUSING = """
struct base { void *(*const *(*GetApi)(unsigned))(int, const char *); };
void *RegisterCustomOps(void *options, const struct base *base) {
    (void)options;
    return base->GetApi(1)[0](1, "libedgebit_ort 9.9.9 needs ONNX Runtime 1.99 or later, and this is old");
}
unsigned long long edgebit_ort_kernels(void) { return 0; }
const char *edgebit_ort_version(void) { return "9.9.9"; }
"""


@pytest.fixture
def compiled(require_tool, tmp_path):
    """Gives a library of a C source."""

    def compile_(source):
        (tmp_path / "library.c").write_text(source)
        command = [require_tool("cc"), "-shared", "-fPIC", "-o", "library.so", "library.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        return tmp_path / "library.so"

    return compile_


@pytest.fixture
def folder(hand_made, monkeypatch):
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    return OnnxFolder.open(hand_made())


def binding_of(folder, library=None):
    return OnnxSession.open(folder, threads=1, library=library).binding


def test_with_the_library_the_kernel_is_bound(folder, ort_library):
    """Also in a second session of the process, whose kernels are counted beside the first one's."""
    for _ in range(2):
        binding = binding_of(folder, str(ort_library))
        assert (binding.state, binding.library, binding.note) == ("bound", ort_library, None)
    assert OperatorLibrary.load(ort_library).version


def test_without_it_the_fallback_runs_and_says_so(folder):
    binding = binding_of(folder)
    assert (binding.state, binding.library) == ("fallback", None)
    assert "the fallback 'exact' runs, not the fast kernel: libedgebit_ort.so is not there" in binding.note


def test_a_graph_without_our_operators_needs_none(hand_made, monkeypatch):
    """Whatever the environment says for other folders; one that is named for this very one would be of no use."""
    folder = OnnxFolder.open(hand_made(own_head=False))
    monkeypatch.setenv(LIBRARY_VARIABLE, "/no/such/library.so")
    for named in (None, "none"):
        binding = binding_of(folder, named)
        assert (binding.state, binding.library, binding.note) == ("none", None, None)
    with pytest.raises(OnnxError, match=r"--library names x\.so, and .*model\.onnx has no operators of ours"):
        binding_of(folder, "x.so")


def test_a_library_that_registers_nothing_is_not_called_bound(folder, compiled):
    """The count is what tells: ONNX Runtime itself says nothing."""
    library = compiled(DUMB)
    binding = binding_of(folder, str(library))
    assert binding.state == "fallback"
    assert f"{library} made no kernel" in binding.note


def test_a_library_that_refuses_the_runtime_is_heard(folder, compiled):
    """What it says goes on to the user, with how to mend it."""
    library = compiled(REFUSING)
    with pytest.raises(OnnxError, match=r"needs ONNX Runtime 1\.99 or later.*pip install -U onnxruntime") as refused:
        binding_of(folder, str(library))
    assert str(library) in str(refused.value)


def test_the_option_goes_before_the_environment_and_that_before_the_folder(folder, monkeypatch, tmp_path):
    own, named, asked = folder.library_path, tmp_path / "named.so", tmp_path / "asked.so"
    assert find_library(folder, None) is None
    for path in (own, named, asked):
        path.write_bytes(b"")
    assert find_library(folder, None) == own
    assert find_library(folder, "none") is None
    monkeypatch.setenv(LIBRARY_VARIABLE, str(named))
    assert find_library(folder, None) == named
    assert find_library(folder, str(asked)) == asked
    monkeypatch.setenv(LIBRARY_VARIABLE, "none")
    assert find_library(folder, None) is None


def test_the_folder_s_own_library_is_the_one_that_was_exported(hand_made, monkeypatch):
    """It is code that runs here; one that is another on purpose can be named."""
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    sums = json.dumps({"libedgebit_ort.so": hashlib.sha256(b"whole").hexdigest()})
    folder = OnnxFolder.open(hand_made(properties={"edgebit.files_sha256": sums}))
    assert find_library(folder, None) is None
    folder.library_path.write_bytes(b"whole")
    assert find_library(folder, None) == folder.library_path
    folder.library_path.write_bytes(b"whol")
    with pytest.raises(OnnxError, match=r"libedgebit_ort\.so is damaged or altered.*name it in EDGEBIT_ORT_LIBRARY"):
        find_library(folder, None)
    assert find_library(folder, str(folder.library_path)) == folder.library_path
    assert find_library(folder, "none") is None


@pytest.mark.parametrize("by", ["--library", LIBRARY_VARIABLE])
def test_a_named_library_that_is_not_there_is_an_error(folder, monkeypatch, by):
    """Never a silent fallback."""
    if by == LIBRARY_VARIABLE:
        monkeypatch.setenv(by, "/no/such.so")
    with pytest.raises(OnnxError, match=f"{by} names /no/such.so, and there is no such file"):
        binding_of(folder, "/no/such.so" if by == "--library" else None)


@pytest.mark.parametrize("by", ["--library", LIBRARY_VARIABLE])
@pytest.mark.parametrize(("place", "words"), [("/", "that is a folder"), ("/dev/null", "that is no file")])
def test_what_is_no_file_is_not_called_missing(folder, monkeypatch, by, place, words):
    if by == LIBRARY_VARIABLE:
        monkeypatch.setenv(by, place)
    with pytest.raises(OnnxError, match=f"{by} names {place}, and {words}"):
        find_library(folder, place if by == "--library" else None)


def test_an_option_without_a_name_is_refused(folder):
    """Unlike a variable, which is often emptied to unset it."""
    with pytest.raises(OnnxError, match="--library names no file"):
        find_library(folder, "")


@pytest.mark.parametrize("by", ["--library", LIBRARY_VARIABLE])
@pytest.mark.parametrize("content", [b"garbage", None])
def test_the_way_without_it_is_the_one_that_wins(folder, monkeypatch, tmp_path, by, content):
    """EDGEBIT_ORT_LIBRARY=none does nothing where --library is given."""
    library = tmp_path / "bad.so"
    library.write_bytes(content or b"")
    if content is None:
        refuse_to_read(library, monkeypatch)
    if by == LIBRARY_VARIABLE:
        monkeypatch.setenv(by, str(library))
    with pytest.raises(OnnxError) as refused:
        binding_of(folder, str(library) if by == "--library" else None)
    way = f"chmod a+rX {library}"
    if content:
        way = "give --library none" if by == "--library" else "have EDGEBIT_ORT_LIBRARY=none in its environment"
    assert str(refused.value).startswith(str(library)) and str(refused.value).endswith(way)


def refuse_to_read(place, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path == place:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)


def for_another_machine(content: bytes) -> bytes:
    machine = ANOTHER[int.from_bytes(content[MACHINE_AT : MACHINE_AT + 2], "little")]
    return content[:MACHINE_AT] + machine.to_bytes(2, "little") + content[MACHINE_AT + 2 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (for_another_machine, "is for (aarch64|x86_64), this machine is "),
        (lambda content: content[: len(content) // 2], "is a damaged ELF file"),
        (lambda content: content[:40], "is a damaged ELF file"),
        (lambda content: b"", "is not an ELF file"),
        (lambda content: b"MZ" + content[2:], "is not an ELF file"),
        (lambda content: content.replace(b"RegisterCustomOps", b"RegistrrCustomOps"), "exports no RegisterCustomOps"),
        (lambda content: content.replace(b"edgebit_ort_kernels", b"edgebit_art_kernels"), "not edgebit's library"),
    ],
)  # fmt: skip
def test_a_library_in_the_folder_that_cannot_be_used_is_named(folder, ort_library, change, words):
    """With what makes one for this machine, and how to do without."""
    folder.library_path.write_bytes(change(ort_library.read_bytes()))
    with pytest.raises(OnnxError, match=words) as refused:
        binding_of(folder)
    assert str(folder.library_path) in str(refused.value)
    assert "--target" in str(refused.value) and "EDGEBIT_ORT_LIBRARY=none" in str(refused.value)
    assert binding_of(folder, "none").state == "fallback"


def test_another_library_of_ours_is_none_of_operators(folder, native):
    with pytest.raises(OnnxError, match="exports no RegisterCustomOps: it is no library of operators"):
        binding_of(folder, str(native.path))
