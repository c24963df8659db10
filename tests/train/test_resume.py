"""A training that is killed at any step and gone on with is the training that was never killed, to the bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
import edgebit
from edgebit.errors import TrainError
from edgebit.train.training_state import newest_state, states, write_state

pytestmark = pytest.mark.reference
PROGRAM = Path(__file__).parents[1] / "sorting_training.py"


def training(folder: Path, last: int = 0) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(last)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{PROGRAM.parent}:{Path(edgebit.__file__).parents[1]}"},
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if last else 0), done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The losses of a training that nobody kills, and its folder."""
    folder = tmp_path_factory.mktemp("unbroken")
    lines = training(folder)
    assert len({line.split()[1] for line in lines}) == 12
    return lines, folder


@pytest.mark.parametrize("last", [2, 7, 9])
def test_losses_after_a_kill_are_those_of_a_training_never_killed(last, unbroken, tmp_path):
    """Killed before the first save, between two, and right at one before it is written."""
    lines, _ = unbroken
    assert training(tmp_path, last) == lines[:last]

    begun = (last - 1) // 3 * 3
    assert training(tmp_path) == lines[begun:]


def test_a_damaged_state_is_said_and_the_one_before_it_taken(unbroken, tmp_path):
    """One flipped bit is enough to be seen."""
    lines, folder = unbroken
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    newest = states(tmp_path)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)

    said, *after = training(tmp_path)
    assert said.startswith("noted:") and newest.name in said
    assert after == lines[9:]


def test_two_states_are_kept_and_no_part_of_a_third(tmp_path):
    """The last two."""
    for step in (1, 2, 30):
        write_state(tmp_path, step, {"step": step})

    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000002.state", "step-00000030.state"]
    assert newest_state(tmp_path, pytest.fail) == {"step": 30}


def test_states_that_are_all_damaged_are_refused(tmp_path):
    """With the way to begin anew; and none at all is none."""
    assert newest_state(tmp_path, pytest.fail) is None
    write_state(tmp_path, 1, {"step": 1})
    states(tmp_path)[0].write_bytes(b"")

    with pytest.raises(TrainError, match="every training state is damaged"):
        newest_state(tmp_path, lambda words: None)


def test_a_full_disk_is_said_and_leaves_the_states_before(small_disk):
    """A state that does not fit is not there in part."""
    write_state(small_disk, 1, {"step": 1})
    big = {"text": "x" * (64 << 20)}

    with pytest.raises(TrainError, match="No space left"):
        write_state(small_disk, 2, big)

    assert newest_state(small_disk, pytest.fail) == {"step": 1}
    assert not list(small_disk.glob("*.part"))
