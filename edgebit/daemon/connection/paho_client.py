"""The making of a paho client, without its callbacks."""

import ssl

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgebit.daemon.config.sections import MqttConfig

CONNECT_TIMEOUT_S = 10.0


def new_client(
    config: MqttConfig,
    client_id: str,
    *,
    mqtt5: bool,
    inflight_max: int,
    password: str | None,
    tls: ssl.SSLContext | None,
) -> paho.Client:
    """A client that is not connected, and leaves reconnecting and acknowledging to us."""
    # A 3.1.1 session never expires, and requests in it carry no expiry: without one, stale ones are not run.
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if mqtt5 else True,
        manual_ack=True,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.suppress_exceptions = True
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(inflight_max)
    client.max_queued_messages_set(config.queued_messages_max)
    if config.user:
        client.username_pw_set(config.user, password)
    if tls is not None:
        client.tls_set_context(tls)
    # With a callback here, publish() from another thread never writes to the socket itself: it wakes our loop.
    client.on_socket_register_write = lambda *_: None
    return client
