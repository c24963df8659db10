"""`edgebit convert`: a model file, what the command says of it, and --all-checks, which finds what is wrong."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_file_sums import set_sums_right
from tokenizer_folders import write_tokenizer

from edgebit.bundle.model_format import Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.chat_template import choice
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.tokenizer import SpacePrefix
from edgebit.checks import Check
from edgebit.cli import cli
from edgebit.errors import BundleError, OutputError, TokenizerError
from edgebit.export.to_gguf import export_gguf
from edgebit.model_checks.conversion import check_conversion

BYTE_7F = "\u0121"  # as byte-level vocabularies write it


def convert(*arguments: object):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def test_a_checkpoint_becomes_a_model_file(native, reference_checkpoint, tmp_path):
    """Named after the checkpoint unless --out says otherwise, and never over another file without --force."""
    out = tmp_path / "model.ebm"
    done = convert(reference_checkpoint("bitnet-packed"), "--out", out, "--layout", "t1", "--no-probes")
    assert done.exit_code == 0, done.output
    assert "prompt program inside" in done.output
    with ModelFile(out) as model:
        assert (model.meta["quantisation"]["layout"], len(model.probes)) == ("t1", 0)

    again = convert(reference_checkpoint("bitnet-packed"), "--out", out)
    assert isinstance(again.exception, OutputError)
    assert "is there already. Give another name, or --force" in str(again.exception)
    assert convert(reference_checkpoint("bitnet-packed"), "--out", out, "--force", "--no-probes").exit_code == 0


def test_where_no_file_can_be_is_said_first(reference_checkpoint, tmp_path):
    model = reference_checkpoint("bitnet-packed")
    assert "is a folder" in str(convert(model, "--out", tmp_path).exception)
    assert "mkdir -p" in str(convert(model, "--out", tmp_path / "a" / "b").exception)
    os.mkfifo(tmp_path / "pipe")
    assert "is no plain file" in str(convert(model, "--out", tmp_path / "pipe", "--force").exception)
    assert (tmp_path / "pipe").is_fifo()


def test_all_checks_pass_on_a_right_conversion(native, reference_checkpoint, tmp_path):
    """Each says what was compared; those that need a tokenizer or an ISA level that is not there were not run."""
    done = convert(reference_checkpoint("bitnet-packed"), "--out", tmp_path / "m", "--all-checks", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    assert told["ok"]
    assert {"every byte", "tensors", "head as stored", "tokenizer", "chat template", "answer"} < set(checks)
    assert "1,769,472 codes" in checks["tensors"]["detail"]
    assert "the ids are those of `tokenizers`" in checks["tokenizer"]["detail"]
    assert "with its ids by `tokenizers`" in checks["chat template"]["detail"]
    assert {name.removeprefix("golden probes, ") for name in checks if "probes" in name} == set(native.isa_names)
    assert checks["golden probes, scalar"]["status"] == "passed"
    assert {check["status"] for check in told["checks"]} <= {"passed", "not run"}

    bare = convert(
        reference_checkpoint("legacy-1bitllm-f32"), "--out", tmp_path / "n", "--all-checks", "--no-probes",
        "--embedding", "int8",
    )  # fmt: skip
    assert bare.exit_code == 0, bare.output
    assert "embedding as int8 rows" in bare.output
    assert "converted with --no-probes" in bare.output


@pytest.fixture
def foreign(reference_checkpoint, tmp_path):
    """A model by what is special of it: bitnet-packed's weights with another tokenizer, or from a GGUF file."""

    def make(kind: str) -> Path:
        if kind in ("bonsai-f16", "trilm-f16"):
            return reference_checkpoint(kind)
        if kind == "gguf":
            export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "model.gguf")
            return tmp_path / "model.gguf"
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(reference_checkpoint("bitnet-packed") / name, folder)
        if kind in ("gpt2-nfc", "gpt2-without-a-byte"):
            write_tokenizer(folder, "gpt2-nfc", chat_template=template_text("zephyr"))
            if kind != "gpt2-nfc":
                data = json.loads((folder / "tokenizer.json").read_text())
                del data["model"]["vocab"][BYTE_7F]
                del data["added_tokens"][2:]  # `tokenizers` would count them from the vocabulary's new end
                (folder / "tokenizer.json").write_text(json.dumps(data))
        else:
            write_tokenizer(folder, kind, chat_template=template_text("llama2"))
        return folder

    return make


def template_text(name: str) -> str:
    return (Path(choice.__file__).parent / "built_in" / f"{name}.jinja").read_text()


@pytest.mark.parametrize(
    "kind",
    ["sentencepiece", "metaspace-first", "gpt2-nfc", "gpt2-without-a-byte", "gguf", "bonsai-f16", "trilm-f16"],
)
def test_all_checks_pass_on_foreign_models(kind, native, foreign, tmp_path):
    """SentencePiece's and GPT-2's tokens, a GGUF file, scales by group with activations of 15 bits, scales by row."""
    done = convert(foreign(kind), "--out", tmp_path / "m", "--all-checks", "--json")
    assert done.exit_code == 0, done.output
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["golden probes, scalar"]["status"] == "passed"
    if not kind.endswith("-f16"):
        own = "the engine's tokenizer" if kind == "gguf" else "`tokenizers`"
        assert f"with its ids by {own}" in checks["chat template"]["detail"]
        assert "there and back" in checks["tokenizer"]["detail"]
        assert ("the ids are those of `tokenizers`" in checks["tokenizer"]["detail"]) == (kind != "gguf")


def test_a_failed_check_ends_with_its_exit_code(native, reference_checkpoint, tmp_path, monkeypatch):
    found = [Check("tensors", "failed", "q_proj[1]: 3 of 9 codes differ")]
    monkeypatch.setattr("edgebit.cli.convert.check_conversion", lambda *arguments: found)
    done = convert(reference_checkpoint("bitnet-packed"), "--out", tmp_path / "m", "--all-checks", "--no-probes")
    assert done.exit_code == BundleError.exit_code
    assert "q_proj[1]: 3 of 9 codes differ" in done.output


def test_a_template_can_be_chosen(reference_checkpoint, tmp_path):
    refused = convert(reference_checkpoint("bitnet-packed"), "--out", tmp_path / "m", "--template", "chatml")
    assert isinstance(refused.exception, TokenizerError)
    plain = convert(reference_checkpoint("bitnet-packed"), "--out", tmp_path / "m", "--template", "none", "--no-probes")
    assert "none: prompts are plain text" in plain.output


@pytest.fixture
def spoiled(reference_checkpoint, reference_model, foreign, tmp_path):
    """Gives the failed checks of a model after `spoil` has changed bytes of a section and set its sums right."""

    def checked(tag: str, spoil, kind: str | None = None) -> dict[str, str]:
        path, checkpoint = tmp_path / "spoiled.ebm", reference_checkpoint("bitnet-packed")
        if kind is None:
            shutil.copy(reference_model("bitnet-packed"), path)
        else:
            checkpoint = foreign(kind)
            assert convert(checkpoint, "--out", path, "--force").exit_code == 0
        with ModelFile(path) as file:
            section = file.sections[tag]
            tensors = {(tensor.role, max(0, tensor.layer % 1000)): tensor for tensor in file.tensors}
        data = bytearray(path.read_bytes())
        spoil(data, section, tensors)
        set_sums_right(data, section)
        path.write_bytes(data)
        source, model = open_checkpoint(checkpoint), open_model_file(path)
        try:
            checks = check_conversion(path, source, model)
        finally:
            source.close()
            model.close()
        return {check.name: check.detail for check in checks if check.status == "failed"}

    return checked


def test_a_single_wrong_code_is_found(native, spoiled):
    """With its tensor, row and column, by the comparison with the checkpoint and by the golden probes."""

    def spoil(data, section, tensors):
        place = tensors[Role.UP_PROJ, 1].offset
        codes = data[place] & 3
        data[place] = data[place] & ~3 | (0 if codes else 2)

    failed = spoiled("DATA", spoil)
    assert "up_proj[1], of checkpoint and model file: 1 of" in failed["tensors"]
    assert "first at row 0, column 0" in failed["tensors"]
    assert any("probes" in name for name in failed)
    assert "head as stored" not in failed


def test_a_wrong_scale_a_wrong_head_and_a_wrong_embedding_are_found(native, spoiled):
    def scale(data, section, tensors):
        place = tensors[Role.O_PROJ, 0].scales_offset
        struct.pack_into("<f", data, place, struct.unpack_from("<f", data, place)[0] * 1.001)

    def head(data, section, tensors):
        place = next(tensor for (role, _), tensor in tensors.items() if role == Role.HEAD).offset
        data[place] ^= 1

    def embedding(data, section, tensors):
        place = next(tensor for (role, _), tensor in tensors.items() if role == Role.TOKEN_EMBEDDING).offset
        data[place] ^= 1

    assert "o_proj[0], of checkpoint and model file: scales: 1 of 1 differ" in spoiled("DATA", scale)["tensors"]
    assert "row 0 has other codes" in spoiled("DATA", head)["head as stored"]
    assert "token_embedding, of checkpoint and model file: 1 rows differ" in spoiled("DATA", embedding)["tensors"]


def test_a_wrong_prompt_program_is_found(native, spoiled):
    """Jinja's prompt and the program's are shown beside one another."""

    def spoil(data, section, tensors):
        at = data.index(b"User: ", section.offset)
        data[at : at + 6] = b"Uzer: "

    failed = spoiled("PRMT", spoil)
    assert set(failed) == {"chat template"}
    assert "is another than Jinja's '<|begin_of_text|>User: " in failed["chat template"]


def test_what_is_wrong_with_foreign_models_is_found(native, spoiled):
    """One scale of a group, and where SentencePiece's tokenizer puts a space."""

    def group_scale(data, section, tensors):
        place = tensors[Role.O_PROJ, 0].scales_offset + 4
        struct.pack_into("<f", data, place, struct.unpack_from("<f", data, place)[0] * 1.001)

    def space_prefix(data, section, tensors):
        place = section.offset + 40
        assert data[place] == SpacePrefix.SEGMENT
        data[place] = SpacePrefix.UNSPACED_TEXT

    failed = spoiled("DATA", group_scale, "bonsai-f16")
    assert "o_proj[0], of checkpoint and model file: scales: 1 of" in failed["tensors"]
    assert any("probes" in name for name in failed)
    failed = spoiled("TOKN", space_prefix, "sentencepiece")
    assert set(failed) == {"tokenizer", "chat template"}
    assert "of `tokenizers` [" in failed["tokenizer"] and "has other ids than Jinja's" in failed["chat template"]


def test_a_wrong_byte_alone_is_found_by_its_sum(native, reference_checkpoint, reference_model, tmp_path):
    path = tmp_path / "m.ebm"
    data = bytearray(Path(reference_model("bitnet-packed")).read_bytes())
    with ModelFile(reference_model("bitnet-packed")) as file:
        data[next(t for t in file.tensors if t.role == Role.FINAL_NORM).offset] ^= 1
    path.write_bytes(data)
    source, model = open_checkpoint(reference_checkpoint("bitnet-packed")), open_model_file(path)
    checks = {check.name: check for check in check_conversion(path, source, model)}
    source.close()
    model.close()
    assert "a weight is damaged" in checks["every byte"].detail
    assert "final_norm" in checks["tensors"].detail
