"""The native files for a target: plan() decides, build_native() acts, and what was built is cached."""

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgebit.cross.toolchain import (
    FIXED_ENV,
    Toolchain,
    choose_toolchain,
    clean_environment,
    compute_toolchain_id,
    engine_environment,
    find_tool,
    install_zig,
)
from edgebit.errors import BuildError, OnnxError
from edgebit.resources import ORT_SONAME, SONAME, cache_dir, cross_dir, kernels_dir, native_library, ort_library
from edgebit.targets import Target

RUNNER_NAME = "edgebit-run"
LIBRARIES = (SONAME, ORT_SONAME)  # with no libc in them
PRODUCTS = (*LIBRARIES, RUNNER_NAME)
_CMAKE_TARGETS = ("edgebit", "edgebit_ort", RUNNER_NAME)
_RECORD = "build.json"
_LOG_LINES = 25

Report = Callable[[str], None]  # is told, in one line, what happens now


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossPlan:
    """What a build runs: commands in order, in one environment."""

    toolchain: Toolchain
    toolchain_id: str  # equal ids, equal bytes
    commands: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]
    build_dir: Path
    containers: tuple[str, ...] = ()  # names of those that the commands start


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeFiles:
    """The engine for a target, and the operators for ONNX Runtime."""

    library: Path
    ort_library: Path | None  # libedgebit_ort.so; None where the installed edgebit has none
    runner: Path | None  # edgebit-run; None where the installed edgebit has none
    builder: str  # zig, system, ndk, docker, installed
    compiler: str
    toolchain_id: str
    from_cache: bool


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
    place: str = "/src",
) -> CrossPlan:
    """The commands that build PRODUCTS for `target` in `build_dir`. Runs nothing.

    place: where sources and build folder lie in a container; on this machine they lie where they are.
    """
    kernels, cross = kernels or kernels_dir(), cross or cross_dir()
    toolchain_id = compute_toolchain_id(target, toolchain, kernels, cross)
    source_at, build_at, cross_at = str(kernels), str(build_dir), str(cross)
    if toolchain.container is not None:
        source_at, build_at, cross_at = (f"{place}/{folder}" for folder in ("kernels", "build", "cross"))
        cmake, ninja = "cmake", "ninja"
    configure = (
        cmake, "-S", source_at, "-B", build_at, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DCMAKE_TOOLCHAIN_FILE={cross_at}/toolchains/{toolchain.name}.cmake",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DEB_ARCH_NAME={target.arch}",
        *(f"-D{key}={value}" for key, value in sorted(toolchain.variables.items())),
        *(_bionic_variables(target, cross_at) if target.is_android and toolchain.name in ("gcc", "clang") else ()),
    )  # fmt: skip
    compile_ = (cmake, "--build", build_at, "--parallel", str(jobs), "--target", *_CMAKE_TARGETS)
    commands: tuple[tuple[str, ...], ...] = (configure, compile_)
    names: tuple[str, ...] = ()
    env = clean_environment(build_dir)
    if toolchain.container is not None:
        env |= engine_environment()
        engine, image = toolchain.container.engine, toolchain.container.image
        mounts = ((kernels, source_at, "ro"), (cross, cross_at, "ro"), (build_dir, build_at, "rw"))
        names = tuple(f"edgebit-{secrets.token_hex(6)}" for _ in commands)
        commands = tuple(
            engine.run_command(image, command, mounts=mounts, env=FIXED_ENV, name=name)
            for name, command in zip(names, commands, strict=True)
        )
    return CrossPlan(
        toolchain=toolchain, toolchain_id=toolchain_id, commands=commands, env=env, build_dir=build_dir,
        containers=names,
    )  # fmt: skip


def _bionic_variables(target: Target, cross: str) -> tuple[str, ...]:
    """For edgebit-run with Android's libc by a compiler that has none of it: its trials must not link either."""
    return (
        f"-DEB_BIONIC={cross}/android", f"-DEB_API_LEVEL={target.api_level}",
        "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
    )  # fmt: skip


# ---- building ----


def needed_toolchain(target: Target, builder: str) -> Toolchain | None:
    """What build_native() compiles with; None: it takes the installed files. Raises BuildError as it does."""
    return None if target.is_host and builder == "auto" else choose_toolchain(target, builder)


def build_native(
    target: Target,
    builder: str = "auto",
    *,
    toolchain: Toolchain | None = None,
    fresh: bool = False,
    report: Report = lambda _: None,
) -> NativeFiles:
    """PRODUCTS for `target`, from the cache where sources and toolchain are as before.

    The host's come from the installed edgebit unless a builder is named.
    toolchain: what needed_toolchain() found before, so that it is not looked for again.
    fresh: compile also what is in the cache, and put the new files into their place.
    Raises BuildError naming what is missing and how to install it, or with the last lines of a failed build.
    """
    toolchain = toolchain or needed_toolchain(target, builder)
    if toolchain is None:
        return _installed()
    if builder == "auto" or toolchain.container is not None:
        report(_says_who(toolchain))
    kernels, cross = kernels_dir(), cross_dir()
    toolchain_id = compute_toolchain_id(target, toolchain, kernels, cross)
    place = cache_dir() / "cross" / f"{toolchain_id}-{toolchain.builder}"
    if not fresh and (native := _from_cache(place, toolchain, toolchain_id)) is not None:
        report(f"native files {toolchain_id} are in the cache, nothing to compile")
        return native

    if toolchain.name == "zig":
        report("compiling with zig; its first build for an architecture compiles its libc too, which takes minutes")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{place.name}.", dir=place.parent) as scratch:
        build_dir = Path(scratch) / "build"
        build_dir.mkdir()
        compile_native(target, toolchain, build_dir)
        _keep(build_dir, place, Path(scratch) / "kept")
    native = _from_cache(place, toolchain, toolchain_id)
    if native is None:
        raise BuildError(f"{place} was changed while it was written. Delete it and build again")
    return dataclasses.replace(native, from_cache=False)


def compile_native(
    target: Target,
    toolchain: Toolchain,
    build_dir: Path,
    *,
    kernels: Path | None = None,
    cross: Path | None = None,
    place: str = "/src",
) -> dict[str, Path]:
    """Compile in the empty folder `build_dir`, whatever a cache has: name -> file of all that was built.

    kernels, cross: copies of these folders, where not those that ship. Raises BuildError as build_native() does.
    """
    tools = {}
    if toolchain.container is None:
        tools = {name: str(_need_tool(name)) for name in ("cmake", "ninja")}
    planned = plan(
        target, toolchain, build_dir, kernels=kernels, cross=cross, jobs=os.cpu_count() or 1, place=place, **tools
    )
    try:
        for command in planned.commands:
            _run(command, planned.env)
    except KeyboardInterrupt:
        if toolchain.container is not None:
            for name in planned.containers:
                toolchain.container.engine.kill(name)
        raise
    return {name: build_dir / name for name in PRODUCTS}


def _says_who(toolchain: Toolchain) -> str:
    if toolchain.container is None:
        return f"builder: {toolchain.builder} ({toolchain.compiler})"
    engine = toolchain.container.engine
    return f"builder: docker ({toolchain.compiler}; {toolchain.container.tag} on {engine.name} {engine.version})"


def _installed() -> NativeFiles:
    library = native_library()
    runner = library.with_name(RUNNER_NAME)
    try:
        operators = ort_library()
    except OnnxError:
        operators = None
    return NativeFiles(
        library=library,
        ort_library=operators,
        runner=runner if runner.is_file() else None,
        builder="installed",
        compiler="",
        toolchain_id=hashlib.sha256(library.read_bytes()).hexdigest()[:16],
        from_cache=True,
    )


def _need_tool(name: str) -> Path:
    found = find_tool(name)
    if found is None:
        raise BuildError(f"{name} is not on PATH. Install it: {install_zig()}, or: apt-get install {name}")
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
    for name in PRODUCTS:
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
        whole = all(hashlib.sha256((place / name).read_bytes()).hexdigest() == sums[name] for name in PRODUCTS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    return NativeFiles(
        library=place / SONAME, ort_library=place / ORT_SONAME, runner=place / RUNNER_NAME,
        builder=toolchain.builder, compiler=toolchain.compiler, toolchain_id=toolchain_id, from_cache=True,
    )  # fmt: skip
