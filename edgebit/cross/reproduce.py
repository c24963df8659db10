"""Whether native files repeat: built twice by each builder, in two places, and compared byte for byte."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebit.checks import Check
from edgebit.cross.native import LIBRARIES, PRODUCTS, Report, compile_native
from edgebit.cross.toolchain import BUILDERS, Toolchain, choose_toolchain, compute_toolchain_id
from edgebit.errors import BuildError
from edgebit.resources import cross_dir, kernels_dir
from edgebit.targets import Target

# Two folders of different length and depth, on this machine and in a container.
_PLACES = (("one", "/src"), ("another/one/deeper", "/another/place/below"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuild:
    """What one builder made, twice."""

    builder: str
    toolchain: Toolchain
    toolchain_id: str
    sums: tuple[dict[str, str], ...]  # of each of the builds: file -> SHA-256


def rebuild(target: Target, toolchain: Toolchain, report: Report = lambda _: None) -> Rebuild:
    """Compile for `target` in two places, from copies of the sources; nothing comes from the cache or goes there.

    Raises BuildError where the compiler fails.
    """
    sums = []
    with tempfile.TemporaryDirectory(prefix="edgebit-repro-") as scratch:
        for here, there in _PLACES:
            folder = Path(scratch) / here
            kernels, cross = folder / "sources", folder / "cross files"
            shutil.copytree(kernels_dir(), kernels)
            shutil.copytree(cross_dir(), cross)
            build_dir = folder / "build"
            build_dir.mkdir()
            report(f"{toolchain.builder}: compiling in {folder}")
            files = compile_native(target, toolchain, build_dir, kernels=kernels, cross=cross, place=there)
            sums.append({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()})
    toolchain_id = compute_toolchain_id(target, toolchain, kernels_dir(), cross_dir())
    return Rebuild(builder=toolchain.builder, toolchain=toolchain, toolchain_id=toolchain_id, sums=tuple(sums))


def check_reproducible(
    target: Target,
    builders: Sequence[str],
    report: Report = lambda _: None,
    choose: Callable[[Target, str], Toolchain] = choose_toolchain,
) -> tuple[list[Check], list[Rebuild]]:
    """Build with each of `builders` twice and judge; none: with all of them that can be had here.

    Raises BuildError where a builder that was named cannot be had, or a compiler fails.
    """
    checks, rebuilds = [], []
    foreign = {"auto"} if target.is_android else {"auto", "ndk"}
    for builder in builders or [name for name in BUILDERS if name not in foreign]:
        try:
            toolchain = choose(target, builder)
        except BuildError as error:
            if builders:
                raise
            checks.append(Check(f"{builder} twice", "not run", str(error)))
            continue
        rebuilds.append(rebuild(target, toolchain, report))
        checks.append(compare_builds(rebuilds[-1]))
    return checks + compare_builders(rebuilds), rebuilds


def compare_builds(built: Rebuild) -> Check:
    """Whether the builds of one builder are equal."""
    differ = [name for name in PRODUCTS if len({sums[name] for sums in built.sums}) > 1]
    text = f"{built.toolchain_id}, {built.toolchain.compiler}"
    if differ:
        return Check(f"{built.builder} twice", "failed", f"{', '.join(differ)}: not the same bytes; {text}")
    return Check(f"{built.builder} twice", "passed", f"the same bytes in two places; {text}")


def compare_builders(rebuilds: Sequence[Rebuild]) -> list[Check]:
    """Whether builders with one toolchain id made one file, and one compiler the same libraries whatever its libc."""
    checks = []
    for number, first in enumerate(rebuilds):
        for second in rebuilds[number + 1 :]:
            name = f"{first.builder} and {second.builder}"
            if first.toolchain_id == second.toolchain_id:
                files = list(PRODUCTS)
            elif _compiler(first) == _compiler(second):
                files = list(LIBRARIES)  # with no libc in them
            else:
                checks.append(Check(name, "not run", "other compilers give other bytes, and equal results"))
                continue
            differ = [file for file in files if first.sums[0][file] != second.sums[0][file]]
            if differ:
                checks.append(Check(name, "failed", f"{', '.join(differ)}: not the same bytes by the same compiler"))
            else:
                checks.append(Check(name, "passed", f"{', '.join(files)}: the same bytes"))
    return checks


def _compiler(built: Rebuild) -> str:
    """Compiler and linker without the libc, which identify.sh names last."""
    return built.toolchain.name + ": " + built.toolchain.compiler.rpartition(", ")[0]
