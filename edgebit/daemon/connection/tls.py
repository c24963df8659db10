"""TLS to the broker: at least version 1.2, the device's own certificate, and what a failure means in plain words."""

import base64
import binascii
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgebit.daemon.config.sections import MqttConfig
from edgebit.errors import ConfigError

WARN_DAYS = 30.0  # before the certificate's end
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

# A part of what OpenSSL says, in either direction: what it means, and how to mend it.
_MEANINGS = (
    ("CERTIFICATE_REQUIRED", "the broker wants a certificate of ours: set cert and key in [mqtt]"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the broker wants a certificate of ours: set cert and key in [mqtt]"),
    ("ALERT_UNKNOWN_CA", "the broker does not know who signed our certificate: cert in [mqtt], cafile of the broker"),
    ("ALERT_DECRYPT_ERROR", "our certificate was signed with another key than the broker's cafile has for that name"),
    ("ALERT_CERTIFICATE_EXPIRED", "our certificate has expired, or the broker's clock is wrong: renew cert in [mqtt]"),
    ("ALERT_CERTIFICATE_REVOKED", "our certificate was revoked: renew cert in [mqtt]"),
    ("ALERT_BAD_CERTIFICATE", "the broker does not take our certificate: look into its log"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the broker does not take our certificate: look into its log"),
    ("ALERT_HANDSHAKE_FAILURE", "the broker wants a certificate of ours, or other ciphers: cert and key in [mqtt]"),
    ("ALERT_PROTOCOL_VERSION", "the broker speaks no TLS 1.2 or newer"),
    ("UNSUPPORTED_PROTOCOL", "the broker speaks no TLS 1.2 or newer"),
    ("WRONG_VERSION_NUMBER", "what answers there speaks no TLS: mqtt:// instead of mqtts://, or another port"),
    ("certificate is not yet valid", "the broker's certificate begins later: is this device's clock right?"),
    ("certificate has expired", "the broker's certificate has expired, or this device's clock is wrong"),
    ("Hostname mismatch", "the broker's certificate is for another name than url has"),
    ("IP address mismatch", "the broker's certificate is for another address than url has"),
    ("self-signed certificate", "who signed the broker's certificate is not known here: set ca in [mqtt]"),
    ("unable to get local issuer", "who signed the broker's certificate is not known here: set ca in [mqtt]"),
)


def tls_context(mqtt: MqttConfig) -> ssl.SSLContext | None:
    """The context for an mqtts:// url, None for another. Raises ConfigError where a file cannot be used."""
    if not mqtt.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=mqtt.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[mqtt]: ca {mqtt.ca} holds no certificate that can be read (PEM): {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if mqtt.cert:
        try:
            context.load_cert_chain(mqtt.cert, mqtt.key, password=_no_passphrase(mqtt.key))
        except (OSError, ssl.SSLError) as error:
            words = f"[mqtt]: cert {mqtt.cert} and key {mqtt.key} cannot be used: {error}. They must be PEM and belong"
            raise ConfigError(f"{words} together") from error
    return context


def explain(reason: str) -> str:
    """`reason` with what it means, where it is about TLS; unchanged where not."""
    meaning = next((words for part, words in _MEANINGS if part in reason), None)
    return reason if meaning is None else f"{meaning} ({reason})"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate holds, in seconds of Unix time."""

    not_before: float
    not_after: float

    def days_left(self, now: float | None = None) -> float:
        """Days until the end; below 0 after it."""
        return (self.not_after - (time.time() if now is None else now)) / 86400

    def describe(self, now: float | None = None) -> dict[str, Any]:
        """For `info`: the end, and the days left by this device's clock."""
        now = time.time() if now is None else now
        end = datetime.fromtimestamp(self.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"not_after": end, "days_left": round(self.days_left(now), 1)}

    def early(self, now: float | None = None) -> str | None:
        """That it does not hold yet, in words; None where it does."""
        if (time.time() if now is None else now) >= self.not_before:
            return None
        return "our certificate begins later than now: is this device's clock right?"

    def warning(self, now: float | None = None) -> str | None:
        """What is, or soon will be, wrong with it; None where nothing is."""
        now = time.time() if now is None else now
        days = self.days_left(now)
        if early := self.early(now):
            return early
        if days < 0:
            return f"our certificate has expired {-days:.0f} days ago: renew cert in [mqtt]"
        return f"our certificate ends in {days:.0f} days: renew cert in [mqtt]" if days < WARN_DAYS else None


def read_validity(path: Path) -> Validity:
    """Of the first certificate in a PEM file. Raises ConfigError where there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
        body = text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]
        return _validity(base64.b64decode("".join(body.split()), validate=True))
    except (OSError, ValueError, IndexError, binascii.Error) as error:
        raise ConfigError(f"{path}: no certificate can be read there: {error}") from error


def _validity(der: bytes) -> Validity:
    """From a certificate's DER (RFC 5280, 4.1): Certificate, tbsCertificate, and in it the fifth or sixth item."""
    certificate = _content(der, 0)
    fields = _content(der, certificate[0])
    place = fields[0]
    if der[place] == 0xA0:  # the version, which may be left out
        place = _content(der, place)[1]
    for _ in range(3):  # serial number, signature's algorithm, issuer
        place = _content(der, place)[1]
    begin, _ = _content(der, place)
    not_before, after = _content(der, begin)
    not_after, _ = _content(der, after)
    return Validity(_time(der, begin, not_before), _time(der, after, not_after))


def _content(der: bytes, place: int) -> tuple[int, int]:
    """Where the content of the item at `place` begins, and where the item ends."""
    length, begin = der[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("a length that no certificate has")
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    if begin + length > len(der):
        raise ValueError("it is cut short")
    return begin, begin + length


def _time(der: bytes, place: int, begin: int) -> float:
    """A UTCTime (two digits of the year, from 1950 on) or GeneralizedTime."""
    text = der[begin : _content(der, place)[1]].decode("ascii")
    if der[place] == 0x17:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _no_passphrase(key: str) -> Callable[[], str]:
    """Called by OpenSSL for an encrypted key; without it the daemon would ask at a terminal that nobody sees."""

    def refuse() -> str:
        raise ConfigError(f"[mqtt]: key {key} is encrypted, and nobody can type its passphrase: write it plain, 0600")

    return refuse
