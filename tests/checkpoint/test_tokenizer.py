"""tokenizer.json to section TOKN to token ids: the ids of Hugging Face's `tokenizers`, for any text and any bytes."""

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import EDGES, SCRIPTS, SCRIPTS_FILE, edge_text, hf_ids, without_unassigned
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from edgebit import resources
from edgebit.checkpoint.tokenizer import read_tokenizer
from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN
from edgebit.checkpoint.tokenizer.section_reader import read_tokenizer_section
from edgebit.errors import BundleError, EngineError, TokenizerError
from edgebit.runtime.tokenizer import Tokenizer

TESTS = Path(__file__).resolve().parent.parent
TINY = TESTS / "reference" / "bitnet-packed" / "tokenizer.json"
CASES = json.loads((TESTS / "reference" / "tiny-tokenizer-cases.json").read_text())

edge_bytes = st.lists(
    st.one_of(
        st.binary(max_size=4),
        st.text(st.sampled_from(EDGES), max_size=4).map(str.encode),
        st.sampled_from(
            [b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf0\x9f\x99", b"\xf4\x90\x80\x80", b"\xff", b"\x80"]
        ),
    ),
    max_size=20,
).map(b"".join)


def bpe_oracle(path):
    """The Oracle of bpe_oracle.py, which lies beside this file and is no package's."""
    spec = importlib.util.spec_from_file_location("bpe_oracle", Path(__file__).with_name("bpe_oracle.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Oracle(path)


def write_json(path, change=lambda data: None, base=TINY):
    data = json.loads(base.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.fixture(scope="module")
def tiny(native):
    with Tokenizer.from_section(native, read_tokenizer(TINY).section()) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def tiny_hf():
    return tokenizers.Tokenizer.from_file(str(TINY))


@pytest.fixture(scope="module")
def tiny_oracle():
    return bpe_oracle(TINY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["text"]))
def test_reference_cases(tiny, case):
    """The ids that transformers gave, with the special tokens in the text and begin-of-text put first."""
    ids = tiny.encode(case["text"], parse_special=True)
    assert ids == case["ids"]
    assert [read_tokenizer(TINY).bos_token, *ids] == case["ids_with_bos"]


def test_many_scripts(tiny, tiny_hf):
    assert tiny.encode(SCRIPTS, parse_special=True) == hf_ids(tiny_hf, SCRIPTS)


@settings(max_examples=600, deadline=None)
@given(edge_text)
def test_any_text_gets_the_ids_of_tokenizers(tiny, tiny_hf, text):
    assert tiny.encode(text, parse_special=True) == hf_ids(tiny_hf, text)


@settings(max_examples=600, deadline=None)
@given(edge_bytes)
def test_any_bytes_get_the_oracles_ids_and_come_back(tiny, tiny_oracle, data):
    """Every byte that is not UTF-8 is kept, as a symbol that is neither letter, number nor white space."""
    data = without_unassigned(data)
    ids = tiny.encode(data)
    assert ids == tiny_oracle.encode(data)
    assert tiny.decode(ids) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_decoding_gives_the_bytes_back(tiny, data):
    for parse_special in (False, True):
        assert tiny.decode(tiny.encode(data, parse_special=parse_special), skip_special=False) == data


def test_special_tokens_stay_text_unless_asked_for(tiny):
    text = "<|begin_of_text|>hi<|eot_id|>"
    ids = tiny.encode(text)
    assert not any(tiny.is_special(i) for i in ids)
    assert tiny.decode(ids).decode() == text
    assert tiny.encode(text, parse_special=True)[0] == 500


def test_segments_are_tokenized_as_one_text(tiny, tiny_hf):
    """Tokens form across the seams; special tokens are recognised in the marked segments only, and never across."""
    segments = [("<|eot_id|>User:", True), (" the", False), (" light<|eot_id|>", True)]
    assert tiny.encode_segments(segments) == hf_ids(tiny_hf, "<|eot_id|>User: the light<|eot_id|>")
    assert tiny.encode_segments([("<|eot_id|>", False)]) == tiny.encode("<|eot_id|>")
    assert tiny.encode_segments([("<|eot", True), ("_id|>", True)]) == tiny.encode("<|eot_id|>")
    assert tiny.encode_segments([]) == []


@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "ab", "<", "'", "é", "<|eot_id|"])
def test_a_megabyte_of_one_thing_is_encoded(tiny, unit):
    """In quadratic time it would take hours, and meet the limit that pyproject.toml has for every test."""
    size = len(unit.encode())
    assert tiny.encode(unit * (1_000_000 // size), parse_special=True)
    text = unit * (20_000 // size)
    assert tiny.decode(tiny.encode(text, parse_special=True)) == text.encode()


def test_unicode_classes_are_those_of_tokenizers():
    """All 0x110000 code points: the tables in the C code are what the installed library answers now."""
    script = resources.kernels_dir() / "tools" / "make_unicode_classes.py"
    spec = importlib.util.spec_from_file_location("make_unicode_classes", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tables = (resources.kernels_dir() / "src" / "unicode_classes.inc").read_text()
    rows = {}
    for name in ("class_block_of", "class_blocks"):
        rows[name] = bytes(
            int(word) for word in tables.split(name)[1].split("{")[1].split("}")[0].split(",") if word.strip()
        )
    ours = bytearray()
    for block in rows["class_block_of"]:
        for byte in rows["class_blocks"][64 * block : 64 * block + 64]:
            ours += bytes((byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6))
    theirs = module.classify()
    assert [hex(c) for c in range(module.CODE_POINTS) if ours[c] != theirs[c]] == []


def train(path, *, ignore_merges, added=(), special=("<s>", "</s>")):
    """A tokenizer trained on this folder's tests, as tokenizers writes it."""
    hf = tokenizers.Tokenizer.from_file(str(TINY))
    fresh = tokenizers.Tokenizer(BPE(ignore_merges=ignore_merges))
    fresh.pre_tokenizer, fresh.decoder = hf.pre_tokenizer, hf.decoder
    trainer = BpeTrainer(
        vocab_size=1500,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
        show_progress=False,
    )
    fresh.train([str(Path(__file__)), str(SCRIPTS_FILE)], trainer)
    fresh.add_tokens(list(added))
    fresh.save(str(path))
    return fresh


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_other_vocabularies(native, tmp_path, ignore_merges):
    """Special tokens inside the vocabulary, merges as they come from training, with and without ignore_merges."""
    path = tmp_path / "tokenizer.json"
    hf = train(path, ignore_merges=ignore_merges)
    oracle = bpe_oracle(path)
    rng = random.Random(7)
    with Tokenizer.from_section(native, read_tokenizer(path).section()) as ours:
        for text in [SCRIPTS, "<s>a</s></s>", Path(__file__).read_text()]:
            assert ours.encode(text, parse_special=True) == hf_ids(hf, text)
        for _ in range(300):
            data = without_unassigned(bytes(rng.choice((rng.randrange(256), 32, 101, 0xC3)) for _ in range(40)))
            assert ours.encode(data) == oracle.encode(data)


def test_a_special_token_named_like_a_word(native, tmp_path):
    """With ignore_merges a piece that is a token is taken whole; but a special token is never made of plain text."""
    path = tmp_path / "tokenizer.json"
    hf = train(path, ignore_merges=True, special=["END"])
    with Tokenizer.from_section(native, read_tokenizer(path).section()) as ours:
        assert ours.encode("END", parse_special=True) == hf_ids(hf, "END") == [hf.token_to_id("END")]
        ids = ours.encode("END")
        assert not any(ours.is_special(i) for i in ids)
        assert ours.decode(ids) == b"END"


def test_added_tokens_that_are_not_special(native, tmp_path):
    """They are vocabulary: recognised in every text, the longest first, and shown."""
    path = tmp_path / "tokenizer.json"
    added = [tokenizers.AddedToken(t, normalized=False) for t in ("<tool>", "<tool>x", "ool>xyz", "é中")]
    hf = train(path, ignore_merges=False, added=added)
    with Tokenizer.from_section(native, read_tokenizer(path).section()) as ours:
        for text in ("<tool><tool>xyz", "a<tool>x</tool>", "<s><tool>xool>xyz</s>", "éé中中", "<too<tool>"):
            assert ours.encode(text, parse_special=True) == hf_ids(hf, text)
        assert ours.encode("<tool>x") == hf_ids(hf, "<tool>x")
        assert not ours.is_special(hf.token_to_id("<tool>"))


def test_merges_may_be_written_as_one_text(native, tmp_path):
    def join(data):
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]

    path = write_json(tmp_path / "tokenizer.json", join)
    assert read_tokenizer(path).section() == read_tokenizer(TINY).section()


def test_rows_beyond_the_tokenizer_stand_for_nothing(native):
    """A model may have more rows of embedding than its tokenizer has tokens."""
    with Tokenizer.from_section(native, read_tokenizer(TINY).section(600)) as padded:
        assert padded.vocab_size == 600
        assert padded.token_bytes(599) == b""
        assert padded.encode(SCRIPTS)
        with pytest.raises(EngineError, match="600"):
            padded.token_bytes(600)
    with pytest.raises(TokenizerError, match=r"511.*300 rows"):
        read_tokenizer(TINY).section(300)


def set_in(data, path, value):
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


SPLIT = ("pre_tokenizer", "pretokenizers", 0)
BYTE_LEVEL = ("pre_tokenizer", "pretokenizers", 1)
REFUSED = [
    (("model", "type"), "Unigram", "model type Unigram"),
    (("model", "byte_fallback"), True, "byte_fallback"),
    (("model", "dropout"), 0.1, "model.dropout = 0.1"),
    (("model", "end_of_word_suffix"), "</w>", "end_of_word_suffix"),
    (("model", "continuing_subword_prefix"), "##", "continuing_subword_prefix"),
    (("normalizer",), {"type": "NFKC"}, "normalizer NFKC"),
    (("pre_tokenizer",), None, "pre-tokenizer none"),
    (("pre_tokenizer",), {"type": "Whitespace"}, "pre-tokenizer Whitespace"),
    ((*SPLIT, "pattern"), {"Regex": r"\p{N}|\s+"}, "pattern"),
    ((*SPLIT, "pattern"), {"String": " "}, "pattern None"),
    ((*SPLIT, "behavior"), "Removed", "Isolated"),
    ((*SPLIT, "invert"), True, "inverted"),
    ((*BYTE_LEVEL, "add_prefix_space"), True, "add_prefix_space"),
    ((*BYTE_LEVEL, "use_regex"), True, "use_regex"),
    (("decoder",), {"type": "Metaspace"}, "decoder Metaspace"),
    (("post_processor",), {"type": "BertProcessing"}, "post-processor BertProcessing"),
    (("added_tokens", 0, "lstrip"), True, "lstrip"),
    (("added_tokens", 0, "rstrip"), True, "rstrip"),
    (("added_tokens", 0, "single_word"), True, "single_word"),
    (("added_tokens", 0, "id"), 501, "501 is given twice"),
    (("added_tokens", 0, "id"), -1, "token ids"),
    (("added_tokens", 0, "content"), "a", "'a' has id 500, but"),
    (("model", "merges", 0), ["h", "zz"], "merge 0"),
    (("model", "merges", 0), "h e r", "merge 0"),
    (("model", "merges"), None, "not a tokenizer.json"),
    (("model", "vocab", "a"), 9, "given twice"),
    (("model", "vocab", "zzz"), 1 << 30, "token ids"),
    (("added_tokens",), [{"content": "<a>", "id": 512, "normalized": True}, {"content": ">b", "id": 513}], "overlap"),
]


@pytest.mark.parametrize(("path", "value", "promised"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_what_would_change_ids_is_refused(tmp_path, path, value, promised):
    """The refusal names the file and what in it is not carried over."""
    file = write_json(tmp_path / "tokenizer.json", lambda data: set_in(data, path, value))
    with pytest.raises(TokenizerError) as refused:
        read_tokenizer(file)
    assert promised in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_byte_without_a_token_is_left_out_or_refused(native, tmp_path):
    """As `tokenizers` does; where it would become the unknown token instead, the tokenizer is refused."""

    def remove(data):
        data["model"]["vocab"]["中"] = data["model"]["vocab"].pop("a")  # no byte is written so
        data["model"]["merges"] = [merge for merge in data["model"]["merges"] if "a" not in "".join(merge)]

    path = write_json(tmp_path / "tokenizer.json", remove)
    hf = tokenizers.Tokenizer.from_file(str(path))
    with Tokenizer.from_section(native, read_tokenizer(path).section()) as ours:
        for text in ("a", "thae aaheat", SCRIPTS):
            assert ours.encode(text, parse_special=True) == hf_ids(hf, text)
        assert ours.decode(ours.encode("cat")) == b"ct"

    unknown = write_json(tmp_path / "unknown.json", lambda data: data["model"].update(unk_token="h"), base=path)
    with pytest.raises(TokenizerError, match="byte 0x61 has no token"):
        read_tokenizer(unknown)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"x"', b"\xff", b"{}", b"[" * 100_000])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="no such file"):
        read_tokenizer(tmp_path)


def test_stop_tokens_are_those_of_every_file(tmp_path):
    """generation_config, config, eos_token and the turn-enders of the chat template, each once."""
    write_json(tmp_path / "tokenizer.json")
    assert read_tokenizer(tmp_path).stop_tokens == ()
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [510, 501]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 501}')
    config = {"eos_token": {"content": "<|eom_id|>"}, "chat_template": "{{ messages[0].content }}<|eot_id|><|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_tokenizer(tmp_path).stop_tokens == (510, 501, 508, 509)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(9))}))
    with pytest.raises(TokenizerError, match="stop tokens"):
        read_tokenizer(tmp_path)


def test_begin_of_text_is_what_the_tokenizer_puts_first(tmp_path):
    path = write_json(tmp_path / "tokenizer.json", lambda data: data.update(post_processor=None))
    assert read_tokenizer(TINY).bos_token == 500
    assert read_tokenizer(path).bos_token is None
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|begin_of_text|>", "add_bos_token": true}')
    assert read_tokenizer(path).bos_token == 500


def test_the_chat_template_may_lie_in_a_file_of_its_own(tmp_path):
    write_json(tmp_path / "tokenizer.json")
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert read_tokenizer(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert read_tokenizer(tmp_path).chat_template == "J"


def test_every_damaged_header_word_is_refused(native):
    """Counts and sizes that do not fit one another, whichever of them lies."""
    section = read_tokenizer(TINY).section()
    for at in range(0, 64, 4):
        for value in (0, 1, 255, 257, 1 << 16, 1 << 31, 0xFFFFFFFF):
            damaged = section[:at] + value.to_bytes(4, "little") + section[at + 4 :]
            if damaged != section and not (at == 12 and value <= 1):
                with pytest.raises(BundleError):
                    Tokenizer.from_section(native, damaged)


def test_a_token_that_is_too_long_is_refused(native):
    """By both readers and by the writer; the longest that may be is not."""
    tokenizer = read_tokenizer(TINY)
    limit, last = 1 << 16, len(tokenizer.tokens) - 1
    tokenizer = replace(tokenizer, tokens=(*tokenizer.tokens[:-1], b"x" * limit))
    section = bytearray(tokenizer.section())
    Tokenizer.from_section(native, bytes(section)).close()
    with pytest.raises(TokenizerError, match=f"token {last} has {limit + 1} bytes"):
        replace(tokenizer, tokens=(*tokenizer.tokens[:-1], b"x" * (limit + 1))).section()

    for at in (28, 64 + 4 * (last + 1)):
        section[at : at + 4] = (int.from_bytes(section[at : at + 4], "little") + 1).to_bytes(4, "little")
    section += b"x"
    with pytest.raises(BundleError, match=f"token {last} has {limit + 1} bytes"):
        Tokenizer.from_section(native, bytes(section))
    with pytest.raises(TokenizerError, match=f"token {last} has {limit + 1} bytes"):
        read_tokenizer_section(bytes(section), bos_token=None, stop_tokens=(), named_tokens=None, chat_template=None)


def test_a_section_cut_short_or_too_long_is_refused(native):
    section = read_tokenizer(TINY).section()
    for size in (0, 4, 63, 64, 500, len(section) - 1):
        with pytest.raises(BundleError):
            Tokenizer.from_section(native, section[:size])
    with pytest.raises(BundleError):
        Tokenizer.from_section(native, section + b"\0")


def test_a_damaged_section_is_refused_or_still_exact(native):
    """Whatever one changed byte does, an opened tokenizer gives ids that stand for the text."""
    section, rng = read_tokenizer(TINY).section(), random.Random(3)
    opened = 0
    for _ in range(1500):
        damaged = bytearray(section)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            tokenizer = Tokenizer.from_section(native, bytes(damaged))
        except BundleError:
            continue
        with tokenizer:
            opened += 1
            assert (
                tokenizer.decode(tokenizer.encode(SCRIPTS, parse_special=True), skip_special=False) == SCRIPTS.encode()
            )
    assert 0 < opened < 1500


def test_the_pattern_is_llama3s():
    """The constant that files are compared with is what Llama 3's own tokenizer.json holds."""
    split = json.loads(TINY.read_text())["pre_tokenizer"]["pretokenizers"][0]
    assert split["pattern"]["Regex"] == LLAMA3_PATTERN
