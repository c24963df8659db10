"""A port that answers GET /metrics, /alive, /ready and /healthy over HTTP, for scrapers and probes of a machine.

One thread whatever comes: connections are few at a time and short, each with one deadline for all of it, and a request
is read no further than its head. It serves what others have prepared: a scrape costs the daemon no more than text.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgebit.daemon.config.reader import host_and_port
from edgebit.daemon.monitoring.exposition import CONTENT_TYPE

log = logging.getLogger("edgebit.prometheus")

CONNECTIONS_MAX = 16
HEAD_MAX = 8192  # bytes
DEADLINE_S = 5.0
RETRY_S = 30.0  # an address may come later than the daemon: a network that is up only after the boot
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: str
    content_type: str = "application/json"


class ScrapePort:
    """Serves while run() runs in a thread of its own. `pages` gives what lies at each path."""

    def __init__(
        self,
        listen: str,
        pages: Mapping[str, Callable[[], Page]],
        *,
        deadline_s: float = DEADLINE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """`listen` is HOST:PORT or [HOST]:PORT, as the configuration's reader has made sure."""
        self.host, self.port = host_and_port(listen)
        self._pages = pages
        self._deadline_s = deadline_s
        self._retry_s = retry_s
        self._open = 0
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self.begun = threading.Event()  # it serves, or there is a fault
        self.fault: str | None = None  # why nothing is served

    def run(self) -> None:
        """Serve until close(). An address that cannot be had is said in the log, once, and tried again."""
        while not self._closed.is_set():
            try:
                asyncio.run(self._serve())
            except (OSError, UnicodeError) as error:  # UnicodeError: a host whose name no resolver takes
                words = (error.strerror if isinstance(error, OSError) else None) or str(error)
                before, self.fault = self.fault, f"{self.host}:{self.port} cannot be listened on: {words}"
                if self.fault != before:
                    log.error("%s. Choose another with [prometheus], or free it: it is tried again", self.fault)
                self.begun.set()
                self._closed.wait(self._retry_s)

    def close(self) -> None:
        """Let run() return."""
        self._closed.set()
        if self._loop is not None and self._done is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._done.set)

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, self.host, self.port, limit=HEAD_MAX)
        self.port = server.sockets[0].getsockname()[1]  # the one that was given, where 0 was asked for
        log.info("figures for Prometheus at http://%s:%d/metrics", self.host, self.port)
        self.fault = None
        self.begun.set()
        if self._closed.is_set():
            self._done.set()
        await self._done.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(self._deadline_s):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client's own fault, or its end
        finally:
            self._open -= 1
            if writer.transport.get_write_buffer_size():  # a client that does not read: closing would wait for it
                writer.transport.abort()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            page, method = Page(400, '{"error":"the head of a request has at most 8192 bytes"}'), "GET"
        else:
            page, method = self._page(head)
        body = page.body.encode()
        lines = (
            f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(body)}",
            *(("Allow: GET, HEAD",) if page.status == 405 else ()),
            "Connection: close",
        )
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body))
        await writer.drain()
        writer.write_eof()
        await reader.read(HEAD_MAX)  # until the client closes: bytes not read would take the answer back (RST)

    def _page(self, head: bytes) -> tuple[Page, str]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, '{"error":"no request of HTTP/1"}'), "GET"
        method, path, _ = words
        if method not in ("GET", "HEAD"):
            return Page(405, '{"error":"only GET and HEAD"}'), method
        make = self._pages.get(path.partition("?")[0])
        if make is None:
            return Page(404, json.dumps({"error": "there are " + ", ".join(self._pages)})), method
        try:
            return make(), method
        except Exception:
            log.exception("%s failed", path)
            return Page(503, '{"error":"the daemon failed; its log says how"}'), method


def metrics_page(text: str) -> Page:
    """The page of the figures."""
    return Page(200, text, CONTENT_TYPE)
