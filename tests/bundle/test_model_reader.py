"""A model file is read as docs/model-format.md says, and a damaged one refused, by the Python reader and by C's."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgebit.bundle.model_format import Activation, Conf, Encoding, Norms, Probe, Role
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.model_writer import ModelWriter
from edgebit.errors import BundleError
from edgebit.runtime.model import Model

CONF = Conf(
    hidden_size=64, ffn_size=96, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, vocab_size=20, context_max=128,
    rms_norm_eps=1e-5, activation=Activation.RELU2, norms=Norms.ATTN_SUB_NORM | Norms.FFN_SUB_NORM, head_tied=True,
    bos_token=1, stop_tokens=(2, 3),
)  # fmt: skip
PROBE = Probe(prompt=(1, 5), layer_crc=(7, 8), logits_crc=9, greedy=(4,))


def write_model(path: Path, conf: Conf = CONF, embedding: Encoding = Encoding.BF16) -> Path:
    with ModelWriter(path, conf, {}, embedding=embedding, layout=Encoding.T2) as writer:
        for tensor in writer.tensors:
            fill = 0x55 if tensor.encoding == Encoding.T2 else 0
            values = np.full(tensor.size, fill, np.uint8)
            writer.write_tensor([values], np.ones(tensor.n_scales, np.float32))
        writer.finish({"name": "tiny"})
        writer.set_probes((PROBE,))
        writer.commit()
    return path


class ModelBytes(bytes):
    def __repr__(self) -> str:
        return f"<model file of {len(self)} bytes>"


@pytest.fixture(scope="session")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound model file of one layer."""
    return ModelBytes(write_model(tmp_path_factory.mktemp("model") / "model.ebm").read_bytes())


class Edit:
    """A model file's bytes being changed; the sums are made right again unless a change is about them."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.keeps_sums = False

    def put(self, at: int, form: str, value: object) -> None:
        struct.pack_into("<" + form, self.data, at, value)

    def entry(self, tag: str) -> int:
        """Where the section table's row of `tag` lies."""
        return next(at for at in range(64, 64 + 32 * self.count(), 32) if self.data[at : at + 4] == tag.encode())

    def count(self) -> int:
        return struct.unpack_from("<I", self.data, 12)[0]

    def start(self, tag: str) -> int:
        return struct.unpack_from("<Q", self.data, self.entry(tag) + 8)[0]

    def tensor(self, role: Role) -> int:
        """Where the row of section TENS of a role lies."""
        at = self.start("TENS")
        while struct.unpack_from("<I", self.data, at)[0] != role:
            at += 64
        return at

    def finished(self) -> bytes:
        if not self.keeps_sums:
            table_end = 64 + 32 * min(self.count(), 32)
            for at in range(64, table_end, 32):
                offset, size = struct.unpack_from("<QQ", self.data, at + 8)
                if self.data[at : at + 4] != b"DATA" and offset + size <= len(self.data):
                    self.put(at + 4, "I", zlib.crc32(self.data[offset : offset + size]))
            self.put(24, "I", zlib.crc32(self.data[64:table_end]))
            self.put(28, "I", zlib.crc32(self.data[:28]))
        return bytes(self.data)


def conf_field(at: int, form: str, value: object) -> Callable[[Edit], None]:
    return lambda edit: edit.put(edit.start("CONF") + at, form, value)


def attention_of(n_heads: int, head_dim: int) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.put(edit.start("CONF") + 12, "I", n_heads)
        edit.put(edit.start("CONF") + 20, "I", head_dim)

    return change


def tensor_field(role: Role, at: int, form: str, value: object) -> Callable[[Edit], None]:
    return lambda edit: edit.put(edit.tensor(role) + at, form, value)


def section_field(tag: str, at: int, form: str, value: object) -> Callable[[Edit], None]:
    return lambda edit: edit.put(edit.entry(tag) + at, form, value)


def raw(at: int, form: str, value: object) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.put(at, form, value)
        edit.keeps_sums = True

    return change


def meta_text(text: bytes) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        at = edit.start("META")
        size = struct.unpack_from("<Q", edit.data, edit.entry("META") + 16)[0]
        edit.data[at : at + size] = text.ljust(size)[:size]

    return change


def probe_field(at: int, form: str, value: object) -> Callable[[Edit], None]:
    return lambda edit: edit.put(edit.start("PROB") + at, form, value)


def cut(size: int) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        del edit.data[size:]
        edit.keeps_sums = True

    return change


def no_section(tag: str) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.data[edit.entry(tag) : edit.entry(tag) + 4] = tag.lower().encode()

    return change


def same_tensor_twice(edit: Edit) -> None:
    edit.put(edit.tensor(Role.K_PROJ), "I", Role.V_PROJ)


# name: the change, and words of the Python reader's refusal
HOSTILE: dict[str, tuple[Callable[[Edit], None], str]] = {
    "empty": (cut(0), "is empty, and no model file"),
    "header-cut": (cut(40), "40 bytes are no model file"),
    "cut": (cut(3000), "a copy cut short"),
    "magic": (raw(0, "B", 0x88), "is no model file"),
    "changed-as-text": (raw(6, "B", 0x0D), "is no model file"),
    "header-sum": (raw(16, "Q", 77), "the sum of the header is wrong"),
    "table-sum": (raw(64 + 20, "B", 1), "the sum of the section table is wrong"),
    "conf-sum": (raw(256 + 10, "B", 9), "the sum of section CONF is wrong"),
    "version": (lambda edit: edit.put(8, "I", 1), "is of version 1"),
    "no-sections": (lambda edit: edit.put(12, "I", 0), "0 sections"),
    "many-sections": (lambda edit: edit.put(12, "I", 33), "33 sections"),
    "file-size": (lambda edit: edit.put(16, "Q", len(edit.data) - 64), "the header promises"),
    "header-reserved": (lambda edit: edit.put(40, "B", 1), "the header's reserved bytes must be zero"),
    "section-reserved": (section_field("META", 24, "B", 1), "the reserved bytes of section META must be zero"),
    "tag-unknown": (section_field("META", 0, "4s", b"XTRA"), "section XTRA is not known"),
    "tag-binary": (section_field("META", 0, "4s", b"\0\1\2\3"), "a tag that is no four letters"),
    "tag-twice": (section_field("META", 0, "4s", b"PROB"), "section PROB stands twice"),
    "section-unaligned": (section_field("META", 8, "Q", 70), "is not aligned to 64"),
    "section-overlaps": (section_field("META", 8, "Q", 256), "section META at byte 256: it must follow"),
    "section-huge": (section_field("PROB", 16, "Q", 2**63), "section PROB ends at byte"),
    "section-wraps": (section_field("PROB", 16, "Q", 2**64 - 64), "section PROB ends at byte"),
    "conf-missing": (no_section("CONF"), "section CONF is missing"),
    "tens-missing": (no_section("TENS"), "section TENS is missing"),
    "data-missing": (no_section("DATA"), "section DATA is missing"),
    "meta-missing": (no_section("META"), "section META is missing"),
    "hidden-zero": (conf_field(0, "I", 0), "hidden_size is 0"),
    "hidden-huge": (conf_field(0, "I", 2**31), "hidden_size is 2147483648"),
    "layers-huge": (conf_field(8, "I", 1025), "n_layers is 1025"),
    "layers-more": (conf_field(8, "I", 2), "section TENS has"),
    "kv-heads": (conf_field(12, "I", 3), "CONF asks for"),
    "heads-not-multiple": (conf_field(16, "I", 3), "is no multiple of n_kv_heads"),
    "head-dim-odd": (conf_field(20, "I", 33), "head_dim is 33"),
    "attention-wide": (attention_of(1024, 512), "n_heads x head_dim is 524288; 262144 is the most"),
    "eps-nan": (conf_field(32, "f", float("nan")), "rms_norm_eps is nan"),
    "eps-negative": (conf_field(32, "f", -1.0), "rms_norm_eps is -1"),
    "activation": (conf_field(36, "I", 3), "activation is 3"),
    "norms": (conf_field(40, "I", 16), "norms is 16"),
    "norms-fewer": (conf_field(40, "I", 1), "section TENS has"),
    "activation-quantisation": (conf_field(44, "I", 0), "activation quantisation is 0"),
    "activation-quantisation-unknown": (conf_field(44, "I", 3), "activation quantisation is 3"),
    "projection-eps-without-norms": (conf_field(96, "f", 1e-5), "projection_norm_eps is 9.99"),
    "projection-eps-nan": (conf_field(96, "f", float("nan")), "projection_norm_eps is nan"),
    "projection-eps-negative": (conf_field(96, "f", -1.0), "projection_norm_eps is -1"),
    "projection-norm-without-eps": (conf_field(40, "I", 11), "projection_norm_eps is 0"),
    "qk-norm-missing": (conf_field(40, "I", 7), "section TENS has"),
    "rope-factor": (conf_field(100, "f", 16.5), "rope_attention_factor is 16.5"),
    "rope-factor-negative": (conf_field(100, "f", -1.0), "rope_attention_factor is -1"),
    "rope-factor-nan": (conf_field(100, "f", float("nan")), "rope_attention_factor is nan"),
    "rope-style": (conf_field(48, "I", 2), "RoPE style is 2"),
    "head-tied": (conf_field(52, "I", 2), "head tied is 2"),
    "bos-outside": (conf_field(56, "i", 20), "begin-of-text token 20"),
    "bos-negative": (conf_field(56, "i", -2), "begin-of-text token -2"),
    "stops-many": (conf_field(60, "I", 9), "9 stop tokens"),
    "stop-outside": (conf_field(64, "i", 20), "the stop tokens"),
    "stop-rest": (conf_field(64 + 28, "i", 0), "the stop tokens"),
    "conf-reserved": (conf_field(104, "B", 1), "CONF: the reserved bytes must be zero"),
    "tokens-fewer": (section_field("PROB", 0, "4s", b"TOKN"), "section TOKN has 1 tokens, CONF a vocabulary of 20"),
    "tensor-role": (tensor_field(Role.FINAL_NORM, 0, "I", 9), "role 9"),
    "tensor-twice": (same_tensor_twice, "tensor v_proj"),
    "tensor-layer": (tensor_field(Role.Q_PROJ, 4, "I", 1), "tensor q_proj[1]"),
    "tensor-layer-where-none": (tensor_field(Role.FINAL_NORM, 4, "I", 0), "final_norm: has layer 0"),
    "tensor-encoding": (tensor_field(Role.Q_PROJ, 8, "I", 3), "q_proj[0]: encoding I8 is not possible there"),
    "tensor-encoding-unknown": (tensor_field(Role.Q_PROJ, 8, "I", 77), "encoding 77"),
    "tensor-granularity": (tensor_field(Role.Q_PROJ, 12, "I", 0), "q_proj[0]: scale granularity NONE"),
    "tensor-granularity-unknown": (tensor_field(Role.Q_PROJ, 12, "I", 4), "scale granularity 4"),
    "group-of-none": (tensor_field(Role.Q_PROJ, 12, "I", 3), "groups of 0 columns are not possible in 64"),
    "group-where-none": (tensor_field(Role.Q_PROJ, 56, "I", 64), "has groups of 64 columns, but no scale for each"),
    "group-of-norm": (tensor_field(Role.FINAL_NORM, 56, "I", 64), "has groups of 64 columns"),
    "tensor-f16-projection": (tensor_field(Role.Q_PROJ, 8, "I", 7), "q_proj[0]: encoding F16 is not possible there"),
    "tensor-role-q-norm": (tensor_field(Role.FINAL_NORM, 0, "I", 27), "tensor q_norm"),
    "tensor-rows": (tensor_field(Role.K_PROJ, 16, "I", 64), "k_proj[0]: is 64 x 64; CONF asks for 32 x 64"),
    "tensor-columns": (tensor_field(Role.K_PROJ, 20, "I", 128), "k_proj[0]: is 32 x 128"),
    "tensor-unaligned": (tensor_field(Role.FINAL_NORM, 24, "Q", 2**20 + 4), "is not aligned to 64"),
    "tensor-outside": (tensor_field(Role.FINAL_NORM, 24, "Q", 2**40), "final_norm ends at byte"),
    "tensor-before-data": (tensor_field(Role.FINAL_NORM, 24, "Q", 0), "lies before section DATA"),
    "tensor-wraps": (tensor_field(Role.FINAL_NORM, 24, "Q", 2**64 - 64), "final_norm ends at byte"),
    "tensor-size": (tensor_field(Role.FINAL_NORM, 32, "Q", 64), "final_norm: has 64 bytes; 256 are needed"),
    "scales-outside": (tensor_field(Role.HEAD, 40, "Q", 2**40), "head's scales ends at byte"),
    "scales-count": (tensor_field(Role.HEAD, 48, "Q", 19), "head: has 19 scales"),
    "scales-where-none": (tensor_field(Role.FINAL_NORM, 40, "Q", 64), "has no scales, but an offset of them"),
    "tensor-reserved": (tensor_field(Role.FINAL_NORM, 60, "B", 1), "final_norm: the reserved bytes must be zero"),
    "padding": (lambda edit: edit.put(edit.start("PROB") - 1, "B", 1), "the padding before section PROB must be zero"),
    "end-padding": (lambda edit: edit.put(len(edit.data) - 1, "B", 1), "the padding at the end must be zero"),
}
# What only the Python reader reads: the engine takes META as bytes, and probes when they are run.
HOSTILE_TO_PEOPLE = {
    "meta-no-json": (meta_text(b"{"), "section META is no JSON"),
    "meta-list": (meta_text(b"[]"), "section META is no JSON object"),
    "meta-no-utf8": (meta_text(b"\xff"), "section META is no JSON"),
    "probe-version": (probe_field(0, "I", 2), "section PROB is of version 2"),
    "probe-count": (probe_field(4, "I", 2), "section PROB ends inside a probe"),
    "probe-count-less": (probe_field(4, "I", 0), "the probes end at 8"),
    "probe-no-prompt": (probe_field(8, "I", 0), "golden probe 0 cannot have 0 prompt tokens"),
    "probe-prompt-huge": (probe_field(8, "I", 2**32 - 1), "golden probe 0 cannot have 4294967295 prompt tokens"),
    "probe-sums": (probe_field(16, "I", 3), "golden probe 0 cannot have"),
    "probe-token": (probe_field(24, "i", 20), "golden probe 0: holds a token outside the vocabulary"),
}


def damaged(model_bytes: bytes, change: Callable[[Edit], None], path: Path) -> Path:
    edit = Edit(model_bytes)
    change(edit)
    path.write_bytes(edit.finished())
    return path


@pytest.mark.parametrize("name", HOSTILE | HOSTILE_TO_PEOPLE)
def test_a_damaged_model_file_is_refused(name, model_bytes, tmp_path):
    """With words that say what and where, beginning with the file's path."""
    change, words = (HOSTILE | HOSTILE_TO_PEOPLE)[name]
    path = damaged(model_bytes, change, tmp_path / "model.ebm")
    with pytest.raises(BundleError) as refused:
        ModelFile(path)
    assert words in str(refused.value)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_engine_refuses_the_same_files(name, native, model_bytes, tmp_path):
    """Both readers are held to the same document."""
    path = damaged(model_bytes, HOSTILE[name][0], tmp_path / "model.ebm")
    with pytest.raises(BundleError):
        Model.open(native, path)


def test_a_sound_file_is_read_whole(model_bytes, tmp_path):
    """What was written comes back: configuration, tensors, META, probes; the sum of the weights holds."""
    path = tmp_path / "model.ebm"
    path.write_bytes(model_bytes)
    with ModelFile(path) as model:
        assert (model.conf.hidden_size, model.conf.stop_tokens) == (64, (2, 3))
        assert {(tensor.role, tensor.layer) for tensor in model.tensors} == set(CONF.roles())
        assert model.meta == {"name": "tiny"}
        assert model.probes == (PROBE,)
        assert model.content("TOKN") is None
        head = next(tensor for tensor in model.tensors if tensor.role == Role.HEAD)
        assert model.scales(head) == (1.0,) * 20
        with model.values(head) as values:
            assert len(values) == 20 * 256 + 4 * (2 * 32)  # three planes of 256 columns, and bounds
        model.verify()


def test_a_model_inside_another_file_is_read_in_place(model_bytes, tmp_path):
    """As inside a bundle: at an offset, with bytes before and behind."""
    path = tmp_path / "bundle"
    path.write_bytes(b"x" * 1024 + model_bytes + b"y" * 700)
    with ModelFile(path, 1024, len(model_bytes)) as model:
        assert model.meta == {"name": "tiny"}
        model.verify()
    with pytest.raises(BundleError, match="ends behind the file"):
        ModelFile(path, 1024, len(model_bytes) + 701)


def test_verify_finds_one_changed_weight(model_bytes, tmp_path):
    """Weights are not read at opening; verify() reads them all."""
    edit = Edit(model_bytes)
    edit.data[edit.start("DATA") + 200] ^= 1
    path = tmp_path / "model.ebm"
    path.write_bytes(edit.finished())
    with ModelFile(path) as model, pytest.raises(BundleError, match="the sum of section DATA is wrong"):
        model.verify()


def test_a_section_of_the_future_is_skipped(model_bytes, tmp_path):
    """A tag that begins with a lower-case letter may be ignored."""
    path = damaged(model_bytes, section_field("PROB", 0, "4s", b"prob"), tmp_path / "model.ebm")
    with ModelFile(path) as model:
        assert model.probes == ()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_random_damage_is_refused_or_harmless(model_bytes, tmp_path, changes, keep_sums):
    """Any bytes changed before the weights, sums mended or not: a BundleError, or a file that reads; nothing else."""
    edit = Edit(model_bytes)
    edit.keeps_sums = keep_sums
    for at, value in changes:
        edit.data[at] = value
    path = tmp_path / "fuzzed.ebm"
    try:
        path.write_bytes(edit.finished())
    except struct.error:  # the damage hit the table, and its sums cannot be mended
        path.write_bytes(bytes(edit.data))
    try:
        ModelFile(path).close()
    except BundleError as refused:
        assert str(path) in str(refused)


def test_meta_has_a_bound_for_writer_and_reader(tmp_path, monkeypatch):
    """JSON takes many times its size in memory."""
    path = write_model(tmp_path / "model.ebm")
    monkeypatch.setattr("edgebit.bundle.model_reader.MAX_META_BYTES", 10)
    with pytest.raises(BundleError, match=r"model\.ebm: section META has \d+ bytes; 10 are the limit"):
        ModelFile(path)
    monkeypatch.setattr("edgebit.bundle.model_writer.MAX_META_BYTES", 10)
    with pytest.raises(BundleError, match=r"other\.ebm: META would have \d+ bytes; 10 are the limit"):
        write_model(tmp_path / "other.ebm")
    assert [file.name for file in tmp_path.iterdir()] == ["model.ebm"]
