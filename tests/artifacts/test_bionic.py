"""What Android's loader and libc demand: each rule passes a sound file and refuses one with that thing wrong.

The files of the first tests are written here; those of the last are what others built for Android, most with the NDK.
"""

import dataclasses
import random
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit import elf
from edgebit.artifacts import check_for_android, check_program
from edgebit.bionic import LINKER
from edgebit.checks import Check
from edgebit.elf import Note, read_elf
from edgebit.errors import BuildError
from edgebit.resources import cross_dir
from edgebit.targets import find_target
from tests.artifacts.elf_writer import DATA_AT, ElfFile

ANDROID = find_target("android")
PROGRAM = {"interpreter": LINKER, "soname": None, "imported": (("puts", "LIBC"), ("__libc_init", "LIBC"))}


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if check.status == "failed"}


def check(data: bytes, *, api_level: int = 24) -> dict[str, str]:
    """What fails of a library or program for Android of this level."""
    return failed(check_for_android(data, dataclasses.replace(ANDROID, api_level=api_level), name="x"))


def test_sound_files_pass():
    """A library and a program as an NDK makes them."""
    assert check(ElfFile().to_bytes()) == {}
    assert check(ElfFile(**PROGRAM).to_bytes()) == {}
    assert failed(check_program(ElfFile(**PROGRAM, align=65536).to_bytes(), ANDROID)) == {}


BAD = {
    "no SONAME": ({"soname": None}, "SONAME", "demands one"),
    "sections stripped": ({"section_headers": (0, 0, 0)}, "section headers", "stripped: refused from API level 24"),
    "e_shentsize": ({"section_headers": (3, 0, 2)}, "section headers", "entries of 0 bytes instead of 64"),
    "section names": ({"section_headers": (3, 64, 3)}, "section headers", "section 3 of 3"),
    "no section names": ({"section_headers": (3, 64, 0)}, "section headers", "section 0 of 3"),
    "path": ({"needed": ("libc.so", "/home/me/libx.so")}, "libraries of Android", "'/home/me/libx.so' is a path"),
    "folder": ({"needed": ("libc.so", "lib/libx.so")}, "libraries of Android", "is a path"),
    "private": ({"needed": ("libc.so", "libcutils.so")}, "libraries of Android", "libcutils.so is no library"),
    "glibc's": ({"needed": ("libc.so.6",)}, "libraries of Android", "libc.so.6 is no library"),
    "too new library": ({"needed": ("libc.so", "libaaudio.so")}, "libraries of Android", "API level 26"),
    "RPATH": ({"rpath": "$ORIGIN"}, "library folders", "Android does not read"),
    "RUNPATH": ({"run_path": "$ORIGIN:/build/lib"}, "library folders", "'/build/lib' is a folder of the build machine"),
    "no hash table": ({"gnu_hash": False}, "hash table", "finds no symbol"),
    "RELR": ({"dynamic": ((elf.DT_RELR, 0),)}, "packed relocations", "from API level 30 on"),
    "Android's RELR": ({"dynamic": ((elf.DT_ANDROID_RELR, 0),)}, "packed relocations", "from API level 28 on"),
    "thread-local data": ({"tls": True}, "thread-local data of Android", "from API level 29 on"),
    "RELRO": ({"relro": (DATA_AT, 16)}, "RELRO ends with a page", "ends at 0x10010 and data goes on"),
    "too new function": ({"imported": (("getrandom", "LIBC"),)}, "functions of Android's libc", "level 28"),
    "too new version": ({"imported": (("some", "LIBC_Q"),)}, "functions of Android's libc", "level 29"),
    "no version": ({"imported": (("memfd_create", None),)}, "functions of Android's libc", "level 30"),
    "glibc": ({"imported": (("puts", "GLIBC_2.17"),)}, "functions of Android's libc", "GLIBC_2.17, which is not"),
    "too new": ({"notes": (Note("Android", 1, b"\x1d\0\0\0"),)}, "API level", "made for API level 29"),
    "text relocations": ({"dynamic": ((elf.DT_TEXTREL, 0),)}, "no text relocations", "TEXTREL"),
    "4 KB pages": ({"align": 0x1000}, "page alignment", "aligned to 4096, 16384 is needed"),
    "other machine": ({"machine": 62}, "architecture", "x86_64"),
    "no PIE": (PROGRAM | {"type": elf.ET_EXEC}, "Android's loader", "not position-independent"),
    "Linux' loader": (PROGRAM | {"interpreter": "/lib/ld-linux-aarch64.so.1"}, "Android's loader", "its loader is /"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_fails_its_rule(name):
    """That rule and no other."""
    wrong, rule, promised = BAD[name]

    found = check(ElfFile(**wrong).to_bytes())

    assert list(found) == [rule]
    assert promised in found[rule]


@pytest.mark.parametrize(
    ("wrong", "api_level"),
    [
        ({"needed": ("libc.so", "libaaudio.so")}, 26),
        ({"dynamic": ((elf.DT_ANDROID_RELR, 0),)}, 28),
        ({"dynamic": ((elf.DT_RELR, 0),)}, 30),
        ({"tls": True}, 29),
        ({"imported": (("getrandom", "LIBC"),)}, 28),
        ({"imported": (("some", "LIBC_Q"),)}, 29),
        ({"notes": (Note("Android", 1, b"\x1d\0\0\0"),)}, 29),
    ],
)
def test_a_newer_android_may_have_it(wrong, api_level):
    """From the named level on, and not one earlier."""
    assert check(ElfFile(**wrong).to_bytes(), api_level=api_level) == {}
    assert len(check(ElfFile(**wrong).to_bytes(), api_level=api_level - 1)) == 1


def test_what_is_allowed_passes():
    """RELRO to a page's end or over all that is writable, weak imports, an app's own names, its own folder."""
    assert check(ElfFile(relro=(DATA_AT, 0x4000), data_size=0x5000).to_bytes()) == {}
    assert check(ElfFile(relro=(DATA_AT, 64)).to_bytes()) == {}
    assert check(ElfFile(weak=("getrandom",), imported=(("napi_throw", None),)).to_bytes()) == {}
    assert check(ElfFile(run_path="$ORIGIN/../lib:/data/data/com.termux/files/usr/lib").to_bytes()) == {}
    assert check(ElfFile(gnu_hash=False, hash=True).to_bytes()) == {}


def test_relro_is_judged_by_the_largest_page():
    """The end of a 4 KB page is not one of a 16 KB page."""
    data = ElfFile(relro=(DATA_AT, 0x1000), data_size=0x1010).to_bytes()

    assert "16 KB" in check(data)["RELRO ends with a page"]
    small = dataclasses.replace(ANDROID, page_kib=4)
    assert "RELRO ends with a page" not in failed(check_for_android(data, small, name="x"))


def test_static_program_passes_unless_glibc_is_inside():
    """musl's system calls are all allowed to an app; glibc's are not."""
    static = {"type": elf.ET_EXEC, "needed": (), "imported": (), "exported": (), "align": 65536, "soname": None}
    glibc = Note("GNU", 1, bytes(16))

    musl = check_program(ElfFile(**static, hash=True, notes=()).to_bytes(), ANDROID)
    gnu = check_program(ElfFile(**static, hash=True, notes=(glibc,)).to_bytes(), ANDROID)

    assert failed(musl) == {}
    assert "set_robust_list" in failed(gnu)["system calls of Android"]
    rpi = check_program(ElfFile(**static, hash=True, notes=(glibc,)).to_bytes(), find_target("rpi"))
    assert failed(rpi) == {}


def test_a_program_of_android_is_none_for_linux():
    """There it must be static."""
    assert "libc.so" in failed(check_program(ElfFile(**PROGRAM, align=65536).to_bytes(), find_target("rpi")))["static"]


def test_symbols_are_counted_by_each_table():
    """Of either hash table, or of the section headers; versions stand beside the names."""
    for tables in ({"section_headers": (0, 0, 0)}, {"gnu_hash": False, "hash": True}, {"gnu_hash": False}):
        read = read_elf(ElfFile(**tables, imported=(("a", "LIBC"), ("b", "LIBC_N"), ("c", None))).to_bytes(), "x")
        assert [(symbol.name, symbol.version) for symbol in read.symbols] == [
            ("a", "LIBC"), ("b", "LIBC_N"), ("c", None), ("eb_one", None),
        ]  # fmt: skip
        assert read.versions == (("libc.so", "LIBC"), ("libc.so", "LIBC_N"))


def test_damaged_file_never_ends_in_another_error():
    """Bytes changed at random: read, or refused with a BuildError."""
    whole = ElfFile(**PROGRAM, hash=True, relro=(DATA_AT, 64), run_path="$ORIGIN").to_bytes()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    useful = [i for i, byte in enumerate(whole) if byte]
    for _ in range(1500):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            broken[chance.choice(useful)] = chance.randrange(256)
        try:
            check(bytes(broken))
        except BuildError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def test_levels_are_a_table_without_doubles():
    """Each name once; what edgebit-run is linked to by the stub is none of the later ones."""
    content = tomllib.loads((cross_dir() / "android" / "api_levels.toml").read_text())
    names = [name for group in content["added"].values() for name in group]
    stub = (cross_dir() / "android" / "bionic_stub.c").read_text()

    assert len(names) == len(set(names)) > 200
    assert {"getrandom", "aligned_alloc"} <= set(content["added"]["28"])
    assert all(24 < int(level) < 100 for level in content["added"])
    assert not [name for name in names if f"({name})" in stub]


# ---- what others built ----

NDK = {
    "@esbuild/android-arm64@0.28.2": (
        "bin/esbuild",
        "sha512-5YfKeeI8qWfBZIX+u2xZC3Zlb3Os/gLS2sbEKM+I4ZOcsWmHS2WLysCcQZDAFRslDUU5Oiq44gf6PYN1vGwG5A==",
        {},  # Go's own linker
    ),
    "@node-rs/crc32-android-arm64@1.10.8": (
        "crc32.android-arm64.node",
        "sha512-gvEOdU8tkSwK2McdlMeXDoyqtvJFPYShNopJtGaGMNoltN5EzFOsM/7XKF3rk9JLQ9GnZHQrCxur0Cksonow2A==",
        {"SONAME": "none: Android demands one"},  # NDK r29, 16 KB pages
    ),
    "@rollup/rollup-android-arm64@4.68.8": (
        "rollup.android-arm64.node",
        "sha512-kXkkIiJujBjArHwEToz99BQqIqibn4xdV6SjsoaxuZzvLUCVEzoHQ1Lp62m7xOhpLRpWpCtxL2ZUy/ADKuz9/g==",
        {"SONAME": "none: Android demands one"},  # NDK r30
    ),
    "@parcel/watcher-android-arm64@2.6.0": (
        "watcher.node",
        "sha512-trgpLSCKRC/huFjXX/Smh+0sWe4+YtKfktIToiMl59ghz7z+qkH6kMvNnUbLyRs9N11t8l4svSCs1+5B3rOAhA==",
        {
            "libraries of Android": "libc++_shared.so is no library",
            "RELRO ends with a page": "same page of 16 KB",
            "page alignment": "aligned to 4096, 16384 is needed",
        },  # NDK r25, 4 KB pages
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("package", NDK)
def test_files_that_the_ndk_built(npm_package: Callable[..., Path], package: str):
    """They pass where they are sound, and fail for the reasons that are known of them and no others."""
    name, integrity, promised = NDK[package]
    data = (npm_package(package, integrity) / name).read_bytes()

    found = check(data)

    assert found.keys() == promised.keys()
    assert all(words in found[rule] for rule, words in promised.items())
