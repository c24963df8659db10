"""The tokenizer in a GGUF file's fields (`tokenizer.ggml.*`), of the models `gpt2` (byte-level) and `llama` (scores).

What the names of pre-tokenizers mean is llama.cpp's convention; where the tokenizer of that name does more at Hugging
Face (NFC of Qwen's), so do we. Our own export says what no such name says in keys of its own.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

from edgebit.checkpoint.hints import PRE_TOKENIZERS
from edgebit.checkpoint.own_gguf_keys import IGNORE_MERGES, NORMALIZER, SPACE_PREFIX, STRIP_LEADING_SPACE
from edgebit.checkpoint.tokenizer.forms import MAX_VOCAB, SPECIAL, Kind, Normalizer, PreTokenizer, SpacePrefix
from edgebit.checkpoint.tokenizer.pieces import Pieces, PieceType, merges_by_score, sort_pieces
from edgebit.checkpoint.tokenizer.prompt_tokens import TURN_ENDERS, distinct_stop_tokens
from edgebit.checkpoint.tokenizer.text_form import TextForm
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.checkpoint.tokenizer.vocabulary import bytes_without_token, read_merges, read_vocabulary
from edgebit.errors import TokenizerError

_Form = TypeVar("_Form", bound=IntEnum)
_MERGED_ALWAYS = ("dbrx", "smaug-bpe")  # Llama 3's pattern; a piece that is a token is not taken whole
_PRE_TOKENIZERS = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon_e", "falcon-h1"), PreTokenizer.LLAMA3),
    **dict.fromkeys(_MERGED_ALWAYS, PreTokenizer.LLAMA3),
    **dict.fromkeys(("gpt-2", "gpt2", "phi-2", "mpt", "olmo"), PreTokenizer.GPT2),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), PreTokenizer.QWEN2),
    "falcon": PreTokenizer.FALCON,
}
_LLAMA3_TOKENS = {128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128009: "<|eot_id|>"}
_LLAMA3_SIZE = 128256
_NAMED = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def read_gguf_tokenizer(fields: Mapping[str, Any], where: str) -> tuple[CheckpointTokenizer, list[str]]:
    """The tokenizer of a GGUF file whose metadata are `fields`, values and lists, and notes on what was repaired.

    Raises TokenizerError, naming `where` and the field, at what is missing or not carried over exactly.
    """
    try:
        return _Reader(fields).read()
    except TokenizerError as error:
        raise TokenizerError(f"{where}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise TokenizerError(f"{where}: its tokenizer.ggml fields are not as GGUF has them: {error!r}") from error


class _Reader:
    """One file's fields, and the notes on them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._notes: list[str] = []

    def read(self) -> tuple[CheckpointTokenizer, list[str]]:
        model = self._field("model")
        if model not in ("gpt2", "llama"):
            raise TokenizerError(
                f"tokenizer.ggml.model is {model!r}: only gpt2 (byte-level) and llama (SentencePiece BPE) are supported"
            )
        pieces = self._pieces()
        form = self._byte_level_form(pieces) if model == "gpt2" else self._sentencepiece_form()
        vocabulary = read_vocabulary(form, pieces.vocab, pieces.added)
        missing = bytes_without_token(form.kind, vocabulary)
        if missing and form.kind == Kind.BYTE_FALLBACK:
            raise TokenizerError(f"byte 0x{min(missing):02X} has no token, so text that holds it could not be kept")
        scores = None
        if form.kind == Kind.BYTE_FALLBACK:
            scores = tuple(map(float, self._list("scores")))
            merges = merges_by_score(pieces.vocab, scores, vocabulary.merged_ids)
        else:
            merges = tuple(read_merges(self._list("merges"), pieces.vocab, vocabulary.merged_ids))
        adds_bos = bool(self._fields.get("tokenizer.ggml.add_bos_token", self._adds_bos(form)))
        template = self._fields.get("tokenizer.chat_template")
        tokenizer = CheckpointTokenizer(
            kind=form.kind,
            pre_tokenizer=form.pre_tokenizer,
            normalizer=form.normalizer,
            space_prefix=form.space_prefix,
            strip_leading_space=form.strip_leading_space,
            unknown_token=self._id("unknown", len(vocabulary.tokens)),
            tokens=vocabulary.tokens,
            flags=vocabulary.flags,
            merges=merges,
            scores=scores,
            ignore_merges=self._ignores_merges(form),
            merged_ids=vocabulary.merged_ids,
            bos_token=self._id("bos", len(vocabulary.tokens)) if adds_bos else None,
            stop_tokens=self._stop_tokens(pieces, len(vocabulary.tokens)),
            named_tokens=self._named_tokens(len(vocabulary.tokens)),
            chat_template=None if template is None else str(template),
        )
        self._note_special_bos(tokenizer)
        return tokenizer, self._notes

    def _field(self, name: str) -> Any:
        value = self._fields.get(f"tokenizer.ggml.{name}")
        if value is None:
            raise TokenizerError(f"field tokenizer.ggml.{name} is missing: the file has no tokenizer that can be used")
        return value

    def _list(self, name: str) -> list[Any]:
        return list(self._field(name))

    def _pieces(self) -> Pieces:
        texts = [str(text) for text in self._field("tokens")]
        if len(texts) > MAX_VOCAB:
            raise TokenizerError(f"{len(texts)} tokens: {MAX_VOCAB} are the most")
        types = self._fields.get("tokenizer.ggml.token_type")
        if types is None:
            self._notes.append("tokenizer.ggml.token_type is missing: only tokens named <|...|> or <...> are special")
            is_special = [len(text) > 2 and text.startswith("<") and text.endswith(">") for text in texts]
            types = [PieceType.CONTROL if special else PieceType.NORMAL for special in is_special]
        types = [int(number) for number in types]
        if len(types) != len(texts):
            raise TokenizerError(f"{len(texts)} tokens, and tokenizer.ggml.token_type has {len(types)}")
        return sort_pieces(texts, types)

    def _byte_level_form(self, pieces: Pieces) -> TextForm:
        pre = self._fields.get("tokenizer.ggml.pre", "default")
        if pre == "default":
            if not _is_llama3(pieces):
                raise TokenizerError(
                    "tokenizer.ggml.pre is missing, and the vocabulary is not Llama 3's: how text is cut is unknown. "
                    f"Name it with --pre-tokenizer: {', '.join(PRE_TOKENIZERS)}"
                )
            self._notes.append("tokenizer.ggml.pre is missing: the vocabulary is Llama 3's, so llama-bpe is taken")
            pre = "llama-bpe"
        if pre not in _PRE_TOKENIZERS:
            raise TokenizerError(
                f"pre-tokenizer {pre!r} is not supported: only {', '.join(_PRE_TOKENIZERS)} (tokenizer.ggml.pre). "
                "If it cuts text as one of these does, name that one with --pre-tokenizer"
            )
        pre_tokenizer = _PRE_TOKENIZERS[pre]
        return TextForm(
            kind=Kind.BYTE_LEVEL,
            pre_tokenizer=pre_tokenizer,
            normalizer=self._own_form(
                NORMALIZER, Normalizer.NFC if pre_tokenizer == PreTokenizer.QWEN2 else Normalizer.NONE
            ),
            space_prefix=SpacePrefix.NONE,
            strip_leading_space=False,
        )

    def _sentencepiece_form(self) -> TextForm:
        prefix = bool(self._fields.get("tokenizer.ggml.add_space_prefix", True))
        return TextForm(
            kind=Kind.BYTE_FALLBACK,
            pre_tokenizer=PreTokenizer.NONE,
            normalizer=Normalizer.NONE,
            space_prefix=self._own_form(SPACE_PREFIX, SpacePrefix.SEGMENT if prefix else SpacePrefix.NONE),
            strip_leading_space=self._own_flag(STRIP_LEADING_SPACE, prefix),
        )

    def _ignores_merges(self, form: TextForm) -> bool:
        if form.kind == Kind.BYTE_FALLBACK:
            return False
        takes_whole = self._fields.get("tokenizer.ggml.pre") not in _MERGED_ALWAYS
        return self._own_flag(IGNORE_MERGES, form.pre_tokenizer == PreTokenizer.LLAMA3 and takes_whole)

    def _own_form(self, key: str, default: _Form) -> _Form:
        """What a key of edgebit's own names."""
        value = self._fields.get(key)
        if value is None:
            return default
        forms = {form.name.lower(): form for form in type(default)}
        if not isinstance(value, str) or value not in forms:
            raise TokenizerError(f"{key} is {value!r}; known are {', '.join(forms)}")
        return forms[value]

    def _own_flag(self, key: str, default: bool) -> bool:
        value = self._fields.get(key, default)
        if not isinstance(value, bool):
            raise TokenizerError(f"{key} is {value!r}, and no truth value")
        return value

    def _adds_bos(self, form: TextForm) -> bool:
        """Where the file does not say: as llama.cpp has it."""
        return form.kind == Kind.BYTE_FALLBACK or form.pre_tokenizer == PreTokenizer.LLAMA3

    def _id(self, name: str, vocab_size: int) -> int | None:
        """The token of field `name`_token_id, where the file has one; of `llama`, SentencePiece's own otherwise."""
        default = {"bos": 1, "eos": 2, "unknown": 0}.get(name) if self._field("model") == "llama" else None
        value = self._fields.get(f"tokenizer.ggml.{name}_token_id", default)
        if value is None or int(value) == 0xFFFFFFFF:  # how -1, none, is written
            return None
        if not 0 <= int(value) < vocab_size:
            raise TokenizerError(f"tokenizer.ggml.{name}_token_id is {value}, the vocabulary has {vocab_size} tokens")
        return int(value)

    def _named_tokens(self, vocab_size: int) -> dict[str, str]:
        texts = self._field("tokens")
        ids = {key: self._id(name, vocab_size) for name, key in _NAMED.items()}
        return {key: str(texts[token]) for key, token in ids.items() if token is not None}

    def _stop_tokens(self, pieces: Pieces, vocab_size: int) -> tuple[int, ...]:
        """What the file names, and every special token that ends a turn: files often name but one of them."""
        ids = (self._id(name, vocab_size) for name in ("eos", "eot", "eom"))
        named = [token for token in ids if token is not None]
        special = {entry["content"]: int(entry["id"]) for entry in pieces.added if entry["special"]}
        ending = [special[name] for name in TURN_ENDERS if name in special and special[name] not in named]
        if ending:
            texts = ", ".join(name for name in TURN_ENDERS if special.get(name) in ending)
            self._notes.append(f"the file does not name {texts} as ends of an answer: they are taken for such")
        return distinct_stop_tokens([*named, *ending])

    def _note_special_bos(self, tokenizer: CheckpointTokenizer) -> None:
        if tokenizer.bos_token is not None and not tokenizer.flags[tokenizer.bos_token] & SPECIAL:
            self._notes.append(f"the begin-of-text token {tokenizer.bos_token} is no control token")


def _is_llama3(pieces: Pieces) -> bool:
    ids = pieces.ids
    return max(ids.values(), default=0) + 1 == _LLAMA3_SIZE and all(
        ids.get(text) == token for token, text in _LLAMA3_TOKENS.items()
    )
