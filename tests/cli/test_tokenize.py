"""`edgebit tokenize` as a script calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgebit.export.to_gguf import export_gguf

REFERENCE = Path(__file__).resolve().parent.parent / "reference"
CASES = json.loads((REFERENCE / "tiny-tokenizer-cases.json").read_text())


def tokenize(path, *arguments, given=b""):
    command = [sys.executable, "-m", "edgebit", "tokenize", str(path), *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=120)


@pytest.fixture(params=["model file", "checkpoint", "tokenizer.json", "GGUF file"])
def source(request, native, reference_model, tmp_path):
    """Every kind of MODEL, each with the same tokenizer."""
    if request.param == "model file":
        return reference_model("bitnet-packed")
    folder = REFERENCE / "bitnet-packed"
    if request.param == "GGUF file":
        return export_gguf(folder, tmp_path / "model.gguf").out
    return folder if request.param == "checkpoint" else folder / "tokenizer.json"


def test_ids_are_those_of_the_reference(source):
    """Numbers with spaces, no begin-of-text unless asked for."""
    case = next(case for case in CASES if "\n" in case["text"])
    done = tokenize(source, given=case["text"].encode())
    assert done.stdout.decode() == " ".join(map(str, case["ids"])) + "\n"
    done = tokenize(source, "--json", "--bos", given=case["text"].encode())
    assert json.loads(done.stdout) == case["ids_with_bos"]


def test_special_tokens_when_asked_for(source):
    case = next(case for case in CASES if "<|eot_id|>" in case["text"])
    assert json.loads(tokenize(source, "--special", "--json", given=case["text"].encode()).stdout) == case["ids"]
    assert "509" not in tokenize(source, given=case["text"].encode()).stdout.decode().split()


def test_any_bytes_come_back(source):
    data = bytes(range(256)) + "\r\n <|eot_id|> 中🙂\n".encode()
    ids = tokenize(source, "--special", given=data).stdout
    assert tokenize(source, "--decode", given=ids).stdout == data
    as_json = tokenize(source, "--special", "--json", given=data).stdout
    assert tokenize(source, "--decode", given=as_json).stdout == data


def test_no_text_has_no_ids(native):
    path = REFERENCE / "bitnet-packed" / "tokenizer.json"
    assert tokenize(path).stdout == b"\n"
    assert tokenize(path, "--json").stdout == b"[]\n"
    assert tokenize(path, "--decode").stdout == b""


@pytest.mark.parametrize(
    ("arguments", "given", "code", "reason"),
    [
        (["--decode"], b"1 x", 1, "token ids are needed"),
        (["--decode"], b"[1.5]", 1, "whole numbers"),
        (["--decode"], b"-1", 1, "whole numbers"),
        (["--decode"], b"512", 9, "outside the vocabulary of 512"),
        (["--decode", "--bos"], b"", 2, "--decode goes with none"),
    ],
)
def test_wrong_input_is_named(native, arguments, given, code, reason):
    done = tokenize(REFERENCE / "bitnet-packed" / "tokenizer.json", *arguments, given=given)
    assert done.returncode == code
    assert reason in done.stderr.decode()
    assert not done.stdout


def test_a_file_that_is_no_model_is_refused(native, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    done = tokenize(tmp_path, given=b"x")
    assert done.returncode == 4
    assert "tokenizer.json" in done.stderr.decode()


def test_begin_of_text_of_a_tokenizer_without_one(native, tmp_path):
    data = json.loads((REFERENCE / "bitnet-packed" / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(data | {"post_processor": None}))
    done = tokenize(tmp_path, "--bos", given=b"x")
    assert done.returncode == 1
    assert "no begin-of-text token" in done.stderr.decode()
