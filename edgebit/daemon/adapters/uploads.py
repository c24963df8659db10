"""Files that come in parts, as many messages carry them; in memory until the last part is there."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgebit.daemon.contract.messages import LoadAdapterRequest, Refusal

IDLE_S = 300.0  # of which nothing comes for so long is forgotten


@dataclass(slots=True)
class _Upload:
    name: str
    size: int
    sha256: str
    heard_at: float
    data: bytearray = field(default_factory=bytearray)

    def is_of(self, request: LoadAdapterRequest) -> bool:
        return (self.name, self.size, self.sha256) == (request.adapter, request.size, request.sha256)


class Uploads:
    """One at a time of each principal: parts in their order; one that comes twice counts once. In one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._going: dict[str, _Upload] = {}

    def take(self, principal: str, request: LoadAdapterRequest) -> bytes | None:
        """Add a part; gives the file once it is whole, until forget().

        Raises Refusal: 409 where parts before this one are missing, 400 where the file is not what its sum says.
        """
        now = self._clock()
        self._going = {who: each for who, each in self._going.items() if now - each.heard_at < IDLE_S}
        upload = self._going.get(principal)
        if upload is None or not upload.is_of(request):
            upload = _Upload(request.adapter, request.size, request.sha256, now)
        if request.offset > len(upload.data):
            words = f"the part begins at byte {request.offset}, and {len(upload.data)} bytes before it are here"
            raise Refusal(409, "part_missing", words, details={"received": len(upload.data)})
        self._going[principal] = upload
        upload.heard_at = now
        upload.data[request.offset : request.offset + len(request.data)] = request.data
        if len(upload.data) < request.size:
            return None
        data = bytes(upload.data)
        if hashlib.sha256(data).hexdigest() != request.sha256:
            self.forget(principal)
            raise Refusal(400, "bad_adapter", "the file is not what its sha256 says: send it again from its beginning")
        return data

    def received(self, principal: str) -> int:
        """Bytes of the file that is coming."""
        upload = self._going.get(principal)
        return len(upload.data) if upload is not None else 0

    def forget(self, principal: str) -> None:
        """The file was seen to."""
        self._going.pop(principal, None)
