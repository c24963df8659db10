"""Builds for Android: one library with the Raspberry Pi, and edgebit-run static, by the stub, or by an NDK."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit import bionic
from edgebit.build import check_native
from edgebit.checks import Check
from edgebit.cross.container import ContainerEngine
from edgebit.cross.native import build_native, plan
from edgebit.cross.ndk import find_ndk
from edgebit.cross.ort_library import check_ort_file, require_ort_library
from edgebit.cross.toolchain import Container, Toolchain, choose_toolchain, compute_toolchain_id
from edgebit.errors import BuildError
from edgebit.probe_runs import check_model_probes
from edgebit.resources import cross_dir, kernels_dir
from edgebit.targets import find_target, read_target
from tests.cross.fake_ndk import make_fake_ndk

ANDROID, RPI = find_target("android"), find_target("rpi")
ZIG = Toolchain(builder="zig", name="zig", compiler="zig 1", variables={"EB_ZIG": "/zig"})
GCC = Toolchain(builder="system", name="gcc", compiler="gcc 1", variables={"EB_CC": "/gcc"})
NDK = Toolchain(builder="ndk", name="ndk", compiler="NDK 1", variables={"EB_CC": "/ndk/clang", "EB_API_LEVEL": "24"})

# What an app may call on each Android from 8.0 on, of what edgebit-run does. Source: bionic's SYSCALLS.TXT and
# SECCOMP_ALLOWLIST_COMMON.TXT, from which the filter of every app is made.
ALLOWED = {
    "brk", "clock_gettime", "clone", "close", "exit", "exit_group", "fcntl", "futex", "getrusage", "ioctl", "lseek",
    "madvise", "mmap", "mprotect", "munmap", "newfstatat", "openat", "read", "readv", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_tid_address", "write", "writev",
}  # fmt: skip


def configure(target_name: str, toolchain: Toolchain, folder: Path) -> list[str]:
    return list(plan(find_target(target_name), toolchain, folder).commands[0])


def test_only_a_compiler_without_androids_libc_gets_the_stub(tmp_path):
    """zig links statically, an NDK has the libc; the stub comes with the level, and trials that do not link."""
    folder = str(cross_dir() / "android")
    wanted = {f"-DEB_BIONIC={folder}", "-DEB_API_LEVEL=24", "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"}

    assert wanted <= set(configure("android", GCC, tmp_path))
    for target, toolchain in (("rpi", GCC), ("android", ZIG), ("android", NDK)):
        assert not any("EB_BIONIC" in word for word in configure(target, toolchain, tmp_path)), target


def test_ndk_gets_its_clang_and_level(tmp_path):
    """Through the toolchain file of its own."""
    words = configure("android", NDK, tmp_path)

    assert f"-DCMAKE_TOOLCHAIN_FILE={cross_dir()}/toolchains/ndk.cmake" in words
    assert {"-DEB_CC=/ndk/clang", "-DEB_API_LEVEL=24", "-DEB_ARCH_NAME=aarch64"} <= set(words)


def test_zig_builds_the_same_files_for_a_pi_and_a_phone(tmp_path):
    """One entry of the cache; by another compiler edgebit-run differs, also by API level."""

    def identity(target, toolchain):
        return compute_toolchain_id(target, toolchain, kernels_dir(), cross_dir())

    newer = tmp_path / "newer.toml"
    newer.write_text('description = "A phone"\ntriple = "aarch64-linux-android"\napi_level = 30\n')

    assert identity(ANDROID, ZIG) == identity(RPI, ZIG)
    assert identity(ANDROID, GCC) != identity(RPI, GCC)
    assert identity(ANDROID, GCC) != identity(read_target(newer), GCC)


def test_ndk_is_found_by_either_variable(tmp_path):
    """ANDROID_NDK_HOME goes first; the version is what the NDK says."""
    ndk = make_fake_ndk(tmp_path / "ndk", version="28.2.13676358")

    for names in (["ANDROID_NDK_HOME"], ["ANDROID_NDK_ROOT"]):
        found = find_ndk(ANDROID, dict.fromkeys(names, str(ndk)))
        assert (found.version, found.clang.name) == ("28.2.13676358", "clang")
    assert find_ndk(ANDROID, {"ANDROID_NDK_HOME": str(ndk), "ANDROID_NDK_ROOT": "/nowhere"}) == found


def test_ndk_names_itself_in_the_toolchain(tmp_path, monkeypatch):
    """Its version and its compiler's are part of what the bytes depend on."""
    monkeypatch.setenv("ANDROID_NDK_HOME", str(make_fake_ndk(tmp_path / "ndk")))

    toolchain = choose_toolchain(ANDROID, "ndk")

    assert (toolchain.builder, toolchain.name, toolchain.compiler) == ("ndk", "ndk", "NDK 28.2.1, clang 19")


def test_image_compiles_by_its_own_ndk(tmp_path):
    """The place and the level are given, and what the image's NDK says of itself is on record."""
    engine = ContainerEngine(name="docker", program="/docker", version="27", rootless=False)
    image = Container(engine=engine, image="sha256:abc", tag="edgebit-cross:aarch64-linux-android")
    asked = []

    def ask(argv):
        asked.append(argv)
        return ["28.2.1", "Android clang 19"]

    toolchain = choose_toolchain(ANDROID, "docker", container=lambda target: image, ask=ask)
    command = plan(ANDROID, toolchain, tmp_path).commands[0]

    assert (toolchain.builder, toolchain.name, toolchain.compiler) == ("docker", "ndk", "NDK 28.2.1, Android clang 19")
    assert "sha256:abc" in asked[0] and "--network=none" in asked[0]
    assert "-DEB_CC=/opt/android-ndk/toolchains/llvm/prebuilt/linux-x86_64/bin/clang" in command
    assert {"-DEB_API_LEVEL=24", "-DCMAKE_TOOLCHAIN_FILE=/src/cross/toolchains/ndk.cmake"} <= set(command)
    assert not any("EB_BIONIC" in word for word in command)


def broken_ndk(folder: Path, what: str) -> dict[str, str]:
    """The environment with an NDK of which one thing is wrong."""
    ndk = make_fake_ndk(folder / "ndk", levels="21 30" if what == "level" else "24")
    if what == "unset":
        return {}
    if what == "properties":
        (ndk / "source.properties").unlink()
    if what == "version":
        (ndk / "source.properties").write_text("Pkg.Desc = Android SDK\n")
    if what == "clang":
        shutil.rmtree(ndk / "toolchains")
    return {"ANDROID_NDK_HOME": str(ndk)}


@pytest.mark.parametrize(
    ("what", "promised"),
    [
        ("unset", "name its folder in ANDROID_NDK_HOME. Or use --builder zig"),
        ("properties", "no source.properties. Name the folder of an NDK"),
        ("version", "no Pkg.Revision"),
        ("clang", "has no toolchains/llvm/prebuilt/*/bin/clang"),
        ("level", "has no API level 24 for aarch64; it has 21, 30"),
    ],
)
def test_no_ndk_is_an_error_that_says_how_to_get_one(tmp_path, what, promised):
    """Nothing else takes its place."""
    with pytest.raises(BuildError) as refused:
        find_ndk(ANDROID, broken_ndk(tmp_path, what))

    assert promised in " ".join(str(refused.value).split())


def test_ndk_is_for_android_only():
    """It has no libc for a Raspberry Pi."""
    with pytest.raises(BuildError, match="rpi is none"):
        find_ndk(RPI, {"ANDROID_NDK_HOME": "/ndk"})


# ---- real builds ----


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if check.status != "passed"]


def calls_in(trace: str) -> set[str]:
    """System calls by name in what qemu -strace wrote; one that it does not know by number."""
    names = set(re.findall(r"[0-9] ([a-z]\w*)\(", trace))
    return names | set(re.findall(r"Unknown syscall \d+", trace))


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("builder", ["zig", "system"])
def test_one_library_for_a_pi_and_a_phone(require_tool: Callable[[str], str], builder: str):
    """The same bytes by the same compiler; every check passes; edgebit-run is static by zig alone."""
    require_tool("aarch64-linux-gnu-objdump")
    if builder == "system":
        require_tool("aarch64-linux-gnu-gcc")
    phone, pi = build_native(ANDROID, builder), build_native(RPI, builder)
    assert phone.runner is not None

    operators = require_ort_library(phone)
    assert phone.library.read_bytes() == pi.library.read_bytes()
    assert operators.read_bytes() == require_ort_library(pi).read_bytes()
    assert failed([*check_native(phone, ANDROID), *check_ort_file(operators, ANDROID)]) == []
    assert bionic.needs_linker(phone.runner) is (builder == "system")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_stub_program_is_what_an_ndk_makes(require_tool: Callable[[str], str]):
    """As readelf sees it: PIE, Android's loader, libc.so alone, every name bound to LIBC, 64 KB pages, API level 24."""
    require_tool("aarch64-linux-gnu-gcc")
    runner = build_native(ANDROID, "system").runner
    assert runner is not None
    said = subprocess.run(
        [require_tool("readelf"), "-hldnsW", "--dyn-syms", str(runner)], capture_output=True, text=True, check=True
    ).stdout

    assert "Type:                              DYN" in said
    assert "[Requesting program interpreter: /system/bin/linker64]" in said
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", said) == ["libc.so"]
    assert set(re.findall(r"^  LOAD .*(0x\w+)$", said, re.MULTILINE)) == {"0x10000"}
    imported = [line.split()[7] for line in said.splitlines() if len(line.split()) > 7 and line.split()[6] == "UND"]
    assert len(imported) > 40 and all(name.endswith("@LIBC") for name in imported)
    assert re.search(r"Android\s+0x00000004\s.*\s.*18 00 00 00", said)
    assert not re.search(r"R(UN)?PATH|TEXTREL|\bTLS\b", said)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_static_program_calls_only_what_an_app_may(
    require_tool: Callable[[str], str], reference_model: Callable[[str], Path]
):
    """Android kills an app at the first call that is not on its list; a static glibc program would make two such."""
    qemu, model = require_tool("qemu-aarch64-static"), str(reference_model("bitnet-packed"))
    runner = build_native(ANDROID, "zig").runner
    called: set[str] = set()
    for options in (["--check"], ["-p", "hello", "-n", "4", "--stats"], ["--verify", "--ids", "1,5", "-n", "2"]):
        command = [qemu, "-strace", str(runner), model, "--threads", "3", *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
        called |= calls_in(done.stderr)

    assert {"mmap", "futex", "clone", "openat"} <= called
    assert called <= ALLOWED


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ndk_toolchain_file_builds_with_clangs_own_driver(
    require_tool: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a stand-in for the NDK: the commands run, and what they make passes every check."""
    clang = shutil.which("clang-19") or require_tool("clang")
    require_tool("ld.lld")
    monkeypatch.setenv("ANDROID_NDK_HOME", str(make_fake_ndk(tmp_path / "ndk", clang=clang)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    built = build_native(ANDROID, "ndk")
    assert built.runner is not None

    assert [check for check in check_native(built, ANDROID) if check.status == "failed"] == []
    assert bionic.needs_linker(built.runner)
    assert built.compiler.startswith("NDK 28.2.1, ")


# ---- on a real bionic, where the user has one ----


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_golden_probes_on_bionic(
    bionic_root: Path, require_tool: Callable[[str], str], reference_model: Callable[[str], Path]
):
    """edgebit-run by the stub, started by Android's loader with Android's libc, on each CPU of the target."""
    require_tool("qemu-aarch64-static")
    model = reference_model("bitnet-packed")
    runner = build_native(ANDROID, "system").runner
    assert runner is not None

    checks = check_model_probes(runner, model, model.stat().st_size, ANDROID)

    assert [check.status for check in checks] == ["passed"] * len(ANDROID.emulate_cpus), checks


DLOPEN = r"""
#include "bionic.h"
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);
int main(int argc, char **argv) {
    void *library = dlopen(argv[1], 2);
    const char *(*version)(void) = library ? (const char *(*)(void))dlsym(library, argv[2]) : NULL;
    if (argc != 3 || !version) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    printf("%s\n", version());
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("builder", ["zig", "system"])
def test_library_loads_on_bionic(bionic_root: Path, require_tool: Callable[[str], str], tmp_path: Path, builder: str):
    """By dlopen, as Python in Termux does it."""
    gcc, qemu = require_tool("aarch64-linux-gnu-gcc"), require_tool("qemu-aarch64-static")
    android = cross_dir() / "android"
    (tmp_path / "libdl.c").write_text(
        f'#include "{android}/bionic_stub.c"\nFUNCTION(dlopen)\nFUNCTION(dlsym)\nFUNCTION(dlerror)\n'
    )
    (tmp_path / "main.c").write_text(DLOPEN)
    flags = ["-ffreestanding", "-fPIC", "-nostdlib", f"-I{android}"]
    script = f"-Wl,--version-script={android}/bionic.map"
    for name, source in (("libc", android / "bionic_stub.c"), ("libdl", tmp_path / "libdl.c")):
        out = tmp_path / f"{name}.so"
        subprocess.run([gcc, *flags, "-shared", f"-Wl,-soname,{name}.so", script, source, "-o", out], check=True)
    program = tmp_path / "load"
    link = ["-pie", "-Wl,-dynamic-linker,/system/bin/linker64", "-DEB_API_LEVEL=24", "-Wl,--no-as-needed"]
    sources = [tmp_path / "main.c", android / "bionic_start.c", tmp_path / "libc.so", tmp_path / "libdl.so"]
    subprocess.run([gcc, *flags, *link, *sources, "-o", program], check=True)
    native = build_native(ANDROID, builder)
    for library, function in ((native.library, "eb_version"), (require_ort_library(native), "edgebit_ort_isa")):
        command = [qemu, "-L", bionic_root, program, library, function]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip() != "") == (0, True), done.stderr
