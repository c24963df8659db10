"""`edgebit demo`: the whole way on one machine, with the model that ships."""

import contextlib
import sys

import click
from rich.console import Console

from edgebit.cli.build import BuildDisplay
from edgebit.cli.deploy import Reporter
from edgebit.cli.terminal import printable, printable_json
from edgebit.demo import DEVICE_NAME, build_demo, demo_folder, deploy_demo, remove_demo
from edgebit.local_broker import LocalBroker, local_broker
from edgebit.mqtt_client.answers import Exchange
from edgebit.mqtt_client.broker_url import parse_broker_url
from edgebit.mqtt_client.client import DeviceClient
from edgebit.mqtt_client.request import new_id

QUESTIONS = (
    "turn the bedroom lamp to forty percent",
    "is the back door locked?",
    "how hot is the chip?",
    "what is the capital of France?",
)
ANSWER_TIMEOUT_S = 60.0


@click.command()
@click.argument("questions", nargs=-1)
def command(questions: tuple[str, ...]) -> None:
    """Build the bundle of the model that ships, start a broker and a device on this machine, and ask it QUESTIONS.

    What the model says it would do stands as a call in JSON behind its words; questions about the
    device are answered with this machine's own figures. Nothing is left behind. Without QUESTIONS it asks four,
    and then, on a terminal, yours.

    \b
    edgebit demo
    edgebit demo "turn off the kitchen light"
    """
    console = Console(highlight=False)
    with demo_folder() as folder:
        console.print("[bold]1. A checkpoint becomes a bundle[/bold]  (edgebit build)")
        with BuildDisplay(console) as display:
            bundle = build_demo(folder, display)
        weights, size = bundle.manifest.model.parameters / 1e6, bundle.size / 2**20
        console.print(f"   {weights:.2f} M weights; bundle of {size:.2f} MiB, engine and daemon inside")
        with local_broker() as broker:
            console.print(f"[bold]2. A broker[/bold]  {broker.program} at {broker.url}")
            console.print("[bold]3. The bundle goes onto a device[/bold]  (edgebit deploy; here a folder)")
            device = folder / "device"
            with Reporter(console) as reporter:
                outcome = deploy_demo(bundle, broker, device, reporter)
            try:
                console.print(f"   {outcome.probes} golden probes equal bit for bit on {outcome.isa}")
                console.print("[bold]4. Questions over MQTT[/bold]  (edgebit ask)")
                _ask_all(console, broker, questions or QUESTIONS)
                if not questions and sys.stdin.isatty():
                    _ask_the_user(console, broker)
            finally:
                remove_demo(device)
    console.print("\n[bold]With a device of yours:[/bold]", soft_wrap=True)
    console.print("  edgebit build MODEL --target rpi --out my.bundle", soft_wrap=True)
    console.print("  edgebit deploy my.bundle --to ssh://pi@raspberrypi.local --mqtt mqtt://BROKER", soft_wrap=True)
    console.print('  edgebit ask --broker mqtt://BROKER --device raspberrypi --assist "how hot is it?"', soft_wrap=True)


def _ask_all(console: Console, broker: LocalBroker, questions: tuple[str, ...]) -> None:
    with DeviceClient(parse_broker_url(broker.url), protocol=broker.protocol) as client:
        for question in questions:
            console.print("   [green]>[/green] ", end="")
            console.print(question, markup=False)
            _show_answer(console, client, question)


def _ask_the_user(console: Console, broker: LocalBroker) -> None:
    console.print("   Ask it something yourself; an empty line ends the demo.")
    with DeviceClient(parse_broker_url(broker.url), protocol=broker.protocol) as client, contextlib.suppress(EOFError):
        while question := console.input("   [green]>[/green] ").strip():
            _show_answer(console, client, question)


def _show_answer(console: Console, client: DeviceClient, question: str) -> None:
    """What is said and, from a model that makes calls, the call."""
    model = client.info(DEVICE_NAME).get("model") or {}
    console.print("     ", end="")
    if not model.get("response_schema"):
        fields = {"prompt": question, "stream": True}
        for piece in client.stream(DEVICE_NAME, "generate", fields, Exchange(new_id()), timeout_s=ANSWER_TIMEOUT_S):
            console.print(printable(piece), end="", markup=False)
        console.print()
        return
    reply = client.ask(DEVICE_NAME, "assist", {"prompt": question}, timeout_s=ANSWER_TIMEOUT_S)
    console.print(printable(str(reply.get("text"))), markup=False)
    console.print(f"     {printable_json(reply.get('call'))}", style="dim", markup=False, soft_wrap=True)
