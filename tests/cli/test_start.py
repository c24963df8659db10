"""The command from its first moment on."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

_INTERRUPTED = """
import runpy, sys

_, loading, *arguments = sys.argv

class Interrupting:
    def find_spec(self, name, *_):
        if name == loading:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.argv = ["edgebit", *arguments]
runpy.run_module("edgebit", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("loading", ["edgebit.cli", "click", "edgebit.cli.targets"])
def test_ctrl_c_while_it_loads_is_no_traceback(loading):
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, loading, "targets"], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\nstopped\n")


def test_the_installed_command_is_the_one_that_catches_it():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["scripts"]["edgebit"] == "edgebit.__main__:main"
