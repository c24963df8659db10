"""Text of tokens as they come, by a tokenizer that decodes all of them: whole characters, nothing of a stop string."""

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"  # what decoders write for bytes of a character that is not all there


class TextPieces:
    """One answer's text, piece by piece."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        """`decode` gives the text of all tokens of an answer so far."""
        self._decode, self._stops = decode, stops
        self._tokens: list[int] = []
        self._text = ""  # as far as it may be shown in the end
        self._shown = 0

    def push(self, token: int) -> tuple[str, bool]:
        """The text that can be shown after this token, and whether a stop string is now complete."""
        self._tokens.append(token)
        self._text = self._decode(self._tokens)
        places = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        if places:
            self._text = self._text[: min(places)]
            return self._show(len(self._text)), True
        whole = self._text.rstrip(_INCOMPLETE)
        return self._show(len(whole) - self._begun(whole)), False

    def finish(self) -> str:
        """What was held back."""
        return self._show(len(self._text))

    def _show(self, end: int) -> str:
        piece = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece

    def _begun(self, text: str) -> int:
        """Characters at its end with which a stop string may begin."""
        lengths = (size for stop in self._stops for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
        return max(lengths, default=0)
