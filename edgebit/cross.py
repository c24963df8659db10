"""Service: the engine's native files for a target, with zig, a compiler of this machine, or a container.

plan() decides and build_native() acts. A builder that cannot be had is an error that says what to install; none is
ever replaced by another without a word. The same sources and toolchain give the same bytes, which are cached.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgebit.errors import BuildError
from edgebit.resources import cross_dir, kernels_dir, native_library
from edgebit.targets import Target, host_target

BUILDERS = ("auto", "zig", "system", "docker")
RUNNER_NAME = "edgebit-run"
_PRODUCTS = ("libedgebit.so", RUNNER_NAME)
_RECORD = "build.json"
_LOG_LINES = 25

Report = Callable[[str], None]  # is told, in one line, what happens now


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """A compiler, and how CMake is told about it."""

    builder: str  # zig, system, docker
    name: str  # of the file cross/toolchains/<name>.cmake
    compiler: str  # as it names itself, with its version
    variables: Mapping[str, str] = field(default_factory=dict)  # for CMake; paths of this machine may stand in them


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossPlan:
    """What a build runs: commands in order, in one environment."""

    toolchain: Toolchain
    toolchain_id: str  # equal ids, equal bytes
    commands: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]
    build_dir: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeFiles:
    """The engine for a target."""

    library: Path
    runner: Path | None  # edgebit-run; None where the installed edgebit has none
    builder: str  # zig, system, docker, installed
    compiler: str
    toolchain_id: str
    from_cache: bool


# ---- tools of this machine ----


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
            f" {_install_zig()}, or: {_install_gcc(target)}"
        )
    if builder == "zig":
        program = zig()
        if program is None:
            raise BuildError(f"--builder zig needs the ziglang package. Install it: {_install_zig()}")
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


def _install_zig() -> str:
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
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True, env=_environment(None))
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{argv[0]} is there but does not run: {error}. Install it again") from error
    return done.stdout.strip().splitlines()[0]


# ---- planning ----


def cache_dir() -> Path:
    """Where native files of earlier builds and zig's own libc lie: safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgebit"


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


def plan(
    target: Target,
    toolchain: Toolchain,
    build_dir: Path,
    *,
    kernels: Path | None = None,
    cross: Path | None = None,
    cmake: str = "cmake",
    ninja: str = "ninja",
    jobs: int = 2,
) -> CrossPlan:
    """The commands that build libedgebit.so and edgebit-run for `target` in `build_dir`. Runs nothing."""
    kernels, cross = kernels or kernels_dir(), cross or cross_dir()
    toolchain_id = compute_toolchain_id(target, toolchain, kernels, cross)
    env = _environment(build_dir)
    source_at, build_at, cross_at = str(kernels), str(build_dir), str(cross)
    if toolchain.builder == "docker":
        source_at, build_at, cross_at = "/src/kernels", "/src/build", "/src/cross"
        cmake, ninja = "cmake", "ninja"
    configure = (
        cmake, "-S", source_at, "-B", build_at, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DCMAKE_TOOLCHAIN_FILE={cross_at}/toolchains/{toolchain.name}.cmake",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DEB_ARCH_NAME={target.arch}",
        *(f"-D{key}={value}" for key, value in sorted(toolchain.variables.items())),
    )  # fmt: skip
    compile_ = (cmake, "--build", build_at, "--parallel", str(jobs), "--target", "edgebit", RUNNER_NAME)
    commands: tuple[tuple[str, ...], ...] = (configure, compile_)
    if toolchain.builder == "docker":
        mounts = (f"{kernels}:/src/kernels:ro", f"{cross}:/src/cross:ro", f"{build_dir}:/src/build")
        run: tuple[str, ...] = ("docker", "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}")
        run += tuple(f"--volume={mount}" for mount in mounts)
        run += tuple(f"--env={key}={value}" for key, value in sorted(_FIXED_ENV.items()))
        commands = tuple((*run, toolchain.compiler, *command) for command in commands)
    return CrossPlan(toolchain=toolchain, toolchain_id=toolchain_id, commands=commands, env=env, build_dir=build_dir)


_FIXED_ENV = {"LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}


def _environment(build_dir: Path | None) -> dict[str, str]:
    """A clean environment: nothing of the user's (CFLAGS, CC, LD_PRELOAD) may change what is built."""
    env = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE") if key in os.environ}
    env |= _FIXED_ENV
    env["ZIG_GLOBAL_CACHE_DIR"] = str(cache_dir() / "zig")
    if build_dir is not None:
        env["ZIG_LOCAL_CACHE_DIR"] = str(build_dir / "zig-cache")
    return env


# ---- building ----


def build_native(target: Target, builder: str = "auto", *, report: Report = lambda _: None) -> NativeFiles:
    """libedgebit.so and edgebit-run for `target`, from the cache where sources and toolchain are as before.

    The host's come from the installed edgebit unless a builder is named.
    Raises BuildError naming what is missing and how to install it, or with the last lines of a failed build.
    """
    if target.is_host and builder == "auto":
        return _installed()
    toolchain = choose_toolchain(target, builder)
    if builder == "auto":
        report(f"builder: {toolchain.builder} ({toolchain.compiler})")
    kernels, cross = kernels_dir(), cross_dir()
    toolchain_id = compute_toolchain_id(target, toolchain, kernels, cross)
    place = cache_dir() / "cross" / toolchain_id
    if (native := _from_cache(place, toolchain, toolchain_id)) is not None:
        report(f"native files {toolchain_id} are in the cache, nothing to compile")
        return native

    cmake, ninja = (_need_tool(name) for name in ("cmake", "ninja"))
    if toolchain.name == "zig":
        report("compiling with zig; its first build for an architecture compiles its libc too, which takes minutes")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{toolchain_id}.", dir=place.parent) as scratch:
        build_dir = Path(scratch) / "build"
        build_dir.mkdir()
        planned = plan(target, toolchain, build_dir, cmake=str(cmake), ninja=str(ninja), jobs=os.cpu_count() or 1)
        for command in planned.commands:
            _run(command, planned.env)
        _keep(build_dir, place, Path(scratch) / "kept")
    native = _from_cache(place, toolchain, toolchain_id)
    if native is None:
        raise BuildError(f"{place} was changed while it was written. Delete it and build again")
    return NativeFiles(
        library=native.library, runner=native.runner, builder=native.builder, compiler=native.compiler,
        toolchain_id=toolchain_id, from_cache=False,
    )  # fmt: skip


def _installed() -> NativeFiles:
    library = native_library()
    runner = library.with_name(RUNNER_NAME)
    return NativeFiles(
        library=library,
        runner=runner if runner.is_file() else None,
        builder="installed",
        compiler="",
        toolchain_id=hashlib.sha256(library.read_bytes()).hexdigest()[:16],
        from_cache=True,
    )


def _need_tool(name: str) -> Path:
    found = find_tool(name)
    if found is None:
        raise BuildError(f"{name} is not on PATH. Install it: {_install_zig()}, or: apt-get install {name}")
    return found


def _run(command: tuple[str, ...], env: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}. Install it again") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.rstrip().splitlines()[-_LOG_LINES:])
        raise BuildError(f"the native build failed ({done.returncode}): {' '.join(command)}\n{tail}")


def _keep(build_dir: Path, place: Path, staging: Path) -> None:
    """Move the products into the cache in one step, with their sums."""
    staging.mkdir()
    sums = {}
    for name in _PRODUCTS:
        data = (build_dir / name).read_bytes()
        (staging / name).write_bytes(data)
        (staging / name).chmod(0o755)
        sums[name] = hashlib.sha256(data).hexdigest()
    (staging / _RECORD).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    if place.exists():  # another build was quicker, or what lies there is damaged
        shutil.rmtree(place)
    staging.rename(place)


def _from_cache(place: Path, toolchain: Toolchain, toolchain_id: str) -> NativeFiles | None:
    """The cached files, or None where there are none or their sums are wrong."""
    try:
        sums = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        whole = all(hashlib.sha256((place / name).read_bytes()).hexdigest() == sums[name] for name in _PRODUCTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    return NativeFiles(
        library=place / "libedgebit.so", runner=place / RUNNER_NAME, builder=toolchain.builder,
        compiler=toolchain.compiler, toolchain_id=toolchain_id, from_cache=True,
    )  # fmt: skip
