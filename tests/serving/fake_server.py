"""Networks without weights, a server that uses them, and images to send to it."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fake_network import FakeNetwork
from PIL import Image

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.networks import Predictions
from knowhue.serving.api import make_app
from knowhue.serving.run import Server, listening
from knowhue.serving.settings import ServerSettings


class MatchingNetwork(FakeNetwork):
    """Its features match only where images are equal: random Fourier features of 8 x 8 pixels."""

    activation_names = ("features_8",)

    def predict(self, lightness: np.ndarray, names: Sequence[str] = ()) -> Predictions:
        answers = super().predict(lightness)
        if not names:
            return answers
        generator = np.random.default_rng(0)
        weights, shifts = generator.normal(0, 0.05, (64, 512)), generator.uniform(0, 2 * np.pi, 512)
        count, height, width = lightness.shape
        cells = lightness.reshape(count, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
        features = np.cos(cells.reshape(count, height // 8, width // 8, 64) @ weights + shifts)
        features = np.moveaxis(features, -1, 1).astype(np.float32)
        return answers._replace(activations=dict.fromkeys(names, features))


class ChoosingNetwork(MatchingNetwork):
    """Also predicts the 313 colours, all with the same probability."""

    activation_names = ("features_8", "colour_logits")

    def predict(self, lightness: np.ndarray, names: Sequence[str] = ()) -> Predictions:
        if "colour_logits" not in names:
            return super().predict(lightness, names)
        count, height, width = lightness.shape
        logits = np.zeros((count, 313, -(-height // 4), -(-width // 4)), np.float32)
        return super().predict(lightness)._replace(activations={"colour_logits": logits})


def colorizer(
    on_predict: Callable[[np.ndarray], None] = lambda lightness: None, tasks: Any = None
) -> Colorizer:
    return Colorizer(FakeNetwork(on_predict, tasks))


def photo(kind: str = "jpeg", width: int = 48, height: int = 32, value: int = 128, mode: str = "L") -> bytes:
    """Encode an image of one gray or colour; `value` is its code, 0 to 255."""
    file = io.BytesIO()
    Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode)).save(file, kind)
    return file.getvalue()


@contextmanager
def running(
    models: dict[str, Colorizer] | None = None,
    with_page: bool = False,
    stopping: Callable[[], object] = lambda: None,
    **changes: Any,
) -> Iterator[tuple[str, int, Server]]:
    """Run a real server in a thread, on a free port; yields its host, its port and the server."""
    settings = ServerSettings(port=0, **{"workers": 2, **changes})
    served = models or {"fake": colorizer()}
    app = make_app(served, settings, with_page)
    server = Server(app, settings, stopping)
    with listening(settings) as opened:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield "127.0.0.1", opened.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)
