"""Distances between sets: known answers, small samples, and networks that are not there."""

import errno

import numpy as np
import pytest
import torch

from knowhue.config import Evaluation
from knowhue.evaluation import features as module
from knowhue.evaluation.features import (
    DISTANCES,
    NETWORKS,
    FeatureNetwork,
    Opener,
    Unavailable,
    frechet,
    kernel_distance,
    measure_distances,
    open_networks,
    open_once,
    resize,
)
from knowhue.models.encoder import pretrained_features

CPU = torch.device("cpu")
ABSENT = Unavailable("not computed: no weights")
PROVENANCE = {"network": "n", "weights": "w", "resize": "r", "tool": "t"}


def normal(count, size=8, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)) + shift


def networks(**had):
    return {name: had.get(name, ABSENT) for name in NETWORKS}


def test_a_set_is_at_no_distance_from_itself():
    assert frechet(normal(30), normal(30)) == pytest.approx(0, abs=1e-9)


def test_a_shift_counts_squared():
    assert frechet(normal(30), normal(30, shift=2.0)) == pytest.approx(8 * 4)


def test_order_does_not_matter_and_sides_are_alike():
    first, second = normal(40), normal(25, shift=1.0, seed=1)
    for between in (frechet, kernel_distance):
        assert between(first, second) == pytest.approx(between(second, first))
        assert between(first[::-1], second) == pytest.approx(between(first, second))


def test_kernel_distance_is_zero_on_average_and_frechet_is_not():
    draws = [(normal(20, seed=2 * n), normal(20, seed=2 * n + 1)) for n in range(200)]
    kernel = np.array([kernel_distance(*pair) for pair in draws])
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(len(kernel))
    assert min(frechet(*pair) for pair in draws) > 0.5


def test_blocks_do_not_matter(monkeypatch):
    whole = kernel_distance(normal(50), normal(40, seed=1))
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert kernel_distance(normal(50), normal(40, seed=1)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("between", [frechet, kernel_distance])
def test_sets_that_do_not_fit_are_refused(between):
    with pytest.raises(ValueError, match=r"\(N, D\) and \(M, D\)\. Found \(5, 8\) and \(5, 7\)"):
        between(normal(5), normal(5, size=7))
    with pytest.raises(ValueError, match="2 rows or more"):
        between(normal(1), normal(5))


def test_every_distance_has_its_provenance_or_a_reason():
    had = networks(lite0=FeatureNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(30)}, {"lite0": normal(20, seed=1)}, had)
    assert list(found) == list(DISTANCES)
    assert found["fd_lite0"]["value"] > 0
    assert PROVENANCE.items() <= found["fd_lite0"].items()
    assert (found["fd_lite0"]["images"], found["fd_lite0"]["reference_images"]) == (30, 20)
    assert "20 images are fewer than 2048" in found["kd_lite0"]["warning"]
    assert {k: found["fid"][k] for k in ("value", "reason")} == {"value": None, "reason": ABSENT.reason}


def test_enough_images_are_not_warned_of():
    had = networks(lite0=FeatureNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(2048, 2)}, {"lite0": normal(2048, 2, seed=1)}, had)
    assert "warning" not in found["fd_lite0"]


def test_a_diverged_model_has_no_distance():
    had = networks(lite0=FeatureNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(9) * np.nan}, {"lite0": normal(9)}, had)
    assert found["fd_lite0"]["value"] is None
    assert "not numbers" in found["fd_lite0"]["reason"]


def test_what_was_not_asked_for_says_so():
    (reason,) = open_networks(Evaluation(networks=("lite0",)), CPU)["inception"]
    assert reason == "not computed: `evaluation.networks` asks for lite0, not for inception"


@pytest.mark.parametrize("content", [None, b"", b"no weights", "wrong tensors"])
def test_weights_that_cannot_be_had_are_a_reason_not_an_error(tmp_path, content):
    file = tmp_path / "inception.pth"
    if content == "wrong tensors":
        torch.save({"a": torch.zeros(1)}, file)
    elif content is not None:
        file.write_bytes(content)
    network = open_networks(Evaluation(networks=("inception",), inception_weights=str(file)), CPU)[
        "inception"
    ]
    assert isinstance(network, Unavailable)
    assert network.reason.startswith("not computed: the weights of inception could not be loaded (")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_machine_out_of_memory_is_an_error_not_missing_weights(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setitem(NETWORKS, "lite0", Opener("lite0", fail, "fid"))
    with pytest.raises(type(error), match="memory"):
        open_networks(Evaluation(networks=("lite0",), inception_weights="another"), CPU)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("no package"), "no package; pip install -e '.[extra]'"),
        (OSError("no network"), "the weights of named could not be loaded (no network)"),
    ],
)
def test_what_cannot_be_opened_is_named_by_its_table(error, reason):
    def fail(*_):
        raise error

    assert open_once(Opener("named", fail, "extra"), None, CPU) == Unavailable(f"not computed: {reason}")


def test_lite0_sees_colour():
    network = open_networks(Evaluation(), CPU)["lite0"]
    assert isinstance(network, FeatureNetwork)
    colour = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = network.features(colour)
    assert features.shape == (2, 1280)
    gray = colour.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert (network.features(gray) - features).abs().max() > 0.1
    assert network is open_networks(Evaluation(), CPU)["lite0"]


def test_norms_folded_into_convolutions_leave_the_function():
    network = pretrained_features("tf_efficientnet_lite0", "package")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
        folded = module.fold_norms(network)
        assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in folded.modules())
        torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-5)


def test_resize_keeps_the_range():
    assert resize(torch.ones(1, 3, 8, 8), 5).shape == (1, 3, 5, 5)
    assert resize(torch.rand(1, 3, 64, 64), 20).std() < 0.1  # antialiased: noise is averaged


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in torch-fidelity's format: the true ones are not to be had where tests run."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, _: None)
        network = module.FeatureExtractorInceptionV3(
            "x", ["2048"], feature_extractor_weights_path=folder / "empty.pth"
        )
        for weight in (p for p in network.parameters() if p.ndim == 4):  # so that signals do not die out
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def test_fid_of_local_weights_is_torchmetrics(inception_file):
    from torchmetrics.image.fid import FrechetInceptionDistance

    images = torch.randint(
        256, (2, 3, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    reference = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(inception_file))
    reference.update(images[0], real=True)
    reference.update(images[1] // 2, real=False)
    settings = Evaluation(networks=("inception",), inception_weights=str(inception_file))
    network = open_networks(settings, CPU)["inception"]
    assert isinstance(network, FeatureNetwork)
    assert network.provenance["file"] == str(inception_file)
    first, second = (network.features(x / 255).numpy() for x in (images[0], images[1] // 2))
    assert frechet(first, second) > 1e-3
    assert frechet(first, second) == pytest.approx(reference.compute().item(), rel=1e-6)
