"""A response schema: carried from a checkpoint into the model file and out again; refused where nothing follows it."""

import hashlib
import json
import shutil
from contextlib import closing

import pytest
from click.testing import CliRunner

from edgebit.bundle.archive import hash_file, write_archive
from edgebit.bundle.manifest import MODEL_MEMBER, BuildInfo, Manifest, ModelInfo, TargetInfo
from edgebit.bundle.model_reader import ModelFile
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.cli.run import command as run
from edgebit.convert import convert
from edgebit.errors import CheckpointError, SchemaError
from edgebit.export.gguf_file import flag
from edgebit.export.to_gguf import export_gguf
from edgebit.export.to_hugging_face import export_hugging_face
from edgebit.export.to_onnx import export_onnx
from edgebit.model_checks.model_file import check_model_file
from edgebit.verify import Extent, verify_bundle

SCHEMA = {"type": "object", "properties": {"z": {"enum": [1, 2]}, "a": {"type": "boolean"}}, "required": ["z", "a"]}


@pytest.fixture
def folder(reference_checkpoint, tmp_path):
    return shutil.copytree(reference_checkpoint("bitnet-packed"), tmp_path / "checkpoint")


def test_a_schema_goes_into_the_model_file_and_out_again(folder, native, tmp_path):
    """In the order of its properties, which answers follow."""
    (folder / "response_schema.json").write_text(json.dumps(SCHEMA, indent=4))
    convert(folder, tmp_path / "model.ebm", probes=False)
    with ModelFile(tmp_path / "model.ebm") as model:
        assert model.content("SCHM") == json.dumps(SCHEMA, separators=(",", ":")).encode()

    answered = CliRunner().invoke(run, [str(tmp_path / "model.ebm"), "hello", "--schema", "model"])
    assert list(json.loads(answered.output)) == ["z", "a"], answered.output

    export_hugging_face(tmp_path / "model.ebm", tmp_path / "exported")
    assert (tmp_path / "exported" / "response_schema.json").read_text() == json.dumps(
        SCHEMA, separators=(",", ":")
    ) + "\n"


def test_a_schema_goes_into_a_gguf_file_and_back(folder, tmp_path):
    """As it is spelt in the folder; a model file of the GGUF file has it in the one spelling."""
    (folder / "response_schema.json").write_text(json.dumps(SCHEMA, indent=4) + "\n")
    export_gguf(folder, tmp_path / "model.gguf")
    with closing(open_checkpoint(tmp_path / "model.gguf")) as checkpoint:
        assert checkpoint.response_schema() == json.dumps(SCHEMA, indent=4).encode()
    convert(tmp_path / "model.gguf", tmp_path / "model.ebm", probes=False)
    with ModelFile(tmp_path / "model.ebm") as model:
        assert model.content("SCHM") == json.dumps(SCHEMA, separators=(",", ":")).encode()


def test_a_schema_lies_in_an_onnx_folder_whose_sums_it_is_among(folder, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    (folder / "response_schema.json").write_text(json.dumps(SCHEMA))
    export_onnx(folder, tmp_path / "out")
    written = (tmp_path / "out" / "response_schema.json").read_bytes()
    assert json.loads(written) == SCHEMA
    model = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False)
    (sums,) = (entry.value for entry in model.metadata_props if entry.key == "edgebit.files_sha256")
    assert json.loads(sums)["response_schema.json"] == hashlib.sha256(written).hexdigest()


def test_a_gguf_file_whose_schema_is_no_text_is_refused(folder, tmp_path, monkeypatch):
    (folder / "response_schema.json").write_text("true")
    monkeypatch.setattr("edgebit.export.to_gguf.text", lambda text: flag(True))
    export_gguf(folder, tmp_path / "model.gguf")
    refused = pytest.raises(CheckpointError, match=r"model\.gguf: edgebit\.response_schema must be the text")
    with closing(open_checkpoint(tmp_path / "model.gguf")) as checkpoint, refused:
        checkpoint.response_schema()


def test_a_schema_that_cannot_be_followed_is_refused(folder, tmp_path):
    (folder / "response_schema.json").write_text('{"type": "string", "pattern": "a"}')
    with pytest.raises(SchemaError, match="checkpoint: the response schema: #: pattern is not supported"):
        convert(folder, tmp_path / "model.ebm", probes=False)
    for export in (export_gguf, export_hugging_face):
        with pytest.raises(SchemaError, match="checkpoint: the response schema: #: pattern is not supported"):
            export(folder, tmp_path / "exported.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("text", "status"), [(b'{"type":"string","pattern":"a"}', "failed"), (b'{"type":"null"}', "passed")]
)
def test_verify_compiles_it(folder, tmp_path, monkeypatch, text, status):
    """One that another program wrote into the file may be none that a device can follow: in a bundle too."""
    (folder / "response_schema.json").write_text("{}")
    monkeypatch.setattr("edgebit.convert.schema_section", lambda given: text)
    model, bundle = tmp_path / "model.ebm", tmp_path / "x.bundle"
    convert(folder, model, probes=False)
    manifest = Manifest(
        name="x", edgebit="0.1", abi=2, target=TargetInfo(name="rpi", triple="aarch64-linux-gnu"),
        model=ModelInfo(name="m"), build=BuildInfo(builder="system", compiler="c", toolchain_id="0123456789abcdef"),
        files={MODEL_MEMBER: hash_file(model)},
    )  # fmt: skip
    write_archive(bundle, manifest, {MODEL_MEMBER: model})
    for checks in (check_model_file(model, run=False), verify_bundle(bundle, Extent(run=False)).checks):
        (found,) = (check for check in checks if check.name == "response schema")
        assert found.status == status and ("pattern is not supported" in found.detail) == (status == "failed")


@pytest.mark.parametrize(("schema", "words"), [("model", "no schema of its own"), ("nothing.json", "cannot be read")])
def test_a_schema_that_is_not_there_is_refused(reference_model, schema, words):
    answered = CliRunner().invoke(run, [str(reference_model("bitnet-packed")), "hello", "--schema", schema])
    assert isinstance(answered.exception, SchemaError)
    assert words in str(answered.exception)
