"""The compiler of each builder: found, named with its version, or an error that says what to install."""

import dataclasses
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebit.cross.container import ContainerEngine, find_container_engine
from edgebit.cross.images import require_image
from edgebit.cross.ndk import find_ndk
from edgebit.errors import BuildError
from edgebit.resources import cache_dir, cross_dir
from edgebit.targets import Target, host_target

BUILDERS = ("auto", "zig", "system", "ndk", "docker")
_CROSS_THERE = "/src/cross"  # in a container
_NDK_THERE = "/opt/android-ndk"  # in that for Android
_NDK_CLANG_THERE = f"{_NDK_THERE}/toolchains/llvm/prebuilt/linux-x86_64/bin/clang"
FIXED_ENV = {"LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An image on an engine."""

    engine: ContainerEngine
    image: str  # its id, which means one content
    tag: str  # what people call it


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """A compiler, and how CMake is told about it."""

    builder: str  # zig, system, ndk, docker
    name: str  # of the file cross/toolchains/<name>.cmake
    compiler: str  # as it names itself, with its version; and its linker and libc
    parts: str = ""  # sum over what it links into static programs: libc, libgcc, start-up objects; zig's come with it
    variables: Mapping[str, str] = field(default_factory=dict)  # for CMake; paths of this machine may stand in them
    container: Container | None = None  # where it runs; None: on this machine


def find_tool(name: str) -> Path | None:
    """A program of the Python environment edgebit runs in (wheels of cmake and ninja), or else of PATH."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def find_zig() -> Path | None:
    """The zig program: of the `ziglang` wheel, or else of PATH."""
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "zig"
        if program.is_file():
            return program
    return find_tool("zig")


def system_compilers(target: Target) -> list[tuple[str, str]]:
    """Programs that can compile for `target` as this machine's own compiler: (toolchain, program), best first."""
    compilers = [("gcc", f"{target.compile_triple}-gcc")]
    if target.compile_triple == host_target().triple:
        compilers += [("gcc", "gcc"), ("gcc", "cc")]
    if shutil.which("ld.lld"):
        compilers.append(("clang", "clang"))
    return compilers


def find_container(target: Target) -> Container:
    """The image for `target`, ready to compile. Raises BuildError saying how to get an engine, or the image."""
    engine = find_container_engine()
    state = require_image(target, engine)
    assert state.id is not None
    return Container(engine=engine, image=state.id, tag=state.recipe.tag)


def choose_toolchain(
    target: Target,
    builder: str,
    *,
    tool: Callable[[str], Path | None] = find_tool,
    zig: Callable[[], Path | None] = find_zig,
    container: Callable[[Target], Container] = find_container,
    ask: Callable[[Sequence[str]], list[str]] | None = None,
) -> Toolchain:
    """The toolchain of `builder` for `target`.

    `auto` takes the image where someone built it (edgebit cross build), else zig where it is installed, else this
    machine's compiler. The callables find programs and run them for what they print; tests give their own.
    Raises BuildError saying what to install.
    """
    ask = ask or _lines
    if builder == "auto":
        return _choose_any(target, tool, zig, container, ask)
    if builder == "zig":
        program = zig()
        if program is None:
            raise BuildError(f"--builder zig needs the ziglang package. Install it: {install_zig()}")
        version = f"zig {ask([str(program), 'version'])[0]}, {ask([str(program), 'cc', '--version'])[0]}"
        return Toolchain(builder="zig", name="zig", compiler=version, variables={"EB_ZIG": str(program)})
    if builder == "system":
        return _system_toolchain(target, tool, ask)
    if builder == "ndk":
        ndk = find_ndk(target)
        version = f"NDK {ndk.version}, {ask([str(ndk.clang), '--version'])[0]}"
        return _ndk_toolchain(target, "ndk", str(ndk.clang), version)
    if builder == "docker":
        try:
            place = container(target)
        except BuildError as error:
            raise BuildError(f"--builder docker: {error}. Or do without: --builder zig") from error
        if target.is_android:
            script = f"sed -n 's/^Pkg.Revision *= *//p' {_NDK_THERE}/source.properties; {_NDK_CLANG_THERE} --version"
            said = ask(place.engine.run_command(place.image, ("sh", "-c", script)))
            version = f"NDK {said[0]}, {said[1] if len(said) > 1 else 'no clang'}"
            return dataclasses.replace(_ndk_toolchain(target, "docker", _NDK_CLANG_THERE, version), container=place)
        compiler = f"{target.compile_triple}-gcc"
        identify = ("sh", f"{_CROSS_THERE}/identify.sh", "ld", compiler)
        said = ask(place.engine.run_command(place.image, identify, mounts=((cross_dir(), _CROSS_THERE, "ro"),)))
        return Toolchain(
            builder="docker",
            name="gcc",
            compiler=said[0],
            parts=said[-1],
            variables={"EB_CC": compiler},
            container=place,
        )
    raise BuildError(f"there is no builder {builder!r}; there are {', '.join(BUILDERS)}")


def _choose_any(
    target: Target,
    tool: Callable[[str], Path | None],
    zig: Callable[[], Path | None],
    container: Callable[[Target], Container],
    ask: Callable[[Sequence[str]], list[str]],
) -> Toolchain:
    try:
        place = container(target)
    except BuildError:  # not asked for by name: one builder of three that is not here
        pass
    else:
        return choose_toolchain(target, "docker", container=lambda _: place, ask=ask)
    if zig() is not None:
        return choose_toolchain(target, "zig", zig=zig, ask=ask)
    if any(tool(program) for _, program in system_compilers(target)):
        return choose_toolchain(target, "system", tool=tool, ask=ask)
    raise BuildError(
        f"no compiler for {target.arch} was found: no cross image, no zig, no {target.compile_triple}-gcc. Get one of"
        f" them: {install_zig()}, or: {_install_gcc(target)}, or with Docker or Podman: edgebit cross build"
        f" {target.name}"
    )


def _system_toolchain(
    target: Target, tool: Callable[[str], Path | None], ask: Callable[[Sequence[str]], list[str]]
) -> Toolchain:
    identify = ["sh", str(cross_dir() / "identify.sh")]
    for name, program_name in system_compilers(target):
        program = tool(program_name)
        if program is None:
            continue
        variables = {"EB_CC": str(program)}
        if name == "clang":
            variables["EB_TRIPLE"] = target.compile_triple
            flags = [f"--target={target.compile_triple}", "-fuse-ld=lld"]
            if target.is_android:  # nothing of a libc is taken, and none need be here
                said = [", ".join(ask([who, "--version"])[0] for who in (str(program), "ld.lld")), ""]
            else:
                said = ask([*identify, "ld.lld", str(program), *flags])
        else:
            said = ask([*identify, "ld", str(program)])
        return Toolchain(builder="system", name=name, compiler=said[0], parts=said[-1], variables=variables)
    raise BuildError(
        f"--builder system needs a compiler for {target.arch}: {target.compile_triple}-gcc is not on PATH."
        f" Install it: {_install_gcc(target)}. Or use --builder zig"
    )


def _ndk_toolchain(target: Target, builder: str, clang: str, version: str) -> Toolchain:
    variables = {"EB_CC": clang, "EB_API_LEVEL": str(target.api_level)}
    return Toolchain(builder=builder, name="ndk", compiler=version, variables=variables)


def install_zig() -> str:
    return f"{sys.executable} -m pip install ziglang cmake ninja"


def _install_gcc(target: Target) -> str:
    package = {"x86_64": "gcc-x86-64-linux-gnu"}.get(target.arch, f"gcc-{target.arch}-linux-gnu")
    return f"apt-get install {package} (Debian, Ubuntu)"


def _lines(argv: Sequence[str]) -> list[str]:
    """What a program prints, line by line, at least one. Raises BuildError where it does not run."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
            env=clean_environment(None) | engine_environment(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{argv[0]} is there but does not run: {error}. Install it again") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        words = (done.stderr.strip() or "it printed nothing")[-400:]
        hint = ""
        if f"{_CROSS_THERE}/identify.sh" in words:  # the shell in the image does not find it
            hint = ". The engine does not see this machine's folders: it must run here, not elsewhere (DOCKER_HOST)"
        raise BuildError(f"{' '.join(argv)} does not run ({done.returncode}): {words}{hint}")
    return lines


def compute_toolchain_id(target: Target, toolchain: Toolchain, kernels: Path, cross: Path) -> str:
    """First 16 hex digits of the sum over all that the bytes of the native files depend on.

    No path is among it and no builder: a compiler in an image and the same one on this machine give the same bytes.
    """
    digest = hashlib.sha256()
    for text in (target.arch, target.compile_triple, toolchain.name, toolchain.compiler, toolchain.parts):
        digest.update(text.encode() + b"\0")
    if target.is_android and toolchain.name != "zig":  # zig's edgebit-run is static, and any Linux's
        digest.update(f"Android {target.api_level}".encode() + b"\0")
    for root in (kernels, cross / "toolchains", cross / "android"):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in {".c", ".h", ".inc", ".txt", ".cmake", ".map"}:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def clean_environment(build_dir: Path | None) -> dict[str, str]:
    """A clean environment: nothing of the user's (CFLAGS, CC, LD_PRELOAD) may change what is built."""
    env = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE") if key in os.environ}
    env |= FIXED_ENV
    env["ZIG_GLOBAL_CACHE_DIR"] = str(cache_dir() / "zig")
    if build_dir is not None:
        env["ZIG_LOCAL_CACHE_DIR"] = str(build_dir / "zig-cache")
    return env


def engine_environment() -> dict[str, str]:
    """What Docker and Podman take from the user: where the engine is, and where its images lie."""
    prefixes = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "XDG_", "STORAGE_", "DBUS_")
    return {key: value for key, value in os.environ.items() if key.startswith(prefixes)}
