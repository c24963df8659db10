"""examples/cpp: one program, built without ONNX Runtime's header, answers with the oldest and the newest release."""

import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="has the library to run with (pip install 'edgebit[onnx]')")

pytestmark = pytest.mark.slow
SOURCES = Path(__file__).resolve().parents[2] / "examples" / "cpp"
INCLUDE = "ORT_INCLUDE_DIR"  # the folder of the official onnxruntime_c_api.h
FLOOR = "1.19.2"
PROMPT = [5, 6, 7]
N = 24


@pytest.fixture(scope="module")
def generate(require_tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, by its CMakeLists.txt, every warning an error, with the example's own declarations."""
    require_tool("c++")
    build = tmp_path_factory.mktemp("build")
    configure = ["-S", str(SOURCES), "-B", str(build), "-DCMAKE_CXX_FLAGS=-Werror", f"-D{INCLUDE}="]
    for words in (configure, ["--build", str(build)]):
        done = subprocess.run([require_tool("cmake"), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "generate"


@pytest.fixture(scope="module")
def newest() -> Path:
    """libonnxruntime.so of the installed package."""
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return library


@pytest.fixture(scope="module")
def oldest(pypi_wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libonnxruntime.so of the first release that runs the operators, from its wheel."""
    member = f"onnxruntime/capi/libonnxruntime.so.{FLOOR}"
    with zipfile.ZipFile(pypi_wheel(f"onnxruntime=={FLOOR}")) as wheel:
        return Path(wheel.extract(member, tmp_path_factory.mktemp("oldest")))


@pytest.fixture
def run(generate: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(generate), *map(str, words)], capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("release", ["oldest", "newest"])
def test_tokens_are_the_engines(release, run, onnx_folder, engine_greedy, request):
    """The kernel is bound, and says so."""
    library = request.getfixturevalue(release)

    done = run(onnx_folder, ",".join(map(str, PROMPT)), "--tokens", N, "--stop", "none", "--ort", library)

    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == engine_greedy(PROMPT, N)
    assert "edgebit's kernel is bound" in done.stderr


def test_without_the_library(run, newest, onnx_folder):
    """The function that the model carries answers, and what ran is said."""
    words = ["--tokens", "4", "--stop", "none", "--ort", newest, "--library", "none"]

    done = run(onnx_folder, "5 6 7", *words)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4
    assert "without edgebit's kernel" in done.stderr


def test_ends_at_the_models_stop_token(run, newest, onnx_folder, engine_greedy, tmp_path):
    """Which is not printed; a prompt may come from a file."""
    first, second, third = engine_greedy(PROMPT, 3)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("\n".join(map(str, PROMPT)))

    done = run(onnx_folder, f"@{prompt}", "--ort", newest, "--stop", third)

    assert third not in (first, second)
    assert done.stdout.split() == [str(first), str(second)]


@pytest.mark.parametrize(
    ("words", "status", "promised"),
    [
        (["{folder}"], 2, "FOLDER and IDS are needed"),
        (["{folder}", "one"], 2, "'one' is no number"),
        (["{folder}", "1", "--thread", "2"], 2, "there is no --thread"),
        (["{folder}", "1", "--threads", "99999"], 2, "no number from 0 to 1024"),
        (["{folder}", "1", "--tokens"], 2, "--tokens needs a value"),
        (["{folder}", "@{folder}/none.txt"], 1, "none.txt: cannot be read"),
        (["{folder}", " , "], 1, "the prompt has no token"),
        (["{folder}/none", "1"], 1, "none/model.onnx: no such file. Give the folder"),
        (["{folder}", "9999999"], 1, "there is no token 9999999"),
        (["{folder}", "1", "--ort", "{folder}/none.so"], 1, "Name libonnxruntime.so by --ort"),
        (["{folder}", "1", "--ort", "{folder}/libedgebit_ort.so"], 1, "not ONNX Runtime"),
        (["{folder}", "1", "--library", "{folder}/none.so"], 1, "none.so"),
        (["{folder}", "1", "--library", "{folder}/model.onnx"], 1, "invalid ELF header"),
    ],
    ids=lambda value: None,
)
def test_mistakes_are_one_line(words, status, promised, run, newest, onnx_folder):
    """What is wrong and where; the usage only where the command line is not understood."""
    done = run(*(["--ort", newest] if "--ort" not in words else []), *(w.format(folder=onnx_folder) for w in words))

    first, *rest = done.stderr.splitlines()
    assert done.returncode == status, done.stderr
    assert first.startswith("error: ")
    assert promised in first
    assert (rest != []) == (status == 2), done.stderr


def test_help_is_no_mistake(run):
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: generate FOLDER IDS")


def test_library_for_another_machine(run, newest, onnx_folder, copy_of):
    """The loader would say that there is no such file."""
    folder = copy_of(onnx_folder)
    library = bytearray((folder / "libedgebit_ort.so").read_bytes())
    library[18:20] = (8).to_bytes(2, "little")
    (folder / "libedgebit_ort.so").write_bytes(library)

    done = run(folder, "1", "--ort", newest)

    assert done.returncode == 1
    assert "libedgebit_ort.so is for machine 8, this machine is " in done.stderr
    assert "--library none" in done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_file_cut_short(name, run, newest, onnx_folder, copy_of):
    """A copy that ended early is named, not run."""
    folder = copy_of(onnx_folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])

    done = run(folder, "1", "--ort", newest)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "model.onnx" in done.stderr


def test_runtime_too_old(run, require_tool, onnx_folder, tmp_path):
    """It says which one this is and which is needed."""
    source, library = Path(__file__).with_name("old_onnxruntime.c"), tmp_path / "libonnxruntime.so"
    subprocess.run([require_tool("cc"), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)

    done = run(onnx_folder, "1", "--ort", library)

    assert done.returncode == 1
    assert "ONNX Runtime 1.12.1 is too old: take 1.19 or later" in done.stderr


def test_own_declarations_are_the_official_ones(require_tool, skip, tmp_path):
    """Every function stands where the official header has it, with the same type; and the program builds with that."""
    official = os.environ.get(INCLUDE) or "/usr/include/onnxruntime"
    if not (Path(official) / "onnxruntime_c_api.h").is_file():
        skip(f"no official onnxruntime_c_api.h: {INCLUDE} names no folder with one, nor is it in {official}")
    own = (SOURCES / "ort_c_api.h").read_text()
    names = re.findall(r"\(\*(\w+)\)\(", own.split("struct OrtApi {")[1].split("static_assert")[0])
    # The own declarations under other names: two tables in one program.
    table = re.sub(
        r"\bOrtApi\b", "OwnApi", "struct OrtApi {" + own.split("struct OrtApi {")[1].split("static_assert")[0]
    )
    checks = [f"static_assert(offsetof(OwnApi, {name}) == offsetof(OrtApi, {name}));" for name in names]
    checks += [f"void {name}(OwnApi *own, const OrtApi *api) {{ own->{name} = api->{name}; }}" for name in names]
    source = tmp_path / "check.cpp"
    source.write_text(
        "\n".join(["#include <cstddef>", "#include <cstdint>", "#include <onnxruntime_c_api.h>", table, *checks])
    )
    build = [require_tool("c++"), "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", official, "-c"]

    for path in (source, *SOURCES.glob("*.cpp")):
        command = [*build, str(path), "-o", str(tmp_path / "object.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(names) == own.count("(*") - 2  # those of OrtApiBase
