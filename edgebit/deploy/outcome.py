"""What a deploy says: to a reporter on its way, and of itself at its end."""

from dataclasses import dataclass, field
from typing import Protocol

from edgebit.deploy.plan import Step
from edgebit.transport import Progress


@dataclass(slots=True)
class Outcome:
    """What a deploy did."""

    id: str  # of the bundle
    slot: str = ""
    device: str = ""  # its name in topics
    broker: str = ""  # where it is asked, as mqtt[s]://[USER@]HOST[:PORT]
    service: str = ""
    sent_files: int = 0
    sent_bytes: int = 0  # of the files that were sent
    wire_bytes: int = 0  # what went over the way for them: less, where it was deflated
    bundle_bytes: int = 0  # of all its files, each once: what was not sent was there
    send_s: float = 0.0
    total_s: float = 0.0
    probes: int = 0  # golden probes that held on the device
    isa: str = ""  # the micro-kernels that the device chose
    answer_s: float = 0.0  # from its start to its first answer over MQTT
    tok_s: float | None = None  # of that answer's decode
    rss_mib: float | None = None  # of the daemon then, the mapped model aside
    run_with: str = ""  # the command that asks it there, where no daemon does
    remarks: list[str] = field(default_factory=list)


class Reporter(Protocol):
    """Is told how a deploy comes along."""

    def step(self, step: Step) -> None:
        """A step begins."""

    def remark(self, text: str) -> None:
        """Something the user should know."""

    def sending(self, name: str, size: int) -> Progress:
        """A file is being sent; gives what is told of the bytes."""
