"""Deflated transfers, what they save and what may go wrong: the device's file is whole, or there is an error."""

import os
import random
import sys
import zlib
from pathlib import Path

import pytest

from edgebit.deploy import sending
from edgebit.deploy.sending import Sender, deflated_share
from edgebit.errors import DeployError, TransportError
from edgebit.transport import Section
from edgebit.transport.local import LocalTransport

TEXT = b"a line like the one before it, with a number: %d\n"


class Line(LocalTransport):
    """A folder of this machine behind a way with a rate, whose puts are counted and can be spoilt."""

    def __init__(self, root, bytes_per_s=None, spoil=lambda data: data):
        super().__init__(root)
        if bytes_per_s is not None:
            self.bytes_per_s = bytes_per_s
        self.spoil = spoil
        self.puts = []

    def put(self, source, remote, progress=None):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            data = file.read(source.size)
        self.puts.append((remote, len(data)))
        Path(remote).write_bytes(self.spoil(data))
        if progress is not None:
            progress(len(data))


@pytest.fixture
def text(tmp_path):
    """300 kB that deflate well, in the middle of a file, as in a bundle."""
    content = b"".join(TEXT % number for number in range(6000))
    (tmp_path / "bundle").write_bytes(os.urandom(1000) + content + os.urandom(1000))
    return Section(tmp_path / "bundle", 1000, len(content)), content


def send(line, section, tmp_path):
    told = []
    wire = Sender(line, sys.executable).send(section, str(tmp_path / "f.part"), section.size, told.append)
    return wire, told


def test_slow_line_gets_deflated_pieces(tmp_path, text, monkeypatch):
    """The file is the same there, less went over, progress adds up to the plain size, nothing else is left."""
    section, content = text
    monkeypatch.setattr(sending, "PIECE_BYTES", 100_000)
    line = Line(tmp_path, bytes_per_s=11_500)

    wire, told = send(line, section, tmp_path)

    assert (tmp_path / "f.part").read_bytes() == content
    assert wire == sum(size for _, size in line.puts) < len(content) / 3
    assert len(line.puts) == -(-len(content) // 100_000)
    assert sum(told) == len(content)
    assert not (tmp_path / "f.part.z").exists()


def test_cut_off_copy_goes_on(tmp_path, text, monkeypatch):
    """After the piece that was cut off, whatever its length."""
    section, content = text
    monkeypatch.setattr(sending, "PIECE_BYTES", 100_000)
    (tmp_path / "f.part").write_bytes(content[:123_456])
    line = Line(tmp_path, bytes_per_s=11_500)

    wire, told = send(line, section, tmp_path)

    assert (tmp_path / "f.part").read_bytes() == content
    assert len(line.puts) == 2
    assert wire < len(content[123_456:])
    assert told[0] == 123_456


def test_what_an_earlier_bundle_left_is_replaced(tmp_path, text):
    """A .part with other bytes in it is begun anew, and one that is too long is cut."""
    section, content = text
    (tmp_path / "f.part").write_bytes(b"x" * (len(content) + 5))

    send(Line(tmp_path, bytes_per_s=11_500), section, tmp_path)

    assert (tmp_path / "f.part").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "bytes_per_s"),
    [
        (random.Random(1).randbytes(200_000), 11_500),
        (b"short" * 10, 11_500),
        (b"a" * 200_000, 200e6),
        (b"a" * 200_000, None),
    ],
    ids=["noise", "too short", "fast line", "small file, unknown line"],
)
def test_what_does_not_pay_goes_as_it_is(tmp_path, content, bytes_per_s):
    """One put, of the plain bytes."""
    (tmp_path / "file").write_bytes(content)
    line = Line(tmp_path, bytes_per_s)

    wire, _ = send(line, Section(tmp_path / "file", 0, len(content)), tmp_path)

    assert wire == len(content)
    assert line.puts == [(str(tmp_path / "f.part"), len(content))]


def test_unknown_line_is_measured(tmp_path, monkeypatch, text):
    """With the first piece of a large file; then the rest goes deflated if it was slow."""
    section, content = text
    monkeypatch.setattr(sending, "PIECE_BYTES", 50_000)
    monkeypatch.setattr(sending, "SLOW_BYTES_S", 1e12)  # whatever this machine reaches is slow
    line = Line(tmp_path)

    wire, _ = send(line, section, tmp_path)

    assert (tmp_path / "f.part").read_bytes() == content
    assert line.puts[0] == (str(tmp_path / "f.part"), 50_000)
    assert all(name.endswith(".z") for name, _ in line.puts[1:])
    assert wire == sum(size for _, size in line.puts)


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-1], lambda data: data[:20] + b"?" + data[21:], lambda data: b"", lambda data: data + data,
], ids=["truncated", "flipped", "empty", "twice"])  # fmt: skip
def test_damaged_piece_is_noticed(tmp_path, text, spoil):
    """And thrown away, so that the next try sends it again; the file has no byte of it."""
    section, content = text
    line = Line(tmp_path, bytes_per_s=11_500, spoil=spoil)

    if spoil(b"ab") == b"abab":  # zlib reads one stream and leaves what stands behind it
        send(line, section, tmp_path)
        assert (tmp_path / "f.part").read_bytes() == content
        return
    with pytest.raises(DeployError, match="arrived damaged"):
        send(line, section, tmp_path)

    assert not (tmp_path / "f.part").exists()
    assert not (tmp_path / "f.part.z").exists()


def test_file_that_shrank_is_noticed(tmp_path, text):
    """Here, while it is read."""
    section, _ = text
    with section.path.open("r+b") as file:
        file.truncate(150_000)

    with pytest.raises((DeployError, TransportError), match="early"):
        send(Line(tmp_path, bytes_per_s=11_500), section, tmp_path)


def test_share_is_near_the_truth(tmp_path):
    """By samples over the whole: half noise, half zeros."""
    content = os.urandom(2_000_000) + bytes(2_000_000)
    (tmp_path / "file").write_bytes(content)

    share = deflated_share(Section(tmp_path / "file", 0, len(content)))

    assert abs(share - len(zlib.compress(content)) / len(content)) < 0.1
    assert deflated_share(Section(tmp_path / "file", 0, 0)) == 1.0
