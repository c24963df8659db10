"""Which builder is taken, what it runs, and what is kept: decided without a compiler."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebit.cross import native as cross_native
from edgebit.cross.container import ContainerEngine
from edgebit.cross.native import build_native, compile_native, plan
from edgebit.cross.toolchain import BUILDERS, Container, Toolchain, choose_toolchain, compute_toolchain_id
from edgebit.errors import BuildError
from edgebit.resources import cross_dir, kernels_dir
from edgebit.targets import Target, find_target

RPI = find_target("rpi")
GCC = "aarch64-linux-gnu-gcc"


ENGINE = ContainerEngine(name="docker", program="/usr/bin/docker", version="27", rootless=False)
IMAGE = Container(engine=ENGINE, image="sha256:" + "0" * 64, tag="edgebit-cross:aarch64-linux-gnu")


def find_no_image(target: Target) -> Container:
    raise BuildError("there is no image. Build it")


def choose(builder: str, *, tools: tuple[str, ...] = (), zig: bool = False, image: bool = False) -> Toolchain:
    """The choice on a machine that has these programs and no others; compilers of one name are one compiler."""
    return choose_toolchain(
        RPI,
        builder,
        tool=lambda name: Path("/usr/bin") / name if name in tools else None,
        zig=lambda: Path("/wheels/zig") if zig else None,
        container=lambda target: IMAGE if image else find_no_image(target),
        ask=lambda argv: [f"version of {Path(argv[-1] if 'identify.sh' in ' '.join(argv) else argv[0]).name}", "parts"],
    )


def test_auto_takes_zig_where_it_is_installed():
    """It needs nothing else of the machine."""
    chosen = choose("auto", tools=(GCC,), zig=True)

    assert (chosen.builder, chosen.name, chosen.variables) == ("zig", "zig", {"EB_ZIG": "/wheels/zig"})
    assert "version of zig" in chosen.compiler


def test_auto_takes_the_cross_compiler_otherwise():
    """Found on PATH, under the triple's name."""
    chosen = choose("auto", tools=(GCC,))

    assert (chosen.builder, chosen.name, chosen.variables) == ("system", "gcc", {"EB_CC": f"/usr/bin/{GCC}"})


def test_auto_takes_the_image_that_someone_built():
    """It was made on purpose, and its compiler is pinned."""
    chosen = choose("auto", tools=(GCC,), zig=True, image=True)

    assert (chosen.builder, chosen.name, chosen.container) == ("docker", "gcc", IMAGE)


@pytest.mark.parametrize(
    ("builder", "tools", "zig", "promised"),
    [
        (
            "auto",
            (),
            False,
            ["-m pip install ziglang", "apt-get install gcc-aarch64-linux-gnu", "edgebit cross build rpi"],
        ),
        ("zig", (GCC,), False, ["--builder zig", "-m pip install ziglang"]),
        ("system", (), True, ["--builder system", "apt-get install gcc-aarch64-linux-gnu", "--builder zig"]),
        ("docker", (GCC,), True, ["--builder docker", "no image", "--builder zig"]),
        ("podman", (), True, ["no builder 'podman'", *BUILDERS]),
    ],
)
def test_a_builder_that_cannot_be_had_is_an_error(builder, tools, zig, promised):
    """Another one that is there never takes its place; the message says what to install."""
    with pytest.raises(BuildError) as refused:
        choose(builder, tools=tools, zig=zig)

    assert all(words in str(refused.value) for words in promised)


def test_compiler_that_does_not_run_is_an_error(tmp_path):
    """Found, but broken: said before anything is built."""
    broken = tmp_path / GCC
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)

    with pytest.raises(BuildError, match="does not run"):
        choose_toolchain(RPI, "system", tool=lambda name: broken if name == GCC else None)


def test_plan_says_all_and_runs_nothing(tmp_path, monkeypatch):
    """Two commands with the toolchain file; of the user's environment, nothing that changes code."""
    monkeypatch.setenv("CFLAGS", "-march=native")
    monkeypatch.setenv("CC", "tcc")
    monkeypatch.setenv("LD_PRELOAD", "x.so")

    planned = plan(RPI, choose("system", tools=(GCC,)), tmp_path / "build", cmake="/c/cmake", ninja="/c/ninja", jobs=3)

    configure, compile_ = planned.commands
    assert configure[0] == compile_[0] == "/c/cmake"
    assert f"-DCMAKE_TOOLCHAIN_FILE={cross_dir()}/toolchains/gcc.cmake" in configure
    assert {"-DEB_ARCH_NAME=aarch64", f"-DEB_CC=/usr/bin/{GCC}", "-DCMAKE_MAKE_PROGRAM=/c/ninja"} <= set(configure)
    assert compile_[3:] == ("--parallel", "3", "--target", "edgebit", "edgebit_ort", "edgebit-run")
    assert not {"CFLAGS", "CC", "LD_PRELOAD"} & set(planned.env)
    assert planned.env["LC_ALL"] == "C" and planned.env["SOURCE_DATE_EPOCH"] == "0"
    assert not (tmp_path / "build").exists()


def test_docker_plan_runs_the_same_in_a_container(tmp_path):
    """Same commands, sources read-only, no network, the user's own id, the image by what it holds and not by a name."""
    planned = plan(RPI, choose("docker", image=True), tmp_path)

    for command in planned.commands:
        assert command[:2] == ("/usr/bin/docker", "run")
        assert {"--network=none", "--read-only", f"--user={os.getuid()}:{os.getgid()}"} <= set(command)
        assert {f"--volume={kernels_dir()}:/src/kernels:ro", f"--volume={tmp_path}:/src/build:rw"} <= set(command)
        assert "--env=SOURCE_DATE_EPOCH=0" in command
        assert command[command.index(IMAGE.image) + 1] == "cmake"
    assert f"-DEB_CC={GCC}" in planned.commands[0]


def test_interrupted_build_ends_its_containers(tmp_path, monkeypatch):
    """They outlive the engine's command, and would go on writing into a folder that is gone."""
    killed: list[str] = []
    monkeypatch.setattr(ContainerEngine, "kill", lambda self, name: killed.append(name))

    def interrupt(command: tuple[str, ...], env: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_native, "_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_native(RPI, choose("docker", image=True), tmp_path)

    assert len(set(killed)) == 2 and all(name.startswith("edgebit-") for name in killed)


def test_container_reaches_the_users_engine(tmp_path, monkeypatch):
    """Where the engine is comes from the user's environment; what changes code does not."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    monkeypatch.setenv("CFLAGS", "-march=native")

    env = plan(RPI, choose("docker", image=True), tmp_path).env

    assert env["DOCKER_HOST"] == "unix:///somewhere"
    assert "CFLAGS" not in env


def test_same_compiler_same_id_whoever_runs_it():
    """Here or in an image: the bytes hang on the compiler and what it links in, and so does the id."""
    here, image = choose("system", tools=(GCC,)), choose("docker", image=True)
    other_libc = dataclasses.replace(image, parts="another libc")

    ids = [compute_toolchain_id(RPI, chosen, kernels_dir(), cross_dir()) for chosen in (here, image, other_libc)]

    assert ids[0] == ids[1] != ids[2]


def test_id_depends_on_sources_toolchain_and_target_and_on_no_path(tmp_path):
    """Equal ids mean equal bytes, wherever the sources lie."""
    toolchain = choose("zig", zig=True)
    copies = []
    for name in ("here", "there"):
        kernels, tools = tmp_path / name / "kernels", tmp_path / name / "cross"
        shutil.copytree(kernels_dir(), kernels)
        shutil.copytree(cross_dir(), tools)
        copies.append((kernels, tools))
    first = compute_toolchain_id(RPI, toolchain, *copies[0])

    assert compute_toolchain_id(RPI, toolchain, *copies[1]) == first
    elsewhere = dataclasses.replace(toolchain, variables={"EB_ZIG": "/elsewhere/zig"})
    assert compute_toolchain_id(RPI, elsewhere, *copies[0]) == first
    assert compute_toolchain_id(find_target("rpi5"), toolchain, *copies[0]) == first  # the same architecture
    newer = dataclasses.replace(toolchain, compiler="zig 99")
    assert compute_toolchain_id(RPI, newer, *copies[0]) != first
    assert compute_toolchain_id(find_target("linux-x86_64"), toolchain, *copies[0]) != first
    with (copies[1][0] / "include" / "edgebit.h").open("a") as header:
        header.write("\n")
    assert compute_toolchain_id(RPI, toolchain, *copies[1]) != first


@pytest.fixture
def fake_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, ...]]]:
    """A toolchain whose commands only write files; gives the list of the commands that ran."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cross_native, "choose_toolchain", lambda target, builder: choose("system", tools=(GCC,)))
    monkeypatch.setattr(cross_native, "find_tool", lambda name: Path("/usr/bin") / name)
    ran: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], env: object) -> None:
        ran.append(command)
        if "--build" in command:
            build_dir = Path(command[command.index("--build") + 1])
            (build_dir / "libedgebit.so").write_bytes(b"library")
            (build_dir / "libedgebit_ort.so").write_bytes(b"operators")
            (build_dir / "edgebit-run").write_bytes(b"program")

    def start(broken: bool = False) -> list[tuple[str, ...]]:
        if not broken:
            monkeypatch.setattr(cross_native, "_run", run)
        return ran

    return start


def test_second_build_is_from_the_cache_and_says_so(fake_compiler):
    """Nothing is compiled twice, for another target of the same architecture neither."""
    ran, said = fake_compiler(), []

    first = build_native(RPI, "system")
    again = build_native(RPI, "system", report=said.append)
    other = build_native(find_target("rpi5"), "system")

    assert (first.from_cache, again.from_cache, other.from_cache) == (False, True, True)
    assert len(ran) == 2
    assert "in the cache" in said[0]
    assert again.library.read_bytes() == b"library"


def test_damaged_cache_is_built_again(fake_compiler):
    """What does not fit its sum is not used."""
    ran = fake_compiler()
    built = build_native(RPI, "system")
    built.library.write_bytes(b"changed")

    again = build_native(RPI, "system")

    assert not again.from_cache
    assert again.library.read_bytes() == b"library"
    assert len(ran) == 4


def test_failed_build_shows_its_last_lines_and_leaves_nothing(fake_compiler, tmp_path, monkeypatch):
    """The compiler's own words, and a cache as it was."""
    fake_compiler(broken=True)
    failing = tmp_path / "cmake"
    failing.write_text("#!/bin/sh\necho 'a.c:1: error: no such thing' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(cross_native, "find_tool", lambda name: failing)

    with pytest.raises(BuildError, match=r"(?s)native build failed \(1\).*no such thing"):
        build_native(RPI, "system")

    assert list((tmp_path / "cache" / "edgebit" / "cross").iterdir()) == []


def test_missing_build_tool_says_what_to_install(fake_compiler, monkeypatch):
    """cmake and ninja come as wheels or packages."""
    fake_compiler()
    monkeypatch.setattr(cross_native, "find_tool", lambda name: None)

    with pytest.raises(BuildError, match=r"cmake is not on PATH.*-m pip install ziglang cmake ninja"):
        build_native(RPI, "system")


def test_host_takes_the_installed_library(native):
    """No compiler is needed for this machine."""
    built = build_native(find_target("host"))

    assert (built.builder, built.library) == ("installed", native.path)
