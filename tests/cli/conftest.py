"""What the tests of commands share."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def hang_up_is_heard() -> Iterator[None]:
    """Programs that a test starts hear SIGHUP, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
