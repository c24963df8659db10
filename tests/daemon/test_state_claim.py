"""A state folder has one daemon at a time."""

import os
import signal
import subprocess
import sys

import pytest
from mqtt_fixtures import IMPORTED, TESTS, WAIT_S

from edgebit.daemon.state_claim import NAME, StateClaim
from edgebit.errors import ConfigError

HOLD = """
import sys
from pathlib import Path
from edgebit.daemon.state_claim import StateClaim
claim = StateClaim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_daemon_is_told_who_has_the_folder(tmp_path):
    """Until the first one has closed it."""
    first = StateClaim(tmp_path / "state")
    with pytest.raises(ConfigError, match=rf"state is in use by another daemon, process {os.getpid()},"):
        StateClaim(tmp_path / "state")
    (tmp_path / "state" / NAME).write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match="in use by another daemon: end that one"):
        StateClaim(tmp_path / "state")
    first.close()
    StateClaim(tmp_path / "state").close()


def test_a_daemon_that_crashed_holds_nothing(tmp_path):
    """Its lock goes with its process, whatever its file says."""
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **IMPORTED}
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid},"):
            StateClaim(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(WAIT_S)
    StateClaim(tmp_path).close()


def test_a_folder_that_cannot_be_had_is_not_its_matter(tmp_path):
    """Who needs the folder says what is wrong with it."""
    (tmp_path / "file").touch()
    StateClaim(tmp_path / "file" / "state").close()


def test_the_daemon_ends_with_the_code_of_a_wrong_configuration(tmp_path):
    """Before it has touched anything else."""
    held = StateClaim(tmp_path / "state")
    config = tmp_path / "edgebitd.toml"
    config.write_text('[device]\nname = "pi"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n')
    (tmp_path / "bundle").mkdir()
    argv = [
        sys.executable,
        "-m",
        "edgebit.daemon",
        "run",
        "--bundle",
        str(tmp_path / "bundle"),
        "--config",
        str(config),
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **IMPORTED}, cwd=TESTS.parent
    )
    held.close()
    assert done.returncode == ConfigError.exit_code
    assert "is in use by another daemon" in done.stderr and "Traceback" not in done.stderr
    assert [file.name for file in (tmp_path / "state").iterdir()] == [NAME]
