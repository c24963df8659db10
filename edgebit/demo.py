"""Service: the whole way on one machine: the model that ships becomes a bundle, a device, and answers over MQTT.

Nothing in it is made for the demo but the broker and the folder that stands for a device.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgebit.build import BuildOptions, BuildResult, Listener, build_bundle
from edgebit.bundle.archive import open_bundle
from edgebit.deploy.device import Device
from edgebit.deploy.install import install
from edgebit.deploy.outcome import Outcome, Reporter
from edgebit.deploy.plan import InstallOptions
from edgebit.local_broker import LocalBroker
from edgebit.resources import assistant_model_dir
from edgebit.targets import HOST, find_target
from edgebit.transport import Options, Transport, open_transport

DEVICE_NAME = "demo"


def build_demo(folder: Path, listener: Listener) -> BuildResult:
    """Build the bundle of the shipped model for this machine in `folder`."""
    options = BuildOptions(
        model=assistant_model_dir(), target=find_target(HOST), out=folder / "demo.bundle", name="demo"
    )
    return build_bundle(options, listener)


def deploy_demo(bundle: BuildResult, broker: LocalBroker, folder: Path, reporter: Reporter) -> Outcome:
    """Deploy the bundle to `folder`, which stands for a device. Raises DeployError where it does not answer."""
    settings = {"mqtt": {"url": broker.url, "protocol": broker.protocol}, "device": {"name": DEVICE_NAME}}
    options = InstallOptions(settings=settings, service="supervisor")
    with _transport(folder) as transport:
        return install(open_bundle(bundle.out), transport, options, reporter)


def remove_demo(folder: Path) -> None:
    """Stop the daemon in `folder` and take all of it away."""
    with _transport(folder) as transport:
        Device.installed(transport).uninstall(keep_config=False)


def _transport(folder: Path) -> Transport:
    return open_transport(f"local:{folder}", Options(root=None, ssh_config=None, ssh_options=()))


@contextlib.contextmanager
def demo_folder() -> Iterator[Path]:
    """A folder for bundle and device that goes away with the demo."""
    with tempfile.TemporaryDirectory(prefix="edgebit-demo-") as folder:
        yield Path(folder)
