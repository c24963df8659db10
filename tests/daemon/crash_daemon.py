"""Daemons that die at a step of their journal, and are started again: a program that forks one for each order.

An order is a line of JSON on standard input: `name`, `config`, `state`, and `lives`, a list of how each life ends, such
as {"die_at": 17, "how": "kill"}; the one after the last of them lasts until SIGTERM. A step is a write, a sync, a
rename, a file's room or length changed, an answer published, a request acknowledged. `kill` dies before it; `torn` half
way through, where it is a write; `power` before it, and takes from the disk all that was not synced. When a daemon has
ended for good, its name, exit code, number of lives, and steps of the last one come on standard output. {"stop": name}
ends it; one that dies of its order while it ends has another life, which ends at once.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from fake_daemon import FakeModel

from edgebit.daemon.app import Daemon, set_up_logging
from edgebit.daemon.config.reader import read_config


class Disk:
    """What a power cut leaves of the journal: the bytes that were synced, under the name that was."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.part = journal.with_name("journal.part")
        self.synced: dict[int, bytes] = {}
        self.kept = self.named = None
        if journal.exists():
            self.kept = self.named = journal.stat().st_ino
            self.synced[self.named] = journal.read_bytes()

    def synced_now(self, handle: int) -> None:
        about = os.fstat(handle)
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        if path == str(self.journal.parent):
            self.kept = self.named
        elif path in (str(self.journal), str(self.part)):
            self.synced[about.st_ino] = Path(path).read_bytes()

    def renamed(self) -> None:
        self.named = self.journal.stat().st_ino

    def lose(self) -> None:
        self.part.unlink(missing_ok=True)
        if self.kept is None:
            self.journal.unlink(missing_ok=True)
        else:
            self.journal.write_bytes(self.synced.get(self.kept, b""))


class Steps:
    """Counts, and dies at its step. One step at a time."""

    def __init__(self, state: Path, die_at: int, how: str) -> None:
        self.count = 0
        self._die_at, self._how = die_at, how
        self._lock = threading.RLock()
        self._disk = Disk(state / "journal")
        self._pwrite = os.pwrite

    def install(self) -> None:
        for name in ("pwrite", "fdatasync", "fsync", "posix_fallocate", "ftruncate", "replace"):
            setattr(os, name, self._step(name, getattr(os, name)))
        publish, ack = paho.Client.publish, paho.Client.ack
        answer = self._step("publish", publish)

        def only_answers(client: paho.Client, topic: str, *arguments: Any) -> paho.MQTTMessageInfo:
            return (answer if "/out/" in topic else publish)(client, topic, *arguments)

        paho.Client.publish = only_answers
        paho.Client.ack = self._step("ack", ack)

    def _step(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            with self._lock:
                self.count += 1
                if self.count == self._die_at:
                    self._die(name, arguments)
                result = act(*arguments)
                if name in ("fdatasync", "fsync"):
                    self._disk.synced_now(arguments[0])
                elif name == "replace" and str(arguments[1]) == str(self._disk.journal):
                    self._disk.renamed()
                return result

        return step

    def _die(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._how == "torn" and name == "pwrite":
            handle, data, at = arguments
            self._pwrite(handle, bytes(data[: len(data) // 2]), at)
        if self._how == "power":
            self._disk.lose()
        print(f"dies at step {self.count}, {name}, {self._how}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def stop_soon() -> None:
    """SIGTERM as soon as it is heard."""
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGTERM)


def live(order: dict[str, Any], life: dict[str, Any] | None, stopped: bool) -> int:
    """One life; gives the exit code."""
    state = Path(order["state"])
    log = os.open(state.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    set_up_logging("debug")
    steps = Steps(state, **(life or {"die_at": 0, "how": "kill"}))
    steps.install()
    if stopped:
        threading.Thread(target=stop_soon, daemon=True).start()
    code = Daemon(read_config(Path(order["config"])), state, FakeModel).run()
    (state.parent / "steps").write_text(str(steps.count))
    return code


class Forks:
    """The daemons that live."""

    def __init__(self) -> None:
        self._orders: dict[int, tuple[dict[str, Any], int]] = {}
        self._stopped: set[str] = set()

    def start(self, order: dict[str, Any], number: int = 0) -> None:
        lives = order["lives"]
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = live(order, lives[number] if number < len(lives) else None, order["name"] in self._stopped)
            finally:
                os._exit(code)
        self._orders[pid] = (order, number)

    def stop(self, name: str) -> None:
        self._stopped.add(name)
        for pid, (order, _) in self._orders.items():
            if order["name"] == name:
                os.kill(pid, signal.SIGTERM)

    def look(self) -> None:
        while self._orders:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            order, number = self._orders.pop(pid)
            if os.WIFSIGNALED(status):
                self.start(order, number + 1)
                continue
            steps = int((Path(order["state"]).parent / "steps").read_text())
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"name": order["name"], "code": code, "lives": number + 1, "steps": steps}), flush=True)

    def end(self) -> None:
        for pid in self._orders:
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Take orders until standard input is closed."""
    forks = Forks()
    while True:
        if select.select([0], [], [], 0.01)[0]:
            line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
            if not line:
                forks.end()
                return
            order = json.loads(line)
            if "stop" in order:
                forks.stop(order["stop"])
            else:
                forks.start(order)
        forks.look()


if __name__ == "__main__":
    main()
