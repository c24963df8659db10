"""The device is this machine: everything under one folder. For trying edgebit out, for gateways, and for tests."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

from edgebit.errors import TransportError
from edgebit.transport import Completed, Options, Progress, Section, Transport

_CHUNK = 1 << 20


class LocalTransport(Transport):
    """local:FOLDER. Paths are this machine's own."""

    def __init__(self, root: Path) -> None:
        self.url = f"local:{root}"
        self.root = str(root.absolute())

    @classmethod
    def from_url(cls, url: str, options: Options) -> Self:
        """Raises TransportError where the URL names no folder."""
        folder = options.root or url.removeprefix("local:")
        if not folder or folder.startswith("//"):
            raise TransportError(f"{url!r} names no folder. Write local:FOLDER, such as local:./device")
        return cls(Path(folder).expanduser())

    def run(self, argv: Sequence[str], *, input: bytes | None = None, timeout_s: float = 60) -> Completed:
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL if input is None else None,
                input=input,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TransportError(f"{argv[0]} on this machine did not end within {timeout_s:g} s") from None
        except OSError as error:
            raise TransportError(f"{argv[0]} cannot be run on this machine: {error.strerror or error}") from error
        return Completed(
            done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"), done.returncode
        )

    def put(self, source: Section, remote: str, progress: Progress | None = None) -> None:
        try:
            with source.path.open("rb") as reader, Path(remote).open("wb") as writer:
                reader.seek(source.offset)
                _copy(reader, writer, source, progress)
        except OSError as error:
            raise TransportError(f"{remote} cannot be written: {error.strerror or error}") from error

    def get(self, remote: str, local: Path) -> None:
        try:
            with Path(remote).open("rb") as reader, local.open("xb") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
        except OSError as error:
            raise TransportError(f"{remote} cannot be copied to {local}: {error.strerror or error}") from error

    def close(self) -> None:
        """Nothing is held open."""


def _copy(reader: IO[bytes], writer: IO[bytes], source: Section, progress: Progress | None) -> None:
    left = source.size
    while left:
        chunk = reader.read(min(_CHUNK, left))
        if not chunk:
            raise TransportError(f"{source.path} ends {left} bytes early: it changed while it was read")
        writer.write(chunk)
        left -= len(chunk)
        if progress is not None:
            progress(len(chunk))
