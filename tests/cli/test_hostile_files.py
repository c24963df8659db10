"""Files made to do harm, given to the commands: one line that names file and fault, the right exit code, nothing left.

They are those of the readers' own tests; here are some of every kind, through every command that reads models.
"""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.cli import main
from edgebit.errors import BundleError, CheckpointError
from tests.bundle import test_archive, test_model_reader
from tests.checkpoint import test_tokenizer
from tests.checkpoint.gguf_file import test_hostile as test_gguf
from tests.checkpoint.hugging_face import test_checkpoint, test_pytorch_file

Write = Callable[[Path], Path]  # writes into the folder given, and says what the command is to read
REFERENCE = Path(__file__).parents[1] / "reference" / "bitnet-packed"
DAMAGED, REFUSED = BundleError.exit_code, CheckpointError.exit_code

SAFETENSORS = (
    "file-empty", "cut-in-header", "cut-in-data", "bytes-behind", "header-deep", "header-list",
    "header-size-huge", "header-twice", "hole", "offsets-overlap", "offsets-behind", "shape-overflow",
    "shape-negative", "dtype-unknown", "code-3", "nan-in-norm", "infinity-in-master", "scale-infinite",
    "shard-elsewhere", "shard-missing", "index-no-map", "name-in-two-lines",
)  # fmt: skip
CONFIG = (
    "config-missing", "config-no-json", "config-list", "layers-huge", "theta-nan", "rope-no-object",
    "activation-unknown", "activation-list", "number-beyond-floats", "unknown-family", "too-many-stops",
)  # fmt: skip
PICKLES = (
    "empty", "cut", "deflated-bomb", "overlapping", "outside", "runs-a-command", "stack-global", "laughing",
    "holds-itself", "deep", "memo-huge", "shape-overflow", "storage-key-path", "strides-negative", "name-in-two-lines",
)  # fmt: skip
GGUF = (
    "empty", "big-endian", "huge count of tensors", "string bomb", "array bomb", "array in an array", "key no UTF-8",
    "key twice", "overlap", "shape overflow", "offset not aligned", "file cut", "unknown type", "TL1", "code 3",
    "NaN scale", "no five trits", "NaN norm", "split count a list", "a RoPE of numbers",
    "name in two lines",
)  # fmt: skip
MODELS = ("header-cut", "header-sum", "section-wraps", "hidden-huge", "eps-nan", "tensor-wraps", "padding", "meta-list")
BUNDLES = ("absolute path", "symbolic link", "twice", "not in the manifest")
TOKENIZERS = ("model.dropout = 0.1", "merge 0", "501 is given twice", "token ids", "overlap", "not a tokenizer.json")
TEMPLATES = {
    "no Jinja": ("{% for", "the chat template is not valid Jinja"),
    "grows without bound": ("{{ 'x' * 10 ** 10 }}", "the chat template needs more than 512 MiB of memory"),
    "reaches for Python": ("{{ messages.__class__.__mro__ }}", "the chat template"),
    "refuses in two lines": ("{{ raise_exception('no\\nError: x') }}", "refuses a plain conversation: no Error: x"),
    "writes no text": ("{% for m in messages %}{{ m.content }}{{ '\\ud800' }}{% endfor %}", "half a surrogate pair"),
}


def recipe(name: str) -> tuple[Write, str, int]:
    path = test_checkpoint.RECIPES / f"{name}.toml"

    def write(folder: Path) -> Path:
        test_checkpoint.write_checkpoint(folder, tomllib.loads(path.read_text()))
        return folder

    return write, path.read_text().splitlines()[0].removeprefix("# "), REFUSED


def pickled(name: str) -> tuple[Write, re.Pattern[str], int]:
    content, words = test_pytorch_file.HOSTILE[name]

    def write(folder: Path) -> Path:
        test_checkpoint.write_checkpoint(folder, {"remove_files": ["model.safetensors"]})
        (folder / "pytorch_model.bin").write_bytes(content)
        return folder

    return write, re.compile(words), REFUSED


def gguf(name: str) -> tuple[Write, str, int]:
    build, words = test_gguf.CASES[name]
    return (lambda folder: put(folder / "m.gguf", build())), words, REFUSED


def model_file(name: str) -> tuple[Write, str, int]:
    change, words = (test_model_reader.HOSTILE | test_model_reader.HOSTILE_TO_PEOPLE)[name]

    def write(folder: Path) -> Path:
        path = test_model_reader.write_model(folder / "m.ebm")
        return test_model_reader.damaged(path.read_bytes(), change, path)

    return write, words, DAMAGED


def bundle(name: str) -> tuple[Write, str, int]:
    extra, words = test_archive.HOSTILE[name]

    def write(folder: Path) -> Path:
        return test_archive.tar_of([*test_archive.entries_of(test_archive.GOOD), *extra], folder / "m.bundle")

    return write, words, DAMAGED


def tokenizer(words: str) -> tuple[Write, str, int]:
    path, value, _ = next(case for case in test_tokenizer.REFUSED if case[2] == words)

    def write(folder: Path) -> Path:
        shutil.copytree(REFERENCE, folder, dirs_exist_ok=True)
        test_tokenizer.write_json(folder / "tokenizer.json", lambda data: test_tokenizer.set_in(data, path, value))
        return folder

    return write, words, REFUSED


def template(name: str) -> tuple[Write, str, int]:
    text, words = TEMPLATES[name]

    def write(folder: Path) -> Path:
        shutil.copytree(REFERENCE, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(text)
        return folder

    return write, words, REFUSED


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


CONVERT, BUILD = ("convert", "--no-probes"), ("build", "--target", "rpi")
EXPORTS = (("export", "gguf"), ("export", "hf"))
# What makes them, which of them, and the commands that they are given to in turn. Exports copy a tokenizer as it is.
KINDS = {
    "safetensors": (recipe, SAFETENSORS, (CONVERT, BUILD, *EXPORTS)),
    "config.json": (recipe, CONFIG, (CONVERT, BUILD, *EXPORTS)),
    "PyTorch": (pickled, PICKLES, (CONVERT, BUILD, *EXPORTS)),
    "GGUF": (gguf, GGUF, (CONVERT, BUILD, *EXPORTS)),
    "model file": (model_file, MODELS, (CONVERT, BUILD, *EXPORTS)),
    "bundle": (bundle, BUNDLES, (CONVERT, *EXPORTS)),
    "tokenizer.json": (tokenizer, TOKENIZERS, (CONVERT, BUILD)),
    "chat template": (template, tuple(TEMPLATES), (CONVERT, BUILD)),
}
CASES = {
    f"{kind}: {name}": (*make(name), commands[number % len(commands)])
    for kind, (make, names, commands) in KINDS.items()
    for number, name in enumerate(names)
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_in_one_line(name, tmp_path, capfd):
    """By one of the commands in turn, and a model file or bundle by `inspect` as well."""
    write, words, code, command = CASES[name]
    given, out = tmp_path / "given", tmp_path / "out" / "made"
    given.mkdir()
    out.parent.mkdir()
    path = write(given)
    calls = [[*command, str(path), "--out", str(out)]]
    calls += [["inspect", str(path)]] if code == DAMAGED else []
    before = contents(given)
    for call in calls:
        with pytest.raises(SystemExit) as ended:
            main(call)
        told = capfd.readouterr()
        lines = [line for line in told.err.splitlines() if not line.startswith("  ")]  # those are stages of a build
        assert ended.value.code == code, told.err
        assert told.out == ""
        assert [line.startswith("Error: ") for line in lines] == [True], told.err
        assert words.search(lines[0]) if isinstance(words, re.Pattern) else words in lines[0], lines[0]
        assert str(given) in lines[0]
        assert len(lines[0]) < 1200
    assert contents(given) == before
    assert list(out.parent.iterdir()) == []


def contents(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*")}


def test_each_is_refused_in_its_own_words():
    """No two of a kind promise the same."""
    promised = [(name.partition(":")[0], words) for name, (_, words, *_) in CASES.items()]
    assert len(promised) >= 60
    assert len(set(promised)) == len(promised)
