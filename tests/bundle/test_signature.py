"""manifest.sig: minisign's own form, read to the last byte; what is forged, damaged or of another form is refused."""

import base64
import subprocess
from pathlib import Path

import pytest
from signing_keys import make_key, signing

from edgebit.bundle.signature import PublicKey, find_signers, parse_public_key, parse_signatures
from edgebit.errors import BundleError
from edgebit.keys import load_secret_key, public_key_file

ONE, TWO, THREE = make_key(1), make_key(2), make_key(3)
MANIFEST = b'{"schema": 1}\n'
SIGNED = signing(ONE).sign(MANIFEST)
LINES = SIGNED.decode().splitlines()


def lines(*changed: str | None) -> bytes:
    """A block with some lines changed; None leaves one as it is."""
    return ("\n".join(new if new is not None else old for new, old in zip(changed, LINES, strict=True)) + "\n").encode()


def first_line(algorithm: bytes = b"ED", size: int = 64) -> str:
    return base64.b64encode(algorithm + bytes(8) + bytes(size)).decode()


HOSTILE = {
    "empty": (b"", "has 1 lines"),
    "one line short": ("\n".join(LINES[:3]).encode(), "has 3 lines"),
    "rubbish behind": (SIGNED + b"x", "has 5 lines"),
    "empty line behind": (SIGNED + b"\n", "has 5 lines"),
    "twice by one key": (SIGNED + SIGNED, f"two signatures by key {ONE.public.id}"),
    "five": (b"".join(signing(make_key(n)).sign(MANIFEST) for n in range(1, 6)), "has 20 lines"),
    "huge": (b"x" * 5000, "has 5000 bytes, at most 4096"),
    "no UTF-8": (SIGNED.replace(b"hashed", b"\xff"), "is not UTF-8"),
    "no comment": (lines("comment", None, None, None), "is not as minisign writes it"),
    "no trusted comment": (lines(None, None, "untrusted comment: x", None), "is not as minisign writes it"),
    "control character": (lines(None, None, LINES[2] + "\x1b[2J", None), "control character"),
    "carriage return": (SIGNED.replace(b"\n", b"\r\n"), "control character"),
    "no base64": (lines(None, "!" + LINES[1][1:], None, None), "its second line is no signature"),
    "spaces": (lines(None, LINES[1] + " ", None, None), "its second line is no signature"),
    "second form of base64": (lines(None, None, None, LINES[3][:-3] + "h=="), "its fourth line is no signature"),
    "short": (lines(None, first_line(size=63), None, None), "its second line is no signature"),
    "long": (lines(None, first_line(size=65), None, None), "its second line is no signature"),
    "short second": (lines(None, None, None, base64.b64encode(bytes(63)).decode()), "its fourth line is no signature"),
    "legacy": (lines(None, first_line(b"Ed"), None, None), "legacy form"),
    "unknown kind": (lines(None, first_line(b"XX"), None, None), "does not know: b'XX'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_signature_is_refused(name):
    """By its form, before any number in it is used."""
    data, promised = HOSTILE[name]

    with pytest.raises(BundleError) as refused:
        parse_signatures(data, "chat.bundle: manifest.sig")

    assert promised in str(refused.value)
    assert str(refused.value).startswith("chat.bundle: manifest.sig")


def test_signer_is_found_among_keys():
    """One of several signatures is enough; those of strangers say nothing."""
    data = signing(ONE, TWO).sign(MANIFEST)
    signatures = parse_signatures(data, "s")

    def signers(*keys):
        return find_signers(MANIFEST, signatures, [key.public for key in keys], "m")

    assert signers(ONE) == (ONE.public,)
    assert signers(THREE, TWO) == (TWO.public,)
    assert signers(TWO, ONE) == (ONE.public, TWO.public)
    assert signers(THREE) == ()


def test_changed_manifest_is_refused():
    """Any byte."""
    for changed in (MANIFEST + b" ", MANIFEST[:-1], b"\0" + MANIFEST[1:]):
        with pytest.raises(BundleError, match="changed after it was signed"):
            find_signers(changed, parse_signatures(SIGNED, "s"), [ONE.public], "m")


def test_changed_trusted_comment_is_refused():
    """The second signature holds it."""
    data = SIGNED.replace(b"timestamp:1", b"timestamp:2")

    with pytest.raises(BundleError, match="trusted comment was changed"):
        find_signers(MANIFEST, parse_signatures(data, "s"), [ONE.public], "m")


def test_name_of_a_trusted_key_alone_is_refused():
    """A signature by another key that bears the trusted key's name; and one signature that was put under another."""
    forger = make_key(9)
    posing = type(forger)(PublicKey(ONE.public.key_id, forger.public.point), forger.private)
    data = signing(posing).sign(MANIFEST)

    with pytest.raises(BundleError, match="does not fit"):
        find_signers(MANIFEST, parse_signatures(data, "s"), [ONE.public], "m")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RW",
        str(ONE.public)[:-4],
        "RX" + str(ONE.public)[2:],
        f"{ONE.public}\n{TWO.public}",
        base64.b64encode(b"Ed" + bytes(8) + (1).to_bytes(32, "little")).decode(),  # a point of small order
        base64.b64encode(b"Ed" + bytes(8) + b"\xff" * 32).decode(),
    ],
)
def test_wrong_public_key_is_refused(text):
    """Too short, of another kind, two at once, and bytes that are nobody's key."""
    with pytest.raises(BundleError, match=r"home\.pub"):
        parse_public_key(text, "home.pub")


def test_public_key_is_read_from_line_and_file():
    """With or without the comment."""
    assert parse_public_key(f" {ONE.public}\n", "k") == ONE.public
    assert parse_public_key(public_key_file(ONE.public), "k") == ONE.public


def minisign(tool: str, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)


def test_minisign_takes_our_signature(tmp_path, require_tool):
    """By hand, as the docs say it; the second of two once it stands alone; and not when the manifest differs."""
    tool = require_tool("minisign")
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "manifest.sig").write_bytes(signing(ONE, TWO).sign(MANIFEST))
    (tmp_path / "second.sig").write_bytes(signing(TWO).sign(MANIFEST))
    for key, name in ((ONE, "manifest.sig"), (TWO, "second.sig")):
        (tmp_path / "key.pub").write_text(public_key_file(key.public))
        paths = ("-m", tmp_path / "manifest.json", "-x", tmp_path / name)
        by_file, by_line = ("-p", tmp_path / "key.pub"), ("-P", str(key.public))

        assert "comment signature verified" in minisign(tool, "-V", *by_file, *paths).stdout
        assert minisign(tool, "-V", *by_line, *paths).returncode == 0

    (tmp_path / "manifest.json").write_bytes(MANIFEST + b" ")
    assert minisign(tool, "-V", *by_line, *paths).returncode != 0


def test_we_take_minisigns_key_and_signature(tmp_path, require_tool):
    """A key that minisign made signs here, and its signature holds here; its legacy form is refused."""
    tool = require_tool("minisign")
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    made = minisign(tool, "-G", "-W", "-p", tmp_path / "k.pub", "-s", tmp_path / "k.key")
    assert made.returncode == 0, made.stderr
    secret, public = tmp_path / "k.key", parse_public_key((tmp_path / "k.pub").read_text(), "k.pub")
    paths = ("-s", secret, "-m", tmp_path / "manifest.json", "-x", tmp_path / "manifest.sig")

    assert minisign(tool, "-S", *paths).returncode == 0
    signatures = parse_signatures((tmp_path / "manifest.sig").read_bytes(), "s")
    assert find_signers(MANIFEST, signatures, [public], "m") == (public,)
    (tmp_path / "manifest.sig").write_bytes(signing(load_secret_key(secret, str)).sign(MANIFEST))
    assert minisign(tool, "-V", "-P", str(public), *paths[2:]).returncode == 0
    assert minisign(tool, "-S", "-l", *paths).returncode == 0
    with pytest.raises(BundleError, match="legacy form"):
        parse_signatures((tmp_path / "manifest.sig").read_bytes(), "s")
