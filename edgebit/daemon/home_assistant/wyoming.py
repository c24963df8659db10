"""A port for Home Assistant's voice assistant: a `handle` service of the Wyoming protocol, which turns text into text.

Each question goes the way of all requests (admission/local_callers.py), as principal `wyoming`. One thread with an
event loop of its own serves all connections; nothing here waits for one of them alone.
"""

import asyncio
import hashlib
import ipaddress
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgebit import __version__
from edgebit.daemon.config.reader import host_and_port
from edgebit.daemon.config.sections import WyomingConfig
from edgebit.daemon.contract.frames import Outgoing
from edgebit.daemon.contract.topics import is_id
from edgebit.daemon.home_assistant.wyoming_events import LINE_MAX, Event, ProtocolError, encode_event, read_event

log = logging.getLogger("edgebit.wyoming")

PRINCIPAL = "wyoming"
EVENT_S = 10.0  # from the first byte of an event to its last
WRITE_S = 10.0
RETRY_S = 30.0  # an address may come later than the daemon: a network that is up only after the boot
LATE_S = 5.0  # beyond the deadline, for the daemon's own word that it has passed


class Caller(Protocol):
    """What asks in here; admission/local_callers.py has it."""

    def ask(self, principal: str, op: str, fields: Mapping[str, Any], hear: Callable[[Outgoing], None]) -> str:
        """Send a request; gives its id."""

    def cancel(self, principal: str, job_id: str) -> None:
        """End a job."""

    def forget(self, principal: str, job_id: str) -> None:
        """Listen no longer."""


@dataclass(eq=False, slots=True)
class _Visit:
    """One connection."""

    writer: asyncio.StreamWriter
    heard_at: float  # when its last event came
    asking: bool = False  # something of it is being answered
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class WyomingService:
    """run() in a thread of its own, until close()."""

    def __init__(
        self,
        config: WyomingConfig,
        caller: Caller,
        describe: Callable[[], Mapping[str, Any]],
        *,
        device: str,
        remembers: bool = True,
        event_s: float = EVENT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Opens the port; one that cannot be had is a `fault`, and run() tries it again.

        describe: gives the engine's part of the info document

        remembers: whether the device keeps conversations, so that a question may go on with one
        """
        self._config = config
        self._caller = caller
        self._describe = describe
        self._device = device
        self._remembers = remembers
        self._event_s = event_s
        self._retry_s = retry_s
        self._networks = [ipaddress.ip_network(item) for item in config.allow]
        self._visits: set[_Visit] = set()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.fault: str | None = None  # why nobody can ask here
        self.port = 0  # that it listens on
        self._socket = self._open()

    def run(self) -> None:
        """Serve until close()."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def close(self) -> None:
        """Let run() end; from any thread, and more than once."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)

    def _open(self) -> socket.socket | None:
        host, port = host_and_port(self._config.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            opened = socket.create_server((host, port), family=family, backlog=2 * self._config.connections_max)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host whose name no resolver takes
            words = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.fault = (
                f"[wyoming]: {self._config.listen} cannot be listened on: {words}. Choose another, or free it: it is "
                "tried again"
            )
            return None
        self.fault, self.port = None, opened.getsockname()[1]
        return opened

    async def _serve(self) -> None:
        while self._socket is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s):
                    await self._ended.wait()
                    return
            self._socket = self._open()
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=LINE_MAX)
        log.info("a Wyoming service listens on %s", self._config.listen)
        async with server:
            await self._ended.wait()
            tasks = [visit.task for visit in self._visits if visit.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # the server waits for open connections

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str(writer.get_extra_info("peername", ("",))[0])
        if not self._allowed(peer):
            self.counters["wyoming_forbidden"] += 1
            log.warning("a connection from %s is not in [wyoming] allow", peer)
            writer.close()
            return
        if not self._make_room():
            self.counters["wyoming_full"] += 1
            writer.close()
            return
        visit = _Visit(writer, time.monotonic(), task=asyncio.current_task())
        self._visits.add(visit)
        self.counters["wyoming_connections"] += 1
        try:
            await self._converse(reader, visit)
        except ProtocolError as error:
            self.counters["wyoming_bad_event"] += 1
            log.info("connection from %s ended: %s", peer, error)
        except (OSError, TimeoutError) as error:
            log.debug("connection from %s ended: %s", peer, error)
        finally:
            self._visits.discard(visit)
            writer.close()

    def _allowed(self, peer: str) -> bool:
        if not self._networks:
            return True
        address = ipaddress.ip_address(peer.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def _make_room(self) -> bool:
        """Whether one more connection may be; where all are taken the one that has been silent longest goes."""
        if len(self._visits) < self._config.connections_max:
            return True
        idle = min((visit for visit in self._visits if not visit.asking), key=lambda one: one.heard_at, default=None)
        if idle is None or idle.task is None:
            return False
        self.counters["wyoming_displaced"] += 1
        self._visits.discard(idle)
        idle.task.cancel()
        return True

    async def _converse(self, reader: asyncio.StreamReader, visit: _Visit) -> None:
        """Events one after the other. While an answer is awaited the next one is read, to see a caller that leaves."""
        coming = asyncio.ensure_future(read_event(reader, patience_s=self._event_s))
        try:
            while (event := await coming) is not None:
                visit.heard_at = time.monotonic()
                coming = asyncio.ensure_future(read_event(reader, patience_s=self._event_s))
                visit.asking = True
                reply = await self._reply(event, coming)
                if reply is not None:
                    visit.writer.write(encode_event(reply))
                    async with asyncio.timeout(WRITE_S):
                        await visit.writer.drain()
                visit.asking = False
        finally:
            coming.cancel()

    async def _reply(self, event: Event, coming: "asyncio.Future[Event | None]") -> Event | None:
        """The event to answer with; None for events that are not for a service of this kind, as Wyoming wants it."""
        if event.type == "describe":
            return Event("info", self._info())
        if event.type == "ping":
            text = event.data.get("text")
            return Event("pong", {"text": text} if isinstance(text, str) else {})
        if event.type != "transcript":
            return None
        text, context = event.data.get("text"), event.data.get("context")
        if not isinstance(text, str) or not isinstance(context, dict | None):
            raise ProtocolError("a transcript without a text")
        if not text.strip():
            return Event("not-handled", {"text": "Nothing was said."})
        self.counters["wyoming_questions"] += 1
        return await self._ask(text, context or {}, coming)

    async def _ask(self, text: str, context: Mapping[str, Any], coming: "asyncio.Future[Event | None]") -> Event | None:
        answer: asyncio.Future[Outgoing] = self._loop.create_future()

        def take(message: Outgoing) -> None:
            if not answer.done():
                answer.set_result(message)

        def hear(message: Outgoing) -> None:
            """From the daemon's threads: the one message of an answer that is not streamed."""
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(take, message)

        first: set[asyncio.Future[Any]] = {answer, coming}

        job_id = self._caller.ask(PRINCIPAL, *self._request(text, context), hear)
        try:
            async with asyncio.timeout(self._config.timeout_s + LATE_S):
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() and (coming.cancelled() or coming.exception() or coming.result() is None):
                    self.counters["wyoming_gone"] += 1
                    return None
                return _spoken((await answer).payload, context)
        except TimeoutError:
            return Event("not-handled", {"text": f"No answer within {self._config.timeout_s:g} seconds."})
        finally:
            answered = answer.done() and not answer.cancelled()
            (self._caller.forget if answered else self._caller.cancel)(PRINCIPAL, job_id)

    def _request(self, text: str, context: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The operation and its fields: a model with a schema of its own is asked as the assistant that it is."""
        system, model = self._config.system, self._describe().get("model") or {}
        fields: dict[str, Any] = {
            "max_tokens": self._config.max_tokens,
            "ttl_ms": int(1000 * self._config.timeout_s),
        }
        if model.get("response_schema"):
            return "assist", {**fields, "prompt": text}
        takes_system = model.get("system_messages", True)  # chat templates of some families have no place for one
        content = text if takes_system or not system else f"{system}\n\n{text}"
        fields["messages"] = [{"role": "user", "content": content}]
        if system and takes_system:
            fields["system"] = system
        conversation = context.get("conversation_id")
        if self._remembers and isinstance(conversation, str) and conversation:
            fields["session"] = _session(conversation)
        return "chat", fields

    def _info(self) -> dict[str, Any]:
        """What the service is; Home Assistant offers it for the languages of its models."""
        described = self._describe()
        model = described.get("model") or {}
        nobody = {"name": "", "url": ""}
        program = {
            "name": f"edgebit {self._device}",
            "attribution": {"name": "edgebit", "url": ""},
            "installed": True,
            "description": "A language model on this device",
            "version": __version__,
            "supports_handled_streaming": False,
            "supports_home_control": False,
            "models": [
                {
                    "name": str(model.get("name") or "model"),
                    "attribution": nobody,
                    "installed": True,
                    "description": str(model.get("family") or "") or None,
                    "version": str(model.get("sha256") or "")[:12] or None,
                    "languages": list(self._config.languages),
                }
            ],
        }
        return {"asr": [], "tts": [], "handle": [program], "intent": [], "wake": [], "mic": [], "snd": []}


def _session(conversation: str) -> str:
    """A conversation's id as one of ours: itself where it may be, else its hash."""
    return conversation if is_id(conversation) else hashlib.sha256(conversation.encode("utf-8", "replace")).hexdigest()


def _spoken(payload: bytes, context: Mapping[str, Any]) -> Event:
    """The last message of an answer, as an event: what is said, or why nothing is."""
    body = json.loads(payload)
    error = body.get("error")
    kept = {"context": dict(context)} if context else {}
    if error is not None:
        return Event("not-handled", {"text": str(error.get("message")), **kept})
    return Event("handled", {"text": str(body.get("text", "")), **kept})
