"""Where things lie: what ships with edgebit, in a checkout and in a wheel, and the user's own folders.

The only module that computes paths from its own place.
"""

import os
import sys
from pathlib import Path

from edgebit.errors import EngineError, OnnxError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent
_IS_CHECKOUT = (_CHECKOUT / "kernels" / "CMakeLists.txt").is_file()
_DATA = _CHECKOUT if _IS_CHECKOUT else _PACKAGE / "_data"

_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
SONAME, ORT_SONAME = "libedgebit.so", "libedgebit_ort.so"  # what they are called on a device, and in their ELF
LIBRARY_NAME, ORT_LIBRARY_NAME = (str(Path(name).with_suffix(_SUFFIX)) for name in (SONAME, ORT_SONAME))  # here


def targets_dir() -> Path:
    """The folder of target descriptions that ship with edgebit."""
    return _DATA / "targets"


def cross_dir() -> Path:
    """The folder of toolchain files and cross images."""
    return _DATA / "cross"


def kernels_dir() -> Path:
    """The C sources of the engine, with their CMakeLists.txt."""
    return _DATA / "kernels"


def assistant_model_dir() -> Path:
    """The checkpoint that ships with edgebit."""
    return _PACKAGE / "assistant_model"


def evaluation_text() -> Path:
    """The text that ships for `edgebit eval`; its licence lies beside it."""
    return _PACKAGE / "evaluate" / "corpus" / "winters_tale.txt"


def package_dir() -> Path:
    """The edgebit package itself: what goes into the daemon's one file."""
    return _PACKAGE


def config_dir() -> Path:
    """The user's own: targets, keys, the inventory of a fleet. $XDG_CONFIG_HOME/edgebit, by default in ~/.config."""
    return _user_folder("XDG_CONFIG_HOME", ".config")


def cache_dir() -> Path:
    """What can be made again, such as native files of earlier builds and zig's own libc: safe to delete."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def _user_folder(variable: str, default: str) -> Path:
    """As the XDG Base Directory Specification has it, which says to ignore a relative path."""
    named = os.environ.get(variable, "")
    return (Path(named) if named.startswith("/") else Path.home() / default) / "edgebit"


def native_library() -> Path:
    """The engine built for this machine; the environment's EDGEBIT_LIBRARY goes first.

    Raises EngineError where there is none.
    """
    return _built("EDGEBIT_LIBRARY", LIBRARY_NAME, "native library", EngineError)


def ort_library() -> Path:
    """The operators for ONNX Runtime built for this machine; the environment's EDGEBIT_ORT_LIBRARY goes first.

    Raises OnnxError where there is none.
    """
    return _built("EDGEBIT_ORT_LIBRARY", ORT_LIBRARY_NAME, "library of ONNX operators", OnnxError)


def _built(variable: str, name: str, what: str, error: type[EngineError | OnnxError]) -> Path:
    named = os.environ.get(variable)
    if named:
        if Path(named).is_file():
            return Path(named)
        fault = "that is no file" if Path(named).exists() else "there is no such file"
        raise error(f"{variable} names {named}, and {fault}. Correct it, or unset it")
    built = _CHECKOUT / "build" / "host" / name if _IS_CHECKOUT else _PACKAGE / "_native" / name
    if built.is_file():
        return built
    mend = (
        "cmake -S kernels -B build/host && cmake --build build/host"
        if _IS_CHECKOUT
        else "pip install --force-reinstall edgebit"
    )
    raise error(f"the {what} is missing: {built}. Build it: {mend}")
