"""Keeping the daemon running: by systemd where the device has it, else by a small supervisor of our own.

The supervisor is a detached process that restarts the daemon when it dies, ever more slowly, and counts the tries of a
bundle on trial. systemd's unit does the same through ExecStartPre. At no time is there nobody who would start the
daemon: systemd (systemd.py) restarts it in one job, and a new supervisor ends the old one itself. In Termux that
supervisor is started after a reboot too (termux.py). Standard library only.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from edgebit.bundle.manifest import DAEMON_MEMBER
from edgebit.bundle.slots import TRIES, Slot, Slots, locked
from edgebit.daemon.install import systemd, termux
from edgebit.daemon.install.heartbeat import SILENCE_S, Heartbeat
from edgebit.daemon.install.settings import count_start, restore_settings, settings_on_trial
from edgebit.daemon.install.systemd import SystemdKind
from edgebit.errors import DeployError

Kind = Literal[SystemdKind, "supervisor", "termux"]

STOP_TIMEOUT_S = 58.0  # for the daemon to answer what it has with 503 and to end; then it is killed
LOG_MAX_BYTES = 4 << 20  # then it becomes edgebitd.log.1
_ABORT_S = 5.0  # for a daemon that hangs to say where
_STEADY_S = 60.0  # a daemon that ran so long begins anew with the shortest pause
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
_TAKE_OVER_S = STOP_TIMEOUT_S + 5  # for the supervisor before to end its daemon and itself
_SLOTS_WAIT_S = 10.0  # a deploy that sums a large model holds the slots; the daemon does not wait for it for ever
_PR_SET_PDEATHSIG = 1


def detect(wanted: str = "auto") -> Kind:
    """How the daemon is kept running here. Raises DeployError where `wanted` ("systemd") does not exist."""
    if wanted == "supervisor":
        return "supervisor"
    if wanted == "auto" and termux.is_termux():
        return "termux"
    if (instance := systemd.instance()) is not None:
        return instance
    if wanted == "systemd":
        raise DeployError("systemd does not run on this device, or has no instance for this user. Leave --service out")
    return "supervisor"


class Service:
    """The daemon of one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "run" / "edgebitd.log"

    def kind(self) -> Kind | None:
        """How it is kept running since the last start(); None before the first."""
        try:
            text = (self.root / "run" / "service").read_text().strip()
        except OSError:
            return None
        return text if text in get_args(Kind) else None  # type: ignore[return-value]

    def start(self, kind: Kind) -> str:
        """Start the daemon of the active slot, now and, where there is systemd, at every boot; gives a remark or "".

        One that runs already ends first, in the same act. Raises DeployError where it cannot be started.
        """
        (self.root / "run").mkdir(exist_ok=True)
        if self.kind() not in (None, kind):
            self.disable()
        self._remember(kind)
        if kind == "supervisor":
            self._start_supervisor()
            return "no systemd here: the daemon is restarted when it dies, but not after a reboot"
        if kind == "termux":
            termux.install_boot_script([*_pyz_argv(self.root), "agent", "--root", str(self.root), "start"], self.log)
            self._start_supervisor()
            return termux.REMARK
        systemd.install_unit(kind, self.root)
        self._stop_supervisor()
        return systemd.restart(kind, _TAKE_OVER_S + 10)

    def stop(self) -> None:
        """Stop the daemon, which answers what it has with 503. Does nothing where none runs."""
        if (kind := self.kind()) in ("systemd-user", "systemd-system"):
            systemd.stop(kind)
        self._stop_supervisor()

    def _stop_supervisor(self) -> None:
        pid = self._supervisor_pid()
        if pid is None:
            return
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _TAKE_OVER_S
        while self._supervisor_pid() == pid:
            if time.monotonic() > deadline:
                self._kill_supervisor(pid)
                deadline = time.monotonic() + 5
            time.sleep(0.05)

    def _kill_supervisor(self, pid: int) -> None:
        child = self._daemon_pid()
        _signal(pid, signal.SIGKILL)
        if child is not None:
            _signal(child, signal.SIGKILL)

    def disable(self) -> None:
        """Stop the daemon and take its unit away."""
        self.stop()
        kind = self.kind()
        if kind in ("systemd-user", "systemd-system"):
            systemd.disable(kind)
        if kind == "termux":
            termux.remove_boot_script()

    def pid(self) -> int | None:
        """The daemon's process, where it runs."""
        kind = self.kind()
        if kind in ("systemd-user", "systemd-system"):
            return systemd.pid(kind)
        return None if self._supervisor_pid() is None else self._daemon_pid()

    def _daemon_pid(self) -> int | None:
        try:
            pid = int((self.root / "run" / "edgebitd.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def is_up(self) -> bool:
        """Whether something keeps the daemon running; the daemon itself may just be starting again."""
        kind = self.kind()
        if kind in ("systemd-user", "systemd-system"):
            return systemd.is_up(kind)
        return self._supervisor_pid() is not None

    def starting(self) -> Slot:
        """Before each start: count the tries of a bundle and of settings on trial, and end the trial after TRIES.

        Gives the slot to start. A full or read-only disk, or a deploy that holds the slots, is no reason not to: then
        it is what `active` names, uncounted. Raises DeployError where none is left.
        """
        try:
            self.rotate_log()
            with locked(self.root, _SLOTS_WAIT_S):
                return self._counted()
        except OSError as error:
            self._say(f"this start is not counted: {error}")
        slot = Slots(self.root).active()
        if slot is None:
            raise DeployError(f"no bundle is active under {self.root}. Deploy one")
        return slot

    def _counted(self) -> Slot:
        slots = Slots(self.root)
        before, slot = slots.active(), slots.starting()
        if before is not None and before.name != slot.name:
            restore_settings(self.root)
        elif settings_on_trial(self.root) and not count_start(self.root, TRIES):
            restore_settings(self.root)
            self._say(f"the settings from before are back: with the new ones it did not stay up in {TRIES} starts")
        return slot

    def supervise(self) -> None:
        """Be the supervisor, once the one before has ended: returns after SIGTERM.

        Raises DeployError where no slot is left to start.
        """
        if Slots(self.root).active() is None:
            raise DeployError(f"no bundle is active under {self.root}. Deploy one")
        guard = self._take_over()
        os.ftruncate(guard, 0)
        os.pwrite(guard, f"{os.getpid()}\n".encode(), 0)
        stopping = threading.Event()
        child: subprocess.Popen[bytes] | None = None

        def stop(number: int, frame: object) -> None:
            stopping.set()
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        failures = 0
        while not stopping.is_set():
            slot = self.starting()
            self._say(f"starting bundle {slot.id} from slot {slot.name}")
            began = time.monotonic()
            with Heartbeat(self.root / "run" / "notify") as heartbeat:
                child = self._spawn_daemon(heartbeat)
                if child is not None:
                    if stopping.is_set():  # the signal came before there was a child to pass it on to
                        child.send_signal(signal.SIGTERM)
                    how = _how(self._wait(child, stopping, heartbeat))
                else:
                    how = "no process"
            if stopping.is_set():
                break
            failures = 0 if time.monotonic() - began > _STEADY_S else failures
            pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            failures += 1
            self._say(f"the daemon ended with {how}; next start in {pause_s:g} s")
            stopping.wait(pause_s)
        self._say("stopped")

    def _take_over(self) -> int:
        """The supervisor's lock, as a handle, after whoever held it was told to end, and killed if it did not."""
        told: int | None = None
        deadline = time.monotonic() + _TAKE_OVER_S
        while (guard := _lock_or_none(self.root / "run" / "supervisor.lock")) is None:
            holder = self._supervisor_pid()
            if holder is not None and holder != told:
                _signal(holder, signal.SIGTERM)
                told = holder
            if holder is not None and time.monotonic() > deadline:
                self._kill_supervisor(holder)
                deadline = time.monotonic() + 5
            time.sleep(0.01)
        return guard

    def _spawn_daemon(self, heartbeat: Heartbeat) -> subprocess.Popen[bytes] | None:
        """The daemon, or None where the system has no room for a process now."""
        place = self.root / "run" / "edgebitd.pid"
        try:
            child = subprocess.Popen(
                daemon_argv(self.root),
                stdin=subprocess.DEVNULL,
                cwd=self.root,
                env=heartbeat.environment(),
                preexec_fn=die_with_parent(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._say(f"the daemon cannot be started now: {error}")
            return None
        with contextlib.suppress(OSError):  # a full disk: then only `status` does not know it
            place.write_text(f"{child.pid}\n")
        return child

    def _wait(self, child: subprocess.Popen[bytes], stopping: threading.Event, heartbeat: Heartbeat) -> int:
        """Until the daemon has ended, or is ended since it hangs or takes too long to stop; gives its exit code."""
        deadline = None
        while True:
            try:
                code = child.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self.rotate_log()
            else:
                with contextlib.suppress(OSError):
                    (self.root / "run" / "edgebitd.pid").unlink(missing_ok=True)
                return code
            hangs = heartbeat.is_late()
            if hangs and deadline is None:
                self._say(f"the daemon has said nothing for {SILENCE_S:g} s, and is ended")
                child.send_signal(signal.SIGABRT)  # its log then says where each thread stood
            if stopping.is_set() or hangs:
                deadline = deadline or time.monotonic() + (_ABORT_S if hangs else STOP_TIMEOUT_S)
                if time.monotonic() > deadline:
                    child.kill()

    def rotate_log(self) -> None:
        """Keep the log short: the daemon holds it open for appending, so it is copied and emptied, not renamed.

        Where the disk has no room for the copy, the old lines go.
        """
        with contextlib.suppress(OSError):
            if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
                with contextlib.suppress(OSError):
                    shutil.copyfile(self.log, self.log.with_name("edgebitd.log.1"))
                os.truncate(self.log, 0)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end who starts the daemon
            print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), "supervisor:", text, file=sys.stderr, flush=True)

    def _remember(self, kind: Kind) -> None:
        new = self.root / "run" / "service.new"
        new.write_text(kind + "\n")
        new.replace(self.root / "run" / "service")

    def _start_supervisor(self) -> None:
        started = self._spawn_supervisor()
        deadline = time.monotonic() + _TAKE_OVER_S + 30
        while self._supervisor_pid() != started.pid:
            if started.poll() is not None:
                # One that was started before and still waited may have told it to end: the last one started counts.
                if started.returncode not in (0, -signal.SIGTERM) or time.monotonic() > deadline:
                    raise DeployError(f"the supervisor ended with code {started.returncode}. Look at `edgebit logs`")
                started = self._spawn_supervisor()
            if time.monotonic() > deadline:
                raise DeployError("the supervisor did not come up in time. Look at `edgebit logs`")
            time.sleep(0.05)

    def _spawn_supervisor(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*_pyz_argv(self.root), "agent", "--root", str(self.root), "supervise"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,
            )

    def _supervisor_pid(self) -> int | None:
        """The supervisor's process: whoever holds the lock, so that a pid given out again cannot deceive us."""
        path = self.root / "run" / "supervisor.lock"
        if not path.exists():
            return None
        handle = _lock_or_none(path)
        if handle is not None:
            os.close(handle)
            return None
        text = path.read_text().strip()
        return int(text) if text.isdigit() else None


def gate_argv(root: Path, identity: str, guarded: int) -> list[str]:
    """The command that decides the trial of the bundle `identity`, whose daemon is the process `guarded`."""
    return [*_pyz_argv(root), "agent", "--root", str(root), "gate", identity, str(guarded)]


def daemon_argv(root: Path) -> list[str]:
    """The command that is the daemon of `root`."""
    return [*_pyz_argv(root), "run", "--root", str(root)]


def _pyz_argv(root: Path) -> list[str]:
    return [sys.executable, str(root / "active" / DAEMON_MEMBER)]


def _lock_or_none(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def die_with_parent(parent: int) -> Callable[[], None]:
    """What a child of the process `parent` calls to end when that is gone: no daemon or gate runs that nobody minds.

    Linux only.
    """

    def ask_for_it() -> None:
        if sys.platform not in ("linux", "android"):
            return
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before it was asked for
            os._exit(128 + signal.SIGTERM)

    return ask_for_it


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
