"""Real cross images (`edgebit cross build`, .ci/cross_images.sh): what they compile, and what they keep out."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from edgebit import elf
from edgebit.artifacts import check_program
from edgebit.build import check_native
from edgebit.cli import cli
from edgebit.cross.images import build_image, image_state, plan_image, recipe_of
from edgebit.cross.native import build_native
from edgebit.cross.reproduce import check_reproducible
from edgebit.cross.toolchain import Container, find_container
from edgebit.elf import read_elf
from edgebit.errors import BuildError
from edgebit.resources import cross_dir, kernels_dir
from edgebit.targets import Target, find_target, read_target
from edgebit.verify import verify_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RPI = find_target("rpi")
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "max")
IDS = "1,5,9,42,7,3,11"
MUSL = 'description = "Alpine Linux"\ntriple = "aarch64-linux-musl"\npage_kib = 16\n'


@pytest.fixture(scope="session")
def image(skip: Callable[[str], NoReturn]) -> Callable[[Target], Container]:
    """Gives the image for a target, which somebody built before; or skips."""

    def find(target: Target) -> Container:
        try:
            return find_container(target)
        except BuildError as error:
            skip(str(error))

    return find


@pytest.fixture
def alpine(tmp_path: Path) -> Target:
    """A target whose libc is musl."""
    (tmp_path / "alpine.toml").write_text(MUSL)
    return read_target(tmp_path / "alpine.toml")


def run(container: Container, script: str, *mounts: tuple[Path, str, str]) -> subprocess.CompletedProcess[str]:
    """A shell script in an image, as a build runs there."""
    argv = container.engine.run_command(container.image, ("sh", "-ec", script), mounts=mounts)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_image_and_machine_give_the_same_bytes(image, require_tool):
    """Debian's cross compiler here and in the image: one toolchain id, and each file the same, in any folder."""
    image(RPI)
    require_tool("aarch64-linux-gnu-gcc")

    checks, rebuilds = check_reproducible(RPI, ("docker", "system"))

    assert {check.name: check.status for check in checks} == {
        "docker twice": "passed", "system twice": "passed", "docker and system": "passed",
    }  # fmt: skip
    assert rebuilds[0].toolchain_id == rebuilds[1].toolchain_id
    assert rebuilds[0].sums == rebuilds[1].sums


def test_musl_image_makes_the_same_library(image, require_tool, alpine):
    """The library has no libc in it; only edgebit-run is another, and smaller."""
    image(alpine)
    image(RPI)
    require_tool("aarch64-linux-gnu-objdump")
    musl, glibc = build_native(alpine, "docker"), build_native(RPI, "docker")

    assert [check for check in check_native(musl, alpine) if check.status != "passed"] == []
    assert musl.library.read_bytes() == glibc.library.read_bytes()
    assert b"GNU C Library" not in musl.runner.read_bytes()
    assert musl.runner.stat().st_size < glibc.runner.stat().st_size
    assert musl.toolchain_id != glibc.toolchain_id


def test_bundles_of_all_builders_verify_and_compute_the_same(
    image, require_tool, native, reference_checkpoint, reference_model, alpine, tmp_path
):
    """docker, zig and system: every check passed, golden probes on each CPU, and logits bit for bit on all of them."""
    image(RPI)
    image(alpine)
    qemu = require_tool("qemu-aarch64-static")
    require_tool("aarch64-linux-gnu-gcc")
    model = reference_model("bitnet-packed-odd-untied")
    runners, logits = {}, {}
    for builder in ("docker", "zig", "system"):
        out = tmp_path / f"{builder}.bundle"
        argv = ["build", str(reference_checkpoint("bitnet-packed")), "--target", "rpi", "--builder", builder]
        built = CliRunner().invoke(cli, [*argv, "--out", str(out)], catch_exceptions=False)
        assert built.exit_code == 0, built.output

        report = verify_bundle(out)

        assert report.manifest is not None and report.manifest.build.builder == builder
        assert [check for check in report.checks if check.status == "failed"] == []
        probes = {check.name: check.status for check in report.checks if check.name.startswith("probes on")}
        assert set(probes.values()) == {"passed"}
        assert all(any(cpu in name for name in probes) for cpu in CPUS)
        runners[builder] = build_native(RPI, builder).runner
    runners["docker, musl"] = build_native(alpine, "docker").runner
    for builder, runner in runners.items():
        for cpu in CPUS:
            out = tmp_path / "logits.f32"
            argv = [qemu, "-cpu", cpu, str(runner), str(model), "--ids", IDS, "-n", "0", "--logits-out", str(out)]
            subprocess.run(argv, check=True, capture_output=True)
            logits[builder, cpu] = out.read_bytes()

    assert len(logits) == 16 and len(logits["docker", "max"]) > 0
    assert len(set(logits.values())) == 1


def test_dynamic_programs_hold_the_glibc_floor(image, require_tool, reference_model, tmp_path):
    """edgebit-run linked dynamically asks for no glibc newer than Debian 11's, and computes with that one."""
    container = image(RPI)
    qemu = require_tool("qemu-aarch64-static")
    model = reference_model("bitnet-packed")
    build = tmp_path / "build"
    build.mkdir()
    script = """
        cmake -S /src/kernels -B /build -G Ninja -DCMAKE_TOOLCHAIN_FILE=/src/cross/toolchains/gcc.cmake \
            -DEB_ARCH_NAME=aarch64 -DEB_CC=aarch64-linux-gnu-floor-gcc -DEB_RUN_STATIC=OFF
        cmake --build /build --parallel 2 --target edgebit-run
        cp -r /opt/libc /build/libc
        echo 'int main(void) { return 0; }' >/tmp/main.c
        aarch64-linux-gnu-gcc -o /build/newer /tmp/main.c"""
    mounts = ((kernels_dir(), "/src/kernels", "ro"), (cross_dir(), "/src/cross", "ro"), (build, "/build", "rw"))
    done = run(container, script, *mounts)
    assert done.returncode == 0, done.stdout + done.stderr
    status = {}
    for name in ("edgebit-run", "newer"):
        program = (build / name).read_bytes()
        assert read_elf(program, name).segments_of(elf.PT_INTERP)
        status[name] = next(check.status for check in check_program(program, RPI) if check.name == "glibc version")
    argv = [qemu, "-L", str(build / "libc"), "-cpu", "cortex-a53", str(build / "edgebit-run"), str(model), "--check"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert status == {"edgebit-run": "passed", "newer": "failed"}, "Debian 12's own glibc is too new for the floor"
    assert ran.returncode == 0, ran.stderr


def test_a_build_sees_no_network_and_changes_no_source(image):
    """What runs in the image has the build folder and nothing else to write, and nobody to talk to."""
    container = image(RPI)
    mounts = ((kernels_dir(), "/src/kernels", "ro"),)

    assert run(container, "ls /sys/class/net").stdout.split() == ["lo"]
    assert run(container, "touch /src/kernels/x", *mounts).returncode != 0
    assert run(container, "touch /usr/local/bin/x").returncode != 0
    assert run(container, "touch /tmp/x").returncode == 0
    assert run(container, "id -u").stdout.strip() == str(os.getuid())


def test_the_image_is_not_roots(image):
    """Whoever runs it by hand is an ordinary user in it."""
    container = image(RPI)
    found = container.engine.inspect(container.tag)

    assert found is not None and found["Config"]["User"] == "builder"
    assert image_state(recipe_of(RPI.triple), container.engine).state == "ready"


@pytest.mark.parametrize(
    ("pin", "promised"),
    [
        (r'"cmake" = "[^"]*"', r"cmake: pinned is 1, the archive has 3"),
        (r'"libc6-dev:arm64" = "[^"]*"', r"libc6-dev:arm64: pinned is 1, the archive has 2\.31"),
    ],
)
def test_another_version_than_the_pinned_ends_the_build(image, tmp_path, pin, promised, skip):
    """Of a package that is installed, and of one that is unpacked: named, with both versions and what mends it."""
    container = image(RPI)
    state = image_state(recipe_of(RPI.triple), container.engine)
    shutil.copytree(cross_dir(), tmp_path / "cross")
    pins = tmp_path / "cross" / "images.toml"
    name = pin.partition(" = ")[0]
    pins.write_text(re.sub(pin, f'{name} = "1"', pins.read_text()))
    recipe = dataclasses.replace(recipe_of(RPI.triple, tmp_path / "cross"), triple="test-of-pins")
    command = plan_image(recipe, container.engine, base=state.base, network="host")

    with pytest.raises(BuildError) as refused:
        build_image(recipe, container.engine, command, lambda line: None)

    if "do not reach what they fetch from" in str(refused.value):
        skip(str(refused.value))
    assert re.search(promised, str(refused.value)), refused.value
    assert "--mirror" in str(refused.value)
    assert container.engine.inspect(recipe.tag) is None
