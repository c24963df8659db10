"""A broker's address, and who we are there."""

import contextlib
import getpass
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from edgebit.daemon.config.sections import PORTS, is_broker_address
from edgebit.daemon.contract.topics import is_principal
from edgebit.errors import BrokerError


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is, and who we are there."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker_url(url: str) -> BrokerUrl:
    """Read mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]. Raises BrokerError."""
    try:
        parts = urlsplit(url)
        is_address = is_broker_address(parts)
    except ValueError as error:
        raise BrokerError(f"{url!r} is not a broker's address: {error}") from error
    if not is_address or parts.hostname is None:
        raise BrokerError(f"{url!r} is not a broker's address. Write mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return BrokerUrl(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def default_principal(broker: BrokerUrl) -> str:
    """Who we are in topics: the broker's user name, which an access list can hold us to, or this machine's."""
    if broker.user is not None:
        return broker.user
    with contextlib.suppress(OSError, KeyError):
        if is_principal(name := getpass.getuser()):
            return name
    return "cli"
