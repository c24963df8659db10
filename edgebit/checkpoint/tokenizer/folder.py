"""The tokenizer in a checkpoint's folder, whichever file it is in."""

from pathlib import Path

from edgebit.checkpoint.tokenizer.sentencepiece_file import read_sentencepiece_file
from edgebit.checkpoint.tokenizer.tokenizer import CheckpointTokenizer
from edgebit.checkpoint.tokenizer.tokenizer_json import read_tokenizer_json

_JSON, _SENTENCEPIECE = "tokenizer.json", "tokenizer.model"


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_JSON, _SENTENCEPIECE))


def read_tokenizer(path: Path) -> CheckpointTokenizer:
    """Read the tokenizer.json, or else the tokenizer.model, at `path` or in the folder `path`.

    Raises TokenizerError naming the file and what in it edgebit does not carry over exactly.
    """
    if path.is_dir():
        both = path / _JSON, path / _SENTENCEPIECE
        path = both[1] if both[1].is_file() and not both[0].is_file() else both[0]
    return read_sentencepiece_file(path) if path.suffix == ".model" else read_tokenizer_json(path)
