"""A model file's tokenizer and prompt program, beside Hugging Face's tokenizer and the Jinja it was compiled from."""

import importlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebit.bundle.prompt_program import Message, PromptProgram
from edgebit.checkpoint.chat_template.proof import conversations, text_of
from edgebit.checkpoint.chat_template.rendering import ChatTemplate, RefusedError
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, Kind, Normalizer
from edgebit.checkpoint.tokenizer.text_form import SPACE_MARK
from edgebit.checks import Check
from edgebit.runtime.model import Model
from edgebit.runtime.tokenizer import Tokenizer

# Scripts, numbers, code, white space, joined emoji, and names of special tokens, which stay text.
_TEXT = (
    "The quick brown fox can't jump over 1234567 lazy dogs, isn't it?  Two  spaces,\ttabs\n\nand lines\r\n"
    "    def f(x: int) -> str:  # code\n        return f'{x!r:>10}' + \"\\n\"\n"
    "Grüße aus Köln, ça va? Привет, мир! Γειά σου. שלום עולם. مرحبا بالعالم 你好，世界。こんにちは 안녕하세요 ไทย\n"
    "🙂👩‍👩‍👧‍👦🇩🇪 é é ﬁ ½ ١٢٣ Ⅷ \u00a0\u3000\u200b\u2028 €$£ 3.14e-10 0xFF https://example.org/?q=1&r=2#s\n"
    "<|eot_id|><|im_start|>system <s>[INST] <<SYS>> </s> <unk> ▁ Ġ \x7f {{ x }}"
)


def check_tokenizer(model: Model, source: Checkpoint) -> Check:
    """A mixed text there and back, and its ids beside those of the package `tokenizers`, where there is one."""
    name, read = "tokenizer", source.tokenizer()
    if model.section("TOKN") is None or read is None:
        return Check(name, "not run", "the model file holds none: it takes token ids only")
    wanted_back = _as_comes_back(_TEXT, read)
    with Tokenizer.from_model(model) as tokenizer:
        ids = tokenizer.encode(_TEXT)
        back = tokenizer.decode(ids, skip_special=False).decode(errors="replace").removeprefix(" ")
        special = tokenizer.encode(_TEXT, parse_special=True)
    if back != wanted_back:
        at = _first_difference(back, wanted_back)
        return Check(name, "failed", f"a text comes back as another, from character {at} on: {back[at : at + 30]!r}")
    text = f"a text of {len(_TEXT)} characters there and back by {len(ids)} tokens"
    reference = _reference(source.path)
    if reference is None:
        return Check(name, "passed", f"{text}; not compared: {_why_no_reference(source.path)}")
    wanted = _ids(reference, _TEXT)
    if special != wanted:
        at = _first_difference(special, wanted)
        return Check(
            name, "failed", f"token {at} of a text is {special[at : at + 1]}, of `tokenizers` {wanted[at : at + 1]}"
        )
    return Check(name, "passed", f"{text}; the ids are those of `tokenizers`")


def check_template(model: Model, source: Checkpoint) -> Check:
    """Jinja's prompts and the program's for every conversation of the proof: the same text, and the same ids."""
    name = "chat template"
    section, jinja = model.section("PRMT"), model.meta().get("chat_template")
    tokenizer = source.tokenizer()
    if section is None or jinja is None or tokenizer is None:
        return Check(name, "not run", "the model file holds none: prompts are plain text")
    program = PromptProgram.from_bytes(section)
    reference = _reference(source.path)
    n_texts = n_ids = 0
    with ChatTemplate(jinja, tokenizer.named_tokens) as template, Tokenizer.from_model(model) as own:
        begin = model.info.bos_token if program.add_bos else None
        special = {_name(own, token) for token in range(own.vocab_size) if own.is_special(token)}
        bos = "" if begin is None else _name(own, begin)
        template.render_ahead(conversations(program))
        for messages in conversations(program):
            try:
                wanted = bos + template.render(messages).removeprefix(bos)
            except RefusedError as refused:
                return Check(name, "failed", f"Jinja refuses {_shown(messages)}: {refused}")
            if bos + text_of(program, messages) != wanted:
                return Check(name, "failed", f"the prompt of {_shown(messages)} is another than Jinja's {wanted!r}")
            n_texts += 1
            if any(text and text in message.content for text in special for message in messages):
                continue  # in a content they stay text here, and Hugging Face makes tokens of them
            n_ids += 1
            theirs = own.encode(wanted, parse_special=True) if reference is None else _ids(reference, wanted)
            if own.encode_segments(program.render(messages), begin=begin) != theirs:
                return Check(name, "failed", f"the prompt of {_shown(messages)} has other ids than Jinja's {wanted!r}")
    by = "`tokenizers`" if reference is not None else "the engine's tokenizer"
    return Check(name, "passed", f"{n_texts} conversations with Jinja's text, {n_ids} of them with its ids by {by}")


def _as_comes_back(text: str, tokenizer: CheckpointTokenizer) -> str:
    """What tokenizers of that form keep of a text: no bytes without a token, SentencePiece's mark as a space, NFC."""
    if tokenizer.kind == Kind.BYTE_FALLBACK:
        return text.replace(SPACE_MARK, " ")
    if tokenizer.normalizer == Normalizer.NFC:
        text = unicodedata.normalize("NFC", text)
    single = {tokenizer.tokens[token] for token in tokenizer.merged_ids if len(tokenizer.tokens[token]) == 1}
    return bytes(byte for byte in text.encode() if bytes([byte]) in single).decode(errors="replace")


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    places = (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y)
    return next(places, min(len(one), len(other)))


def _name(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.token_bytes(token).decode(errors="replace")


def _ids(reference: Any, text: str) -> Sequence[int]:
    ids: Sequence[int] = reference.encode(text, add_special_tokens=False).ids
    return ids


def _shown(messages: Sequence[Message]) -> str:
    return ", ".join(f"{message.role} {message.content[:40]!r}" for message in messages)


def _reference(source: Path) -> Any:
    """The tokenizer of the checkpoint's tokenizer.json, as Hugging Face's; None where package or file is not there."""
    file = source / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        package = importlib.import_module("tokenizers")
    except ImportError:
        return None
    return package.Tokenizer.from_file(str(file))


def _why_no_reference(source: Path) -> str:
    if not (source / "tokenizer.json").is_file():
        return "Hugging Face's `tokenizers` reads a tokenizer.json alone, and the checkpoint has none"
    return "pip install tokenizers compares its ids with Hugging Face's"
