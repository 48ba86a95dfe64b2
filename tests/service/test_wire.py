"""Bodies on real sockets: cut off, too slow, too large, other than announced; nothing is kept, and little memory taken."""

from __future__ import annotations

import hashlib
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.app import create_app
from service.client import Client
from service.client import upload as client_upload
from tests.service.doubles import TOKEN, FakeInspect, FakeRay, make_settings
from tests.service.real_server import serving

LIMIT = 2**20
HEAD = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
CONTENT = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[tuple[str, int]]:
    ray = FakeRay()
    ray.down = True
    settings = make_settings(folder, max_model_bytes=LIMIT, upload_grace_seconds=1, upload_bytes_per_second=10_000_000)
    with serving(create_app(settings, inspect=FakeInspect(), ray=ray)) as address:
        yield address


@pytest.fixture
def url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


def request(address: tuple[str, int], start: str, *headers: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request's beginning was sent."""
    connection = socket.create_connection(address)
    lines = [f"{start} HTTP/1.1", "Host: test", f"Authorization: Bearer {TOKEN}", *headers]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def answer(connection: socket.socket) -> tuple[int, Any]:
    """The status and the JSON of the first answer; the connection is closed."""
    received = b""
    with connection:
        while True:
            head, _, body = received.partition(b"\r\n\r\n")
            with suppress(ValueError, IndexError):
                return int(head.split()[1]), json.JSONDecoder().raw_decode(body.decode())[0]
            chunk = connection.recv(65536)
            assert chunk, f"the connection ended after {received!r}"
            received += chunk


def incoming(folder: Path) -> list[Path]:
    return list((folder / "store" / "incoming").glob("tmp*"))


class Cutting(httpx2.HTTPTransport):
    """Breaks the line in the middle of some parts, after what the server must have taken."""

    def __init__(self, address: tuple[str, int], cuts: list[int]) -> None:
        super().__init__()
        self.address, self.cuts, self.offsets = address, cuts, list[int]()

    def handle_request(self, asked: httpx2.Request) -> httpx2.Response:
        if asked.method != "PATCH":
            return super().handle_request(asked)
        self.offsets.append(int(asked.headers["upload-offset"]))
        if not self.cuts:
            return super().handle_request(asked)
        cut, content = self.cuts.pop(), asked.read()
        headers = [f"{name}: {value}" for name, value in asked.headers.items() if name not in ("host", "authorization")]
        request(self.address, f"PATCH {asked.url.path}", *headers, body=content[:cut]).close()
        raise httpx2.WriteError("cut", request=asked)


def test_a_large_file_outlives_cut_connections(
    address: tuple[str, int], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_upload, "PART_BYTES", 100_000)
    monkeypatch.setattr("service.client.connection._FIRST_WAIT", 0.05)  # the server has to notice the cut meanwhile
    (tmp_path / "big.pt2").write_bytes(CONTENT)
    transport = Cutting(address, [70_000, 1, 99_999])
    with Client(url, TOKEN, transport) as client:
        made = client.upload_model(tmp_path / "big.pt2")
    assert made["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert made["name"] == "big"
    assert transport.offsets == sorted(transport.offsets)
    assert len(transport.offsets) <= 6 + 2 * 3, "no part is sent over and over"


def test_a_part_that_breaks_off_leaves_what_arrived(
    address: tuple[str, int], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.body._CHUNK", 1000)
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        announced = {"kind": "model", "size": 5000, "sha256": hashlib.sha256(CONTENT[:5000]).hexdigest()}
        place = "/uploads/" + http.post("/uploads", json=announced).json()["id"]
        cut = request(address, f"PATCH {place}", "Upload-Offset: 0", "Content-Length: 5000", body=CONTENT[:1234])
        while http.get(place).json()["offset"] == 0:
            pass  # until it has arrived
        cut.close()
        assert http.get(place).json()["offset"] == 1234
        http.patch(place, content=CONTENT[1234:5000], headers={"Upload-Offset": "1234"})
        assert http.post(f"{place}/finish").json()["sha256"] == announced["sha256"]


@pytest.mark.parametrize("path", ["/models", "/jobs"])
def test_whoever_drips_is_ended(address: tuple[str, int], folder: Path, path: str) -> None:
    form = ["Content-Type: multipart/form-data; boundary=x"] if path == "/jobs" else []
    status, problem = answer(request(address, f"POST {path}", "Content-Length: 1000", *form, body=b"--x"))
    assert (status, problem["title"]) == (408, "Too slow")
    assert "3 bytes of the body arrived within 1 s" in problem["detail"]
    assert not incoming(folder)


@pytest.mark.parametrize(("whole", "begun"), [(b"", b""), (b"", HEAD[:20]), (HEAD, HEAD[:20])], ids=["none", "half", "second"])
def test_whoever_never_ends_a_head_is_hung_up_on(
    address: tuple[str, int], whole: bytes, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.protocol.HEAD_SECONDS", 0.1)
    with socket.create_connection(address) as connection:
        connection.settimeout(20)
        if whole:
            connection.sendall(whole)
            assert b"200 OK" in connection.recv(65536)
        connection.sendall(begun)
        rest = b"".join(iter(lambda: connection.recv(65536), b""))  # to the end, which comes
    assert b"HTTP" not in rest


def test_less_than_announced_leaves_nothing(address: tuple[str, int], url: str, folder: Path) -> None:
    request(address, "POST /models", "Content-Length: 100", body=b"x" * 50).close()
    request(address, "POST /models", "Transfer-Encoding: chunked", body=b"5\r\nab").close()
    while incoming(folder):
        pass  # until the server has noticed
    with httpx2.Client(base_url=url) as http:
        assert http.get("/livez").status_code == 200


def test_more_than_announced_is_no_part_of_the_body(address: tuple[str, int]) -> None:
    status, model = answer(request(address, "POST /models", "Content-Length: 5", body=b"12345 and more\r\n\r\n"))
    assert (status, model["size"]) == (201, 5)


def test_four_gibibytes_announced_are_refused_unread(address: tuple[str, int]) -> None:
    status, problem = answer(request(address, "POST /models", f"Content-Length: {2**32}"))
    assert (status, problem["detail"]) == (
        413,
        "model is larger than the 1,048,576 bytes that this server accepts; send a smaller one.",
    )


def test_four_gibibytes_unannounced_are_refused_at_the_limit(address: tuple[str, int], folder: Path) -> None:
    before, sent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    connection = request(address, "POST /models", "Transfer-Encoding: chunked")
    with suppress(ConnectionError):
        while sent < 2**32:
            connection.sendall(chunk)
            sent += 2**16
    connection.close()
    assert LIMIT < sent < 64 * LIMIT, "what the sockets hold, and no more"
    assert not incoming(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10  # KiB
