"""The distribution over 313 colours: its mean is the network's answer; samples are smooth and repeatable."""

import numpy as np
import pytest
from tiny_models import colours_network, noise, two_stage_network

from knowhue.color import chroma_bins
from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.inference import colour_distribution
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.colour_distribution import (
    FIELD_CHROMA,
    FIELD_LIGHTNESS,
    FIELD_REACH,
    MOST_ANSWERS,
    ColourDistribution,
    field,
    require_sample,
    samples_of,
    smooth_within_surfaces,
)
from knowhue.inference.hints import Hint


@pytest.fixture(scope="module")
def network():
    made = colours_network()
    made.module.model.colour.temperature = made.description.config.colour.temperature
    made.module.model.colour.out.weight.data.mul_(20)  # away from even
    return made


def certain(a, b, height=8, width=8, saturation=1.0):
    """All but sure of one colour."""
    place = int((chroma_bins() == (a, b)).all(1).argmax())
    logits = np.zeros((313, height // 4, width // 4), np.float32)
    logits[place] = 120  # whose power is beyond float32
    return ColourDistribution(logits, np.full((height, width), 50, np.float32), 1.0, saturation)


@pytest.mark.parametrize("shape", [(16, 20), (13, 30), (1, 1)])
def test_the_answer_with_nothing_added_is_the_networks_own(network, shape):
    lightness = noise(1, *shape)
    found = ColourDistribution.of(network, lightness[0])
    expected = network.predict(lightness).chroma[0]
    np.testing.assert_allclose(found.answer(), expected, atol=1e-4)
    np.testing.assert_array_equal(found.sample(1), found.answer())
    assert np.abs(expected).max() > 1


def test_the_saturation_of_the_model_is_in_its_answers():
    np.testing.assert_allclose(
        certain(40, -30, saturation=0.5).answer(), np.full((8, 8, 2), (20, -15)), atol=1e-3
    )


def test_what_is_certain_has_no_uncertainty_and_no_other_answers():
    sure = certain(40, -30)
    assert sure.uncertainty().max() < 1e-3
    np.testing.assert_allclose(sure.sample(2), sure.answer(), atol=1e-3)


def test_the_uncertainty_of_two_colours_is_the_mean_distance_to_them():
    """Even chances of two colours 60 units apart: the answer lies between them, each is 30 away."""
    one, other = certain(40, 0).logits, certain(-20, 0).logits
    both = ColourDistribution(np.maximum(one, other), np.full((8, 8), 50, np.float32), 1.0, 1.0)
    np.testing.assert_allclose(both.uncertainty(), 30, atol=1e-3)
    np.testing.assert_allclose(
        both._replace(saturation=0.0).uncertainty(), 30, atol=1e-3
    )  # gray: 40 and 20 away


def test_a_sample_is_the_same_each_time_and_no_other_is(network):
    found = ColourDistribution.of(network, noise(1, 24, 32)[0])
    samples = [found.sample(number) for number in range(1, 6)]
    np.testing.assert_array_equal(found.sample(3), samples[2])
    for place, each in enumerate(samples):
        for other in samples[:place]:
            assert np.abs(each - other).mean() > 0.5


def test_a_field_is_of_mean_0_and_variance_1_and_related_by_a_gaussian_of_the_distance(monkeypatch):
    monkeypatch.setattr(colour_distribution, "_WAVES", 16)  # few are as good on average
    seen = np.full((4, 10), 50, np.float32)
    seen[1, 0] = 90
    first, second = (int((chroma_bins() == each).all(1).argmax()) for each in ((0, 0), (80, 0)))
    drawn = np.stack([field(seen, number)[[first, second]] for number in range(4000)])
    assert np.abs(drawn.mean(0)).max() < 0.08
    assert drawn.std(0) == pytest.approx(np.ones((2, 4, 10)), abs=0.08)

    def related(bin_, row, column):
        return np.corrcoef(drawn[:, 0, 0, 0], drawn[:, bin_, row, column])[0, 1]

    assert related(0, 0, 9) == pytest.approx(np.exp(-((9 / 4 / FIELD_REACH) ** 2) / 2), abs=0.05)
    assert related(1, 0, 0) == pytest.approx(np.exp(-((80 / FIELD_CHROMA) ** 2) / 2), abs=0.05)
    near, across = (1 / 4 / FIELD_REACH) ** 2, (40 / FIELD_LIGHTNESS) ** 2
    assert related(0, 1, 0) == pytest.approx(np.exp(-(near + across) / 2), abs=0.05)


def test_a_field_of_no_reach_is_independent_from_pixel_to_pixel():
    drawn = field(np.full((60, 60), 50, np.float32), 2, reach=1e-6)[150]
    assert abs(np.corrcoef(drawn[:, 1:].ravel(), drawn[:, :-1].ravel())[0, 1]) < 0.1


def test_only_answers_that_there_are_can_be_asked_for(network):
    assert (samples_of(network), samples_of(two_stage_network())) == (MOST_ANSWERS, 1)
    require_sample(MOST_ANSWERS, network)
    require_sample(1, two_stage_network())
    for number in (0, -1, MOST_ANSWERS + 1):
        with pytest.raises(ConfigError, match=rf"`sample` should be 1 to 16\. Found `sample = {number}`"):
            require_sample(number, network)
    with pytest.raises(ConfigError, match=r"a head of 313 colours to give several answers.* Ask for one"):
        require_sample(2, two_stage_network())


def test_hints_hold_in_every_sample_and_lightness_stays(network):
    colorizer = Colorizer(network)
    pixels = np.random.default_rng(0).integers(60, 200, (40, 56, 1)).astype(np.uint8)
    hint = Hint(0.5, 0.5, 10, 20)
    plain, hinted = (
        [
            colorizer.colorize(Image.of(pixels), ColorizeOptions(hints=hints, sample=number)).image.pixels
            for number in (1, 2, 3)
        ]
        for hints in ((), (hint,))
    )
    assert not np.array_equal(plain[0], plain[1])
    assert not np.array_equal(plain[1], plain[2])
    at_hint = np.stack([each[20, 28] for each in hinted]).astype(int)
    assert np.abs(at_hint - at_hint[0]).max() <= 1
    assert np.array_equal(
        plain[1], colorizer.colorize(Image.of(pixels), ColorizeOptions(sample=2)).image.pixels
    )


def test_the_uncertainty_of_a_colouring_is_that_of_the_distribution(network):
    colorizer = Colorizer(network)
    image = Image.of(np.random.default_rng(0).integers(0, 255, (40, 56, 1)).astype(np.uint8))
    found = colorizer.colorize(image, ColorizeOptions(uncertainty=True)).uncertainty
    expected = ColourDistribution.of(network, colorizer.network_input(image)).uncertainty()
    np.testing.assert_array_equal(found, expected)


def test_an_unsure_stain_takes_the_colour_of_its_surface_and_none_crosses_an_edge():
    lightness = np.full((24, 30), 30, np.float32)
    lightness[:, 15:] = 80
    colours = np.where(lightness[..., None] < 50, np.float32((10, -20)), np.float32((-5, 30)))
    stained, certainty = colours.copy(), np.ones_like(lightness)
    stained[8:14, 4:9], certainty[8:14, 4:9] = (60, 50), 0.02
    found = smooth_within_surfaces(stained, certainty, lightness)
    assert np.abs(found - colours).max() < 2
    assert np.abs(found[:, 15:] - colours[:, 15:]).max() < 0.01
    # where it is as sure as all else, most of it stays
    assert smooth_within_surfaces(stained, np.ones_like(lightness), lightness)[11, 6] == pytest.approx(
        (40, 21), abs=2
    )


def test_smoothed_colours_are_those_of_least_squares():
    """The normal equations, written out as one matrix for all pixels."""
    generator = np.random.default_rng(0)
    rows, columns = 7, 9
    colours, certainty = generator.normal(size=(rows, columns, 2)) * 30, generator.random((rows, columns))
    lightness = generator.uniform(0, 30, (rows, columns)).astype(np.float32)
    places = np.arange(rows * columns).reshape(rows, columns)
    matrix = np.diag(np.maximum(certainty, colour_distribution.LEAST_CERTAINTY).ravel())
    expected = matrix @ colours.reshape(-1, 2)
    for here, there in ((places[1:], places[:-1]), (places[:, 1:], places[:, :-1])):
        for a, b in zip(here.ravel(), there.ravel(), strict=True):
            step = abs(float(lightness.ravel()[a] - lightness.ravel()[b]))
            link = colour_distribution.SMOOTHNESS * np.exp(-step / colour_distribution.EDGE_LIGHTNESS)
            matrix[[a, b], [a, b]] += link
            matrix[[a, b], [b, a]] -= link
    found = smooth_within_surfaces(colours.astype(np.float32), certainty.astype(np.float32), lightness)
    np.testing.assert_allclose(found.reshape(-1, 2), np.linalg.solve(matrix, expected), atol=0.05)


def test_a_panorama_that_is_unsure_everywhere_is_smoothed_to_the_end():
    """Nothing holds its colours but what every pixel counts at least: they are smoothed within each half."""
    lightness = np.full((48, 192), 30, np.float32)
    lightness[:, 96:] = 80
    halves = np.where(lightness[..., None] < 50, np.float32((10, -20)), np.float32((-5, 30)))
    noisy = halves + np.random.default_rng(0).normal(0, 5, halves.shape).astype(np.float32)
    noisy[:, :20] += 30
    found = smooth_within_surfaces(noisy, np.zeros((48, 192), np.float32), lightness)
    # what is smoothed keeps its mean where the weights are equal, and hardly varies from column to column
    for half in (slice(0, 96), slice(96, 192)):
        np.testing.assert_allclose(found[:, half].mean((0, 1)), noisy[:, half].mean((0, 1)), atol=0.1)
    steps = np.abs(np.diff(found, axis=1))
    assert np.delete(steps, 95, axis=1).max() < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)])
def test_the_smallest_images_are_smoothed_too(shape):
    colours = np.full((*shape, 2), 12, np.float32)
    np.testing.assert_allclose(
        smooth_within_surfaces(colours, np.ones(shape), np.ones(shape, np.float32)), colours, atol=1e-3
    )
