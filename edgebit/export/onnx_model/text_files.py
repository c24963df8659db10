"""edgebit.tokn and edgebit.prmt: sections TOKN and PRMT of a model file, by which text becomes the engine's tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgebit.bundle.model_format import Conf
from edgebit.checkpoint.checkpoint import Checkpoint
from edgebit.checkpoint.model_file_checkpoint import ModelFileCheckpoint
from edgebit.checkpoint.text_sections import read_text_sections
from edgebit.errors import TokenizerError

FILES = {"TOKN": "edgebit.tokn", "PRMT": "edgebit.prmt"}


@dataclass(frozen=True, slots=True)
class TextFiles:
    """What makes a model of token ids one of text."""

    conf: Conf  # with the tokenizer's own begin-of-text and stop tokens
    contents: Mapping[str, bytes]  # by file name
    notes: tuple[str, ...] = ()


def text_files(checkpoint: Checkpoint) -> TextFiles:
    """Of a model file, its own sections; else those that `edgebit convert` would write, as far as it can."""
    if isinstance(checkpoint, ModelFileCheckpoint):
        stored = {name: checkpoint.section(tag) for tag, name in FILES.items()}
        contents = {name: content for name, content in stored.items() if content is not None}
        return TextFiles(checkpoint.config.conf, contents)
    try:
        text = read_text_sections(checkpoint)
    except TokenizerError as fault:
        note = f"{fault}. edgebit run does not take text for this folder: give it token ids, or export a model file"
        return TextFiles(checkpoint.config.conf, {}, (note,))
    return TextFiles(text.conf, {FILES[tag]: content for tag, content in text.sections.items()}, text.notes)
