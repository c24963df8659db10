"""What identity, limits, filter and logs cost a request, on this machine.

    python bench/safeguards_cost.py [--principals 4096]

Prints a table: the median time of one call, and memory where something is kept. Nothing is started but /bin/true, in
the place of a classifier.
"""

import argparse
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgebit.bundle.ed25519 import verify
from edgebit.daemon.admission.principals import Principals
from edgebit.daemon.admission.rate_limits import RateLimits
from edgebit.daemon.config.safeguards import ContentFilterConfig, RateLimitsConfig
from edgebit.daemon.content_filter.content_filter import ContentFilter
from edgebit.daemon.content_filter.rules import RuleSet, parse_rules
from edgebit.daemon.content_filter.text_check import TextCheck
from edgebit.daemon.privacy.hashed_names import HashedNames
from edgebit.daemon.privacy.security_log import SecurityLog

TEXT_LENGTH = 4096  # characters of a prompt
PIECE = 4  # characters of a token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--principals", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for row in (*identity(), *limits(Path(name), options.principals), *texts(), *logs(Path(name))):
            print("| " + " | ".join(row) + " |", flush=True)


def identity() -> list[tuple[str, str]]:
    """Signatures, right and wrong."""
    key = Ed25519PrivateKey.generate()
    public, message = key.public_key().public_bytes_raw(), b"x" * 300
    right, wrong = key.sign(message), bytes(64)
    return [
        ("an Ed25519 signature verified", per_call(lambda: verify(public, message, right), 50)),
        ("one that is none", per_call(lambda: verify(public, message, wrong), 50)),
    ]


def limits(folder: Path, principals: int) -> list[tuple[str, str]]:
    """All three limits at once, with a full table."""
    tracemalloc.start()
    config = RateLimitsConfig(requests=10**6, tokens=10**9, joules=1e9, principals_max=principals)
    accounts = RateLimits(config, Principals(""), HashedNames(folder / "name.key"), shared=False)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(principals):
        accounts.admit(f"p{number}", "j", prompt_bytes=100, max_tokens=100)
        accounts.release(f"p{number}", "j")
    bytes_each = (tracemalloc.get_traced_memory()[0] - before) / principals
    tracemalloc.stop()

    def turn() -> None:
        name = f"p{random.randrange(principals)}"
        accounts.admit(name, "j", prompt_bytes=100, max_tokens=100)
        accounts.release(name, "j")

    def stranger() -> None:
        accounts.admit(f"s{random.random()}", "j", prompt_bytes=100, max_tokens=100)

    return [
        (f"a job charged and given back, {principals} principals, three limits", per_call(turn, 2000)),
        ("the same for a name that finds no place in the table", per_call(stranger, 2000)),
        ("memory of a principal", f"{bytes_each:.0f} B"),
    ]


def texts() -> list[tuple[str, str]]:
    """The filter on a prompt, and on an answer token by token."""
    random.seed(1)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(4, 9))) for _ in range(2000)]
    text = " ".join(random.choices(["the", "sky", "is", "blue", "and", "water", "wet"], k=TEXT_LENGTH))[:TEXT_LENGTH]
    regexes = [f"regex both \\b{word}-[0-9]{{4,20}}\\b" for word in words[:100]]
    rows = []
    for count, patterns in ((10, 0), (2000, 0), (10, 10), (2000, 100)):
        lines = "\n".join([*(f"word both {word}z" for word in words[:count]), *regexes[:patterns]])
        rules = parse_rules(lines, "rules").answer
        what = f"{count} words and {patterns} patterns"
        whole = per_call(partial(look_at, text, TEXT_LENGTH, rules), 20)
        rows.append((f"a prompt of {TEXT_LENGTH} characters against {what}", whole))
        token = per_call(partial(look_at, text, PIECE, rules), 5, TEXT_LENGTH // PIECE)
        rows.append((f"a token of an answer against {what}", token))
    judge = ContentFilter(ContentFilterConfig(classifier=("/bin/true",)))
    asked = per_call(lambda: judge.guard(["x"]).finish(), 50)
    return [*rows, ("a classifier that says yes at once, begun and waited for", asked)]


def look_at(text: str, piece: int, rules: RuleSet) -> None:
    """A whole text in pieces."""
    check = TextCheck(rules)
    for begin in range(0, len(text), piece):
        check.push(text[begin : begin + piece])
    check.finish()


def logs(folder: Path) -> list[tuple[str, str]]:
    """A name hashed, and refusals noted."""
    names = HashedNames(folder / "name.key")
    security = SecurityLog(folder / "security.log", max_bytes=256 << 10, files=4)

    def refused(name: str) -> None:
        security.refused(429, "rate_limit", name, "chat")

    return [
        ("a name hashed", per_call(lambda: names.of("alice"), 5000)),
        ("a refusal noted, the same again and again", per_call(lambda: refused("p"), 5000)),
        ("a refusal noted, each of another name", per_call(lambda: refused(str(random.random())), 5000)),
    ]


def per_call(act: Callable[[], object], calls: int, parts: int = 1) -> str:
    """The median time of `act`, or of one of its `parts`."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times) / parts
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"


if __name__ == "__main__":
    main()
