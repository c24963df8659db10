"""The port for scrapers: what it answers, and clients that would hold it."""

import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from edgebit.daemon.monitoring.health import Health
from edgebit.daemon.monitoring.pages import Pages
from edgebit.daemon.monitoring.scrape_port import CONNECTIONS_MAX, Page, ScrapePort, metrics_page

HEALTHY = Health(alive=True, ready=True, healthy=True)


@contextmanager
def serving(pages, deadline_s=5.0):
    port = ScrapePort("127.0.0.1:0", pages, deadline_s=deadline_s)
    thread = threading.Thread(target=port.run, daemon=True)
    thread.start()
    assert port.begun.wait(60) and port.fault is None
    try:
        yield port
    finally:
        port.close()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def port():
    with serving({"/metrics": lambda: metrics_page("x 1\n"), "/broken": lambda: 1 / 0}) as port:
        yield port


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.port}{path}", timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def talk(port, data):
    """All that is answered to these bytes."""
    with socket.create_connection(("127.0.0.1", port.port), timeout=60) as sock:
        sock.sendall(data)
        heard = b""
        while piece := sock.recv(65536):
            heard += piece
        return heard


def test_figures_are_served(port):
    """With the content type that scrapers want; a query is nothing to us."""
    status, headers, body = fetch(port, "/metrics?x=1")
    assert (status, body) == (200, "x 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["Content-Length"]) == 4


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5", b"405"),
        (b"DELETE /metrics HTTP/1.1", b"405"),
        (b"GET /metrics", b"400"),
        (b"GET /metrics HTTP/2.0", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"", b"400"),
        (b"GET /broken HTTP/1.1", b"503"),
    ],
)
def test_other_requests_are_refused(port, request_line, status):
    """In one line, and the port serves on."""
    assert talk(port, request_line + b"\r\n\r\n").split(b" ")[1] == status
    assert fetch(port, "/metrics")[0] == 200


def test_a_head_request_has_no_body(port):
    """But the length that it would have."""
    head, _, body = talk(port, b"HEAD /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head and body == b""


def test_a_huge_head_is_not_read(port):
    """No further than 8 KiB."""
    assert talk(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000)[:12] == b"HTTP/1.1 400"
    assert fetch(port, "/metrics")[0] == 200


def test_slow_clients_hold_nobody():
    """More than it takes at once, each of which sends a byte now and then: they are closed, and others are served."""
    with serving({"/metrics": lambda: metrics_page("x 1\n")}, deadline_s=0.5) as port:
        slow = [socket.create_connection(("127.0.0.1", port.port), timeout=60) for _ in range(CONNECTIONS_MAX + 4)]
        for sock in slow:
            sock.sendall(b"GET")
        for sock in slow:
            with suppress(ConnectionResetError):
                assert sock.recv(100) == b""  # without an answer, at the deadline or at once
            sock.close()
        assert fetch(port, "/metrics")[0] == 200


def test_a_client_that_does_not_read_holds_nobody():
    """An answer larger than all buffers is given up at the deadline."""
    pages = {"/metrics": lambda: Page(200, "x" * 20_000_000), "/ready": lambda: Page(200, "yes")}
    with serving(pages, deadline_s=0.5) as port:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port.port))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        status, _, body = fetch(port, "/ready")
        assert (status, body) == (200, "yes")
        deadline = time.monotonic() + 60
        while port._open:
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        deaf.close()


def test_a_port_that_is_taken_is_said_and_tried_again(caplog):
    """Once, with the way out; and it is served from the moment that it is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ScrapePort(f"127.0.0.1:{taken.getsockname()[1]}", {"/x": lambda: Page(200, "x")}, retry_s=0.01)
        thread = threading.Thread(target=port.run, daemon=True)
        thread.start()
        assert port.begun.wait(60) and "in use" in (port.fault or "") and "[prometheus]" in caplog.text
    deadline = time.monotonic() + 60
    while port.fault is not None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert fetch(port, "/x")[0] == 200
    port.close()
    thread.join(60)
    assert not thread.is_alive() and caplog.text.count("cannot be listened on") == 1


def test_close_ends_waiting_for_an_address(port):
    """Whenever it comes: the daemon's end waits for nobody's port."""
    second = ScrapePort(f"127.0.0.1:{port.port}", {})
    thread = threading.Thread(target=second.run, daemon=True)
    thread.start()
    assert second.begun.wait(60) and second.fault is not None
    second.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_host_that_is_no_name_is_a_fault_too():
    """Not a thread that dies."""
    port = ScrapePort(f"{'x' * 70}.local:0", {})
    thread = threading.Thread(target=port.run, daemon=True)
    thread.start()
    assert port.begun.wait(60) and "cannot be listened on" in (port.fault or "")
    port.close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("health", "statuses"),
    [
        (HEALTHY, (200, 200, 200)),
        (Health(alive=True, ready=True, healthy=False, why=("no probe yet",)), (200, 200, 503)),
        (Health(alive=True, ready=False, healthy=False, why=("no broker",)), (200, 503, 503)),
        (Health(alive=False, ready=False, healthy=False, why=("it hangs",)), (503, 503, 503)),
    ],
)
def test_levels_of_health_have_pages(health, statuses):
    """503 says why."""
    pages = Pages(lambda: health)
    pages.show({"uptime_s": 3}, {"device": "pi"})
    with serving(pages.port("127.0.0.1:0")._pages) as port:
        answers = [fetch(port, f"/{level}") for level in ("alive", "ready", "healthy")]
        assert tuple(status for status, _, _ in answers) == statuses
        assert all(why in body for why in health.why for _, _, body in answers)
        assert f'edgebit_health{{level="ready"}} {int(health.ready)}\n' in fetch(port, "/metrics")[2]
        assert 'edgebit_info{device="pi"} 1\n' in fetch(port, "/metrics")[2]
