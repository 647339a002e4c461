"""A network's input, what is said of an image, and how unsure its colours are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CLASSES, describe

from knowhue.inference.colorizer import (
    LONGEST,
    UNKNOWN,
    caveats_of_many,
    judge_image,
    network_input,
    spread_over_views,
    working_size,
)
from knowhue.inference.pixels import PaintStats


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(32, 256))
def test_the_short_side_is_the_networks_and_the_long_one_bounded(height: int, width: int, size_px: int):
    found = working_size(height, width, size_px)
    assert min(found) == size_px
    assert max(found) <= LONGEST * size_px


@given(st.integers(50, 5000), st.integers(50, 5000))
def test_the_aspect_stays_within_a_pixel(height: int, width: int):
    found = working_size(height, width, 96)
    if max(found) < LONGEST * 96:
        assert found[1] / found[0] == pytest.approx(width / height, rel=1 / 96)


def test_sees_lightness_in_l_units():
    image = np.zeros((40, 60, 1), np.uint8)
    image[:, 30:] = 255
    seen = network_input(image, 32)
    assert seen.shape == (32, 48)
    assert seen.dtype == np.float32
    assert seen[:, :16].max() < 2
    assert seen[:, -16:].min() > 98


def test_gray_and_equal_rgb_look_alike():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 1), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(np.repeat(gray, 3, 2), 32), atol=0.05)


def test_sixteen_bits_look_as_eight():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(gray.astype(np.uint16) * 257, 32), atol=0.6)


def test_less_oversampling_sees_nearly_the_same_in_the_same_place():
    y, x = np.mgrid[:900, :1203]
    scene = (127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 50))[..., None].round().astype(np.uint8)
    exact, quick = network_input(scene, 96), network_input(scene, 96, oversampling=1)
    assert quick.shape == exact.shape
    assert np.abs(quick - exact).max() < 2
    assert np.abs((quick - exact).mean()) < 0.05


def input_at(scale: float) -> np.ndarray:
    return np.linspace(0, 100, round(24 * scale))[None].repeat(round(16 * scale), 0).astype(np.float32)


def test_a_network_that_answers_alike_from_everywhere_is_sure():
    def constant(lightness: np.ndarray) -> np.ndarray:
        return np.full((*lightness.shape, 2), 7.0, np.float32)

    assert np.abs(spread_over_views(constant, input_at)).max() < 1e-5


def test_what_moves_with_the_image_is_sure():
    def by_lightness(lightness: np.ndarray) -> np.ndarray:
        return np.stack([lightness, -lightness], -1)

    found = spread_over_views(by_lightness, input_at)
    assert found.shape == (16, 24)
    assert found[:, 4:-4].max() < 2.5  # a ramp of 100 units, resampled


def test_a_network_that_hangs_on_the_side_is_unsure_and_says_by_how_much():
    def by_side(lightness: np.ndarray) -> np.ndarray:
        chroma = np.zeros((*lightness.shape, 2), np.float32)
        chroma[..., : lightness.shape[2] // 2, 0] = 10
        return chroma

    found = spread_over_views(by_side, input_at)
    assert found[:, 2:10] == pytest.approx(5.0, abs=1e-3)  # half of the views say 10, half 0


MANY = describe(images={"train": 500, "validation": 100})
FEW = describe(images={"train": 200, "validation": 75})
CERTAIN = np.array([0.001, 0.998, 0.001], np.float32)
GRAY, COLOURFUL = PaintStats(1.0, 2.0, 0.0), PaintStats(30.0, 40.0, 0.5)


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.floats(0, 4, allow_nan=False) | st.just(float("nan")) | st.just(float("inf")),
    st.floats(0, 1),
)
def test_no_class_is_named_beyond_the_usual_distance(weights, novelty, limit):
    shares = np.array(weights, np.float32) / np.float32(sum(weights))
    said = judge_image(MANY, shares, novelty, COLOURFUL, ["a note"], unknown_below=limit)
    if not novelty <= 1:
        assert said.label == said.headline() == UNKNOWN
        assert said.warnings[0].startswith("unlike the images that the model was trained on")
    else:
        assert said.label == (CLASSES[shares.argmax()] if shares.max() >= limit else UNKNOWN)
        assert said.warnings[0] == "a note"


@pytest.mark.parametrize(
    ("tasks", "said"),
    [(("colour", "class"), "colours and class are"), (("colour",), "colours are"), (("class",), "class is")],
)
def test_the_caveat_names_what_the_model_does(tasks, said):
    many = describe(tasks, images=MANY.images)
    assert said in judge_image(many, None, 1.5, None).warnings[0]


def test_too_few_validation_images_are_said_instead_of_silence():
    usual = judge_image(FEW, CERTAIN, 0.9, COLOURFUL)
    assert usual.warnings[0].startswith("too few validation images (75; 100 are needed) to tell")
    assert usual.label == CLASSES[1]
    assert judge_image(FEW, CERTAIN, 1.1, COLOURFUL).warnings[0].startswith("unlike the images")
    assert judge_image(MANY, CERTAIN, 0.9, COLOURFUL._replace(reduced=0.0)).warnings == ()


@pytest.mark.parametrize(("saturation", "chroma", "warned"), [
    (1.0, 3.9, True), (1.0, 4.1, False), (0.0, 0.0, False), (0.5, 2.5, False), (0.5, 1.5, True), (4.0, 10.0, False),
])  # fmt: skip
def test_gray_that_was_asked_for_is_not_the_models_fault(saturation, chroma, warned):
    said = judge_image(MANY, None, 0.5, GRAY._replace(chroma=chroma), saturation=saturation).warnings
    assert any("still nearly gray" in each for each in said) == warned


def test_of_many_it_is_said_how_many():
    assert caveats_of_many(MANY, 3, 5, "images") == [
        "3 of 5 images are unlike the images that this model was trained on: colours and class are guesses"
    ]
    assert caveats_of_many(MANY, 0, 5, "images") == []
    assert "too few" in caveats_of_many(FEW, 0, 5, "images")[0]
    assert caveats_of_many(FEW, 0, 0, "images") == []
