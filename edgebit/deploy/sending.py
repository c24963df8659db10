"""How a file goes to the device: as it is, or deflated, piece by piece, where the way is slow enough for that to pay.

Whatever the way, the bytes end in the same FILE.part, which a cut-off copy leaves and the next one continues; sums are
over the plain bytes. A piece travels as FILE.part.z, by the transport's own put(), and is inflated on the device.
"""

import tempfile
import time
import zlib
from pathlib import Path

from edgebit.errors import DeployError
from edgebit.transport import Progress, Section, Transport, resume_at

PIECE_BYTES = 4 << 20  # inflated in memory on the device, and what a way of unknown speed is measured with
WORTH = 0.9  # what deflates to less than this share
SLOW_BYTES_S = 12e6  # a way faster than this carries plain bytes sooner than two small CPUs handle deflated ones
LEAST_BYTES = 4096  # a round trip costs more than a smaller file can save
_LEVEL = 6
_SAMPLES, _SAMPLE_BYTES = 8, 64 << 10

# The piece goes behind the bytes that are there; damaged, it is thrown away, so that the next try begins it anew.
_INFLATE = """
import os, sys, zlib
part, at, piece = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(piece, "rb") as file:
    deflated = file.read()
try:
    plain = zlib.decompress(deflated)
except zlib.error as error:
    os.unlink(piece)
    sys.exit("a piece arrived damaged (%s). Deploy again" % error)
with open(part, "r+b" if at else "wb") as out:
    out.seek(at)
    out.write(plain)
    out.truncate()
os.unlink(piece)
"""


def deflated_share(source: Section) -> float:
    """What part of its size the section deflates to, by samples over all of it."""
    if not source.size:
        return 1.0
    step = max(_SAMPLE_BYTES, source.size // _SAMPLES)
    plain = deflated = 0
    with source.path.open("rb") as file:
        for at in range(0, source.size, step):
            file.seek(source.offset + at)
            sample = file.read(min(_SAMPLE_BYTES, source.size - at))
            plain += len(sample)
            deflated += len(zlib.compress(sample, _LEVEL))
    return deflated / plain if plain else 1.0


class Sender:
    """Sends files over one transport, and learns how fast it is. `python` is the device's."""

    def __init__(self, transport: Transport, python: str) -> None:
        self._transport = transport
        self._python = python
        self._bytes_s = transport.bytes_per_s

    def send(self, source: Section, part: str, plain_bytes: int, progress: Progress) -> int:
        """Bring `source` into the device's file `part`, of which it lacks `plain_bytes`; gives the bytes on the way.

        Raises TransportError where the way fails, DeployError where a piece arrives damaged.
        """
        if source.size >= LEAST_BYTES and deflated_share(source) < WORTH:
            measured = 0
            if self._bytes_s is None and plain_bytes > 2 * PIECE_BYTES:
                measured = self._measure(source, part)
            if self._bytes_s is not None and self._bytes_s < SLOW_BYTES_S:
                return measured + self._send_deflated(source, part, progress)
        self._transport.put(source, part, progress)
        return plain_bytes

    def _measure(self, source: Section, part: str) -> int:
        """Send one piece more than is there, plain, and take the time; gives its bytes."""
        done = resume_at(self._transport, source, part)
        if done + PIECE_BYTES > source.size:
            return 0
        began = time.monotonic()
        self._transport.put(Section(source.path, source.offset, done + PIECE_BYTES), part)
        self._bytes_s = PIECE_BYTES / max(time.monotonic() - began, 1e-6)
        return PIECE_BYTES

    def _send_deflated(self, source: Section, part: str, progress: Progress) -> int:
        done = resume_at(self._transport, source, part)
        if done:
            progress(done)
        on_the_way = 0
        with source.path.open("rb") as file, tempfile.TemporaryDirectory(prefix="eb-send-") as folder:
            file.seek(source.offset + done)
            while done < source.size:
                plain = file.read(min(PIECE_BYTES, source.size - done))
                if not plain:
                    raise DeployError(f"{source.path} ends {source.size - done} bytes early: it changed. Deploy again")
                piece = Path(folder, "piece")
                piece.write_bytes(zlib.compress(plain, _LEVEL))
                size = piece.stat().st_size
                self._transport.put(Section(piece, 0, size), f"{part}.z")
                inflated = self._transport.run(
                    [self._python, "-c", _INFLATE, part, str(done), f"{part}.z"], timeout_s=600
                )
                if inflated.code:
                    raise DeployError(f"{part} on the device: {inflated.stderr.strip() or f'code {inflated.code}'}")
                done += len(plain)
                on_the_way += size
                progress(len(plain))
        return on_the_way
