"""examples/python answers as the engine does, with the library and without it."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the example (pip install 'edgebit[onnx]')")
tokenizers = pytest.importorskip("tokenizers", reason="the example's tokenizer (pip install tokenizers)")

ANSWER = Path(__file__).resolve().parents[2] / "examples" / "python" / "answer.py"
PROMPT = "Who are you?"
FLOOR = "1.19.2"
N = 24


@pytest.fixture(scope="module")
def answer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_answer", ANSWER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(
    *words: str | Path, environment: dict[str, str] | None = None, program: Path = ANSWER
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (environment or {}))


def run_genai(*words: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run(*words, environment=environment, program=ANSWER.with_name("answer_genai.py"))


FORMS = {"contrib": [], "standard": ["--ops", "standard"], "stock": ["--stock"]}


@pytest.mark.parametrize("form", ["contrib", "standard"])
def test_tokens_are_the_engines(form, answer, onnx_folder_of, engine_greedy):
    """With the kernel bound: the same bits in every projection, so the same greedy tokens."""
    folder = onnx_folder_of(*FORMS[form])
    ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT).ids
    session = answer.open_session(folder, folder / answer.LIBRARY, threads=1)

    assert answer.is_bound(folder / answer.LIBRARY)
    assert list(answer.generate(session, ids, set(), N)) == engine_greedy(ids, N)


@pytest.mark.parametrize("form", FORMS)
def test_readme_of_a_folder_opens_it(form, onnx_folder_of):
    """Its lines of Python run inside the folder, and stand on the oldest release that it names."""
    folder = onnx_folder_of(*FORMS[form])
    readme = (folder / "README.md").read_text()
    lines = readme.split("```python\n")[1].split("```")[0]
    check = "print(session.get_inputs()[0].name)"

    done = subprocess.run(
        [sys.executable, "-c", lines + check], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip

    assert done.stdout == "input_ids\n", done.stderr
    assert ("register_custom_ops_library" in lines) == (form != "stock")
    assert f"ONNX Runtime {'1.19.2' if form == 'contrib' else '1.24'} or later" in readme


@pytest.mark.parametrize("option", [[], ["--no-library"]], ids=["library", "fallback"])
def test_program_answers_and_says_what_runs(option, onnx_folder):
    """The text of `edgebit run` on standard output: the same template, tokens and end; what ran on standard error."""
    words = ["run", str(onnx_folder), PROMPT, "--temperature", "0", *(["--library", "none"] if option else [])]
    edgebit = subprocess.run([sys.executable, "-m", "edgebit", *words], capture_output=True, text=True, check=True)

    done = run(onnx_folder, PROMPT, *option)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20
    assert done.stdout == edgebit.stdout
    assert done.stderr.strip().endswith("without edgebit's kernel" if option else "edgebit's kernel is bound")


@pytest.mark.slow
def test_oldest_release_answers_alike(pypi_wheel, onnx_folder, tmp_path):
    """The first ONNX Runtime that runs these models, with the library."""
    with zipfile.ZipFile(pypi_wheel(f"onnxruntime=={FLOOR}")) as wheel:
        wheel.extractall(tmp_path)

    done = run(onnx_folder, PROMPT, environment={"PYTHONPATH": str(tmp_path)})

    assert done.returncode == 0, done.stderr
    assert f"ONNX Runtime {FLOOR}, edgebit's kernel is bound" in done.stderr
    assert done.stdout == run(onnx_folder, PROMPT).stdout


@pytest.mark.parametrize(
    ("damage", "promised"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "has no model.onnx. Give the folder"),
        (lambda folder: (folder / "model.onnx.data").unlink(), "model.onnx.data"),
        (lambda folder: (folder / "libedgebit_ort.so").write_bytes(b"\x7fELF"), "libedgebit_ort.so"),
    ],
    ids=["no model", "no data", "broken library"],
)
def test_damaged_folder_is_one_line(damage: Callable[[Path], None], promised: str, onnx_folder, copy_of):
    """What is wrong and where, without a traceback."""
    folder = copy_of(onnx_folder)
    damage(folder)

    done = run(folder, PROMPT)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert promised in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_library_for_another_machine(onnx_folder, copy_of):
    """The loader would say that there is no such file."""
    folder = copy_of(onnx_folder)
    library = bytearray((folder / "libedgebit_ort.so").read_bytes())
    library[18:20] = (8).to_bytes(2, "little")
    (folder / "libedgebit_ort.so").write_bytes(library)

    done = run(folder, PROMPT)

    assert done.returncode == 1
    assert "libedgebit_ort.so is for machine 8, this machine is " in done.stderr and "--no-library" in done.stderr


def test_neither_library_nor_fallback_is_told(onnx_folder_of):
    """And not that ONNX Runtime is too old."""
    done = run(onnx_folder_of("--no-library", "--fallback", "none"), PROMPT)

    assert done.returncode == 1
    assert "libedgebit_ort.so is missing in the folder" in done.stderr and "1.24" not in done.stderr


def test_genai_missing_is_one_line(tmp_path):
    """What to install, without a traceback."""
    (tmp_path / "onnxruntime_genai.py").write_text("raise ImportError('No module named onnxruntime_genai')")

    done = run_genai(tmp_path, PROMPT, environment={"PYTHONPATH": str(tmp_path)})

    assert done.returncode == 1
    assert done.stderr == ("error: No module named onnxruntime_genai. Install it: pip install onnxruntime-genai\n")


@pytest.mark.reference
@pytest.mark.parametrize(
    ("damage", "promised"),
    [
        (lambda folder: (folder / "genai_config.json").unlink(), "has no genai_config.json. Give a folder"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ""),
    ],
    ids=["no configuration", "no model", "broken tokenizer"],
)
def test_damaged_folder_is_one_line_of_genai(damage: Callable[[Path], None], promised: str, onnx_folder, copy_of):
    """The same by the second script."""
    pytest.importorskip("onnxruntime_genai", reason="runs the example (pip install 'edgebit[genai]')")
    folder = copy_of(onnx_folder)
    damage(folder)

    done = run_genai(folder, PROMPT)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {folder}") and promised in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.reference
def test_genai_answers_alike(onnx_folder):
    """The second script, by onnxruntime-genai: the same text as by the first."""
    pytest.importorskip("onnxruntime_genai", reason="runs the example (pip install 'edgebit[genai]')")

    done = run_genai(onnx_folder, PROMPT)

    assert done.returncode == 0, done.stderr
    assert done.stdout == run(onnx_folder, PROMPT).stdout
