"""The server of the search page with real connections: many, slow and large ones."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gallery import server as module
from gallery.options import MOST_UPLOADED
from gallery.page import create_app
from gallery.server import create_server, serve
from tests.helpers.colours import colour_searcher, paint


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A page of three photos; clients may be silent for a second."""
    for colour in ("red", "green", "blue"):
        paint(tmp_path / "gallery" / f"{colour}.png", colour)
    monkeypatch.setattr(module, "_IDLE_SECONDS", 1)
    server = create_server(create_app(colour_searcher(tmp_path / "gallery", tmp_path / "index"), 3), 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.effective_port
    server.task_dispatcher.shutdown(timeout=1)
    server.asyncore.close_all(server._map)
    thread.join(10)


async def get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def test_two_hundred_requests_at_once_are_all_answered(port: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    paths = ["/", "/?q=a+red+coat", "/?q=green", "/thumb/0", "/thumb/1"] * 40

    async def all_at_once() -> list[bytes]:
        return await asyncio.gather(*(get(port, path) for path in paths))

    for path, answer in zip(paths, asyncio.run(all_at_once()), strict=True):
        assert answer.startswith(b"HTTP/1.1 200 OK"), answer[:200]
        for colour in ("red", "green"):  # everyone gets the answer to his own question
            if colour in path:
                assert answer.split(b'class="path">')[1].startswith(colour.encode())
    assert "queue" not in caplog.text


def test_silent_clients_are_sent_away_and_keep_nobody_out(port: int):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
    for each in silent[:75]:
        each.sendall(b"GET / HTTP/1.1\r\nHost:")
    assert asyncio.run(get(port, "/?q=red")).startswith(b"HTTP/1.1 200 OK")
    silent[0].settimeout(10)
    assert silent[0].recv(100)[:12] in (b"", b"HTTP/1.1 408")
    for each in silent:
        each.close()


def test_a_large_upload_is_refused_before_it_is_sent(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        begun = time.monotonic()
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MOST_UPLOADED + 1}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413") and time.monotonic() - begun < 10


def test_a_process_that_may_open_few_files(monkeypatch: pytest.MonkeyPatch):
    for limit, expected in ((1 << 20, 1000), (256, 192), (40, 16)):
        monkeypatch.setattr(module.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert module._connections() == expected


def test_a_taken_port(tmp_path: Path):
    paint(tmp_path / "gallery" / "red.png", "red")
    app = create_app(colour_searcher(tmp_path / "gallery", tmp_path / "index"), 3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ValueError, match=r"--port \d+: .*choose another"):
            serve(app, taken.getsockname()[1])
