"""The schemas of requests as programs. All callers wait while one is compiled: nobody has more than a part of the time.

A schema is compiled at most once while it is remembered, one that cannot be followed too.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from edgebit.daemon.admission.sliding_window import SlidingWindow
from edgebit.daemon.contract.messages import Refusal
from edgebit.errors import SchemaError
from edgebit.runtime.json_schema import compile_schema, parse_schema

WINDOW_S = 60.0
MOST_S = 3.0  # that a caller's schemas may take of it: the one that passes this is the last
REMEMBERED = 32  # schemas
CALLERS_MAX = 256  # who are told apart
OTHERS = ""  # nobody's name: all who found no place among them


class SchemaCompiler:
    """In the thread of admission."""

    def __init__(
        self,
        name_of: Callable[[str], str],
        compile_text: Callable[[str], bytes] = lambda text: compile_schema(parse_schema(text)),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name_of` gives one name to those principals who cannot be told apart."""
        self._name_of = name_of
        self._compile = compile_text
        self._clock = clock
        self._known: OrderedDict[str, bytes | str] = OrderedDict()  # programs, or why there are none; last used last
        self._spent: dict[str, SlidingWindow] = {}  # seconds, by caller

    def program(self, principal: str, text: str, *, charged: bool = True) -> bytes:
        """The program of a schema's JSON text.

        charged: False for what was accepted before, and is taken up again

        Raises Refusal: 400 where it cannot be followed, 429 where its sender has had his time.
        """
        if text not in self._known:
            self._compile_anew(self._window(principal) if charged else SlidingWindow(WINDOW_S), text)
        self._known.move_to_end(text)
        known = self._known[text]
        if isinstance(known, str):
            raise Refusal(400, "bad_schema", f"the schema cannot be followed: {known}")
        return known

    def _compile_anew(self, spent: SlidingWindow, text: str) -> None:
        began = self._clock()
        wait_s = spent.wait_s(began, MOST_S)
        if wait_s:
            words = (
                f"new schemas have taken more than {MOST_S:g} s to compile within {WINDOW_S:g} s: send fewer of them"
            )
            raise Refusal(429, "rate_limit", words, retryable=True, retry_after_ms=math.ceil(1000 * wait_s) + 1)
        try:
            self._known[text] = self._compile(text)
        except SchemaError as error:
            self._known[text] = str(error)
        ended = self._clock()
        spent.add(ended, ended - began)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _window(self, principal: str) -> SlidingWindow:
        name, now = self._name_of(principal), self._clock()
        if name not in self._spent and len(self._spent) >= CALLERS_MAX:
            self._spent = {each: window for each, window in self._spent.items() if window.total(now)}
            name = name if len(self._spent) < CALLERS_MAX else OTHERS
        return self._spent.setdefault(name, SlidingWindow(WINDOW_S))
