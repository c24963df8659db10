"""Records on the disk: whatever becomes of the file, what is read back is what was written, up to some record."""

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.daemon.admission.record_file import HEAD, HEADER, STEP_BYTES, RecordFile, framed, whole_records

BODIES = st.lists(st.binary(min_size=1, max_size=60), max_size=6)


def bodies_of(content):
    return [content[span.offset : span.offset + span.size] for span in whole_records(content)]


@pytest.fixture
def file(tmp_path):
    file, _ = RecordFile.write(tmp_path / "records", [])
    yield file
    file.close()


@given(BODIES, st.data())
def test_a_cut_file_gives_a_prefix(written, data):
    content = HEADER + b"".join(map(framed, written))
    cut = data.draw(st.integers(0, len(content)))
    read = bodies_of(content[:cut])
    assert read == written[: len(read)]
    if cut == len(content):
        assert read == written


@given(BODIES, st.data())
def test_a_flipped_bit_gives_a_prefix(written, data):
    content = bytearray(HEADER + b"".join(map(framed, written)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read = bodies_of(bytes(content))
    assert read == written[: len(read)] and len(read) < max(1, len(written))


@given(BODIES, st.binary(max_size=200))
def test_garbage_behind_is_no_record(written, garbage):
    read = bodies_of(HEADER + b"".join(map(framed, written)) + garbage)
    assert read == written


@given(st.binary(max_size=200))
def test_any_file_can_be_read(content):
    assert bodies_of(content) == []


def test_what_is_appended_is_there_again(tmp_path):
    file, spans = RecordFile.write(tmp_path / "records", [b"first"])
    spans.append(file.append(b"second", beside=1000))
    file.sync()
    assert [file.read(span) for span in spans] == [b"first", b"second"]
    assert (tmp_path / "records").stat().st_size == STEP_BYTES, "room is laid in ahead"
    assert stat.S_IMODE((tmp_path / "records").stat().st_mode) == 0o600
    file.close()
    again, records, damaged = RecordFile.open(tmp_path / "records")
    assert ([body for _, body in records], damaged) == ([b"first", b"second"], 0)
    third = again.append(b"third")
    assert again.read(third) == b"third"
    again.close()


@pytest.mark.parametrize("tail", [b"\x07", framed(b"cut short")[:-2], b"\0" * 20 + b"stray", framed(b"x" * 90)[:40]])
def test_a_damaged_tail_is_cut_off_for_good(tmp_path, tail):
    """What stood behind the last whole record cannot become one with what is written later."""
    path = tmp_path / "records"
    path.write_bytes(HEADER + framed(b"whole") + tail)
    file, records, damaged = RecordFile.open(path)
    assert [body for _, body in records] == [b"whole"] and damaged
    assert path.read_bytes() == HEADER + framed(b"whole")
    file.append(b"x")
    file.close()
    assert bodies_of(path.read_bytes()) == [b"whole", b"x"]


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"another program's file"])
def test_a_file_that_is_none_of_ours_becomes_one(tmp_path, content):
    path = tmp_path / "records"
    path.write_bytes(content)
    file, records, damaged = RecordFile.open(path)
    assert (records, bool(damaged)) == ([], content.strip(b"\0") != b"")
    file.append(b"x")
    file.close()
    assert bodies_of(path.read_bytes()) == [b"x"]


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    """Room is asked for before anything is written, and what was laid in stays for those it was laid in for."""
    file.append(b"whole", beside=STEP_BYTES)
    before = file.path.read_bytes()

    def full(handle, begin, size):
        os.ftruncate(handle, begin + size // 2)  # some of it was there
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"x" * 100, beside=3 * STEP_BYTES)
    assert file.path.read_bytes() == before and file.trusted
    span = file.append_into_reserve(b"y" * STEP_BYTES)
    assert file.read(span) == b"y" * STEP_BYTES


def test_a_write_that_fails_half_way_is_cut_back(file, monkeypatch):
    file.append(b"whole")
    write = os.pwrite

    def broken(handle, data, at):
        if len(data) < 30:
            raise OSError(errno.EIO, "Input/output error")
        return write(handle, bytes(data[:20]), at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        with pytest.raises(OSError, match="Input/output"):
            file.append(b"x" * 30)
    assert bodies_of(file.path.read_bytes()) == [b"whole"]
    assert file.path.stat().st_size == file.end, "nothing of it is left"


def test_a_file_system_without_fallocate_gets_zeros(file, monkeypatch):
    def unknown(handle, begin, size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    file.append(b"x")
    assert file.path.stat().st_size == STEP_BYTES and bodies_of(file.path.read_bytes()) == [b"x"]


def test_a_failed_sync_is_not_trusted_again(file, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    assert not file.trusted


def test_a_record_that_has_rotted_is_not_read(file):
    span = file.append(b"whole")
    with file.path.open("r+b") as other:
        other.seek(span.offset)
        other.write(b"W")
    with pytest.raises(OSError, match="damaged"):
        file.read(span)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_rewrite_that_fails_leaves_the_old_file(file, monkeypatch, broken):
    file.append(b"old")

    def fail(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        RecordFile.write(file.path, [b"new"])
    assert bodies_of(file.path.read_bytes()) == [b"old"]
    assert [path.name for path in file.path.parent.iterdir()] == ["records"]


def test_the_head_is_eight_bytes():
    """docs and other readers count on it."""
    assert HEAD.size == 8 and framed(b"a")[:4] == b"\x01\0\0\0"
