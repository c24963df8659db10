"""What a connection to the broker is for: the device's own, or its place in pools."""

from dataclasses import dataclass

from edgebit.daemon.config.sections import Config
from edgebit.daemon.contract.frames import Outgoing, encode_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """How a connection presents itself, and what it hears from its first moment on."""

    client_id: str
    session_expiry_s: int  # how long the broker keeps what comes while it is away (MQTT 5); 0: not at all
    availability: str | None  # topic that says, by the will too, whether the device is there; None: others say it
    subscriptions: tuple[str, ...]  # a broker that refuses one of these is of no use
    listen: tuple[str, ...] = ()  # the same is lived with here

    def says(self, state: str, number: int) -> Outgoing | None:
        """The availability of the connection of that number; None where others say it."""
        if self.availability is None:
            return None
        body = encode_json({"state": state, "conn": number})
        return Outgoing(topic=self.availability, payload=body, retain=True)


def device_role(config: Config) -> Role:
    """The device itself: requests in, everything out."""
    return Role(
        client_id=_client_id(config),
        session_expiry_s=config.mqtt.session_expiry_s,
        availability=config.topics.availability,
        subscriptions=(config.topics.requests,),
        listen=config.home_assistant.listen,
    )


def pool_role(config: Config) -> Role:
    """Its place in pools. A session would have requests wait for a device that is gone, though others are there."""
    return Role(client_id=f"{_client_id(config)}-pool", session_expiry_s=0, availability=None, subscriptions=())


def _client_id(config: Config) -> str:
    return config.mqtt.client_id or f"edgebit-{config.device_name}"
