"""`edgebit eval` as a user calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgebit.bundle.model_reader import ModelFile
from edgebit.cli import main
from edgebit.cli.eval_options import rounded
from edgebit.convert import convert


@pytest.fixture
def edgebit(capsys):
    """Runs a command that must end well, in this process; gives what it prints."""

    def run(*arguments):
        main([*map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def model(reference_model):
    return reference_model("bitnet-packed")


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"query": f"Is {n} even?", "choices": ["yes", "no"], "gold": n % 2} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_perplexity_of_the_shipped_text(edgebit, model, tmp_path):
    """For people and as JSON the same figures; a line a token, whose mean is the result."""
    lines = tmp_path / "tokens.jsonl"
    options = ("--limit-tokens", 700, "--window", 128, "--threads", 1)
    shown = edgebit("eval", "perplexity", model, *options)
    done = edgebit("eval", "perplexity", model, *options, "--json", "--per-token", lines)
    figures, rows = json.loads(done), [json.loads(line) for line in lines.read_text().splitlines()]
    assert f"perplexity      {figures['perplexity']:.4f} ± {figures['perplexity_error']:.4f}" in shown
    assert "tok/s" in shown and "bits per byte" in shown
    assert (figures["complete"], figures["tokens"], figures["stride"], figures["bos"]) == (True, 700, 64, True)
    assert [row["position"] for row in rows] == list(range(700))
    assert "".join(row["text"] for row in rows).startswith("ARCHIDAMUS:\nIf you shall chance")
    assert figures["nll"] == pytest.approx(-np.mean([row["log_prob"] for row in rows]))
    assert all((row["rank"] == 1) == (row["log_prob"] == row["best_log_prob"]) for row in rows)


@pytest.mark.parametrize(
    ("value", "text"), [(17.25, "17.2500"), (999_999.5, "999999.5000"), (1e6, "1.0000e+06"), (3e60, "3.0000e+60")]
)
def test_a_huge_perplexity_is_shown_in_powers_of_ten(value, text):
    assert rounded(value) == text


def test_perplexity_is_that_of_the_logits_command(edgebit, model, reference_checkpoint, tmp_path):
    """`edgebit logits` and numpy give the same log-probabilities."""
    ids = load_file(reference_checkpoint("bitnet-packed") / "reference.safetensors")["long_ids"].tolist()
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    given = ("--token-ids", tmp_path / "ids.json", "--per-token", tmp_path / "tokens.jsonl")
    edgebit("eval", "perplexity", model, *given)
    edgebit("logits", model, "--ids-file", tmp_path / "ids.json", "--out", tmp_path / "logits.npy")
    logits = np.load(tmp_path / "logits.npy")[:-1].astype(np.float64)
    wanted = logits[np.arange(199), ids[1:]] - np.logaddexp.reduce(logits, axis=1)
    rows = [json.loads(line) for line in (tmp_path / "tokens.jsonl").read_text().splitlines()]
    assert np.allclose([row["log_prob"] for row in rows], wanted, rtol=0, atol=1e-12)


def test_a_text_on_standard_input(edgebit, model, tmp_path):
    """Gives what the file gives."""
    text = "Some words, and some more words."
    (tmp_path / "a.txt").write_text(text)
    options = ("eval", "perplexity", str(model), "--json", "--no-bos", "--text")
    command = [sys.executable, "-m", "edgebit", *options, "-"]
    typed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, input=text).stdout
    read = json.loads(edgebit(*options, tmp_path / "a.txt"))
    assert json.loads(typed)["nll"] == read["nll"] and not read["bos"]


def test_choices_for_people_and_scripts(edgebit, model, questions, tmp_path):
    """Accuracy with its standard error, and a line a question."""
    lines = tmp_path / "lines.jsonl"
    options = ("--data", questions, "--shots", 2, "--metric", "acc_norm,acc")
    shown = edgebit("eval", "choices", model, *options)
    done = edgebit("eval", "choices", model, *options, "--json", "--per-question", lines)
    figures, rows = json.loads(done), [json.loads(line) for line in lines.read_text().splitlines()]
    assert figures["answered"] == len(rows) == 6 and figures["complete"]
    assert f"acc_norm    {figures['accuracy']['acc_norm']:.4f} ±" in shown
    assert figures["accuracy"]["acc"] == np.mean([row["picks"]["acc"] == row["gold"] for row in rows])
    assert [row["gold"] for row in rows] == [0, 1, 0, 1, 0, 1]


def test_kl_beside_a_model_and_a_saved_reference(edgebit, model, tmp_path):
    """f16 from int8 keys and values: nearly the same of both references, and each token's numbers add up to it."""
    options = ("--limit-tokens", 300, "--window", 64)
    beside = edgebit("eval", "kl", model, "--against", model, "--kv", "int8", "--against-kv", "f16", "--json", *options)
    saving = edgebit("eval", "reference", model, "--out", tmp_path / "f16.ref", "--top", 100, "--json", *options)
    saved = ("--reference", tmp_path / "f16.ref", "--kv", "int8", "--per-token", tmp_path / "tokens.jsonl")
    done = edgebit("eval", "kl", model, "--json", *saved)
    figures, against = json.loads(done), json.loads(beside)
    rows = [json.loads(line) for line in (tmp_path / "tokens.jsonl").read_text().splitlines()]
    assert 0 < figures["kl_mean"] <= against["kl_mean"] and figures["same_best"] == against["same_best"]
    assert figures["perplexity"] == against["perplexity"]
    assert figures["kl_mean"] == pytest.approx(np.mean([row["kl"] for row in rows]))
    assert figures["worst"][0] == max(rows, key=lambda row: row["kl"])
    assert [row["position"] for row in rows] == list(range(300))
    assert json.loads(saving)["bytes"] == (tmp_path / "f16.ref").stat().st_size


def test_kl_of_a_model_with_itself_for_people(edgebit, model):
    """0, and all tokens agree."""
    done = edgebit("eval", "kl", model, "--against", model, "--limit-tokens", 100)
    assert "KL a token      0.000000" in done and "same best token 100.00 %" in done


def test_a_model_without_tokenizer_beside_one_that_has_it(edgebit, model, reference_checkpoint, tmp_path):
    """The other's tokenizer reads the text for both."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference_checkpoint("bitnet-packed") / name, tmp_path)
    convert(tmp_path, tmp_path / "bare.ebm", probes=False)
    done = edgebit("eval", "kl", tmp_path / "bare.ebm", "--against", model, "--limit-tokens", 50, "--json")
    assert json.loads(done)["kl_max"] == 0 and json.loads(done)["tokens"] == 50


def test_ctrl_c_gives_what_is_known_and_says_that_it_is_a_part(model, tmp_path):
    """Exit code 130; the figures are those of the tokens that were scored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    pipe = tmp_path / "tokens"
    os.mkfifo(pipe)  # full after some lines: the command waits for the reader
    command = [sys.executable, "-m", "edgebit", "eval", "perplexity", model, "--json", "--per-token", pipe]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        with pipe.open() as lines:
            first = lines.readline()
            running.send_signal(signal.SIGINT)
            rest = lines.readlines()
        out, err = running.communicate(timeout=60)
    figures = json.loads(out)
    assert running.returncode == 130, err
    assert first and figures["tokens"] == 1 + len(rest) < 70_053
    assert not figures["complete"] and f"Partial: {figures['tokens']} of 70053 tokens" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "options",
    [
        ("perplexity", "DAMAGED", "--limit-tokens", "9"),
        ("choices", "DAMAGED", "--data", "questions.jsonl"),
        ("kl", "DAMAGED", "--against", "SOUND", "--limit-tokens", "9"),
        ("kl", "SOUND", "--against", "DAMAGED", "--limit-tokens", "9"),
        ("reference", "DAMAGED", "--out", "new.ref", "--limit-tokens", "9"),
    ],
    ids=["perplexity", "choices", "kl", "kl, against", "reference"],
)
def test_a_damaged_model_is_not_scored(options, model, questions, tmp_path, monkeypatch, capsys):
    """A bit of a weight differs: its figures would be another model's. Nothing is written, and the file is named."""
    content = bytearray(model.read_bytes())
    with ModelFile(model) as file:
        tensor = next(tensor for tensor in file.tensors if tensor.role.is_projection)
    content[tensor.offset + tensor.size // 2] ^= 1
    (tmp_path / "damaged.ebm").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    files = {"DAMAGED": "damaged.ebm", "SOUND": str(model)}

    with pytest.raises(SystemExit) as ended:
        main(["eval", *(files.get(option, option) for option in options)])

    said = capsys.readouterr()
    assert ended.value.code == 3
    assert "damaged.ebm: the sum of section DATA is wrong" in said.err and not said.out
    assert not (tmp_path / "new.ref").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("perplexity", "--text", "ids.json", "--token-ids", "ids.json"), 2, "give one"),
        (("perplexity", "--token-ids", "a.txt"), 1, "a.txt: is no JSON"),
        (("perplexity", "--text", "empty.txt"), 1, "there is no text in it"),
        (("perplexity", "--window", "8", "--stride", "9"), 1, "a stride of 9 tokens"),
        (("perplexity", "--per-token", "no/such"), 19, "mkdir -p no"),
        (
            ("perplexity", "--limit-tokens", "9", "--per-token", "/dev/full"),
            19,
            "/dev/full: cannot be written: No",
        ),
        (("choices", "--data", "a.txt"), 1, "a.txt, line 1: is no JSON"),
        (("choices", "--data", "q.jsonl", "--per-question", "/dev/full"), 19, "/dev/full: cannot be written: No"),
        (("choices", "--data", "q.jsonl", "--metric", "f1"), 2, "there is no metric 'f1'"),
        (("choices", "--data", "q.jsonl", "--shots", "9"), 1, "there are 5 other questions"),
        (("kl",), 2, "either --against or --reference"),
        (("kl", "--reference", "a.txt", "--window", "64"), 2, "has its own text and windows"),
        (("kl", "--reference", "a.txt"), 1, "a.txt is no reference"),
        (("reference", "--out", "no/such", "--limit-tokens", "9"), 19, "mkdir -p no"),
        (("reference", "--out", "pipe", "--limit-tokens", "9"), 19, "pipe is no plain file"),
    ],
)
def test_what_is_wrong_is_said(arguments, code, words, model, questions, tmp_path, monkeypatch, capsys):
    """In one line, with the exit code of its kind."""
    (tmp_path / "a.txt").write_text("plain\n")
    (tmp_path / "ids.json").write_text("[1, 2]")
    (tmp_path / "empty.txt").write_text("")
    os.mkfifo(tmp_path / "pipe")
    questions.rename(tmp_path / "q.jsonl")
    monkeypatch.chdir(tmp_path)
    name, *options = arguments
    with pytest.raises(SystemExit) as ended:
        main(["eval", name, str(model), *options])
    assert ended.value.code == code
    assert words in capsys.readouterr().err
