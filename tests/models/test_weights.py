"""Pretrained weights: the cache without a network, downloads, and errors before any work."""

import logging
import socket
import subprocess
import sys

import pytest
from huggingface_hub import constants

from knowhue.config import Config, EncoderSettings
from knowhue.errors import WeightsError
from knowhue.models import weights
from knowhue.models.weights import asking_hub, require_weights
from knowhue.presets import load_config
from knowhue.runs import BUILT_IN


@pytest.fixture
def network(monkeypatch):
    """Say whether names resolve."""

    def make(reachable: bool, proxies=None):
        def look_up(*_):
            if not reachable:
                raise socket.gaierror("Name or service not known")

        monkeypatch.setattr(weights, "getproxies", lambda: proxies or {})
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    return make


def test_without_network_only_the_cache_is_asked_and_all_is_as_before_afterwards(network):
    network(reachable=False)
    with asking_hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("reachable", "proxies"), [(True, {}), (False, {"https": "http://proxy:3128"})])
def test_with_network_or_a_proxy_the_hub_is_asked(network, reachable, proxies):
    network(reachable, proxies)
    with asking_hub():
        assert not constants.HF_HUB_OFFLINE


def test_retries_are_not_printed_and_errors_are(network):
    network(reachable=True)
    logger = logging.getLogger("huggingface_hub.utils._http")
    level = logger.level
    with asking_hub():
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.level == level


def test_what_goes_wrong_is_passed_on(network):
    network(reachable=False)
    with pytest.raises(OSError, match="no such file"), asking_hub():
        raise OSError("no such file")
    assert not constants.HF_HUB_OFFLINE


def test_weights_that_cannot_be_had_are_refused_at_once_with_what_needs_no_network(
    network, monkeypatch, tmp_path
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    network(reachable=False)
    with pytest.raises(
        WeightsError, match=r"`resnet34` could not be downloaded \(there is no network"
    ) as raised:
        require_weights(Config(encoder=EncoderSettings(name="resnet34")))
    for way in ("--preset demo", "encoder.weights=package", "encoder.weights=FILE", "encoder.weights=none"):
        assert way in str(raised.value)
    with pytest.raises(WeightsError, match=r"Found no file `.*nowhere\.pth`.*can also be `pretrained`"):
        require_weights(Config(encoder=EncoderSettings(weights="nowhere.pth")))
    with pytest.raises(WeightsError, match=r"`evaluation.lpips_weights` should be .* no file `nowhere\.pth`"):
        require_weights(load_config("demo", settings=["evaluation.lpips_weights=nowhere.pth"]))


def test_weights_that_may_be_had_pass(network, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    network(reachable=False)
    kept = tmp_path / "models--timm--resnet18.a1_in1k/snapshots/1a2b/model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    for choice in ("pretrained", "package", "none", BUILT_IN, str(kept)):
        require_weights(Config(encoder=EncoderSettings(weights=choice)))
    network(reachable=True)
    require_weights(Config(encoder=EncoderSettings(name="resnet34")))


def test_asking_for_weights_imports_no_torch():
    code = "import sys, knowhue.models.weights; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
