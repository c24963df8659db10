"""Prompts and answers in the log, for owners who switch that on ([privacy] log_prompts)."""

import logging
from collections.abc import Sequence

from edgebit.daemon.serving.job import AnswerFilter

log = logging.getLogger("edgebit.prompts")


class AnswerLog:
    """Stands before an answer's filter, or in its place, and writes down what is sent."""

    def __init__(self, guard: AnswerFilter | None, job_id: str, name: str, texts: Sequence[str]) -> None:
        """`name` is hashed already; `texts` are the prompt's."""
        self._guard = guard
        self._job_id = job_id
        self._sent: list[str] = []
        self._over = False
        log.info("job %s of %s asks %r", job_id, name, list(texts))

    def push(self, piece: str) -> str:
        """See AnswerFilter."""
        safe = self._guard.push(piece) if self._guard is not None else piece
        self._sent.append(safe)
        return safe

    def finish(self) -> str:
        """See AnswerFilter."""
        rest = self._guard.finish() if self._guard is not None else ""
        self._sent.append(rest)
        self._write("is answered")
        return rest

    def close(self) -> None:
        """The job has ended, perhaps before its answer had."""
        if self._guard is not None:
            self._guard.close()
        self._write("ended within its answer")

    def _write(self, how: str) -> None:
        if not self._over:
            self._over = True
            log.info("job %s %s: %r", self._job_id, how, "".join(self._sent))
