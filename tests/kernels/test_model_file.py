"""The C reader of model files: each way to be wrong is refused, by a message that names it."""

import struct
import zlib
from pathlib import Path

import pytest

from edgebit.bundle.model_format import NO_LAYER, Encoding, Granularity, Norms, Role, Scaling, head_parts
from edgebit.errors import EdgebitError
from edgebit.runtime.library import Library
from edgebit.runtime.model import Model
from tests.kernels.tiny_model import TinyModel, corrected, tiny_conf

FILE = TinyModel(tiny_conf()).to_bytes()
TABLE = 64  # the sections stand there in this order
SECTIONS = {
    FILE[at : at + 4].decode(): (at, *struct.unpack_from("<QQ", FILE, at + 8)) for at in range(TABLE, TABLE + 160, 32)
}
CONF, TENS, DATA = (SECTIONS[tag][1] for tag in ("CONF", "TENS", "DATA"))
Q_PROJ = next(at for at in range(TENS, DATA, 64) if FILE[at : at + 8] == struct.pack("<II", Role.Q_PROJ, 1))

# What is written where, and words that the refusal must hold.
WRONG_FIELDS: dict[str, tuple[int, bytes, str]] = {
    "version": (8, b"\1", "version 1 of the model format; this library knows version 2"),
    "no-sections": (12, b"\0", "0 sections; there can be 1 to 32"),
    "too-many-sections": (12, b"\xff\xff", "sections; there can be 1 to 32"),
    "reserved-header": (40, b"\1", "reserved bytes of the header"),
    "unknown-section": (TABLE, b"XENS", "section XENS is not known"),
    "section-twice": (TABLE + 32, b"CONF", "section CONF stands twice"),
    "tag": (TABLE, b"C\nNF", "not letters and digits"),
    "section-reserved": (TABLE + 24, b"\1", "section CONF: reserved bytes"),
    "section-missing": (TABLE + 64, b"dATA", "section DATA is missing"),
    "section-offset": (TABLE + 40, struct.pack("<Q", TENS + 64), "section TENS begins at byte"),
    "section-size": (TABLE + 32 * 4 + 16, struct.pack("<Q", 2**63), "goes past the end of the file"),
    "section-size-wraps": (TABLE + 32 * 4 + 16, struct.pack("<Q", 2**64 - 64), "goes past the end of the file"),
    "hidden-size": (CONF, struct.pack("<I", 65537), "hidden_size is 65537; it can be 1 to 65536"),
    "no-layers": (CONF + 8, b"\0", "n_layers is 0"),
    "heads": (CONF + 12, b"\5", "n_heads 5 is no multiple of n_kv_heads 2"),
    "odd-head": (CONF + 20, b"\x0b", "head_dim 11 is odd"),
    "eps": (CONF + 32, struct.pack("<f", float("nan")), "rms_norm_eps is not a positive number"),
    "activation": (CONF + 36, b"\7", "activation 7 is not known"),
    "norms": (CONF + 40, b"\x13", "norms 0x13 are not known"),
    "norms-more": (CONF + 40, b"\7", "q_norm of layer 0 is missing"),
    "projection-norm-without-eps": (CONF + 40, b"\x0b", "projection_norm_eps is not a positive number"),
    "quantisation": (CONF + 44, b"\3", "activation quantisation 3"),
    "rope-style": (CONF + 48, b"\2", "RoPE style 2"),
    "tied": (CONF + 52, b"\2", "head_tied is 2"),
    "bos": (CONF + 56, struct.pack("<i", 77), "token 77 is outside the vocabulary of 77"),
    "stop-count": (CONF + 60, b"\3", "3 stop tokens are promised, and number 3 is -1"),
    "stop-token": (CONF + 64, struct.pack("<i", -2), "stop token -2"),
    "projection-eps": (CONF + 96, struct.pack("<f", 1e-5), "projection_norm_eps is not 0"),
    "projection-eps-nan": (CONF + 96, struct.pack("<f", float("nan")), "projection_norm_eps is not 0"),
    "rope-factor": (CONF + 100, struct.pack("<f", 16.5), "rope_attention_factor is not between 0 and 16"),
    "rope-factor-nan": (CONF + 100, struct.pack("<f", float("nan")), "rope_attention_factor"),
    "conf-reserved": (CONF + 104, b"\1", "CONF: reserved bytes"),
    "tokens-fewer": (TABLE + 128, b"TOKN", "section TOKN has 0 tokens, CONF a vocabulary of 77"),
    "role": (Q_PROJ, b"\x63", "role 99 is not known"),
    "tensor-twice": (Q_PROJ, bytes([Role.INPUT_NORM]), "input_norm of layer 1"),
    "layer": (Q_PROJ + 4, b"\2", "q_proj of layer 2; CONF says 2 layers"),
    "layer-of-none": (TENS + 4, b"\0\0\0\0", "token_embedding has no layer"),
    "encoding": (Q_PROJ + 8, b"\x09", "q_proj of layer 1: encoding 9 is not known"),
    "wrong-encoding": (Q_PROJ + 8, b"\3", "q_proj of layer 1: encoding 3 cannot be used"),
    "granularity": (Q_PROJ + 12, b"\0", "q_proj of layer 1: scale granularity 0"),
    "granularity-unknown": (Q_PROJ + 12, b"\4", "scale granularity 4 does not go with encoding 4"),
    "group-of-none": (Q_PROJ + 12, b"\3", "groups of 0 of its 70 columns"),
    "group-where-none": (Q_PROJ + 56, b"\x40", "groups of 64 of its 70 columns do not go with scale granularity 1"),
    "group-of-t1": (Q_PROJ + 8, b"\5\0\0\0\3", "scale granularity 3 does not go with encoding 5"),
    "rows": (Q_PROJ + 16, b"\x3d", "q_proj of layer 1 is 61 x 70; CONF asks for 60 x 70"),
    "values-size": (Q_PROJ + 32, b"\1", "bytes of values; its shape needs"),
    "values-unaligned": (Q_PROJ + 24, struct.pack("<Q", DATA + 32), "q_proj of layer 1: its values"),
    "values-before-data": (Q_PROJ + 24, struct.pack("<Q", TENS), "not aligned inside DATA"),
    "values-after-data": (Q_PROJ + 24, struct.pack("<Q", 2**64 - 64), "not aligned inside DATA"),
    "scales-outside": (Q_PROJ + 40, struct.pack("<Q", len(FILE)), "q_proj of layer 1: its scales"),
    "scale-count": (Q_PROJ + 48, b"\2", "has 2 scales; it needs 1"),
    "tensor-reserved": (Q_PROJ + 60, b"\1", "q_proj of layer 1: reserved bytes"),
}


GROUPED = TinyModel(
    tiny_conf(
        hidden_size=192, ffn_size=320, n_heads=32, n_kv_heads=1, head_dim=6, norms=Norms(15), projection_norm_eps=1
    ),
    scaling=Scaling(Granularity.GROUP, 64),
    embedding=Encoding.F16,
)


def _tensor(file: bytes, role: Role, layer: int) -> int:
    """Where the row of section TENS is."""
    begin, end = (struct.unpack_from("<Q", file, TABLE + at)[0] for at in (32 + 8, 64 + 8))
    return next(at for at in range(begin, end, 64) if file[at : at + 8] == struct.pack("<II", role, layer))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (56, 0, "groups of 0 of its 320 columns"),
        (56, 32, "groups of 32 of its 320 columns"),
        (56, 128, "groups of 128 of its 320 columns"),
        (56, 640, "groups of 640 of its 320 columns"),
        (56, 2**32 - 64, "groups of 4294967232 of its 320"),
        (56, 320, "has 960 scales; it needs 192"),
        (48, 959, "has 959 scales; it needs 960"),
        (12, 2, "groups of 64 of its 320 columns do not go with scale granularity 2"),
    ],
)
def test_a_wrong_group_is_refused(field: int, value: int, words: str, native: Library):
    """Of down_proj, 192 x 320 in groups of 64: other groups, and other numbers of scales."""
    file = bytearray(GROUPED.to_bytes())
    struct.pack_into("<I", file, _tensor(bytes(file), Role.DOWN_PROJ, 1) + field, value)
    with pytest.raises(EdgebitError) as refused:
        _open(native, corrected(file))
    assert words in str(refused.value)


@pytest.mark.parametrize("role", [Role.Q_NORM, Role.K_NORM, Role.O_PROJ_NORM, Role.DOWN_PROJ_NORM])
def test_a_norm_that_conf_does_not_name_is_refused(role: Role, native: Library):
    """And one that it names must be there."""
    file = bytearray(GROUPED.to_bytes())
    conf = struct.unpack_from("<Q", file, TABLE + 8)[0]
    without = Norms(15) & ~(Norms.QK_NORM if role in (Role.Q_NORM, Role.K_NORM) else Norms.PROJECTION_NORM)
    struct.pack_into("<I", file, conf + 40, without)
    if Norms.PROJECTION_NORM not in without:
        struct.pack_into("<f", file, conf + 96, 0)
    with pytest.raises(EdgebitError, match="and CONF says the model has none"):
        _open(native, corrected(file))
    file = bytearray(GROUPED.to_bytes())
    at = _tensor(bytes(file), role, 0)
    struct.pack_into("<I", file, at, Role.INPUT_NORM)
    with pytest.raises(EdgebitError, match="input_norm of layer 0"):
        _open(native, corrected(file))


def test_verify_looks_at_every_group_and_half(native: Library):
    """Codes, padding rows and scales of all groups, and an embedding of f16."""
    sound = GROUPED.to_bytes()
    entry = _tensor(sound, Role.K_PROJ, 1)  # 6 x 192: the second band of four rows has two of padding
    begin, size, scales, n_scales = struct.unpack_from("<4Q", sound, entry + 24)
    (embedding,) = struct.unpack_from("<Q", sound, _tensor(sound, Role.TOKEN_EMBEDDING, NO_LAYER) + 24)
    with Model.from_bytes(native, sound) as model:
        model.verify()
    damages = [(begin + place, b"\xff", "k_proj of layer 1: a code is 3") for place in range(0, size, 41)]
    damages += [(begin + group * 128 + 127, b"\xaa", "padding is not") for group in range(3)]
    damages += [(scales + 4 * at, b"\0\0\xc0\x7f", "a scale is not a finite") for at in range(n_scales)]
    damages += [(embedding, half, "token_embedding: a value") for half in (b"\0\x7c", b"\1\xfc")]
    for place, value, words in damages:
        file = bytearray(sound)
        file[place : place + len(value)] = value
        with Model.from_bytes(native, corrected(file)) as model, pytest.raises(EdgebitError, match=words):
            model.verify()


def _open(library: Library, file: bytes) -> None:
    Model.from_bytes(library, file).close()


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_wrong_field_is_refused_by_name(name: str, native: Library):
    """Sums are set right again, so that the field itself is what is refused."""
    place, value, words = WRONG_FIELDS[name]
    file = bytearray(FILE)
    file[place : place + len(value)] = value

    with pytest.raises(EdgebitError) as refused:
        _open(native, corrected(file))

    assert words in str(refused.value)


def test_the_unchanged_file_opens(native: Library):
    """Else every refusal above would be a false one."""
    with Model.from_bytes(native, corrected(bytearray(FILE))) as model:
        model.verify()
        assert (model.info.hidden_size, model.info.n_layers, model.info.vocab_size) == (70, 2, 77)


def test_a_missing_tensor_is_named(native: Library):
    """TENS without its row for q_proj of layer 1; the space stays as padding of its section."""
    file = bytearray(FILE)
    size = SECTIONS["TENS"][2]
    file[Q_PROJ : TENS + size] = file[Q_PROJ + 64 : TENS + size] + bytes(64)
    struct.pack_into("<Q", file, TABLE + 32 + 16, size - 64)

    with pytest.raises(EdgebitError, match="section DATA begins at byte"):
        _open(native, corrected(file))

    inv_freq = next(at for at in range(TENS, DATA, 64) if file[at : at + 4] == struct.pack("<I", Role.ROPE_INV_FREQ))
    file = bytearray(FILE)
    file[Q_PROJ : Q_PROJ + 64] = FILE[inv_freq : inv_freq + 64]
    with pytest.raises(EdgebitError, match="rope_inv_freq stands twice"):
        _open(native, corrected(file))


def test_a_frequency_out_of_range_is_refused(native: Library):
    """Angles must stay where RoPE can reduce them exactly."""
    entry = next(at for at in range(TENS, DATA, 64) if FILE[at : at + 4] == struct.pack("<I", Role.ROPE_INV_FREQ))
    (values,) = struct.unpack_from("<Q", FILE, entry + 24)
    file = bytearray(FILE)
    struct.pack_into("<f", file, values + 4, 1.5)

    with pytest.raises(EdgebitError, match="rope_inv_freq: element 1 is not between 0 and 1"):
        _open(native, bytes(file))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100, 223, 300, 5000, len(FILE) - 64, len(FILE) - 1])
def test_a_file_cut_short_is_refused(size: int, native: Library, tmp_path: Path):
    """At any place, mapped from disk as on a device."""
    path = tmp_path / "short.ebm"
    path.write_bytes(FILE[:size])

    with pytest.raises(EdgebitError, match=r"short\.ebm"):
        Model.open(native, path)


def test_every_damaged_byte_is_noticed(native: Library):
    """At load, or in weights by verify(): no bit of the file is outside of a sum or a check."""
    for place in range(0, len(FILE), 61):
        file = bytearray(FILE)
        file[place] ^= 0x10
        with pytest.raises(EdgebitError):
            model = Model.from_bytes(native, bytes(file))
            with model:
                model.verify()


@pytest.mark.parametrize(
    ("role", "what", "words"),
    [
        (Role.Q_PROJ, "values", "q_proj of layer 0: a code is 3"),
        (Role.Q_PROJ, "scales", "q_proj of layer 0: a scale is not a finite number"),
        (Role.INPUT_NORM, "values", "input_norm of layer 0: a value is not a finite number"),
    ],
)
def test_verify_names_the_tensor_with_a_wrong_value(role: Role, what: str, words: str, native: Library):
    """Right sums, wrong weights: what a faulty converter would write."""
    entry = next(at for at in range(TENS, DATA, 64) if FILE[at : at + 4] == struct.pack("<I", role))
    (values,) = struct.unpack_from("<Q", FILE, entry + (24 if what == "values" else 40))
    file = bytearray(FILE)
    file[values : values + 4] = b"\xff\xff\xff\x7f"

    with Model.from_bytes(native, corrected(file)) as model, pytest.raises(EdgebitError, match=words):
        model.verify()


@pytest.mark.parametrize(
    ("layout", "words"), [(Encoding.T2, "a code is 3"), (Encoding.T1, "an index is above 26")], ids=["t2", "t1"]
)
def test_verify_refuses_codes_and_padding_that_are_no_weights(layout: Encoding, words: str, native: Library):
    """In every place of a tensor of 101 x 700 weights: the rows and columns that it is filled up with too."""
    tiny = TinyModel(tiny_conf(hidden_size=700), layout=layout)
    sound = tiny.to_bytes()
    tensors = struct.unpack_from("<Q", sound, TABLE + 32 + 8)[0]
    entry = next(at for at in range(tensors, len(sound), 64) if sound[at : at + 4] == struct.pack("<I", Role.UP_PROJ))
    begin, size = struct.unpack_from("<QQ", sound, entry + 24)
    with Model.from_bytes(native, sound) as model:
        model.verify()
    for place in range(begin, begin + size, 97):
        file = bytearray(sound)
        file[place] = 0xFF  # code 3 and index 31
        with Model.from_bytes(native, corrected(file)) as model, pytest.raises(EdgebitError, match=words):
            model.verify()
    for place in (begin + size - 1, begin + size - 64 + 16):  # of the last tile: padding columns; a padding row
        file = bytearray(sound)
        file[place] = 0b10_01_01_01 if place == begin + size - 1 else 0b01_01_01_10
        with Model.from_bytes(native, corrected(file)) as model, pytest.raises(EdgebitError, match="padding is not"):
            model.verify()


def test_verify_refuses_a_head_whose_bounds_do_not_hold(native: Library):
    """A bound that is too low would let a step pass over the best token. So would padding that is not 0."""
    tiny = TinyModel(tiny_conf())
    sound = tiny.to_bytes()
    entry = next(at for at in range(TENS, DATA, 64) if sound[at : at + 4] == struct.pack("<I", Role.HEAD))
    (begin,) = struct.unpack_from("<Q", sound, entry + 24)
    parts = head_parts(tiny.conf.vocab_size, tiny.conf.hidden_size)
    starts = [begin + sum(parts[:part]) for part in range(5)]
    damages = [
        (starts[0] + 3 * 64 + 48, bytes(1)),  # padding of the high plane, row 3
        (starts[1] + 63, b"\xff"),  # and of the middle one
        *((start + 4 * row, struct.pack("<f", 1.0)) for start in starts[3:] for row in (0, 7, 76)),
        (starts[3], struct.pack("<f", float("nan"))),
    ]
    for place, damage in damages:
        file = bytearray(sound)
        file[place : place + len(damage)] = damage
        with Model.from_bytes(native, corrected(file)) as model, pytest.raises(EdgebitError, match="head: a code is"):
            model.verify()


def test_a_model_inside_another_file_is_found_by_offset(native: Library, tmp_path: Path):
    """As it lies in a bundle; an offset that no mapping can take is refused."""
    path = tmp_path / "bundle"
    path.write_bytes(bytes(70 * 1024 + 512) + FILE + bytes(512))

    with Model.open(native, path, offset=70 * 1024 + 512, size=len(FILE)) as model:
        model.verify()
    for offset, size, words in [
        (70 * 1024 + 511, len(FILE), "no multiple of 64"),
        (70 * 1024 + 512, 0, "the header says"),
        (70 * 1024 + 512, len(FILE) + 1024, "the file has"),
        (2**40, 0, "the file has"),
    ]:
        with pytest.raises(EdgebitError, match=words):
            Model.open(native, path, offset=offset, size=size)


def test_sums_are_those_of_zlib(native: Library):
    """The header's, as the format document says."""
    assert struct.unpack_from("<I", FILE, 28)[0] == zlib.crc32(FILE[:28])
    _open(native, FILE)


def test_a_path_that_is_not_there_is_named(native: Library, tmp_path: Path):
    """The whole path, since nothing else can be said of it."""
    with pytest.raises(EdgebitError, match=r"gone\.ebm"):
        Model.open(native, tmp_path / "gone.ebm")
