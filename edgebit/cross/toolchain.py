"""The compiler of each builder: found, named with its version, or an error that says what to install."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgebit.errors import BuildError
from edgebit.resources import cross_dir
from edgebit.targets import Target, host_target

BUILDERS = ("auto", "zig", "system", "docker")
FIXED_ENV = {"LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """A compiler, and how CMake is told about it."""

    builder: str  # zig, system, docker
    name: str  # of the file cross/toolchains/<name>.cmake
    compiler: str  # as it names itself, with its version
    variables: Mapping[str, str] = field(default_factory=dict)  # for CMake; paths of this machine may stand in them


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
    compilers = [("gcc", f"{target.triple}-gcc")]
    if target.triple == host_target().triple:
        compilers += [("gcc", "gcc"), ("gcc", "cc")]
    if shutil.which("ld.lld"):
        compilers.append(("clang", "clang"))
    return compilers


def choose_toolchain(
    target: Target,
    builder: str,
    *,
    tool: Callable[[str], Path | None] = find_tool,
    zig: Callable[[], Path | None] = find_zig,
    ask_version: Callable[[list[str]], str] | None = None,
) -> Toolchain:
    """The toolchain of `builder` for `target`; `auto` takes zig where it is installed, else this machine's compiler.

    The callables find programs and ask for versions; tests give their own.
    Raises BuildError saying what to install.
    """
    ask = ask_version or _first_line
    if builder == "auto":
        if zig() is not None:
            return choose_toolchain(target, "zig", tool=tool, zig=zig, ask_version=ask)
        if any(tool(program) for _, program in system_compilers(target)):
            return choose_toolchain(target, "system", tool=tool, zig=zig, ask_version=ask)
        raise BuildError(
            f"no compiler for {target.arch} was found: neither zig nor {target.triple}-gcc. Install one of them:"
            f" {install_zig()}, or: {_install_gcc(target)}"
        )
    if builder == "zig":
        program = zig()
        if program is None:
            raise BuildError(f"--builder zig needs the ziglang package. Install it: {install_zig()}")
        version = f"zig {ask([str(program), 'version'])}, {ask([str(program), 'cc', '--version'])}"
        return Toolchain(builder="zig", name="zig", compiler=version, variables={"EB_ZIG": str(program)})
    if builder == "system":
        for name, program_name in system_compilers(target):
            if (program := tool(program_name)) is not None:
                variables = {"EB_CC": str(program), **({"EB_TRIPLE": target.triple} if name == "clang" else {})}
                return Toolchain(
                    builder="system", name=name, compiler=ask([str(program), "--version"]), variables=variables
                )
        raise BuildError(
            f"--builder system needs a compiler for {target.arch}: {target.triple}-gcc is not on PATH. Install it:"
            f" {_install_gcc(target)}. Or use --builder zig"
        )
    if builder == "docker":
        image = docker_image()
        return Toolchain(builder="docker", name="gcc", compiler=image, variables={"EB_CC": f"{target.triple}-gcc"})
    raise BuildError(f"there is no builder {builder!r}; there are {', '.join(BUILDERS)}")


def install_zig() -> str:
    return f"{sys.executable} -m pip install ziglang cmake ninja"


def _install_gcc(target: Target) -> str:
    package = {"x86_64": "gcc-x86-64-linux-gnu"}.get(target.arch, f"gcc-{target.arch}-linux-gnu")
    return f"apt-get install {package} (Debian, Ubuntu)"


def docker_image() -> str:
    """The pinned image of the docker builder. Raises BuildError where none is published or no engine is here."""
    path = cross_dir() / "images.toml"
    entry = tomllib.loads(path.read_text(encoding="utf-8"))["linux"]
    if not entry["digest"]:
        raise BuildError(
            f"--builder docker: no image is published yet ({path.name} has no digest for {entry['image']}). Use"
            " --builder zig or --builder system"
        )
    if shutil.which("docker") is None:
        raise BuildError(
            "--builder docker: the docker command is not on PATH. Install Docker, or use --builder zig or --builder"
            " system"
        )
    return f"{entry['image']}@{entry['digest']}"


def _first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=300, check=True, env=clean_environment(None)
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{argv[0]} is there but does not run: {error}. Install it again") from error
    return done.stdout.strip().splitlines()[0]


def compute_toolchain_id(target: Target, toolchain: Toolchain, kernels: Path, cross: Path) -> str:
    """First 16 hex digits of the sum over all that the bytes of the native files depend on; no path is among it."""
    digest = hashlib.sha256()
    for text in (target.arch, target.triple, toolchain.builder, toolchain.name, toolchain.compiler):
        digest.update(text.encode() + b"\0")
    for root in (kernels, cross / "toolchains"):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in {".c", ".h", ".inc", ".txt", ".cmake"}:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def cache_dir() -> Path:
    """Where native files of earlier builds and zig's own libc lie: safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgebit"


def clean_environment(build_dir: Path | None) -> dict[str, str]:
    """A clean environment: nothing of the user's (CFLAGS, CC, LD_PRELOAD) may change what is built."""
    env = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE") if key in os.environ}
    env |= FIXED_ENV
    env["ZIG_GLOBAL_CACHE_DIR"] = str(cache_dir() / "zig")
    if build_dir is not None:
        env["ZIG_LOCAL_CACHE_DIR"] = str(build_dir / "zig-cache")
    return env
