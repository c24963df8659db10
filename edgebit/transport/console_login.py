"""From whatever a console shows to a shell's prompt: login, password, the kernel's words between, and dead ends."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgebit.errors import TransportError
from edgebit.transport.serial_line import Line

State = Literal[
    "unknown",
    "ours",
    "countdown",
    "new password",
    "refused",
    "first boot",
    "boot loader",
    "initramfs",
    "emergency",
    "booting",
    "login",
    "password",
    "shell",
]

FIRST_LOOK_S = 0.4  # before anything is typed: a key pressed during a boot can stop it
SETTLED_S = 0.25  # a prompt is one when nothing follows
ANSWER_S = 2.5
LOGIN_S = 20.0  # PAM may think, and a wrong password costs some seconds
PATIENCE_S = 180.0  # for all of it, a boot that is under way included
NUDGES = 4

# What the console shows -> what it is. The first that fits holds; `$` is where the text ends, waiting for us.
_SIGNS: tuple[tuple[State, re.Pattern[str]], ...] = (
    ("ours", re.compile(r"~(?:[0-9a-f]{64} hello [01]|again|ready)\n+$")),
    ("boot loader", re.compile(r"(?:^|\n)\s*(?:=>|U-Boot[^\n]*>|grub>|barebox[^\n]*[:>]/?) ?$")),
    ("initramfs", re.compile(r"\(initramfs\) ?$")),
    ("shell", re.compile(r"[$#%>❯»] ?$")),
    ("new password", re.compile(r"required to change your password|password has expired"
                                r"|(?:[Nn]ew|[Cc]urrent|\(current\))[^\n:]* password: ?$")),
    ("refused", re.compile(r"Login incorrect|Authentication fail|Maximum number of tries|Permission denied"
                           r"|account (?:is locked|has expired)")),
    ("booting", re.compile(r"System is booting up|not permitted to log in yet")),
    ("first boot", re.compile(r"enter new username", re.IGNORECASE)),
    ("emergency", re.compile(r"(?:Press Enter|Give root password) for maintenance")),
    ("countdown", re.compile(r"stop autoboot[^\n]*$")),
    ("login", re.compile(r"(?<!Last )(?:[Ll]ogin|[Uu]ser ?name): ?$")),
    ("password", re.compile(r"[Pp]ass(?:word|wort|code|phrase)[^\n:]*: ?$")),
)  # fmt: skip

_DEAD_ENDS: dict[State, str] = {
    "new password": "the device wants {user} to choose a new password before it lets anybody in. Log in once by hand"
    " with a terminal program, and choose one",
    "refused": "the device did not let {user} in: wrong user or password. Raspberry Pi OS has no default user: it is"
    " the one that was chosen when the card was written",
    "booting": "the device is still starting and lets nobody in yet. Try again in a minute",
    "first boot": "the device waits for the set-up of its first user. Do that by hand with a terminal program",
    "boot loader": "this is the prompt of a boot loader, not of a system. Start the system (in U-Boot: boot), then try"
    " again",
    "initramfs": "the device stopped in its initramfs, before its root file system: it did not find or could not check"
    " it. Mend that first",
    "emergency": "the device started into emergency mode. See there what failed: journalctl -xb",
}

# Colours, bracketed paste, a window's title: what a prompt may bring besides text.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>78])")

# The kernel says things when it likes, also behind a prompt or in the middle of one.
_KERNEL = re.compile(rb"\[ *[0-9]+\.[0-9]{6}\] [^\n]*\n")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in. Both are asked only when the device asks."""

    user: Callable[[], str]
    password: Callable[[str], str]  # of the user that it is given


def without_kernel(heard: bytes) -> bytes:
    """What a console said, less the kernel's own lines, so that what they tore apart is whole again."""
    return _KERNEL.sub(b"", heard) if b"] " in heard else heard


def readable(heard: bytes) -> str:
    """What a console said, as text for people and for recognise()."""
    text = _ESCAPES.sub("", without_kernel(heard).decode("utf-8", "replace"))
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x07", "").replace("\x00", "")


def recognise(text: str) -> State:
    """What the console waits for, by all that it said since we last typed. Pure."""
    for state, sign in _SIGNS:
        if sign.search(text):
            return state
    return "unknown"


def is_garbled(text: str) -> bool:
    """Whether this is what another baud rate looks like."""
    strange = sum(not (char.isprintable() or char in "\n\t\b") or char == "\ufffd" for char in text)
    return len(text) >= 4 and strange > len(text) / 4


class Login:
    """One way to a prompt. After reach_shell(), `logged_in` says whether we have to log out again."""

    def __init__(self, line: Line, credentials: Credentials) -> None:
        self._line = line
        self._credentials = credentials
        self._user = ""
        self._password = ""
        self._said = ""  # the last of it, for messages
        self.logged_in = False

    def reach_shell(self) -> None:
        """Leave the console at the prompt of a shell. Raises TransportError where that cannot be, and says why."""
        until, nudges, password_sent = time.monotonic() + PATIENCE_S, 0, False
        heard = self._listen(FIRST_LOOK_S)
        while time.monotonic() < until:
            state = recognise(heard)
            if state == "shell":
                return
            if state == "refused" and not password_sent:
                state = "login"  # somebody else's try, or the empty one that a nudge was
            if mend := _DEAD_ENDS.get(state):
                raise self._stuck(mend.format(user=self._user or "a user"))
            if state == "login" and password_sent:
                raise self._stuck(_DEAD_ENDS["refused"].format(user=self._user))
            if state == "ours":
                # A run of edgebit was cut off here. It says whether it had logged in.
                self.logged_in |= " hello 1\n" in heard
                heard = self._type("exit", ANSWER_S)
            elif state == "login":
                self._user = self._user or self._credentials.user()
                heard = self._type(self._user, LOGIN_S)
                self.logged_in = True
            elif state == "password" and self._user:
                self._password = self._credentials.password(self._user)
                password_sent = True
                heard = self._type(self._password, LOGIN_S)
            elif state == "countdown":
                heard = self._listen(LOGIN_S)
            else:  # silence, the end of the kernel's words, or a password prompt that is not ours
                nudges += 1
                if nudges > NUDGES:
                    raise self._stuck(self._silence(heard))
                heard = self._type("", ANSWER_S if state == "unknown" else LOGIN_S)
        raise self._stuck(f"no prompt came within {PATIENCE_S:.0f} s")

    def leave(self) -> None:
        """From a shell that gets its terminal back: wait for its prompt, and log out if we logged in."""
        self._listen(ANSWER_S)
        if self.logged_in:
            self._type("exit", ANSWER_S)

    def _type(self, text: str, patience_s: float) -> str:
        self._line.write(text.encode() + b"\r")
        return self._listen(patience_s)

    def _listen(self, patience_s: float) -> str:
        """What the console says until it waits for us, or has been quiet for patience_s."""
        heard = bytearray()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            waits = heard and recognise(readable(bytes(heard))) not in ("unknown", "countdown")
            data = self._line.read(SETTLED_S if waits else patience_s)
            if not data:
                break
            heard += data
        text = readable(bytes(heard))
        self._said = (self._said + text)[-2000:]
        return text

    def _silence(self, heard: str) -> str:
        baud = self._line.address.baud
        if not self._said.strip():
            return (
                "nothing came back. Is the device on, TX wired to RX and ground to ground, and its serial console"
                " enabled (Raspberry Pi: enable_uart=1 in config.txt, and raspi-config)?"
                + (f" Is {baud} its baud rate?" if baud else "")
            )
        if is_garbled(heard) or is_garbled(self._said):
            at = f"at {baud} baud only garbage comes" if baud else "only garbage comes"
            return f"{at}. Another baud rate? Common ones are 115200, 9600, 57600 and 1500000: ?baud=9600"
        return "there is no prompt that edgebit knows"

    def _stuck(self, words: str) -> TransportError:
        said = "".join(char if char.isprintable() or char == "\n" else "·" for char in self._said)
        if self._password:
            said = said.replace(self._password, "[password]")
        last = " | ".join(line.strip() for line in said.splitlines() if line.strip())[-200:]
        return TransportError(f"{self._line.address.url}: {words}" + (f" (it says: {last})" if last else ""))
