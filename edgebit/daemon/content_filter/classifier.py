"""A program of the owner's that judges a text: it reads the text from standard input and ends with 0 (fine) or 1 (not).

It is started at once and asked for its verdict later, so that it works while the job waits and its prompt is computed;
no thread is needed. The text lies in memory only, and the program's group is killed when its time is over.
"""

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

log = logging.getLogger("edgebit.filter")

REASON_MAX = 100  # characters of its first line that go into the log


class ClassifierFault(Exception):
    """The program gave no verdict: it cannot be started, was too slow, or ended otherwise."""


class Verdict:
    """One text being judged. allowed() waits for it, once; close() gives it up."""

    def __init__(
        self, argv: Sequence[str], text: str, timeout_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._timeout_s = timeout_s
        self._fault: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with _text_in_memory(text) as stdin:
                self._process = subprocess.Popen(
                    list(argv),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
        except OSError as error:
            self._fault = f"{argv[0]} cannot be started: {error.strerror}"

    @property
    def ready(self) -> bool:
        """Whether allowed() will not wait."""
        return self._process is None or self._process.poll() is not None or self._clock() >= self._deadline

    def allowed(self) -> bool:
        """The verdict. Waits for at most the rest of the time. Raises ClassifierFault."""
        process = self._process
        if process is None:
            raise ClassifierFault(self._fault or "it was given up")
        try:
            code = process.wait(max(0.0, self._deadline - self._clock()))
        except subprocess.TimeoutExpired:
            self.close()
            raise ClassifierFault(f"it gave no verdict within {self._timeout_s:g} s") from None
        reason = self._reason()
        self.close()
        if code not in (0, 1):
            raise ClassifierFault(f"it ended with {code}")
        if code == 1:
            log.info("the classifier said no%s", f": {reason}" if reason else "")
        return code == 0

    def close(self) -> None:
        """End the program, if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def _reason(self) -> str:
        """The first line of what it printed: a word for the log, never a part of the text it was given."""
        assert self._process is not None and self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        printed = self._process.stdout.read(4 * REASON_MAX) or b""
        line = printed.decode(errors="replace").partition("\n")[0][:REASON_MAX]
        return "".join(character for character in line if character.isprintable())


def _text_in_memory(text: str) -> IO[bytes]:
    """A file that holds the text and has no name."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("text"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(text.encode(errors="replace"))
    file.flush()
    file.seek(0)
    return file
