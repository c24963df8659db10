"""Whose bundles a device takes: the verdict on each kind of bundle, and what a kept one changes."""

import json
from datetime import timedelta

import pytest
from signing_keys import MADE, make_key, signing

from edgebit.bundle.manifest import parse_release
from edgebit.bundle.trust import Offer, Policy, describe_policy, judge, lets_in_again, parse_policy, policy_after
from edgebit.errors import BundleError, ConfigError

OLD, NEW, STRANGER = make_key(1), make_key(2), make_key(3)
OPEN = Policy(keys=(), unsigned=True)
STRICT = Policy(keys=(OLD.public,), unsigned=False, floor=5)
BOTH = Policy(keys=(OLD.public, NEW.public), unsigned=False)
NOW = MADE + timedelta(hours=1)
UNSIGNED = Offer(b'{"name": "chat"}')


def offer(*keys, **says) -> Offer:
    """A signed manifest; what else a manifest holds is no matter here."""
    plan = signing(*keys, **says)
    manifest = json.dumps({"schema": 99, "release": plan.release.as_json()}).encode()
    return Offer(manifest, plan.sign(manifest))


def keys_that_let_in(offered, policy, first_keys=(), now=NOW, since=None):
    return judge(offered, policy, [key.public for key in first_keys], now, since)


TAKEN = {
    "unsigned on a new device": (UNSIGNED, None, (), ()),
    "unsigned where the policy allows it": (UNSIGNED, OPEN, (), ()),
    "unsigned beside keys, where the policy allows it": (UNSIGNED, Policy(keys=BOTH.keys, unsigned=True), (), ()),
    "signed on a new device": (offer(OLD), None, (OLD,), (OLD,)),
    "signed where none was signed before": (offer(OLD), OPEN, (OLD, NEW), (OLD,)),
    "signed by the pinned key": (offer(OLD, sequence=5), STRICT, (), (OLD,)),
    "later": (offer(OLD, sequence=6), STRICT, (), (OLD,)),
    "signed by one of two pinned keys": (offer(NEW), BOTH, (), (NEW,)),
    "signed by a stranger too": (offer(STRANGER, OLD, sequence=9), STRICT, (), (OLD,)),
    "old key names the new one": (offer(OLD, sequence=5, trust=(OLD, NEW)), STRICT, (), (OLD,)),
    "old and new key hand over": (offer(OLD, NEW, sequence=5, trust=(NEW,)), STRICT, (), (OLD,)),
    "not yet expired": (offer(OLD, sequence=5, expires="1d"), STRICT, (), (OLD,)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_bundle_is_let_in(name):
    """And it is said by whose key."""
    offered, policy, first_keys, expected = TAKEN[name]

    assert keys_that_let_in(offered, policy, first_keys) == tuple(key.public for key in expected)


changed = offer(OLD, sequence=9)
REFUSED = {
    "unsigned": (UNSIGNED, STRICT, (), f"not signed, and the device takes only bundles signed by key {OLD.public.id}"),
    "signature taken off": (Offer(changed.manifest), STRICT, (), "is not signed"),
    "empty signature": (Offer(changed.manifest, b""), STRICT, (), "has 1 lines"),
    "stranger's": (offer(STRANGER, sequence=9), STRICT, (STRANGER,), f"signed by key {STRANGER.public.id}, and the"),
    "unknown on a new device": (offer(STRANGER), None, (OLD,), "takes only bundles signed by"),
    "unknown, and none known": (offer(STRANGER), None, (), "Name its public key"),
    "unknown where unsigned ones are allowed": (offer(STRANGER), OPEN, (), "Name its public key"),
    "changed": (Offer(changed.manifest + b" ", changed.signature), STRICT, (), "changed after it was signed"),
    "changed where unsigned ones are allowed": (
        Offer(changed.manifest + b" ", changed.signature), OPEN, (OLD,), "changed after it was signed",
    ),
    "below the floor": (offer(OLD, sequence=4), STRICT, (), "has sequence 4, the device takes none below 5"),
    "new key without a word of the old": (offer(NEW, sequence=9, trust=(NEW,)), STRICT, (NEW,), "takes only bundles"),
    "expired": (offer(OLD, sequence=9, expires="1d"), STRICT, (), "expired at 2026-03-02 12:00 UTC"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bundle_is_refused(name):
    """In words that say what the device wants."""
    offered, policy, first_keys, promised = REFUSED[name]

    with pytest.raises(BundleError) as refused:
        keys_that_let_in(offered, policy, first_keys, now=MADE + timedelta(days=2))

    assert promised in str(refused.value)


def test_named_keys_of_which_none_signed_are_refused():
    """A bundle made by another tool; ours does not sign such a one."""
    plan = signing(OLD, NEW, sequence=9, trust=(NEW,))
    manifest = json.dumps({"release": plan.release.as_json()}).encode()

    with pytest.raises(BundleError, match="none of them signed it"):
        keys_that_let_in(Offer(manifest, signing(OLD).sign(manifest)), STRICT)


def test_signed_without_a_release_has_sequence_zero():
    """Signed by hand, with minisign alone: the floor refuses it where there is one."""
    by_hand = Offer(UNSIGNED.manifest, signing(OLD).sign(UNSIGNED.manifest))

    assert keys_that_let_in(by_hand, BOTH) == (OLD.public,)
    with pytest.raises(BundleError, match="has sequence 0"):
        keys_that_let_in(by_hand, STRICT)


@pytest.mark.parametrize(
    ("now", "since"),
    [(MADE - timedelta(seconds=1), None), (MADE + timedelta(hours=1), MADE + timedelta(days=3))],
    ids=["before the bundle was made", "before the bundle that runs was made"],
)
def test_clock_that_is_wrong_for_sure_tells_nothing(now, since):
    """A device without a clock of its own begins in the past: it asks for the time rather than to guess."""
    with pytest.raises(BundleError, match="the device's clock is wrong"):
        keys_that_let_in(offer(OLD, sequence=5, expires="1d"), STRICT, now=now, since=since)

    assert keys_that_let_in(offer(OLD, sequence=5), STRICT, now=now, since=since) == (OLD.public,)


def test_first_bundle_decides():
    """Unsigned ones go on being taken; a signed one pins its key, and no unsigned one is taken any more."""
    release = signing(OLD, sequence=7).release

    assert policy_after(None, None, ()) == OPEN
    for before in (None, OPEN):
        assert policy_after(before, release, [OLD.public]) == Policy(keys=(OLD.public,), unsigned=False, floor=7)


def test_kept_bundle_raises_the_floor_and_changes_the_keys():
    """All of the keys, those that it names; none named, none changed."""
    hand_over = signing(OLD, NEW, sequence=8, trust=(NEW,)).release

    assert policy_after(STRICT, signing(OLD, sequence=9).release, [OLD.public]) == Policy(
        keys=(OLD.public,), unsigned=False, floor=9
    )
    assert policy_after(STRICT, hand_over, [OLD.public]) == Policy(keys=(NEW.public,), unsigned=False, floor=8)


def test_bundle_below_the_floor_changes_nothing():
    """One that was returned to by hand must not bring its keys back."""
    assert policy_after(STRICT, signing(OLD, NEW, sequence=4, trust=(NEW,)).release, [OLD.public]) == STRICT


def test_bundle_that_runs_comes_again_where_it_changes_nothing():
    """Below the floor, yes; not where it would bring back a key that the owner took out, nor to an unknown policy."""
    below, level = signing(OLD, sequence=4).release, signing(OLD, sequence=5, trust=(OLD,)).release

    assert lets_in_again(STRICT, below, [OLD.public]) and lets_in_again(STRICT, level, [OLD.public])
    assert lets_in_again(STRICT, None, ()), "an unsigned one from before the first key"
    assert not lets_in_again(Policy(keys=(NEW.public,), unsigned=False, floor=5), level, [OLD.public])
    assert not lets_in_again(None, below, [OLD.public])


def test_owner_may_allow_unsigned_bundles_beside_keys():
    """A policy that a person wrote stays."""
    mixed = Policy(keys=(OLD.public,), unsigned=True)

    assert policy_after(mixed, signing(OLD, sequence=2).release, [OLD.public]).unsigned
    assert policy_after(mixed, None, ()) == mixed


@pytest.mark.parametrize("policy", [OPEN, STRICT, BOTH])
def test_policy_is_read_back(policy):
    """As trust.json has it."""
    assert parse_policy(policy.to_bytes(), "trust.json") == policy
    assert describe_policy(policy)["keys"] == [key.id for key in policy.keys]


WRONG = {
    "no JSON": (b"{", "is not JSON"),
    "no UTF-8": (b"\xff", "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "empty": (b"", "is not JSON"),
    "list": (b"[]", "must have exactly"),
    "key missing": ({"floor": None}, "must have exactly"),
    "key too many": ({"more": 1}, "must have exactly"),
    "schema 2": ({"schema": 2}, "has schema 2"),
    "schema true": ({"schema": True}, "has schema True"),
    "keys text": ({"keys": "RW"}, "keys must be a list"),
    "keys of numbers": ({"keys": [1]}, "keys must be a list"),
    "no key": ({"keys": ["RW"]}, "no public key"),
    "unsigned true": ({"unsigned": True}, "unsigned is True"),
    "unsigned list": ({"unsigned": []}, "unsigned is []"),
    "floor text": ({"floor": "1"}, "floor is '1'"),
    "floor below zero": ({"floor": -1}, "floor is -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_policy_lets_nobody_in(name):
    """It is never taken for an open one."""
    data, promised = WRONG[name]
    if isinstance(data, dict):
        content = json.loads(STRICT.to_bytes()) | data
        data = json.dumps({key: value for key, value in content.items() if value is not None}).encode()

    with pytest.raises(ConfigError) as refused:
        parse_policy(data, "trust.json")

    assert promised in str(refused.value)
    assert "Mend it by hand, or remove it" in str(refused.value)


@pytest.mark.parametrize("offered", [UNSIGNED, Offer(b"", None), Offer(b"{}", b""), Offer(b"{}", b"a\0b")])
def test_offer_is_read_back(offered):
    """A manifest alone, and one with a signature behind it."""
    assert Offer.from_bytes(offered.to_bytes()) == offered


def test_release_is_read_from_a_manifest_of_any_schema():
    """So that a device can judge the bundle that brings it a later edgebit."""
    plan = signing(OLD, sequence=3)
    data = json.dumps({"schema": 7, "parts": [], "release": plan.release.as_json()}).encode()

    assert parse_release(data, "m") == plan.release
