"""Properties of the drawn scenes that make them a control with a known answer."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from knowhue.config import Images
from knowhue.data import drawn
from knowhue.data.drawn import CLASSES, PALETTES, compose, draw, lab_to_srgb
from knowhue.data.listing import list_items

LABELS = range(len(CLASSES))
COMPOSED = {}


@pytest.fixture
def composed_once(monkeypatch):
    """Compose each scene once: its palette, which these tests vary, is chosen afterwards."""

    def once(label, size_px, rng):
        key = (label, size_px, str(rng.bit_generator.state))
        if key not in COMPOSED:
            COMPOSED[key] = compose(label, size_px, rng)
        return COMPOSED[key]

    monkeypatch.setattr(drawn, "compose", once)


def image(index: int = 0, label: int = 0, size_px: int = 48, class_colour: float = 1.0, seed: int = 5):
    return draw(index, label, size_px, class_colour, seed)


def mean_colours(class_colour: float, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean a*b* (count, 2) and label (count,) of images at 24 px, the classes in turn."""
    labels = np.arange(count) % len(CLASSES)
    images = [draw(first + i, int(label), 24, class_colour, seed=11) for i, label in enumerate(labels)]
    return rgb2lab(np.stack(images))[..., 1:].mean(axis=(1, 2)), labels


def nearest_centroid_accuracy(class_colour: float) -> float:
    """Accuracy on 300 images of centroids from 300 others."""
    known, known_labels = mean_colours(class_colour, 0, 300)
    asked, asked_labels = mean_colours(class_colour, 300, 300)
    centroids = np.stack([known[known_labels == label].mean(axis=0) for label in LABELS])
    distance = np.linalg.norm(asked[:, None] - centroids, axis=2)
    return float((distance.argmin(axis=1) == asked_labels).mean())


def test_classes_are_sorted():
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("size_px", [16, 33, 64])
def test_shape_and_type(label, size_px):
    made = image(label=label, size_px=size_px)
    assert made.shape == (size_px, size_px, 3)
    assert made.dtype == np.uint8


@pytest.mark.parametrize("label", LABELS)
def test_same_arguments_give_same_bytes(label):
    np.random.seed(0)  # noqa: NPY002 - the global state must play no part
    first = image(label=label)
    np.random.seed(1)  # noqa: NPY002
    assert image(label=label).tobytes() == first.tobytes()


@pytest.mark.parametrize("other", [{"index": 1}, {"label": 1}, {"seed": 6}])
def test_another_key_gives_another_scene(other):
    difference = rgb2lab(image())[..., 0] - rgb2lab(image(**other))[..., 0]
    assert np.abs(difference).mean() > 2


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("index", range(6))
def test_lightness_does_not_depend_on_the_dial(index, label):
    own, free = (rgb2lab(image(index, label, 64, dial))[..., 0] for dial in (1.0, 0.0))
    difference = np.abs(own - free)
    assert difference.max() < 1.0
    assert difference.mean() < 0.3


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("palette", range(len(PALETTES)))
def test_every_palette_keeps_the_lightness_of_the_scene(label, palette):
    scene = compose(label, 48, np.random.default_rng(label))
    chroma = np.tensordot(PALETTES[palette].T, scene.materials, 1)
    difference = np.abs(rgb2lab(lab_to_srgb(scene.lightness, chroma))[..., 0] - scene.lightness)
    assert difference.max() < 0.5


@pytest.mark.parametrize("label", LABELS)
def test_material_shares_sum_to_one(label):
    shares = compose(label, 48, np.random.default_rng(label)).materials
    assert shares.shape == (PALETTES.shape[1], 48, 48)
    assert shares.min() > -1e-5
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-4)


def test_chroma_is_reduced_where_a_colour_is_out_of_gamut_and_lightness_and_hue_are_kept():
    rng = np.random.default_rng(0)
    lightness = rng.uniform(3, 97, (50, 100)).astype(np.float32)
    ab = rng.uniform(-110, 110, (2, 50, 100)).astype(np.float32)
    made = rgb2lab(lab_to_srgb(lightness, ab))
    assert np.abs(made[..., 0] - lightness).max() < 0.5
    wanted, found = np.hypot(*ab), np.hypot(made[..., 1], made[..., 2])
    assert (found < wanted + 1.5).all()
    assert (found < wanted - 5).mean() > 0.5  # most such colours are out of gamut
    vivid = found > 20
    angle = np.arctan2(ab[1], ab[0]) - np.arctan2(made[..., 2], made[..., 1])
    assert np.abs((angle + np.pi) % (2 * np.pi) - np.pi)[vivid].max() < 0.06


def test_colours_in_gamut_keep_their_chroma():
    rgb = np.random.default_rng(1).integers(1, 255, (40, 40, 3), dtype=np.uint8)
    lab = rgb2lab(rgb).astype(np.float32)
    back = lab_to_srgb(lab[..., 0], np.moveaxis(lab[..., 1:], -1, 0))
    assert np.abs(back.astype(int) - rgb.astype(int)).max() <= 1


def test_waters_of_two_palettes_are_well_apart():
    water = PALETTES[:, 0]
    distance = np.linalg.norm(water[:, None] - water[None], axis=2)
    assert distance[~np.eye(len(water), dtype=bool)].min() > 15


@pytest.mark.usefixtures("composed_once")
def test_colour_tells_the_class_at_one():
    assert nearest_centroid_accuracy(1.0) > 0.95


@pytest.mark.usefixtures("composed_once")
def test_colour_says_nothing_of_the_class_at_zero():
    assert nearest_centroid_accuracy(0.0) < 0.35


@pytest.mark.usefixtures("composed_once")
def test_the_dial_is_the_share_of_images_in_their_own_palette():
    made = [[image(i, i % 5, 16, dial, seed=2).tobytes() for i in range(200)] for dial in (0.0, 0.5, 1.0)]
    own, free = np.mean([[a == b for a, b in zip(made[1], made[end], strict=True)] for end in (2, 0)], axis=1)
    assert 0.5 <= own <= 0.7  # half by `class_colour`, and a fifth of the other half by chance
    assert 0.5 <= free <= 0.7


@pytest.mark.parametrize("label", LABELS)
def test_a_scene_is_the_same_at_any_size(label):
    """Lengths are in sheet units: twice the size shows the same, with finer edges."""
    small, large = (compose(label, size, np.random.default_rng(7)).lightness for size in (64, 128))
    shrunk = large.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.97
    assert np.abs(small - shrunk).mean() < 2


def test_each_class_shows_its_subject():
    """Only the subject of the class has its second material, except for corals, which can lie in any scene."""
    shares = [compose(label, 64, np.random.default_rng(3)).materials[5].mean() for label in LABELS]
    assert min(shares) > 0.001


def test_another_drawing_is_never_mixed_with_this_one(monkeypatch):
    settings = Images(source="drawn", drawn_count=10, size_px=16, min_per_class=1)
    first = list_items(settings)
    monkeypatch.setattr(drawn, "DRAWING", 3)
    other = list_items(settings)
    assert [item.name for item in first] == [item.name for item in other]
    assert all(one.stamp != two.stamp for one, two in zip(first, other, strict=True))
    assert all(one.origin != two.origin for one, two in zip(first, other, strict=True))
