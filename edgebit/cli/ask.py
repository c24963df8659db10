"""`edgebit ask`: ask a device over MQTT."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebit.cli.ask_many import questions_of, show_answer, show_batch
from edgebit.cli.broker_options import (
    broker_option,
    broker_with_password,
    ca_option,
    password_file_option,
    principal_option,
    protocol_option,
    root_option,
)
from edgebit.cli.ctrl_c import interrupting
from edgebit.cli.response_format import response_format_of
from edgebit.cli.signing_options import key_password_file_option, sign_key_option, signer
from edgebit.cli.terminal import printable, printable_json
from edgebit.errors import EdgebitError
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.connection import Protocol
from edgebit.mqtt_client.device_states import DeviceState
from edgebit.mqtt_client.pool import pools_of, stream_from_pool
from edgebit.mqtt_client.request import new_id


@click.command()
@click.argument("question", required=False)
@click.option("--device", metavar="NAME", help="The device's name (edgebit ask --list shows them).")
@click.option("--pool", metavar="NAME", help="Ask whichever device of a pool is free, instead of a --device.")
@broker_option
@password_file_option
@click.option(
    "--batch",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="Ask all of a file: one question a line, or a request as JSON; - is standard input.",
)
@click.option("--get", "job_id", metavar="ID", help="Show what a job of before was answered, while the device has it.")
@click.option("--list", "list_devices", is_flag=True, help="Show the devices the broker knows, and end.")
@click.option(
    "--chat/--raw",
    "chat",
    default=None,
    help="Insist on the model's chat template, or go without it. Default: the template if there is one.",
)
@click.option(
    "--assist", is_flag=True, help="Ask the assistant that the model is: prints what it says, and its call as JSON."
)
@click.option(
    "--schema", metavar="FILE", help="The answer is JSON that follows the JSON Schema in FILE; or `json`, `model`."
)
@click.option("--adapter", metavar="NAME", help="Answer with an adapter that the device has (edgebit adapter list).")
@click.option("--system", metavar="TEXT", help="A system message put before the question.")
@click.option("--session", metavar="NAME", help="Go on with a conversation of this name, which the device remembers.")
@click.option("-n", "--max-tokens", type=click.IntRange(1), help="End after so many tokens.")
@click.option("--temperature", type=click.FloatRange(0, 10), help="0 is greedy. Default: as the device is set.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. May be given several times.")
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Among those who wait for the device.")
@click.option("--json", "as_json", is_flag=True, help="Print the last reply as one JSON object instead of the text.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option(
    "--timeout", "timeout_s", type=click.IntRange(1, 604_800), default=300, show_default=True, help="In seconds."
)
@protocol_option
@principal_option
@root_option
@ca_option
@sign_key_option
@key_password_file_option
def command(
    question: str | None,
    device: str | None,
    pool: str | None,
    broker: str,
    password_file: Path | None,
    batch: TextIO | None,
    job_id: str | None,
    list_devices: bool,
    chat: bool | None,
    assist: bool,
    schema: str | None,
    adapter: str | None,
    system: str | None,
    session: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    priority: str | None,
    as_json: bool,
    no_stream: bool,
    timeout_s: float,
    protocol: Protocol,
    principal: str | None,
    root: str,
    ca: str | None,
    sign_key: str | None,
    key_password_file: Path | None,
) -> None:
    """Ask a device over MQTT and stream its answer. A QUESTION of - is read from standard input.

    Ctrl-C cancels the answer on the device too. Exit codes: 10 the broker, 11 an error from the device, 12 no answer.

    \b
    edgebit ask --device raspberrypi "Why is the sky blue?"
    edgebit ask --device raspberrypi --assist "how hot is the chip?"
    edgebit ask --pool kitchen "Why is the sky blue?"
    edgebit ask --device raspberrypi --batch questions.txt --json
    edgebit ask --list --broker mqtt://broker.local
    edgebit ask --device raspberrypi --sign-key alice "Why is the sky blue?"
    """

    def connect() -> DeviceClient:
        source = click.get_current_context().get_parameter_source("broker")
        exposed = source is ParameterSource.COMMANDLINE
        return DeviceClient(
            broker_with_password(broker, password_file, exposed=exposed),
            principal=principal,
            protocol=protocol,
            root=root,
            ca=ca,
            timeout_s=timeout_s,
            sign=None if list_devices else signer(sign_key, key_password_file),
        )

    if list_devices:
        with connect() as client:
            _print_devices(client.devices(), broker, as_json)
        return
    if pool is not None and sign_key is not None:
        raise click.UsageError(
            "--sign-key goes with --device: a signed request is made for one device, not for a --pool"
        )
    options = {"num_predict": max_tokens, "temperature": temperature, "seed": seed, "stop": list(stop) or None}
    common = {
        "options": {name: value for name, value in options.items() if value is not None},
        **({"system": system} if system is not None else {}),
        **({"priority": priority} if priority is not None else {}),
        **({"adapter": adapter} if adapter is not None else {}),
        **({"response_format": response_format_of(schema)} if schema is not None else {}),
    }
    if assist and (chat is not None or system is not None or session is not None or schema is not None or stop):
        raise click.UsageError("--assist goes without --chat, --raw, --system, --session, --schema and --stop")
    if chat is False and system is not None:
        raise click.UsageError("--system belongs to the chat template, --raw goes without it")
    if session is not None and (chat is False or device is None or batch is not None or job_id is not None):
        raise click.UsageError(
            "--session goes on with a conversation at one --device, in the model's template: not with --raw, --pool, "
            "--batch or --get"
        )
    if batch is not None or job_id is not None:
        if device is None or question is not None or (batch is not None and job_id is not None):
            raise click.UsageError("--batch and --get go with a --device, without a question and without each other")
        questions = questions_of(batch.read()) if batch is not None else []
        with connect() as client:
            if job_id is not None:
                show_answer(client, device, job_id, timeout_s=timeout_s, as_json=as_json)
            else:
                own = _own_fields(chat, assist)
                asked = [{**own, **each} for each in questions]
                show_batch(client, device, asked, common, timeout_s=timeout_s, as_json=as_json)
        return
    if device is not None and pool is not None:
        raise click.UsageError("--device and --pool are given both: one of them answers")
    if device is pool is None or question is None:
        raise click.UsageError('a device or a pool, and a question, are needed: edgebit ask --device NAME "QUESTION"')
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise click.UsageError("the question is empty")
    fields: dict[str, Any] = {"stream": not (as_json or no_stream or assist), **common}
    if assist:
        fields["prompt"] = text
    elif chat:
        fields["messages"] = [{"role": "user", "content": text}]
    else:
        fields |= {"prompt": text, "raw": chat is False}
    if session is not None:
        fields["session"] = session
    op = "assist" if assist else "chat" if chat else "generate"
    exchange = Exchange(new_id())
    with connect() as client:
        if pool is not None:
            pieces = stream_from_pool(client, pool, op, fields, exchange, timeout_s=timeout_s)
        else:
            pieces = client.stream(device or "", op, fields, exchange, timeout_s=timeout_s)
        _show(client, pieces, exchange, streamed=fields["stream"])
    if as_json:
        click.echo(printable_json(exchange.reply))
    elif not fields["stream"]:
        click.echo(printable(exchange.text))
        if assist:
            click.echo(printable_json(exchange.reply.get("call")))


def _own_fields(chat: bool | None, assist: bool) -> dict[str, Any]:
    """What a question of a batch is, unless it says so itself."""
    if assist:
        return {"op": "assist"}
    return {"op": "chat"} if chat else {"raw": True} if chat is False else {}


def _show(client: DeviceClient, pieces: Iterator[str], exchange: Exchange, *, streamed: bool) -> None:
    shown = False
    try:
        with interrupting(client):
            for piece in pieces:
                click.echo(printable(piece), nl=False)
                shown = True
    except KeyboardInterrupt:
        if shown:
            click.echo()
        if exchange.device:
            client.cancel(exchange.device, exchange.id)
        raise click.Abort from None
    except EdgebitError:
        if shown:
            click.echo()
        raise
    if shown or streamed:
        click.echo()
    if exchange.lost:
        click.echo(f"{exchange.lost} frames were lost on the way; the whole answer is:", err=True)
        click.echo(printable(exchange.text))


def _print_devices(devices: list[DeviceState], broker: str, as_json: bool) -> None:
    if as_json:
        rows = [
            {"device": item.name, "availability": item.availability, "info": item.info, "status": item.status}
            for item in devices
        ]
        click.echo(printable_json(rows))
        return
    if not devices:
        click.echo(f"The broker {parse_broker_url(broker)} knows no device. Deploy a bundle: edgebit deploy --help")
        return
    table = Table("device", "availability", "state", "model", "tok/s", "°C", "pools", box=None, pad_edge=False)
    for item in devices:
        online = item.availability == "online"
        model = item.info.get("model")  # anybody may have published it
        table.add_row(
            _words(item.name),
            _words(item.availability),
            _words(item.status.get("state") if online else None),
            _words(model.get("name") if isinstance(model, dict) else None),
            _figure(item.status.get("tok_s_now")) if online else "",
            _figure(item.status.get("t_soc")) if online else "",
            _words(", ".join(name if is_in else f"({name})" for name, is_in in sorted(pools_of(item).items()))),
        )
    Console().print(table)


def _words(value: Any) -> Text:
    return Text(printable(value).replace("\n", "\\n") if isinstance(value, str) else "")


def _figure(value: Any) -> str:
    return f"{value:.1f}" if type(value) in (int, float) and abs(value) < 1e6 else ""
