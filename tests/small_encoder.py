"""A small encoder for tests, and its registration in this process and in workers."""

from collections.abc import Mapping
from typing import Any

from knowhue.engines import executor

SMALL_ENCODER = "test_efficientnet"
"""timm's test network with the kinds of layers of EfficientNet-Lite0 and a fortieth of its weights.

Tests use the real EfficientNet-Lite0 if they train in processes that don't call `add_small_encoder`, or if they test
how it learns and rounds.
"""


def add_small_encoder() -> None:
    """Register the encoder in this process, after tests are collected, because some run over all encoders."""
    from knowhue import config

    if SMALL_ENCODER not in config.ENCODERS:
        config.ENCODERS += (SMALL_ENCODER,)


def begin_worker(*arguments: object, digests: Mapping[Any, str] = {}) -> None:
    """Start a worker of `LocalProcesses` with the encoder registered, and with known golden steps if given."""
    add_small_encoder()
    if digests:
        from knowhue.training import golden

        golden._digests.update(digests)
    executor._start_worker(*arguments)
