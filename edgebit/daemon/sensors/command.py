"""Programs that are asked for figures: each within a time limit, never two at once, and never waited for for long.

A program may hang where not even SIGKILL ends it (a driver's call that does not return). So it is started, looked
after at each call, and given up in time; as long as it has not ended no other is started.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.reading import NotHere, NotYet, Unreadable

_OUTPUT_MAX = 65536  # bytes
_PATIENCE_S = 0.25  # that one call waits for the program to end
_PATIENCE_HUNG_S = 0.02  # the same after it has hung
_SEARCH_AGAIN_S = 60.0  # a program that is not installed is looked for so seldom


class Command:
    """One program with its arguments. For one thread."""

    def __init__(
        self,
        files: DeviceFiles,
        argv: Sequence[str],
        *,
        limit_s: float = 2.0,
        hint: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hint` is added to what is said of a program that does not answer."""
        self._files = files
        self._argv = list(argv)
        self.shown = " ".join(argv)
        self._limit_s = limit_s
        self._hint = hint
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._content = b""
        self._last: tuple[float, str] | None = None  # when it last answered, and what
        self._hung = False
        self._missing_until = 0.0

    def output(self) -> tuple[str, float]:
        """What the program says, and how many seconds ago it did.

        While it is still at work that is its answer before. Raises NotHere where it is not installed, Unreadable where
        it fails, or does not answer in time.
        """
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        self._attend(process, _PATIENCE_HUNG_S if self._hung else _PATIENCE_S)
        if process.poll() is not None:
            self._process = None
            return self._result(process)
        elapsed = self._clock() - self._began
        if self._hung or elapsed >= self._limit_s or len(self._content) > _OUTPUT_MAX:
            self._give_up(process)
            raise Unreadable(f"{self._argv[0]} did not answer within {self._limit_s:g} s{self._hint}")
        if self._last is None:
            raise NotYet(f"{self._argv[0]} has not answered yet")
        return self._last[1], self._clock() - self._last[0]

    def close(self) -> None:
        """End a program that still runs."""
        if self._process is not None:
            self._give_up(self._process)

    def _start(self) -> None:
        now = self._clock()
        if now < self._missing_until:
            raise NotHere(f"{self._argv[0]} is not installed")
        program = self._find()
        if program is None:
            self._missing_until = now + _SEARCH_AGAIN_S
            raise NotHere(f"{self._argv[0]} is not installed")
        try:
            process = subprocess.Popen(
                [program, *self._argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts ends with it
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise Unreadable(f"{self._argv[0]} cannot be started: {error.strerror}") from error
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._process, self._began, self._content, self._hung = process, now, b"", False

    def _find(self) -> str | None:
        """On a root of files that is not this machine's, a program of that root."""
        if self._files.is_real:
            return shutil.which(self._argv[0])
        own = self._files.root / "usr/bin" / self._argv[0]
        return str(own) if Path(own).is_file() else None

    def _attend(self, process: subprocess.Popen[bytes], patience_s: float) -> None:
        """Take what it says until it has ended, but no longer than the patience."""
        assert process.stdout is not None
        handle = process.stdout.fileno()
        until = time.monotonic() + patience_s
        open_still = True
        while len(self._content) <= _OUTPUT_MAX:
            ended = process.poll() is not None
            if open_still:
                open_still = self._drain(handle)
            if ended or (left := until - time.monotonic()) <= 0:
                return
            if open_still:
                select.select([handle], [], [], min(left, 0.05))  # a child of it may hold the pipe after its end
            else:
                time.sleep(min(left, 0.005))  # the pipe is closed, and its end a matter of moments

    def _drain(self, handle: int) -> bool:
        """False once the pipe is closed."""
        while len(self._content) <= _OUTPUT_MAX:
            try:
                piece = os.read(handle, 4096)
            except BlockingIOError:
                return True
            if not piece:
                return False
            self._content += piece
        return True

    def _result(self, process: subprocess.Popen[bytes]) -> tuple[str, float]:
        assert process.stdout is not None
        process.stdout.close()
        if self._hung:
            self._hung = False
            raise Unreadable(f"{self._argv[0]} did not answer within {self._limit_s:g} s{self._hint}")
        text = self._content.decode(errors="replace").strip()
        if process.returncode != 0:
            first = text.splitlines()[0][:120] if text else "no word"
            words = "".join(character if character.isprintable() else "?" for character in first)
            raise Unreadable(f"{self.shown} failed with {process.returncode}: {words}")
        if len(self._content) > _OUTPUT_MAX:
            raise Unreadable(f"{self.shown} says more than {_OUTPUT_MAX} bytes")
        self._last = (self._clock(), text)
        return text, 0.0

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        self._hung = True
        self._last = None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            process.kill()
