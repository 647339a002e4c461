"""Access and limits: headers, host names, tokens, cookies, other origins and sizes."""

import asyncio
import io
import json
import re
import socket
import threading
import time
from contextlib import ExitStack, suppress
from urllib.error import HTTPError

import httpx2 as httpx
import numpy as np
import pytest
from api_client import colorize
from fake_server import colorizer, photo, running, wait_until
from fastapi.testclient import TestClient
from PIL import Image

from knowhue.serving import limits, run
from knowhue.serving.api import make_app
from knowhue.serving.limits import HEADERS, MAX_HEADERS, Shield
from knowhue.serving.monitoring import Monitor
from knowhue.serving.settings import ServerSettings

JPEG = photo()
AS_JPEG = {"content-type": "image/jpeg"}
TOKEN = "a-token-of-some-length"


def client_of(base_url: str = "http://localhost", **settings) -> TestClient:
    app = make_app({"fake": colorizer()}, ServerSettings(**{"workers": 1, **settings}))
    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.fixture(scope="module")
def server():
    """A real one that is soon tired of waiting: host and port."""
    with running(upload_seconds=0.4, max_upload_mib=0.25) as (host, port, _):
        yield host, port


def exchange(server: tuple[str, int], *parts: bytes, pause: float = 0.0, until_closed: bool = True) -> bytes:
    """What a socket answers to bytes."""
    with socket.create_connection(server, timeout=60) as link:
        received = b""
        try:
            for part in parts:
                link.sendall(part)
                time.sleep(pause)
            while chunk := link.recv(65536):
                received += chunk
                if not until_closed and b"}" in received:
                    break
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return int(found[1]) if found else 0


def post_of(length: int | str, more: str = "") -> bytes:
    return (
        f"POST /v1/colorize HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\ncontent-length: {length}\r\n"
        f"connection: close\r\n{more}\r\n"
    ).encode()


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/colorize", "/nowhere", "/docs", "/metrics"])
def test_every_answer_carries_the_headers(path: str):
    with client_of() as client:
        answer = client.get(path)
    assert HEADERS.keys() <= answer.headers.keys()
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "http:" not in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


def test_refusals_carry_them_too():
    with client_of() as client:
        answer = client.get("/healthz", headers={"host": "example.org"})
    assert HEADERS.keys() <= answer.headers.keys()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost",
        "localhost:7860",
        "127.0.0.1:1",
        "[::1]:7860",
        "127.0.0.2",
        "photos.lan",
        "Photos.LAN:80",
    ],
)
def test_its_own_names_are_served(host: str):
    with client_of(hosts=("photos.lan",)) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "10.0.0.1",
        "127.0.0.999",
        "a@b",
        "x@127.0.0.1",
        "evil.example@localhost",
        "127.0.0.1#.evil.com",
        "127.0.0.1/.evil.com",
        "127.0.0.1?.evil.com",
        "localhost:80:80",
        "localhost:x",
        "[127.0.0.1]",
        "[::1",
        "::1",
        "[::1].evil.com",
        "localhost\\.evil.com",
        "localhost,evil.example",
        "local host",
        "localhost:80@evil.com",
        "127.0.0.1%00",
        "[::1%25eth0]",
    ],
)
def test_a_name_turned_to_loopback_is_not(host: str):
    with client_of() as client:
        answer = client.get("/v1/models", headers={"host": host})
    assert answer.status_code == 421
    assert "Host" in answer.json()["error"]


def test_beyond_loopback_the_token_decides_whatever_the_name():
    with client_of(host="0.0.0.0", token=TOKEN) as client:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", headers={"host": "photos.example", **bearer}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "[", "http://[x"])
def test_pages_of_other_sites_send_nothing(origin: str):
    with client_of() as client:
        answer = client.post("/v1/classify", content=JPEG, headers={**AS_JPEG, "origin": origin})
        assert answer.status_code == 403
        assert client.options("/v1/classify", headers={"origin": origin}).status_code == 403


def test_its_own_page_does():
    with client_of() as client:
        own = {**AS_JPEG, "origin": "http://localhost"}
        assert client.post("/v1/classify", content=JPEG, headers=own).status_code == 200


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xff",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs", "/openapi.json", "/", "/nowhere"])
def test_without_the_token_there_is_nothing_but_probes(shown: str, path: str):
    with client_of(token=TOKEN) as client:
        answer = client.get(path, headers={"authorization": shown.encode("latin-1")})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
        assert client.get("/healthz").status_code == 200


def test_a_browser_trades_the_token_for_a_cookie():
    with client_of(token=TOKEN) as client:
        answer = client.get(f"/docs?token={TOKEN}&x=1")
        assert (answer.status_code, answer.headers["location"]) == (303, "/docs?x=1")
        assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["set-cookie"].split("; "))
        assert TOKEN not in answer.headers["set-cookie"]
        assert client.get("/docs").status_code == 200
        client.cookies.clear()
        assert client.get("/docs", headers={"cookie": "knowhue=x"}).status_code == 401
        assert client.get("/docs?token=wrong").status_code == 401
        assert client.post(f"/v1/classify?token={TOKEN}", content=JPEG, headers=AS_JPEG).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example", "/%5Cevil.example", "/%0d%0aset-cookie:%20a=b"])
def test_the_token_leads_nowhere_else(path: str):
    with client_of(token=TOKEN) as client:
        answer = client.get(f"http://localhost{path}?token={TOKEN}")
    assert re.match(r"/[^/\\]", answer.headers["location"])
    assert answer.headers["set-cookie"].startswith("knowhue=")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    compared = []
    real = limits.hmac.compare_digest
    monkeypatch.setattr(limits.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    with client_of(token=TOKEN) as client:
        client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert (b"wrong", TOKEN.encode()) in compared


def test_an_announced_size_is_refused_before_anything_comes(server):
    answer = exchange(server, post_of(10**9, "expect: 100-continue\r\n"))
    assert status_of(answer) == 413  # neither 100, which requests the body, nor 408 after waiting for it
    said = b"at most 0.25 MiB. Found 953.7 MiB. Send a smaller image, or save it as JPEG."
    assert said in answer
    counted = exchange(server, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert b'knowhue_requests_total{route="/v1/colorize",status="413"}' in counted


def test_a_size_that_was_not_announced_is_refused_when_it_is_reached(server):
    head = post_of("0").replace(b"content-length: 0", b"transfer-encoding: chunked")
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    assert status_of(exchange(server, head, *[chunk] * 6, b"0\r\n\r\n")) == 413


def test_a_size_just_beyond_the_limit_is_not_shown_as_the_limit(server):
    assert b"Found 0.3 MiB" in exchange(server, post_of((1 << 18) + 1, "expect: 100-continue\r\n"))


def test_who_sends_too_much_still_reads_the_answer(server, tmp_path):
    answer = httpx.post(
        f"http://{server[0]}:{server[1]}/v1/colorize", content=bytes(3 << 20), headers=AS_JPEG, timeout=30
    )
    assert answer.status_code == 413
    # 70 MiB by the client of docs/serve.md, which reads nothing before it has sent all
    photo = tmp_path / "photo.png"
    photo.write_bytes(bytes(70 << 20))
    with pytest.raises(HTTPError, match="413"):
        colorize(photo, f"http://{server[0]}:{server[1]}")


def test_who_never_stops_sending_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(limits, "_LINGER_BYTES", 1 << 20)
    with socket.create_connection(server, timeout=60) as link:
        link.sendall(post_of(10**11).replace(b"connection: close\r\n", b""))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            link.sendall(bytes(1 << 28))


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/models", "/docs", "/openapi.json", "/nowhere", "/v1/colorize"]
)
def test_head_is_answered_as_get_is_without_its_body(server, path: str):
    seen, asked = (
        exchange(server, f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        for method in ("GET", "HEAD")
    )
    head, _, body = asked.partition(b"\r\n\r\n")
    assert (_undated(head), body) == (_undated(seen.partition(b"\r\n\r\n")[0]), b"")
    assert status_of(asked) == {"/nowhere": 404, "/v1/colorize": 405}.get(path, 200)


def _undated(head: bytes) -> list[bytes]:
    """Lines of an answer's head without its date, which a second may part."""
    return [line for line in head.lower().split(b"\r\n") if not line.startswith(b"date:")]


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 400, "1, 2"])
def test_a_length_that_is_none_is_refused(server, length: str):
    assert status_of(exchange(server, post_of(length))) in (400, 413)


def test_a_slow_upload_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(limits, "LINGER_SECONDS", 2.0)
    answer = exchange(server, post_of(len(JPEG)), *[JPEG[k : k + 1] for k in range(8)], pause=0.1)
    assert status_of(answer) == 408
    assert b"0.4 s" in answer


def test_many_and_long_headers_are_refused(server):
    def get(*more: str) -> int:
        lines = "\r\n".join(("GET /healthz HTTP/1.1", "host: localhost", "connection: close", *more, "", ""))
        return status_of(exchange(server, lines.encode()))

    assert get(*[f"x-{n}: y" for n in range(MAX_HEADERS - 2)]) == 200
    assert get(*[f"x-{n}: y" for n in range(MAX_HEADERS + 1)]) == 431
    assert get("x: " + "y" * 20_000) == 431
    assert get("x: " + "y" * 200_000) in (0, 400)
    assert get("host: localhost") == 400


UNSOUND = {
    "other bytes": b"\x16\x03\x01\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a length that is none": b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    "a chunk": b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "headers without end": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 40_000,
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_what_is_not_sound_http_is_told_all_that_may_be_wrong(server, kind: str):
    head, _, body = exchange(server, UNSOUND[kind]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    said = json.loads(body)["error"]
    assert [
        part for part in ("`Host`", "length", "chunk", "16,384 bytes of headers") if part not in said
    ] == []


@pytest.mark.parametrize("coding", ["chunked", "identity", "gzip, chunked"])
@pytest.mark.parametrize("order", [1, -1])
def test_two_lengths_of_one_body_end_the_connection(server, coding: str, order: int):
    """What one reader takes for the body's end the next takes for a second request."""
    lengths = ["content-length: 5", f"transfer-encoding: {coding}"][::order]
    head = "\r\n".join(("POST /v1/classify HTTP/1.1", "host: localhost", *lengths, "", "")).encode()
    smuggled = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = exchange(server, head + b"0\r\n\r\n" + smuggled)
    assert status_of(answer) in (400, 501)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()


def test_held_uploads_are_bounded_together():
    """Many uploads that are each allowed must not fill the memory."""
    shield = Shield(lambda *_: asyncio.sleep(0), ServerSettings(max_held_mib=1), Monitor())
    shield.hold(1 << 20)
    with pytest.raises(Exception, match="holds too many uploads and unread answers"):
        shield.hold(1)


def test_what_an_upload_held_is_given_back():
    with client_of(max_held_mib=0.01) as client:
        for _ in range(40):
            assert client.post("/v1/classify", content=JPEG, headers=AS_JPEG).status_code == 200


def test_who_leaves_while_waiting_is_forgotten():
    opened, predicting = threading.Event(), threading.Event()

    def predict(seen):
        predicting.set()
        return opened.wait(60)  # longer than all that follows, on a crowded machine too

    model = colorizer(predict)  # type: ignore[arg-type,return-value]
    with running({"slow": model}) as (host, port, server):
        batcher = server._batchers["slow"]
        request = post_of(len(JPEG)) + JPEG
        with socket.create_connection((host, port)) as stays:
            stays.sendall(request)
            assert predicting.wait(60)
            with socket.create_connection((host, port)) as leaves:
                leaves.sendall(request)
                wait_until(lambda: len(batcher._decoded) == 1, seconds=20)
            (job,) = batcher._decoded
            wait_until(job.future.cancelled, seconds=20)
            opened.set()
            assert status_of(stays.recv(1000)) == 200
        wait_until(lambda: batcher.length == 0)
        assert model.network.batches == [1]  # type: ignore[attr-defined]


def noisy(width: int, height: int) -> bytes:
    """An image whose colouring is about as large as its pixels."""
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def held_bytes(server: tuple[str, int]) -> float:
    text = httpx.get(f"http://{server[0]}:{server[1]}/metrics", timeout=30).text
    return float(re.search(r"^knowhue_held_bytes (\S+)$", text, re.M)[1])  # type: ignore[index]


def test_answers_that_nobody_reads_are_bounded_together_and_dropped_in_time(monkeypatch):
    """Each response is about 2 MB, of which the system buffers some hundred KB; two fit at the same time."""
    data = noisy(900, 800)
    request = post_of(len(data)).replace(b"image/jpeg", b"image/png") + data
    # no client is disconnected while responses are counted, however slow the machine
    monkeypatch.setattr(limits, "READING_SECONDS", 600.0)
    with running(max_held_mib=6) as (host, port, _):

        def ask(stack: ExitStack) -> socket.socket:
            link = stack.enter_context(slow_link(host, port))
            link.settimeout(60)
            link.sendall(request)
            return link

        def begins(link: socket.socket) -> int:
            return status_of(link.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) + b" ")

        with ExitStack() as stack:
            links = [ask(stack) for _ in range(5)]
            begun = [begins(link) for link in links]
            assert begun.count(200) in (2, 3)
            assert begun.count(429) == 5 - begun.count(200)
            assert 2e6 < held_bytes((host, port)) <= 6 * (1 << 20)
            small = httpx.post(f"http://{host}:{port}/v1/colorize", content=JPEG, headers=AS_JPEG, timeout=60)
            assert small.status_code == 200
        wait_until(lambda: held_bytes((host, port)) == 0)
        monkeypatch.setattr(limits, "READING_SECONDS", 1.5)
        with ExitStack() as stack:
            links = [ask(stack) for _ in range(2)]
            assert [begins(link) for link in links] == [200, 200]
            wait_until(lambda: held_bytes((host, port)) == 0)
            assert all(read_all(link) < 1_500_000 for link in links)  # cut off
        whole = httpx.post(
            f"http://{host}:{port}/v1/colorize",
            content=data,
            headers={"content-type": "image/png"},
            timeout=30,
        )
        assert whole.status_code == 200
        assert len(whole.content) > 1_500_000


def test_who_reads_slowly_but_fast_enough_gets_all(monkeypatch):
    monkeypatch.setattr(limits, "READING_SECONDS", 2.0)
    data = noisy(900, 800)
    request = post_of(len(data)).replace(b"image/jpeg", b"image/png") + data
    with running() as (host, port, _), slow_link(host, port) as link:
        link.sendall(request)
        received = b""
        while chunk := link.recv(60_000):  # 600 KB/s at most: longer than 2 s
            received += chunk
            time.sleep(0.1)
    head, _, body = received.partition(b"\r\n\r\n")
    assert len(body) == int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]


def test_what_is_no_http_is_answered_like_any_other_mistake_though_more_is_coming():
    head = b"POST /v1/colorize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n"
    with running() as (host, port, _), socket.create_connection((host, port), timeout=60) as link:
        link.sendall(head)
        for _ in range(20):
            time.sleep(0.01)  # the answer has been sent, and a connection that was closed would be reset
            link.sendall(b"x" * 10_000)
        received = b""
        while chunk := link.recv(1 << 16):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert json.loads(body)["error"].startswith("The request should be valid HTTP/1.1")


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (post_of(len(JPEG)) + JPEG[:100], 400, "The request should be valid HTTP/1.1"),
        (b"GET /healthz HTTP/1.1\r\nhost: local", 400, "The request should be valid HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421, "`Host` should be one of"),
        (b"GET /healthz HTTP/1.2\r\nhost: localhost\r\nconnection: close\r\n\r\n", 200, "ok"),
        (
            b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            200,
            "allow: GET, HEAD, POST, OPTIONS\r\n",
        ),
    ],
)
def test_what_ends_half_way_or_speaks_another_version_is_told_so(sent, status, said):
    with running() as (host, port, _), socket.create_connection((host, port), timeout=60) as link:
        link.sendall(sent)
        if status == 400:
            link.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := link.recv(1 << 16):
            received += chunk
    assert status_of(received) == status
    assert said in received.decode()


def test_a_form_that_is_none_is_answered_and_writes_no_line_of_the_parsers(caplog):
    sent = post_of(7).replace(b"image/jpeg", b"multipart/form-data; boundary=e") + b"garbage"
    with running() as (host, port, _), socket.create_connection((host, port), timeout=60) as link:
        link.sendall(sent)
        assert status_of(link.recv(1 << 16)) == 400
    assert not caplog.records


def slow_link(host: str, port: int) -> socket.socket:
    """A client whose system takes little before it is read."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    link.connect((host, port))
    return link


def read_all(link: socket.socket) -> int:
    size = 0
    with suppress(ConnectionResetError):
        while chunk := link.recv(1 << 20):
            size += len(chunk)
    return size


PROBE = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def is_closed(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


def test_silent_connections_are_bounded_and_the_oldest_makes_room_for_a_probe(monkeypatch):
    monkeypatch.setattr(run, "MAX_CONNECTIONS", 4)
    with running() as (host, port, server), ExitStack() as links:

        def connect() -> socket.socket:
            return links.enter_context(socket.create_connection((host, port), timeout=60))

        silent = [connect() for _ in range(4)]
        wait_until(lambda: len(server.server_state.connections) == 4)
        silent[1].sendall(b"GET /healthz HTTP/1.1\r\nhost:")  # no whole request either
        assert status_of(exchange((host, port), PROBE, until_closed=False)) == 200
        assert is_closed(silent[0])
        more = [connect() for _ in range(9)]
        assert all(is_closed(link) for link in (*silent, *more[:5]))
        assert len(server.server_state.connections) == 4
        for link in more[5:]:
            link.sendall(PROBE)
            assert status_of(link.recv(65536)) == 200


def test_a_connection_whose_request_is_answered_keeps_its_place(monkeypatch):
    monkeypatch.setattr(run, "MAX_CONNECTIONS", 2)
    opened = threading.Event()
    slow = colorizer(lambda seen: opened.wait(60))  # type: ignore[arg-type,return-value]
    with running({"slow": slow}) as (host, port, server), ExitStack() as links:
        batcher = server._batchers["slow"]
        busy = [links.enter_context(socket.create_connection((host, port), timeout=60)) for _ in range(2)]
        for link in busy:
            link.sendall(post_of(len(JPEG)) + JPEG)
        wait_until(lambda: batcher.length == 2)
        late = links.enter_context(socket.create_connection((host, port), timeout=60))
        assert is_closed(late)
        opened.set()
        assert [status_of(link.recv(65536)) for link in busy] == [200, 200]
