"""A stand-in for an Android NDK: its folders and names, this machine's clang, and a sysroot made of cross/android.

It shows that the NDK builder's commands and toolchain file agree with clang's own driver for Android. It is no NDK, and
nothing of one is in it.
"""

import shutil
import subprocess
from pathlib import Path

from edgebit.resources import cross_dir

HEADERS = (
    "errno fcntl limits pthread sched signal stdarg stddef stdint stdio stdlib string sys/auxv sys/mman sys/resource"
    " sys/stat time unistd"
)


def make_fake_ndk(folder: Path, *, clang: str | None = None, version: str = "28.2.1", levels: str = "24") -> Path:
    """The stand-in in `folder`; without `clang`, one whose compiler only says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.properties").write_text(f"Pkg.Desc = Android NDK\nPkg.Revision = {version}\n")
    host = folder / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64"
    (host / "bin").mkdir(parents=True)
    for level in levels.split():
        libraries = host / "sysroot" / "usr" / "lib" / "aarch64-linux-android" / level
        libraries.mkdir(parents=True)
        if clang is not None:
            _fill(host, libraries, clang, level)
    program = host / "bin" / "clang"
    start = f'here=$(dirname "$0")/..; exec {clang} --sysroot="$here/sysroot" -resource-dir="$here/lib/clang" "$@"'
    program.write_text(f"#!/bin/sh\n{start if clang else 'echo clang 19'}\n")
    program.chmod(0o755)
    return folder


def _fill(host: Path, libraries: Path, clang: str, level: str) -> None:
    android, include = cross_dir() / "android", host / "sysroot" / "usr" / "include"
    for header in HEADERS.split():
        if header not in ("limits", "stdarg", "stddef", "stdint"):  # the compiler's own
            (include / header).parent.mkdir(parents=True, exist_ok=True)
            (include / f"{header}.h").write_text("#include <bionic.h>\n")
    shutil.copy(android / "bionic.h", include)
    target = [clang, f"--target=aarch64-linux-android{level}", "-ffreestanding", "-fPIC", "-nostdlib", "-fuse-ld=lld"]
    empty = libraries / "empty.c"
    empty.write_text("")
    libc = libraries / "libc.c"  # a compiler that knows printf() writes puts() for it
    libc.write_text(f'#include "{android}/bionic_stub.c"\nFUNCTION(puts)\n')
    start = [*target, f"-DEB_API_LEVEL={level}", "-c", str(android / "bionic_start.c"), "-o"]
    commands = [[*start, str(libraries / "crtbegin_dynamic.o")]]
    commands += [
        [*target, "-c", str(empty), "-o", str(libraries / name)]
        for name in ("crtend_android.o", "crtbegin_so.o", "crtend_so.o")
    ]
    script = f"-Wl,--version-script={android / 'bionic.map'}"
    commands += [
        [*target, "-shared", f"-Wl,-soname,{name}.so", script, source, "-o", str(libraries / f"{name}.so")]
        for name, source in (("libc", str(libc)), ("libdl", str(empty)), ("libm", str(empty)))
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    for archive in ("libgcc.a", "libunwind.a"):
        (libraries / archive).write_bytes(b"!<arch>\n")
    own = subprocess.run([clang, "-print-resource-dir"], check=True, capture_output=True, text=True).stdout.strip()
    (host / "lib").mkdir()
    (host / "lib" / "clang").mkdir()
    (host / "lib" / "clang" / "include").symlink_to(Path(own) / "include")
