"""Builds of the engine with its C checks: for this machine, sanitized, and for AArch64 under qemu."""

import fcntl
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Kind -> compiler, its other needs, CMake options.
_BUILDS: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "host": ("cc", (), []),
    "sanitized": ("gcc", (), ["-DEB_SANITIZE=address,undefined", "-DCMAKE_C_FLAGS_RELEASE=-O1"]),
    "threads": ("gcc", (), ["-DEB_SANITIZE=thread", "-DCMAKE_C_FLAGS_RELEASE=-O1"]),
    "fuzz": ("clang", (), ["-DEB_FUZZ=ON", "-DEB_SANITIZE=address,undefined", "-DCMAKE_C_FLAGS_RELEASE=-O1"]),
    "aarch64": (
        "aarch64-linux-gnu-gcc",
        ("qemu-aarch64-static",),
        ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"],
    ),
}


@dataclass(frozen=True)
class CheckBuild:
    """A build tree, and how its programs are run here."""

    folder: Path
    kind: str

    def run(self, program: str, *arguments: str, isa: str | None = None, cpu: str = "max") -> str:
        """What `program` (path inside the build tree) wrote to standard output; it must end with code 0."""
        environment = {name: value for name, value in os.environ.items() if name != "EDGEBIT_ISA"}
        environment |= {} if isa is None else {"EDGEBIT_ISA": isa}
        emulator = ["qemu-aarch64-static", "-cpu", cpu] if self.kind == "aarch64" else []
        done = subprocess.run(
            [*emulator, str(self.folder / program), *arguments],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def check_build(require_tool: Callable[[str], str]) -> Callable[[str], CheckBuild]:
    """Gives the build of that kind, brought up to date once a run."""
    made: dict[str, CheckBuild] = {}

    def build(kind: str) -> CheckBuild:
        if kind in made:
            return made[kind]
        compiler, tools, options = _BUILDS[kind]
        for tool in (compiler, *tools):
            require_tool(tool)
        folder = ROOT / "build" / f"checks-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        configure = ["cmake", "-S", str(ROOT / "kernels"), "-B", str(folder), "-DEB_TESTS=ON", "-DEB_WERROR=ON"]
        with (folder / ".lock").open("w") as lock:  # test runs side by side build once
            fcntl.flock(lock, fcntl.LOCK_EX)
            for command in (
                [*configure, f"-DCMAKE_C_COMPILER={compiler}", *options],
                ["cmake", "--build", str(folder), "-j2"],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        made[kind] = CheckBuild(folder, kind)
        return made[kind]

    return build
