"""edgebit-run as a user of a device calls it: where models lie, prompts, exit codes, Ctrl-C."""

import shutil
import signal
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_folders import write_tokenizer

from edgebit.bundle.model_format import Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.model_writer import ModelWriter
from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.convert import convert
from edgebit.runtime.engine import Engine
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from edgebit.runtime.session import Session
from tests.kernels.conftest import CheckBuild
from tests.kernels.tiny_model import TinyModel, tiny_conf

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(check_build: Callable[[str], CheckBuild]) -> Run:
    """Runs edgebit-run with these arguments and, as standard input, `given`."""
    program = check_build("host").folder / "edgebit-run"

    def call(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *map(str, arguments)],
            input=given, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip

    return call


def test_a_model_file_a_folder_and_a_bundle_give_the_same(
    run: Run, reference_model: Callable[[str], Path], tmp_path: Path
):
    """The model maps in place inside of a tar, wherever its member stands."""
    model = reference_model("bitnet-packed")
    (tmp_path / "model.ebm").write_bytes(model.read_bytes())
    (tmp_path / "manifest.json").write_text("{}" * 400)
    bundle = tmp_path / "chat.bundle"
    with tarfile.open(bundle, "w", format=tarfile.PAX_FORMAT) as tar:
        manifest = tar.gettarinfo(tmp_path / "manifest.json", "manifest.json")
        manifest.pax_headers = {"comment": "an extended header stands before this member"}
        with (tmp_path / "manifest.json").open("rb") as content:
            tar.addfile(manifest, content)
        tar.add(tmp_path / "model.ebm", "model.ebm")

    for place in (model, tmp_path, bundle):
        done = run(place, "--check", "--verify")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("3 golden probes hold")


def test_a_bundle_without_a_model_or_cut_short_is_refused(
    run: Run, reference_model: Callable[[str], Path], tmp_path: Path
):
    """With exit code 3, like any damaged model."""
    empty, short = tmp_path / "empty.bundle", tmp_path / "short.bundle"
    with tarfile.open(empty, "w") as tar:
        tar.add(__file__, "manifest.json")
    with tarfile.open(short, "w") as tar:
        tar.add(reference_model("bitnet-packed"), "model.ebm")
    short.write_bytes(short.read_bytes()[:300_000])

    for place, words in [(empty, "no member model.ebm"), (short, "the file has"), (tmp_path / "gone", "no such file")]:
        done = run(place, "--check")
        assert (done.returncode, done.stdout) == (3, "")
        assert words in done.stderr


def test_prompts_become_the_tokens_that_the_runtime_makes(
    run: Run, native: Library, reference_model: Callable[[str], Path], tmp_path: Path
):
    """Plain text and a chat turn: the logits of their last token are those of the runtime's own prompt, bit for bit."""
    path, text, out = reference_model("bitnet-packed"), " \u2003Why is <|eot_id|> blue?\u00a0\n", tmp_path / "logits"
    with Model.open(native, path) as model, Engine(model) as engine:
        session = Session(model)
        wanted = {"plain": session.prompt_ids(text), "chat": session.chat_ids([Message("user", text)])}
        vocab_size = model.info.vocab_size

        for kind, ids in wanted.items():
            done = run(path, "-p", text, *(["--chat"] if kind == "chat" else []), "-n", "0", "--logits-out", out)
            assert done.returncode == 0, done.stderr
            logits = np.fromfile(out, "<f4").reshape(-1, vocab_size)
            engine.truncate(0, 0)
            engine.eval(ids)
            assert len(logits) == len(ids)
            assert bytes(engine.logits()) == logits[-1].tobytes()


@pytest.mark.parametrize("system", [None, "", " be\u2003kind\n"])
@pytest.mark.parametrize(
    "features",
    [
        {"default_system": "<|eot_id|>Default. "},
        {"default_system": " <|eot_id|>D\n", "system_place": "first user", "strip": ("user",), "strip_turn": True},
        {"system_place": "last user", "strip": ("system", "user")},
        {"system": (" ", "\n\n"), "system_place": "first user", "strip": ("user",), "strip_turn": True},
        {"strip": ("system",)},
        {"user_last": True, "thought_end": "</think>"},
    ],
)
def test_the_second_version_of_the_prompt_program_makes_the_same_tokens(
    run: Run, native: Library, reference_model: Callable[[str], Path], tmp_path: Path,
    features: dict[str, Any], system: str | None,
):  # fmt: skip
    """Default system texts, those in a user's turn, white space taken off both as one: as many and the same tokens."""
    around: dict[str, Any] = {
        "system": ("<|eot_id|>S: ", " :S<|eot_id|>"), "user": ("U: ", "<|eot_id|>"), "assistant": ("A: ", ""),
        "generation": "A: ", "add_bos": True,
    }  # fmt: skip
    program = PromptProgram(**{**around, **features})
    path = with_program(reference_model("bitnet-packed"), program.to_bytes(), tmp_path / "model.ebm")
    for text in (" \u2003Why is <|eot_id|> blue?\u00a0\n", " "):
        messages = [Message("user", text)] if system is None else [Message("system", system), Message("user", text)]
        with Model.open(native, path) as model, Engine(model) as engine:
            ids = Session(model).chat_ids(messages)
            engine.eval(ids)
            wanted = bytes(engine.logits())

        told = [] if system is None else ["--system", system]
        done = run(path, "-p", text, "--chat", *told, "-n", "0", "--logits-out", tmp_path / "logits")
        assert done.returncode == 0, done.stderr
        logits = (tmp_path / "logits").read_bytes()
        assert len(logits) == len(ids) * len(wanted)
        assert logits[-len(wanted) :] == wanted


def test_begin_of_text_is_a_part_of_the_text(
    run: Run, native: Library, reference_checkpoint: Callable[[str], Path], tmp_path: Path
):  # fmt: skip
    """A tokenizer that puts a space before the first word only, puts none after it."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference_checkpoint("bitnet-packed") / name, tmp_path)
    write_tokenizer(tmp_path, "metaspace-first")
    path = tmp_path / "model.ebm"
    convert(tmp_path, path, template="llama2", probes=False)
    with Model.open(native, path) as model, Engine(model) as engine:
        ids = Session(model).chat_ids([Message("user", "why")])
        engine.eval(ids)
        wanted = bytes(engine.logits())
    done = run(path, "-p", "why", "--chat", "-n", "0", "--logits-out", tmp_path / "logits")
    assert done.returncode == 0, done.stderr
    logits = (tmp_path / "logits").read_bytes()
    assert len(logits) == len(ids) * len(wanted)
    assert logits[-len(wanted) :] == wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda section: struct.pack("<I", 3) + section[4:], "is damaged or of another version"),
        (
            lambda section: section[:4] + struct.pack("<I", 64) + section[8:],
            "has flags that this program does not know",
        ),
        (lambda section: section[:-1], "has a text that goes past its end"),
        (lambda section: section[:10], "is cut short"),
        (lambda section: section + b"x", "has more than its texts"),
    ],
)
def test_a_prompt_program_that_it_cannot_read_is_refused(
    run: Run, reference_model: Callable[[str], Path], tmp_path: Path, change: Callable[[bytes], bytes], words: str
):
    """Another version, flags of one, texts that do not fill the section."""
    program = PromptProgram(
        system=("", ""), user=("U: ", "\n"), assistant=("A: ", "\n"), generation="A: ", add_bos=True
    )
    path = with_program(reference_model("bitnet-packed"), change(program.to_bytes()), tmp_path / "model.ebm")
    done = run(path, "-p", "why", "--chat", "-n", "0")
    assert done.returncode == 3
    assert f"section PRMT {words}" in done.stderr


def with_program(model: Path, program: bytes, out: Path) -> Path:
    """The model file with another prompt program and no probes."""
    with ModelFile(model) as file:
        front = {"TOKN": file.content("TOKN") or b"", "PRMT": program}
        kinds = {tensor.role: tensor.encoding for tensor in file.tensors}
        embedding, layout = kinds[Role.TOKEN_EMBEDDING], kinds[Role.Q_PROJ]
        with ModelWriter(out, file.conf, front, embedding=embedding, layout=layout) as writer:
            for tensor in file.tensors:
                writer.write_tensor([np.frombuffer(bytes(file.values(tensor)), np.uint8)], file.scales(tensor))
            writer.finish(file.meta)
            writer.commit()
    return out


def test_the_kv_type_is_the_runtimes(run: Run, native: Library, reference_model: Callable[[str], Path], tmp_path: Path):
    """--kv: the logits are those of the same type in the runtime, f16 without it; probes need f16, and say so."""
    path, ids, out = reference_model("bitnet-packed"), list(range(1, 20)), tmp_path / "logits"
    found = {}
    for kv, options in [("f16", []), ("int8", ["--kv", "int8"]), ("f32", ["--kv", "f32"])]:
        with Model.open(native, path) as model, Engine(model, kv=kv) as engine:
            engine.eval(ids)
            wanted = bytes(engine.logits())
        done = run(path, "--ids", ",".join(map(str, ids)), "-n", "0", "--logits-out", out, *options)
        assert done.returncode == 0, done.stderr
        assert out.read_bytes()[-len(wanted) :] == wanted
        found[wanted] = kv

    assert len(found) == 3
    refused = run(path, "--check", "--kv", "int8")
    assert refused.returncode == 9
    assert "golden probes are defined for a KV cache of f16" in refused.stderr


def test_the_answer_hangs_on_the_seed_alone(run: Run, reference_model: Callable[[str], Path]):
    """Sampling on other threads and from standard input: the same text; another seed: another."""
    path = reference_model("bitnet-packed")
    options = ("-n", "30", "--temp", "1", "--top-p", "0.95", "--ignore-stop")

    first = run(path, "-p", "Hello", "--seed", "7", "--threads", "1", *options)
    again = run(path, "--seed", "7", "--threads", "2", *options, given="Hello")
    other = run(path, "-p", "Hello", "--seed", "8", *options)

    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.strip()


@pytest.mark.parametrize(
    "options",
    [
        ("-n", "300"),
        ("-n", "300", "--repeat-penalty", "1.2", "--repeat-window", "6"),
        ("-n", "300", "--temp", "0.8", "--top-k", "3", "--seed", "11"),
        ("-n", "300", "--temp", "1", "--seed", "3"),
        ("-n", "7"),
        ("-n", "300", "--ctx", "40"),
    ],
)
def test_drafts_change_no_answer(options: tuple[str, ...], run: Run, reference_model: Callable[[str], Path]):
    """A text that repeats, with drafts of several lengths and without: the same tokens, and the same last words."""
    path, ids = reference_model("bitnet-packed"), ",".join(["500", *["10,11,12,13,40"] * 5])
    arguments = (path, "--ids", ids, "--ignore-stop", "--ctx", "400", *options)

    plain = run(*arguments, "--speculate", "0")
    for longest in ("1", "4", "64"):
        drafted = run(*arguments, "--speculate", longest, "--stats")
        said = [line for line in drafted.stderr.splitlines() if line.startswith("edgebit-run")]
        assert (drafted.returncode, drafted.stdout, said) == (0, plain.stdout, plain.stderr.splitlines())
    if options == ("-n", "300"):  # where the first draft is a trial on any machine
        assert "came true" in drafted.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "MODEL is missing"),
        (["MODEL", "--nonsense", "1"], "unknown option --nonsense"),
        (["MODEL", "-n", "-3"], "a whole number"),
        (["MODEL", "--temp", "warm"], "a number is wanted"),
        (["MODEL", "--ids", "1", "--kv", "int4"], "f16, int8 or f32 is wanted"),
        (["MODEL", "--ids", "1,x"], "does not begin with a token id"),
        (["MODEL", "--ids", "1", "--temp", "-1"], "temperature must be 0 or"),
        (["MODEL", "--ids", "1", "--chat"], "--ids goes without"),
    ],
)
def test_wrong_options_end_in_code_2(
    arguments: list[str], words: str, run: Run, reference_model: Callable[[str], Path]
):
    """And say what is wrong, on standard error."""
    model = str(reference_model("bitnet-packed"))

    done = run(*(model if argument == "MODEL" else argument for argument in arguments))

    assert done.returncode == 2
    assert words in done.stderr


def test_a_prompt_longer_than_the_context_ends_in_code_9(run: Run, reference_model: Callable[[str], Path]):
    """Never silently cut."""
    done = run(reference_model("bitnet-packed"), "--ids", "1,2,3,4,5", "--ctx", "4")

    assert done.returncode == 9
    assert "the context is full" in done.stderr


def test_an_answer_ends_at_the_contexts_end(run: Run, reference_model: Callable[[str], Path]):
    """What fits is shown, and a word on standard error says why no more."""
    done = run(reference_model("bitnet-packed"), "--ids", "1,2,3", "--ctx", "8", "-n", "100", "--ignore-stop")

    assert done.returncode == 0
    assert len(done.stdout.split()) == 6  # five fit; the sixth needs no place any more
    assert "the context is full" in done.stderr


def test_ctrl_c_ends_the_answer_cleanly(check_build: Callable[[str], CheckBuild], tmp_path: Path):
    """Whole ids up to there, exit code 130."""
    model = tmp_path / "model.ebm"
    model.write_bytes(TinyModel(tiny_conf(context_max=1_000_000)).to_bytes())
    command = [str(check_build("host").folder / "edgebit-run"), str(model), "--ids", "1", "-n", "900000"]
    with subprocess.Popen(
        [*command, "--ctx", "1000000", "--ignore-stop"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        first = running.stdout.read(20)
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=60)

    assert (running.returncode, said) == (130, "")
    assert all(token.isdigit() for token in (first + rest).split())
    assert rest.endswith("\n")
