"""The options by which commands find a broker; its password belongs on no command line."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgebit.daemon.contract.topics import DEFAULT_ROOT, is_segment, segment_of
from edgebit.errors import BrokerError, EdgebitError
from edgebit.mqtt_client.broker_url import BrokerUrl, parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.connection import Protocol

PASSWORD_VARIABLE = "EDGEBIT_MQTT_PASSWORD"


def broker_password(
    broker: BrokerUrl,
    file: Path | None,
    *,
    file_option: str,
    exposed_by: str | None,
    error: type[EdgebitError] = BrokerError,
) -> str | None:
    """The password from its file, the address, the environment, or a prompt on a terminal; None where there is none.

    exposed_by: the option whose value stands in the list of processes; None where the address came another way.
    Raises `error` where the file cannot be read.
    """
    if file:
        try:
            return (file.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as fault:
            raise error(f"{file_option} {file} cannot be read: {fault}") from fault
    if broker.password:
        if exposed_by:
            words = f"The password in {exposed_by} can be seen by others on this machine: rather use {file_option}."
            click.echo(words, err=True)
        return broker.password
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if sys.stdin.isatty():
        words = f"Password of {broker.user} at the broker"
        return str(click.prompt(words, hide_input=True, default="", show_default=False, err=True)) or None
    return None


def broker_with_password(url: str, file: Path | None, *, exposed: bool) -> BrokerUrl:
    """The broker of `edgebit ask`, with the password of its user. Raises BrokerError."""
    broker = parse_broker_url(url)
    if broker.user is None:
        if file:
            raise BrokerError("--password-file goes with --broker mqtt://USER@HOST")
        return broker
    exposed_by = "--broker" if exposed else None
    return replace(broker, password=broker_password(broker, file, file_option="--password-file", exposed_by=exposed_by))


class DeviceName(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A device's name as it stands in topics."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value)
        if not is_segment(name):
            words = f"{name!r} is no device's name, which is 1 to 64 of a-z 0-9 _ . - (try {segment_of(name)!r})"
            self.fail(words, param, ctx)
        return name


broker_option = click.option(
    "--broker",
    envvar="EDGEBIT_BROKER",
    default="mqtt://localhost",
    show_default=True,
    metavar="URL",
    help="mqtt[s]://[USER@]HOST[:PORT]; also from EDGEBIT_BROKER.",
)
password_file_option = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="First line: the password of the broker's USER. Else EDGEBIT_MQTT_PASSWORD, else a prompt.",
)
protocol_option = click.option(
    "--protocol", type=click.Choice(["auto", "5", "3.1.1"]), default="auto", help="The version of MQTT."
)
principal_option = click.option(
    "--principal", metavar="NAME", help="Who we are in topics. Default: the broker's user, or this machine's."
)
root_option = click.option("--root", default=DEFAULT_ROOT, show_default=True, help="The first level of all topics.")
ca_option = click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False), help="PEM file that the broker's certificate is checked by."
)


@dataclass(frozen=True, slots=True)
class Connecting:
    """The way to a broker that the options name; every connect() is a connection of its own."""

    broker: str  # its address, without user and password
    connect: Callable[..., DeviceClient]  # with what signs the requests, where something does


def broker_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that speaks with devices; it gets a Connecting as `connecting`."""

    @functools.wraps(command)
    def called(
        *,
        broker: str,
        password_file: Path | None,
        protocol: Protocol,
        principal: str | None,
        root: str,
        ca: str | None,
        **others: Any,
    ) -> None:
        exposed = click.get_current_context().get_parameter_source("broker") is ParameterSource.COMMANDLINE
        url = broker_with_password(broker, password_file, exposed=exposed)

        def connect(sign: Callable[[bytes], bytes] | None = None) -> DeviceClient:
            return DeviceClient(url, principal=principal, protocol=protocol, root=root, ca=ca, sign=sign)

        command(connecting=Connecting(str(url), connect), **others)

    shown = (broker_option, password_file_option, protocol_option, principal_option, root_option, ca_option)
    for option in reversed(shown):
        option(called)
    return called
