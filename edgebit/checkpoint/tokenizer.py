"""A checkpoint's tokenizer.json, read and carried over to the TOKN section of a model file. Standard library only.

Whatever would make one text get other ids than Hugging Face's `tokenizers` gives it is refused by name.
"""

import json
import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.errors import TokenizerError

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TURN_ENDERS = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "</s>")
SPECIAL, ADDED, UNUSED = 1, 2, 4  # flags of a token in section TOKN

_VERSION, _PRE_TOKENIZER_LLAMA3, _IGNORE_MERGES = 1, 1, 1
_EMPTY = 0xFFFFFFFF
_MAX_VOCAB = 1 << 21
_MAX_STOP_TOKENS = 8


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: most stand for themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_alphabet()


class _ByteTable(dict[int, int]):
    """For str.translate: the byte of each stand-in; ValueError at any other character."""

    def __missing__(self, char: int) -> int:
        raise ValueError(f"{chr(char)!r} stands for no byte")


_TO_LATIN1 = _ByteTable({ord(char): byte for char, byte in BYTE_OF.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointTokenizer:
    """A byte-level BPE tokenizer with all that a model file needs to know of it."""

    tokens: tuple[bytes, ...]  # by id; b"" where an id has no token
    flags: bytes  # by id: SPECIAL, ADDED, UNUSED
    merges: tuple[tuple[int, int, int], ...]  # (left, right, merged) by rank
    ignore_merges: bool  # a piece that is a token is taken whole
    merged_ids: frozenset[int]  # the tokens that text can become: all but those only added
    bos_token: int | None  # put before a prompt
    stop_tokens: tuple[int, ...]
    named_tokens: Mapping[str, str]  # bos_token, eos_token ...: as a chat template sees them
    chat_template: str | None  # Jinja

    def section(self, vocab_size: int | None = None) -> bytes:
        """The TOKN section (docs/model-format.md), with `vocab_size` rows; the model may have more than the tokenizer.

        Raises TokenizerError where the tokenizer has tokens that the model has no row for.
        """
        rows = len(self.tokens) if vocab_size is None else vocab_size
        if rows < len(self.tokens):
            last = len(self.tokens) - 1
            raise TokenizerError(
                f"the tokenizer has ids up to {last} ({self.tokens[last]!r}), the model has {rows} rows of embedding: "
                "tokenizer.json belongs to another model"
            )
        missing = rows - len(self.tokens)
        tokens, flags = (*self.tokens, *(b"",) * missing), self.flags + bytes([UNUSED]) * missing
        row_of_left, csr = _merge_rows(self.merges, flags)
        offsets = array("I", bytes(4 * (rows + 1)))
        for token, text in enumerate(tokens):
            offsets[token + 1] = offsets[token] + len(text)
        byte_ids = array("I", bytes(4 * 256))
        for token in sorted(self.merged_ids):
            if len(tokens[token]) == 1:
                byte_ids[tokens[token][0]] = token
        added = array("I", sorted((i for i, flag in enumerate(flags) if flag & ADDED), key=tokens.__getitem__))
        plain = (token for token in sorted(self.merged_ids) if not flags[token] & SPECIAL)
        hashed = _hash_table([(token, tokens[token]) for token in plain])
        header = struct.pack(
            "<8I32x",
            _VERSION, rows, _PRE_TOKENIZER_LLAMA3, _IGNORE_MERGES if self.ignore_merges else 0,
            len(csr) // 3, len(added), len(hashed), offsets[rows],
        )  # fmt: skip
        words = [_little_endian(part) for part in (offsets, row_of_left, csr, hashed, byte_ids, added)]
        return b"".join([header, *words, flags, *tokens])


def read_tokenizer(path: Path) -> CheckpointTokenizer:
    """Read the tokenizer.json at `path`, or in the folder `path`, with the configuration files beside it.

    Raises TokenizerError naming the file and what in it edgebit does not carry over exactly.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    data = _read_json(file)
    if data is None:
        raise TokenizerError(f"{file}: there is no such file. edgebit reads tokenizer.json, not tokenizer.model")
    folder = file.parent
    config = _read_json(folder / "tokenizer_config.json") or {}
    try:
        return _build(data, config, folder)
    except TokenizerError as error:
        raise TokenizerError(f"{file}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise TokenizerError(f"{file}: not a tokenizer.json as `tokenizers` writes it: {error!r}") from error


def _build(data: dict[str, Any], config: dict[str, Any], folder: Path) -> CheckpointTokenizer:
    model = data["model"]
    _check_kind(data, model)
    vocab: dict[str, int] = model["vocab"]
    entries = data.get("added_tokens") or []
    tokens, flags, merged_ids = _tokens(vocab, entries)
    merges = tuple(_merges(model["merges"], vocab, merged_ids))
    for byte in range(256):
        if not any(tokens[i] == bytes([byte]) for i in _ids_of_byte(byte, vocab)):
            raise TokenizerError(f"byte 0x{byte:02X} has no token, so text that holds it could not be kept")

    ids = vocab | {entry["content"]: entry["id"] for entry in entries}
    named = _named_tokens(config)
    template = read_chat_template(folder)
    return CheckpointTokenizer(
        tokens=tuple(tokens),
        flags=bytes(flags),
        merges=merges,
        ignore_merges=bool(model.get("ignore_merges", False)),
        merged_ids=frozenset(merged_ids),
        bos_token=_bos_token(data, config, named, ids, template),
        stop_tokens=_stop_tokens(folder, named, ids, entries, template),
        named_tokens=named,
        chat_template=template,
    )


def _check_kind(data: dict[str, Any], model: dict[str, Any]) -> None:
    """Raise TokenizerError for any setting that changes ids and that section TOKN has no place for."""
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"model type {model['type']} is not supported: only byte-level BPE")
    if model.get("byte_fallback"):
        raise TokenizerError("byte_fallback (SentencePiece BPE) is not supported: only byte-level BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"model.{key} = {model[key]!r} is not supported")
    normalizer = data.get("normalizer")
    if normalizer is not None and not (normalizer.get("type") == "Sequence" and not normalizer.get("normalizers")):
        raise TokenizerError(f"normalizer {normalizer.get('type')} is not supported: text must be taken as it is")
    _check_pre_tokenizer(data.get("pre_tokenizer"))
    decoder = data.get("decoder")
    if decoder is not None and decoder.get("type") != "ByteLevel":
        raise TokenizerError(f"decoder {decoder.get('type')} is not supported: only ByteLevel")


def _check_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> None:
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        kinds = ", ".join(str(step.get("type")) for step in steps) or "none"
        raise TokenizerError(f"pre-tokenizer {kinds} is not supported: only Llama 3's (Split, ByteLevel)")
    split, byte_level = steps
    pattern = split.get("pattern", {}).get("Regex")
    if pattern != LLAMA3_PATTERN:
        raise TokenizerError(f"pre-tokenizer pattern {pattern!r} is not supported: only Llama 3's")
    if split.get("behavior") != "Isolated" or split.get("invert"):
        raise TokenizerError("the pre-tokenizer's Split must be Isolated and not inverted")
    if byte_level.get("add_prefix_space") or byte_level.get("use_regex", True):
        raise TokenizerError("the pre-tokenizer's ByteLevel must have add_prefix_space and use_regex off")


def _tokens(vocab: dict[str, int], entries: Sequence[dict[str, Any]]) -> tuple[list[bytes], bytearray, set[int]]:
    """Bytes and flags of every id, and the ids that merging can give."""
    added = {entry["content"]: entry for entry in entries}
    top = max([*vocab.values(), *(entry["id"] for entry in entries)], default=-1)
    if not 256 <= top + 1 <= _MAX_VOCAB or min([*vocab.values(), *(entry["id"] for entry in entries)]) < 0:
        raise TokenizerError(f"token ids go up to {top}: there must be 256 to {_MAX_VOCAB} of them")
    tokens, flags = [b""] * (top + 1), bytearray([UNUSED]) * (top + 1)
    merged_ids = set()
    for text, token in vocab.items():
        if not text:
            continue
        if tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {text!r} and to another")
        try:
            tokens[token] = text.translate(_TO_LATIN1).encode("latin-1")
            merged_ids.add(token)
        except ValueError:  # no pair of bytes merges to it; where it is decoded, it stands for itself
            tokens[token] = text.encode()
        flags[token] = 0
    for content, entry in added.items():
        token = entry["id"]
        _check_added(entry, vocab)
        if not content:
            continue
        if content not in vocab and tokens[token]:
            raise TokenizerError(f"token id {token} is given twice, to {content!r} and {tokens[token]!r}")
        if content in vocab and tokens[token] != content.encode():
            raise TokenizerError(f"added token {content!r} stands for other bytes in the vocabulary: {tokens[token]!r}")
        tokens[token] = content.encode()
        flags[token] = ADDED | (SPECIAL if entry.get("special") else 0)
    _check_overlaps(list(added.values()))
    return tokens, flags, merged_ids


def _ids_of_byte(byte: int, vocab: dict[str, int]) -> Iterable[int]:
    return (vocab[char] for char, value in BYTE_OF.items() if value == byte and char in vocab)


def _check_added(entry: dict[str, Any], vocab: dict[str, int]) -> None:
    name, token = entry["content"], entry["id"]
    for key in ("lstrip", "rstrip", "single_word"):
        if entry.get(key):
            raise TokenizerError(f"added token {name!r} has {key}: that is not supported")
    if vocab.get(name, token) != token:
        raise TokenizerError(f"added token {name!r} has id {token}, but {vocab[name]} in the vocabulary")


def _check_overlaps(entries: Sequence[dict[str, Any]]) -> None:
    """`tokenizers` splits off the not normalized added tokens first, then the normalized: we split off all at once.

    It is the same unless a name of one kind can overlap with a name of the other in a text: then TokenizerError.
    """
    first = [entry["content"] for entry in entries if not entry.get("normalized", False)]
    second = [entry["content"] for entry in entries if entry.get("normalized", False)]
    for a in first:
        for b in second:
            shorter = min(len(a), len(b))
            if a in b or b in a or any(a[-n:] == b[:n] or b[-n:] == a[:n] for n in range(1, shorter)):
                raise TokenizerError(f"added tokens {a!r} and {b!r} (normalized) can overlap: not supported")


def _merges(merges: Sequence[Any], vocab: dict[str, int], merged_ids: set[int]) -> Iterable[tuple[int, int, int]]:
    """(left, right, merged) of each merge, which stands as "a b" or as ["a", "b"]."""
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise TokenizerError(f"merge {rank} is {merge!r}, not two tokens")
        left, right = parts
        try:
            ids = vocab[left], vocab[right], vocab[left + right]
        except KeyError as error:
            raise TokenizerError(f"merge {rank}, {merge!r}, needs {error}, which is not in the vocabulary") from None
        if ids[2] not in merged_ids:
            raise TokenizerError(f"merge {rank}, {merge!r}, has characters that stand for no byte")
        yield ids


def _merge_rows(merges: Sequence[tuple[int, int, int]], flags: bytes) -> "tuple[array[int], array[int]]":
    """Where each left token's merges begin, and (right, rank, merged) of each merge, by left and right token.

    Merges that give a special token are left out: they would make one of what somebody wrote. Where special tokens are
    recognised, their names are split off before merging, so no such merge is ever met.
    """
    # A pair is one number, which sorts as the pair does. As in `tokenizers`, the last of a pair named twice counts.
    ranked = {
        left << 32 | right: rank for rank, (left, right, merged) in enumerate(merges) if not flags[merged] & SPECIAL
    }
    pairs = sorted(ranked)
    ranks = [ranked[pair] for pair in pairs]
    row_of_left = array("I", bytes(4 * (len(flags) + 1)))
    for pair in pairs:
        row_of_left[(pair >> 32) + 1] += 1
    for left in range(len(flags)):
        row_of_left[left + 1] += row_of_left[left]
    csr = array("I", bytes(12 * len(pairs)))
    csr[0::3] = array("I", [pair & 0xFFFFFFFF for pair in pairs])
    csr[1::3] = array("I", ranks)
    csr[2::3] = array("I", [merges[rank][2] for rank in ranks])
    return row_of_left, csr


def _hash_table(entries: Sequence[tuple[int, bytes]]) -> "array[int]":
    """Open addressing; a power of two of slots, at most half of them taken. The hash is one big number's remainder."""
    bits = max(1, (2 * len(entries) - 1).bit_length())
    mask = (1 << bits) - 1
    table = array("I", [_EMPTY]) * (1 << bits)
    for token, text in entries:
        slot = (int.from_bytes(text, "big") % 0x7FFFFFFF * 0x9E3779B1 & 0xFFFFFFFF) >> (32 - bits)
        while table[slot] != _EMPTY:
            slot = slot + 1 & mask
        table[slot] = token
    return table


def _little_endian(words: "array[int]") -> bytes:
    if words.itemsize != 4:
        raise AssertionError("array('I') is expected to hold 32-bit words")
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def read_chat_template(folder: Path) -> str | None:
    """The chat template, of chat_template.jinja, chat_template.json or tokenizer_config.json; None: there is none.

    Raises TokenizerError where there are several and none is called "default".
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{jinja}: cannot be read: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = (_read_json(folder / name) or {}).get("chat_template")
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
            if "default" not in named:
                raise TokenizerError(f"{folder / name}: chat templates {', '.join(named)}, and none is 'default'")
            template = named["default"]
        if template:
            return str(template)
    return None


def _named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like of tokenizer_config.json, whose values are texts or objects with one."""
    named = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        value = config.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            named[key] = text
    return named


def _bos_token(
    data: dict[str, Any],
    config: dict[str, Any],
    named: Mapping[str, str],
    ids: Mapping[str, int],
    template: str | None,
) -> int | None:
    """What the tokenizer puts first: its post-processor says so, or tokenizer_config.json, or the chat template."""
    processor = data.get("post_processor") or {}
    steps = processor.get("processors", [processor]) if processor else []
    for step in steps:
        if step.get("type") == "TemplateProcessing":
            single = [next(iter(part.items())) for part in step["single"]]
            kinds = [kind for kind, _ in single]
            if kinds not in (["Sequence"], ["SpecialToken", "Sequence"]):
                raise TokenizerError(f"post-processor puts {kinds} around a text: only one token before it can be")
            if kinds[0] == "SpecialToken":
                special = step["special_tokens"][single[0][1]["id"]]
                if len(special["ids"]) != 1:
                    raise TokenizerError(f"post-processor puts {len(special['ids'])} tokens before a text")
                return int(special["ids"][0])
        elif step.get("type") != "ByteLevel":
            raise TokenizerError(f"post-processor {step.get('type')} is not supported")
    bos = named.get("bos_token")
    if bos is None or bos not in ids:
        return None
    written = template is not None and ("bos_token" in template or bos in template)
    return ids[bos] if config.get("add_bos_token") or written else None


def _stop_tokens(
    folder: Path,
    named: Mapping[str, str],
    ids: Mapping[str, int],
    entries: Sequence[dict[str, Any]],
    template: str | None,
) -> tuple[int, ...]:
    """Every token after which an answer is over: what each configuration file names, and what ends a turn."""
    stops: list[int] = []
    for name in ("generation_config.json", "config.json"):
        eos = (_read_json(folder / name) or {}).get("eos_token_id")
        stops += eos if isinstance(eos, list) else [] if eos is None else [eos]
    if named.get("eos_token") in ids:
        stops.append(ids[named["eos_token"]])
    special = {entry["content"] for entry in entries if entry.get("special")}
    stops += [ids[name] for name in TURN_ENDERS if name in special and name in (template or "")]
    unique = tuple(dict.fromkeys(int(stop) for stop in stops))
    if len(unique) > _MAX_STOP_TOKENS:
        raise TokenizerError(f"{len(unique)} stop tokens: a model file has room for {_MAX_STOP_TOKENS}")
    return unique


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{path}: a JSON object is expected, not {type(data).__name__}")
    return data
