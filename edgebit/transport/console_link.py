"""Checked messages over a console: a small shell program reads them there, and carries out only what arrived whole.

A message is lines: `<`, its payload as `:` and base64, then `>`, a SHA-256, its number, and a line of shell code. The
answer is one line: `~`, a SHA-256, the number, and text. What is damaged on the way is sent again; a number that was
carried out before is answered again, not carried out again. One message is on its way at a time.
"""

import base64
import hashlib
import re
import time

from edgebit.errors import TransportError
from edgebit.transport.console_login import readable, without_kernel
from edgebit.transport.serial_line import Line

LINE_CHARS = 2000  # a canonical line of a terminal holds 4095
PIECE_MIN_BYTES = 1536
PIECE_MAX_BYTES = 24_576  # as base64 half of the 64 KiB that a kernel keeps for a reader who is late
PIECE_S = 2.0  # what a piece may take on the line, so that a damaged one costs little
GROW_AFTER = 3  # good pieces
TRIES = 25
LATENCY_S = 3.0  # for a slow device to answer
_SLOWEST_BAUD = 9600

# The first line, typed at the prompt of whatever shell there is. No exclamation mark or backslash, which csh and fish
# read inside quotes too. Marks are split: the echo of this line holds none of them.
_OPENING = (
    "sh -c '"
    'for t in base64 sha256sum stty; do command -v $t >/dev/null || { echo "~la""cks $t"; exit; }; done; '
    "o=$(stty -g) && stty -echo -icanon -isig -ixon -opost icrnl min 1 time 0 && "
    'echo "~re""ady" && while read -r x; do [ "$x" = exit ] && break; h=$(printf %s "$x" | sha256sum); '
    '[ "${h%% *}" = SUM ] && { eval "$(printf %s "$x" | base64 -d)"; break; }; echo "~ag""ain"; done; '
    'stty "$o"\'\r'
)

# The program on the device: POSIX sh (dash, busybox). d: the payload, n: the last number done, r: the answer to it,
# F: the file that is meant, T: a folder of our own, v: 1 where edgebit has logged in and will log out.
_PROGRAM = r"""
for T in "${TMPDIR:-/tmp}" /run /dev/shm "$HOME"; do
  T=$T/edgebit-console.$$
  mkdir -m 700 "$T" 2>/dev/null && break
done
quiet=
[ "$(id -u)" = 0 ] && quiet=$(cut -f1 /proc/sys/kernel/printk 2>/dev/null) && dmesg -n 1 2>/dev/null || quiet=
trap 'rm -rf "$T"; [ -z "$quiet" ] || dmesg -n "$quiet"' EXIT
trap exit HUP TERM
cd "$HOME" 2>/dev/null
d= n=0 r= F= limited=
command -v timeout >/dev/null && limited=1
text() { base64 | tr -d '\n'; }
file() { F=$(printf %s "$d" | base64 -d); }
why() { r="no $(printf %s "$r" | tr '\n' ' ')"; }
empty() { r=$( { cat /dev/null >"$F"; } 2>&1 ) && r=ok || why; }
append() { r=$( { printf %s "$d" | base64 -d | "$@" >>"$F"; } 2>&1 ) && r=ok || why; }
size() { r=$( { wc -c <"$F"; } 2>&1 | tr '\n' ' '); }
piece() { r=$(dd if="$F" bs="$1" skip="$2" count=1 2>/dev/null | text); }
has() { command -v "$1" >/dev/null && r=yes || r=no; }
run() {
  if [ "$limited" ]; then timeout "$1" sh "$T/command"; else sh "$T/command"; fi <"$2" >"$T/out" 2>"$T/err"
  r=$?
  set -- $(wc -c <"$T/out") $(wc -c <"$T/err")
  r="$r $1 $2"
  [ $(($1 + $2)) -gt 3000 ] || r="$r .$(text <"$T/out") .$(text <"$T/err")"
}
sum() { h=$(printf %s "$1" | sha256sum); h=${h%% *}; }
say() { sum "$1 $2"; printf '\n~%s %s %s\n' "$h" "$1" "$2"; }
while IFS= read -r l; do
  case $l in
    '<') d= ;;
    :*) d=$d${l#:} ;;
    '>'*)
      l=${l#>}
      q=${l%% *}
      l=${l#* }
      sum "$l $d"
      if [ "$h" != "$q" ]; then say no "$n"
      elif [ "${l%% *}" = "$n" ]; then say "$n" "$r"
      else
        n=${l%% *} r=ok
        eval "${l#* }"
        say "$n" "$r"
      fi ;;
    '') say hello "$v" ;;
    exit) break ;;
  esac
done
"""

_ANSWER = re.compile(rb"~([0-9a-f]{64}) (\S+) ([^\n]*)\n")


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


class Link:
    """Messages to a shell, over a line whose console shows a prompt."""

    def __init__(self, line: Line, *, logged_in: bool) -> None:
        """Start the program there. Raises TransportError where it does not start."""
        self._line = line
        self._number = 0
        self._heard = bytearray()
        self._unsure = False  # the device may be in the middle of a line
        self._busy_until = 0.0  # it may still do what was asked before we were interrupted
        self._s_per_char = 10 / (line.address.baud or _SLOWEST_BAUD)
        self._good = 0
        self.damaged = 0  # messages and answers that had to be repeated
        self.piece_bytes = PIECE_MIN_BYTES  # what to put into the next message; follows how well the line does
        self._start(base64.b64encode(f"v={int(logged_in)}{_PROGRAM}".encode()))

    def ask(self, code: str, payload: bytes = b"", *, timeout_s: float = 0) -> str:
        """Have `code` carried out, which finds the payload in $d as base64; gives what it left in $r.

        timeout_s: what the code itself may take. Raises TransportError when no whole answer comes.
        """
        self._number += 1
        content = base64.b64encode(payload)
        head = f"{self._number} {code}".encode()
        lines = [b"<"]
        lines += [b":" + content[i : i + LINE_CHARS] for i in range(0, len(content), LINE_CHARS)]
        lines += [b">%s %s" % (_digest(head + b" " + content).encode(), head)]
        message = b"\n".join(lines) + b"\n"
        wait_s = LATENCY_S + 3 * len(message) * self._s_per_char
        timeout_s += max(0, self._busy_until - time.monotonic())
        self._busy_until = time.monotonic() + timeout_s
        until = self._busy_until + TRIES * wait_s
        refusals, damaged_before = 0, self.damaged
        while True:
            began = time.monotonic()
            self._line.write(b"\n" + message if self._unsure else message)
            self._unsure = True
            answer = self._answer(wait_s)
            if answer is not None and answer[0] == str(self._number):
                self._unsure, self._busy_until = False, 0.0
                self._learn(len(message), time.monotonic() - began, whole=self.damaged == damaged_before)
                return answer[1]
            self.damaged += 1
            refusals += answer is not None
            if answer is None:
                wait_s *= 2 if timeout_s else 1
            if refusals >= TRIES or time.monotonic() > until:
                url = self._line.address.url
                if refusals:
                    raise TransportError(
                        f"{url}: the line is too noisy: {refusals} tries in a row arrived damaged. Look at the cable"
                        " and its ground, or take a lower baud rate"
                    )
                raise TransportError(f"{url}: the device stopped answering. Is it still on, and the cable plugged in?")

    def close(self) -> None:
        """End the program there, which puts the terminal back as it was; what follows is a prompt."""
        self._line.write(b"\nexit\n" if self._unsure else b"exit\n")

    def _start(self, program: bytes) -> None:
        opening = _OPENING.replace("SUM", _digest(program)).encode()
        for _ in range(3):
            self._line.write(opening)
            said = self._until(rb"~(ready|lacks [^\r\n]*)", LATENCY_S * 3)
            if said.startswith("lacks"):
                raise TransportError(
                    f"{self._line.address.url}: the device has no {said.split()[1]}, without which nothing can be sent"
                    " over its console"
                )
            if said:
                break
            self._line.write(b"\nexit\r")  # in case it began and its word was lost
        else:
            last = " | ".join(readable(bytes(self._heard)).split("\n"))[-200:]
            raise TransportError(f"{self._line.address.url}: there is no shell behind the prompt (it says: {last})")
        for _ in range(TRIES):
            self._line.write(program + b"\n\n")  # the program answers the empty line with hello
            if self._until(rb"~[0-9a-f]{64} (hello) [01]\n", LATENCY_S + len(program) * 3 * self._s_per_char):
                self._heard.clear()
                return
        raise TransportError(f"{self._line.address.url}: the line is too noisy for anything to arrive whole")

    def _until(self, sign: bytes, quiet_s: float) -> str:
        """The group of `sign` once the device says it; empty when it has been quiet for quiet_s before."""
        self._heard.clear()
        while True:
            data = self._line.read(quiet_s)
            self._heard += data
            if found := re.search(sign, self._heard):
                return found[1].decode("utf-8", "replace")
            if not data or len(self._heard) > 1 << 16:
                return ""

    def _answer(self, quiet_s: float) -> tuple[str, str] | None:
        """The next whole answer to this message, as (number, text); ("no", ...) where it says that it got none whole.

        None when the device has been quiet for quiet_s.
        """
        while True:
            self._heard = bytearray(without_kernel(bytes(self._heard)))
            while found := _ANSWER.search(self._heard):
                total, number, text = found[1].decode(), found[2], found[3]
                del self._heard[: found.end()]
                if _digest(number + b" " + text) != total:
                    return "damaged", ""
                if number in (b"no", b"%d" % self._number):
                    return number.decode(), text.decode("utf-8", "replace")
            data = b""
            while b"\n" not in data:
                data = self._line.read(quiet_s)
                if not data:
                    return None
                self._heard += data

    def _learn(self, chars: int, took_s: float, *, whole: bool) -> None:
        """Fit the size of a piece to the line: more while all goes well, less when something was damaged."""
        if not whole:
            self._good = 0
            self.piece_bytes = max(PIECE_MIN_BYTES, self.piece_bytes // 2)
            return
        if chars < PIECE_MIN_BYTES:
            return
        self._s_per_char = took_s / chars
        self._good += 1
        if self._good >= GROW_AFTER and took_s < PIECE_S / 2:
            self._good = 0
            self.piece_bytes = min(PIECE_MAX_BYTES, self.piece_bytes * 2)
