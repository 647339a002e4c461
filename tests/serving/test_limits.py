import asyncio
import re
import socket
import threading
import time

import httpx
import pytest
from fastapi.testclient import TestClient
from stand import colorizer, photo, running, wait_until

from knowhue.serving import access
from knowhue.serving.access import MAX_HEADERS
from knowhue.serving.api import make_app
from knowhue.serving.limits import HEADERS, Shield
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
    with running(header_seconds=0.4, upload_seconds=0.4, max_upload_mib=0.25) as (host, port, _):
        yield host, port


def exchange(server: tuple[str, int], *parts: bytes, pause: float = 0.0, until_closed: bool = True) -> bytes:
    """What a socket answers to bytes."""
    with socket.create_connection(server, timeout=5) as link:
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
    "host", ["localhost", "localhost:7860", "127.0.0.1:1", "[::1]:7860", "127.0.0.2", "photos.lan"]
)
def test_its_own_names_are_served(host: str):
    with client_of(hosts=("photos.lan",)) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.1", "a@b"]
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
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    with client_of(token=TOKEN) as client:
        client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert (b"wrong", TOKEN.encode()) in compared


def test_an_announced_size_is_refused_before_anything_comes(server):
    started = time.monotonic()
    answer = exchange(server, post_of(10**9, "expect: 100-continue\r\n"))
    assert status_of(answer) == 413
    assert b"at most 0.25 MiB" in answer
    assert time.monotonic() - started < 1.5


def test_a_size_that_was_not_announced_is_refused_when_it_is_reached(server):
    head = post_of("0").replace(b"content-length: 0", b"transfer-encoding: chunked")
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    assert status_of(exchange(server, head, *[chunk] * 6, b"0\r\n\r\n")) == 413


def test_who_sends_too_much_still_reads_the_answer(server):
    answer = httpx.post(
        f"http://{server[0]}:{server[1]}/v1/colorize", content=bytes(3 << 20), headers=AS_JPEG
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 400, "1, 2"])
def test_a_length_that_is_none_is_refused(server, length: str):
    assert status_of(exchange(server, post_of(length))) in (400, 413)


def test_a_slow_upload_is_cut_off(server):
    started = time.monotonic()
    answer = exchange(server, post_of(len(JPEG)), *[JPEG[k : k + 1] for k in range(8)], pause=0.1)
    assert status_of(answer) == 408
    assert b"0.4 s" in answer
    assert time.monotonic() - started < 4


def test_slow_headers_are_cut_off(server):
    started = time.monotonic()
    assert exchange(server, b"GET /healthz HTTP/1.1\r\n", *[b"a: b\r\n"] * 7, pause=0.1) == b""
    assert time.monotonic() - started < 3


def test_a_silent_client_is_cut_off(server):
    started = time.monotonic()
    assert exchange(server) == b""
    assert time.monotonic() - started < 3


def test_a_second_request_on_a_connection_has_its_own_time(server):
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = exchange(server, request, request, b"GET /he", pause=0.2)
    assert answer.count(b"200 OK") == 2


def test_many_and_long_headers_are_refused(server):
    def get(*more: str) -> int:
        lines = "\r\n".join(("GET /healthz HTTP/1.1", "host: localhost", "connection: close", *more, "", ""))
        return status_of(exchange(server, lines.encode()))

    assert get(*[f"x-{n}: y" for n in range(MAX_HEADERS - 2)]) == 200
    assert get(*[f"x-{n}: y" for n in range(MAX_HEADERS + 1)]) == 431
    assert get("x: " + "y" * 20_000) == 431
    assert get("x: " + "y" * 200_000) in (0, 400)
    assert get("host: localhost") == 400


def test_held_uploads_are_bounded_together():
    """Many uploads that are each allowed must not fill the memory."""
    shield = Shield(lambda *_: asyncio.sleep(0), ServerSettings(max_held_mib=1), Monitor())
    shield.hold(1 << 20)
    with pytest.raises(Exception, match="too many uploads"):
        shield.hold(1)


def test_what_an_upload_held_is_given_back():
    with client_of(max_held_mib=0.01) as client:
        for _ in range(40):
            assert client.post("/v1/classify", content=JPEG, headers=AS_JPEG).status_code == 200


def test_who_leaves_while_waiting_is_forgotten():
    opened = threading.Event()
    model = colorizer(lambda seen: opened.wait(10))  # type: ignore[arg-type,return-value]
    with running({"slow": model}) as (host, port, server):
        batcher = server._batchers["slow"]
        request = post_of(len(JPEG)) + JPEG
        with socket.create_connection((host, port)) as stays:
            stays.sendall(request)
            wait_until(
                lambda: batcher.length == 1 and not (batcher._waiting or batcher._decoding or batcher._seen)
            )
            with socket.create_connection((host, port)) as leaves:
                leaves.sendall(request)
                wait_until(lambda: batcher._seen)
            wait_until(lambda: all(each.job.future.cancelled() for each in batcher._seen))
            opened.set()
            assert status_of(stays.recv(1000)) == 200
        wait_until(lambda: batcher.length == 0)
        assert model.network.batches == [1]  # type: ignore[attr-defined]
