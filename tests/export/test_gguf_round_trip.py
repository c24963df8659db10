"""`edgebit export gguf` and back: every reference model that GGUF can hold is the same model again."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from export.rope_variant import with_rope
from export.same_model import assert_same_model

from edgebit.checkpoint.hints import Hints
from edgebit.checkpoint.opening import open_checkpoint
from edgebit.checkpoint.own_gguf_keys import I2S_DIALECT
from edgebit.cli import cli
from edgebit.errors import CheckpointError, ExportError
from edgebit.export.to_gguf import export_gguf
from edgebit.export.to_hugging_face import export_hugging_face

REFERENCE = Path(__file__).parents[1] / "reference"
ROPES = [
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 256},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "attention_factor": 1.0},
]  # fmt: skip
NO_ARCHITECTURE = {
    "llama-bitlinear-rmsnorm-packed": "no architecture with silu and projection_norm",
    "qwen3-rmsnorm-packed": "no architecture with silu and qk_norm, projection_norm",
}
NAMES = sorted(path.name for path in REFERENCE.iterdir() if path.is_dir() and path.name not in NO_ARCHITECTURE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
@pytest.mark.parametrize("exact", [True, False], ids=["exact-scales", "block-scales"])
def test_a_model_comes_back(name, kind, exact, reference_checkpoint, tmp_path):
    """To the bit, but for scales that are no f16 numbers in block types: the report counts those, and says how far."""
    report = export_gguf(reference_checkpoint(name), tmp_path / "model.gguf", kind=kind, exact_scales=exact)
    with (
        closing(open_checkpoint(reference_checkpoint(name))) as wanted,
        closing(open_checkpoint(tmp_path / "model.gguf")) as found,
    ):
        assert (found.config.conf.bos_token, found.config.conf.stop_tokens) == (
            wanted.config.conf.bos_token,
            wanted.config.conf.stop_tokens,
        )
        if report.scales_rounded:
            assert report.scale_error <= 2.0**-11
            assert_same_model(found, wanted, scale_error=report.scale_error)
        else:
            assert_same_model(found, wanted)
        texts = [checkpoint.tokenizer() for checkpoint in (found, wanted)]
        assert (texts[0] is None) == (texts[1] is None)
        if texts[0] is not None:
            assert texts[0].section() == texts[1].section() and texts[0].chat_template == texts[1].chat_template
    assert not (exact and report.scales_rounded)


@pytest.mark.parametrize("name", ["bitnet-packed", "bitnet-bf16"])
def test_i2_s_comes_back(name, reference_checkpoint, tmp_path):
    """In the dialect that Python converters write, which a key of ours says, with its one f32 scale a tensor."""
    export_gguf(reference_checkpoint(name), tmp_path / "model.gguf", kind="i2_s")
    with (
        closing(open_checkpoint(reference_checkpoint(name))) as wanted,
        closing(open_checkpoint(tmp_path / "model.gguf", Hints())) as found,
    ):
        assert_same_model(found, wanted)
    with pytest.raises(CheckpointError, match="the file itself says dialect x86, not arm"):
        open_checkpoint(tmp_path / "model.gguf", Hints(i2s_dialect="arm"))


def test_a_file_in_i2_s_is_exported_with_its_dialect(reference_checkpoint, tmp_path):
    """Of which the command takes the option that the refusal names."""
    export_gguf(reference_checkpoint("bitnet-packed"), tmp_path / "i2_s.gguf", kind="i2_s")
    file = (tmp_path / "i2_s.gguf").read_bytes()
    (tmp_path / "i2_s.gguf").write_bytes(file.replace(I2S_DIALECT.encode(), I2S_DIALECT.encode()[::-1]))
    call = ["export", "hf", str(tmp_path / "i2_s.gguf"), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, call)
    assert isinstance(refused.exception, CheckpointError) and "--i2s-dialect" in str(refused.exception)
    assert CliRunner().invoke(cli, [*call, "--i2s-dialect", "x86"], catch_exceptions=False).exit_code == 0
    with (
        closing(open_checkpoint(reference_checkpoint("bitnet-packed"))) as wanted,
        closing(open_checkpoint(tmp_path / "out")) as found,
    ):
        assert_same_model(found, wanted)


@pytest.mark.parametrize("rope", ROPES, ids=[rope["rope_type"] for rope in ROPES])
@pytest.mark.parametrize("export", [export_gguf, export_hugging_face])
def test_scaled_ropes_come_back(rope, export, reference_checkpoint, tmp_path):
    """By their parameters, which are found from the frequencies; attention's factor with YaRN's."""
    folder = with_rope(reference_checkpoint("llama-master"), rope, tmp_path / "source")
    export(folder, tmp_path / "out")
    with closing(open_checkpoint(folder)) as wanted, closing(open_checkpoint(tmp_path / "out")) as found:
        ours, theirs = found.config, wanted.config
        np.testing.assert_allclose(ours.rope_inv_freq, theirs.rope_inv_freq, rtol=3e-7)
        assert ours.conf.rope_attention_factor == pytest.approx(theirs.conf.rope_attention_factor, rel=1e-6)


@pytest.mark.parametrize("name", ["other", "factor"])
def test_a_rope_of_no_known_form_is_refused(name, reference_checkpoint, tmp_path):
    """Frequencies that neither Llama 3.1 nor YaRN has, for transformers; YaRN's factor alone, for GGUF."""
    odd = {"rope_type": "llama3", "factor": 3.7, "low_freq_factor": 1.5, "high_freq_factor": 9.0}
    odd["original_max_position_embeddings"] = 77
    yarn = {"rope_type": "yarn", "factor": 1.0, "attention_factor": 1.3, "original_max_position_embeddings": 64}
    rope, export, promised = (
        (odd, export_hugging_face, "not Llama 3.1's nor YaRN's")
        if name == "other"
        else (yarn, export_gguf, "multiplies attention as YaRN does")
    )
    folder = with_rope(reference_checkpoint("llama-master"), rope, tmp_path / "source")
    with pytest.raises(ExportError, match=promised):
        export(folder, tmp_path / "out")


@pytest.mark.parametrize("name", NO_ARCHITECTURE)
def test_what_gguf_has_no_architecture_for_is_refused(name, reference_checkpoint, tmp_path):
    with pytest.raises(ExportError, match=NO_ARCHITECTURE[name]):
        export_gguf(reference_checkpoint(name), tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []
