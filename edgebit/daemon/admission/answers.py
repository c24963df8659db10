"""An answer that was given before, as messages to whoever asks for it again."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from edgebit.daemon.admission.journal_records import Ended, Place
from edgebit.daemon.contract.frames import Outgoing, expiry_s


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The last frame of a job that is finished."""

    payload: bytes  # as it was sent
    whole: bytes  # as JSON, with all of the text
    ended: Ended

    def frame(self) -> dict[str, Any]:
        """The frame as JSON."""
        frame: dict[str, Any] = json.loads(self.whole)
        return frame

    def last_frame(self, place: Place, left_s: float) -> Outgoing:
        """The frame as it was, to a place of now; left_s: how long somebody waits for it."""
        return Outgoing(
            topic=place.topic,
            payload=self.payload,
            expiry_s=expiry_s(left_s, last=True),
            correlation=place.correlation,
            content_type=self.ended.content_type,
            user=self.ended.user,
        )

    def replay(self, place: Place, left_s: float) -> list[Outgoing]:
        """All that a caller needs who has heard nothing: a stream of bare text ends empty, so its text goes before."""
        last = self.last_frame(place, left_s)
        text = self.frame().get("text") if not self.payload else None
        if not text:
            return [last]
        first = {"eb-seq": "0", "eb-last": "0"}
        user = tuple((name, first.get(name, value)) for name, value in last.user)
        return [dataclasses.replace(last, payload=text.encode(), user=user), last]
