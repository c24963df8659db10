"""tokenizer_config.json in the form that onnxruntime-genai loads, and what its tokenizer does otherwise.

Measured with onnxruntime-genai 0.18, whose tokenizer is onnxruntime-extensions' (docs/decisions/onnx-fallbacks.md).
"""

import json
from pathlib import Path

from edgebit.bundle.part_file import faults_named
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.checkpoint.tokenizer import CheckpointTokenizer, Kind, Normalizer, PreTokenizer
from edgebit.errors import ExportError
from edgebit.export.onnx_model.plain_template import plain_template
from edgebit.export.token_names import token_name
from edgebit.export.tokenizer_files import write_json

_CONFIG, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
_CLASS = "PreTrainedTokenizerFast"  # one that is read from tokenizer.json alone; genai refuses names it does not know


def fit_tokenizer_config(folder: Path, tokenizer: CheckpointTokenizer, program: PromptProgram | None) -> list[str]:
    """Change the tokenizer_config.json that lies in `folder`; notes for the user.

    program: what the chat template says; it is written anew, without what genai's template engine lacks
    """
    place = folder / _CONFIG
    with faults_named(place, ExportError):
        config = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    config["tokenizer_class"] = _CLASS
    notes = [f"onnxruntime-genai cuts text otherwise than {why}. Give it token ids" for why in _differences(tokenizer)]
    if program is not None:
        begin = "" if tokenizer.bos_token is None else token_name(tokenizer, tokenizer.bos_token)
        template = plain_template(program, begin)
        if template is None:
            notes.append("onnxruntime-genai may not render the chat template: it stands as its makers wrote it")
        else:
            config["chat_template"] = template
            with faults_named(folder / _TEMPLATE, ExportError):
                (folder / _TEMPLATE).unlink(missing_ok=True)
    write_json(place, config)
    return notes


def _differences(tokenizer: CheckpointTokenizer) -> list[str]:
    """What of the tokenizer genai's does not do."""
    found = []
    if tokenizer.kind == Kind.BYTE_FALLBACK:
        found.append("SentencePiece's vocabularies do")
    if tokenizer.pre_tokenizer == PreTokenizer.FALCON:
        found.append("Falcon's tokenizer does, and fails on some")
    if tokenizer.normalizer == Normalizer.NFC:
        found.append("a tokenizer that composes characters (NFC) does")
    return found
