"""A chat template rendered as transformers' apply_chat_template does it, in a process that cannot run away."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from edgebit.bundle.prompt_program import Message
from edgebit.errors import TokenizerError

_CPU_S = 20  # for all prompts of a template; a proof of one takes less than one on a fast machine
_RENDERER = Path(__file__).with_name("renderer.py")


_Key = tuple[tuple[Message, ...], bool]  # a conversation, and whether an answer begins after it


class RefusedError(Exception):
    """The template does not take this conversation: it called raise_exception(), or failed."""


_Outcome = str | RefusedError | TokenizerError


class ChatTemplate:
    """A Jinja template, with the special tokens that it may name (bos_token, eos_token ...); to be closed."""

    def __init__(self, template: str, named_tokens: Mapping[str, str]) -> None:
        """Raises TokenizerError where `template` is no Jinja, or the process cannot be started."""
        self._rendered: dict[_Key, _Outcome] = {}
        self._process = _start()
        try:
            answer = self._ask({"template": template, "named": dict(named_tokens), "cpu_s": _CPU_S})
            if "limit" in answer:
                raise TokenizerError(f"the chat template {answer['limit']}")
            if "not_jinja" in answer:
                raise TokenizerError(f"the chat template is not valid Jinja: {answer['not_jinja']}")
        except BaseException:
            self.close()
            raise

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        """The prompt's text; `generation`: with the beginning of an answer.

        Raises RefusedError where the template refuses the conversation, TokenizerError where the date is in it, or
        where it takes more time or memory than a template may.
        """
        key = (tuple(messages), generation)
        if key not in self._rendered:
            self._render([key])
        found = self._rendered[key]
        if isinstance(found, Exception):
            raise found
        return found

    def render_ahead(self, conversations: Iterable[Sequence[Message]]) -> None:
        """Render many at once, which takes a fraction of the time: render() then gives what came of each."""
        keys = [(tuple(messages), True) for messages in conversations]
        self._render([key for key in dict.fromkeys(keys) if key not in self._rendered])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _render(self, keys: Sequence[_Key]) -> None:
        requests = [
            {"messages": [asdict(message) for message in messages], "generation": generation}
            for messages, generation in keys
        ]
        try:
            answers = self._ask(requests)
        except TokenizerError as error:
            self._rendered |= dict.fromkeys(keys, error)
        else:
            self._rendered |= {key: _outcome(answer) for key, answer in zip(keys, answers, strict=True)}

    def _ask(self, request: Any) -> Any:
        """The process's answer. Raises TokenizerError where a limit has ended it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, and is asked why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise TokenizerError(f"the chat template {self._why_it_died()}")
        return json.loads(line)

    def _why_it_died(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return f"computes without end: its prompts took more than {_CPU_S} s"
        if status == -signal.SIGKILL:
            return (
                "cannot be rendered: the process that does it was killed, as the system does where memory is short."
                " End other programs, then try again"
            )
        return f"cannot be rendered: the process that does it died with status {status}"


def _start() -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            [sys.executable, "-P", str(_RENDERER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
        )
    except OSError as error:
        raise TokenizerError(
            f"the chat template cannot be rendered: {sys.executable} cannot be started for it: {error.strerror}"
        ) from error


def _outcome(answer: Mapping[str, Any]) -> _Outcome:
    if "limit" in answer:
        return TokenizerError(f"the chat template {answer['limit']}")
    if "refused" in answer:
        return RefusedError(" ".join(answer["refused"].split()))
    if answer["dated"]:
        return TokenizerError("the chat template writes the date into the prompt: a prompt program cannot")
    return str(answer["text"])
