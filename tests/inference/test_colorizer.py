"""Colouring and classifying in one call; warnings and uncertainty."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CLASSES, describe, noise, two_stage_network

from knowhue.errors import ArgumentError, ConfigError
from knowhue.images.image import Image, to_rgb8
from knowhue.images.writing import encode_image, write_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer, spread_over_views
from knowhue.inference.judgement import judge_image, warnings_of_many
from knowhue.inference.pixels import PaintStats, enlarge, lightness
from knowhue.inference.reference import AlbumColour
from knowhue.runs import UNKNOWN


def test_a_coloured_image_says_which_model_computed_its_colours_but_not_where_that_lies():
    network = two_stage_network()
    made = Colorizer(network).colorize(Image.of(np.full((8, 8, 1), 90, np.uint8))).image
    assert made.origin.computed_by == ("multi, seed 0", network.description.fingerprint())
    assert "/home" in network.description.name
    assert b"/home" not in encode_image(made, ".png")
    assert b"multi, seed 0" in encode_image(made, ".png")


def see_through(depth):
    """A ramp, its lower half half-transparent, its last row hidden: opaque pixels below are black."""
    top = np.iinfo(depth).max
    pixels = np.linspace(0.1 * top, 0.9 * top, 48).astype(depth)[None, :, None].repeat(48, 0).repeat(3, 2)
    pixels[-8:] = 0
    alpha = np.full((48, 48), top, depth)
    alpha[24:], alpha[-8:] = top // 2, 0
    return Image(np.ascontiguousarray(pixels), alpha)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_network_is_shown_what_it_was_trained_on_of_an_image_that_is_seen_through(depth):
    image, colorizer = see_through(depth), Colorizer(two_stage_network())
    trained_on = colorizer.network_input(Image.of(to_rgb8(image)))
    assert np.abs(colorizer.network_input(image) - trained_on).max() < 0.5
    assert np.abs(colorizer.network_input(Image.of(image.pixels)) - trained_on).max() > 20


def test_the_pixels_that_are_painted_keep_their_own_lightness_and_transparency():
    image = see_through(np.uint16)
    made = Colorizer(two_stage_network()).colorize(image).image
    assert np.array_equal(made.alpha, image.alpha)
    assert np.abs(lightness(made.pixels) - lightness(image.pixels)).max() < 0.01


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


def test_no_probability_is_rounded_to_certainty_and_no_distance_to_the_usual():
    assert "> 99 %" in str(judge_image(MANY, CERTAIN, 0.5, None).headline())
    assert "100 %" not in str(judge_image(MANY, CERTAIN, 0.5, None).headline())
    assert "(distance 1.004, usual up to 1)" in judge_image(MANY, CERTAIN, 1.004, None).warnings[0]
    assert "(distance 1.04, usual up to 1)" in judge_image(MANY, CERTAIN, 1.04, None).warnings[0]


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
    unlike, *others = judge_image(FEW, CERTAIN, 1.1, COLOURFUL).warnings
    assert unlike.startswith("unlike the images")
    assert others[0] == usual.warnings[0]  # a limit that few images gave is not passed off as sure
    assert judge_image(MANY, CERTAIN, 0.9, COLOURFUL._replace(reduced=0.0)).warnings == ()


@pytest.mark.parametrize(("saturation", "chroma", "warned"), [
    (1.0, 3.9, True), (1.0, 4.1, False), (0.0, 0.0, False), (0.5, 2.5, False), (0.5, 1.5, True), (4.0, 10.0, False),
])  # fmt: skip
def test_gray_that_was_asked_for_is_not_the_models_fault(saturation, chroma, warned):
    said = judge_image(MANY, None, 0.5, GRAY._replace(chroma=chroma), saturation=saturation).warnings
    assert any("still nearly gray" in each for each in said) == warned


def test_of_many_it_is_said_how_many():
    assert warnings_of_many(MANY, 3, 5, "image") == [
        "3 of 5 images are unlike the images that this model was trained on: colours and class are guesses"
    ]
    assert warnings_of_many(MANY, 0, 5, "image") == []
    assert "too few" in warnings_of_many(FEW, 0, 5, "image")[0]
    assert warnings_of_many(FEW, 0, 0, "image") == []


@pytest.fixture(scope="module")
def colorizer():
    return Colorizer(two_stage_network())


def photo(seed: int = 0, height: int = 40, width: int = 56, channels: int = 3) -> Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, channels), np.uint8)
    return Image.of(values.repeat(4, 0).repeat(4, 1))


def test_a_file_its_bytes_and_its_pixels_are_coloured_alike(colorizer, tmp_path):
    path = tmp_path / "photo.png"
    write_image(photo(), str(path))
    made = [colorizer.colorize(source) for source in (photo(), path, str(path), path.read_bytes())]
    assert all(np.array_equal(each.image.pixels, made[0].image.pixels) for each in made)
    assert [each.judgement for each in made] == [made[0].judgement] * 4
    assert colorizer.classify(str(path)).label == made[0].judgement.label


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            np.zeros((8, 8, 3), np.uint8),
            r"or the bytes of a file\. Found .*, of the type `ndarray`\. .*Image\.of\(pixels\)",
        ),
        (Image.of(np.zeros((8, 8, 3))), "uint8 or uint16. Found `pixels.dtype = float64`"),
        (Image.of(np.zeros((8, 8, 1), bool)), "Found `pixels.dtype = bool`"),
        (Image.of(np.zeros((8, 8), np.uint8)), r"Found `pixels.shape = \(8, 8\)`"),
        (Image.of(np.zeros((0, 8, 3), np.uint8)), r"Found `pixels.shape = \(0, 8, 3\)`"),
        (Image.of(np.zeros((8, 8, 4), np.uint8)), r"Found `pixels.shape = \(8, 8, 4\)`"),
        (Image(np.zeros((8, 8, 1), np.uint8), np.zeros((8, 4), np.uint8)), r"Found `alpha.shape = \(8, 4\)`"),
        (Image(np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.uint16)), "`alpha.dtype = uint16`"),
    ],
)
def test_what_is_no_image_is_said_as_it_was_given(colorizer, tmp_path, source, said):
    with pytest.raises((ValueError, ArgumentError), match=said):
        colorizer.colorize(source)
    with pytest.raises((ValueError, ArgumentError), match=said):
        colorizer.classify(source)
    if isinstance(source, Image):
        with pytest.raises((ValueError, ArgumentError), match=said):
            write_image(source, tmp_path / "out.png")


@pytest.mark.parametrize("unknown_below", [-0.1, 1.5, float("nan")])
def test_a_limit_that_is_no_probability_is_refused(colorizer, unknown_below):
    nowhere = Path("nowhere.png")  # before the image is read
    with pytest.raises(ConfigError, match="from 0 to 1"):
        colorizer.classify(nowhere, unknown_below)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        colorizer.colorize(nowhere, ColorizeOptions(unknown_below=unknown_below))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *itertools.product(("saturation", "album"), (-1, float("nan"), float("inf"), 1e300)),
        ("saturation", 4.01),  # as for the command and the server
    ],
)
def test_colours_out_of_range_are_refused_before_the_image_is_read(colorizer, option, value):
    given = {"saturation": value, "album": AlbumColour(0.0, value * 1e4)}[option]
    with pytest.raises(ConfigError, match=rf"`{option}` should .* Found `{option} = "):
        colorizer.colorize(Path("nowhere.png"), ColorizeOptions()._replace(**{option: given}))


@given(st.permutations([(32, 40), (32, 33), (40, 32), (32, 40), (32, 33)]))
def test_each_of_many_inputs_gets_its_own_predictions_in_order(shapes):
    colorizer = Colorizer(two_stage_network())
    inputs = [noise(1, *shape, seed=number)[0] for number, shape in enumerate(shapes)]
    together = colorizer.predict(inputs)
    for one, found in zip(inputs, together, strict=True):
        alone = colorizer.predict([one])[0]
        assert found.chroma.shape == (1, *one.shape, 2)
        assert all(np.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(found[:3], alone[:3], strict=True))


def test_no_inputs_give_no_predictions(colorizer):
    assert colorizer.predict([]) == []


def test_colouring_keeps_size_and_lightness_and_judges_what_was_painted(colorizer):
    original = photo()
    made = colorizer.colorize(original)
    assert made.image.pixels.shape == original.pixels.shape
    assert np.abs(lightness(made.image.pixels) - lightness(original.pixels)).max() <= 0.5
    assert made.judgement.chroma > 0
    assert made.uncertainty is None
    gray = colorizer.colorize(original, ColorizeOptions(saturation=0))
    assert (gray.image.pixels == gray.image.pixels[..., :1]).all()
    assert gray.judgement.chroma == 0


def test_classifying_says_what_colouring_says_of_the_class(colorizer):
    coloured, classified = colorizer.colorize(photo()).judgement, colorizer.classify(photo())
    assert classified.probabilities == coloured.probabilities
    assert (classified.label, classified.novelty) == (coloured.label, coloured.novelty)
    assert (classified.chroma, classified.colourfulness, classified.reduced) == (None, None, None)
    assert colorizer.classify(photo(), unknown_below=1.0).label == UNKNOWN


@pytest.mark.parametrize(("task", "other"), [("colour", "class"), ("class", "colour")])
def test_a_head_that_is_missing_is_named_before_an_image_is_read(task, other, tmp_path):
    colorizer = Colorizer(two_stage_network((other,)))
    verb = {"colour": colorizer.colorize, "class": colorizer.classify}[task]
    with pytest.raises(ConfigError, match=rf"should have a {task} head\. Found .* trained for {other} alone"):
        verb(tmp_path / "there is none.png")


def test_the_map_of_the_uncertainty_has_the_images_size_and_five_codes_a_unit(colorizer):
    made = colorizer.colorize(photo(), ColorizeOptions(uncertainty=True))
    made = made._replace(
        uncertainty=made.uncertainty / made.uncertainty.max() * 50
    )  # within what the map holds
    found = made.uncertainty_map()
    assert found.pixels.shape == (40, 56, 1)
    assert made.uncertainty.shape == (32, 45)
    expected = enlarge(made.uncertainty, 40, 56)
    assert np.abs(found.pixels[..., 0] / 5 - expected).max() <= 0.1 + 1e-4
    certain = made._replace(uncertainty=np.full((2, 3), 60, np.float32)).uncertainty_map()
    assert (certain.pixels == 255).all()


def test_a_record_is_json_of_few_digits():
    judged = judge_image(MANY, CERTAIN, 0.123456, COLOURFUL._replace(chroma=1 / 3), ["a note"])
    record = json.loads(json.dumps(judged.as_record()))
    assert (record["novelty"], record["chroma"]) == (0.1235, 0.3333)
    assert list(record["probabilities"]) == [CLASSES[1], CLASSES[0], CLASSES[2]]
    assert record["warnings"] == [*judged.warnings]
