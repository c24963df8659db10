"""Cross images: what each is built from (images.toml and a Dockerfile), whether it is here, and how it is made."""

import datetime
import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgebit.cross.container import ContainerEngine, ask
from edgebit.errors import BuildError
from edgebit.resources import cross_dir, kernels_dir
from edgebit.targets import Target, list_targets

REPOSITORY = "edgebit-cross"
DATED_ARCHIVE = "http://snapshot.debian.org/archive/debian"
_RECIPE_LABEL = "edgebit.recipe"
_BASE_LABEL = "edgebit.base"
_LINUX, _ANDROID = "linux.Dockerfile", "android.Dockerfile"
_DOCKERFILES = {"gnu": _LINUX, "musl": _LINUX, "android": _ANDROID}  # by the ABI of a triple
_PINS_S = 600
_LOG_LINES = 12
_NO_NETWORK = r"Temporary failure resolving|Could not resolve|(Could not|Failed to|Unable to) connect|Failed to fetch"

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the image of a triple is built from."""

    triple: str
    dockerfile: Path
    arguments: Mapping[str, str]  # of the build; all but where things are fetched from
    base: str  # with its digest where one is pinned
    pinned: str  # day of the pins
    id: str  # equal ids: the same packages, installed the same way

    @property
    def tag(self) -> str:
        """The image's name on any engine."""
        return f"{REPOSITORY}:{self.triple}"

    @property
    def base_has_digest(self) -> bool:
        """Whether the base is one content, and not whatever a name means today."""
        return "@sha256:" in self.base


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageState:
    """An image on an engine."""

    recipe: Recipe
    state: Literal["ready", "outdated", "missing"]  # outdated: built from other pins or another Dockerfile
    id: str | None = None
    size: int | None = None  # bytes, the base included
    base: str | None = None  # what it was built on


def read_images(path: Path | None = None) -> dict[str, Any]:
    """The content of images.toml. Raises BuildError where it is damaged."""
    path = path or cross_dir() / "images.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{path} cannot be read: {error}. Install edgebit again") from error


def recipe_of(triple: str, cross: Path | None = None) -> Recipe:
    """The recipe of `triple`'s image. Raises BuildError where there is no image for such a triple."""
    cross = cross or cross_dir()
    name = _DOCKERFILES.get(triple.rpartition("-")[2])
    if name is None:
        forms = ", ".join(f"ARCH-linux-{abi}" for abi in _DOCKERFILES)
        raise BuildError(f"there is no cross image for {triple}; there are some for {forms}")
    pins = read_images(cross / "images.toml")
    dockerfile = cross / name
    if name == _ANDROID:
        ndk = pins["ndk"]
        arguments = {"NDK": ndk["release"], "NDK_SHA256": ndk["sha256"], "API_LEVEL": str(ndk["api_level"])}
        arguments |= {"TRIPLE": triple, "PAGE_SIZE": str(ndk["page_size"])}
        digest = hashlib.sha256(json.dumps([arguments], sort_keys=True).encode())
    else:
        arguments = {"TRIPLE": triple, "LIBC_SUITE": pins["floor"]["suite"], "FLOOR": pins["floor"]["glibc"]}
        digest = hashlib.sha256(json.dumps([arguments, pins["packages"]], sort_keys=True).encode())
    for path in (dockerfile, *sorted((cross / "image").glob("*.sh"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    base = pins["base"]
    return Recipe(
        triple=triple,
        dockerfile=dockerfile,
        arguments=arguments,
        base=f"{base['image']}@{base['digest']}" if base["digest"] else base["image"],
        pinned=base["pinned"],
        id=digest.hexdigest()[:12],
    )


def image_triples() -> dict[str, list[str]]:
    """The triples that have an image, each with the targets that ship with edgebit and use it."""
    triples: dict[str, list[str]] = {}
    for target in list_targets():
        if target.triple.rpartition("-")[2] in _DOCKERFILES:
            triples.setdefault(target.triple, []).append(target.name)
            triples.setdefault(target.triple.rpartition("-")[0] + "-musl", [])
    return dict(sorted(triples.items()))


def image_state(recipe: Recipe, engine: ContainerEngine) -> ImageState:
    """Whether `engine` has the image of `recipe`, built from just that."""
    found = engine.inspect(recipe.tag)
    if found is None:
        return ImageState(recipe=recipe, state="missing")
    labels = (found.get("Config") or {}).get("Labels") or {}
    return ImageState(
        recipe=recipe,
        state="ready" if labels.get(_RECIPE_LABEL) == recipe.id else "outdated",
        id=str(found["Id"]),
        size=int(found["Size"]),
        base=labels.get(_BASE_LABEL),
    )


def require_image(target: Target, engine: ContainerEngine) -> ImageState:
    """The image for `target`. Raises BuildError saying how it is built where it is not there, or not up to date."""
    state = image_state(recipe_of(target.triple), engine)
    if state.state != "ready":
        why = {
            "missing": f"{engine.name} has no image {state.recipe.tag}",
            "outdated": f"{engine.name}'s image {state.recipe.tag} was built from other pins or another Dockerfile",
        }[state.state]
        raise BuildError(f"{why}. Build it, once: edgebit cross build {target.name}")
    return state


# ---- building ----


def plan_image(
    recipe: Recipe,
    engine: ContainerEngine,
    *,
    base: str | None = None,
    mirror: str | None = None,
    network: str | None = None,
    fresh: bool = False,
) -> tuple[str, ...]:
    """The command that builds the image of `recipe`.

    base: an image to build on in place of the pinned one; mirror: Debian's archive in place of the usual one.
    """
    base = base or recipe.base
    return engine.build_command(
        recipe.tag,
        recipe.dockerfile,
        arguments={**recipe.arguments, "BASE": base, **({"MIRROR": mirror} if mirror else {})},
        labels={_RECIPE_LABEL: recipe.id, _BASE_LABEL: base},
        network=network,
        fresh=fresh,
    )


def build_image(recipe: Recipe, engine: ContainerEngine, command: tuple[str, ...], report: Report) -> ImageState:
    """Run the `command` of plan_image(), handing each line of it to `report`.

    Raises BuildError with its last lines, and what mends a base or a package that cannot be had.
    """
    lines = _run_lines(command, report)
    if lines is not None:
        tail = "\n".join(lines[-_LOG_LINES:])
        raise BuildError(f"{recipe.tag} could not be built: {' '.join(command)}\n{tail}\n{_mend(recipe, engine, tail)}")
    state = image_state(recipe, engine)
    if state.state != "ready":
        raise BuildError(f"{engine.name} built {recipe.tag} and has none: {state.state}. Build it again with --fresh")
    return state


def _run_lines(command: tuple[str, ...], report: Report) -> list[str] | None:
    """Run a command line by line; its lines where it failed, None where all went well."""
    lines: list[str] = []
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                report(lines[-1])
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}. Install it again") from error
    return None if process.returncode == 0 else lines


def _mend(recipe: Recipe, engine: ContainerEngine, tail: str) -> str:
    if "not what images.toml pins" in tail:
        day = recipe.pinned.replace("-", "")
        return (
            f"Debian's mirror has moved on since {recipe.pinned}. Take the packages of that day:"
            f" --mirror {DATED_ARCHIVE}/{day}T235959Z. Or pin today's: edgebit cross pin"
        )
    if "computed checksum did NOT match" in tail:
        return "What came is not the NDK that images.toml pins. Try again; then see who changes what you download"
    if re.search(_NO_NETWORK, tail):
        return "The build's steps do not reach what they fetch from. Try the machine's own network: --network host"
    if re.search(r"\b(pull|manifest|registry|lookup|initializing source)\b", tail):
        return (
            f"The base {recipe.base} cannot be pulled. Make one of Debian's packages and name it:"
            " mmdebstrap --variant=minbase --include=ca-certificates --format=tar bookworm - |"
            f" {engine.name} import - debian:bookworm; edgebit cross build TARGET --base debian:bookworm"
        )
    return "Try it without the layers of before: --fresh"


def shell_command(recipe: Recipe, engine: ContainerEngine, image: str) -> tuple[str, ...]:
    """Argv of a shell in `image`: kernels and toolchain files to be read, the working folder in /work to be written."""
    mounts = (
        (kernels_dir(), "/src/kernels", "ro"),
        (recipe.dockerfile.parent, "/src/cross", "ro"),
        (Path.cwd(), "/work", "rw"),
    )
    return engine.run_command(
        image, ("sh", "-c", "cd /work && exec bash"), mounts=mounts, env={"HOME": "/tmp"}, terminal=True
    )


# ---- pins ----


def read_versions(
    engine: ContainerEngine, base: str, *, network: str | None, mirror: str | None
) -> dict[str, dict[str, str]]:
    """What Debian's archive has today of all that the images install: suite -> package -> version.

    Raises BuildError where the archive cannot be asked.
    """
    floor = read_images()["floor"]
    env = {"LIBC_SUITE": floor["suite"], **({"MIRROR": mirror} if mirror else {})}
    command = [
        engine.program, "run", "--rm", *(["--security-opt=label=disable"] if engine.name == "podman" else []),
        f"--volume={cross_dir() / 'image'}:/opt/edgebit:ro",
        *([f"--network={network}"] if network else []), *(f"--env={key}={value}" for key, value in env.items()),
        base, "sh", "/opt/edgebit/packages.sh", "versions",
    ]  # fmt: skip
    done = ask(command, _PINS_S)
    if done.returncode != 0:
        raise BuildError(f"the archive could not be asked: {' '.join(command)}\n{done.stderr.strip()[-800:]}")
    return parse_versions(done.stdout)


def parse_versions(text: str) -> dict[str, dict[str, str]]:
    """The lines "SUITE PACKAGE VERSION" as suite -> package -> version. Raises BuildError for any other line."""
    versions: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if not re.fullmatch(r"[a-z]+ [a-z0-9][a-z0-9.+:-]+ [A-Za-z0-9.+:~-]+", line):
            raise BuildError(
                f"packages.sh versions printed {line!r}, not SUITE PACKAGE VERSION: a package has no version"
            )
        suite, package, version = line.split()
        versions.setdefault(suite, {})[package] = version
    if not versions:
        raise BuildError("packages.sh versions printed nothing. Try again with --network host")
    return versions


def pull_digest(engine: ContainerEngine, image: str) -> str:
    """The digest that a registry has for `image` now; empty where none answers."""
    if ask([engine.program, "pull", image], _PINS_S).returncode != 0:
        return ""
    names = (engine.inspect(image) or {}).get("RepoDigests") or []
    return next((name.rpartition("@")[2] for name in names if "@sha256:" in name), "")


def write_pins(
    path: Path, versions: Mapping[str, Mapping[str, str]], digest: str, day: datetime.date, *, dry_run: bool = False
) -> list[str]:
    """Write pins into images.toml and give what changed, a line each; comments and other tables stay as they are."""
    text = path.read_text(encoding="utf-8")
    before = tomllib.loads(text)
    changes = []
    for suite, packages in versions.items():
        old = before.get("packages", {}).get(suite, {})
        for package in sorted(old.keys() | packages.keys()):
            if old.get(package) != packages.get(package):
                changes.append(f"{suite} {package}: {old.get(package, 'new')} -> {packages.get(package, 'gone')}")
        table = f"[packages.{suite}]\n" + "".join(f'"{name}" = "{packages[name]}"\n' for name in sorted(packages))
        text = _replace_table(text, suite, table)
    for key, value in (("digest", digest), ("pinned", day.isoformat())):
        if before["base"][key] != value:
            changes.append(f"base {key}: {before['base'][key] or 'none'} -> {value or 'none'}")
        text = re.sub(rf'^({key} *= *)"[^"]*"', rf'\g<1>"{value}"', text, count=1, flags=re.MULTILINE)
    if dry_run:
        return changes
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{path} cannot be written: {error.strerror}. Pin in a checkout of edgebit") from error
    return changes


def _replace_table(text: str, suite: str, table: str) -> str:
    """`text` with the table of `suite`'s packages in place of the one that it had, or else at its end."""
    found = re.search(rf"^\[packages\.{suite}\]\n(?:\"[^\n]*\n)*", text, re.MULTILINE)
    if found is None:
        return f"{text.rstrip()}\n\n{table}"
    return text[: found.start()] + table + text[found.end() :]
