"""The reader of ONNX files beside the onnx package, and on bytes that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.errors import OnnxError
from edgebit.onnx_engine.onnx_file import OnnxFile, read_onnx_file

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def path(hand_made):
    return hand_made() / "model.onnx"


def shape_of(value):
    return tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in value.type.tensor_type.shape.dim
    )


def test_it_reads_what_the_onnx_package_reads(path):
    """Versions, metadata, inputs, outputs, operators, functions and the places of weights."""
    model, file = onnx.load(str(path), load_external_data=False), read_onnx_file(path)
    assert file.ir_version == model.ir_version
    assert file.opsets == {each.domain: each.version for each in model.opset_import}
    assert file.metadata == {each.key: each.value for each in model.metadata_props}
    assert file.functions == {(each.domain, each.name) for each in model.functions}
    for ours, theirs in ((file.inputs, model.graph.input), (file.outputs, model.graph.output)):
        expected = [(each.name, each.type.tensor_type.elem_type, shape_of(each)) for each in theirs]
        assert [(each.name, each.element_type, each.shape) for each in ours] == expected
    kinds = [(node.domain, node.op_type) for node in model.graph.node]
    assert file.operators == {kind: kinds.count(kind) for kind in kinds}
    places = [
        (each.name, *({entry.key: entry.value for entry in each.external_data}[k] for k in ("offset", "length")))
        for each in model.graph.initializer
        if each.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert [(each.name, str(each.offset), str(each.length)) for each in file.external] == places
    assert {each.location for each in file.external} == {"model.onnx.data"}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    return tmp_path_factory.mktemp("spoilt") / "model.onnx"


@pytest.mark.parametrize("offset", ["²", "-64", "9" * 5000])
def test_a_place_that_is_no_number_is_refused(path, spoilt, offset):
    """Nor one that Python's int() would take long for, or not take."""
    model = onnx.load(str(path), load_external_data=False)
    entry = next(entry for each in model.graph.initializer for entry in each.external_data if entry.key == "offset")
    entry.value = offset
    spoilt.write_bytes(model.SerializeToString())
    with pytest.raises(OnnxError, match=rf"lies at offset '{offset[:20]}"):
        read_onnx_file(spoilt)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(path, spoilt, share):
    """After the metadata come the functions, and nothing else: each cut takes something away."""
    content = path.read_bytes()
    spoilt.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OnnxError, match=r"model\.onnx"):
        nothing_is_missing(read_onnx_file(spoilt))


def nothing_is_missing(file: OnnxFile) -> None:
    """A cut between two fields leaves a file that is whole as far as it goes: what it lacks is found a step later."""
    if "edgebit.files_sha256" not in file.metadata or not file.functions:
        raise OnnxError("model.onnx was not written by edgebit")


@given(data=st.data())
def test_altered_bytes_are_read_or_refused_in_words(path, spoilt, data):
    """Never another exception."""
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    spoilt.write_bytes(content)
    try:
        assert read_onnx_file(spoilt).outputs
    except OnnxError as error:
        assert str(spoilt) in str(error)
