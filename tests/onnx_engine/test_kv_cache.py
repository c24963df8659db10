"""What memory a KV cache that is appended to in place takes, and that it is given back."""

import os
import platform
from pathlib import Path

import pytest

from edgebit.onnx_engine.folder import OnnxFolder
from edgebit.onnx_engine.kv_cache import SharedCache
from edgebit.onnx_engine.session import OnnxSession

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
HEAD_BYTES = 2 << 20  # a head's keys of a whole context: as many as 2B-4T's of 4,096 tokens


@pytest.fixture
def session(hand_made):
    return OnnxSession.open(OnnxFolder.open(hand_made()), threads=1)


def taken_bytes(address: int) -> int | None:
    """Memory that the mapping at an address has, as Linux counts it; None: nothing is mapped there."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "Rss:":
            return 1024 * int(rest.split()[0])
    return None


@pytest.mark.skipif(platform.system() != "Linux", reason="reads what Linux says of a process's memory")
def test_a_token_takes_a_page_of_each_head_not_a_huge_one(session):
    """And all of it goes with the cache."""
    conf = session.folder.conf
    cache = SharedCache(session, HEAD_BYTES // (4 * conf.head_dim))
    heads = 2 * conf.n_layers * conf.n_kv_heads
    assert cache.held_bytes == heads * HEAD_BYTES
    address = cache._arrays[0].ctypes.data
    before = taken_bytes(address)
    for array in cache._arrays:
        array[:, :, 0] = 1
    assert 0 < taken_bytes(address) - before <= 2 * heads * os.sysconf("SC_PAGE_SIZE")
    del array, cache
    assert taken_bytes(address) is None


@pytest.mark.parametrize("bits", [48, 62])
def test_more_than_there_is_room_for_is_a_memory_error(session, bits):
    """Which the decoder says in its own words; beyond an address, and beyond a number of bytes."""
    with pytest.raises(MemoryError):
        SharedCache(session, 1 << bits)
