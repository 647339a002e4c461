"""A network without weights, for tests of everything around a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from knowhue.config import Config
from knowhue.inference.description import Description
from knowhue.inference.networks import Predictions

CLASSES = ("bright", "dark")


class FakeNetwork:
    """Predicts orange everywhere, and the class `bright` for bright images."""

    runtime = "fake"
    activation_names = ()
    uses_one_core = False

    def __init__(
        self,
        on_predict: Callable[[np.ndarray], None] = lambda lightness: None,
        tasks: Any = None,
        novelty_limit: float = 1.0,
    ) -> None:
        config = Config() if tasks is None else Config.model_validate({"tasks": {"names": tasks}})
        self.description = Description(
            name="fake",
            version="0",
            config=config,
            classes=CLASSES,
            size_px=32,
            images={"train": 500, "validation": 500},
            metrics={},
            references=1,
            novelty_limit=novelty_limit,
        )
        self.batches: list[int] = []
        self._on_predict = on_predict

    def predict(self, lightness: np.ndarray, names: Sequence[str] = ()) -> Predictions:
        self._on_predict(lightness)
        self.batches.append(len(lightness))
        bright = lightness.mean((1, 2)) / 100
        chroma = np.tile(np.array([20, 40], np.float32), (*lightness.shape, 1))
        probabilities = np.stack([bright, 1 - bright], 1)
        return Predictions(chroma, probabilities.astype(np.float32), np.full(len(lightness), 0.5, np.float32))
