"""`edgebit export hf`: what is imported again is the model that went in (test_transformers.py computes it)."""

import hashlib
import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from export.same_model import assert_same_model
from safetensors import safe_open
from tokenizers import Tokenizer

from edgebit.checkpoint.opening import open_checkpoint
from edgebit.cli import cli
from edgebit.convert import convert
from edgebit.errors import ExportError
from edgebit.export.to_hugging_face import export_hugging_face

REFERENCE = Path(__file__).parents[1] / "reference"
FORMS = {
    "bitnet-packed": ("BitNetForCausalLM", "autobitlinear", "bfloat16"),
    "bitnet-bf16": ("BitNetForCausalLM", "autobitlinear", "float32"),
    "bitnet-packed-odd-untied": ("BitNetForCausalLM", "autobitlinear", "bfloat16"),
    "bonsai-f16": ("Qwen3ForCausalLM", None, "float16"),
    "falcon3-packed": ("LlamaForCausalLM", "bitlinear", "bfloat16"),
    "legacy-1bitllm-f16-head100": ("BitNetForCausalLM", "autobitlinear", "float32"),
    "legacy-1bitllm-f32": ("BitNetForCausalLM", "autobitlinear", "float32"),
    "llama-bitlinear-packed": ("LlamaForCausalLM", "bitlinear", "bfloat16"),
    "llama-bitlinear-rmsnorm-packed": ("LlamaForCausalLM", "bitlinear", "bfloat16"),
    "llama-master": ("LlamaForCausalLM", "bitlinear", "float32"),
    "qwen2-zero-bias-packed": ("LlamaForCausalLM", "bitlinear", "bfloat16"),
    "qwen3-rmsnorm-packed": ("Qwen3ForCausalLM", "bitlinear", "bfloat16"),
    "trilm-f16": ("LlamaForCausalLM", None, "float16"),
}


def test_every_reference_model_is_here():
    assert sorted(FORMS) == sorted(path.name for path in REFERENCE.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("source", ["checkpoint", "model file"])
def test_a_round_trip_changes_no_bit(name, source, reference_checkpoint, quick_model, tmp_path):
    """Codes, scales, norms, RoPE, embedding and a checkpoint's head, in the smallest form that can hold them.

    A RoPE that is scaled by frequency is said by its parameters, which give it to a few units of the last place.
    """
    path = reference_checkpoint(name) if source == "checkpoint" else quick_model(name)
    report = export_hugging_face(path, tmp_path / "out")
    with closing(open_checkpoint(path)) as wanted, closing(open_checkpoint(tmp_path / "out")) as found:
        assert_same_model(found, wanted)
        for key in ("context_max", "bos_token", "stop_tokens", "activation_quantisation"):
            assert getattr(found.config.conf, key) == getattr(wanted.config.conf, key), key
    if source == "checkpoint":
        assert (report.architecture, report.linear_class, report.dtype) == FORMS[name]


def test_the_tokenizer_of_a_model_file_is_written_anew(reference_checkpoint, reference_model, tmp_path):
    """The same ids from the written file as from the first, special tokens and begin-of-text with them."""
    export_hugging_face(reference_model("bitnet-packed"), tmp_path / "out")
    wanted, found = (
        Tokenizer.from_file(str(folder / "tokenizer.json"))
        for folder in (reference_checkpoint("bitnet-packed"), tmp_path / "out")
    )
    texts = [
        "",
        " ",
        "Hello, world! 1234567",
        "naïve — 東京\n\n\tx",
        "<|begin_of_text|>a<|eot_id|> b",
        "I'LL  it's 'S ",
    ]
    texts += [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    for text in texts:
        assert found.encode(text).ids == wanted.encode(text).ids
        assert found.decode(found.encode(text).ids) == wanted.decode(wanted.encode(text).ids)
    model = tmp_path / "model.ebm"
    convert(tmp_path / "out", model, probes=False)
    with closing(open_checkpoint(model)) as again, closing(open_checkpoint(reference_model("bitnet-packed"))) as first:
        assert again.tokenizer() == first.tokenizer()


def test_a_folders_own_tokenizer_files_are_copied(reference_checkpoint, tmp_path):
    export_hugging_face(reference_checkpoint("bitnet-packed"), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (reference_checkpoint("bitnet-packed") / name).read_bytes()


def test_independent_code_reads_the_packed_weights(reference_checkpoint, tmp_path):
    """The bytes of the very tensors that transformers packed, as the safetensors library reads them."""
    folder = reference_checkpoint("bitnet-packed")
    export_hugging_face(folder, tmp_path / "out")
    with (
        safe_open(folder / "model.safetensors", "numpy") as wanted,
        safe_open(tmp_path / "out" / "model.safetensors", "numpy") as found,
    ):
        assert set(found.keys()) == set(wanted.keys())
        packed = [name for name in wanted.keys() if name.endswith("_proj.weight")]  # noqa: SIM118
        assert len(packed) == 21
        for name in packed:
            assert np.array_equal(found.get_tensor(name), wanted.get_tensor(name))


def test_the_card_says_licence_and_source(reference_checkpoint, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in reference_checkpoint("bitnet-packed").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "README.md").write_text("---\nlicense: MIT\n---\n")
    export_hugging_face(folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.match(r"---\nlicense: mit\n", card) and "Licence of the source: mit." in card
    assert "from model.safetensors (safetensors, family bitnet-packed)" in card
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [501, 509]


def snapshot(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_a_folder_is_replaced_only_when_told_and_only_a_models(reference_checkpoint, tmp_path):
    out = tmp_path / "out"
    export_hugging_face(reference_checkpoint("bitnet-packed"), out)
    first = snapshot(out)
    with pytest.raises(ExportError, match="is there already"):
        export_hugging_face(reference_checkpoint("llama-bitlinear-packed"), out)
    assert snapshot(out) == first
    export_hugging_face(reference_checkpoint("llama-bitlinear-packed"), out, force=True)
    assert "tokenizer.json" not in snapshot(out), "nothing of the model before is left"
    (out / "mine").mkdir()
    with pytest.raises(ExportError, match="no folder that edgebit alone wrote: mine is of another"):
        export_hugging_face(reference_checkpoint("bitnet-packed"), out, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_folders_of_the_user_beside_stay(reference_checkpoint, tmp_path):
    """Whatever they are called: out.old and out.part are names that a user may give."""
    for name in ("out.old", "out.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_bytes(b"x")
    for family in ("bitnet-packed", "llama-bitlinear-packed"):
        export_hugging_face(reference_checkpoint(family), tmp_path / "out", force=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old", "out.part"]
    assert (tmp_path / "out.old" / "kept").is_file() and (tmp_path / "out.part" / "kept").is_file()


def test_a_fault_on_the_way_leaves_what_was_there(reference_checkpoint, tmp_path):
    out = tmp_path / "out"
    export_hugging_face(reference_checkpoint("bitnet-packed"), out)
    first = snapshot(out)

    def stop(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_hugging_face(reference_checkpoint("llama-bitlinear-packed"), out, force=True, progress=stop)
    assert snapshot(out) == first and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_an_error_that_leaves_nothing(small_disk, reference_checkpoint):
    (small_disk / "filler").write_bytes(bytes(24_900_000))
    with pytest.raises(ExportError, match="No space left"):
        export_hugging_face(reference_checkpoint("bitnet-packed"), small_disk / "out")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_the_command_tells_what_it_made(reference_model, tmp_path):
    call = ["export", "hf", str(reference_model("bitnet-packed-odd-untied")), "--out", str(tmp_path / "out"), "--json"]
    report = json.loads(CliRunner().invoke(cli, call, catch_exceptions=False).stdout)
    assert (report["architecture"], report["dtype"]) == ("BitNetForCausalLM", "float32")
    assert any("int8 rows" in note for note in report["notes"])
