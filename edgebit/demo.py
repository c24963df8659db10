"""Service: the whole way on one machine: the model that ships becomes a bundle, a device, and answers over MQTT.

Nothing in it is made for the demo but the broker and the folder that stands for a device.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebit.build import BuildOptions, BuildResult, Listener, build_bundle
from edgebit.bundle.archive import open_bundle
from edgebit.deploy import Device, InstallOptions, Outcome, Reporter, install
from edgebit.local_broker import LocalBroker
from edgebit.resources import demo_model_dir
from edgebit.targets import HOST, find_target
from edgebit.transport import Options, open_transport

DEVICE_NAME = "demo"


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """The device that the demo set up, answering."""

    bundle: BuildResult
    outcome: Outcome


def build_demo(folder: Path, listener: Listener) -> BuildResult:
    """Build the bundle of the shipped model for this machine in `folder`."""
    options = BuildOptions(model=demo_model_dir(), target=find_target(HOST), out=folder / "demo.bundle", name="demo")
    return build_bundle(options, listener)


@contextlib.contextmanager
def demo_device(bundle: BuildResult, broker: LocalBroker, folder: Path, reporter: Reporter) -> Iterator[DemoDevice]:
    """Deploy the bundle to `folder`, which stands for a device, and take it away at the end of the block.

    Raises DeployError where it does not answer.
    """
    settings = {"mqtt": {"url": broker.url, "protocol": broker.protocol}, "device": {"name": DEVICE_NAME}}
    with open_transport(f"local:{folder}", Options(root=None, ssh_config=None, ssh_options=())) as transport:
        outcome = install(
            open_bundle(bundle.out), transport, InstallOptions(settings=settings, service="supervisor"), reporter
        )
        try:
            yield DemoDevice(bundle, outcome)
        finally:
            Device.installed(transport).uninstall(keep_config=False)


@contextlib.contextmanager
def demo_folder() -> Iterator[Path]:
    """A folder for bundle and device that goes away with the demo."""
    with tempfile.TemporaryDirectory(prefix="edgebit-demo-") as folder:
        yield Path(folder)
