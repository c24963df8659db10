"""A second, slow byte-level BPE with nothing in common with ours: what ids arbitrary bytes must get.

Hugging Face's `tokenizers` takes valid text only. Here each byte that is not UTF-8 becomes a lone surrogate
(surrogateescape), which the regular expression sees as one symbol that is neither letter, number nor white space.
"""

import json
from itertools import pairwise
from pathlib import Path

import regex

from edgebit.checkpoint.tokenizer.pre_tokenizers import LLAMA3_PATTERN


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte, written as its authors define it."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    chars, more = [], 256
    for byte in range(256):
        chars.append(chr(byte) if byte in keep else chr(more))
        more += byte not in keep
    return chars


class Oracle:
    """Token ids by the letter of the algorithm: merge the pair of lowest rank, leftmost first, until none is left."""

    def __init__(self, tokenizer_json: Path) -> None:
        model = json.loads(tokenizer_json.read_text())["model"]
        self._vocab = model["vocab"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(pairs)}
        self._ignore_merges = model.get("ignore_merges", False)
        self._alphabet = byte_alphabet()
        self._pattern = regex.compile(LLAMA3_PATTERN)

    def encode(self, data: bytes) -> list[int]:
        text = data.decode("utf-8", "surrogateescape")
        ids: list[int] = []
        for piece in self._pattern.findall(text):
            symbols = [self._alphabet[byte] for byte in piece.encode("utf-8", "surrogateescape")]
            ids += self._merge(symbols)
        return ids

    def _merge(self, symbols: list[str]) -> list[int]:
        if self._ignore_merges and "".join(symbols) in self._vocab:
            return [self._vocab["".join(symbols)]]
        while len(symbols) > 1:
            ranked = [(self._ranks.get(pair, -1), i) for i, pair in enumerate(pairwise(symbols))]
            possible = [entry for entry in ranked if entry[0] >= 0]
            if not possible:
                break
            _, i = min(possible)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        return [self._vocab[symbol] for symbol in symbols]
