"""Which signals end a command as Ctrl-C does; that nothing stays behind is tested with each command."""

import signal

import pytest

from edgebit.cli.ending_signals import signals_as_ctrl_c

ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def own_signals():
    """As a terminal starts a program; what stood before is there again after."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_it_ends_as_by_ctrl_c(number):
    signals_as_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_under_nohup_a_terminal_that_goes_away_ends_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals_as_ctrl_c()
    signal.raise_signal(signal.SIGHUP)
