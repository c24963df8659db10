"""A device's answer: put together from its frames, and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebit.errors import DeviceError, NoAnswerError


class Assembler:
    """Puts the frames of one answer in order, each once, and checks the whole against the last one."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[str, Any]] = {}
        self._next = 0
        self.text = ""  # of all deltas without a gap
        self.last: dict[str, Any] | None = None  # the frame with `done`

    def push(self, frame: dict[str, Any]) -> str:
        """Take a frame in whatever order it came; gives the text that can be shown now."""
        seq = frame.get("seq")
        if type(seq) is not int or seq < self._next:  # True is an int too
            return ""
        if frame.get("done"):
            self.last = frame
        else:
            self._waiting[seq] = frame
        piece = ""
        while self._next in self._waiting:
            piece += str(self._waiting.pop(self._next).get("d", ""))
            self._next += 1
        self.text += piece
        return piece

    @property
    def complete(self) -> bool:
        """Whether the last frame is there and none before it is missing."""
        return self.last is not None and self._next >= int(self.last["seq"])

    @property
    def lost(self) -> int:
        """Frames that the last one counts and that have not come."""
        return 0 if self.last is None else int(self.last["seq"]) - self._next - len(self._waiting)


@dataclass(slots=True)
class Exchange:
    """One request and what has come of it; complete once DeviceClient.stream() has ended."""

    id: str
    device: str = ""  # that answers; empty while nobody does
    reply: dict[str, Any] = field(default_factory=dict)  # the last frame
    text: str = ""
    lost: int = 0  # frames that never came; the text is whole all the same if the last frame carried it


def conclude(device: str, assembler: Assembler, exchange: Exchange, timeout_s: float) -> None:
    """Fill in `exchange` from what has come.

    Raises NoAnswerError where there is no whole answer, DeviceError where it is an error, or not what its hash says.
    """
    last = assembler.last
    if last is None:
        what = "had not finished its answer" if assembler.text else "did not answer"
        raise NoAnswerError(f"{device} is online, but {what} within {timeout_s:g} s. Give it a longer --timeout")
    exchange.reply, exchange.text, exchange.lost = last, str(last.get("text", assembler.text)), assembler.lost
    error = last.get("error")
    if isinstance(error, dict) and error.get("code") == "expired":
        raise NoAnswerError(f"{device}: {error.get('message')} ({timeout_s:g} s). Give it a longer --timeout")
    if error:
        raise DeviceError(device_words(device, error))
    if assembler.lost and "text" not in last:
        raise NoAnswerError(f"{assembler.lost} frames of the answer were lost on the way. Ask again")
    check_hash(device, exchange.text, last)


def check_hash(device: str, text: str, last: Mapping[str, Any]) -> None:
    """Raise DeviceError where a text is not what the last frame's hash says."""
    digest = last.get("text_sha256")
    if digest is not None and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise DeviceError(f"the answer of {device} was changed on the way: its hash differs. Ask again")


def device_words(device: str, error: Any) -> str:
    """What a device says of its failure, as a sentence."""
    if not isinstance(error, dict):
        return f"{device}: {error}"
    words = f"{device}: {error.get('message', 'no reason given')} ({error.get('status')} {error.get('code')})"
    if error.get("retryable"):
        wait_ms = error.get("retry_after_ms")
        words += (
            f". Ask again in {wait_ms // 1000} s" if isinstance(wait_ms, int) and wait_ms >= 1000 else ". Ask again"
        )
    return words
