"""The reference's tokenizer beside the model file's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgebit.checkpoint.positioned_reads import open_to_read
from edgebit.errors import CheckpointError
from edgebit.runtime.tokenizer import Tokenizer

TEXT = (
    "The edge of the network is a small computer with a slow clock. It reads a sensor, it's 12345 o'clock, and WE'LL "
    "see:\n  x = [1, 22, 333, 4444]\tif a <= b:  return a*b\r\n\r\n   Ein schöner Tag, c'est déjà l'été, mañana será "
    "otro día.\nПривет, мир! 你好，世界。 こんにちは 안녕하세요 שלום مرحبا नमस्ते 🙂👍🏽 — “quotes” … 1,000.50 € "
    "(50%) e.g. https://example.org/a_b?c=d#e\n"
)


def reference_encoder(folder: Path) -> Callable[[str], list[int]] | None:
    """What turns text into the checkpoint's own token ids, without begin-of-text; None where it has no tokenizer.

    Raises CheckpointError where the reference cannot load it.
    """
    file = next((folder / name for name in ("tokenizer.json", "tokenizer.model") if (folder / name).is_file()), None)
    if file is None:
        return None
    open_to_read(file).close()  # which says so where it is a Git LFS pointer
    try:
        if file.suffix == ".json":
            import tokenizers

            tokenizer = tokenizers.Tokenizer.from_file(str(file))
            return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
        import transformers

        loaded: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return lambda text: list(loaded.encode(text, add_special_tokens=False))
    except Exception as error:  # tokenizers raises that very class
        said = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{file}: the reference cannot load this tokenizer: {said}") from error


def describe_difference(text: str, ours: list[int], wanted: list[int], tokenizer: Tokenizer) -> str | None:
    """Where two sequences of token ids part; None where they do not."""
    if ours == wanted:
        return None
    at = next((at for at, (a, b) in enumerate(zip(ours, wanted, strict=False)) if a != b), min(len(ours), len(wanted)))
    before = b"".join(tokenizer.token_bytes(token) for token in wanted[:at] if 0 <= token < tokenizer.vocab_size)
    rest = text.encode()[len(before) :].decode(errors="replace")[:20]
    return f"they part at token {at}, {rest!r}: {_some(ours, at)} for the reference's {_some(wanted, at)}"


def _some(ids: list[int], at: int) -> str:
    return str(ids[at : at + 3]) if at < len(ids) else "the end"
