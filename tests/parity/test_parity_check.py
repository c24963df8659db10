"""`edgebit parity`: every reference model passes, and each planted fault is named where it was planted."""

import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from edgebit.bundle.model_format import CONF, NO_LAYER, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.cli import main
from edgebit.convert import convert
from edgebit.errors import CheckpointError
from edgebit.evaluate.parity.check import ParityOptions, run_parity
from edgebit.ternary.layouts import pack_t2, unpack_t2
from tests.kernels.tiny_model import corrected

pytestmark = pytest.mark.reference
MODELS = sorted(path.parent.name for path in (Path(__file__).parent.parent / "reference").glob("*/config.json"))


@pytest.fixture(autouse=True)
def transformers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)  # the models are small, and threads that wait for each other are slow on a busy machine
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture
def parity(capsys):
    """Runs the command with --json; gives its exit code and its report."""

    def run(model: Path, folder: Path, *arguments: str) -> tuple[int, dict]:
        with pytest.raises(SystemExit) as ended:
            main(["parity", str(model), "--reference", str(folder), "--json", "--greedy", "8", *arguments])
            raise SystemExit(0)
        said = capsys.readouterr()
        assert not said.err, said.err
        return ended.value.code, json.loads(said.out)

    return run


@pytest.mark.parametrize("name", MODELS)
def test_every_reference_model_agrees(name, reference_model, reference_checkpoint, parity):
    """All checks that can be run pass, layers to float32 rounding but for what falls the other way; exit code 0."""
    code, report = parity(reference_model(name), reference_checkpoint(name))
    assert code == 0
    assert report["holds"] and report["departure"] is None
    checks = {check["name"]: check["status"] for check in report["checks"]}
    has_tokenizer = name in ("bitnet-packed", "bitnet-bf16")
    assert checks.pop("tokenizer") == ("passed" if has_tokenizer else "not run")
    assert checks == dict.fromkeys(("embedding", "layers", "final norm", "head", "logits", "greedy"), "passed")
    assert all(layer["alone"]["close_share"] >= 30 / 32 for layer in report["layers"])


class Edited:
    """A model file whose tensors can be changed; sums are set right when it is written."""

    def __init__(self, path: Path) -> None:
        self.bytes = bytearray(path.read_bytes())
        with ModelFile(path) as file:
            self.conf, self.sections = file.conf, file.sections
            self.tensors = {(tensor.role, tensor.layer): tensor for tensor in file.tensors}

    def floats(self, role: Role, layer: int = NO_LAYER) -> np.ndarray:
        tensor = self.tensors[role, layer]
        return np.frombuffer(self.bytes, "<f4", tensor.size // 4, tensor.offset)

    def scale(self, role: Role, layer: int) -> np.ndarray:
        return np.frombuffer(self.bytes, "<f4", 1, self.tensors[role, layer].scales_offset)

    def codes(self, role: Role, layer: int) -> np.ndarray:
        tensor = self.tensors[role, layer]
        packed = np.frombuffer(self.bytes, np.uint8, tensor.size, tensor.offset)
        return unpack_t2(packed, tensor.rows, tensor.columns)

    def set_codes(self, role: Role, layer: int, codes: np.ndarray) -> None:
        tensor = self.tensors[role, layer]
        self.bytes[tensor.offset : tensor.offset + tensor.size] = pack_t2(codes).tobytes()


def wrong_scale(file: Edited) -> None:
    file.scale(Role.UP_PROJ, 1)[0] *= np.float32(1.01)


def swapped_norms(file: Edited) -> None:
    one, other = file.floats(Role.INPUT_NORM, 1), file.floats(Role.POST_ATTENTION_NORM, 1)
    one[:], other[:] = other.copy(), one.copy()


def wrong_activation(file: Edited) -> None:
    struct.pack_into("<I", file.bytes, file.sections["CONF"].offset + struct.calcsize("<8If"), 2)
    assert CONF.unpack_from(file.bytes, file.sections["CONF"].offset)[9] == 2


def permuted_rows(file: Edited) -> None:
    """As llama.cpp's converter orders the rows of queries for another form of RoPE."""
    codes, conf = file.codes(Role.Q_PROJ, 1), file.conf
    pairs = codes.reshape(conf.n_heads, 2, conf.head_dim // 2, -1).swapaxes(1, 2)
    file.set_codes(Role.Q_PROJ, 1, pairs.reshape(codes.shape))


def one_code(file: Edited) -> None:
    codes = file.codes(Role.DOWN_PROJ, 2)
    codes[7, 9] = -codes[7, 9] or 1
    file.set_codes(Role.DOWN_PROJ, 2, codes)


def other_theta(file: Edited) -> None:
    file.floats(Role.ROPE_INV_FREQ)[1:] *= np.float32(0.9)


def other_eps(file: Edited) -> None:
    struct.pack_into("<f", file.bytes, file.sections["CONF"].offset + struct.calcsize("<8I"), 0.5)


def embedding_row(file: Edited) -> None:
    """Bit 7, the exponent's lowest, of every bf16 of the row of token 500, which begins each text."""
    tensor = file.tensors[Role.TOKEN_EMBEDDING, NO_LAYER]
    np.frombuffer(file.bytes, "<u2", tensor.columns, tensor.offset + 500 * 2 * tensor.columns)[:] ^= 1 << 7


def final_norm(file: Edited) -> None:
    file.floats(Role.FINAL_NORM)[3] += np.float32(0.5)


def head_scales(file: Edited) -> None:
    tensor = file.tensors[Role.HEAD, NO_LAYER]
    np.frombuffer(file.bytes, "<f4", tensor.n_scales, tensor.scales_offset)[::2] *= np.float32(1.5)


FAULTS = [
    (wrong_scale, r"layer 1, up_proj: .*; its scale is [\d.]+; the checkpoint's [\d.]+$"),
    (swapped_norms, r"layer 1, input_norm: .*; it holds the checkpoint's post_attention_norm$"),
    (wrong_activation, r"layer 0, activation: .*; the model file says silu$"),
    (permuted_rows, r"layer 1, q_proj: .* codes differ, .*; the rows are the same in another order$"),
    (one_code, r"layer 2, down_proj: .*; 1 of 131072 codes differ, in 1 rows, first in row 7, column 9$"),
    (other_theta, r"layer 0, attention: .*; frequency 1 of RoPE is [\d.]+; the checkpoint asks for [\d.]+$"),
    (other_eps, r"layer 0, input_norm: .*; rms_norm_eps is 0\.5; the checkpoint's 1e-05$"),
    (embedding_row, r"embedding: token 500 has another row"),
    (final_norm, r"final norm: .*; 1 of 256 values differ, first at 3: "),
    (head_scales, r"head: mean difference"),
]


@pytest.mark.parametrize(("plant", "named"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_a_planted_fault_is_named(plant, named, reference_model, reference_checkpoint, parity, tmp_path):
    """The exit code is 3, and the first departure is where the fault was planted."""
    file = Edited(reference_model("bitnet-packed"))
    plant(file)
    path = tmp_path / "faulty.ebm"
    path.write_bytes(corrected(file.bytes))

    code, report = parity(path, reference_checkpoint("bitnet-packed"))

    assert code == 3
    assert not report["holds"]
    assert re.match(named, report["departure"]), report["departure"]


def test_another_tokenizer_is_named(reference_checkpoint, parity, tmp_path):
    """A merge that is missing shows at the first text that it would have joined; the model itself agrees."""
    source, folder = reference_checkpoint("bitnet-packed"), tmp_path / "bitnet-packed"
    shutil.copytree(source, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["ignore_merges"] = False
    dropped = tokenizer["model"]["merges"].pop(0)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    convert(folder, tmp_path / "model.ebm", probes=False)

    code, report = parity(tmp_path / "model.ebm", source)

    assert dropped
    assert code == 3
    assert report["departure"].startswith("tokenizer: they part at token ")
    assert [check["name"] for check in report["checks"] if check["status"] == "failed"] == ["tokenizer"]


def test_nothing_is_compiled(reference_model, reference_checkpoint, parity, monkeypatch):
    """Transformers asks for it even while it loads; on a machine without a C++ compiler that would fail."""

    def refuse(*_, **__):
        raise RuntimeError("there is no C++ compiler")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", refuse)

    code, report = parity(reference_model("bitnet-packed"), reference_checkpoint("bitnet-packed"), "--greedy", "1")

    assert code == 0 and report["holds"]


def test_a_model_that_the_reference_cannot_run(reference_model, reference_checkpoint, tmp_path):
    """An architecture that transformers lacks is named, and so is a checkpoint of another size."""
    folder = tmp_path / "unknown"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["TernaryDreamForCausalLM"]}))
    with pytest.raises(CheckpointError, match=r"has no class 'TernaryDreamForCausalLM'"):
        run_parity(reference_model("bitnet-packed"), folder, ParityOptions(), lambda what, done, total: None)
    other = reference_checkpoint("llama-bitlinear-packed")
    with pytest.raises(CheckpointError, match=r"are not the same model: .* 3, 256, 512 and 2, 128, 256"):
        run_parity(reference_model("bitnet-packed"), other, ParityOptions(), lambda what, done, total: None)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DAMAGES = {
    "weights, a pointer": ("model.safetensors", lambda content: POINTER, "is a Git LFS pointer"),
    "weights, half": ("model.safetensors", lambda content: content[: len(content) // 2], "model.safetensors: "),
    "tokenizer, a pointer": ("tokenizer.json", lambda content: POINTER, "is a Git LFS pointer"),
    "tokenizer, half": (
        "tokenizer.json", lambda content: content[: len(content) // 2], "the reference cannot load this tokenizer: EOF",
    ),
    "config, a pointer": ("config.json", lambda content: POINTER, "is a Git LFS pointer"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_reference_is_refused_in_a_line(damage, reference_model, reference_checkpoint, tmp_path, capsys):
    """The file is named, and no error of another library gets through."""
    name, change, words = DAMAGES[damage]
    folder = tmp_path / "reference"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))

    with pytest.raises(SystemExit) as ended:
        main(["parity", str(reference_model("bitnet-packed")), "--reference", str(folder)])

    said = capsys.readouterr().err
    assert ended.value.code == CheckpointError.exit_code
    assert f"{folder / name}: " in said and words in said


def test_what_the_loader_of_the_reference_raises_is_told(reference_model, reference_checkpoint, tmp_path, capsys):
    """Also where edgebit does not know the form, and cannot say it better: half the weights of an OLMo."""
    folder = tmp_path / "olmo"
    shutil.copytree(reference_checkpoint("bitnet-packed"), folder)
    config = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["OlmoForCausalLM"], "model_type": "olmo",
    }  # fmt: skip
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])

    with pytest.raises(SystemExit) as ended:
        main(["parity", str(reference_model("bitnet-packed")), "--reference", str(folder)])

    assert ended.value.code == CheckpointError.exit_code
    assert re.search(rf"{folder}: transformers \S+ cannot load it: \S", capsys.readouterr().err)


def test_a_damaged_model_file_is_not_compared(reference_model, reference_checkpoint, tmp_path, capsys):
    """Exit code 3 before anything is run; the sums of the planted faults above are right."""
    file = Edited(reference_model("bitnet-packed"))
    file.bytes[file.tensors[Role.DOWN_PROJ, 2].offset] ^= 1
    path = tmp_path / "damaged.ebm"
    path.write_bytes(file.bytes)

    with pytest.raises(SystemExit) as ended:
        main(["parity", str(path), "--reference", str(reference_checkpoint("bitnet-packed"))])

    said = capsys.readouterr()
    assert ended.value.code == 3
    assert f"{path}: the sum of section DATA is wrong" in said.err and not said.out


def test_the_table(reference_model, reference_checkpoint, capsys):
    """Without --json: a row a layer, a row a check, and a last line that says it."""
    name = "llama-bitlinear-packed"
    main(["parity", str(reference_model(name)), "--reference", str(reference_checkpoint(name)), "--greedy", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "layer", "0", "1", "check", "tokenizer", "embedding", "layers", "final", "head", "logits", "greedy",
        str(reference_model(name)),
    ]  # fmt: skip
    assert lines[-1].endswith("they agree")
