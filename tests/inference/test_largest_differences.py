"""What tells two ways of running a model apart finds every kind of difference."""

import numpy as np

from knowhue.inference.networks.network import Answers
from knowhue.inference.networks.parity import SIZES, largest_differences, trial_images


def _answer(lightness, chroma=0.0, novelty=0.0, count=None, probabilities=None):
    size = len(lightness) if count is None else count
    return Answers(
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
