"""Prediction at three sizes: an error at one size is outvoted, positions are kept, and `fast` predicts once."""

import tracemalloc
from io import BytesIO
from threading import Barrier

import numpy as np
import pytest
from PIL import Image as PIL
from tiny_models import colours_network, lite0_network, noise

from knowhue.color import chroma_bins
from knowhue.errors import ConfigError, RunError
from knowhue.images.image import Image
from knowhue.images.reading import weigh_image
from knowhue.inference import pipeline
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.colour_distribution import LARGEST_SCALE, PREDICTION_SCALES, SeveralSizes
from knowhue.inference.export import export_safetensors
from knowhue.inference.folder import colorize_folder
from knowhue.inference.listing import list_folder
from knowhue.inference.networks import COLOUR_LOGITS, Predictions
from knowhue.inference.requests import Batcher, ImageRequest

SIDE = 32


class PlacedNetwork:
    """Its logits are those of L* there: the brighter, the surer of colour 0; shapes that it sees are kept."""

    runtime, activation_names = "none", (COLOUR_LOGITS,)
    uses_one_core = False

    def __init__(self) -> None:
        self.description = colours_network().description
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, lightness: np.ndarray) -> np.ndarray:
        self.shapes.append(lightness.shape)
        count, height, width = lightness.shape
        whole = np.pad(lightness, ((0, 0), (0, -height % SIDE), (0, -width % SIDE)), mode="edge")
        cells = whole.reshape(count, whole.shape[1] // 4, 4, whole.shape[2] // 4, 4).mean((2, 4))
        logits = np.zeros((count, len(chroma_bins()), *cells.shape[1:]), np.float32)
        logits[:, 0] = cells
        return logits

    def predict(self, lightness, names=()):
        return Predictions(
            np.zeros((*lightness.shape, 2), np.float32),
            None,
            np.zeros(len(lightness), np.float32),
            dict.fromkeys(names, self.logits(lightness)),
        )


class MistakenNetwork(PlacedNetwork):
    """Says another colour at one size alone, but not as surely as the right one at the others."""

    def __init__(self, mistaken: float) -> None:
        super().__init__()
        self.mistaken = mistaken

    def logits(self, lightness: np.ndarray) -> np.ndarray:
        logits = np.zeros_like(super().logits(lightness))
        is_mistaken = lightness.shape[1] == round(self.mistaken * SIDE)
        logits[:, 7 if is_mistaken else 100] = 30
        return logits


class OneCoreNetwork(PlacedNetwork):
    """Waits until two threads predict."""

    uses_one_core = True

    def __init__(self) -> None:
        super().__init__()
        self.together = Barrier(2)

    def predict(self, lightness, names=()):
        if lightness.shape[1] >= SIDE:
            self.together.wait(60)
        return super().predict(lightness, names)


def ramp(height: int, width: int) -> np.ndarray:
    """L* that rises from the upper left to the lower right, 0 to 100."""
    y, x = np.indices((height, width))
    return ((y + x) / (height + width - 2) * 100).astype(np.float32)[None]


def test_cores_share_images_if_a_prediction_uses_one(monkeypatch):
    monkeypatch.setattr(pipeline, "usable_cores", lambda: 2)
    images = np.concatenate([ramp(48, 48), 100 - ramp(48, 48)])
    network = OneCoreNetwork()
    found, alone = SeveralSizes(network).predict(images), SeveralSizes(PlacedNetwork()).predict(images)
    assert {shape[0] for shape in network.shapes} == {1}
    assert (found.colours == alone.colours).all()
    assert (found.novelty == alone.novelty).all()
    assert found.probabilities is None


@pytest.mark.parametrize("shape", [(48, 48), (48, 71), (61, 50), (48, 180)])
def test_what_is_said_of_a_place_stays_there_at_any_size(shape):
    network = PlacedNetwork()
    found = SeveralSizes(network).logits(ramp(*shape))[0, 0]
    # of each cell of 4 x 4, the ramp's value in its middle
    y, x = np.indices(found.shape) * 4 + 1.5
    expected = (y + x) / (sum(shape) - 2) * 100
    inside = (slice(2, shape[0] // 4 - 2), slice(2, shape[1] // 4 - 2))
    np.testing.assert_allclose(found[inside], expected[inside], atol=100 / sum(shape))
    heights = {each[1] for each in network.shapes}
    assert heights == {round(size / LARGEST_SCALE * shape[0]) for size in PREDICTION_SCALES}


@pytest.mark.parametrize("mistaken", PREDICTION_SCALES)
def test_a_colour_that_one_size_alone_gives_is_outvoted(mistaken):
    lightness = np.full((1, round(LARGEST_SCALE * SIDE), round(LARGEST_SCALE * SIDE)), 50, np.float32)
    network = MistakenNetwork(mistaken)
    chroma = SeveralSizes(network).predict(lightness).chroma[0]
    saturation = network.description.config.colour.saturation
    expected = np.broadcast_to(saturation * chroma_bins()[100], chroma.shape)
    np.testing.assert_allclose(chroma, expected, atol=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (50, 33)])
def test_any_shape_is_answered_at_its_own_size(shape):
    lightness = noise(2, *shape)
    answers = SeveralSizes(colours_network()).predict(lightness)
    assert answers.chroma.shape == (*lightness.shape, 2)
    assert np.isfinite(answers.chroma).all()


def test_class_and_novelty_are_those_of_the_networks_own_size():
    network, lightness = colours_network(), np.full((1, 48, 48), 60, np.float32)
    found, own = SeveralSizes(network).predict(lightness), network.predict(lightness[:, :32, :32])
    np.testing.assert_allclose(found.probabilities, own.probabilities, atol=1e-4)
    np.testing.assert_allclose(found.novelty, own.novelty, atol=1e-3)


def test_a_batch_is_answered_as_its_images_alone():
    network, lightness = SeveralSizes(colours_network()), noise(3, 48, 60)
    together = network.predict(lightness).chroma
    for one, each in zip(together, lightness, strict=True):
        np.testing.assert_allclose(one, network.predict(each[None]).chroma[0], atol=1e-3)


def test_a_head_of_313_colours_sees_a_photo_at_three_sizes_unless_it_is_to_be_fast(tmp_path):
    usual, fast = Colorizer.load(), Colorizer.load(fast=True)
    assert (usual.sizes, fast.sizes, usual.at_one_size().sizes) == (3, 1, 1)
    image = Image.of(np.random.default_rng(0).integers(0, 256, (90, 120, 1), np.uint8))
    once, thrice = (each.colorize(image).image.pixels for each in (fast, usual))
    np.testing.assert_array_equal(usual.at_one_size().colorize(image).image.pixels, once)
    assert not np.array_equal(once, thrice)
    # a class is looked for at the network's own size, which is all that it takes
    found, of_colours = usual.classify(image), usual.colorize(image).judgement
    assert found.probabilities == of_colours.probabilities
    assert found.probabilities == pytest.approx(fast.classify(image).probabilities, abs=0.05)
    export_safetensors(lite0_network(), tmp_path / "other.safetensors")
    other, hurried = (Colorizer.load(tmp_path / "other.safetensors", fast=fast) for fast in (False, True))
    assert other.sizes == hurried.sizes == 1
    assert [each.fast for each in (usual, fast, other, hurried)] == [False, True, False, False]
    made_by = [each.colorize(image).image.origin.computed_by.model for each in (usual, fast)]
    assert made_by == ["built-in", "built-in, at one size (--fast)"]
    assert usual.notes == fast.notes == other.notes == ()
    assert hurried.notes == (
        f"`fast` changes nothing: `{other.network.description.name}` predicts at one size anyway",
    )


def photo(height: int, width: int, kind: str = "PNG") -> bytes:
    file = BytesIO()
    PIL.fromarray(np.zeros((height, width), np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (96, 384)), (3, (96, 384)), (2, (96, 128)), (2, (144, 96)), (1, (96, 96))]
)
def test_what_the_logits_of_an_image_take_is_weighed(count, shape):
    placed = PlacedNetwork()
    placed.description = placed.description.model_copy(update={"size_px": 64})
    network = SeveralSizes(placed)
    lightness = np.zeros((count, *shape), np.float32)
    tracemalloc.start()
    network.logits(lightness)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    of_photo = network.answer_bytes(*(10 * side for side in shape))
    assert 0.7 < peak / (count * of_photo) <= 1
    data = photo(*(10 * side for side in shape))
    several, plain = Colorizer(network), Colorizer(colours_network())
    assert several.weigh(data) == plain.weigh(data) + of_photo > of_photo
    bitmap = photo(60, 80, "BMP")
    assert several.weigh(bitmap) == plain.weigh(bitmap) + network.answer_bytes(60, 80)
    # where the header does not say the shape, the longest that there is
    unknown = bitmap[:20]
    assert several.weigh(unknown) == plain.weigh(unknown) + network.answer_bytes(60, 9999)
    assert several.weigh(b"no image") == plain.weigh(b"no image") == 0


def test_neither_a_class_nor_a_reference_is_weighed_with_logits():
    colorizer, gray, wide = Colorizer(SeveralSizes(colours_network())), photo(60, 80), photo(60, 240)
    weighed: list[int] = []
    batcher = Batcher(colorizer)
    weigh = batcher._stages.weigh
    batcher._stages = batcher._stages._replace(weigh=lambda item: weighed.append(weigh(item)) or weighed[-1])
    try:
        batcher.submit(ImageRequest(gray, colour=False)).result()
        with pytest.raises(ConfigError, match="has no colours"):
            batcher.submit(ImageRequest(gray, reference=wide)).result()
    finally:
        batcher.close()
    pixels = [weigh_image(each).held_bytes for each in (gray, wide)]
    assert weighed == [pixels[0], colorizer.weigh(gray) + pixels[1]]
    assert pixels[0] < colorizer.weigh(gray)


def test_a_class_alone_is_named_at_one_size_by_the_server_too():
    seen, network = [], colours_network()
    predict = network.predict
    network.predict = lambda lightness, names=(): (
        seen.append(lightness.shape[1:]) or predict(lightness, names)
    )
    colorizer = Colorizer(SeveralSizes(network))
    photo = BytesIO()
    PIL.fromarray(np.arange(4800, dtype=np.uint8).reshape(60, 80)).save(photo, "PNG")
    batcher = Batcher(colorizer)
    try:
        named = batcher.submit(ImageRequest(photo.getvalue(), colour=False)).result().judgement
        assert seen == [(32, 43)]
        coloured = batcher.submit(ImageRequest(photo.getvalue())).result().judgement
    finally:
        batcher.close()
    assert sorted(seen[1:]) == [(24, 32), (32, 43), (48, 64)]
    assert named.probabilities == coloured.probabilities


def test_a_request_may_be_fast_beside_others_that_are_not():
    network, file = colours_network(), BytesIO()
    PIL.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)).save(file, "PNG")
    colorizer, gray = Colorizer(SeveralSizes(network)), file.getvalue()
    batcher = Batcher(colorizer)
    try:
        futures = [batcher.submit(ImageRequest(gray, fast=fast)) for fast in (True, False, True, False)]
        made = [future.result() for future in futures]
    finally:
        batcher.close()
    for each, expected in zip(made, 2 * (Colorizer(network), colorizer), strict=True):
        assert each.colorized is not None
        pixels = expected.colorize(gray).image.pixels
        np.testing.assert_allclose(each.colorized.image.pixels.astype(int), pixels.astype(int), atol=1)
    assert not np.array_equal(made[0].colorized.image.pixels, made[1].colorized.image.pixels)


@pytest.mark.parametrize("size_px", [16, 24, 32])
def test_a_small_networks_own_size_is_that_which_it_sees_when_fast(size_px):
    network = colours_network()
    network.description = network.description.model_copy(update={"size_px": size_px})
    image = Image.of(np.zeros((300, 400, 1), np.uint8))
    fast = Colorizer(network)
    assert (
        Colorizer(SeveralSizes(network)).class_input(image).shape == fast.class_input(image).shape == (32, 43)
    )


def test_a_folder_is_coloured_again_by_the_other_number_of_sizes(tmp_path):
    (tmp_path / "in").mkdir()
    PIL.fromarray(np.arange(3600, dtype=np.uint8).reshape(60, 60)).save(tmp_path / "in" / "a.png")
    colorize_folder(Colorizer.load(), list_folder(tmp_path / "in", tmp_path / "out"))
    with pytest.raises(RunError, match=r"predicted at another number of sizes \(\d; 1 with --fast\)"):
        colorize_folder(Colorizer.load(fast=True), list_folder(tmp_path / "in", tmp_path / "out"))
