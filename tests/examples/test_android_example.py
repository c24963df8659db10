"""examples/android is Java that compiles, and runs where onnxruntime.jar is at hand."""

import os
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "android"
SOURCES = sorted(map(str, EXAMPLE.glob("*.java")))
DECLARATIONS = Path(__file__).with_name("onnxruntime_java")
JAR = "EDGEBIT_ORT_JAR"  # onnxruntime.jar, or a class path of the binding and a folder with its libraries
PROMPT = [5, 6, 7]


@pytest.mark.slow
def test_compiles_without_a_warning(require_tool, tmp_path):
    """Against declarations of the API, since no registry has the jar."""
    command = [require_tool("javac"), "--release", "8", "-Xlint:all,-serial,-options", "-Werror"]

    done = subprocess.run(
        [*command, "-sourcepath", str(DECLARATIONS), "-d", str(tmp_path), *SOURCES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def jar(skip) -> str:
    return os.environ.get(JAR) or skip(f"{JAR} names no onnxruntime.jar")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["libedgebit_ort.so", "none"])
def test_tokens_are_the_engines(library, jar, require_tool, onnx_folder, engine_greedy, tmp_path):
    """On a desktop's JVM, by the real binding."""
    subprocess.run([require_tool("javac"), "-cp", jar, "-d", str(tmp_path), *SOURCES], check=True)
    used = library if library == "none" else str(onnx_folder / library)
    words = [str(onnx_folder / "model.onnx"), used, ",".join(map(str, PROMPT)), "", "16"]

    done = subprocess.run(
        [require_tool("java"), "-cp", f"{jar}:{tmp_path}", "ai.edgebit.example.Generate", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    answer = [int(word) for word in done.stdout.strip("[]\n").split(", ")]
    assert answer[:1] == engine_greedy(PROMPT, 16)[:1]
    if library != "none":
        assert answer == engine_greedy(PROMPT, 16)
