"""Docker or Podman: which one is here, and the commands that build an image and run something in it.

Nothing here decides what an image holds (images.py) or what is compiled in it (native.py).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebit.errors import BuildError

ENGINES = ("docker", "podman")
ENGINE_VARIABLE = "EDGEBIT_CONTAINER_ENGINE"
INSTALL_ENGINE = (
    "sudo apt-get install podman (Debian, Ubuntu; needs no daemon), or Docker: https://docs.docker.com/engine/install/"
)
_ANSWER_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerEngine:
    """An engine that answered."""

    name: str  # docker or podman
    program: str  # its path
    version: str  # of the engine, not of the command
    rootless: bool  # runs as an ordinary user, who is root inside its containers

    def run_command(
        self,
        image: str,
        command: Sequence[str],
        *,
        mounts: Sequence[tuple[Path, str, str]] = (),
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        terminal: bool = False,
    ) -> tuple[str, ...]:
        """Argv that runs `command` in `image`: without network, as the calling user, nothing but `mounts` to be seen.

        mounts: (folder of this machine, place in the container, "ro" or "rw"). name: of the container, for kill().
        """
        user = f"{os.getuid()}:{os.getgid()}"
        argv = [self.program, "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=all"]
        argv.append("--security-opt=no-new-privileges")
        if self.name == "podman":
            argv.append("--security-opt=label=disable")  # SELinux: else mounted folders need labels of their own
            if self.rootless:
                argv.append("--userns=keep-id")
        elif self.rootless:
            user = "0:0"  # rootless Docker maps its root to the calling user, and offers no keep-id
        argv.append(f"--user={user}")
        argv += [f"--name={name}"] if name else []
        if terminal:
            argv += ["--interactive", "--tty"]
        argv += [f"--volume={here}:{there}:{mode}" for here, there, mode in mounts]
        argv += [f"--env={key}={value}" for key, value in sorted((env or {}).items())]
        return (*argv, image, *command)

    def build_command(
        self,
        tag: str,
        dockerfile: Path,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        network: str | None = None,
        fresh: bool = False,
    ) -> tuple[str, ...]:
        """Argv that builds the image `tag` from `dockerfile`, its folder being what COPY sees.

        network: of the build's steps, as the engine names it; None: the engine's own. fresh: use no layer of before.
        """
        argv = [self.program, "build", f"--file={dockerfile}", f"--tag={tag}"]
        argv += [f"--network={network}"] if network else []
        argv += ["--no-cache"] if fresh else []
        argv += [f"--build-arg={key}={value}" for key, value in sorted(arguments.items())]
        argv += [f"--label={key}={value}" for key, value in sorted(labels.items())]
        return (*argv, str(dockerfile.parent))

    def kill(self, name: str) -> None:
        """End the container `name`, if it is still there: one outlives the command that started it."""
        ask([self.program, "kill", name])

    def inspect(self, image: str) -> Mapping[str, Any] | None:
        """What the engine knows of an image it has; None where it has none of that name."""
        done = ask([self.program, "image", "inspect", image])
        if done.returncode != 0:
            return None
        try:
            found = json.loads(done.stdout)[0]
        except (ValueError, LookupError) as error:
            raise BuildError(f"{self.program} image inspect {image} printed no JSON: {done.stdout[:200]!r}") from error
        return found if isinstance(found, dict) else None


def ask(command: Sequence[str], timeout_s: float = _ANSWER_S) -> subprocess.CompletedProcess[str]:
    """Run a short command of an engine with the user's own environment (DOCKER_HOST, contexts). Raises BuildError."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
            timeout=timeout_s,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}. Install it again: {INSTALL_ENGINE}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{' '.join(command[:3])} did not answer in {timeout_s:.0f} s. Start the engine again"
        ) from error


def find_container_engine(
    name: str | None = None,
    *,
    tool: Callable[[str], str | None] = shutil.which,
    ask: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = ask,
) -> ContainerEngine:
    """The engine `name`, or the environment's, or the first of docker and podman that answers.

    The environment names one with EDGEBIT_CONTAINER_ENGINE, and a Docker with DOCKER_HOST: then no other is taken.
    The callables find a program and run it; tests give their own.
    Raises BuildError naming what was tried, and how an engine is had.
    """
    named = name or os.environ.get(ENGINE_VARIABLE) or ("docker" if os.environ.get("DOCKER_HOST") else None)
    if named and named not in ENGINES:
        raise BuildError(f"there is no container engine {named!r} ({ENGINE_VARIABLE}); there are {', '.join(ENGINES)}")
    failures = []
    for candidate in (named,) if named else ENGINES:
        program = tool(candidate)
        if program is None:
            failures.append(f"{candidate} is not on PATH")
            continue
        done = ask([program, "info", "--format", "{{json .}}"])
        engine = _read_info(program, done.stdout) if done.returncode == 0 else None
        if engine is not None:
            return engine
        words = (done.stderr.strip() or done.stdout.strip() or "no answer").splitlines()[-1].partition(". ")[0]
        where = f" (DOCKER_HOST={os.environ['DOCKER_HOST']})" if "DOCKER_HOST" in os.environ else ""
        failures.append(f"{candidate} is there and its engine does not answer{where}: {words[:200].rstrip('.?!')}")
    silent = any("does not answer" in failure for failure in failures)
    start = "Start it (sudo systemctl start docker) and be in its group, or get another: " if silent else "Get one: "
    raise BuildError(f"no container engine: {'; '.join(failures)}. {start}{INSTALL_ENGINE}")


def _read_info(program: str, text: str) -> ContainerEngine | None:
    """The engine that `info` tells of in JSON; None where there is none in it, as when only docker's client answers.

    Podman also goes by the name docker (Debian's podman-docker), so what it prints says which one it is.
    """
    try:
        info = json.loads(text)
        if "host" in info:
            name, version, rootless = "podman", info["version"]["Version"], info["host"]["security"]["rootless"]
        else:
            name, version = "docker", info["ServerVersion"]
            rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
    except (ValueError, LookupError, TypeError):
        return None
    if not version:
        return None
    return ContainerEngine(name=name, program=program, version=str(version), rootless=bool(rootless))
