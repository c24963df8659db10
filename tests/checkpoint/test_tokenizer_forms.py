"""Every form of tokenizer that a model file can hold, with small vocabularies: the ids of `tokenizers`."""

import json
import random
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import SCRIPTS, SCRIPTS_FILE, edge_text, hf_ids, odd_text
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from edgebit.checkpoint.tokenizer import Kind, Normalizer, PreTokenizer, SpacePrefix, read_tokenizer
from edgebit.checkpoint.tokenizer.pre_tokenizers import GPT2_PATTERN, QWEN2_PATTERN
from edgebit.errors import BundleError, TokenizerError
from edgebit.runtime.text_stream import TextStream
from edgebit.runtime.tokenizer import Tokenizer

SPACE = "\u2581"


def split(pattern):
    isolated = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS = {
    "gpt2": (PreTokenizer.GPT2, lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2-split": (PreTokenizer.GPT2, lambda: split(GPT2_PATTERN)),
    "qwen2": (PreTokenizer.QWEN2, lambda: split(QWEN2_PATTERN)),
    "falcon": (
        PreTokenizer.FALCON,
        lambda: pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation("contiguous"),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
                pre_tokenizers.Digits(individual_digits=False),
                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
            ]
        ),
    ),
}


class Pair:
    """Hugging Face's tokenizer, what we read of its file, and the native one."""

    def __init__(self, native, hf, folder):
        hf.save(str(folder / "tokenizer.json"))
        self.hf = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.read = read_tokenizer(folder)
        self.native = Tokenizer.from_section(native, self.read.section())

    def agree_on(self, text):
        ids = self.native.encode(text, parse_special=True)
        assert ids == hf_ids(self.hf, text)
        return ids


def train_byte_level(pre_tokenizer, *, normalizer=None, added=()):
    hf = tokenizers.Tokenizer(models.BPE())
    hf.pre_tokenizer, hf.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        hf.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    hf.train([__file__, str(SCRIPTS_FILE)], trainer)
    hf.add_tokens(list(added))
    return hf


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def byte_level(request, native, tmp_path_factory):
    expected, make = PRE_TOKENIZERS[request.param]
    pair = Pair(native, train_byte_level(make()), tmp_path_factory.mktemp("tokenizer"))
    assert pair.read.pre_tokenizer == expected
    return pair


@settings(max_examples=300)
@given(odd_text)
def test_pre_tokenizers_on_any_text(byte_level, text):
    byte_level.agree_on(text)


def test_pre_tokenizers_on_many_scripts_and_source(byte_level):
    for text in (SCRIPTS, Path(__file__).read_text(encoding="utf-8")):
        ids = byte_level.agree_on(text)
        assert byte_level.native.decode(ids, skip_special=False) == text.encode()


@pytest.mark.parametrize("unit", ["a", " ", "1", "½", "!", "\u0301", SPACE])
def test_half_a_megabyte_of_one_thing_is_no_square(byte_level, unit):
    """A quadratic step would take minutes, and the test's own time limit end it."""
    assert byte_level.native.encode(unit * 500_000)
    byte_level.agree_on(unit * 5_000)


# ---- NFC ----


@pytest.fixture(scope="module")
def nfc(native, tmp_path_factory):
    """As GPT-NeoX has it: NFC first, and runs of spaces as added tokens that are found in normalized text."""
    added = [AddedToken(" " * n, normalized=True, special=False) for n in (2, 3, 5)]
    added.append(AddedToken("éa中", normalized=True, special=False))
    hf = train_byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFC(), added=added)
    pair = Pair(native, hf, tmp_path_factory.mktemp("nfc"))
    assert pair.read.normalizer == Normalizer.NFC
    return pair


MARKS = [chr(c) for c in range(0x300, 0x370)] + list("\u093c\u0f71\u0f72\u3099\u1161\u11a8\u05b0\u0345\U0001d165")
BASES = list("aeiouAEKns<>=;`가각각") + list("\u0958\u1e9b\u0344\u2126\u212b\ufb1d\uf900\U0002f800\U0001d15e\u0390")
marked_text = st.lists(st.one_of(st.sampled_from(MARKS), st.sampled_from(BASES), odd_text), max_size=24).map("".join)


@settings(max_examples=500)
@given(marked_text)
def test_text_is_normalized_as_tokenizers_does(nfc, text):
    nfc.agree_on(text)


def test_every_character_and_its_decomposition_is_normalized(nfc):
    """Each that decomposes or combines: alone, decomposed, and between marks of other classes."""
    points = [chr(c) for c in range(0x110000) if unicodedata.decomposition(chr(c)) or unicodedata.combining(chr(c))]
    points += [chr(c) for c in range(0xAC00, 0xAC00 + 11172)]
    text = " ".join(f"{c} {unicodedata.normalize('NFD', c)} {c}\u0301\u0323\u0334" for c in points)
    normal = normalizers.NFC().normalize_str(text)
    assert normal != text and nfc.native.encode(text) == nfc.native.encode(normal)
    assert nfc.native.decode(nfc.native.encode(normal[:5000])).decode() == normal[:5000]


def test_a_long_run_of_marks_is_put_in_order(nfc):
    rng = random.Random(11)
    text = "a" + "".join(rng.choice("\u0301\u0323\u0334\u0345") for _ in range(100_000))
    assert nfc.native.decode(nfc.native.encode(text)).decode() == normalizers.NFC().normalize_str(text)


def test_bytes_that_are_no_characters_stay(nfc):
    data = b"e\xcc\x81\xff\xcc\x81\xe2\x82\xcc"
    assert nfc.native.decode(nfc.native.encode(data)) == b"\xc3\xa9\xff\xcc\x81\xe2\x82\xcc"


# ---- SentencePiece's BPE ----

PREFIXES = {
    "prepend": SpacePrefix.SEGMENT,
    "always": SpacePrefix.UNSPACED_SEGMENT,
    "first": SpacePrefix.UNSPACED_TEXT,
    "never": SpacePrefix.NONE,
    "replace": SpacePrefix.NONE,
}


def byte_fallback(prefix):
    """Trained as text in which spaces are marks, with a token for each byte, as Llama 2's file is written."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=900, limit_alphabet=120, show_progress=False)
    trained.train([__file__, str(SCRIPTS_FILE)], trainer)
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab = {name: token for token, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(merge) for merge in model["merges"]]
    hf = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    if prefix == "prepend":
        hf.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    elif prefix == "replace":
        hf.normalizer = normalizers.Replace(" ", SPACE)
    else:
        hf.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [] if PREFIXES[prefix] == SpacePrefix.NONE else [decoders.Strip(" ", 1, 0)]
    hf.decoder = decoders.Sequence([*steps, *strip])
    hf.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    hf.add_tokens([AddedToken("<tool>", normalized=False)])
    return hf


@pytest.fixture(scope="module", params=PREFIXES)
def fallback(request, native, tmp_path_factory):
    pair = Pair(native, byte_fallback(request.param), tmp_path_factory.mktemp("fallback"))
    assert (pair.read.kind, pair.read.space_prefix) == (Kind.BYTE_FALLBACK, PREFIXES[request.param])
    assert pair.read.unknown_token == 0
    return pair


@settings(max_examples=300)
@given(odd_text)
def test_characters_with_bytes_to_fall_back_on(fallback, text):
    fallback.agree_on(text)


@settings(max_examples=150)
@given(edge_text.filter(lambda text: SPACE not in text))
def test_decoding_takes_back_what_tokenizing_put_there(fallback, text):
    """Text comes back as from Hugging Face's decoder, in one part and as a stream; with a prefix, as it was."""
    ids = fallback.native.encode(text)
    decoded = fallback.native.decode(ids).decode()
    assert decoded == fallback.hf.decode(ids)
    with TextStream(fallback.native) as stream:
        assert "".join(stream.push(token)[0] for token in ids) + stream.finish() == decoded
    if fallback.read.space_prefix in (SpacePrefix.SEGMENT, SpacePrefix.NONE) and "<tool>" not in text:
        assert decoded == text


def test_many_scripts_and_source_in_one_piece(fallback):
    for text in (SCRIPTS, Path(__file__).read_text(encoding="utf-8")):
        fallback.agree_on(text)


def test_special_tokens_stay_text_unless_asked_for(fallback):
    ids = fallback.native.encode("a <s>b</s>")
    assert not any(fallback.native.is_special(token) for token in ids)
    assert fallback.native.decode(ids) == b"a <s>b</s>"
    segments = [("<s>", True), ("a</s>", False), ("</s>", True)]
    ids = fallback.native.encode_segments(segments)
    assert [token for token in ids if fallback.native.is_special(token)] == [1, 2]


def test_bytes_that_are_no_characters_become_byte_tokens(fallback):
    ids = fallback.native.encode(b"\xff\xe2\x82")
    assert ids[-3:] == [3 + 0xFF, 3 + 0xE2, 3 + 0x82]


@pytest.mark.parametrize("unit", ["a", " ", "ab", "中", SPACE])
def test_half_a_megabyte_without_pieces_is_no_square(fallback, unit):
    assert fallback.native.encode(unit * (500_000 // len(unit)))


def change(data, path, value):
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


REFUSED = [
    (("normalizer",), {"type": "Prepend", "prepend": SPACE}, "normalizer Prepend"),
    (("normalizer",), None, "normalizer none"),
    (("pre_tokenizer",), {"type": "Whitespace"}, "pre-tokenizer Whitespace"),
    (("decoder",), {"type": "ByteFallback"}, "decoder ByteFallback"),
    (("decoder",), None, "decoder none"),
    (("model", "ignore_merges"), True, "ignore_merges"),
    (("added_tokens", 1, "normalized"), True, "'<s>' has normalized"),
    (("model", "vocab", "<0x41>"), 5000, "0x41"),
    (("model", "merges", 0), ["<0x41>", "a"], "merge 0"),
]


@pytest.mark.parametrize(("path", "value", "promised"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_what_would_change_ids_is_refused(tmp_path, path, value, promised):
    data = json.loads(byte_fallback("prepend").to_str())
    if promised == "0x41":
        del data["model"]["vocab"]["<0x41>"]
    else:
        change(data, path, value)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(TokenizerError, match=promised):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("setting", "promised"),
    [({"split": True}, "split"), ({"prepend_scheme": "often"}, "often"), ({"replacement": "_"}, r"U\+2581")],
)
def test_other_metaspaces_are_refused(tmp_path, setting, promised):
    data = json.loads(byte_fallback("first").to_str())
    data["pre_tokenizer"] |= setting
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(TokenizerError, match=promised):
        read_tokenizer(tmp_path)


# ---- sections ----


def test_every_damaged_header_word_is_refused_or_another_form(native, fallback, nfc, byte_level):
    """Version 2's words of kind, normalizer and prefix: only what goes together opens."""
    for pair in (fallback, nfc, byte_level):
        section = pair.read.section()
        assert section[0] == 2
        for at in range(0, 64, 4):
            for value in (0, 1, 2, 4, 5, 255, 1 << 16, 0xFFFFFFFF):
                damaged = section[:at] + value.to_bytes(4, "little") + section[at + 4 :]
                try:
                    tokenizer = Tokenizer.from_section(native, damaged)
                except BundleError:
                    continue
                with tokenizer:
                    assert at in (8, 12, 32, 36, 40) or damaged == section
                    assert tokenizer.encode(SCRIPTS, parse_special=True)


def test_a_section_that_says_less_than_version_2_is_of_version_1(native, fallback):
    section = bytearray(fallback.read.section())
    section[0] = 1
    with pytest.raises(BundleError, match="version 1"):
        Tokenizer.from_section(native, bytes(section))
