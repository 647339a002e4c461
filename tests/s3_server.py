"""An S3 server in this process, which can refuse some requests as real ones do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
serving = pytest.importorskip("werkzeug.serving")
pytest.importorskip("obstore", reason="obstore is not installed")


class FlakyApp:
    """A WSGI app that records requests and answers one in `every` with 503 (0: none)."""

    def __init__(self, app: Callable[..., Any], every: int) -> None:
        self.app, self.every = app, every
        self.requests: list[tuple[str, str]] = []
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        with self._lock:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            is_refused = bool(self.every) and len(self.requests) % self.every == 0
            self.refused += is_refused
        if is_refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("content-length", "0")])
            return [b""]
        return self.app(environ, start)


@contextmanager
def running_s3(monkeypatch: pytest.MonkeyPatch, every: int = 0) -> Iterator[FlakyApp]:
    """Run a server with the bucket `bucket`, and set the environment variables that point to it."""
    app = FlakyApp(moto_server.DomainDispatcherApplication(moto_server.create_backend_app), 0)
    server = serving.make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    values = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true"}
    values |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    import urllib.request

    urllib.request.urlopen(
        urllib.request.Request(f"{values['AWS_ENDPOINT_URL']}/bucket", method="PUT")
    ).close()
    app.every = every
    try:
        yield app
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
