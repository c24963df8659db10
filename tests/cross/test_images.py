"""Cross images: pins, recipes and states, with an engine that only remembers what it was told."""

import datetime
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgebit.cli import cli
from edgebit.cross.images import parse_versions, read_images, recipe_of, write_pins
from edgebit.errors import BuildError, EdgebitError
from edgebit.resources import cross_dir

# Answers as docker does: `image inspect` gives what the last build was labelled with.
FAKE_DOCKER = """#!/bin/sh
echo "$*" >>"$FAKE/calls"
case $1 in
info) echo '{"ServerVersion": "27.1", "SecurityOptions": []}' ;;
build)
    [ ! -f "$FAKE/broken" ] || { cat "$FAKE/broken" >&2; exit 1; }
    for word; do
        case $word in
        --label=edgebit.recipe=*) recipe=${word##*=} ;;
        --label=edgebit.base=*) base=${word#--label=edgebit.base=} ;;
        --tag=*) tag=${word#--tag=} ;;
        esac
    done
    labels="{\\"edgebit.recipe\\": \\"$recipe\\", \\"edgebit.base\\": \\"$base\\"}"
    echo "[{\\"Id\\": \\"sha256:abc\\", \\"Size\\": 480000000, \\"Config\\": {\\"Labels\\": $labels}}]" >"$FAKE/$tag"
    echo "Successfully built"
    ;;
image) cat "$FAKE/$3" 2>/dev/null || exit 1 ;;
pull) [ -f "$FAKE/registry" ] || exit 1; cp "$FAKE/registry" "$FAKE/$2" ;;
run) cat "$FAKE/versions" || { echo "sh: 0: cannot open /src/cross/identify.sh: No such file" >&2; exit 127; } ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake docker, first on PATH; its file `calls` holds each command it got."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "docker").write_text(FAKE_DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("EDGEBIT_CONTAINER_ENGINE", "docker")
    return folder


@pytest.fixture
def cross(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of cross/ that may be changed, and that the commands take for the one that ships."""
    copy = tmp_path / "cross"
    shutil.copytree(cross_dir(), copy)
    for module in ("images", "toolchain"):
        monkeypatch.setattr(f"edgebit.cross.{module}.cross_dir", lambda: copy)
    monkeypatch.setattr("edgebit.cli.cross.cross_dir", lambda: copy)
    return copy


def edgebit(*arguments: str) -> Result:
    """Run the command line; an EdgebitError is raised."""
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if isinstance(result.exception, EdgebitError):
        raise result.exception
    return result


def test_everything_installed_is_pinned():
    """Each package that packages.sh names has a version, for both libcs and both architectures."""
    pins = read_images()
    here, floor = pins["packages"]["bookworm"], pins["packages"][pins["floor"]["suite"]]

    assert {"gcc", "libc6-dev", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "cmake", "ninja-build"} <= here.keys()
    for arch in ("arm64", "amd64"):
        assert {f"musl:{arch}", f"musl-dev:{arch}", f"linux-libc-dev:{arch}"} <= here.keys()
        assert {f"libc6:{arch}", f"libc6-dev:{arch}", f"libgcc-s1:{arch}", f"linux-libc-dev:{arch}"} <= floor.keys()
    assert floor["libc6:arm64"].startswith(pins["floor"]["glibc"])


def test_recipe_changes_with_what_an_image_is_made_of(cross):
    """Pins, Dockerfile and scripts; a comment about them, or another day, does not."""
    first = recipe_of("aarch64-linux-gnu").id

    def changed(name: str, old: str, new: str) -> bool:
        path = cross / name
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))
        after = recipe_of("aarch64-linux-gnu").id
        path.write_text(before)
        return after != first

    pins = read_images()
    assert changed("images.toml", f'"cmake" = "{pins["packages"]["bookworm"]["cmake"]}"', '"cmake" = "1"')
    assert changed("images.toml", '"2.31"', '"2.36"')
    assert changed("linux.Dockerfile", "USER builder", "USER root")
    assert changed("image/packages.sh", "ninja-build", "ninja-build ccache")
    assert not changed("images.toml", pins["base"]["pinned"], "2020-01-01")
    assert recipe_of("aarch64-linux-musl").id != first


def test_no_image_for_what_linux_images_cannot_do():
    """Said with what there is."""
    with pytest.raises(BuildError, match="no cross image for arm64-apple-darwin; there are some for ARCH-linux-gnu"):
        recipe_of("arm64-apple-darwin")


def test_recipe_of_androids_image_is_an_ndk_by_its_sum(cross):
    """Release, sum, level and page size are arguments; Debian's packages compile nothing there and change nothing."""
    recipe = recipe_of("aarch64-linux-android")
    pins = read_images()

    assert recipe.dockerfile.name == "android.Dockerfile"
    assert recipe.arguments == {
        "TRIPLE": "aarch64-linux-android", "NDK": pins["ndk"]["release"], "NDK_SHA256": pins["ndk"]["sha256"],
        "API_LEVEL": "24", "PAGE_SIZE": "16384",
    }  # fmt: skip
    assert re.fullmatch(r"r[0-9]{2}[a-z]?", pins["ndk"]["release"]) and re.fullmatch(
        "[0-9a-f]{64}", pins["ndk"]["sha256"]
    )
    arguments = set(re.findall(r"^ARG (\w+)", recipe.dockerfile.read_text(), re.MULTILINE))
    assert {*recipe.arguments, "BASE", "MIRROR"} <= arguments
    text = (cross / "images.toml").read_text()
    for old, is_another in (('"ninja-build" = "1', False), (pins["ndk"]["sha256"], True)):
        (cross / "images.toml").write_text(text.replace(old, old[:-1] + "0", 1))
        assert (recipe_of("aarch64-linux-android").id != recipe.id) is is_another, old


@pytest.mark.parametrize("name", ["linux.Dockerfile", "android.Dockerfile"])
def test_images_run_as_no_root_and_keep_no_lists(name):
    """The last user is an ordinary one; a step that asks the archive leaves nothing of it behind."""
    text = (cross_dir() / name).read_text()

    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "builder"
    assert "apt-get update" not in text or "rm -rf /var/lib/apt/lists/*" in text
    assert not re.search(r"^ADD|:latest", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["linux.Dockerfile", "android.Dockerfile"])
def test_hadolint_finds_nothing(require_tool, name):
    """No warning; what is left out on purpose says why beside it."""
    command = [require_tool("hadolint"), "--failure-threshold=warning", str(cross_dir() / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_build_then_list_then_outdated(engine, cross):
    """An image is ready from its build until what it is made of changes, and each state is said."""

    def states() -> dict[str, str]:
        return {one["triple"]: one["state"] for one in json.loads(edgebit("cross", "list", "--json").stdout)["images"]}

    assert set(states().values()) == {"missing"}
    said = json.loads(edgebit("cross", "build", "rpi", "--base", "debian:mine", "--network", "host", "--json").stdout)
    assert (said["state"], said["base"], said["size"]) == ("ready", "debian:mine", 480000000)
    assert states() == {triple: "ready" if triple == "aarch64-linux-gnu" else "missing" for triple in states()}

    with (cross / "linux.Dockerfile").open("a") as file:
        file.write("RUN true\n")

    assert states()["aarch64-linux-gnu"] == "outdated"
    with pytest.raises(
        BuildError, match=r"other pins or another Dockerfile\. Build it, once: edgebit cross build rpi$"
    ):
        edgebit("cross", "shell", "rpi", "--dry-run")


def test_dry_run_runs_nothing(engine, cross):
    """What is printed is the command; the engine was asked for its version alone."""
    said = json.loads(edgebit("cross", "build", "rpi", "--base", "debian:mine", "--dry-run", "--json").stdout)

    assert "--build-arg=TRIPLE=aarch64-linux-gnu" in said["command"]
    assert "--build-arg=BASE=debian:mine" in said["command"]
    assert (engine / "calls").read_text().split("\n") == ["info --format {{json .}}", ""]


def test_missing_image_says_how_it_is_built(engine):
    """Before anything else is done, and without building one unasked."""
    with pytest.raises(
        BuildError, match=r"docker has no image edgebit-cross:aarch64-linux-gnu.*edgebit cross build rpi"
    ):
        edgebit("cross", "check", "rpi", "--builder", "docker")

    assert "build" not in {line.split()[0] for line in (engine / "calls").read_text().splitlines()}


def test_engine_on_another_machine_is_told_from_a_broken_one(engine, cross):
    """Its containers do not see the folders that are mounted."""
    edgebit("cross", "build", "rpi")

    with pytest.raises(BuildError, match=r"does not see this machine's folders.*DOCKER_HOST"):
        edgebit("cross", "check", "rpi", "--builder", "docker")


def test_shell_shows_the_sources_read_only(engine, cross):
    """And a working folder to write into."""
    edgebit("cross", "build", "rpi")

    said = json.loads(edgebit("cross", "shell", "rpi", "--dry-run", "--json").stdout)["command"]

    assert any(word.endswith(":/src/kernels:ro") for word in said)
    assert f"--volume={Path.cwd()}:/work:rw" in said
    assert {"--interactive", "--tty", "--network=none"} <= set(said)


@pytest.mark.parametrize(
    ("log", "promised"),
    [
        (
            "cmake: pinned is 1, the archive has 2\npackages.sh: not what images.toml pins",
            ["--mirror http://", "edgebit cross pin"],
        ),
        ("Temporary failure resolving 'deb.debian.org'", ["--network host"]),
        ("curl: (6) Could not resolve host: dl.google.com", ["--network host"]),
        ("curl: (7) Failed to connect to dl.google.com port 443", ["--network host"]),
        ("sha256sum: WARNING: 1 computed checksum did NOT match", ["not the NDK that images.toml pins"]),
        ("failed to resolve source metadata for docker.io/library/debian: lookup", ["mmdebstrap"]),
        ("pull access denied for debian", ["mmdebstrap", "docker import", "--base debian:bookworm"]),
        ("Killed", ["--fresh"]),
    ],
)
def test_failed_build_says_what_mends_it(engine, cross, log, promised):
    """The engine's last words, and what to do about them."""
    (engine / "broken").write_text(log)

    with pytest.raises(BuildError) as refused:
        edgebit("cross", "build", "rpi")

    assert all(words in str(refused.value) for words in [*promised, log.splitlines()[-1]])


def test_no_engine_is_no_end_of_the_list(monkeypatch, tmp_path):
    """What could be built is shown, with how to get an engine."""
    monkeypatch.setenv("PATH", str(tmp_path))

    said = edgebit("cross", "list", "--json")

    assert {one["state"] for one in json.loads(said.stdout)["images"]} == {"unknown"}
    assert "apt-get install podman" in json.loads(said.stdout)["problem"]


def test_pin_writes_todays_versions_and_keeps_the_rest(engine, cross):
    """Package tables anew, the digest where a registry answered, every comment as it was."""
    before = (cross / "images.toml").read_text()
    digest = "sha256:" + "5" * 64
    (engine / "versions").write_text("bookworm cmake 9.9-1\nbullseye libc6:arm64 2.31-99\n")
    (engine / "registry").write_text(json.dumps([{"RepoDigests": [f"debian@{digest}"]}]))

    dry = edgebit("cross", "pin", "--dry-run").output
    assert (cross / "images.toml").read_text() == before
    wet = edgebit("cross", "pin").output

    text = (cross / "images.toml").read_text()
    after = tomllib.loads(text)
    assert after["packages"] == {"bookworm": {"cmake": "9.9-1"}, "bullseye": {"libc6:arm64": "2.31-99"}}
    assert after["base"]["digest"] == digest
    assert after["floor"] == tomllib.loads(before)["floor"]
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in before.splitlines() if line.startswith("#")
    ]
    assert f"base digest: none -> {digest}" in wet and "not written" in dry
    assert "bookworm gcc: 4:12.2.0-3 -> gone" in wet
    assert recipe_of("aarch64-linux-gnu").base == f"debian:bookworm-slim@{digest}"

    (engine / "registry").unlink()
    assert f"cannot be pulled: its digest stays {digest}" in edgebit("cross", "pin").output
    assert recipe_of("aarch64-linux-gnu").base == f"debian:bookworm-slim@{digest}"


def test_pins_that_do_not_change_change_no_byte(cross):
    """Writing what is there gives the same file."""
    path = cross / "images.toml"
    before, pins = path.read_bytes(), read_images()
    day = datetime.date.fromisoformat(pins["base"]["pinned"])

    assert write_pins(path, pins["packages"], pins["base"]["digest"], day) == []
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "bookworm cmake", 'bookworm cmake 1"\n[base]', "bookworm cmake 1 2", "Err:1 http"]
)
def test_strange_versions_are_not_written(text):
    """What the archive's side prints cannot become TOML of its own."""
    with pytest.raises(BuildError, match=r"packages\.sh"):
        parse_versions(text)


def test_damaged_pins_are_an_error(cross):
    """In words, with the file."""
    (cross / "images.toml").write_text("[base")

    with pytest.raises(BuildError, match=r"images\.toml cannot be read"):
        recipe_of("aarch64-linux-gnu")
