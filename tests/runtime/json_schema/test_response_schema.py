"""A response schema: carried from a checkpoint into the model file and out again; refused where nothing follows it."""

import json
import shutil

import pytest
from click.testing import CliRunner

from edgebit.bundle.model_reader import ModelFile
from edgebit.cli.run import command as run
from edgebit.convert import convert
from edgebit.errors import SchemaError
from edgebit.export.to_hugging_face import export_hugging_face

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
    assert json.loads((tmp_path / "exported" / "response_schema.json").read_text()) == SCHEMA


def test_a_schema_that_cannot_be_followed_is_refused(folder, tmp_path):
    (folder / "response_schema.json").write_text('{"type": "string", "pattern": "a"}')
    with pytest.raises(SchemaError, match="checkpoint: the response schema: #: pattern is not supported"):
        convert(folder, tmp_path / "model.ebm", probes=False)
    assert not (tmp_path / "model.ebm").exists()


@pytest.mark.parametrize(("schema", "words"), [("model", "no schema of its own"), ("nothing.json", "cannot be read")])
def test_a_schema_that_is_not_there_is_refused(reference_model, schema, words):
    answered = CliRunner().invoke(run, [str(reference_model("bitnet-packed")), "hello", "--schema", schema])
    assert isinstance(answered.exception, SchemaError)
    assert words in str(answered.exception)
