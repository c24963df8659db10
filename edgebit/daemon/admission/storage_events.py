"""The events that say that the journal's disk has failed, and that it works again."""

from collections.abc import Callable

from edgebit.daemon.contract.events import EventPublisher


class StorageEvents:
    """Tells each change once. In one thread."""

    def __init__(self, fault: Callable[[], str | None], publish: EventPublisher) -> None:
        """`fault` says why the disk takes nothing; None where it does."""
        self._fault = fault
        self._publish = publish
        self._failed = False

    def tick(self) -> None:
        """Look at the disk; often."""
        fault = self._fault()
        if fault is not None and not self._failed:
            self._publish("storage_full", message=fault)
        elif fault is None and self._failed:
            self._publish("storage_restored")
        self._failed = fault is not None
