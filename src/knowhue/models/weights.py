"""Where pretrained weights come from, the hub or a file, and whether they can be had; needs no torch."""

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
from knowhue.storage import kind_of_file, path_of_setting

_CLIENT = "huggingface_hub.utils._http"


def require_weights(config: Config) -> None:
    """Make sure, before torch is imported and images are read, that weights are there or the hub can be asked.

    Raises:
        WeightsError: a file is not there, or the hub's name does not resolve here and nothing of it is kept.
    """
    for name in ("inception_weights", "lpips_weights"):
        file = getattr(config.evaluation, name)
        if file is not None and not path_of_setting(file).is_file():
            raise WeightsError(f"`evaluation.{name}` should be a file of weights. Found no file `{file}`.")
    name, source = config.encoder.name, config.encoder.weights
    if not config.has_encoder or source in ("package", "none"):
        return
    if source != "pretrained":
        weights_file(source)
    elif not (_is_kept(name) or hub_resolves()):
        raise WeightsError(f"{not_downloaded(name, 'there is no network')} {ways_to_weights(name)}")


def weights_file(name: str) -> Path:
    """The file of an encoder's weights, or of a trained model, see `runs.model_file`, or a `WeightsError`."""
    try:
        return model_file(name)
    except RunError as error:
        raise WeightsError(
            f"{error} (`encoder.weights` may be `pretrained`, `package` or `none`, too.)"
        ) from None


def no_weights(path: Path) -> str:
    """What is wrong with a file of which no weights can be read; not in torch's words, which advise to run its code."""
    wanted = f"`{path}` should be a .safetensors or .pth file of tensors."
    try:
        found = kind_of_file(path) or "no weights that can be read safely"
    except OSError as error:
        return f"{wanted} Found {system_reason(error)}."
    return f"{wanted} Found {found}. Fetch it again."


def not_downloaded(name: str, reason: str) -> str:
    """What is wrong where the hub gives no weights of a network."""
    return f"The pretrained weights of `{name}` could not be downloaded ({reason})."


def ways_to_weights(name: str) -> str:
    """What serves in place of weights of an encoder that cannot be had."""
    return (
        "Without a network: --preset demo; or --set encoder.name=tf_efficientnet_lite0 --set encoder.weights=package; "
        f"or --set encoder.weights=FILE with a .safetensors or .pth file of {name}. With one: connect to the hub once. "
        "Random weights only on request: --set encoder.weights=none"
    )


def _is_kept(name: str) -> bool:
    """Whether anything of a network of timm was downloaded before."""
    return any(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{name}.*/snapshots/*/*"))


@contextmanager
def asking_hub() -> Iterator[None]:
    """Within it the hub client is quiet, and uses its cache alone where the hub's name does not resolve."""
    logger = logging.getLogger(_CLIENT)
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    # the client would try each file six times, half a minute in all, and print every time
    logger.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not hub_resolves()
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def hub_resolves() -> bool:
    """Whether the hub's name can be resolved here, or by a proxy: what is offline is not waited for."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)
    except OSError:
        return False
    return True
