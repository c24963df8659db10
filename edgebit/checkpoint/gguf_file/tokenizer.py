"""The tokenizer of a GGUF file, with what files are known to have wrong put right, each with a note.

Sources: microsoft/bitnet-b1.58-2B-4T, tokenizer_config.json, for the template that the model was trained with; what its
GGUF file has instead, as reported of ik_llama.cpp, issue 339.
"""

from collections.abc import Mapping
from dataclasses import replace

from edgebit.checkpoint.gguf_file.metadata import Value
from edgebit.checkpoint.hints import PreTokenizerName
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, read_gguf_tokenizer
from edgebit.errors import TokenizerError

_PRE = "tokenizer.ggml.pre"
_NO_TOKENIZER = ("none", "no_vocab")
_WRONG_TEMPLATE_SIGN = "BITNETAssistant"  # a model never trained so never ends its answer
_TEMPLATE_2B4T = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
_END_OF_TURN = b"<|eot_id|>"


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
    try:
        tokenizer, repairs = read_gguf_tokenizer(named, where)
    except TokenizerError as error:
        if pre_tokenizer is None and _PRE in str(error):
            raise TokenizerError(f"{error} Or name it: --pre-tokenizer") from error
        raise
    notes += repairs
    if tokenizer.chat_template is not None and _WRONG_TEMPLATE_SIGN in tokenizer.chat_template:
        if _END_OF_TURN not in tokenizer.tokens:
            raise TokenizerError(
                f"{where}: tokenizer.chat_template is the wrong one of bitnet-b1.58-2B-4T's first files, and the "
                "vocabulary is not that model's"
            )
        tokenizer = replace(tokenizer, chat_template=_TEMPLATE_2B4T)
        notes.append(
            "the chat template in the file (Human, BITNETAssistant) is not what bitnet-b1.58-2B-4T was trained with: "
            "that of its Hugging Face checkpoint is taken (User, Assistant, <|eot_id|>)"
        )
    return tokenizer, notes


def _with_pre_tokenizer(
    fields: Mapping[str, Value], pre_tokenizer: PreTokenizerName | None
) -> tuple[Mapping[str, Value], list[str]]:
    stored = fields.get(_PRE)
    if pre_tokenizer is None or stored == pre_tokenizer:
        return fields, []
    said = "does not say" if stored is None else f"says {stored}"
    note = f"the pre-tokenizer is {pre_tokenizer}, as --pre-tokenizer says; the file {said}"
    return {**fields, _PRE: pre_tokenizer}, [note]
