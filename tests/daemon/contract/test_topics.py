"""Names of topics, and the guard over where answers may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebit.daemon.contract.topics import (
    DeviceTopics,
    PoolTopics,
    is_device,
    is_id,
    is_principal,
    is_root,
    is_segment,
    segment_of,
)

PI = DeviceTopics("home/edgebit", "pi5")


def test_the_tree():
    """Fixed places below root, version and device."""
    assert PI.base == "home/edgebit/v1/pi5"
    assert PI.requests == "home/edgebit/v1/pi5/in/+/+"
    assert PI.request("alice", "chat") == "home/edgebit/v1/pi5/in/alice/chat"
    assert PI.parse_request(PI.request("alice", "chat")) == ("alice", "chat")
    assert PI.reply("alice", "7") == "home/edgebit/v1/pi5/out/alice/7"


@pytest.mark.parametrize(
    "topic", ["home/edgebit/v1/pi5/in/alice", "home/edgebit/v1/pi5/in/a/b/c", "home/edgebit/v1/pi/in/a/b", "x", ""]
)
def test_what_is_no_request(topic):
    """Too few levels, too many, another device."""
    assert PI.parse_request(topic) is None


@pytest.mark.parametrize(
    ("topic", "prefixes", "allowed"),
    [
        ("home/edgebit/v1/pi5/out/alice/x", (), True),
        ("home/edgebit/v1/other/out/alice/x/y", (), True),
        ("home/edgebit/v1/_pool/out/alice/x", (), False),  # a pool named "out", asked by principal "in"
        ("home/edgebit/v1/pi5/out/alice/", (), False),
        ("home/edgebit/v1/pi5/out/alic/x", (), False),
        ("home/edgebit/v1/pi5/out/alice2/x", (), False),
        ("home/edgebit/v1/pi5/in/alice/out", (), False),
        ("home/edgebit/v1/out/alice/x", (), False),
        ("home/edgebit/v2/pi5/out/alice/x", (), False),
        ("/home/edgebit/v1/pi5/out/alice/x", (), False),
        ("home/edgebit/v1/pi5/out/alice/\x00", (), False),
        ("home/edgebit/v1/pi5/out/alice/\x85", (), False),
        ("home/edgebit/v1/pi5/out/alice/\ud800", (), False),
        ("home/edgebit/v1/pi5/out/alice/\ufffe", (), False),
        ("home/edgebit/v1/pi5/out/alice/\ufdd0", (), False),
        ("home/edgebit/v1/pi5/out/alice/\U0001ffff", (), False),
        ("home/edgebit/v1/pi5/out/alice/\U0001f600", (), True),
        ("clients/alice/x", ("clients/{principal}/",), True),
        ("clients/alice/", ("clients/{principal}/",), False),
        ("clients/bob/x", ("clients/{principal}/",), False),
        ("home/edgebit/v1/pi5/in/alice/x", ("home/{principal}/", "home/edgebit/v1/pi5/in/{principal}/"), False),
        ("home/edgebit/v1/pi5/out/alice/" + "é" * 113, (), True),
        ("home/edgebit/v1/pi5/out/alice/" + "é" * 114, (), False),
    ],
)
def test_the_guard(topic, prefixes, allowed):
    """The caller's own out topics and what is configured for him, and nothing else."""
    assert (PI.refusal(topic, "alice", prefixes) is None) is allowed


@given(st.text(max_size=80), st.sampled_from(["", "home/edgebit/v1/", "home/edgebit/v1/pi5/out/", "$"]))
def test_whatever_is_allowed_is_the_callers_own(text, start):
    """No text gets an answer out of the caller's own place."""
    topic = start + text
    if PI.refusal(topic, "alice") is None:
        root, out, principal, rest = topic.removeprefix("home/edgebit/v1/").split("/", 3)
        assert (out, principal) == ("out", "alice") and root is not None and rest
        assert not set(topic) & set("+#\0")
        topic.encode()


@given(st.text(max_size=100))
def test_any_host_name_becomes_a_segment(text):
    """A device always has a name."""
    assert is_segment(segment_of(text))


def test_names():
    """What may stand in topics, and what would change their meaning."""
    assert is_root("a/b.c") and not is_root("a//b") and not is_root("A")
    assert is_principal("alice@example.com") and not is_principal("a/b") and not is_principal("+")
    assert is_id("job:1") and not is_id("") and not is_id("x" * 65) and not is_id("a\n")


def test_a_pools_topics():
    """One level where a device's name stands, then as below a device; no device has that name."""
    lab = PoolTopics("home/edgebit", "lab")
    assert lab.request("alice", "chat") == "home/edgebit/v1/_pool/lab/in/alice/chat"
    assert lab.share == "$share/eb.lab/home/edgebit/v1/_pool/lab/in/+/+"
    assert lab.parse_request(lab.request("alice", "chat")) == ("alice", "chat")
    assert lab.parse_request(PoolTopics("home/edgebit", "lab2").request("alice", "chat")) is None
    assert PI.parse_request(lab.request("alice", "chat")) is None
    assert not is_device("_pool") and is_device("pi5")


def test_no_answer_is_a_request_to_a_pool():
    """A principal `in` could else ask in another's name, where a pool is called `out`."""
    out = PoolTopics("home/edgebit", "out")
    assert PI.refusal(out.request("alice", "generate"), "in") is not None
