"""The history on disk: bounded, in batches, and readable whatever was cut, damaged or refused."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebit.daemon.monitoring.history import SUFFIX, History, Record, read_records
from edgebit.daemon.monitoring.timeline import Moment

BOOT = b"b" * 16


def record(number, **values):
    return Record(Moment(BOOT, float(number), 1e9 + number), {"a": float(number), **values})


def history(folder, *, records=100, max_bytes=1 << 20, batch=1, columns=("a", "b")):
    return History(folder, columns, records=records, max_bytes=max_bytes, batch=batch)


def numbers(folder):
    return [entry.values["a"] for entry in read_records(folder)]


def test_records_come_back_as_they_went_in(tmp_path):
    """With their clocks; what was not known is not 0."""
    kept = history(tmp_path / "h")
    kept.add(record(1, b=None))
    kept.add(record(2, b=0.0))

    found = list(read_records(tmp_path / "h"))

    assert [entry.values for entry in found] == [{"a": 1.0, "b": None}, {"a": 2.0, "b": 0.0}]
    assert found[0].at == Moment(BOOT, 1.0, 1e9 + 1)


def test_records_are_written_in_batches(tmp_path):
    """A memory card sees one write for many records; those that wait are read as well."""
    kept = history(tmp_path, batch=3)
    for number in range(5):
        kept.add(record(number))
    assert numbers(tmp_path) == [0, 1, 2]
    assert [entry.values["a"] for entry in kept.read()] == [0, 1, 2, 3, 4]
    kept.flush()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]


def test_space_is_bounded(tmp_path):
    """By bytes, whatever is asked for; the newest records stay."""
    kept = history(tmp_path, records=10**6, max_bytes=65536, batch=50)
    largest = 0
    for number in range(2500):
        kept.add(record(number))
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    found = numbers(tmp_path)
    assert largest <= 65536
    assert found == list(range(2500 - len(found), 2500)) and len(found) > 1000


def test_no_more_is_kept_than_asked_for(tmp_path):
    """A segment beyond the records asked for at most."""
    kept = history(tmp_path, records=1000, batch=25)
    for number in range(2500):
        kept.add(record(number))
    assert 1000 <= len(numbers(tmp_path)) <= 1000 + 1000 // 8 * 2


@given(cut=st.integers(0, 400))
@settings(max_examples=25, deadline=None)
def test_a_file_cut_anywhere_loses_its_end_only(tmp_path_factory, cut):
    """As after a power cut; and what is added afterwards is found."""
    folder = tmp_path_factory.mktemp("h")
    kept = history(folder)
    for number in range(5):
        kept.add(record(number))
    (path,) = folder.iterdir()
    os.truncate(path, max(0, path.stat().st_size - cut))

    left = numbers(folder)
    assert left == list(range(len(left)))

    after = history(folder)
    after.add(record(99))
    assert numbers(folder) == [*left, 99]


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_costs_one_record_or_one_segment(tmp_path_factory, position, bit):
    """Never a wrong figure: what is damaged is left out."""
    folder = tmp_path_factory.mktemp("h")
    kept = history(folder)
    for number in range(5):
        kept.add(record(number))
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)
    left = numbers(folder)
    assert len(left) in (0, 4) and set(left) <= {0, 1, 2, 3, 4}


def test_garbage_in_the_folder_is_no_history(tmp_path):
    """Other files, empty ones, headers that promise what is not there."""
    (tmp_path / f"1{SUFFIX}").write_bytes(b"")
    (tmp_path / f"2{SUFFIX}").write_bytes(b"EBHIST1\n" + b"\xff" * 12)
    (tmp_path / f"x{SUFFIX}").write_bytes(b"?")
    (tmp_path / "readme").write_text("?")
    assert numbers(tmp_path) == []
    history(tmp_path).add(record(1))
    assert numbers(tmp_path) == [1]


def test_other_columns_begin_a_new_segment(tmp_path):
    """After an update that has more figures, the old ones can still be read."""
    history(tmp_path).add(record(1, b=2.0))
    history(tmp_path, columns=("a", "c")).add(record(2, c=3.0))
    assert [entry.values for entry in read_records(tmp_path)] == [{"a": 1.0, "b": 2.0}, {"a": 2.0, "c": 3.0}]


def test_a_full_disk_is_said_once_and_waited_out(tmp_path, monkeypatch, caplog):
    """Nothing raises; records wait in memory, and are written when there is room again."""
    kept = history(tmp_path)
    kept.add(record(1))
    real = os.write

    def full(handle, data):
        real(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        kept.add(record(2))
        kept.add(record(3))
    assert kept.fault is not None and "No space left" in kept.fault
    assert numbers(tmp_path) == [1]
    assert len([line for line in caplog.messages if "not written" in line]) == 1

    kept.add(record(4))
    assert kept.fault is None
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_a_disk_that_stays_full_costs_bounded_memory(tmp_path, monkeypatch):
    """The oldest records that wait go."""
    kept = history(tmp_path, batch=20)
    monkeypatch.setattr(os, "write", lambda handle, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    for number in range(1000):
        kept.add(record(number))
    waiting = [entry.values["a"] for entry in kept.read()]
    assert len(waiting) == 240 and waiting[-1] == 999


def test_a_really_full_disk(small_disk):
    """On a file system of its own, filled to the last byte."""
    kept = history(small_disk / "h")
    kept.add(record(1))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"x" * 65536)
    for number in range(2, 400):
        kept.add(record(number))
    assert kept.fault is not None
    filler.unlink()
    kept.flush()
    assert kept.fault is None and numbers(small_disk / "h")[-1] == 399
