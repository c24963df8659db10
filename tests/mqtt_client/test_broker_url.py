"""Addresses of brokers."""

import pytest

from edgebit.errors import BrokerError
from edgebit.mqtt_client.broker_url import default_principal, parse_broker_url


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user", "password"),
    [
        ("mqtt://h", "h", 1883, False, None, None),
        ("mqtts://h", "h", 8883, True, None, None),
        ("mqtt://u:p%40ss@h:2000/", "h", 2000, False, "u", "p@ss"),
        ("mqtt://[::1]:99", "::1", 99, False, None, None),
    ],
)
def test_addresses(url, host, port, tls, user, password):
    """User and password may stand in an address; they are not shown again."""
    broker = parse_broker_url(url)
    assert (broker.host, broker.port, broker.tls, broker.user, broker.password) == (host, port, tls, user, password)
    assert "ss" not in str(broker) and "p@ss" not in repr(broker)
    assert default_principal(broker) == (user or default_principal(broker))


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "http://h", "mqtt://", "mqtt://h/x", "mqtt://h:x", "mqtt://h:70000", "mqtt://[h", "mqtt://h:0"],
)
def test_wrong_addresses(url):
    """The refusal shows the form."""
    with pytest.raises(BrokerError, match="is not a broker's address"):
        parse_broker_url(url)
