"""`edgebit diff`: equal models of any kind, and where others differ first."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizer_folders import write_tokenizer

from edgebit.bundle.archive import hash_file, write_archive
from edgebit.bundle.manifest import BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.cli import cli
from edgebit.convert import convert
from edgebit.errors import CheckpointError


def diff(*arguments: object):
    return CliRunner().invoke(cli, ["diff", *map(str, arguments)])


def differences(*arguments: object) -> dict[str, dict[str, str]]:
    """By part and name: how they differ."""
    done = diff(*arguments, "--json")
    assert done.exit_code in (0, 1), done.output
    told = json.loads(done.stdout)
    assert told["equal"] == (done.exit_code == 0)
    return {
        part["title"]: {each["name"]: each["detail"] for each in part["differences"]}
        for part in told["parts"]
        if part["differences"]
    }


@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-packed-odd-untied", "legacy-1bitllm-f32"])
def test_a_checkpoint_equals_its_model_file(name, reference_checkpoint, reference_model):
    """Nothing at all differs, though one has master weights or quarters of rows and the other tiles."""
    done = diff(reference_checkpoint(name), reference_model(name))
    assert done.exit_code == 0, done.output
    assert "the models are equal" in done.output
    assert "differs" not in done.output


def test_a_gguf_file_has_the_weights_of_its_source(native, reference_checkpoint, tmp_path):
    """Converted with the options that GGUF files take, it is compared as any other; those options go with one alone."""
    source, file = reference_checkpoint("bitnet-packed"), tmp_path / "a.gguf"
    assert CliRunner().invoke(cli, ["export", "gguf", str(source), "--out", str(file)]).exit_code == 0

    assert not {"architecture", "tensors"} & set(differences(source, file, "--activations", "int8"))
    assert differences(file, source, "--activations", "float")["architecture"] == {
        "activation_quantisation": "int15 and int8"
    }
    refused = diff(source, source, "--activations", "float")
    assert isinstance(refused.exception, CheckpointError)


def test_layouts_and_bundles_are_no_difference(reference_checkpoint, reference_model, tmp_path):
    """t1, t2, and a bundle of it; an int8 embedding is one."""
    model = reference_model("bitnet-packed")
    manifest = Manifest(
        name="chat", edgebit="0.1.0", abi=1, target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
        model=ModelInfo(name="tiny"), build=BuildInfo(), files={"model.ebm": hash_file(model)},
    )  # fmt: skip
    write_archive(tmp_path / "chat.bundle", manifest, {"model.ebm": model})
    convert(reference_checkpoint("bitnet-packed"), tmp_path / "t1.ebm", layout="t1", probes=False)
    assert diff(tmp_path / "chat.bundle", tmp_path / "t1.ebm").exit_code == 0

    convert(reference_checkpoint("bitnet-packed"), tmp_path / "int8.ebm", embedding="int8", probes=False)
    found = differences(model, tmp_path / "int8.ebm")
    assert set(found) == {"tensors"}
    assert "512 rows differ, first row 0" in found["tensors"]["token_embedding"]


def test_another_number_of_weights_is_told_by_shapes(reference_checkpoint):
    found = differences(reference_checkpoint("legacy-1bitllm-f32"), reference_checkpoint("llama-bitlinear-packed"))
    assert found["architecture"]["hidden_size"] == "96 and 128"
    assert found["architecture"]["norms"] == "attn_sub_norm ffn_sub_norm and none"
    assert found["tensors"]["q_proj[0]"] == "96 x 96 and 128 x 128"
    assert "family" in found["metadata"]


@pytest.fixture
def changed(reference_checkpoint, tmp_path):
    """Gives the differences of the tiny checkpoint and a copy in which `change` has edited files."""

    def found(change) -> dict[str, dict[str, str]]:
        original, copy = reference_checkpoint("bitnet-packed"), tmp_path / "bitnet-packed"
        shutil.copytree(original, copy)
        change(copy)
        return differences(original, copy)

    return found


def edit_json(path, edit) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_the_first_code_that_differs_is_named(changed):
    """Two codes of one projection, found by row and column; nothing else."""

    def change(folder):
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        header_size = int.from_bytes(data[:8], "little")
        entry = json.loads(data[8 : 8 + header_size])["model.layers.2.mlp.down_proj.weight"]
        rows, columns = entry["shape"]
        start = 8 + header_size + entry["data_offsets"][0]
        packed = np.frombuffer(data, np.uint8, rows * columns, start).reshape(rows, columns).copy()
        for row, column in ((3, 7), (9, 1)):
            packed[row, column] ^= 2 if packed[row, column] & 3 != 1 else 1  # -1 and +1 change places, 0 becomes -1
        data[start : start + packed.size] = packed.tobytes()
        path.write_bytes(data)

    found = changed(change)
    assert set(found) == {"tensors"}
    assert set(found["tensors"]) == {"down_proj[2]"}
    assert "2 of 131,072 codes differ, first at row 3, column 7: " in found["tensors"]["down_proj[2]"]


def test_tokenizers_differ_by_vocabulary_merges_and_added_tokens(changed):
    def change(folder):
        def edit(data):
            merges = data["model"]["merges"]
            merges[5], merges[6] = merges[6], merges[5]
            data["added_tokens"][-1]["content"] = "<|new|>"

        edit_json(folder / "tokenizer.json", edit)

    found = changed(change)
    assert set(found) == {"tokenizer"}
    assert "1 ids stand for other texts, the first 511" in found["tokenizer"]["vocabulary"]
    assert "of rank 5: " in found["tokenizer"]["merges"]
    assert "only the first has '<|reserved_special_token_3|>'" in found["tokenizer"]["special tokens"]


def test_tokenizers_differ_by_form(native, reference_checkpoint, tmp_path):
    """Where a space is put; a model file has the form of its checkpoint."""
    for form in ("sentencepiece", "metaspace-first"):
        (tmp_path / form).mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(reference_checkpoint("bitnet-packed") / name, tmp_path / form)
        write_tokenizer(tmp_path / form, form)
    convert(tmp_path / "metaspace-first", tmp_path / "first.ebm", probes=False)
    assert diff(tmp_path / "metaspace-first", tmp_path / "first.ebm").exit_code == 0
    done = diff(tmp_path / "sentencepiece", tmp_path / "first.ebm")
    assert done.exit_code == 1
    assert "segment and unspaced_text" in done.output


def test_templates_differ_by_feature_and_first_conversation(changed):
    def change(folder):
        def edit(data):
            data["chat_template"] = data["chat_template"].replace(" | trim", "")

        edit_json(folder / "tokenizer_config.json", edit)

    found = changed(change)
    assert set(found) == {"chat template"}
    assert found["chat template"]["strip"] == "('system', 'user', 'assistant') and ()"
    assert "'User: <|eot_id|>Assistant: ' and 'User:  <|eot_id|>Assistant: '" in found["chat template"]["conversation"]


def test_one_without_a_tokenizer_or_template(changed):
    assert changed(lambda folder: (folder / "tokenizer.json").unlink()) == {
        "tokenizer": {"tokenizer": "only the first has one"},
        "chat template": {"chat template": "only the first has one"},
    }


def test_stop_tokens_and_advice(changed):
    """Advice is metadata: it is shown, and alone would make no other model."""

    def change(folder):
        edit_json(folder / "generation_config.json", lambda data: data.update(temperature=0.1, eos_token_id=[501, 508]))

    found = changed(change)
    assert found["stop tokens"] == {"stop tokens": "501, 509 and 501, 508, 509"}
    assert "advised for sampling" in found["metadata"]


def test_a_name_alone_makes_no_other_model(reference_checkpoint, tmp_path):
    shutil.copytree(reference_checkpoint("bitnet-packed"), tmp_path / "renamed")
    done = diff(reference_checkpoint("bitnet-packed"), tmp_path / "renamed")
    assert done.exit_code == 0
    assert "differs, and does not count" in done.output


def test_what_is_no_model_is_an_error_of_its_own(reference_checkpoint, tmp_path):
    done = diff(reference_checkpoint("bitnet-packed"), tmp_path)
    assert isinstance(done.exception, CheckpointError)
