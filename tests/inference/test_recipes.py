"""Recipes for third-party models: inputs, outputs and refused files, tested with tiny networks."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image
from skimage.color import rgb2lab
from tiny_models import describe
from tiny_third_party import INPUTS, OUTPUTS, linear, node, painted, write
from videos import drawn, make_video

from knowhue.errors import ConfigError, RunError, WeightsError
from knowhue.images.image import Image as KnowhueImage
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.folder import colorize_folder
from knowhue.inference.hints import Hint, Strokes
from knowhue.inference.listing import list_folder
from knowhue.inference.networks import open_network
from knowhue.inference.onnx_network import OPERATORS, Session
from knowhue.inference.recipes import RECIPES, UNSUPPORTED, open_recipe
from knowhue.inference.reference import Reference
from knowhue.inference.video import colorize_video

FREE = ["batch", None, "height", "width"]


def gray_photo(height=40, width=90):
    codes = np.linspace(30, 220, height * width).reshape(height, width, 1)
    return KnowhueImage.of(codes.astype(np.uint8))


def lab(pixels):
    return rgb2lab(pixels / np.iinfo(pixels.dtype).max)


CONVENTIONS = {
    # what is given is 0.4 times L*, 0 to 100
    "siggraph17": ([[0.4], [-0.2]], (1, 2), lambda code, light: (0.4 * light + 1, -0.2 * light + 2)),
    "eccv16": ([[0.4], [-0.2]], (1, 2), lambda code, light: (0.4 * light + 1, -0.2 * light + 2)),
    # sRGB codes, 0 to 1; each channel the same
    "ddcolor": ([[30, 0, 0], [0, 10, -40]], (1, 2), lambda code, light: (30 * code + 1, -30 * code + 2)),
    # sRGB codes, 0 to 255, red first, in and out
    "deoldify": (
        np.diag([1, 0.8, 0.6]),
        (0, 0, 0),
        lambda code, light: rgb2lab(np.stack([code, 0.8 * code, 0.6 * code], -1))[..., 1:].transpose(2, 0, 1),
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_given_and_answered_is_scaled_as_by_its_authors(tmp_path, recipe):
    weights, bias, expected = CONVENTIONS[recipe]
    network = open_recipe(linear(tmp_path / "m.onnx", recipe, weights, bias, size=(1, 16, 32)), recipe)
    code = np.linspace(0, 1, 16 * 32).reshape(16, 32)
    light = rgb2lab(np.repeat(code[..., None], 3, -1))[..., 0]
    chroma = network.predict(light[None].astype(np.float32)).chroma
    assert chroma is not None
    assert chroma.dtype == np.float32
    for found, wanted in zip(np.moveaxis(chroma[0], -1, 0), expected(code, light), strict=True):
        assert np.abs(found - wanted).max() < 0.05
        assert np.ptp(wanted) > 5


@pytest.mark.parametrize(("recipe", "colour"), [
    ("siggraph17", (20, -15)), ("eccv16", (-12, 14)), ("ddcolor", (14, 16)), ("deoldify", (255, 215, 200)),
])  # fmt: skip
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_known_colours_come_out_to_the_unit_and_the_lightness_stays(tmp_path, recipe, colour, depth):
    top = np.iinfo(depth).max
    photo = KnowhueImage.of(np.full((30, 50, 1), round(0.55 * top), depth))
    made = Colorizer.load(painted(tmp_path / "m.onnx", recipe, colour), recipe).colorize(photo)
    pixels = made.image.pixels
    assert pixels.dtype == depth
    wanted = colour if recipe != "deoldify" else rgb2lab(0.55 * np.array([[colour]]) / 255)[0, 0, 1:]
    before, after = lab(np.repeat(photo.pixels, 3, -1)), lab(pixels)
    assert np.abs(after[..., 1:] - wanted).max() < 1
    assert np.abs(after[..., 0] - before[..., 0]).max() < (0.5 if depth is np.uint8 else 0.01)


@pytest.mark.parametrize("recipe", RECIPES)
def test_gray_stays_gray_code_by_code(tmp_path, recipe):
    colour = (0,) * OUTPUTS[recipe] if recipe != "deoldify" else (255,) * 3
    made = Colorizer.load(painted(tmp_path / "m.onnx", recipe, colour), recipe).colorize(gray_photo())
    assert (made.image.pixels == gray_photo().pixels).all()
    assert "still nearly gray" in made.judgement.warnings[-1]


def test_a_fixed_size_is_filled_however_long_the_image_is(tmp_path):
    """Left blue, right red: a graph that takes 256 x 256 and nothing else."""
    field = np.zeros((1, 2, 256, 256), np.float32)
    field[:, 1, :, :128], field[:, 0, :, 128:] = -30, 30
    nodes = [
        node("ReduceMean", "input", "mean", keepdims=1),
        node("Sub", "mean mean", "zero"),
        node("Add", "zero f", "output"),
    ]
    path = write(tmp_path / "m.onnx", "eccv16", nodes, {"f": field})
    colorizer = Colorizer.load(path, "eccv16")
    for height, width in ((20, 300), (300, 20), (256, 256), (7, 5)):
        photo = KnowhueImage.of(np.full((height, width, 1), 120, np.uint8))
        assert colorizer.network_input(photo).shape == (256, 256)
        found = lab(colorizer.colorize(photo).image.pixels)
        assert found.shape == (height, width, 3)
        assert np.abs(found[:, 0, 1:] - (0, -30)).max() < 1
        assert np.abs(found[:, -1, 1:] - (30, 0)).max() < 1


@pytest.mark.parametrize(("recipe", "side"), [("siggraph17", 256), ("ddcolor", 512), ("deoldify", 256)])
def test_a_file_for_any_size_sees_that_of_its_authors_which_is_a_multiple_of_its_strides(
    tmp_path, recipe, side
):
    nodes = [
        node("AveragePool", "input", "small", kernel_shape=[32, 32], strides=[32, 32]),
        node("Resize", "small  scales", "large"),
        node("Add", "large input", "both"),  # which fails where 32 does not divide the size
        node("Conv", "both w", "output"),
    ]
    nodes[1].input[:] = ["small", "", "scales"]
    arrays = {
        "scales": np.array([1, 1, 32, 32], np.float32),
        "w": np.ones((OUTPUTS[recipe], INPUTS[recipe], 1, 1), np.float32) / 100,
    }
    arrays["w"] *= 50 if recipe == "deoldify" else 1
    path = write(tmp_path / "m.onnx", recipe, nodes, arrays, taken=FREE, answered=FREE)
    colorizer = Colorizer.load(path, recipe)
    assert colorizer.network.description.shape == (side, side)
    assert colorizer.colorize(gray_photo()).image.pixels.shape == (40, 90, 3)


def test_a_smaller_answer_is_enlarged(tmp_path):
    """As ECCV16's of 56 x 56 for 224 x 224."""
    arrays = {"w": np.full((2, 1, 1, 1), 0.3, np.float32)}
    nodes = [
        node("AveragePool", "input", "p", kernel_shape=[4, 4], strides=[4, 4]),
        node("Conv", "p w", "output"),
    ]
    path = write(tmp_path / "m.onnx", "eccv16", nodes, arrays, size=(1, 32, 64), answered=[1, 2, 8, 16])
    network = open_recipe(path, "eccv16")
    light = np.broadcast_to(np.linspace(0, 100, 64, dtype=np.float32), (1, 32, 64))
    chroma = network.predict(light).chroma
    assert chroma is not None
    assert chroma.shape == (1, 32, 64, 2)
    assert np.abs(chroma[..., 4:-4, :] - 0.3 * light[..., 4:-4, None]).max() < 0.5


@pytest.mark.parametrize("batch", [1, "batch"])
def test_several_images_are_answered_as_one_by_one(tmp_path, monkeypatch, batch):
    counts = []
    run = Session.run
    monkeypatch.setattr(
        Session,
        "run",
        lambda self, names, given: counts.append(len(given["input"])) or run(self, names, given),
    )
    network = open_recipe(
        linear(tmp_path / "m.onnx", "eccv16", [[0.3], [0.1]], (0, 0), size=(batch, 16, 16)), "eccv16"
    )
    light = np.random.default_rng(0).uniform(0, 100, (3, 16, 16)).astype(np.float32)
    counts.clear()
    together = network.predict(light).chroma
    assert counts == ([1, 1, 1] if batch == 1 else [3])
    for place, each in enumerate(light):
        assert np.array_equal(network.predict(each[None]).chroma[0], together[place])


def test_it_says_which_file_made_the_colours_and_nothing_of_class_or_novelty(tmp_path):
    path = painted(tmp_path / "m.onnx", "ddcolor", (10, 10))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = Colorizer.load(path, "ddcolor", digest.upper()).colorize(gray_photo())
    assert made.image.origin.computed_by == (f"ddcolor (SHA-256 {digest})", f"ddcolor-{digest}")
    record = json.loads(json.dumps(made.judgement.as_record(), allow_nan=False))
    assert (record["label"], record["novelty"], record["warnings"]) == (None, None, [])
    assert str(tmp_path) not in str(made.image.origin)


@pytest.fixture
def model(tmp_path):
    return painted(tmp_path / "m.onnx", "siggraph17", (20, 15))


WANTED = {
    "hints": (Hint(0.5, 0.5, 10, 10),), "uncertainty": True, "sample": 2, "unknown_below": 0.5,
    "strokes": Strokes(np.array([0.5]), np.array([0.5]), np.array([[10, 10]])),
    "reference": Reference((), np.zeros((1, 1, 2), np.float32), "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_no_recipe_can_do_is_refused_by_name_before_work(model, name, monkeypatch):
    colorizer = Colorizer.load(model, "siggraph17")
    monkeypatch.setattr(colorizer.network, "predict", lambda _: pytest.fail("it was asked"))
    with pytest.raises(
        ConfigError, match=f"^`{name}` is more than the recipe `siggraph17` can do: "
    ) as caught:
        colorizer.colorize(gray_photo(), ColorizeOptions()._replace(**{name: WANTED[name]}))
    assert "\n" not in str(caught.value)


def test_a_class_is_refused(model):
    with pytest.raises(ConfigError, match=r"should have a class head\. Found `siggraph17"):
        Colorizer.load(model, "siggraph17").classify(gray_photo())


def test_a_folder_and_its_album_go_the_same_way_and_another_file_does_not_go_on(model, tmp_path):
    (tmp_path / "in").mkdir()
    for name, gray in (("a.png", 100), ("b.jpg", 150)):
        Image.new("L", (40, 30), gray).save(tmp_path / "in" / name)
    summary = colorize_folder(
        Colorizer.load(model, "siggraph17"), list_folder(tmp_path / "in", tmp_path / "out"), album=True
    )
    assert (summary.made, summary.failed, summary.notes) == (2, 0, ())
    assert np.abs(lab(np.asarray(Image.open(tmp_path / "out" / "a.png")))[..., 1:] - (20, 15)).max() < 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "colorized.jsonl").read_text().splitlines()]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert {line["model"] for line in lines} == {f"siggraph17 (SHA-256 {digest})"}
    for other in (
        Colorizer.load(model, "eccv16"),
        Colorizer.load(painted(tmp_path / "n.onnx", "siggraph17", (9, 9)), "siggraph17"),
    ):
        with pytest.raises(RunError, match="made by another model"):
            colorize_folder(other, list_folder(tmp_path / "in", tmp_path / "out"), album=True)


def test_a_video_goes_the_same_way(model, tmp_path):
    source = make_video(tmp_path / "in.mp4", drawn(3))
    summary = colorize_video(Colorizer.load(model, "siggraph17"), source, tmp_path / "out.mp4")
    assert (summary.frames, summary.novel, summary.judgement.novelty) == (3, 0, None)
    assert summary.judgement.chroma == pytest.approx(25, abs=2)
    with pytest.raises(ConfigError, match="`unknown_below` is more than the recipe"):
        colorize_video(
            Colorizer.load(model, "siggraph17"),
            source,
            tmp_path / "b.mp4",
            options=ColorizeOptions(unknown_below=0.2),
        )


MISFITS = {
    "no gray in three": ("ddcolor", {"taken": [1, 1, 16, 16]}, "should take one float tensor"),
    "colours of another kind": ("deoldify", {"answered": [1, 2, 16, 16]}, "recipe `deoldify` does"),
    "hints of its own": ("siggraph17", {"more_inputs": ["mask"]}, "mask: float"),
    "half precision": ("eccv16", {"kind": TensorProto.FLOAT16}, "float16"),
    "two at once": ("eccv16", {"size": (2, 16, 16)}, r"Found input: float \(2, 1, 16, 16\)"),
    "flat": ("eccv16", {"taken": [1, 1], "answered": [1, 1]}, r"input: float \(1, 1\)"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_another_interface_is_refused_by_name(tmp_path, case):
    recipe, changes, words = MISFITS[case]
    kind = changes.get("kind")
    taken = changes.get("taken", [0, INPUTS[recipe], 0, 0])
    answered = changes.get("answered", [0, OUTPUTS[recipe], 0, 0])
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    nodes, arrays = [node("Conv", "input w", "output")], {"w": np.ones((answered[1], taken[1], 1, 1), dtype)}
    if case == "flat":
        nodes, arrays = [node("Relu", "input", "output")], {}
    path = write(tmp_path / "m.onnx", recipe, nodes, arrays, **{"size": (1, 16, 16), **changes})
    with pytest.raises(WeightsError, match=words) as caught:
        open_recipe(path, recipe)
    assert f"recipe `{recipe}`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_deoldify_without_its_scaling_is_refused(tmp_path):
    """Exported as it was trained: in and out as ImageNet is scaled, about -2 to 2.6."""
    path = linear(tmp_path / "m.onnx", "deoldify", np.eye(3) * 4.8 / 255, (-2.1, -2, -1.8))
    with pytest.raises(WeightsError, match=r"RGB of 0 to 255.*Found -2.1 to 3.* without its scaling"):
        open_recipe(path, "deoldify")


@pytest.mark.parametrize("kind", ["nan", "vast"])
def test_answers_that_are_no_colours_are_refused(tmp_path, kind):
    bias = (float("nan"), 0) if kind == "nan" else (1e6, 0)
    with pytest.raises(
        WeightsError, match=r"should return an output with finite numbers up to 10000\. Found (nan|1e.06)"
    ):
        open_recipe(linear(tmp_path / "m.onnx", "eccv16", [[0], [0]], bias), "eccv16")


def test_an_answer_of_another_shape_than_it_says_is_refused(tmp_path):
    """Of as many channels as the image is bright, which nobody can know before."""
    nodes = [
        node("ReduceMax", "input", "bright", keepdims=0),
        node("Cast", "bright", "whole", to=TensorProto.INT64),
        node("Unsqueeze", "whole zero", "channels"),
        node("Concat", "one channels sides", "shape", axis=0),
        node("Expand", "bright shape", "output"),
    ]
    arrays = {"zero": np.array([0]), "one": np.array([1]), "sides": np.array([2, 2])}
    path = write(tmp_path / "m.onnx", "eccv16", nodes, arrays, answered=[1, None, 2, 2])
    with pytest.raises(
        WeightsError,
        match=r"should return an output of shape \(1, 2, 'h', 'w'\)\. Found shape \(1, 100, 2, 2\)",
    ):
        open_recipe(path, "eccv16")


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan", "RandomNormal", "Bernoulli"])
def test_what_repeats_branches_or_is_random_is_refused_before_the_runtime_sees_it(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr("knowhue.inference.onnx_network._open", lambda *_: pytest.fail("the runtime saw it"))
    path = write(tmp_path / "m.onnx", "eccv16", [node(kind, "input", "output")])
    with pytest.raises(WeightsError, match=f"without loops, branches and random numbers. Found {kind}"):
        open_recipe(path, "eccv16")


def test_weights_in_another_file_are_refused_with_the_remedy(tmp_path):
    path = linear(tmp_path / "m.onnx", "eccv16", [[1], [1]], (0, 0))
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0, location="m.data")
    with pytest.raises(WeightsError, match=r"weights to be read from elsewhere\. Join them: `onnx\.save"):
        open_recipe(path, "eccv16")
    onnx.save(onnx.load(path), tmp_path / "joined.onnx")
    assert open_recipe(tmp_path / "joined.onnx", "eccv16").runtime == "onnx"


def test_no_known_operator_holds_a_graph_or_chance():
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name)
        kinds = {each.type for each in schema.attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}, name
        assert "seed" not in schema.attributes, name


WRONG = {
    "a recipe of another name": (
        ("dcolor", None),
        ConfigError,
        "Found `recipe = dcolor`. Did you mean `ddcolor`?",
    ),
    "no checksum": (
        ("ddcolor", "abc"),
        ConfigError,
        "`sha256` should be 64 hex digits. Found `sha256 = abc`",
    ),
    "a long text": (("ddcolor", "z" * 999), ConfigError, r"Found `sha256 = z{80}\.\.\.`"),
    "another file": (
        ("siggraph17", "0" * 64),
        WeightsError,
        "should have the SHA-256 0{64}. Found [0-9a-f]{64}",
    ),
    "a checksum alone": ((None, "0" * 64), ConfigError, "name its recipe, too"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_refused(model, case):
    words, kind, said = WRONG[case]
    with pytest.raises(kind, match=said):
        open_network(model, *words)


def test_the_suffix_may_be_in_capitals(model, tmp_path):
    assert open_network(model.rename(tmp_path / "M.ONNX"), "siggraph17").runtime == "onnx"


def test_models_of_ours_take_no_recipe(tmp_path):
    for name, found in (("built-in", "`built-in`"), ("none.onnx", "no file `none.onnx`")):
        with pytest.raises(
            WeightsError, match=rf"a third-party \.onnx file for the recipe `ddcolor`. Found {found}\."
        ):
            open_network(name, "ddcolor")
    (tmp_path / "ours.safetensors").write_bytes(describe().model_dump_json().encode())
    with pytest.raises(WeightsError, match="third-party"):
        open_network(tmp_path / "ours.safetensors", "ddcolor")


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07" * 40])
def test_what_is_no_model_is_refused(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match="`"):
        open_recipe(tmp_path / "m.onnx", "ddcolor")
