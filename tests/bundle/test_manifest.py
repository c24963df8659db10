"""manifest.json: what is written is read back, and what is wrong is refused with the place."""

import dataclasses
import json

import pytest
from signing_keys import make_key, signing

from edgebit.bundle.manifest import (
    BuildInfo,
    FileEntry,
    Manifest,
    ModelInfo,
    TargetInfo,
    bundle_id,
    is_member_name,
    parse_manifest,
)
from edgebit.errors import BundleError

SUM = "ab" * 32
ENTRY = {"size": 1, "sha256": SUM}


def manifest() -> Manifest:
    return Manifest(
        name="chat",
        edgebit="0.1.0",
        abi=1,
        target=TargetInfo(name="rpi", triple="aarch64-linux-gnu", features=("neon",)),
        model=ModelInfo(name="bitnet", family="bitnet-b1.58", parameters=7, context_max=9, vocab_size=5, licence="MIT"),
        build=BuildInfo(
            builder="zig", compiler="zig 1", toolchain_id="00", checks={"b": "passed", "a": "not run: why"}
        ),
        files={"model.ebm": FileEntry(size=3, sha256=SUM), "lib/libedgebit.so": FileEntry(size=0, sha256=SUM)},
    )


def test_what_is_written_is_read_back():
    """Every field survives; the id is that of the bytes."""
    data = manifest().to_bytes()

    assert parse_manifest(data, "m") == manifest()
    assert bundle_id(data) == bundle_id(parse_manifest(data, "m").to_bytes())
    assert len(bundle_id(data)) == 16


def test_order_does_not_change_the_bytes():
    """Files and checks are sorted: the same content has the same id."""
    one = manifest()
    other = dataclasses.replace(
        one,
        build=dataclasses.replace(one.build, checks=dict(reversed(one.build.checks.items()))),
        files=dict(reversed(one.files.items())),
    )

    assert other.to_bytes() == manifest().to_bytes()


def test_describing_sections_may_grow():
    """A key that only describes does not shut out older readers."""
    content = json.loads(manifest().to_bytes())
    content["target"]["cores"] = 4
    content["build"]["host"] = "x86_64"

    assert parse_manifest(json.dumps(content).encode(), "m") == manifest()


ONE, TWO = make_key(1), make_key(2)
RELEASE = signing(ONE, TWO, sequence=7, expires="90d", trust=(ONE, TWO)).release


def test_release_is_read_back():
    """With what devices are told, and without what they are not."""
    for release in (RELEASE, signing(ONE).release):
        signed = dataclasses.replace(manifest(), release=release)

        assert parse_manifest(signed.to_bytes(), "m") == signed
    assert b"release" not in manifest().to_bytes()


def releasing(**changes):
    """Puts a release with some keys changed into a manifest; None takes a key away."""

    def change(content):
        release = RELEASE.as_json() | changes
        content["release"] = {key: value for key, value in release.items() if value is not None}

    return change


BROKEN = {
    "release list": (lambda c: c.update(release=[]), "'release' must be an object"),
    "release unknown key": (releasing(until="x"), "release has a key that this edgebit does not know: 'until'"),
    "no sequence": (releasing(sequence=None), "release lacks 'sequence'"),
    "sequence true": (releasing(sequence=True), "'sequence' must be a whole number"),
    "sequence below zero": (releasing(sequence=-1), "sequence is -1"),
    "sequence beyond JSON": (releasing(sequence=2**53 + 1), "sequence is 9007199254740993"),
    "no created": (releasing(created=None), "release lacks 'created'"),
    "created number": (releasing(created=1), "'created' must be a string"),
    "created local": (releasing(created="2026-03-01T12:00:00"), "no time in UTC"),
    "created no day": (releasing(created="2026-02-30T12:00:00Z"), "no time in UTC"),
    "created other digits": (releasing(created="٢٠٢٦-03-01T12:00:00Z"), "no time in UTC"),
    "expires date": (releasing(expires="2027-01-31"), "'expires' is '2027-01-31', and no time in UTC"),
    "expires null": (lambda c: c.update(release=RELEASE.as_json() | {"expires": None}), "'expires' must be a string"),
    "release keys text": (releasing(keys="RW"), "'keys' must be a list"),
    "release keys numbers": (releasing(keys=[1]), "release.keys must hold strings only"),
    "release no keys": (releasing(keys=[]), "keys has 0 keys"),
    "release many keys": (releasing(keys=[str(ONE.public)] * 9), "keys has 9 keys"),
    "release key twice": (releasing(keys=[str(ONE.public)] * 2), "keys has a key twice"),
    "release key damaged": (releasing(keys=["RW" + "A" * 54]), "no public key"),
    "schema 2": (lambda c: c.update(schema=2), "has schema 2, this edgebit reads schema 1"),
    "schema true": (lambda c: c.update(schema=True), "has schema True"),
    "no schema": (lambda c: c.pop("schema"), "has schema None"),
    "unknown key": (lambda c: c.update(signature="x"), "does not know: 'signature'"),
    "no name": (lambda c: c.pop("name"), "lacks 'name'"),
    "name with slash": (lambda c: c.update(name="a/b"), "name 'a/b'"),
    "abi zero": (lambda c: c.update(abi=0), "abi is 0"),
    "abi text": (lambda c: c.update(abi="1"), "'abi' must be a whole number"),
    "target list": (lambda c: c.update(target=[]), "'target' must be an object"),
    "no triple": (lambda c: c["target"].pop("triple"), "target lacks 'triple'"),
    "features of numbers": (lambda c: c["target"].update(features=[1]), "target.features must hold strings only"),
    "parameters text": (lambda c: c["model"].update(parameters="7"), "model: 'parameters' must be a whole number"),
    "check is a number": (lambda c: c["build"].update(checks={"a": 1}), "build.checks must hold strings only"),
    "no files": (lambda c: c.update(files={}), "files is empty"),
    "absolute": (lambda c: c["files"].update({"/etc/passwd": ENTRY}), "'/etc/passwd' is not a name"),
    "parent": (lambda c: c["files"].update({"../x": ENTRY}), "'../x' is not a name"),
    "itself": (lambda c: c["files"].update({"manifest.json": ENTRY}), "'manifest.json' is not a name"),
    "file in file": (lambda c: c["files"].update({"model.ebm/x": ENTRY}), "would lie inside it"),
    "entry without size": (lambda c: c["files"].update(a={"sha256": SUM}), "exactly 'size' and 'sha256'"),
    "entry with more": (lambda c: c["files"].update(a=ENTRY | {"url": ""}), "exactly 'size' and 'sha256'"),
    "negative size": (lambda c: c["files"].update(a={"size": -1, "sha256": SUM}), "has size -1"),
    "size as float": (lambda c: c["files"].update(a={"size": 1.0, "sha256": SUM}), "'size' must be a whole number"),
    "upper-case sum": (lambda c: c["files"].update(a={"size": 1, "sha256": SUM.upper()}), "64 lower-case hex digits"),
    "short sum": (lambda c: c["files"].update(a={"size": 1, "sha256": "ab"}), "64 lower-case hex digits"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_manifest_is_refused(name):
    """The message names the file, the key and what is wrong."""
    damage, promised = BROKEN[name]
    content = json.loads(manifest().to_bytes())
    damage(content)

    with pytest.raises(BundleError) as refused:
        parse_manifest(json.dumps(content).encode(), "chat.bundle: manifest.json")

    assert promised in str(refused.value)
    assert str(refused.value).startswith("chat.bundle: manifest.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1, "schema": 1}', b"{" + b" " * (2 << 20) + b"}"],
    ids=["empty", "cut", "list", "not UTF-8", "deep", "key twice", "huge"],
)
def test_what_is_no_manifest_is_refused(data):
    """No input ends in anything but a BundleError."""
    with pytest.raises(BundleError):
        parse_manifest(data, "m")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("model.ebm", True), ("lib/libedgebit.so", True), ("a/b/c", True), ("_x", True),
        ("", False), ("/a", False), ("a/", False), ("a//b", False), (".", False), ("..", False), ("a/../b", False),
        (".hidden", False), ("a/.git", False), ("a\\b", False), ("a b", False), ("a\n", False), ("-rf", False),
        ("manifest.json", False), ("manifest.json/x", False), ("docs/manifest.json", True),
        ("é", False), ("x" * 101, False), ("C:x", False),
    ],
)  # fmt: skip
def test_member_names(name, allowed):
    """Only plain relative paths: nothing that a shell, tar or another system could read as something else."""
    assert is_member_name(name) is allowed
