"""A process that is asked: its answers, its refusals, and its end, with its last words."""

import os
import sys

import pytest

from edgebit.asked_process.process import AskedProcess
from edgebit.errors import EngineError

_WORKER = """
import os, sys
from edgebit.asked_process.serving import serve
from edgebit.errors import EngineError

class Worker:
    def __init__(self):
        print("a library says hello", flush=True)
    def double(self, value):
        return {"value": 2 * value}
    def refuse(self):
        raise EngineError("it will not")
    def end(self, code):
        print("last words", file=sys.stderr, flush=True)
        os._exit(code)
    def kill(self):
        os.kill(os.getpid(), 9)

serve(Worker, ("double", "refuse", "end", "kill"))
"""


@pytest.fixture
def process():
    with AskedProcess([sys.executable, "-c", _WORKER], 1) as asked:
        yield asked


def test_it_answers_and_refuses_and_goes_on(process):
    """What libraries print is no answer."""
    assert process.ask("double", value=4) == {"value": 8}
    with pytest.raises(EngineError, match="it will not"):
        process.ask("refuse")
    assert process.ask("double", value=5) == {"value": 10}


def test_its_end_is_told_with_its_last_words(process):
    with pytest.raises(EngineError, match=r"died \(end\): exit code 3: a library says hello last words"):
        process.ask("end", code=3)


def test_one_that_was_killed_may_have_lacked_memory(process):
    with pytest.raises(EngineError, match="out of memory"):
        process.ask("kill")


def test_nothing_of_it_stays():
    """Where its block ends by an error, it is ended in the middle of what it does."""
    sleeper = "import os, time; print('{\"pid\": %d}' % os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt), AskedProcess([sys.executable, "-c", sleeper], 1) as asked:
        pid = asked.ask("anything")["pid"]
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
