"""Which dialect of I2_S a file is in is told by evidence, or asked for."""

import numpy as np
import pytest
from gguf_files import I2_S, Row, floats, pack_i2_s

from edgebit.bundle.model_format import (
    Role,
)
from edgebit.checkpoint.hints import I2S_DIALECTS, Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.errors import CheckpointError


def test_i2_s_of_an_unknown_file_is_refused_with_the_way_to_choose(tiny, tmp_path):
    file = tiny("bitnet").gguf("I2_S/x86").write(tmp_path / "m.gguf")

    with pytest.raises(CheckpointError, match=r"(?s)blk\.0\.attn_q.*I2_S.*--i2s-dialect.*--i2s-reference"):
        open_checkpoint(file)


@pytest.mark.parametrize("dialect", I2S_DIALECTS)
@pytest.mark.parametrize("form", ["bitnet", "llama"])
def test_the_checkpoint_that_a_file_was_made_from_tells_its_dialect(form, dialect, tiny, tmp_path):
    """Master weights or packed; the rows of q in another order with architecture llama."""
    model = tiny(form)
    file = model.gguf(f"I2_S/{dialect}").write(tmp_path / "m.gguf")

    checkpoint = open_checkpoint(file, Hints(i2s_reference=model.hugging_face()))

    projection = checkpoint.projection(Role.DOWN_PROJ, 0)
    assert np.array_equal(projection.weights, model.weights["mlp.down_proj"])
    assert f"dialect {dialect}" in checkpoint.notes[0]


def test_a_dialect_that_the_checkpoint_refutes_is_refused(tiny, tmp_path):
    """Whichever of the two is wrong, weights would be; what agrees is taken."""
    model = tiny("bitnet")
    file, folder = model.gguf("I2_S/x86").write(tmp_path / "m.gguf"), model.hugging_face()

    with pytest.raises(CheckpointError, match=r"--i2s-dialect says arm, and .* shows x86"):
        open_checkpoint(file, Hints(i2s_dialect="arm", i2s_reference=folder))
    open_checkpoint(file, Hints(i2s_dialect="x86", i2s_reference=folder)).close()


def test_the_checkpoint_of_another_model_tells_no_dialect(tiny, reference_checkpoint, tmp_path):
    file = tiny("bitnet").gguf("I2_S/x86").write(tmp_path / "m.gguf")

    with pytest.raises(CheckpointError, match="in no dialect of I2_S its codes are those of"):
        open_checkpoint(file, Hints(i2s_reference=reference_checkpoint("bitnet-packed")))


def test_a_shape_that_a_dialect_cannot_have_is_refused(tiny, tmp_path):
    """Blocks of 128 columns where there are 64."""
    model = tiny("bitnet")
    file = model.gguf("I2_S/x86")
    file.fields |= {"bitnet-b1.58.attention.key_length": 16}
    for name, shape in {
        "attn_q": (64, 256),
        "attn_k": (32, 256),
        "attn_v": (32, 256),
        "attn_output": (256, 64),
    }.items():
        weights = model.weights["self_attn.q_proj"].reshape(-1)[: shape[0] * shape[1]].reshape(shape)
        file.tensors[f"blk.0.{name}.weight"] = Row(I2_S, shape, pack_i2_s("arm", weights, 1.0))
    file.tensors["blk.0.attn_sub_norm.weight"] = floats(np.ones(64, np.float32))

    with pytest.raises(CheckpointError, match=r"attn_output.*64 columns are no multiple of 128.*dialect x86 is wrong"):
        open_checkpoint(file.write(tmp_path / "m.gguf"), Hints(i2s_dialect="x86"))
