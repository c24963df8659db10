"""The tokenizer of a GGUF file, with what files are known to have wrong put right, each with a note.

Source: what is wrong with microsoft/bitnet-b1.58-2B-4T-gguf, as reported in issue 339 of ik_llama.cpp and in pull
request 508 of bitnet.cpp.
"""

from collections.abc import Mapping
from dataclasses import replace

from edgebit.checkpoint.chat_template.choice import added_tokens, read_choice
from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.checkpoint.hints import PreTokenizerName
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_gguf_tokenizer

_PRE = "tokenizer.ggml.pre"
_NO_TOKENIZER = ("none", "no_vocab")
_WRONG_TEMPLATE_SIGN = "BITNETAssistant"
_END_OF_TURN = "<|eot_id|>"


def read_tokenizer(
    fields: Mapping[str, Value], pre_tokenizer: PreTokenizerName | None, where: str
) -> tuple[CheckpointTokenizer | None, list[str]]:
    """The tokenizer, and notes on what was repaired; None: the file says that it has none.

    pre_tokenizer: what the user says of how text is cut. Raises TokenizerError naming `where` and the key at fault.
    """
    model = fields.get("tokenizer.ggml.model")
    if model is None or (isinstance(model, str) and model in _NO_TOKENIZER):
        return None, []
    named, notes = _with_pre_tokenizer(fields, pre_tokenizer)
    tokenizer, repairs = read_gguf_tokenizer(named, where)
    notes += repairs
    if _WRONG_TEMPLATE_SIGN in (tokenizer.chat_template or "") and _END_OF_TURN in added_tokens(tokenizer):
        tokenizer = replace(tokenizer, chat_template=read_choice("bitnet", tokenizer))
        notes.append(
            "the file's chat template (Human, BITNETAssistant) is not what bitnet-b1.58-2B-4T was trained with, and "
            "answers would not end: that of the Hugging Face checkpoint is taken (User, Assistant, <|eot_id|>)"
        )
    return tokenizer, notes


def _with_pre_tokenizer(
    fields: Mapping[str, Value], pre_tokenizer: PreTokenizerName | None
) -> tuple[Mapping[str, Value], list[str]]:
    stored = fields.get(_PRE)
    if pre_tokenizer is None or (isinstance(stored, str) and stored == pre_tokenizer):
        return fields, []
    said = "does not say" if stored is None else f"says {stored}"
    note = f"the pre-tokenizer is {pre_tokenizer}, as --pre-tokenizer says; the file {said}"
    return {**fields, _PRE: pre_tokenizer}, [note]
