"""Colours from a reference photo are used where it shows the same, and from each other within an album."""

import numpy as np
import pytest
from fake_network import FakeNetwork
from fake_server import MatchingNetwork
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import lite0_network

from knowhue.color import lab_to_linear, linear_to_srgb, srgb_to_lab
from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.networks import Network
from knowhue.inference.reference import (
    ALBUM_SHARE,
    MOST_SHIFT,
    SIMILAR_WEIGHT,
    AlbumColour,
    Match,
    adapt_to_album,
    colour_of_album,
    make_reference,
    match,
    match_confidence,
    photo_colour,
    take_colours,
)

PREDICTED = np.array([20, 40])
"""What the networks here answer everywhere."""
units = st.floats(-60, 60, width=32)


def scene(seed: int = 0, width: int = 384) -> np.ndarray:
    """sRGB of 256 rows: noise in blocks, blue and green of the same strength in stripes of 64 columns."""
    noise = np.random.default_rng(seed).uniform(35, 65, (128, width // 2))
    lightness = np.kron(noise, np.ones((2, 2)))
    stripes = np.where((np.arange(width) // 64 % 2 == 0)[:, None], (0, -25), (-25, 10))
    chroma = np.broadcast_to(stripes, (256, width, 2)).reshape(-1, 2)
    rgb = linear_to_srgb(lab_to_linear(lightness.ravel(), chroma.T)).T.reshape(256, width, 3)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    return (255 * rgb).round().astype(np.uint8)


def coloured(target: np.ndarray, reference: np.ndarray, network: Network) -> tuple[np.ndarray, float]:
    """a*b* as written, and how much was found."""
    colorizer = Colorizer(network)
    options = ColorizeOptions(reference=colorizer.reference(Image.of(reference)))
    made = colorizer.colorize(Image.of(target), options)
    found = made.judgement.found_in_reference
    assert found is not None
    return srgb_to_lab(made.image.pixels / 255)[..., 1:], found


def off(chroma: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(chroma - srgb_to_lab(true / 255)[..., 1:]).mean())


def test_what_both_photos_show_gets_the_references_colours_and_the_rest_keeps_its_own():
    whole = scene(width=512)
    target, reference = whole[:, :384], whole[:, 128:]  # columns 128 to 384 are in both
    chroma, found = coloured(target, reference, MatchingNetwork())
    assert found == pytest.approx(2 / 3, abs=0.1)
    assert off(chroma[:, 160:], target[:, 160:]) < 4
    assert np.abs(chroma[:, :96] - PREDICTED).mean() < 2
    assert (
        off(np.broadcast_to(PREDICTED, chroma.shape)[:, 160:], target[:, 160:]) > 20
    )  # what that would be without


def test_an_unrelated_reference_lends_a_tint_at_most_and_that_is_said():
    target, reference = scene(0), scene(1)
    chroma, found = coloured(target, reference, MatchingNetwork())
    assert found < 0.01
    assert (
        np.abs(chroma - PREDICTED).max() < SIMILAR_WEIGHT * 65 + 3
    )  # the farthest of its colours, and rounding
    colorizer = Colorizer(MatchingNetwork())
    options = ColorizeOptions(reference=colorizer.reference(Image.of(reference)))
    warnings = colorizer.colorize(Image.of(target), options).judgement.warnings
    assert any("hardly anything of it was found in the reference (0 %)" in each for each in warnings)
    assert colorizer.colorize(Image.of(target)).judgement.found_in_reference is None


def test_a_real_encoder_finds_a_photo_in_itself_and_in_its_smaller_darker_copy():
    network, whole = lite0_network(), scene()
    plain = Colorizer(network).colorize(Image.of(whole)).image.pixels
    darker = (255 * (whole / 255) ** 1.3).round().astype(np.uint8)
    for reference in (whole, np.ascontiguousarray(darker[::2, ::2])):
        chroma, found = coloured(whole, reference, network)
        assert found > 0.9
        assert off(chroma, whole) < off(srgb_to_lab(plain / 255)[..., 1:], whole) / 3


def test_saturation_counts_for_the_references_colours():
    colorizer, whole = Colorizer(MatchingNetwork()), scene()
    reference = colorizer.reference(Image.of(whole))
    made = colorizer.colorize(Image.of(whole), ColorizeOptions(saturation=0, reference=reference))
    assert (made.image.pixels == made.image.pixels[..., :1]).all()


@pytest.mark.parametrize(("height", "width"), [(40, 33), (1, 900), (300, 64), (257, 383)])
def test_any_size_and_shape(height, width):
    network = MatchingNetwork()
    reference = make_reference(Image.of(scene()), network)
    coarse = np.full((32, 40), 50, np.float32)
    predicted = np.full((32, 40, 2), 7, np.float32)
    gray = np.random.default_rng(0).integers(0, 255, (height, width, 1), dtype=np.uint8)
    chroma, found = take_colours(gray, coarse, predicted, reference, network)
    assert chroma.shape == predicted.shape
    assert chroma.dtype == np.float32
    assert np.isfinite(chroma).all()
    assert 0 <= found <= 1


def test_matches_are_confirmed_where_they_lead_back_and_lie_together():
    network = MatchingNetwork()
    whole = scene(width=512)
    reference = make_reference(Image.of(whole[:, 128:]), network)
    target = make_reference(Image.of(whole[:, :384]), network)
    found = match(target.maps, reference)
    assert found.is_confirmed[:, 17:].mean() > 0.95
    assert found.is_confirmed[:, :15].mean() < 0.05
    assert found.similarity[:, 17:] == pytest.approx(1, abs=1e-3)
    assert found.chroma[:, 16:] == pytest.approx(target.chroma[:, 16:], abs=0.5)


def test_the_like_is_trusted_as_far_as_both_show_one_scene():
    confirmed = np.zeros((32, 32), bool)
    nothing = Match(np.zeros((32, 32, 2), np.float32), np.full((32, 32), 0.9, np.float32), confirmed)
    same, alike = match_confidence(nothing)
    assert same.max() == 0
    assert alike.min() == 1
    confirmed[:16] = True
    same, _ = match_confidence(nothing)
    assert same.min() == 1  # half of it is confirmed, so the rest is the same scene
    same, _ = match_confidence(nothing._replace(similarity=np.zeros((32, 32), np.float32)))
    assert same[:15].min() == 1
    assert same[20:].max() == 0  # but what it has no like of


def test_what_is_no_reference_is_said():
    gray = np.repeat(scene()[..., :1], 3, -1)
    pale = gray + np.array([2, 0, 0], np.uint8)
    for pixels in (gray, gray[..., :1].copy(), pale):
        with pytest.raises(ConfigError, match="has no colours to take; name a colour photo"):
            make_reference(Image.of(pixels), MatchingNetwork())
    with pytest.raises(ConfigError, match=r"should give feature maps .* Found `fake`, which gives none"):
        make_reference(Image.of(scene()), FakeNetwork())
    other = MatchingNetwork()
    other.description = other.description.model_copy(update={"size_px": 64})
    reference = make_reference(Image.of(scene()), other)
    with pytest.raises(ConfigError, match="made with the model that colours"):
        Colorizer(MatchingNetwork()).colorize(Image.of(scene()), ColorizeOptions(reference=reference))


def test_a_digest_tells_two_references_apart():
    network, changed = MatchingNetwork(), scene()
    first = make_reference(Image.of(changed.copy()), network)
    changed[0, 0] += 1
    assert make_reference(Image.of(scene()), network).digest == first.digest
    assert make_reference(Image.of(changed), network).digest != first.digest


def varied(a: float, b: float) -> np.ndarray:
    """A photo of that mean."""
    noise = np.random.default_rng(0).normal(0, 3, (8, 12, 2))
    return (noise - noise.mean((0, 1)) + (a, b)).astype(np.float32)


@given(units, units, units, units)
def test_a_mean_moves_towards_the_albums_and_never_far(a, b, album_a, album_b):
    chroma, album = varied(a, b), AlbumColour(album_a, album_b)
    moved = np.subtract(photo_colour(adapt_to_album(album, chroma)), (a, b))
    way = np.subtract(album, (a, b))
    assert np.hypot(*moved) <= min(ALBUM_SHARE * np.hypot(*way), MOST_SHIFT) + 0.05
    assert moved @ way >= -0.05 * np.hypot(*way)


def test_an_even_photo_is_drawn_by_its_share():
    chroma = np.tile(np.array([10, 0], np.float32), (8, 8, 1))
    assert adapt_to_album(AlbumColour(15, 0), chroma) == pytest.approx(np.add(chroma, (ALBUM_SHARE * 5, 0)))
    assert adapt_to_album(AlbumColour(10, 90), chroma) == pytest.approx(np.add(chroma, (0, MOST_SHIFT)))


def test_what_is_gray_stays_gray():
    chroma = np.zeros((4, 4, 2), np.float32)
    assert not adapt_to_album(AlbumColour(20, 20), chroma).any()
    chroma[2:] = 20
    drawn = adapt_to_album(AlbumColour(20, 20), chroma)
    assert not drawn[:2].any()
    assert (drawn[2:] > 20).all()


def test_an_odd_photo_does_not_move_the_album():
    usual = [AlbumColour(5, 6), AlbumColour(6, 7), AlbumColour(7, 8)]
    assert colour_of_album([*usual, AlbumColour(-90, 90)]) == pytest.approx((5.5, 7.5))
