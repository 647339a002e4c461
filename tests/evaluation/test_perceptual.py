"""LPIPS: the package's own numbers, sensible order, and reasons where it cannot be opened."""

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
from knowhue.evaluation.features import LPIPS, TITLE, Perceptual, Unavailable, open_once, open_perceptual
from knowhue.metric_table import METRICS
from knowhue.training.scores import FROM_ROW

CPU = torch.device("cpu")


def opened(file: object = None):
    settings = Evaluation(perceptual=("lpips",), lpips_weights=None if file is None else str(file))
    return open_perceptual(settings, CPU)


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
        weights = alexnet(weights=None).state_dict()
    file = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(weights, file)
    return file


@pytest.fixture
def between(alexnet_file):
    network = opened(alexnet_file)
    assert isinstance(network, Perceptual), network
    return network.between


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
    assert METRICS[LPIPS][:5] == (TITLE, "0 is equal", "lower", "colour", LPIPS)
    assert LPIPS in FROM_ROW


def test_opening_prints_nothing_and_happens_once(capfd, alexnet_file):
    open_once.cache_clear()
    network = opened(alexnet_file)
    assert isinstance(network, Perceptual)
    assert network.provenance["tool"].startswith("torchmetrics 1.")
    assert network.provenance["file"] == str(alexnet_file)
    assert len(network.provenance["weights"]) == 16
    assert capfd.readouterr() == ("", "")
    assert network is opened(alexnet_file)


def test_what_was_not_asked_for_says_so():
    assert open_perceptual(Evaluation(), CPU).reason == (
        "not computed: `evaluation.perceptual` does not ask for lpips"
    )


def test_missing_package_is_a_reason_with_the_remedy(monkeypatch, prepared):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    open_once.cache_clear()
    network = opened()
    open_once.cache_clear()
    scored = evaluate(predict_gray, batches(prepared), full=True, perceptual=network)
    assert LPIPS not in scored.metrics
    entry = scored.perceptual[LPIPS]
    assert entry["value"] is None
    assert entry["reason"].startswith("not computed: ")
    assert entry["reason"].endswith("; pip install -e '.[perceptual]'")


@pytest.mark.parametrize("content", [None, b"", b"no weights", {"a": torch.zeros(1)}, [1, 2]])
def test_weights_that_cannot_be_had_are_a_reason_not_an_error(tmp_path, content):
    file = tmp_path / "alexnet.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    network = opened(file)
    assert isinstance(network, Unavailable)
    assert network.reason.startswith("not computed: the weights of lpips could not be loaded (")


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
    scored = evaluate(predict_gray, batches(prepared), perceptual=opened(alexnet_file))
    values = [row[LPIPS] for row in scored.rows]
    assert len(values) == 4
    assert min(values) > 0
    entry = scored.perceptual[LPIPS]
    assert scored.metrics[LPIPS] == entry["value"] == pytest.approx(np.mean(values))
    assert (entry["images"], entry["title"]) == (4, "LPIPS, AlexNet")
    assert entry["resize"] == "not resized, but bilinear to 64 x 64 pixels if smaller"


def test_what_has_no_colours_has_no_score(prepared, alexnet_file):
    scored = evaluate(predict_class((1.0, 0.0)), batches(prepared), perceptual=opened(alexnet_file))
    assert scored.perceptual == {}
    assert LPIPS not in scored.metrics


def test_a_diverged_model_has_no_score(prepared, alexnet_file):
    def diverged(batch):
        return predict_gray(batch)._replace(chroma=batch.chroma * torch.nan)

    scored = evaluate(diverged, batches(prepared), perceptual=opened(alexnet_file))
    assert scored.perceptual[LPIPS]["reason"] == "not computed: some colourings are not numbers"


def test_nothing_is_converted_for_a_network_that_is_not_there(monkeypatch, prepared):
    monkeypatch.setattr("knowhue.evaluation.evaluate.lab_to_rgb", lambda *_: pytest.fail("converted"))
    evaluate(predict_gray, batches(prepared), perceptual=Unavailable("not computed"))
