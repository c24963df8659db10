"""Files of adapters on the disk: whole or not there, and known when they are damaged."""

import errno
import hashlib
import os

import pytest

from edgebit.daemon.adapters.store import AdapterStore
from edgebit.daemon.contract.messages import Refusal


def put(store, name, data):
    store.put(name, hashlib.sha256(data).hexdigest(), data)


def held(store):
    return {stored.name: stored.data for stored in store.read()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "adapters"


@pytest.fixture
def store(folder):
    return AdapterStore(folder)


def test_what_was_put_is_read_again(store, folder):
    """By another store too, in order of names; the folder is the owner's alone."""
    assert held(store) == {}
    put(store, "garage", b"one")
    put(store, "a.b-c", b"two")
    assert list(held(AdapterStore(folder)).items()) == [("a.b-c", b"two"), ("garage", b"one")]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_of_a_name(store, folder):
    """A new file takes the place of the one before; names that begin alike are others."""
    put(store, "garage", b"one")
    put(store, "garage2", b"other")
    put(store, "garage", b"two")
    assert held(store) == {"garage": b"two", "garage2": b"other"}
    assert len(list(folder.iterdir())) == 2
    store.remove("garage")
    assert held(store) == {"garage2": b"other"}
    store.remove("garage")


def test_a_power_cut_between_new_and_old(store, folder):
    """Both are there: the newer one counts, and the older one goes."""
    put(store, "garage", b"old")
    old = next(folder.iterdir())
    kept = old.read_bytes()
    put(store, "garage", b"new")
    old.write_bytes(kept)
    os.utime(old, ns=(1, 1))
    assert held(store) == {"garage": b"new"}
    assert not old.exists()


def test_a_half_made_file_goes(store, folder):
    """What a crash has left of a file is no adapter."""
    put(store, "garage", b"one")
    (folder / f"lamp@{'0' * 64}.part").write_bytes(b"ha")
    assert held(store) == {"garage": b"one"}
    assert len(list(folder.iterdir())) == 1


def test_a_damaged_file_is_put_aside(store, folder, caplog):
    """It is not loaded, not deleted, and the log says why; the others are there."""
    put(store, "garage", b"one")
    put(store, "lamp", b"two")
    path = next(path for path in folder.iterdir() if path.name.startswith("garage@"))
    path.write_bytes(b"One")
    assert held(store) == {"lamp": b"two"}
    assert "damaged" in caplog.text and "garage@" in caplog.text
    assert path.with_name(path.name + ".damaged").read_bytes() == b"One"
    assert held(store) == {"lamp": b"two"}, "and at the next start it is not looked at again"


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "storage_full"), (errno.EIO, "storage_fault")])
def test_a_disk_that_takes_nothing(store, folder, monkeypatch, number, code):
    """The caller hears of it, the one before stays, and nothing half made does."""
    put(store, "garage", b"one")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Refusal) as refused:
        put(store, "garage", b"two")
    assert (refused.value.status, refused.value.code) == (503, code)
    monkeypatch.undo()
    assert held(store) == {"garage": b"one"}
    assert len(list(folder.iterdir())) == 1


def test_a_disk_from_which_nothing_can_be_taken(store, folder, monkeypatch, caplog):
    """A device on a disk that has become read-only starts, with the adapters that can be read."""
    put(store, "garage", b"one")
    put(store, "lamp", b"two")
    damaged = next(path for path in folder.iterdir() if path.name.startswith("garage@"))
    damaged.write_bytes(b"One")
    (folder / f"half@{'0' * 64}.part").write_bytes(b"")

    def fail(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(type(folder), "unlink", fail)
    monkeypatch.setattr(type(folder), "replace", fail)
    assert held(store) == {"lamp": b"two"}
    assert "cannot be removed" in caplog.text and "cannot be put aside" in caplog.text
