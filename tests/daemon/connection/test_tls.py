"""TLS with certificates on both sides: who is let in, and the words for who is not."""

import ssl
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pki_fixtures import Authority

from edgebit.daemon.config.sections import MqttConfig
from edgebit.daemon.connection.tls import explain, read_validity, tls_context
from edgebit.errors import ConfigError

DAY = 86400.0

LOCKED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "pki")


def wait_for_log(daemon, text: str) -> str:
    deadline = time.monotonic() + 60
    while text not in (log := daemon.log.read_text(errors="replace")):
        assert time.monotonic() < deadline and daemon.process.poll() is None, log
        time.sleep(0.02)
    return log


@pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])
def test_a_broker_that_wants_certificates(mosquitto, daemons, ears, authority, tmp_path, mqtt5):
    """Users are the names in their certificates, held to their own topics; who has none, or a wrong one, hears why."""
    server, server_key = authority.issue("broker")
    (tmp_path / "acl").write_text(
        "user pi\ntopic readwrite edgebit/v1/pi/#\ntopic write edgebit/v1/+/out/#\n"
        "pattern write edgebit/v1/+/in/%u/#\npattern read edgebit/v1/+/out/%u/#\n"
    )
    broker = mosquitto(
        f"allow_anonymous false\ncafile {authority.ca}\ncertfile {server}\nkeyfile {server_key}\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {tmp_path}/acl"
    )
    url = broker.url.replace("mqtt://", "mqtts://")
    version = f'protocol = "{"5" if mqtt5 else "3.1.1"}"\n'

    def started(pem, key, ca=authority.ca):
        files = f'cert = "{pem}"\nkey = "{key}"\n' if pem else ""
        return daemons(url, mqtt=f'{version}auth = "topic"\nca = "{ca}"\n{files}')

    wait_for_log(started(*authority.issue("pi")), "connected to")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(*authority.issue("alice"))
    alice = ears(broker.port, "edgebit/v1/pi/out/alice/#", tls=context, mqtt5=mqtt5)
    alice.say("edgebit/v1/pi/in/alice/generate", '{"id": "mine", "prompt": "say 1"}')
    assert alice.next_json()["text"] == "w0 "
    alice.say("edgebit/v1/pi/in/bob/generate", '{"prompt": "say 1", "reply_to": "edgebit/v1/pi/out/bob/x"}')
    assert alice.silent()

    refused = [
        (started(None, None), "the broker wants a certificate of ours: set cert and key in [mqtt]"),
        (started(*Authority(tmp_path / "other", "other ca").issue("pi")), "does not know who signed our certificate"),
        (started(*Authority(tmp_path / "again").issue("pi")), "our certificate was signed with another key than"),
        (started(*authority.issue("late", ends_days=-0.5)), "our certificate has expired"),
        (
            started(*authority.issue("pi2"), ca=Authority(tmp_path / "third", "third ca").ca),
            "who signed the broker's certificate",
        ),
    ]
    for daemon, words in refused:
        wait_for_log(daemon, words)


def test_old_versions_of_tls_are_not_spoken(authority):
    """1.2 is the least."""
    context = tls_context(MqttConfig(url="mqtts://h", ca=str(authority.ca)))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2 and context.check_hostname
    assert tls_context(MqttConfig()) is None


def test_files_that_cannot_be_used(authority, tmp_path):
    """Each named, with what it should be; an encrypted key is not asked for at a terminal that nobody sees."""
    pem, key = authority.issue("pi")
    _, other_key = authority.issue("other")
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "locked").write_bytes(LOCKED)
    for ca, cert, own, words in (
        (tmp_path / "text", "", "", "holds no certificate that can be read"),
        (authority.ca, pem, other_key, "must be PEM and belong together"),
        (authority.ca, pem, tmp_path / "locked", "is encrypted, and nobody can type its passphrase"),
    ):
        with pytest.raises(ConfigError, match=words):
            tls_context(MqttConfig(url="mqtts://h", ca=str(ca), cert=str(cert), key=str(own)))
    assert tls_context(MqttConfig(url="mqtts://h", ca=str(authority.ca), cert=str(pem), key=str(key))) is not None


def test_the_end_of_a_certificate_is_seen_ahead(authority):
    """Days left by the device's clock; a clock before the certificate's beginning is wrong, as after a boot."""
    pem, _ = authority.issue("pi", begins_days=-1, ends_days=40)
    validity, now = read_validity(pem), time.time()
    assert abs(validity.not_after - now - 40 * DAY) < 100 and abs(validity.not_before - now + DAY) < 100
    end = datetime.fromtimestamp(validity.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert validity.describe(now) == {"not_after": end, "days_left": 40.0}
    assert validity.warning(now) is None
    assert validity.warning(now + 11 * DAY) == "our certificate ends in 29 days: renew cert in [mqtt]"
    assert "has expired 2 days ago" in validity.warning(now + 42 * DAY)
    assert "is this device's clock right?" in validity.warning(0.0)


@pytest.mark.parametrize("days", [9000, 20000])
def test_both_ways_to_write_a_time(authority, days):
    """Two digits of the year up to 2049, four from then on."""
    pem, _ = authority.issue("pi", ends_days=days)
    assert abs(read_validity(pem).not_after - time.time() - days * DAY) < 100


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_damaged_certificate_is_a_wrong_file(authority, cut):
    """And no crash, wherever it ends."""
    lines = authority.issue("pi")[0].read_text().splitlines()
    body = "".join(lines[1:-1])[: 4 * (cut // 4)]
    damaged = authority.folder / "damaged.pem"
    damaged.write_text("\n".join((lines[0], body, lines[-1])))
    with pytest.raises(ConfigError, match="no certificate can be read there"):
        read_validity(damaged)


def test_other_reasons_stay_as_they_are():
    """Only what is about TLS is explained."""
    assert explain("ConnectionRefusedError: [Errno 111]") == "ConnectionRefusedError: [Errno 111]"
    assert explain("[SSL: WRONG_VERSION_NUMBER] x").startswith("what answers there speaks no TLS")
