"""Zip files of compiled modules: tests start edgebitd.pyz some thousand times, and compiling it is most of that."""

import py_compile
import tempfile
import zipfile
from pathlib import Path


def add_compiled(archive: zipfile.ZipFile, name: str, source: bytes) -> None:
    """Put the module `name`, a path that ends in .py, into the archive, compiled for this Python."""
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder, "module.py")
        module.write_bytes(source)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compiled = py_compile.compile(str(module), f"{module}c", dfile=name, invalidation_mode=mode, doraise=True)
        archive.write(str(compiled), f"{name}c")
