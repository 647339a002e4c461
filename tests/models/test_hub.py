import logging
import socket

import pytest
from huggingface_hub import constants

from knowhue.models import hub


@pytest.fixture
def network(monkeypatch):
    """Say whether names resolve."""

    def make(reachable: bool, proxies=None):
        def look_up(*_):
            if not reachable:
                raise socket.gaierror("Name or service not known")

        monkeypatch.setattr(hub, "getproxies", lambda: proxies or {})
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    return make


def test_without_network_only_the_cache_is_asked_and_all_is_as_before_afterwards(network):
    network(reachable=False)
    with hub.asking_hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("reachable", "proxies"), [(True, {}), (False, {"https": "http://proxy:3128"})])
def test_with_network_or_a_proxy_the_hub_is_asked(network, reachable, proxies):
    network(reachable, proxies)
    with hub.asking_hub():
        assert not constants.HF_HUB_OFFLINE


def test_retries_are_not_printed_and_errors_are(network):
    network(reachable=True)
    logger = logging.getLogger("huggingface_hub.utils._http")
    level = logger.level
    with hub.asking_hub():
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.level == level


def test_what_goes_wrong_is_passed_on(network):
    network(reachable=False)
    with pytest.raises(OSError, match="no such file"), hub.asking_hub():
        raise OSError("no such file")
    assert not constants.HF_HUB_OFFLINE
