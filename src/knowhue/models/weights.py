"""Sources of pretrained weights (the hub, a file) and whether they are available; needs no torch."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import constants

from knowhue.config import Config
from knowhue.errors import RunError, WeightsError, system_reason
from knowhue.runs import model_file
from knowhue.storage import expand_user, file_kind

_CLIENT = "huggingface_hub.utils._http"


def require_weights(config: Config) -> None:
    """Raise a `WeightsError` before torch is imported and images are read, unless weights exist or the hub answers."""
    for name in ("inception_weights", "lpips_weights"):
        file = getattr(config.evaluation, name)
        if file is not None and not expand_user(file).is_file():
            raise WeightsError(f"`evaluation.{name}` should be a file of weights. Found no file `{file}`.")
    name, source = config.encoder.name, config.encoder.weights
    if not config.has_encoder or source in ("package", "none"):
        return
    if source != "pretrained":
        weights_file(source)
        return
    is_cached = any(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{name}.*/snapshots/*/*"))
    if not (is_cached or hub_resolves()):
        raise WeightsError(f"{not_downloaded(name, 'there is no network')} {ways_to_weights(name)}")


def weights_file(name: str) -> Path:
    """Path of an encoder's weights or of a trained model, see `runs.model_file`, or a `WeightsError`."""
    try:
        return model_file(name)
    except RunError as error:
        raise WeightsError(
            f"{error} (`encoder.weights` can also be `pretrained`, `package` or `none`.)"
        ) from None


def no_weights(path: Path) -> str:
    """Message about a file that is not a file of weights; torch's own message advises to run the file's code."""
    expected = f"`{path}` should be a .safetensors or .pth file of tensors."
    try:
        found = file_kind(path) or "no weights that can be read safely"
    except OSError as error:
        return f"{expected} Found {system_reason(error)}."
    return f"{expected} Found {found}. Download it again."


def not_downloaded(name: str, reason: str) -> str:
    """Message about weights that the hub did not deliver."""
    return f"The pretrained weights of `{name}` could not be downloaded ({reason})."


def ways_to_weights(name: str) -> str:
    """Message that names other sources of an encoder's weights."""
    return (
        "Without a network: --preset demo; or --set encoder.name=tf_efficientnet_lite0 --set encoder.weights=package; "
        f"or --set encoder.weights=FILE with a .safetensors or .pth file of {name}. With a network: connect to the hub "
        "once. Random weights must be requested: --set encoder.weights=none"
    )


@contextmanager
def asking_hub() -> Iterator[None]:
    """Silence the hub client, and make it use only its cache if the hub's host name cannot be resolved."""
    logger = logging.getLogger(_CLIENT)
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    # without a network, the client would try each file six times, half a minute in all, and print each attempt
    logger.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not hub_resolves()
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def hub_resolves() -> bool:
    """Whether the hub's host name can be resolved, or a proxy may do so; avoids waiting when offline."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)
    except OSError:
        return False
    return True
