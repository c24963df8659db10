"""`load_adapter` and `unload_adapter`: who may, parts put together, and each done once however often it comes."""

from collections.abc import Callable
from typing import Any

from edgebit.daemon.adapters.adapters import Adapters
from edgebit.daemon.adapters.uploads import Uploads
from edgebit.daemon.admission.acceptance import Acceptance, identity_of
from edgebit.daemon.admission.gatekeeper import Gatekeeper
from edgebit.daemon.contract.frames import AnswerRecord, AnswerWriter
from edgebit.daemon.contract.messages import AdapterRequest, Address, Incoming, LoadAdapterRequest, Refusal

Writer = Callable[[AnswerRecord | None], AnswerWriter]


class AdapterDesk:
    """In the thread of admission."""

    def __init__(self, may_load: tuple[str, ...], adapters: Adapters, acceptance: Acceptance, gate: Gatekeeper) -> None:
        self._may_load = may_load
        self._adapters = adapters
        self._acceptance = acceptance
        self._gate = gate
        self._uploads = Uploads()

    def answer(self, op: str, request: AdapterRequest, address: Address, incoming: Incoming, writer: Writer) -> None:
        """Do what is asked, and say so. What has changed something stands in the journal, as answers of jobs do.

        So a request that the broker sends again, after a crash too, changes nothing a second time. Raises Refusal.
        """
        if address.principal not in self._may_load:
            words = f"{address.principal} may not load adapters here: [adapters] may_load names who may"
            raise Refusal(403, "not_allowed", words)
        identity = identity_of(op, address, incoming)
        if self._acceptance.is_repeat(identity, address, incoming.dup):
            return
        self._gate.charge_request(address, op)
        data = b""
        if isinstance(request, LoadAdapterRequest):
            whole = self._uploads.take(address.principal, request)
            if whole is None:
                received = self._uploads.received(address.principal)
                body = {"adapter": request.adapter, "loaded": False, "received": received, "size": request.size}
                writer(None).done({"op": op, **body})
                return
            data = whole
            self._uploads.forget(address.principal)
        record = self._acceptance.write_down(identity, self._acceptance.asked(op, {}, address), address)
        try:
            body = self._act(request, data)
        except BaseException:
            self._acceptance.give_up(record)
            raise
        writer(record).done({"op": op, **body})

    def _act(self, request: AdapterRequest, data: bytes) -> dict[str, Any]:
        if not isinstance(request, LoadAdapterRequest):
            return {"adapter": request.adapter, "unloaded": self._adapters.unload(request.adapter)}
        changed = self._adapters.load(request.adapter, request.sha256, data)
        body = {"adapter": request.adapter, "loaded": True, "changed": changed}
        return {**body, "received": len(data), "size": request.size, "sha256": request.sha256}
