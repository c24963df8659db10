"""Service: edgebitd.pyz, the daemon with everything it needs but Python and the native library, in one file.

The same sources and the same zlib give the same bytes on every machine: names sorted, dates fixed, nothing compiled.
"""

import ast
import importlib.metadata
import zipfile
from collections import deque
from pathlib import Path

from edgebit.bundle.part_file import PartFile
from edgebit.errors import BuildError
from edgebit.resources import package_dir

DISTRIBUTIONS = {"paho-mqtt": "paho", "pyserial": "serial"}  # distribution: its package
SHEBANG = b"#!/usr/bin/env python3\n"
PYTHON_LEAST = (3, 11)

_START = "__main__.py"
_LEVEL = 9  # of deflate
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_ROOTS = ("edgebit.daemon", "edgebit.daemon.__main__", "edgebit.daemon.install.agent")

# Stored plain, and read by Pythons far too old for the rest, so that each can say what it lacks.
_MAIN = f"""\
import sys

if sys.version_info < {PYTHON_LEAST}:
    sys.exit("edgebitd needs Python {PYTHON_LEAST[0]}.{PYTHON_LEAST[1]} or newer, %s is %d.%d. \
Install a newer python3 on this device." % (sys.executable, sys.version_info[0], sys.version_info[1]))
try:
    import zlib
except ImportError:
    sys.exit("edgebitd needs Python's module zlib, which %s lacks. \
Install a whole python3 on this device." % sys.executable)

from edgebit.daemon.__main__ import main

sys.exit(main())
"""


def build_pyz(out: Path) -> None:
    """Write edgebitd.pyz to `out`.

    Raises BuildError where paho-mqtt or pyserial are not installed.
    """
    entries = {_START: _MAIN.encode()}
    package = package_dir()
    for module in _edgebit_files(package):
        entries[f"edgebit/{module.relative_to(package).as_posix()}"] = module.read_bytes()
    for distribution, name in DISTRIBUTIONS.items():
        entries.update(_distribution_files(distribution, name))
    with PartFile(out, BuildError) as part:
        part.write(SHEBANG)
        with zipfile.ZipFile(part.file, "a") as archive:
            for name in sorted(entries):
                info = zipfile.ZipInfo(name, _DATE)
                info.create_system = 3  # Unix, whatever this runs on
                info.external_attr = 0o100644 << 16
                method = zipfile.ZIP_STORED if name == _START else zipfile.ZIP_DEFLATED
                archive.writestr(info, entries[name], method, _LEVEL)
        part.path.chmod(0o755)
        part.commit()


def _edgebit_files(package: Path) -> set[Path]:
    """The modules of edgebit that the daemon imports, anywhere, and the packages they lie in."""
    found: dict[str, Path] = {}
    left = deque(_ROOTS)
    while left:
        name = left.popleft()
        file = _module_file(package, name)
        if name in found or file is None:
            continue
        found[name] = file
        if "." in name:
            left.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
            if isinstance(node, ast.Import):
                left.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                left.append(node.module)
                left.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return set(found.values())


def _module_file(package: Path, name: str) -> Path | None:
    """Where a module of edgebit lies; None for other modules, and for names that are no module."""
    first, *rest = name.split(".")
    if first != "edgebit":
        return None
    place = package.joinpath(*rest)
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def _distribution_files(distribution: str, package: str) -> dict[str, bytes]:
    """The Python files of an installed distribution and its licences, by their names in the archive."""
    try:
        files = importlib.metadata.files(distribution) or []
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise BuildError(
            f"{distribution} is not installed, the daemon needs it. Run: pip install {distribution}"
        ) from None
    entries = {}
    for file in files:
        name, place = file.as_posix(), Path(str(file.locate()))
        if name.startswith(f"{package}/") and name.endswith(".py"):
            entries[name] = place.read_bytes()
        elif ".dist-info/" in name and any(word in place.name.upper() for word in ("LICENSE", "METADATA")):
            entries[f"licences/{distribution}-{version}/{place.name}"] = place.read_bytes()
    if f"{package}/__init__.py" not in entries:
        raise BuildError(
            f"{distribution} is installed without its files. Run: pip install --force-reinstall {distribution}"
        )
    return entries
