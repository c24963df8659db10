"""The trial's own judge: a process beside the daemon that decides a trial which nobody else decides.

A deploy asks the new bundle itself, and keeps it or takes it back. When the machine that deploys is lost meanwhile, or
the device is switched off, the bundle or its settings stay on trial; then this does it: it asks the same questions
(health.py), and either commits, or goes back and ends the daemon, so that whoever keeps it running starts the one
before. It dies with the daemon. Standard library and paho-mqtt only.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgebit.bundle.slots import Slots, locked
from edgebit.daemon.install.health import check_health
from edgebit.daemon.install.service import STOP_TIMEOUT_S, die_with_parent, gate_argv
from edgebit.daemon.install.settings import keep_settings, restore_settings, settings_on_trial
from edgebit.errors import BrokerError, ConfigError, EdgebitError, NoAnswerError


def start_gate(root: Path) -> None:
    """Beside this process, the daemon: have the trial decided, if there is one."""
    active = Slots(root).active()
    if active is None or not _on_trial(root, active.id):
        return
    with contextlib.suppress(OSError):  # no room for a process: the trial stays open, and the daemon answers
        judge = subprocess.Popen(
            gate_argv(root, active.id, os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # its answer is for programs; what it has to say to people is on standard error
            preexec_fn=die_with_parent(os.getpid()),
        )
        threading.Thread(target=judge.wait, name="gate", daemon=True).start()


class Gate:
    """Decides the trial of the bundle `identity`; `guarded` is its daemon's process, this one's parent."""

    def __init__(self, root: Path, identity: str, guarded: int, timeout_s: float) -> None:
        self._root = root
        self._identity = identity
        self._guarded = guarded
        self._timeout_s = timeout_s

    def decide(self, delay_s: float, again_s: float) -> str:
        """Wait, look, and go on until the trial is over; gives how it ended: "kept", "ended" or "decided" by others.

        What leaves it open is said in the log, once.
        """
        pause_s, said = delay_s, ""
        while self._wait(pause_s):
            pause_s = again_s
            if not self._is_active():
                self._end_daemon()  # a deploy went back, and was lost before it could start the one before
                return "ended"
            if not _on_trial(self._root, self._identity):
                return "decided"
            try:
                check_health(self._root, self._identity, self._timeout_s, alive=self._is_daemon_there)
            except EdgebitError as error:
                if self._is_daemon_there() and self._went_back(error):
                    self._end_daemon()
                    return "ended"
                if str(error) != said:
                    said = str(error)
                    print(f"bundle {self._identity} stays on trial: {said}", file=sys.stderr, flush=True)
            else:
                self._keep()
                return "kept"
        return "ended"

    def _keep(self) -> None:
        with locked(self._root):
            if self._is_active():
                Slots(self._root).commit(self._identity, prune=False)
                keep_settings(self._root)

    def _went_back(self, error: EdgebitError) -> bool:
        """Go back if there is something else to go back to; a broker out of reach is no bundle's fault."""
        blamed = isinstance(error, NoAnswerError)
        if not blamed and not (isinstance(error, BrokerError | ConfigError) and settings_on_trial(self._root)):
            return False
        with locked(self._root):
            slots = Slots(self._root)
            active = slots.active()
            if active is None or active.id != self._identity:
                return True
            if active.status == "trying" and slots.previous() is not None:
                if blamed:
                    slots.fail(str(error))
                else:
                    slots.withdraw()
                restore_settings(self._root)
                return True
            return restore_settings(self._root)

    def _is_active(self) -> bool:
        active = Slots(self._root).active()
        return active is not None and active.id == self._identity

    def _is_daemon_there(self) -> bool:
        return os.getppid() == self._guarded

    def _wait(self, seconds: float) -> bool:
        """Sleep; gives whether the daemon is still there."""
        return not _until(lambda: not self._is_daemon_there(), seconds)

    def _end_daemon(self) -> None:
        """Have it answer what it has and end; whoever keeps it running starts what `active` names."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._guarded, signal.SIGTERM)
            if not _until(lambda: not self._is_daemon_there(), STOP_TIMEOUT_S):
                os.kill(self._guarded, signal.SIGKILL)


def _on_trial(root: Path, identity: str) -> bool:
    active = Slots(root).active()
    return settings_on_trial(root) or (active is not None and active.id == identity and active.status == "trying")


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(min(0.2, max(seconds, 0.01)))
    return True
