"""What a user says of a checkpoint where its files do not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgebit.ternary.ggml.i2_s import I2SDialect

I2S_DIALECTS: tuple[I2SDialect, ...] = ("x86", "arm", "rows4")
ActivationsHint = Literal["int8", "float"]
PreTokenizerName = Literal["llama-bpe", "gpt-2", "qwen2", "falcon"]  # as tokenizer.ggml.pre has them
PRE_TOKENIZERS: tuple[PreTokenizerName, ...] = ("llama-bpe", "gpt-2", "qwen2", "falcon")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """None: as far as the files tell it; what they leave open and cannot be guessed is refused."""

    i2s_dialect: I2SDialect | None = None  # of a GGUF file with I2_S tensors (docs/models.md)
    i2s_reference: Path | None = None  # the folder of the Hugging Face checkpoint that such a file was made from
    activations: ActivationsHint | None = None  # what a GGUF file's model was trained with
    pre_tokenizer: PreTokenizerName | None = None  # how a GGUF file's byte-level tokenizer cuts text


NO_HINTS = Hints()
HINT_OPTIONS = "--i2s-dialect, --i2s-reference, --activations and --pre-tokenizer"  # that commands have for them
