"""Finds an Android NDK on this machine."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebit.errors import BuildError
from edgebit.targets import Target


@dataclass(frozen=True, slots=True)
class Ndk:
    """An Android NDK on this machine."""

    clang: Path
    version: str  # "28.0.13004108"


def find_ndk(target: Target, environment: Mapping[str, str] = os.environ) -> Ndk:
    """The NDK that ANDROID_NDK_HOME or ANDROID_NDK_ROOT names. Raises BuildError where it is none or cannot serve."""
    if not target.is_android:
        raise BuildError(f"--builder ndk builds for Android, and {target.name} is none. Use --builder zig or system")
    variable = next((name for name in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT") if environment.get(name)), None)
    if variable is None:
        raise BuildError(
            "--builder ndk needs the Android NDK: install it (developer.android.com/ndk/downloads) and name its folder"
            " in ANDROID_NDK_HOME. Or use --builder zig, which needs no NDK"
        )
    folder = Path(environment[variable])
    mend = f"Name the folder of an NDK, with source.properties in it, in {variable}"
    try:
        properties = (folder / "source.properties").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BuildError(f"{variable} names {folder}, which is no NDK: it has no source.properties. {mend}") from None
    version = re.search(r"^Pkg\.Revision\s*=\s*([0-9.]+)", properties, re.MULTILINE)
    if version is None:
        raise BuildError(f"{folder / 'source.properties'} names no Pkg.Revision. {mend}")
    clang = next(iter(sorted(folder.glob("toolchains/llvm/prebuilt/*/bin/clang"))), None)
    if clang is None:
        raise BuildError(f"{folder} has no toolchains/llvm/prebuilt/*/bin/clang. Install the NDK again")
    libraries = clang.parents[1] / "sysroot" / "usr" / "lib" / f"{target.arch}-linux-android" / str(target.api_level)
    if not libraries.is_dir():
        levels = sorted(int(path.name) for path in libraries.parent.glob("[0-9]*") if path.name.isdecimal())
        has = f"it has {', '.join(map(str, levels))}" if levels else "it has none"
        raise BuildError(
            f"the NDK {version[1]} has no API level {target.api_level} for {target.arch}; {has}. Take another NDK, or"
            f" another api_level in the target's file"
        )
    return Ndk(clang, version[1])
