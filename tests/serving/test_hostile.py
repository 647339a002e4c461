"""Wrong, broken and malicious requests over a real connection; `benchmarks/hostile.py` sends many more."""

import gc
import tempfile
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path

import pytest
from fake_server import photo, running
from hostile_corpus import ATTACKS, BOMBS, NAMES, Request, Response, fault_of, hostile, send

ROUNDS = 12


@pytest.fixture(scope="module")
def server():
    """Host and port of a server that runs during all tests of this module."""
    with running(with_page=True, upload_seconds=5, max_upload_mib=4) as (host, port, _):
        yield host, port


@pytest.fixture
def ask(server: tuple[str, int]) -> Callable[[Request], Response]:
    def once(request: Request, tries: int = 3) -> Response:
        """Send a request; retry, because a client refused while sending may be disconnected before it reads why."""
        link = HTTPConnection(*server, timeout=20)
        try:
            return send(link, request)
        except ConnectionError:
            if tries == 1:
                raise
        finally:
            link.close()
        return once(request, tries - 1)

    return once


def test_nothing_makes_it_fail_or_leak(ask: Callable[[Request], Response]):
    statuses: Counter[str] = Counter()
    for request in islice(hostile(seed=0), ROUNDS * len(ATTACKS)):
        response = ask(request)
        assert fault_of(request, response) is None, (
            request.kind,
            request.path[:200],
            request.body[:100],
            response.status,
            fault_of(request, response),
        )
        statuses[request.kind] += 1
    gc.collect()  # so that its warnings belong to this test
    assert set(statuses.values()) == {ROUNDS}
    answer = ask(Request("good", "/v1/colorize", photo()))
    assert answer.status == 200


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_bombs_are_refused_before_they_unpack(ask: Callable[[Request], Response], bomb: Callable):
    import random

    before = _resident_mib()
    response = ask(Request("bomb", "/v1/colorize", bomb(random.Random(1))))
    assert response.status in (415, 422)
    assert _resident_mib() - before < 60


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_names_are_never_paths(ask: Callable[[Request], Response], name: str, monkeypatch, tmp_path):
    """A valid image is coloured whatever its name, or the form is refused; no file is written or read."""
    monkeypatch.chdir(tmp_path)
    temporary = set(Path(tempfile.gettempdir()).iterdir())
    called = name.encode("utf-8", "surrogatepass").replace(b'"', b"%22")
    part = b'content-disposition: form-data; name="image"; filename="' + called + b'"\r\n\r\n' + photo()
    body = b"--edge\r\n" + part + b"\r\n--edge--\r\n"
    response = ask(
        Request("name", "/v1/colorize", body, {"content-type": "multipart/form-data; boundary=edge"})
    )
    assert response.status in (200, 400)
    assert (
        name == ""
        or name == "."
        or name.encode("utf-8", "replace") not in response.body + repr(response.headers).encode()
    )
    assert not list(tmp_path.iterdir())
    assert not [
        path for path in set(Path(tempfile.gettempdir()).iterdir()) - temporary if "pwned" in path.name
    ]


def test_large_uploads_stay_in_memory(ask: Callable[[Request], Response], monkeypatch: pytest.MonkeyPatch):
    """An upload is never written to the disk."""
    data = photo("bmp", width=1500, height=1500)
    body = (
        b'--edge\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + data
        + b"\r\n--edge--\r\n"
    )
    request = Request("large", "/v1/classify", body, {"content-type": "multipart/form-data; boundary=edge"})
    assert ask(request).status == 200  # compiled code begins with the first large image, and has a cache

    def refuse(*args, **kwargs):
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr("os.open", refuse)
    assert ask(request).status == 200


def test_memory_stays_flat(server: tuple[str, int]):
    link = HTTPConnection(*server, timeout=20)
    request = Request("good", "/v1/colorize", photo(width=200, height=150))
    sizes = []
    for _ in range(3):
        for _ in range(120):
            assert send(link, request).status == 200
        sizes.append(_resident_mib())
    link.close()
    assert sizes[2] - sizes[1] < 4, sizes


def _resident_mib() -> float:
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("needs /proc to read the memory in use")
    return int(pages.read_text().split()[1]) * 4096 / (1 << 20)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://{}/v1/models", 200),
        ("HTTP://{}/healthz", 200),
        ("http://{}", 200),
        ("http://{}/nothing", 404),
        ("http://elsewhere.org/v1/models", 421),
        ("http://me@{}/v1/models", 421),
        ("ftp://{}/v1/models", 404),
    ],
)
def test_a_whole_url_is_taken_for_its_path_and_its_host(server: tuple[str, int], target: str, status: int):
    link = HTTPConnection(*server, timeout=20)
    link.request("GET", target.format(f"{server[0]}:{server[1]}"))
    assert link.getresponse().status == status
    link.close()
