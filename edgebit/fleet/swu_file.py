"""An update for SWUpdate: a cpio archive (new ASCII, checksums) that begins with its description and its signature.

Source: cpio(5), "New CRC Format"; SWUpdate's documentation, "sw-description" and "Update images from verified source".
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from edgebit.bundle.part_file import PartFile
from edgebit.errors import BuildError

_CHUNK = 1 << 20
_SIZE_MAX = (1 << 32) - 1  # what eight hex digits hold
_END = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Content:
    """A file of the update."""

    name: str
    path: Path
    executable: bool = False


def write_swu(out: Path, description: str, contents: Sequence[Content], signer: tuple[Path, Path] | None) -> None:
    """Write the update; in `description`, @SHA256:NAME@ becomes the sum of the file NAME.

    signer: certificate and private key, PEM. Raises BuildError where a file is too large or cannot be signed with.
    """
    for content in contents:
        if content.path.stat().st_size > _SIZE_MAX:
            raise BuildError(f"{content.path} has 4 GiB or more, which an update for SWUpdate cannot hold")
        description = description.replace(f"@SHA256:{content.name}@", _sum(content.path))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "sw-description")
        plain.write_text(description, encoding="utf-8")
        first = [Content("sw-description", plain)]
        if signer is not None:
            first.append(Content("sw-description.sig", _signed(plain, *signer)))
        with PartFile(out, BuildError) as part:
            for number, content in enumerate([*first, *contents], 1):
                _write_entry(part.file, content, number)
            part.write(_header(_END, 0, 0, 0, 0))
            part.commit()


def _write_entry(file: IO[bytes], content: Content, number: int) -> None:
    size, checksum = content.path.stat().st_size, 0
    with content.path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            checksum += int(np.frombuffer(chunk, np.uint8).sum(dtype=np.uint64))
        file.write(_header(content.name, 0o100755 if content.executable else 0o100644, number, size, checksum))
        source.seek(0)
        shutil.copyfileobj(source, file, _CHUNK)
    file.write(bytes(-size % 4))


def _header(name: str, mode: int, number: int, size: int, checksum: int) -> bytes:
    encoded = name.encode("ascii") + b"\0"
    fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(encoded), checksum & _SIZE_MAX)
    header = b"070702" + b"".join(b"%08x" % field for field in fields) + encoded
    return header + bytes(-len(header) % 4)


def _signed(plain: Path, certificate: Path, key: Path) -> Path:
    if shutil.which("openssl") is None:
        raise BuildError("there is no openssl on this machine, which signs the update. Install it: apt install openssl")
    signature = plain.with_name("signature")
    argv = ["openssl", "cms", "-sign", "-in", str(plain), "-out", str(signature), "-signer", str(certificate)]
    argv += ["-inkey", str(key), "-outform", "DER", "-nosmimecap", "-binary"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BuildError(f"{certificate} and {key} cannot sign: {done.stderr.strip()[-300:]}")
    return signature


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
