"""JSON files are read within bounds, whatever reads them."""

import struct

import pytest

from edgebit.checkpoint.hugging_face.json_file import read_json
from edgebit.checkpoint.hugging_face.safetensors_file import SafetensorsFile
from edgebit.checkpoint.json_text import MAX_JSON_BYTES, read_json_text
from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.errors import CheckpointError, TokenizerError


@pytest.fixture
def large(tmp_path):
    """An empty object and white space, one byte too many, as a sparse file."""
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b"{}")
        file.truncate(MAX_JSON_BYTES + 1)
    return path


def test_a_file_beyond_the_bound_is_refused(large):
    with pytest.raises(CheckpointError, match=r"large\.json: is no JSON: it has more than 36000000 bytes"):
        read_json(large)
    with pytest.raises(TokenizerError, match=r"large\.json: cannot be read as JSON: it has more than 36000000 bytes"):
        read_json_object(large)


def test_a_header_beyond_the_bound_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_JSON_BYTES + 1))
        file.truncate(2 * MAX_JSON_BYTES)
    with pytest.raises(CheckpointError, match="a header of 36000001 bytes; 36000000 are the limit"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_an_error_of_json(content, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises((ValueError, RecursionError)):
        read_json_text(path)
