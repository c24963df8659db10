"""Docker and Podman: which is taken, and the commands for each, decided without either."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgebit.cross.container import ContainerEngine, find_container_engine
from edgebit.errors import BuildError

DOCKER = json.dumps({"ServerVersion": "27.1", "SecurityOptions": ["name=seccomp,profile=default"]})
ROOTLESS_DOCKER = json.dumps({"ServerVersion": "27.1", "SecurityOptions": ["name=rootless", "name=cgroupns"]})
CLIENT_ALONE = json.dumps({"ServerVersion": "", "ServerErrors": ["Cannot connect"]})
PODMAN = json.dumps({"host": {"security": {"rootless": True}}, "version": {"Version": "4.3.1"}})


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own engine does not count."""
    for name in ("DOCKER_HOST", "EDGEBIT_CONTAINER_ENGINE"):
        monkeypatch.delenv(name, raising=False)


def find(answers: Mapping[str, str | int], name: str | None = None) -> ContainerEngine:
    """The engine found where these programs are installed and answer `info` so; a number is an exit code."""

    def ask(command: list[str]) -> subprocess.CompletedProcess[str]:
        answer = answers[Path(command[0]).name]
        if isinstance(answer, int):
            return subprocess.CompletedProcess(command, answer, "", "Cannot connect to the Docker daemon")
        return subprocess.CompletedProcess(command, 0, answer, "")

    return find_container_engine(name, tool=lambda name: f"/usr/bin/{name}" if name in answers else None, ask=ask)


@pytest.mark.parametrize(
    ("answers", "named", "name", "rootless"),
    [
        ({"docker": DOCKER, "podman": PODMAN}, None, "docker", False),
        ({"docker": ROOTLESS_DOCKER}, None, "docker", True),
        ({"docker": 1, "podman": PODMAN}, None, "podman", True),
        ({"docker": CLIENT_ALONE, "podman": PODMAN}, None, "podman", True),
        ({"docker": DOCKER, "podman": PODMAN}, "podman", "podman", True),
        ({"docker": PODMAN}, None, "podman", True),  # Debian's podman-docker calls it docker
    ],
)
def test_first_engine_that_answers_is_taken(answers, named, name, rootless):
    """And is what it says it is, whatever its program is called."""
    engine = find(answers, named)

    assert (engine.name, engine.rootless) == (name, rootless)


@pytest.mark.parametrize(
    ("answers", "environment", "promised"),
    [
        ({}, {}, ["docker is not on PATH", "podman is not on PATH", "sudo apt-get install podman"]),
        ({"docker": 1}, {}, ["docker is there and its engine does not answer", "Cannot connect", "podman is not on"]),
        ({"docker": "no json"}, {}, ["docker is there"]),
        ({"docker": "[]"}, {}, ["docker is there"]),
        ({"docker": '{"SecurityOptions": null}'}, {}, ["docker is there"]),
        ({"docker": 1, "podman": PODMAN}, {"DOCKER_HOST": "tcp://far:1"}, ["docker is there", "tcp://far:1"]),
        ({"podman": PODMAN}, {"EDGEBIT_CONTAINER_ENGINE": "docker"}, ["docker is not on PATH"]),
        ({"podman": PODMAN}, {"EDGEBIT_CONTAINER_ENGINE": "lxc"}, ["no container engine 'lxc'", "docker, podman"]),
    ],
)
def test_no_engine_says_what_was_tried_and_how_one_is_had(answers, environment, promised, monkeypatch):
    """An engine that was named is never replaced by another."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)

    with pytest.raises(BuildError) as refused:
        find(answers)

    assert all(words in str(refused.value) for words in promised)


@pytest.mark.parametrize(
    ("name", "rootless", "has", "has_not"),
    [
        ("docker", False, {"--user=1234:99"}, {"--userns=keep-id"}),
        ("docker", True, {"--user=0:0"}, {"--userns=keep-id"}),
        ("podman", False, {"--user=1234:99", "--security-opt=label=disable"}, {"--userns=keep-id"}),
        ("podman", True, {"--user=1234:99", "--userns=keep-id"}, {"--user=0:0"}),
    ],
)
def test_files_belong_to_the_caller_on_each_engine(name, rootless, has, has_not, monkeypatch):
    """Who the caller is inside a container differs; that nothing but the mounts is open does not."""
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setattr("os.getgid", lambda: 99)
    engine = ContainerEngine(name=name, program=f"/usr/bin/{name}", version="1", rootless=rootless)

    argv = engine.run_command("image", ("cmake",), mounts=((Path("/a b"), "/src", "ro"),), env={"LC_ALL": "C"})

    assert has <= set(argv) and not has_not & set(argv)
    assert {"--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"} <= set(argv)
    assert {"--volume=/a b:/src:ro", "--env=LC_ALL=C"} <= set(argv)
    assert argv[-2:] == ("image", "cmake")


def test_program_that_is_no_program_is_an_error(tmp_path):
    """A file that cannot be run, under an engine's name."""
    (tmp_path / "docker").write_text("\x7fELF not really")
    (tmp_path / "docker").chmod(0o755)

    with pytest.raises(BuildError, match="does not run"):
        find_container_engine("docker", tool=lambda name: str(tmp_path / name))
