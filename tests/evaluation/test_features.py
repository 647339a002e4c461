"""Distances between sets and LPIPS: known values, small samples, and missing networks."""

import errno
import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
import torch

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.config import Evaluation
from knowhue.data.drawn import draw
from knowhue.data.loaders import ProcessShare, split_batches, to_rgb
from knowhue.evaluation import features as module
from knowhue.evaluation.evaluate import evaluate, predict_class, predict_gray
from knowhue.evaluation.features import (
    DISTANCES,
    LPIPS,
    LPIPS_TITLE,
    NETWORKS,
    ImageNetwork,
    Opener,
    Unavailable,
    frechet,
    kernel_distance,
    measure_distances,
    open_networks,
    open_once,
    resize,
)
from knowhue.metric_table import METRICS, RUN_COLUMNS
from knowhue.models.encoder import pretrained_features
from knowhue.training.scores import FROM_ROW

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


def test_every_distance_has_its_provenance_or_a_reason():
    had = networks(lite0=ImageNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(30)}, {"lite0": normal(20, seed=1)}, had)
    assert list(found) == list(DISTANCES)
    assert found["fd_lite0"]["value"] > 0
    assert PROVENANCE.items() <= found["fd_lite0"].items()
    assert (found["fd_lite0"]["images"], found["fd_lite0"]["reference_images"]) == (30, 20)
    assert "20 images are fewer than 2048" in found["kd_lite0"]["warning"]
    assert {k: found["fid"][k] for k in ("value", "reason")} == {"value": None, "reason": ABSENT.reason}


def test_enough_images_are_not_warned_of():
    had = networks(lite0=ImageNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(2048, 2)}, {"lite0": normal(2048, 2, seed=1)}, had)
    assert "warning" not in found["fd_lite0"]


def test_a_diverged_model_has_no_distance():
    had = networks(lite0=ImageNetwork(lambda rgb: rgb, PROVENANCE))
    found = measure_distances({"lite0": normal(9) * np.nan}, {"lite0": normal(9)}, had)
    assert found["fd_lite0"]["value"] is None
    assert "not numbers" in found["fd_lite0"]["reason"]


def test_what_was_not_asked_for_says_so():
    (reason,) = open_networks(Evaluation(networks=("lite0",)), CPU)["inception"]
    assert reason == "not computed: `evaluation.networks` does not name inception"


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
    assert "weights_only" not in network.reason


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
    assert isinstance(network, ImageNetwork)
    colour = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = network.compute(colour)
    assert features.shape == (2, 1280)
    gray = colour.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert (network.compute(gray) - features).abs().max() > 0.1
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
    assert isinstance(network, ImageNetwork)
    assert network.provenance["file"] == str(inception_file)
    first, second = (network.compute(x / 255).numpy() for x in (images[0], images[1] // 2))
    assert frechet(first, second) > 1e-3
    rotate(reference, torch.linalg.qr(torch.from_numpy(np.concatenate((first, second)).T).double())[0])
    assert frechet(first, second) == pytest.approx(reference.compute().item(), rel=1e-6)


def rotate(reference, axes):
    """Rotate the features of torchmetrics' metric to the axes that they span, which leaves the distance.

    The eigenvalues of a matrix of 2048 x 2048 would take seconds.
    """
    for kind in ("real", "fake"):
        total, products = (getattr(reference, f"{kind}_features_{name}") for name in ("sum", "cov_sum"))
        rotated = axes.T @ products @ axes
        torch.testing.assert_close(rotated.trace(), products.trace(), rtol=1e-6, atol=0)  # nothing is lost
        setattr(reference, f"{kind}_features_sum", total @ axes)
        setattr(reference, f"{kind}_features_cov_sum", rotated)


def opened(file: object = None):
    settings = Evaluation(perceptual=("lpips",), lpips_weights=None if file is None else str(file))
    return open_networks(settings, CPU)["lpips"]


def images(side: int, count: int = 3) -> torch.Tensor:
    """Smooth noise, (2, count, 3, side, side), 0 to 1."""
    coarse = torch.rand(2 * count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return smooth.reshape(2, count, 3, side, side)


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    """Random weights in torchvision's format: the true ones are not to be had where tests run."""
    from torchvision.models import alexnet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = alexnet(weights=None).features.state_dict(prefix="features.")
    weights = features | {"classifier.6.bias": torch.zeros(1000)}  # the classifier's other tensors are large
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(weights, file)
    return file


@pytest.fixture
def between(alexnet_file):
    network = opened(alexnet_file)
    assert isinstance(network, ImageNetwork), network
    return network.compute


@pytest.fixture
def package(monkeypatch):
    """The authors' package, in spite of what it asks for and warns of."""
    stub = ModuleType("IPython")
    stub.embed = None
    monkeypatch.setitem(sys.modules, "IPython", stub)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lpips").LPIPS("alex", pnet_rand=True, verbose=False)


@pytest.mark.parametrize("side", [64, 65, 96])
def test_lpips_is_the_packages(package, between, alexnet_file, side):
    stored = torch.load(alexnet_file, weights_only=True)
    for (
        name,
        tensor,
    ) in package.net.state_dict().items():  # slice2.3.weight is torchvision's features.3.weight
        tensor.copy_(stored[f"features.{name.partition('.')[2]}"])
    first, second = images(side)
    with torch.no_grad():
        expected = package(first, second, normalize=True).flatten()
    assert expected.min() > 1e-5
    # torchmetrics puts its epsilon inside the root
    torch.testing.assert_close(between(first, second), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("side", [16, 64, 70])
def test_equal_images_are_at_no_distance_and_sides_are_alike(between, side):
    first, second = images(side)
    assert between(first, first).tolist() == [0, 0, 0]
    torch.testing.assert_close(between(first, second), between(second, first))


def test_less_colour_is_further(between):
    scenes = [draw(index, index % 5, 64, class_colour=1.0, seed=3) for index in range(10)]
    true = to_rgb(np.stack(scenes), CPU)
    lightness, chroma = rgb_to_lab(true)
    half, gray, opposite = (
        between(lab_to_rgb(lightness, each), true).mean().item() for each in (chroma / 2, 0 * chroma, -chroma)
    )
    assert 0 < half < gray < opposite


def test_passes_do_not_matter(monkeypatch, between):
    first, second = images(64, count=5)
    whole = between(first, second)
    assert whole.shape == (5,)
    monkeypatch.setattr(module, "_PIXELS", 2 * 64 * 64)
    torch.testing.assert_close(between(first, second), whole)
    assert between(first[:1], second[:1]).shape == (1,)


def test_small_images_are_enlarged(between):
    first, second = images(32)
    larger = [module.resize(each, 64) for each in (first, second)]
    assert torch.equal(between(first, second), between(*larger))


def test_it_is_a_metric_and_a_column():
    metric = METRICS[LPIPS]
    assert (metric.title, metric.unit, metric.better, metric.task) == (
        LPIPS_TITLE,
        "0 is equal",
        "lower",
        "colour",
    )
    assert RUN_COLUMNS[LPIPS] == LPIPS
    assert LPIPS in FROM_ROW


def test_opening_prints_nothing_and_happens_once(capfd, alexnet_file):
    open_once.cache_clear()
    network = opened(alexnet_file)
    assert isinstance(network, ImageNetwork)
    assert network.provenance["tool"].startswith("torchmetrics 1.")
    assert network.provenance["file"] == str(alexnet_file)
    assert len(network.provenance["weights"]) == 16
    assert capfd.readouterr() == ("", "")
    assert network is opened(alexnet_file)


def test_what_was_not_asked_for_says_so_of_lpips():
    assert open_networks(Evaluation(), CPU)["lpips"].reason == (
        "not computed: `evaluation.perceptual` does not name lpips"
    )


def test_missing_package_is_a_reason_with_the_remedy(monkeypatch, prepared):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    open_once.cache_clear()
    network = opened()
    open_once.cache_clear()
    scored = evaluate(predict_gray, batches(prepared), full=True, networks={"lpips": network})
    assert LPIPS not in scored.metrics
    entry = scored.perceptual[LPIPS]
    assert entry["value"] is None
    assert entry["reason"].startswith("not computed: ")
    assert entry["reason"].endswith("; pip install -e '.[perceptual]'")


@pytest.mark.parametrize("content", [None, b"", b"no weights", {"a": torch.zeros(1)}, [1, 2]])
def test_weights_that_cannot_be_had_are_a_reason_not_an_error_of_lpips(tmp_path, content):
    file = tmp_path / "alexnet.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    network = opened(file)
    assert isinstance(network, Unavailable)
    assert network.reason.startswith("not computed: the weights of lpips could not be loaded (")
    assert "weights_only" not in network.reason


def test_download_that_fails_is_a_reason_and_silent(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    open_once.cache_clear()
    network = opened()
    open_once.cache_clear()
    assert network == Unavailable("not computed: the weights of lpips could not be loaded (no network)")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def prepared(make_prepared):
    return make_prepared(count=16, size_px=32)


def batches(prepared):
    return split_batches(prepared, "validation", 2, ProcessShare(), CPU)


def test_each_image_has_its_score_and_the_mean_is_the_metric(prepared, alexnet_file):
    scored = evaluate(predict_gray, batches(prepared), networks={"lpips": opened(alexnet_file)})
    values = [row[LPIPS] for row in scored.rows]
    assert len(values) == 4
    assert min(values) > 0
    entry = scored.perceptual[LPIPS]
    assert scored.metrics[LPIPS] == entry["value"] == pytest.approx(np.mean(values))
    assert (entry["images"], entry["title"]) == (4, "LPIPS, AlexNet")
    assert entry["resize"] == "not resized, but bilinear to 64 x 64 pixels if smaller"


def test_what_has_no_colours_has_no_score(prepared, alexnet_file):
    scored = evaluate(predict_class((1.0, 0.0)), batches(prepared), networks={"lpips": opened(alexnet_file)})
    assert scored.perceptual == {}
    assert LPIPS not in scored.metrics


def test_a_diverged_model_has_no_score(prepared, alexnet_file):
    def diverged(batch):
        return predict_gray(batch)._replace(chroma=batch.chroma * torch.nan)

    scored = evaluate(diverged, batches(prepared), networks={"lpips": opened(alexnet_file)})
    assert scored.perceptual[LPIPS]["reason"] == "not computed: some colourings are not numbers"


def test_nothing_is_converted_for_a_network_that_is_not_there(monkeypatch, prepared):
    monkeypatch.setattr("knowhue.evaluation.evaluate.lab_to_rgb", lambda *_: pytest.fail("converted"))
    evaluate(predict_gray, batches(prepared), networks={"lpips": Unavailable("not computed")})
