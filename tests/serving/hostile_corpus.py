"""Malicious and malformed requests: an endless sequence, the same for the same seed."""

import gzip
import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from typing import NamedTuple

from PIL import Image

SECRET = "hush-hush-hush-hush"
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP")
ALLOWED = {200, 400, 403, 404, 405, 413, 415, 421, 422, 431}
"""Statuses allowed for hostile requests; a 5xx or a timeout is a fault."""
LEAKS = re.compile(
    rb"Traceback|site-packages|File \"|\.py\b|/home/|/opt/|/tmp/|/usr/|0x[0-9a-f]{6}|<module|Exception|root:x|"
    + SECRET.encode()
)
ENDS = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//evil.example/", "/..%5c..%5cx", "/%00", "/")
NAMES = (
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/shadow",
    "C:\\x.jpg",
    "x.jpg\0.exe",
    "a" * 3000,
    "\u202egpj.exe",
    "'; DROP TABLE photos; --",
    "<script>alert(1)</script>.jpg",
    "$(touch /tmp/pwned).jpg",
    "|touch pwned",
    "%00%2e%2e%2f",
    "CON",
    ".",
    "",
    "x.jpg[page=1]",
    "msl:/etc/passwd",
)


class Request(NamedTuple):
    """A request to the server."""

    kind: str
    """kind of attack"""
    path: str
    """path and query, sent unchanged"""
    body: bytes = b""
    headers: Mapping[str, str] = {"content-type": "image/jpeg"}
    """in addition to `host` and `content-length`"""
    method: str = "POST"


class Response(NamedTuple):
    """The server's response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def image(rng: random.Random, kind: str = "JPEG") -> bytes:
    """A small valid image."""
    mode = rng.choice(("L", "RGB"))
    image = Image.new(mode, (rng.randint(1, 60), rng.randint(1, 60)), rng.randrange(256))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def truncated(rng: random.Random) -> Request:
    data = image(rng, rng.choice(KINDS))
    return Request("truncated", "/v1/colorize", data[: rng.randrange(1, len(data))])


def corrupted(rng: random.Random) -> Request:
    data = bytearray(image(rng, rng.choice(KINDS)))
    for _ in range(rng.randint(1, 12)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return Request("corrupted", "/v1/colorize", bytes(data))


def spliced(rng: random.Random) -> Request:
    """The start of one file followed by the end of another."""
    one, other = image(rng, rng.choice(KINDS)), image(rng, rng.choice(KINDS))
    cut = rng.randrange(4, len(one))
    return Request("spliced", "/v1/classify", one[:cut] + other[rng.randrange(len(other)) :])


def bomb(rng: random.Random) -> Request:
    return Request("bomb", "/v1/colorize", rng.choice(BOMBS)(rng))


def polyglot(rng: random.Random) -> Request:
    """A file of two formats: an image, or only its start, before or after something else."""
    good = image(rng, rng.choice(KINDS))
    other = rng.choice(OTHERS)
    return Request("polyglot", "/v1/colorize", rng.choice((good + other, other + good, good[:20] + other)))


def wrong_type(rng: random.Random) -> Request:
    kinds = (
        "text/html",
        "application/json",
        "image/svg+xml",
        "application/x-www-form-urlencoded",
        "image/",
        "x",
        "",
    )
    kind = rng.choice(kinds)
    data = rng.choice((image(rng), rng.choice(OTHERS), rng.randbytes(rng.randint(0, 400))))
    return Request("wrong type", "/v1/colorize", data, {"content-type": kind} if kind else {})


def name(rng: random.Random) -> Request:
    """A valid image with a malicious file name."""
    called = rng.choice(NAMES).encode("utf-8", "surrogatepass")
    part = (
        b'content-disposition: form-data; name="image"; filename="' + called.replace(b'"', b"%22") + b'"\r\n'
    )
    return _form("name", part + b"content-type: image/jpeg\r\n\r\n" + image(rng))


def form(rng: random.Random) -> Request:
    """A malformed or excessive multipart form."""
    good = b'content-disposition: form-data; name="image"; filename="a"\r\n\r\n' + image(rng)
    field = b'content-disposition: form-data; name="%s"\r\n\r\n%s'
    options = (
        b"model",
        b"saturation",
        b"hints",
        b"format",
        b"sample",
        b"uncertainty",
        b"image",
        b"__proto__",
        b"\xff",
        b"",
    )
    parts = [
        good,
        *(field % (rng.choice(options), rng.choice(VALUES)) for _ in range(rng.randint(0, 4))),
    ]
    odd = (
        [good] * rng.randint(2, 200),
        [good, good.replace(b'"image"', b'"reference"')],
        [field % (b"hints", b"1,1=red")] * rng.randint(1, 200),
        [b"x: " + b"y" * 100_000 + b"\r\n\r\nz"],
        [b"content-disposition: form-data\r\n\r\nx"],
        [b'content-disposition: form-data; name="image"; filename="a"\r\n\r\n'],
        [b""],
        parts,
        parts,
        parts,
    )
    request = _form("form", *rng.choice(odd))
    return (
        request._replace(body=request.body[: rng.randrange(len(request.body))])
        if rng.random() < 0.3
        else request
    )


def option(rng: random.Random) -> Request:
    names = (
        "model",
        "saturation",
        "hints",
        "format",
        "sample",
        "uncertainty",
        "unknown_below",
        "x",
        "token",
        "%00",
        "a[b]",
    )
    query = "&".join(f"{rng.choice(names)}={_quoted(rng.choice(VALUES))}" for _ in range(rng.randint(1, 5)))
    return Request("option", f"{rng.choice(('/v1/colorize', '/v1/classify'))}?{query}", image(rng))


def path(rng: random.Random) -> Request:
    start = rng.choice(("", "/docs", "/v1", "/v1/models", "/static", "/openapi.json"))
    end = rng.choice(ENDS)
    more = rng.choice(("", "?x=../../etc/passwd", ";x", "%0d%0ax:y"))
    method = rng.choice(("GET", "HEAD", "PUT", "DELETE", "TRACE", "PATCH", "OPTIONS", "BREW"))
    return Request("path", start + end + more, method=method, headers={})


def header(rng: random.Random) -> Request:
    odd = (
        {f"x-{n}": "y" for n in range(rng.randint(60, 90))},
        {"x": "y" * rng.randint(1, 30_000)},
        {"accept": "application/json" * rng.randint(1, 500)},
        {"host": rng.choice(("evil.example", "localhost.evil.example", "[::", "127.0.0.1:99999999", "\xff"))},
        {"content-encoding": "gzip"},
        {"transfer-encoding": "gzip"},
        {"authorization": "Basic " + "A" * rng.randint(0, 4000)},
        {"x-forwarded-for": "1.2.3.4", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"},
        {"range": "bytes=0-0"},
        {"upgrade": "websocket", "connection": "upgrade"},
    )
    return Request("header", "/v1/colorize", image(rng), {"content-type": "image/jpeg", **rng.choice(odd)})


def page(rng: random.Random) -> Request:
    """Paths and methods that the page must refuse."""
    start = rng.choice(
        ("/page/", "/page/vendor/", "/page/examples/", "/page/studies/", "/page/studies/0/", "/docs/")
    )
    method = rng.choice(("GET", "HEAD", "POST", "DELETE"))
    body = image(rng) if method == "POST" else b""
    return Request(
        "page", start + rng.choice((*ENDS, "x.png", "-1/report.html")).lstrip("/"), body, {}, method
    )


ATTACKS: tuple[Callable[[random.Random], Request], ...] = (
    truncated,
    corrupted,
    spliced,
    bomb,
    polyglot,
    wrong_type,
    name,
    form,
    option,
    path,
    header,
    page,
)
FILE_KEYS = ("path", "url", "orig_name", "meta", "_type", "data", "name", "x", "key", "colour", "index")
VALUES = (
    b"1",
    b"-1",
    b"nan",
    b"1e400",
    b"\0",
    b"\xff\xfe",
    b"../../etc/passwd",
    b"{{7*7}}",
    b"${7*7}",
    b"<script>",
    b"true",
    b"null",
    b"[]",
    b"9" * 3000,
    "١٢".encode(),
    b"1,1=red",
    b"1e9,1=red",
    b"50%,50%=url(file:///etc/passwd)",
    b"jpg",
    b".jpg[Q=1,keep=all]",
    b"png\r\nx: y",
)


def hostile(seed: int) -> Iterator[Request]:
    """Yield attacks without end, each kind in turn."""
    rng = random.Random(seed)
    while True:
        for attack in ATTACKS:
            yield attack(rng)


def send(link: HTTPConnection, request: Request) -> Response:
    """Send a request with its path and headers unchanged, and return the response."""
    link.putrequest(
        request.method, request.path, skip_host="host" in request.headers, skip_accept_encoding=True
    )
    for key, value in request.headers.items():
        link.putheader(key, value.encode("latin-1"))
    if "transfer-encoding" not in request.headers:
        link.putheader("content-length", str(len(request.body)))
    link.endheaders(request.body)
    answer = link.getresponse()
    return Response(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())


def fault_of(request: Request, response: Response) -> str | None:
    """Return what is wrong with a response, or None."""
    if response.status not in ALLOWED:
        return f"status {response.status}"
    text = response.body if response.headers.get("content-type", "").startswith("application/json") else b""
    if LEAKS.search(text) or LEAKS.search(repr(response.headers).encode()):
        return f"leak: {text[:200]!r}"
    if response.headers.get("x-content-type-options") != "nosniff":
        return "no security headers"
    if response.status != 200 and request.method != "HEAD" and not response.body.startswith(b'{"error": "'):
        return f"no line of JSON: {response.body[:200]!r}"
    if request.kind == "bomb" and response.status == 200:
        return "took a bomb"
    return None


def _form(kind: str, *parts: bytes) -> Request:
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"
    return Request(kind, "/v1/colorize", body, {"content-type": "multipart/form-data; boundary=edge"})


def _quoted(value: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in value)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + _chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)) + packer.flush()


def _png_of_zeros(rng: random.Random) -> bytes:
    """More than 100 million pixels in 0.1 MB."""
    return _png(10_000, 10_001, _chunk(b"IDAT", _DEFLATED))


def _png_with_a_long_story(rng: random.Random) -> bytes:
    """A text chunk that unpacks to 101 MiB, in an image without data."""
    return _png(8, 8, _chunk(b"zTXt", b"Comment\0\0" + _DEFLATED))


def _png_with_a_long_profile(rng: random.Random) -> bytes:
    return _png(8, 8, _chunk(b"iCCP", b"p\0\0" + _DEFLATED))


def _png_header(rng: random.Random) -> bytes:
    return _png(rng.randint(20_000, 2**31 - 1), rng.randint(20_000, 2**31 - 1), _chunk(b"IDAT", b"x"))


def _gif_header(rng: random.Random) -> bytes:
    frame = struct.pack("<HHHH", 0, 0, 65535, 65535)
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0," + frame + b"\0\x02\0;"


def _bmp_header(rng: random.Random) -> bytes:
    size = struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + size


def _jpeg_header(rng: random.Random) -> bytes:
    frame = struct.pack(">BHHB", 8, 65500, 65500, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def _tiff_header(rng: random.Random) -> bytes:
    tags = (
        (256, 4, 2**31),
        (257, 4, 2**31),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (279, 4, 2**31),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _tiff_loop(rng: random.Random) -> bytes:
    """A directory whose next directory is itself."""
    directory = struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 1) + struct.pack("<I", 8)
    return b"II*\0" + struct.pack("<I", 8) + directory


def _webp_header(rng: random.Random) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + b"\xff\xff\xff" * 2
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _pnm_header(rng: random.Random) -> bytes:
    return b"P5 1000000 1000000 255\n" + bytes(100)


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../x", bytes(100_000))
    return file.getvalue()


_DEFLATED = _zeros(101 << 20)
BOMBS = (
    _png_of_zeros,
    _png_with_a_long_story,
    _png_with_a_long_profile,
    _png_header,
    _gif_header,
    _bmp_header,
    _jpeg_header,
    _tiff_header,
    _tiff_loop,
    _webp_header,
    _pnm_header,
)
OTHERS = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><svg>&y;</svg>',
    b"<html><script>alert(1)</script></html>",
    b"%PDF-1.7\n1 0 obj <</Type/Catalog>> endobj",
    b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file",
    b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop graphic-context",
    b"#!/bin/sh\ntouch /tmp/pwned\n",
    b"<?php system($_GET['x']); ?>",
    b"MZ" + bytes(100),
    b"\x7fELF" + bytes(100),
    b"{}",
    gzip.compress(bytes(100_000)),
    _zipped(),
    b"\x93NUMPY\x01\0v\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    b"cposix\nsystem\n(S'touch /tmp/pwned'\ntR.",
    bytes(1000),
)
