"""A deploy as a process of its own that can be killed: `killed_host.py JSON`, called by test_chaos.py.

Ends with 0 after a deploy and with 8 after one that was taken back; kills itself with SIGKILL at step `die_at`, or with
the first bytes sent where `die_sending`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from edgebit.bundle.archive import open_bundle
from edgebit.deploy.install import install
from edgebit.deploy.plan import InstallOptions, Step
from edgebit.errors import EdgebitError
from edgebit.transport import Progress, open_transport


class DyingReporter:
    """Counts the steps and dies at one of them."""

    def __init__(self, die_at: int | None, die_sending: bool) -> None:
        self._left = die_at
        self._die_sending = die_sending

    def step(self, step: Step) -> None:
        print(step.action, flush=True)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left is not None:
            self._left -= 1

    def remark(self, text: str) -> None:
        print("note", text, flush=True)

    def sending(self, name: str, size: int) -> Progress:
        return self._told

    def _told(self, count: int) -> None:
        if self._die_sending:
            os.kill(os.getpid(), signal.SIGKILL)


def main(told: dict[str, object]) -> int:
    options = InstallOptions(
        settings={"mqtt": {"url": told["broker"]}, "device": {"name": told["name"]}},
        service="supervisor",
        check_timeout_s=20,
        force=True,  # a bundle whose deploy was killed too often may have been refused
    )
    reporter = DyingReporter(told.get("die_at"), bool(told.get("die_sending")))  # type: ignore[arg-type]
    try:
        with open_transport(f"local:{told['root']}") as transport:
            install(open_bundle(Path(str(told["bundle"]))), transport, options, reporter)
    except EdgebitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
