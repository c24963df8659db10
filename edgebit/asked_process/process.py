"""A process that is measured: started on its cores, asked one thing at a time, and gone when its block ends.

Each question is a line of JSON on its standard input, {"do": NAME, ...}; it answers each with one on standard output,
and with {"error": WORDS} where it cannot.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from edgebit.asked_process.cores import cores_for, pinned
from edgebit.errors import EngineError
from edgebit.resources import package_dir

_START = "import json, sys; sys.path[:0] = json.loads(sys.argv[1]); from {module} import main; main(sys.argv[2])"
_LAST_WORDS = 300  # bytes of what it wrote to standard error


class AskedProcess:
    """`argv`, kept to as many cores as it has threads, and in a session of its own: Ctrl-C reaches its parent alone."""

    def __init__(self, argv: Sequence[str], threads: int) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        with pinned(cores_for(threads)):
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
                start_new_session=True,
            )  # fmt: skip

    @classmethod
    def of_module(cls, module: str, argument: str, threads: int, *options: str) -> Self:
        """main(argument) of one of edgebit's modules, in this interpreter with `options` of its command line.

        Modules come from where ours do; of a process without site-packages (-S), edgebit's alone.
        """
        start = _START.format(module=module)
        folders = [str(package_dir().parent)] if "-S" in options else sys.path
        return cls([sys.executable, *options, "-c", start, json.dumps(folders), argument], threads)

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What it answers; EngineError in its own words, or where it has died."""
        request = json.dumps({"do": name, **arguments})
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; if it said why, that is still to be read
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"the process that was measured died ({name}): {self._end()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if kind is not None:
            self._process.kill()  # Ctrl-C, or another one's fault: no need to wait for what it computes
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def _end(self) -> str:
        """How it ended, with its last words."""
        code = self._process.wait(30)
        self._said.seek(max(self._said.seek(0, os.SEEK_END) - _LAST_WORDS, 0))
        said = " ".join(self._said.read().decode(errors="replace").split())
        why = "killed, as a system does that runs out of memory" if code == -signal.SIGKILL else f"exit code {code}"
        return f"{why}: {said}" if said else why
