"""edgebit keys, and what build, inspect and verify do with them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgebit import keys
from edgebit.bundle.archive import open_bundle
from edgebit.cli import cli
from edgebit.errors import BuildError, EdgebitError, KeyFileError


@pytest.fixture(autouse=True)
def key_folder(tmp_path, monkeypatch):
    """The key folder of a test's own, and a lock that opens quickly."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEBIT_KEY_PASSWORD", raising=False)
    monkeypatch.setattr(keys, "_OPS_LIMIT", 1 << 19)
    monkeypatch.setattr(keys, "_MEMORY_LIMIT", 1 << 24)
    return tmp_path / "config" / "edgebit" / "keys"


def edgebit(*arguments: str | Path, **environment: str) -> Result:
    """Run the command line in this process; an EdgebitError is raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False, env=environment)
    if isinstance(result.exception, EdgebitError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_keys_are_made_listed_and_shown():
    """What is printed is what minisign takes; nothing of the secret half is."""
    assert "There is no key" in edgebit("keys", "list").output
    made = json.loads(edgebit("keys", "new", "home", "--no-password", "--json").output)
    edgebit("keys", "new", "work", EDGEBIT_KEY_PASSWORD="secret")

    listed = json.loads(edgebit("keys", "list", "--json").output)
    shown = edgebit("keys", "show", "home").output

    assert [(key["name"], key["has_password"]) for key in listed] == [("home", False), ("work", True)]
    assert listed[0] == made
    assert shown == f"untrusted comment: minisign public key {made['id']}\n{made['public_key']}\n"
    table = edgebit("keys", "list").output
    assert "without a password" in table and made["public_key"] in table
    secret = Path(made["secret_file"]).read_text().splitlines()[1]
    assert secret not in table + shown + json.dumps(listed)


def test_a_key_is_whole_on_a_terminal():
    """It is there to be copied."""
    made = json.loads(edgebit("keys", "new", "home", "--no-password", "--json").output)

    listed = edgebit("keys", "list", FORCE_COLOR="1", TERM="dumb", COLUMNS="80").output

    assert made["public_key"] in listed and made["id"] in listed


def test_password_is_never_guessed(tmp_path):
    """Without a terminal, a file or the variable there is none; an empty one is no password."""
    with pytest.raises(KeyFileError, match="EDGEBIT_KEY_PASSWORD"):
        edgebit("keys", "new", "home")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(KeyFileError, match="is empty"):
        edgebit("keys", "new", "home", "--password-file", tmp_path / "empty")
    with pytest.raises(KeyFileError, match="exclude each other"):
        edgebit("keys", "new", "home", "--no-password", "--password-file", tmp_path / "empty")

    assert keys.list_keys() == []


def build(checkpoint: Path, out: Path, *options: str | Path, **environment: str) -> Result:
    return edgebit("build", checkpoint, "--target", "host", "--out", out, *options, **environment)


def test_signed_build_is_judged_by_inspect_and_verify(native, reference_checkpoint, tmp_path, key_folder):
    """Same bytes with SOURCE_DATE_EPOCH; passed with the public key, not judged without, failed when bent."""
    checkpoint, out, again = reference_checkpoint("bitnet-packed"), tmp_path / "host.bundle", tmp_path / "a"
    again.mkdir()
    (tmp_path / "password").write_text("secret\n")
    home = keys.new_key("home", "secret").public
    options = ("--sign", "home", "--key-password-file", tmp_path / "password", "--expires", "2100-01-01")

    said = build(checkpoint, out, *options, SOURCE_DATE_EPOCH="1772366400").output
    build(checkpoint, again / "host.bundle", *options, SOURCE_DATE_EPOCH="1772366400")

    assert f"signed   by key {home.id}, sequence 1772366400, until 2100-01-02 00:00 UTC" in said
    assert out.read_bytes() == (again / "host.bundle").read_bytes()
    assert open_bundle(out).manifest.release.sequence == 1772366400

    def verdict() -> tuple[str, str]:
        signature = json.loads(edgebit("inspect", out, "--json").output)["bundle"]["signature"]
        assert signature["keys"] == [home.id]
        return signature["status"], signature["detail"]

    assert verdict() == ("passed", f"signed by key {home.id} (home), sequence 1772366400, until 2100-01-02 00:00 UTC")
    (key_folder / "home.pub").rename(tmp_path / "home.pub")
    assert verdict()[0] == "not run"
    (tmp_path / "home.pub").rename(key_folder / "home.pub")
    data = out.read_bytes()
    out.write_bytes(data.replace(b"timestamp:1772366400", b"timestamp:1772366401", 1))
    assert verdict()[0] == "failed"
    report = CliRunner().invoke(cli, ["verify", str(out), "--no-run", "--json"], standalone_mode=False)
    checks = {check["name"]: check for check in json.loads(report.stdout)["checks"]}
    assert checks["signature"]["status"] == "failed" and "trusted comment was changed" in checks["signature"]["detail"]


def test_options_of_signing_go_with_a_key(reference_checkpoint, tmp_path):
    """Said before anything is built; a date that is no number is not either."""
    checkpoint, out = reference_checkpoint("bitnet-packed"), tmp_path / "host.bundle"
    keys.new_key("home", None)

    for alone in (("--sequence", "1"), ("--expires", "1d"), ("--trust", "home")):
        with pytest.raises(BuildError, match="go with --sign KEY"):
            build(checkpoint, out, *alone)
    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH is 'soon'"):
        build(checkpoint, out, "--sign", "home", SOURCE_DATE_EPOCH="soon")
    with pytest.raises(KeyFileError, match="no secret key 'work'"):
        build(checkpoint, out, "--sign", "work")

    assert not out.exists()
