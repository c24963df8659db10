"""The daemon with the fake model, as fake_daemon.py, for cases that wait for it: `slow` is 20 ms a token here, and it
comes back to a broker at once.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fake_daemon

from edgebit.daemon.app import Daemon, set_up_logging
from edgebit.daemon.config.reader import read_config
from edgebit.daemon.connection import backoff

if __name__ == "__main__":
    set_up_logging("debug")
    fake_daemon.SLOW_S = 0.02
    backoff.BASE_S = backoff.LEAST_S = backoff.CAP_S = 0.02
    config = read_config(Path(sys.argv[1]))
    sys.exit(Daemon(config, Path(sys.argv[2]), lambda: fake_daemon.FakeModel(config.engine.sequences)).run())
