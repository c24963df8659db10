"""What any command does when its output goes nowhere: no traceback, and no exit code 0."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (["targets"], ["--help"], ["completion", "bash"])


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0].strip("-"))
def test_a_full_disk_under_the_output_is_one_clear_line(arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgebit", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 1
    assert done.stderr == "Error: the output: the disk is full. Make room, and call it again\n"


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0].strip("-"))
def test_a_reader_that_went_away_is_no_traceback(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgebit", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert process.wait() == 1
    assert said == ""
