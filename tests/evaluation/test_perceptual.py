"""Perceptual distances: the packages' own numbers, sensible order, and reasons where they cannot be had."""

import sys
import warnings
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import numpy as np
import pytest
import torch

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.config import Evaluation
from knowhue.data.drawn import draw
from knowhue.data.loaders import ProcessShare, split_batches, to_rgb
from knowhue.evaluation import perceptual as module
from knowhue.evaluation.evaluate import evaluate, predict_class, predict_gray
from knowhue.evaluation.features import Unavailable
from knowhue.evaluation.lpips import BlurPool, LayerDistance
from knowhue.evaluation.metrics import METRICS
from knowhue.evaluation.perceptual import PERCEPTUAL, Perceptual, open_perceptual
from knowhue.training.outcome import FROM_ROW

CPU = torch.device("cpu")


def opened(name: str, file: object = None):
    settings = Evaluation(perceptual=(name,), lpips_weights=None if file is None else str(file))
    return open_perceptual(settings, CPU)[name]


def between(*arguments):
    network = opened(*arguments)
    assert isinstance(network, Perceptual), network
    return network.between


def images(side: int, count: int = 3) -> torch.Tensor:
    """Smooth noise, (2, count, 3, side, side), 0 to 1."""
    coarse = torch.rand(2 * count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return smooth.reshape(2, count, 3, side, side)


def drawn(count: int = 10, size_px: int = 64) -> torch.Tensor:
    scenes = [draw(index, index % 5, size_px, class_colour=1.0, seed=3) for index in range(count)]
    return to_rgb(np.stack(scenes), CPU)


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
def theirs(monkeypatch):
    """Import a reference package in spite of what it asks for and warns of."""

    def load(name):
        for unused, member in (("torchsummary", "summary"), ("IPython", "embed")):
            stub = ModuleType(unused)
            setattr(stub, member, None)
            monkeypatch.setitem(sys.modules, unused, stub)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip(name)

    return load


@pytest.mark.parametrize("side", [64, 65, 96])
def test_stlpips_is_the_packages(theirs, side):
    reference = theirs("stlpips_pytorch.stlpips").LPIPS("alex", variant="shift_tolerant", verbose=False)
    first, second = images(side)
    with torch.no_grad():
        expected = reference(first, second, normalize=True).flatten()
    assert expected.min() > 0.05
    torch.testing.assert_close(between("stlpips")(first, second), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [64, 65, 96])
def test_lpips_is_the_packages(theirs, alexnet_file, side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = theirs("lpips").LPIPS("alex", pnet_rand=True, verbose=False)
    stored = torch.load(alexnet_file, weights_only=True)
    for (
        name,
        tensor,
    ) in reference.net.state_dict().items():  # slice2.3.weight is torchvision's features.3.weight
        tensor.copy_(stored[f"features.{name.partition('.')[2]}"])
    first, second = images(side)
    with torch.no_grad():
        expected = reference(first, second, normalize=True).flatten()
    assert expected.min() > 1e-5
    torch.testing.assert_close(between("lpips", alexnet_file)(first, second), expected, rtol=1e-5, atol=1e-8)


def test_lpips_is_torchmetrics(alexnet_file):
    from torchmetrics.functional.image.lpips import _LPIPS

    reference = _LPIPS(net="alex", pnet_rand=True)
    stored = torch.load(alexnet_file, weights_only=True)
    for name, tensor in reference.net.state_dict().items():
        tensor.copy_(stored[f"features.{name.partition('.')[2]}"])
    first, second = images(64)
    expected = reference(first, second, normalize=True).flatten()  # puts its epsilon inside the root
    torch.testing.assert_close(between("lpips", alexnet_file)(first, second), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("side", [16, 64, 70])
def test_equal_images_are_at_no_distance_and_sides_are_alike(alexnet_file, side):
    first, second = images(side)
    for distance in (between("stlpips"), between("lpips", alexnet_file)):
        assert distance(first, first).tolist() == [0, 0, 0]
        torch.testing.assert_close(distance(first, second), distance(second, first))


def test_less_colour_is_further_and_the_wrong_hue_furthest():
    true = drawn()
    lightness, chroma = rgb_to_lab(true)
    turned = torch.stack((-chroma[:, 1], chroma[:, 0]), 1)
    ways = [lab_to_rgb(lightness, each) for each in (chroma / 2, 0 * chroma, -chroma, turned)]
    half, gray, opposite, quarter = (between("stlpips")(way, true).mean().item() for way in ways)
    assert 0 < half < gray < min(opposite, quarter)


def test_passes_do_not_matter(monkeypatch):
    first, second = images(64, count=5)
    whole = between("stlpips")(first, second)
    monkeypatch.setattr(module, "_PIXELS", 2 * 64 * 64)
    torch.testing.assert_close(between("stlpips")(first, second), whole)


def test_small_images_are_enlarged():
    first, second = images(32)
    larger = [module.resize(each, 64) for each in (first, second)]
    assert torch.equal(between("stlpips")(first, second), between("stlpips")(*larger))


def test_blur_keeps_what_is_even_and_halves():
    assert BlurPool()(torch.ones(1, 2, 7, 8)).tolist() == torch.ones(1, 2, 5, 5).tolist()


def test_nothing_is_broadcast():
    with pytest.raises(
        ValueError, match=r"`first` should be of the shape of `second`, \(2, 3, 64, 64\)\. Found"
    ):
        LayerDistance(shift_tolerant=False)(torch.zeros(1, 3, 64, 64), torch.zeros(2, 3, 64, 64))


def test_every_network_has_a_metric_and_a_column():
    for kind in PERCEPTUAL.values():
        assert METRICS[kind.column][:5] == (kind.title, "0 is equal", "lower", "colour", kind.column)
        assert kind.column in FROM_ROW


def test_opening_imports_and_prints_nothing(capfd):
    module._open.cache_clear()
    before = set(sys.modules)
    network = opened("stlpips")
    assert isinstance(network, Perceptual)
    assert network.provenance["tool"] == "knowhue, weights of stlpips-pytorch 0.0.2"
    assert len(network.provenance["weights"]) == 16
    assert not {name for name in set(sys.modules) - before if "lpips" in name}
    assert capfd.readouterr() == ("", "")
    assert network is opened("stlpips")


def test_what_was_not_asked_for_says_so():
    (reason,) = open_perceptual(Evaluation(), CPU)["lpips"]
    assert reason == "not computed: `evaluation.perceptual` asks for stlpips, not for lpips"


def test_missing_package_is_a_reason_with_the_remedy(monkeypatch, prepared):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", missing)
    module._open.cache_clear()
    networks = open_perceptual(Evaluation(perceptual=("stlpips", "lpips")), CPU)
    module._open.cache_clear()
    scored = evaluate(predict_gray, batches(prepared), full=True, perceptual=networks)
    assert not {"stlpips_alex", "lpips_alex"} & scored.metrics.keys()
    for name in ("stlpips", "lpips"):
        entry = scored.perceptual[f"{name}_alex"]
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
    network = opened("lpips", file)
    assert isinstance(network, Unavailable)
    assert network.reason.startswith("not computed: the weights of lpips could not be had (")


def test_download_that_fails_is_a_reason_and_silent(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    module._open.cache_clear()
    network = opened("lpips")
    module._open.cache_clear()
    assert network == Unavailable("not computed: the weights of lpips could not be had (no network)")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def prepared(make_prepared):
    return make_prepared(count=16, size_px=32)


def batches(prepared, share=None):
    return split_batches(prepared, "validation", 2, share or ProcessShare(), CPU)


def test_each_image_has_its_score_and_the_mean_is_the_metric(prepared):
    networks = open_perceptual(Evaluation(), CPU)
    scored = evaluate(predict_gray, batches(prepared), perceptual=networks)
    values = [row["stlpips_alex"] for row in scored.rows]
    assert len(values) == 4
    assert min(values) > 0
    entry = scored.perceptual["stlpips_alex"]
    assert scored.metrics["stlpips_alex"] == entry["value"] == pytest.approx(np.mean(values))
    assert (entry["images"], entry["title"]) == (4, "ST-LPIPS, shift-tolerant AlexNet")
    assert entry["resize"] == "not resized, but bilinear to 64 x 64 pixels if smaller"
    assert scored.perceptual["lpips_alex"]["value"] is None


def test_what_has_no_colours_has_no_score(prepared):
    networks = open_perceptual(Evaluation(), CPU)
    scored = evaluate(predict_class((1.0, 0.0)), batches(prepared), perceptual=networks)
    assert scored.perceptual == {}
    assert "stlpips_alex" not in scored.metrics


def test_a_diverged_model_has_no_score(prepared):
    def diverged(batch):
        return predict_gray(batch)._replace(chroma=batch.chroma * torch.nan)

    scored = evaluate(diverged, batches(prepared), perceptual=open_perceptual(Evaluation(), CPU))
    assert scored.perceptual["stlpips_alex"]["reason"] == "not computed: some colourings are not numbers"
