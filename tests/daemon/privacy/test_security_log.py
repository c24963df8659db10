"""The log of refusals: what stands in it, and how little it grows."""

import json

from edgebit.daemon.privacy.hashed_names import SHARED, HashedNames
from edgebit.daemon.privacy.security_log import LINES_A_MINUTE, SAME_MAX, SecurityLog, read_security_log, summary


class Log:
    """A SecurityLog with clocks of its own."""

    def __init__(self, tmp_path, *, max_bytes: int = 10_000, files: int = 3) -> None:
        self.now = 0.0
        self.path = tmp_path / "state" / "security.log"
        self.log = SecurityLog(
            self.path, max_bytes=max_bytes, files=files, clock=lambda: self.now, wall=lambda: 1e9 + self.now
        )

    def lines(self) -> list[dict]:
        return read_security_log(self.path)


def test_a_refusal_is_a_line(tmp_path):
    """Time, code, hashed principal, operation; nobody else may read it."""
    log = Log(tmp_path)
    log.log.refused(401, "bad_signature", "p-1", "generate")
    assert log.lines() == [
        {
            "time": "2001-09-09T01:46:40Z",
            "status": 401,
            "code": "bad_signature",
            "principal": "p-1",
            "op": "generate",
        }
    ]
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_the_same_again_is_counted(tmp_path):
    """One line at the beginning, one with the count after a minute; another one is another."""
    log = Log(tmp_path)
    for _ in range(1000):
        log.log.refused(429, "rate_limit", "p-1", "generate")
    log.log.refused(429, "rate_limit", "p-2", "generate")
    assert len(log.lines()) == 2
    log.now = 61.0
    log.log.tick()
    assert log.lines()[2] | {"time": ""} == {
        "time": "", "code": "rate_limit", "principal": "p-1", "op": "generate", "repeated": 999
    }  # fmt: skip
    log.log.refused(429, "rate_limit", "p-1", "generate")
    log.log.refused(429, "rate_limit", "p-1", "generate")
    log.log.close()
    assert [line.get("repeated") for line in log.lines()[3:]] == [None, 1]
    assert summary(log.lines()) == {
        "from": "2001-09-09T01:46:40Z",
        "to": "2001-09-09T01:47:41Z",
        "refused": 1003,
        "codes": {"rate_limit": 1003},
        "ops": {"generate": 1003},
        "principals": {"p-1": 1002, "p-2": 1},
        "lines_suppressed": 0,
    }


def test_a_flood_of_names_writes_few_lines(tmp_path):
    """Lines of a minute are bounded, and so is what is remembered; what was left out is counted."""
    log = Log(tmp_path, max_bytes=1 << 20)
    for number in range(5000):
        log.log.refused(401, "bad_signature", f"p-{number}", "generate")
    for _ in range(3):
        log.log.refused(429, "rate_limit", "p-a", "generate")
    assert len(log.lines()) == LINES_A_MINUTE and len(log.log._same) <= SAME_MAX
    log.now = 61.0
    log.log.tick()
    (last,) = [line for line in log.lines() if line.get("event") == "suppressed"]
    codes = {"bad_signature": 5000 - LINES_A_MINUTE, "rate_limit": 3}
    assert last["codes"] == codes and last["lines"] == 5000 - LINES_A_MINUTE + 2
    assert summary(log.lines())["codes"] == {"bad_signature": 5000, "rate_limit": 3}


def test_the_disk_it_takes_is_bounded(tmp_path):
    """Files are rotated by size, and the oldest goes."""
    log = Log(tmp_path, max_bytes=1000, files=3)
    for number in range(500):
        log.now += 1.0
        log.log.refused(401, "bad_signature", f"p-{number}", "generate")
    files = sorted(path.name for path in log.path.parent.iterdir())
    assert files == ["security.log", "security.log.1", "security.log.2"]
    assert all(path.stat().st_size <= 1000 for path in log.path.parent.iterdir())
    numbers = [int(line["principal"][2:]) for line in log.lines()]
    assert numbers == list(range(numbers[0], 500)) and len(numbers) > 15


def test_one_file_alone(tmp_path):
    """Begins anew when it is full."""
    log = Log(tmp_path, max_bytes=300, files=1)
    for number in range(10):
        log.log.refused(401, "bad_signature", f"p-{number}", "generate")
    assert [path.name for path in log.path.parent.iterdir()] == ["security.log"]
    assert log.lines()[-1]["principal"] == "p-9"


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path):
    """Refusals are counted, and a later try writes again."""
    log = Log(tmp_path)
    log.path.parent.mkdir()
    log.path.mkdir()
    log.log.refused(401, "bad_signature", "p-1", "generate")
    log.path.rmdir()
    log.log.refused(401, "bad_signature", "p-2", "generate")
    assert not log.path.exists()
    log.now = 61.0
    log.log.refused(401, "bad_signature", "p-3", "generate")
    assert [line.get("lines", line.get("principal")) for line in log.lines()] == [2, "p-3"]


def test_it_can_be_switched_off(tmp_path):
    """Then nothing is written."""
    log = Log(tmp_path, max_bytes=0)
    log.log.refused(401, "bad_signature", "p-1", "generate")
    assert not log.path.exists()


def test_a_line_cut_short_is_left_out(tmp_path):
    """As a loss of power leaves it."""
    log = Log(tmp_path)
    log.log.refused(401, "bad_signature", "p-1", "generate")
    with log.path.open("a") as file:
        file.write('{"time":"2001","co')
    assert len(log.lines()) == 1
    assert summary([{"code": "x", "repeated": "many"}, {"event": "x"}])["refused"] == 1


def test_hashed_names_hold_over_a_restart_and_hide_the_name(tmp_path):
    """With the device's own key: another device's hash of the same name differs."""
    names = HashedNames(tmp_path / "name.key")
    assert names.of("alice") == HashedNames(tmp_path / "name.key").of("alice")
    assert names.of("alice") != names.of("bob")
    assert names.of("alice") != HashedNames(tmp_path / "other.key").of("alice")
    assert names.of("alice").startswith("p-") and len(names.of("alice")) == 14
    assert names.of(SHARED) == SHARED
    assert (tmp_path / "name.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_cannot_be_kept_holds_until_the_restart(tmp_path, caplog):
    """A damaged one is made anew; a folder that is in the way is said."""
    (tmp_path / "name.key").write_bytes(b"short")
    first = HashedNames(tmp_path / "name.key").of("alice")
    assert "is damaged" in caplog.text and HashedNames(tmp_path / "name.key").of("alice") == first
    (tmp_path / "folder").mkdir()
    names = HashedNames(tmp_path / "folder")
    assert names.of("alice") == names.of("alice") and "cannot be read" in caplog.text
    assert list((tmp_path / "folder").iterdir()) == []


def test_every_line_is_json(tmp_path):
    """Whatever a caller has put into an operation's name."""
    log = Log(tmp_path)
    log.log.refused(400, "bad_json", "p-1", 'say "x"\n')
    (line,) = log.path.read_text().splitlines()
    assert json.loads(line)["op"] == 'say "x"\n'


def test_a_flood_that_ends_with_the_daemon_is_told(tmp_path):
    log = Log(tmp_path)
    for number in range(LINES_A_MINUTE + 7):
        log.log.refused(401, "bad_signature", f"p-{number}", "generate")
    log.log.close()
    assert log.lines()[-1]["codes"] == {"bad_signature": 7}
    assert summary([{"event": "suppressed", "lines": 1, "codes": ["x"]}])["refused"] == 0
