"""What `ask` and `deploy` share: the password of a broker, which belongs on no command line."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from edgebit.errors import BrokerError, EdgebitError
from edgebit.mqtt_client import BrokerUrl, parse_broker_url

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
