"""An exported model answers as its source does; what tells two of them apart finds every kind of difference."""

import numpy as np
import pytest
import torch
from tiny_models import describe, lite0_network, noise

from knowhue.errors import ConfigError, WeightsError
from knowhue.inference.export import SIZES, export_safetensors, largest_differences, trial_images
from knowhue.inference.networks import Predictions, open_torch


def _answer(lightness, chroma=0.0, novelty=0.0, count=None, probabilities=None):
    size = len(lightness) if count is None else count
    return Predictions(
        np.full((*lightness.shape, 2), chroma, np.float32), probabilities, np.full(size, novelty, np.float32)
    )


def test_the_largest_of_each_output_is_said():
    found = largest_differences(_answer, lambda seen: _answer(seen, -float(seen.max() > 99), 0.25))
    assert found == {"chroma": 1, "novelty": 0.25}


def test_other_shapes_and_missing_heads_differ_infinitely():
    found = largest_differences(
        _answer,
        lambda seen: _answer(seen, count=len(seen) + 1, probabilities=np.ones((len(seen), 2), np.float32)),
    )
    assert found == {"chroma": 0, "novelty": np.inf, "probabilities": np.inf}


def test_what_is_no_number_is_never_small():
    at_once = iter([np.nan] + [0.0] * 99)
    assert np.isnan(largest_differences(_answer, lambda seen: _answer(seen, next(at_once)))["chroma"])


def test_noise_and_smooth_images_of_every_size_are_tried():
    images = trial_images()
    assert [each.shape for each in images] == [size for size in SIZES for _ in range(2)]
    assert all(each.min() >= 0 and each.max() <= 100 and each.dtype == np.float32 for each in images)


@pytest.fixture(scope="module")
def network():
    return lite0_network()


def _equal(one, other):
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def test_a_copy_answers_equally(network, tmp_path):
    differences = export_safetensors(network, tmp_path / "copy.safetensors")
    lightness = noise(2, 41, 33)
    copy = open_torch(tmp_path / "copy.safetensors")
    assert _equal(copy.predict(lightness), network.predict(lightness))
    assert copy.description == network.description
    assert differences == {"chroma": 0, "probabilities": 0, "novelty": 0}


def test_half_precision_halves_the_file_and_says_what_it_costs(network, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    export_safetensors(network, whole)
    differences = export_safetensors(open_torch(whole), half, "float16")
    opened = open_torch(half)
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    assert opened.description == describe(precision="float16")
    assert {tensor.dtype for tensor in opened.module.state_dict().values()} <= {torch.float32, torch.int64}
    assert differences == largest_differences(network.predict, opened.predict)
    assert all(value > 0 for value in differences.values())


def test_weights_beyond_half_precision_are_refused(tmp_path):
    network = lite0_network()
    network.module.model.classifier.linear.bias.data[0] = 1e5
    with pytest.raises(WeightsError, match=r"finite in float16.*`model\.classifier\.linear\.bias`.*65504"):
        export_safetensors(network, tmp_path / "half.safetensors", "float16")
    assert not list(tmp_path.iterdir())


def test_an_unknown_precision_lists_the_known(network, tmp_path):
    with pytest.raises(ConfigError, match=r"one of float32, float16\. Found `precision = int3`"):
        export_safetensors(network, tmp_path / "x.safetensors", "int3")
