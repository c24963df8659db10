"""Whose bundles a device takes: its policy, trust.json, and how that judges a bundle and changes with one.

Pure: edgebit/bundle/slots.py keeps the file. Standard library only: the device judges, and the host foretells it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgebit.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, Release, parse_release
from edgebit.bundle.signature import PublicKey, find_signers, parse_public_key, parse_signatures
from edgebit.errors import BundleError, ConfigError

POLICY_NAME = "trust.json"
POLICY_SCHEMA = 1
UNSIGNED = ("refuse", "allow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The content of trust.json, schema 1."""

    keys: tuple[PublicKey, ...]  # one of them signs each bundle; none: the first signed bundle brings its own
    unsigned: bool  # whether a bundle without a signature is taken
    floor: int = 0  # the lowest sequence that is taken

    def to_bytes(self) -> bytes:
        """The bytes of trust.json."""
        content = {
            "schema": POLICY_SCHEMA,
            "keys": [str(key) for key in self.keys],
            "unsigned": "allow" if self.unsigned else "refuse",
            "floor": self.floor,
        }
        return (json.dumps(content, indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle as it asks to be let in: the bytes of its manifest.json and manifest.sig; None: it is not signed."""

    manifest: bytes
    signature: bytes | None = None

    def to_bytes(self) -> bytes:
        """Both in one, as the agent reads it: a NUL byte, which no manifest holds, stands before the signature."""
        return self.manifest if self.signature is None else self.manifest + b"\0" + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> "Offer":
        """What to_bytes() made, or a manifest.json alone."""
        manifest, nul, signature = data.partition(b"\0")
        return cls(manifest, signature if nul else None)


def parse_policy(data: bytes, where: str) -> Policy:
    """Read and check a trust.json. Raises ConfigError: a policy that cannot be read lets nobody in."""
    mend = "Mend it by hand, or remove it: the keys of the signed bundle that runs then hold"
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON: {error}. {mend}") from error
    if not isinstance(content, dict) or set(content) != {"schema", "keys", "unsigned", "floor"}:
        raise ConfigError(f"{where} must have exactly 'schema', 'keys', 'unsigned' and 'floor'. {mend}")
    if content["schema"] != POLICY_SCHEMA or isinstance(content["schema"], bool):
        raise ConfigError(
            f"{where} has schema {content['schema']!r}, this edgebit reads schema {POLICY_SCHEMA}. {mend}"
        )
    keys, unsigned, floor = content["keys"], content["unsigned"], content["floor"]
    if not isinstance(keys, list) or not all(isinstance(line, str) for line in keys):
        raise ConfigError(f"{where}: keys must be a list of public keys. {mend}")
    if unsigned not in UNSIGNED:
        raise ConfigError(f"{where}: unsigned is {unsigned!r}, it is one of {', '.join(UNSIGNED)}. {mend}")
    if not isinstance(floor, int) or isinstance(floor, bool) or floor < 0:
        raise ConfigError(f"{where}: floor is {floor!r}, and no sequence. {mend}")
    try:
        parsed = tuple(parse_public_key(line, f"{where}: keys") for line in keys)
    except BundleError as error:
        raise ConfigError(f"{error}. {mend}") from error
    return Policy(keys=parsed, unsigned=unsigned == "allow", floor=floor)


def judge(
    offer: Offer, policy: Policy | None, first_keys: Sequence[PublicKey], now: datetime, since: datetime | None = None
) -> tuple[PublicKey, ...]:
    """The keys by which a device with `policy` lets the offered bundle in; none for one without a signature.

    policy: None on a device that never kept a bundle. first_keys: whom to trust where the policy has no keys.
    since: a moment that is past for sure, such as when the bundle was made that runs; a clock before it is wrong.
    Raises BundleError, saying what the device wants.
    """
    if offer.signature is None:
        if policy is not None and not policy.unsigned:
            raise BundleError(
                f"the bundle is not signed, and the device takes only bundles signed by {_names(policy.keys)}. Build it"
                " with: edgebit build --sign NAME"
            )
        return ()
    signatures = parse_signatures(offer.signature, SIGNATURE_NAME)
    trusted = policy.keys if policy is not None and policy.keys else tuple(first_keys)
    signers = find_signers(offer.manifest, signatures, trusted, MANIFEST_NAME)
    if not signers:
        by = ", ".join(signature.id for signature in signatures)
        if not trusted:
            raise BundleError(f"the bundle is signed by key {by}, which the device does not know. Name its public key")
        raise BundleError(
            f"the bundle is signed by key {by}, and the device takes only bundles signed by {_names(trusted)}. Sign"
            " it with one of those; another key is let in by a bundle that they signed (edgebit build --trust)"
        )
    release = parse_release(offer.manifest, MANIFEST_NAME)
    if (
        release is not None
        and release.keys
        and not find_signers(offer.manifest, signatures, release.keys, MANIFEST_NAME)
    ):
        raise BundleError(
            f"the bundle names {_names(release.keys)} to be trusted from now on, and none of them signed it: a key that"
            " nobody has would close the device for ever. Sign it with one of them too"
        )
    sequence = release.sequence if release is not None else 0
    if policy is not None and sequence < policy.floor:
        raise BundleError(
            f"the bundle has sequence {sequence}, the device takes none below {policy.floor}, which it had already. To"
            " return to the bundle before: edgebit rollback; else build it anew"
        )
    if release is not None and release.expires is not None:
        _refuse_expired(release, release.expires, now, since)
    return signers


def lets_in_again(policy: Policy | None, release: Release | None, accepted: Sequence[PublicKey]) -> bool:
    """Whether a bundle that is, byte for byte, the one that runs and was kept may come by the keys that it came by.

    After a roll-back the floor is above it. What would change the policy when it is kept once more does not come so:
    a key that the owner took out stays out.
    """
    return policy is not None and policy_after(policy, release, accepted) == policy


def _refuse_expired(release: Release, expires: datetime, now: datetime, since: datetime | None) -> None:
    past = max(release.created, since) if since is not None else release.created
    if now < past:
        raise BundleError(
            f"the device's clock is wrong: it says {now:%Y-%m-%d %H:%M} UTC, and {past:%Y-%m-%d %H:%M} is past. So it"
            f" cannot tell whether the bundle, which expires at {expires:%Y-%m-%d %H:%M} UTC, still holds. Set the"
            " clock"
        )
    if now >= expires:
        raise BundleError(
            f"the bundle expired at {expires:%Y-%m-%d %H:%M} UTC, the device's clock says {now:%Y-%m-%d %H:%M}. Build"
            " it anew, or set the clock if that is wrong"
        )


def policy_after(policy: Policy | None, release: Release | None, accepted: Sequence[PublicKey]) -> Policy:
    """The policy once a bundle is kept that was let in by the keys `accepted`; none: it is not signed.

    The first bundle decides: unsigned ones are taken after an unsigned one, and never again after a signed one.
    """
    if not accepted:
        return policy or Policy(keys=(), unsigned=True)
    before = policy or Policy(keys=(), unsigned=False)
    sequence = release.sequence if release is not None else 0
    if sequence < before.floor:  # returned to by hand: what it said is out of date
        return before
    named = release.keys if release is not None else ()
    return Policy(
        keys=named or before.keys or tuple(accepted),
        unsigned=before.unsigned and bool(before.keys),
        floor=sequence,
    )


def policy_of(kept: Iterable[tuple[Release | None, Sequence[PublicKey]]]) -> Policy | None:
    """The policy of a device that kept these bundles and lost its file: (release, the keys that let it in) of each.

    The latest sequence has the last word; None where none of them was signed.
    """
    policy = None
    for release, accepted in sorted(kept, key=lambda bundle: bundle[0].sequence if bundle[0] else 0):
        if accepted:
            policy = policy_after(policy, release, accepted)
    return policy


def describe_policy(policy: Policy | None) -> dict[str, Any] | None:
    """The policy with the keys' names, for people and scripts."""
    if policy is None:
        return None
    return {
        "keys": [key.id for key in policy.keys],
        "unsigned": "allow" if policy.unsigned else "refuse",
        "floor": policy.floor,
    }


def _names(keys: Sequence[PublicKey]) -> str:
    if not keys:
        return "a key that is to be named first"
    return f"key{'s' if len(keys) > 1 else ''} " + " or ".join(key.id for key in keys)
