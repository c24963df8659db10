"""A conversion that is broken off, by a signal or a full disk, leaves no half-made model file, and can be run again."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# `edgebit` that says "now" and waits: in the middle of the tensors, or when all is written but the golden probes.
_WAITING = """
import time
import edgebit.convert
from edgebit.bundle.model_writer import ModelWriter
from edgebit.cli import main

def wait(*arguments):
    print("now", flush=True)
    time.sleep(60)

def write_or_wait(writer, values, scales=(), write=ModelWriter.write_tensor):
    if writer.tensors[writer._next].layer == 1:
        wait()
    write(writer, values, scales)

"""
PLACES = {
    "tensors": "ModelWriter.write_tensor = write_or_wait",
    "probes": "edgebit.convert.compute_probes = wait",
}
CHECKPOINT = "bitnet-packed"


@contextmanager
def waiting_conversion(place: str, checkpoint: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """`edgebit convert`, when it has come to that place."""
    command = [sys.executable, "-c", f"{_WAITING}{PLACES[place]}\nmain()"]
    command += ["convert", str(checkpoint), "--out", str(out), "--force"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        assert out.with_name(f"{out.name}.part").is_file()
        yield process
    finally:
        process.kill()
        process.communicate()


def edgebit_convert(checkpoint: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgebit", "convert", str(checkpoint), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("hang_up_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_what_was_there(number, place, native, reference_checkpoint, tmp_path):
    """Exit code 130, no .part, and the model file of before as it was."""
    out = tmp_path / "model.ebm"
    out.write_bytes(b"the old one")
    with waiting_conversion(place, reference_checkpoint(CHECKPOINT), out) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "stopped" in said, "Traceback" in said) == (130, True, False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.ebm", b"the old one")]


@pytest.mark.parametrize("place", PLACES)
def test_after_a_kill_the_next_run_replaces_the_part(place, native, reference_checkpoint, reference_model, tmp_path):
    """Nothing under the final name after SIGKILL; then the same bytes as those of a conversion in one go."""
    out = tmp_path / "model.ebm"
    with waiting_conversion(place, reference_checkpoint(CHECKPOINT), out) as process:
        process.kill()
        process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["model.ebm.part"]

    done = edgebit_convert(reference_checkpoint(CHECKPOINT), out)

    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ebm"]
    assert out.read_bytes() == reference_model(CHECKPOINT).read_bytes()


@pytest.mark.parametrize("room", [5_000, 300_000])
def test_a_full_disk_leaves_nothing(room, native, reference_checkpoint, small_disk):
    """The file that has no room is named, exit code 19, at the first section and in the middle of a tensor."""
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 16))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - room)

    done = edgebit_convert(reference_checkpoint(CHECKPOINT), small_disk / "model.ebm", "--no-probes")

    assert done.returncode == 19
    assert "model.ebm.part: cannot be written: No space left on device" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
