"""Asking the model hub without making a user without network wait for its retries, or read them."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import constants

_CLIENT = "huggingface_hub.utils._http"


@contextmanager
def asking_hub() -> Iterator[None]:
    """Within it the hub client is quiet, and where the hub's name does not resolve it looks in its cache alone.

    The client itself would try each file six times, half a minute in all, and print every time.
    """
    logger = logging.getLogger(_CLIENT)
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not _resolves(constants.ENDPOINT)
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def _resolves(address: str) -> bool:
    if getproxies():  # the proxy resolves names
        return True
    try:
        socket.getaddrinfo(urlparse(address).hostname, None)
    except OSError:
        return False
    return True
