"""Keys of whoever signs: files as minisign's, locked by a password, and what a signature says."""

import base64
import stat
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from signing_keys import MADE, make_key, signing

from edgebit import keys
from edgebit.errors import BuildError, KeyFileError
from edgebit.keys import find_public_key, find_secret_key, list_keys, load_secret_key, new_key, plan_signing

ONE, TWO = make_key(1), make_key(2)


@pytest.fixture(autouse=True)
def key_folder(tmp_path, monkeypatch):
    """The key folder of a test's own, and a lock that opens quickly."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(keys, "_OPS_LIMIT", 1 << 19)
    monkeypatch.setattr(keys, "_MEMORY_LIMIT", 1 << 24)
    return tmp_path / "config" / "edgebit" / "keys"


@pytest.mark.parametrize("password", [None, "correct horse", "ünïcode"])
def test_new_key_is_read_back(key_folder, password):
    """With its password, which is asked for only where there is one."""
    made = new_key("home", password)

    asked = []
    secret = load_secret_key(find_secret_key("home"), lambda: asked.append(1) or password)

    assert secret.public == made.public == find_public_key("home")
    assert list_keys() == [made]
    assert bool(asked) == made.has_password == (password is not None)
    assert stat.S_IMODE((key_folder / "home.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(key_folder.stat().st_mode) == 0o700


def test_wrong_password_is_refused():
    """In words; nothing of the key is used."""
    new_key("home", "right")

    with pytest.raises(KeyFileError, match="the password is wrong"):
        load_secret_key(find_secret_key("home"), lambda: "wrong")


def test_key_is_never_replaced(key_folder):
    """Neither half."""
    before = new_key("home", None)
    with pytest.raises(KeyFileError, match="there already"):
        new_key("home", None)
    (key_folder / "home.key").unlink()
    with pytest.raises(KeyFileError, match=r"home\.pub is there already"):
        new_key("home", None)

    assert find_public_key("home") == before.public


def test_key_that_others_may_read_is_refused(key_folder):
    """As ssh does."""
    new_key("home", None)
    (key_folder / "home.key").chmod(0o640)

    with pytest.raises(KeyFileError, match="chmod 600"):
        load_secret_key(find_secret_key("home"), str)


@pytest.mark.parametrize("name", ["", "../x", ".x", "a b", "x.key", "x.pub", "a" * 65])
def test_wrong_name_is_refused(name):
    """A name is a file's in one folder."""
    with pytest.raises(KeyFileError, match="no name for a key"):
        new_key(name, None)


def test_unknown_key_is_named_with_those_there_are():
    """And what else would do."""
    new_key("home", None)

    with pytest.raises(KeyFileError, match=r"no secret key 'work'.* are: home\..*edgebit keys new work"):
        find_secret_key("work")
    with pytest.raises(KeyFileError, match=r"no public key 'work'.* are: home\."):
        find_public_key("work")


def test_public_key_is_found_by_name_line_and_file(key_folder):
    """A line may hold slashes, and is no path."""
    made = new_key("home", None).public
    assert "/" in str(ONE.public)

    for text, key in (("home", made), (str(key_folder / "home.pub"), made), (str(ONE.public), ONE.public)):
        assert find_public_key(text) == key
    with pytest.raises(KeyFileError, match="no public key"):
        find_public_key("RW" + "A" * 54)


def damaged(line: bytes) -> dict[str, bytes]:
    """Second lines of a secret key file that are none."""
    return {
        "short": line[:-1],
        "long": line + b"\0",
        "other algorithm": b"XX" + line[2:],
        "other derivation": line[:2] + b"XX" + line[4:],
        "other checksum": line[:4] + b"XX" + line[6:],
        "flipped seed": line[:70] + bytes([line[70] ^ 1]) + line[71:],
        "flipped checksum": line[:-1] + b"\1",
        "lock that takes all memory": line[:2] + b"Sc" + line[4:38] + b"\xff" * 16 + line[54:],
        "lock that takes none": line[:2] + b"Sc" + line[4:38] + bytes(16) + line[54:],
    }


@pytest.mark.parametrize("name", damaged(bytes(158)))
def test_damaged_key_file_is_refused(key_folder, name):
    """With its path, and no traceback."""
    new_key("home", None)
    place = key_folder / "home.key"
    comment, line, *_ = place.read_bytes().split(b"\n")
    place.write_bytes(comment + b"\n" + base64.b64encode(damaged(base64.b64decode(line))[name]) + b"\n")

    with pytest.raises(KeyFileError, match=r"home\.key"):
        load_secret_key(place, lambda: "password")


@pytest.mark.parametrize("content", [b"", b"\n", b"untrusted comment: x\n!!\n", b"\xff\xfe\n\xff", b"x" * 9000])
def test_rubbish_is_no_key_file(tmp_path, content):
    """Of either kind."""
    for name, read in (("x.key", lambda path: load_secret_key(path, str)), ("x.pub", keys.read_public_key)):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match=name.replace(".", r"\.")):
            read(path)


def test_less_memory_makes_a_cheaper_lock(monkeypatch):
    """As minisign does it; the file says how much it took."""
    monkeypatch.setattr(keys, "_MEMORY_LIMIT", 1 << 26)
    monkeypatch.setattr(keys, "_OPS_LIMIT", 1 << 21)
    real = keys._scrypt

    def scarce(password, salt, ops_limit, memory_limit):
        if memory_limit > 1 << 24:
            raise MemoryError
        return real(password, salt, ops_limit, memory_limit)

    monkeypatch.setattr(keys, "_scrypt", scarce)

    made = new_key("home", "password")

    assert load_secret_key(find_secret_key("home"), lambda: "password").public == made.public


@pytest.mark.slow
def test_minisign_opens_our_locked_key_and_we_its(tmp_path, key_folder, require_tool, monkeypatch):
    """With minisign's own cost, 1 GiB."""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    tool, manifest = require_tool("minisign"), tmp_path / "manifest.json"
    manifest.write_bytes(b"{}")
    made = new_key("home", "pass word")

    def minisign(*arguments, stdin=""):
        done = subprocess.run([tool, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    signature = tmp_path / "manifest.sig"
    minisign("-S", "-s", made.secret, "-m", manifest, "-x", signature, stdin="pass word\n")
    minisign("-V", "-P", made.public, "-m", manifest, "-x", signature)
    minisign("-G", "-p", tmp_path / "its.pub", "-s", tmp_path / "its.key", stdin="other\nother\n")
    its = load_secret_key(tmp_path / "its.key", lambda: "other")
    assert its.public == find_public_key(str(tmp_path / "its.pub"))


def test_same_manifest_has_the_same_signature():
    """So that a signed bundle can be built again byte for byte."""
    assert signing(ONE, TWO).sign(b"{}") == signing(ONE, TWO).sign(b"{}")
    assert b"timestamp:1772366400\tfile:manifest.json\thashed" in signing(ONE).sign(b"{}")


def test_sequence_is_the_time_by_default():
    """Later builds follow earlier ones without a word."""
    plan = plan_signing([ONE], now=MADE)

    assert plan.release.sequence == int(MADE.timestamp())
    assert plan.release.expires is None
    assert plan_signing([ONE], now=MADE + timedelta(seconds=1)).release.sequence > plan.release.sequence


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        ("2026-03-01", datetime(2026, 3, 2, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ("90d", MADE + timedelta(days=90)),
    ],
)
def test_expiry_is_a_day_or_a_number_of_days(text, expires):
    """The day itself still holds."""
    assert signing(ONE, expires=text).release.expires == expires


@pytest.mark.parametrize("text", ["2026-02-28", "0d", "soon", "", "31.1.2027", "-1d", "2026-13-01", f"{10**12}d"])
def test_wrong_expiry_is_refused(text):
    """What is past, too."""
    with pytest.raises(BuildError, match="--expires"):
        signing(ONE, expires=text)


@pytest.mark.parametrize("sequence", [-1, 2**53 + 1])
def test_sequence_that_no_reader_takes_is_refused(sequence):
    """Before a bundle is made that nothing opens."""
    with pytest.raises(BuildError, match="--sequence"):
        signing(ONE, sequence=sequence)


def test_new_keys_without_their_owner_are_refused():
    """A slip of the pen must not close a device for ever."""
    with pytest.raises(BuildError, match="none of the keys that --trust names signs"):
        signing(ONE, trust=(TWO,))
    for wrong in ([ONE, ONE], [make_key(n) for n in range(1, 10)]):
        with pytest.raises(BuildError, match="--trust less often"):
            signing(*wrong[:1], trust=wrong)

    assert signing(ONE, TWO, trust=(TWO,)).release.keys == (TWO.public,)


def test_several_signatures_are_of_several_keys():
    """And not more than a reader takes."""
    for wrong in ([ONE, ONE], [make_key(n) for n in range(1, 6)]):
        with pytest.raises(BuildError, match="--sign less often"):
            plan_signing(wrong, now=MADE)
