"""A small encoder for tests, and how other processes come to know it."""

from knowhue.engines import executor

SMALL_ENCODER = "test_efficientnet"
"""A fortieth of EfficientNet-Lite0 with the same kinds of layers, which timm has for tests. Tests that train in
processes which do not call `add_small_encoder`, or are about how the real one learns and rounds, name that."""


def add_small_encoder() -> None:
    """Let this process know it; not before tests are collected, for some run over all encoders."""
    from knowhue import config
    from knowhue.models.encoder import BACKBONES, Backbone

    if SMALL_ENCODER not in config.ENCODERS:
        config.ENCODERS += (SMALL_ENCODER,)
    BACKBONES[SMALL_ENCODER] = Backbone()


def begin_worker(*arguments: object) -> None:
    """Begin a worker of `LocalProcesses` that knows it, too."""
    add_small_encoder()
    executor._start_worker(*arguments)
