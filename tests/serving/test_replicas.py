"""Two replicas behind nginx, with the files of `examples/replicas`: a restart or a kill loses no request."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NamedTuple

import fake_systemctl
import numpy as np
import pytest
from fake_server import running, wait_until

from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import Colorizer
from knowhue.serving.run import _KEEP_ALIVE_SECONDS
from knowhue.serving.settings import SHORTEST_TOKEN, ServerSettings

EXAMPLE = Path(__file__).parents[2] / "examples" / "replicas"
PAGE = Path(__file__).parents[2] / "docs" / "replicas.md"
NAME = "photos.example.org"
TOKEN = "a-token-for-the-test"
CLIENTS = 8
KEPT = ("knowhue-class", "knowhue-probability", "knowhue-scores", "content-type")


def example(name: str) -> str:
    return (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_page_leads_to_every_file():
    linked = re.findall(r"\]\(\.\./examples/replicas/([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(path.name for path in EXAMPLE.iterdir())


def test_the_proxys_limits_fit_those_of_a_replica():
    (conf, unit), limits = (example("knowhue.conf"), example("knowhue@.service")), ServerSettings()

    def number(pattern: str, text: str = conf) -> int:
        (found,) = re.findall(pattern, text)
        return int(found)

    upload = number(r"client_max_body_size (\d+)m;")
    assert upload == limits.max_upload_mib == number(r"client_body_buffer_size (\d+)m;")
    assert f"at most {upload} MiB" in conf
    assert number(r"proxy_read_timeout (\d+)s;") > limits.request_seconds
    assert number(r"proxy_next_upstream_timeout (\d+)s;") < number(r"proxy_read_timeout (\d+)s;")
    # or a request would be sent into a connection that the replica is closing
    assert number(r"keepalive_timeout (\d+)s;") < _KEEP_ALIVE_SECONDS
    assert number(r"TimeoutStopSec=(\d+)", unit) > limits.request_seconds + limits.stop_seconds


def test_a_replica_does_not_start_with_the_token_of_the_example():
    (token,) = re.findall(r"KNOWHUE_TOKEN=(.*)", example("serve.env"))
    assert 0 < len(token) < SHORTEST_TOKEN


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def _said(answer: HTTPResponse) -> Answer:
    return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())


class Site:
    """Two replicas behind nginx."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "nginx"
        """its log, the certificate"""
        self.units = root / "bin"
        """where `systemctl` is, and the replicas' output"""
        self.port, *self.ports = _free_ports(3)
        """of nginx, and of the replicas"""
        self.folder.mkdir()
        (root / "serve.env").write_text(f"KNOWHUE_TOKEN={TOKEN}\nKNOWHUE_OPTIONS=--batch-size 1\n")
        unit = _changed("knowhue@.service", {
            "/opt/knowhue/.venv/bin/knowhue": f"{sys.executable} -m knowhue",
            "/etc/knowhue/serve.env": str(root / "serve.env"),
        })  # fmt: skip
        fake_systemctl.install(self.units, unit)
        script = _changed("rolling-restart.sh", {"7861": str(self.ports[0]), "7862": str(self.ports[1])})
        (root / "rolling-restart.sh").write_text(script)
        self._script = root / "rolling-restart.sh"

    def run(self) -> subprocess.Popen[bytes]:
        self.systemctl("start")
        self._certify()
        (self.folder / "knowhue.conf").write_text(_changed("knowhue.conf", {
            "listen 443": f"listen 127.0.0.1:{self.port}",
            "7861": str(self.ports[0]), "7862": str(self.ports[1]),
            "/etc/ssl": str(self.folder), "/var/log/nginx": str(self.folder),
        }))  # fmt: skip
        places = "".join(f"{kind}_temp_path {kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            f"daemon off; pid nginx.pid; error_log error.log; {'user root;' * (os.geteuid() == 0)}"
            f"events {{}} http {{ client_body_temp_path body; {places} include knowhue.conf; }}"
        )
        started = subprocess.Popen(
            ["nginx", "-e", "error.log", "-p", f"{self.folder}/", "-c", "nginx.conf"],
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: started.poll() is not None or _listens(self.port), 20)
        assert started.poll() is None, started.communicate()[1]
        self.await_replicas()
        return started

    def systemctl(self, *order: str, port: int | None = None) -> None:
        """Tell a replica something, or all of them."""
        for each in self.ports if port is None else [port]:
            subprocess.run([self.units / "systemctl", *order, f"knowhue@{each}"], check=True, timeout=120)

    def await_replicas(self) -> None:
        for port in self.ports:
            wait_until(lambda port=port: _listens(port), 120)

    def _certify(self) -> None:
        key, certificate = (self.folder / f"{NAME}.{suffix}" for suffix in ("key", "crt"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
             "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        self._tls = ssl.create_default_context(cafile=certificate)

    def connect(self) -> HTTPSConnection:
        """By the name that the certificate is for, without a name server."""
        connection = HTTPSConnection(NAME, context=self._tls, timeout=120)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.sock = self._tls.wrap_socket(plain, server_hostname=NAME)
        return connection

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        with closing(self.connect()) as connection:
            connection.request(method, path, body, named)
            return _said(connection.getresponse())

    def restart_all(self) -> None:
        """`rolling-restart.sh`."""
        path = f"{self.units}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["sh", self._script], check=True, timeout=300, env=os.environ | {"PATH": path})

    def replica_that_answered(self) -> list[str]:
        """Of each line of nginx's log, in time: ports that were tried."""
        lines = (self.folder / "knowhue.log").read_text().splitlines()
        return [" ".join(re.findall(r"127\.0\.0\.1:(\d+)", line)) for line in lines]


def _changed(name: str, changes: Mapping[str, str]) -> str:
    """A file of the example with what differs on this machine."""
    text = example(name)
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in opened]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    for program, package in (("nginx", "nginx-light"), ("curl", "curl"), ("openssl", "openssl")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: apt-get install {package}")
    found = Site(tmp_path_factory.mktemp("site"))
    nginx = None
    try:
        nginx = found.run()
        yield found
    finally:
        if nginx is not None:
            nginx.terminate()
            nginx.communicate(timeout=20)
        found.systemctl("stop")


@pytest.fixture(scope="module")
def photos() -> dict[bytes, Answer]:
    """Photos, and what one process without a proxy answers to them."""
    generator = np.random.default_rng(0)
    sent = [
        encode_image(Image.of(generator.integers(0, 256, (8 + 7 * index, 40, 1), np.uint8)), suffix)
        for index, suffix in enumerate([".png", ".jpg", ".png", ".webp"])
    ]
    with running({"built-in": Colorizer.load("built-in")}, batch_size=1) as (host, port, _):
        found = {}
        for photo in sent:
            with closing(HTTPConnection(host, port, timeout=120)) as connection:
                connection.request("POST", "/v1/colorize", photo, {"Content-Type": "image/*"})
                found[photo] = _said(connection.getresponse())
            assert found[photo].status == 200
    return found


class Crowd:
    """Clients that send photos continuously until they are stopped."""

    def __init__(self, site: Site, photos: Mapping[bytes, Answer]) -> None:
        self.right = 0
        """answers that were those of one process"""
        self.wrong = Counter[str]()
        """what was answered otherwise"""
        self._site, self._photos = site, list(photos.items())
        self._enough, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(each,)) for each in range(CLIENTS)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.right >= CLIENTS or self.wrong, 120)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, count: int) -> None:
        """Wait for so many further answers."""
        aim = self.right + self.wrong.total() + count
        wait_until(lambda: self.right + self.wrong.total() >= aim, 120)

    def _send(self, number: int) -> None:
        connection = self._site.connect()
        while not self._enough.is_set():
            photo, expected = self._photos[number % len(self._photos)]
            number += 1
            try:
                headers = {"Content-Type": "image/*", "Authorization": f"Bearer {TOKEN}"}
                connection.request("POST", "/v1/colorize", photo, headers)
                found = _said(connection.getresponse())
                is_same = found.body == expected.body and all(
                    found.headers.get(key) == expected.headers.get(key) for key in KEPT
                )
                fault = "" if found.status == 200 and is_same else f"{found.status} {found.body[:80]!r}"
            except OSError as error:
                connection.close()
                fault, connection = repr(error), self._site.connect()
            with self._lock:
                self.right += not fault
                self.wrong.update([fault] * bool(fault))
        connection.close()


@pytest.mark.slow
def test_a_rolling_restart_costs_no_request(site, photos):
    before = len(site.replica_that_answered())
    with Crowd(site, photos) as crowd:
        site.restart_all()
        crowd.go_on(4 * CLIENTS)
    assert crowd.wrong == {}
    tried = Counter(site.replica_that_answered()[before:])
    one, other = map(str, site.ports)
    # both answered, and each handed requests on while it stopped
    assert min(tried[one], tried[other], tried[f"{one} {other}"], tried[f"{other} {one}"]) > 0, tried
    assert crowd.right > 8 * CLIENTS
    for port in site.ports:
        said = (site.units / f"{port}.log").read_text()
        assert said.count("Knowhue is at") == 2
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_replica_that_is_killed_costs_no_request(site, photos):
    lost = site.ports[0]
    with Crowd(site, photos) as crowd:
        site.systemctl("kill", "--signal=KILL", port=lost)
        crowd.go_on(4 * CLIENTS)
        site.systemctl("start", port=lost)
        site.await_replicas()
        count = len(site.replica_that_answered())
        wait_until(lambda: str(lost) in site.replica_that_answered()[count:], 60)
    assert crowd.wrong == {}


@pytest.mark.slow
def test_who_may_call_is_what_the_replicas_say(site, photos):
    photo = next(iter(photos))
    shown = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "image/*"}
    assert site.ask("POST", "/v1/colorize", photo, Content_Type="image/*").status == 401
    assert site.ask("POST", "/v1/colorize", photo, **shown, Origin=f"https://{NAME}").status == 200
    assert site.ask("POST", "/v1/colorize", photo, **shown, Origin="https://elsewhere.example").status == 403
    assert site.ask("GET", "/v1/models", **shown, Host="elsewhere.example").status == 421
    assert site.ask("GET", "/readyz").status == 200
    assert site.ask("GET", "/metrics", **shown).status == 404
    # a cookie of one replica counts with both
    first = site.ask("GET", f"/?token={TOKEN}")
    assert (first.status, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert {site.ask("GET", "/", Cookie=cookie).status for _ in range(6)} == {200}
    assert TOKEN not in (site.folder / "knowhue.log").read_text()


@pytest.mark.slow
def test_a_photo_is_kept_on_no_disk_and_too_large_a_one_is_refused_in_json(site):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "image/png"}
    large = encode_image(
        Image.of(np.random.default_rng(1).integers(0, 256, (1500, 1500, 1), np.uint8)), ".png"
    )
    assert len(large) > 2 << 20
    assert site.ask("POST", "/v1/colorize", large, **headers).status == 200
    # nginx warns of every body or answer that it writes to a file
    assert "buffered to a temporary file" not in (site.folder / "error.log").read_text()
    refused = site.ask("POST", "/v1/colorize", None, **headers, Content_Length=str(65 << 20))
    assert refused.status == 413
    assert json.loads(refused.body) == {
        "error": "The request should have at most 64 MiB. Found more. Send a smaller image, or save it as JPEG."
    }
    assert refused.headers["content-type"] == "application/json"


@pytest.mark.slow
def test_without_a_replica_the_proxy_says_so_in_json(site):
    site.systemctl("stop")
    try:
        said = site.ask("GET", "/v1/models")
        assert (said.status, said.headers["retry-after"]) == (503, "5")
        assert json.loads(said.body) == {"error": "No replica answers. Try again in 5 s."}
    finally:
        site.systemctl("start")
        site.await_replicas()
