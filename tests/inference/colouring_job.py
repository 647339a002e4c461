"""Colour a folder with a network without weights: a program that tests kill, and a module that they import."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from knowhue.config import Config
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.description import Description
from knowhue.inference.folder import colorize_folder
from knowhue.inference.listing import list_folder
from knowhue.inference.networks import Predictions

CLASSES = ("bright", "dark")


class FakeNetwork:
    """Predicts orange everywhere, and the class `bright` for bright images."""

    runtime = "fake"
    activation_names = ()

    def __init__(self, novelty_limit: float = 1.0, on_predict: Callable[[], None] = lambda: None) -> None:
        self.description = Description(
            name="fake",
            version="0",
            config=Config(),
            classes=CLASSES,
            size_px=32,
            images={"train": 500, "validation": 500},
            metrics={},
            references=1,
            novelty_limit=novelty_limit,
        )
        self.batches: list[int] = []
        self._on_predict = on_predict

    def predict(self, lightness: np.ndarray) -> Predictions:
        self._on_predict()
        self.batches.append(len(lightness))
        bright = lightness.mean((1, 2)) / 100
        chroma = np.tile(np.array([20, 40], np.float32), (*lightness.shape, 1))
        probabilities = np.stack([bright, 1 - bright], 1)
        return Predictions(chroma, probabilities.astype(np.float32), np.full(len(lightness), 0.5, np.float32))


if __name__ == "__main__":
    slow = FakeNetwork(on_predict=lambda: time.sleep(0.005))
    colorize_folder(Colorizer(slow), list_folder(Path(sys.argv[1]), Path(sys.argv[2])))
