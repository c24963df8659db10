"""Installing from a bundle file that is on the device already: by hand, or by an update manager that brought it there.

It is a deploy like any other, with the device itself as the other end; the agent there calls it. With `keep` false the
bundle stays on trial, for an update manager that has a word in it: the verb `commit` keeps it, take_back() undoes it.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebit.bundle.archive import open_bundle
from edgebit.bundle.signature import parse_public_key
from edgebit.bundle.slots import Slots
from edgebit.deploy.device import AgentError, Device
from edgebit.deploy.install import Installation
from edgebit.deploy.plan import CHECK_TIMEOUT_S, InstallOptions, KnownKeys, Step, plan_deploy
from edgebit.device_probe import probe
from edgebit.errors import BrokerError, BundleError, DeployError
from edgebit.transport import Progress
from edgebit.transport.local import LocalTransport


class _Lines:
    """Says each step on standard error."""

    def step(self, step: Step) -> None:
        print(step.line, file=sys.stderr, flush=True)

    def remark(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def sending(self, name: str, size: int) -> Progress:
        return lambda count: None


def install_here(
    root: Path,
    path: Path,
    *,
    settings: Mapping[str, Mapping[str, Any]],
    service: str = "auto",
    force: bool = False,
    keep: bool = True,
    name: str = "",
    identity: str = "",
    check_timeout_s: float = CHECK_TIMEOUT_S,
    first_keys: Sequence[str] = (),
) -> dict[str, Any]:
    """Install the bundle file `path` under `root`; gives what was done, and the id of the bundle before.

    name, identity: what the bundle must be called. first_keys: public keys of which one must have signed it; a device
    that trusts none yet trusts them from then on.
    Raises BundleError for another bundle or a damaged one, BrokerError where only the broker was out of reach, and
    DeployError as a deploy does.
    """
    bundle = open_bundle(path)
    for wanted, found, what in ((name, bundle.manifest.name, "name"), (identity, bundle.id, "id")):
        if wanted and wanted != found:
            raise BundleError(f"{path} holds the bundle with the {what} {found!r}, not {wanted!r}. Name that one")
    bundle.verify()
    keys = [parse_public_key(line, "--key") for line in first_keys]
    before = Slots(root).active()
    options = InstallOptions(
        settings=settings,
        service=service,
        force=force,
        check_timeout_s=check_timeout_s,
        known=KnownKeys({key.id: key for key in keys}, demanded=bool(keys)),
    )
    with LocalTransport(root) as transport:
        state = probe(transport)
        steps = plan_deploy(bundle, state, options)
        if not keep:
            steps = [step for step in steps if step.action != "commit"]
        try:
            outcome = Installation(bundle, transport, state, options, _Lines()).carry_out(steps)
        except DeployError as error:
            if isinstance(error.__cause__, AgentError) and error.__cause__.code == BrokerError.exit_code:
                raise BrokerError(str(error)) from error  # who calls may try again when the broker is back
            raise
    return {**asdict(outcome), "before": before.id if before else None, "kept": keep or not outcome.slot}


def take_back(root: Path, identity: str, *, service: str, check_timeout_s: float = CHECK_TIMEOUT_S) -> dict[str, Any]:
    """Undo the installation of a bundle, whether it is still on trial or was kept meanwhile; gives what runs now.

    Does nothing where another bundle runs already. Raises DeployError where there is none to return to.
    """
    with LocalTransport(root) as transport:
        device = Device.installed(transport)
        active = Slots(root).active()
        if active is None or active.id != identity:
            return {"id": active.id if active else None, "changed": False}
        if active.status != "trying":
            device.rollback(service=service, check_timeout_s=check_timeout_s)
        elif not device.ask("withdraw", timeout_s=120):
            raise DeployError(f"there was no bundle before {identity}, so none runs now")
        else:
            device.ask("start", "--service", service, timeout_s=120)
            device.ask("check", "--timeout-s", str(check_timeout_s), timeout_s=check_timeout_s + 60)
        return {"id": device.active_id(), "changed": True}
