"""The process that renders a chat template as transformers' apply_chat_template does it, in jinja2's sandbox.

Run as a program with {"template", "named", "cpu_s"} as its first line on standard input. It answers that line with a
JSON object on standard output, and each further one, a list of {"messages", "generation"}, with a list of such.

A template is a program of a stranger: it may loop without end or grow a text without bound in many ways (ranges,
powers, repetition, formats, macros that call themselves), so the system limits the time and the memory of this process,
whatever the way.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_MIB = 512  # of addresses, the interpreter's own 50 or so among them
TEXT_MAX = 1 << 20  # characters of a prompt
_REASON_MAX = 500
_CLOCKS = (datetime(2001, 2, 3), datetime(2031, 11, 30))
_RENDER_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class _GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %}, with which training tools mark answers: its content, as it stands."""

    tags = {"generation"}  # noqa: RUF012 (declared so in jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Renderer:
    """One template. What a method gives is the answer to the line that asks for it."""

    def __init__(self, named: dict[str, str]) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        self._environment.globals["raise_exception"] = _refuse
        self._environment.globals["strftime_now"] = self._strftime_now
        self._named = named
        self._clock, self._asked_for_date = _CLOCKS[0], False

    def compile(self, template: str) -> dict[str, Any]:
        """{} where it is Jinja."""
        try:
            self._template = self._environment.from_string(template)
        except (*_RENDER_ERRORS, SyntaxError) as error:
            return {"not_jinja": str(error)[:_REASON_MAX]}
        return {}

    def render(self, messages: list[dict[str, str]], generation: bool) -> dict[str, Any]:
        """`text`, and whether the date is in it; or why the template has `refused` it."""
        texts: list[str] = []
        self._asked_for_date = False
        for self._clock in _CLOCKS:
            if texts and not self._asked_for_date:
                break
            try:
                text = self._template.render(
                    messages=messages,
                    add_generation_prompt=generation,
                    tools=None,
                    documents=None,
                    **self._named,
                )
            except _RENDER_ERRORS as error:
                return {"refused": str(error)[:_REASON_MAX]}
            if len(text) > TEXT_MAX:
                return {"limit": f"writes {len(text):,} characters into a prompt: more than {TEXT_MAX:,}"}
            texts.append(text)
        return {"text": texts[0], "dated": texts[0] != texts[-1]}

    def _strftime_now(self, form: str) -> str:
        self._asked_for_date = True
        return self._clock.strftime(form)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _limit(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(kind, (most, hard))
    except (OSError, ValueError):  # macOS has no limit of addresses
        return


@contextmanager
def _memory_bounded(answer: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        answer["limit"] = f"needs more than {MEMORY_MIB} MiB of memory"


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    first = json.loads(sys.stdin.readline())
    for kind, most in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, first["cpu_s"]), (resource.RLIMIT_AS, MEMORY_MIB << 20),
    ):  # fmt: skip
        _limit(kind, most)
    renderer = _Renderer(first["named"])
    answer: dict[str, Any] = {}
    with _memory_bounded(answer):
        answer |= renderer.compile(first["template"])
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        answers = []
        for request in json.loads(line):
            answer = {}
            with _memory_bounded(answer):
                answer |= renderer.render(**request)
            answers.append(answer)
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
