"""What is said of an image: no class for what is unlike the training images, and the caveat before all else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CLASSES, describe

from knowhue.inference.judgement import UNKNOWN, caveats_of_many, judge
from knowhue.inference.pixels import PaintStats

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
    said = judge(MANY, shares, novelty, COLOURFUL, ["a note"], unknown_below=limit)
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
    assert said in judge(many, None, 1.5, None).warnings[0]


def test_too_few_validation_images_are_said_instead_of_silence():
    usual = judge(FEW, CERTAIN, 0.9, COLOURFUL)
    assert usual.warnings[0].startswith("too few validation images (75; 100 are needed) to tell")
    assert usual.label == CLASSES[1]
    assert judge(FEW, CERTAIN, 1.1, COLOURFUL).warnings[0].startswith("unlike the images")
    assert judge(MANY, CERTAIN, 0.9, COLOURFUL._replace(reduced=0.0)).warnings == ()


@pytest.mark.parametrize(("saturation", "chroma", "warned"), [
    (1.0, 3.9, True), (1.0, 4.1, False), (0.0, 0.0, False), (0.5, 2.5, False), (0.5, 1.5, True), (4.0, 10.0, False),
])  # fmt: skip
def test_gray_that_was_asked_for_is_not_the_models_fault(saturation, chroma, warned):
    said = judge(MANY, None, 0.5, GRAY._replace(chroma=chroma), saturation=saturation).warnings
    assert any("still nearly gray" in each for each in said) == warned


def test_of_many_it_is_said_how_many():
    assert caveats_of_many(MANY, 3, 5, "images") == [
        "3 of 5 images are unlike the images that this model was trained on: colours and class are guesses"
    ]
    assert caveats_of_many(MANY, 0, 5, "images") == []
    assert "too few" in caveats_of_many(FEW, 0, 5, "images")[0]
    assert caveats_of_many(FEW, 0, 0, "images") == []
