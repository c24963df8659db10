"""Devices whose files say anything at all: every reading stays a figure that can be, or absent for a reason."""

import logging
import math
import os
import random
import shutil
from pathlib import Path

import pytest

from edgebit.daemon.config.sections import PowerConfig, SensorsConfig
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.kinds import sampler_of

ROOTS = Path(__file__).parents[1] / "roots"
DEVICES = sorted(path for path in ROOTS.iterdir() if path.is_dir())
CONTENTS = [
    *(b"", b"\n", b"nan\n", b"inf\n", b"-1\n", b"0\n", b"-0\n", b"1e400\n", b"0x10\n", b"None\n", b"1 2 3\n"),
    *(b"9" * 20, b"9" * 400, b"x" * 70_000, b"\0" * 10, b"\xff\xfe4\0", b"\x1b[2J\n", "٣\n".encode()),
    *(b"some avg10=nan avg60=0\n", b"some avg10=1e999 avg60=0.00 avg300=0.00 total=0\n"),
    b"MemTotal: -5 kB\nMemAvailable: 99999999999999999999999 kB\n",
]


def spoil(path, chance):
    """Other content, or something that is no file."""
    path.chmod(0o644)
    how = chance.random()
    if how < 0.75:
        path.write_bytes(chance.choice(CONTENTS))
        return
    path.unlink()
    if how < 0.8:
        path.mkdir()
    elif how < 0.85:
        os.mkfifo(path)
    elif how < 0.9:
        path.symlink_to(path)


@pytest.mark.parametrize("seed", range(40))
def test_no_file_breaks_a_sensor(tmp_path, caplog, seed):
    """Nor gets control characters, or a book, into what is published."""
    chance = random.Random(seed)
    root = tmp_path / "device"
    shutil.copytree(DEVICES[seed % len(DEVICES)], root, symlinks=True)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and "bin" not in path.parts]
    for path in chance.sample(files, min(len(files), chance.randint(1, 15))):
        spoil(path, chance)
    sampler = sampler_of(DeviceFiles(root), SensorsConfig(), PowerConfig(), tmp_path)
    with caplog.at_level(logging.ERROR):
        sampler.sample()
        sampler.sample()
    assert not caplog.records, caplog.text  # a fault of ours
    for reading in sampler.readings().values():
        assert (reading.value is None) == bool(reading.absent), reading
        assert reading.value is None or (math.isfinite(reading.value) and abs(reading.value) < 1e12), reading
        for words in (reading.source, reading.absent):
            assert words.isprintable() and len(words) < 400, reading
    sampler.close()
