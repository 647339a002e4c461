"""ONNX models agree with torch or are not written; files with other content are refused; the cost of int8."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from tiny_models import CLASSES, SIZE_PX, colours_network, describe, noise, small_network, two_stage_network

from knowhue.errors import ConfigError, ExtraError, ImageError, WeightsError
from knowhue.inference import onnx_network
from knowhue.inference import quantize as quantize_module
from knowhue.inference.export import PARITY_TOLERANCE, export_onnx, largest_differences
from knowhue.inference.networks import Predictions, TorchNetwork, find_model, open_network, open_torch
from knowhue.inference.onnx_network import INT8_KEY, OUTPUTS, PARITY_KEY, find_unsafe, open_onnx
from knowhue.inference.quantize import Example, Examples, measure_cost, quantize, read_examples
from knowhue.models.heads import unscale_chroma
from knowhue.models.multitask import Deployed


@pytest.fixture(scope="session")
def network():
    return two_stage_network()


@pytest.fixture(scope="session")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    # read from a file in float16, as the built-in model is; its ONNX file is in full, and may go on to 8 bits
    export_onnx(TorchNetwork(network.module, describe(precision="float16"), "cpu"), path)
    return path


@pytest.fixture(scope="session")
def opened(file):
    return open_onnx(file, threads=1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Waves of colour, eight of each class."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(8):
            phase = generator.uniform(0, 6, 3) + np.linspace(0, 5, 40)[:, None, None] * generator.uniform(
                0, 2, 3
            )
            rgb = 127 + 100 * np.sin(phase + np.linspace(0, 4, 36)[None, :, None])
            Image.fromarray(rgb.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_images_of_any_number_and_size_are_answered_as_by_torch(network, opened, count, height, width, seed):
    lightness = noise(count, height, width, seed)
    expected, found = network.predict(lightness), opened.predict(lightness)
    for name in OUTPUTS:
        one, other = getattr(expected, name), getattr(found, name)
        assert one.shape == other.shape
        assert other.dtype == np.float32
        assert np.abs(one - other).max() <= PARITY_TOLERANCE[name]
    assert np.abs(found.chroma).max() > 1


@pytest.fixture(scope="session")
def colours():
    return colours_network()


@pytest.fixture(scope="session")
def opened_colours(colours, tmp_path_factory):
    path = tmp_path_factory.mktemp("colours") / "model.onnx"
    export_onnx(colours, path)
    return open_onnx(path, threads=1)


@pytest.mark.parametrize("shape", [(2, 21, 34), (1, 16, 16), (1, 1, 1)])
def test_activations_are_those_of_torch_at_whole_strides(colours, opened_colours, shape):
    names = ("features_2", "features_4", "colour_logits")
    assert opened_colours.activation_names == colours.activation_names == names
    lightness = noise(*shape)
    expected, found = (each.predict(lightness, names).activations for each in (colours, opened_colours))
    rows, columns = (-(-side // 4) for side in shape[1:])
    for name, channels, scale in (("features_2", 8, 2), ("features_4", 12, 1), ("colour_logits", 313, 1)):
        assert (
            found[name].shape == expected[name].shape == (shape[0], channels, scale * rows, scale * columns)
        )
        assert found[name].dtype == np.float32
        assert np.allclose(found[name], expected[name], atol=1e-4)
    assert found["features_2"].std() > 0


def test_only_what_is_asked_for_is_given(opened_colours):
    assert list(opened_colours.predict(noise(1, 8, 8), ["features_4"]).activations) == ["features_4"]


def test_a_model_without_an_activation_says_which_it_has(network, opened):
    for each in (network, opened):
        with pytest.raises(
            ConfigError, match=r"`model` should give colour_logits\. Found .* features_2, features_4\."
        ):
            each.predict(noise(1, 8, 8), ["features_2", "colour_logits"])


def test_logits_are_what_the_chroma_is_the_annealed_mean_of(colours):
    lightness = noise(1, 16, 16)
    logits = torch.from_numpy(colours.predict(lightness, ["colour_logits"]).activations["colour_logits"])
    decoded = unscale_chroma(colours.module.model.colour.decode(logits)).permute(0, 2, 3, 1)
    assert np.allclose(colours.predict(lightness).chroma, decoded, atol=1e-4)


def measured(path: Path, key: str) -> dict[str, float]:
    """What a file says was measured when it was made."""
    return json.loads({each.key: each.value for each in onnx.load(path).metadata_props}[key])


def test_the_largest_differences_are_in_the_file(file, opened):
    found = measured(file, PARITY_KEY)
    assert set(found) == set(PARITY_TOLERANCE)
    assert all(0 <= value <= PARITY_TOLERANCE[name] for name, value in found.items())
    assert opened.description == describe()


@pytest.mark.parametrize("task", ["colour", "class"])
def test_a_head_that_is_not_there_is_left_out(tmp_path, task):
    network = two_stage_network((task,))
    differences = export_onnx(network, tmp_path / "model.onnx")
    answers = open_onnx(tmp_path / "model.onnx").predict(noise(2, 9, 13))
    assert (answers.chroma is None) == (task == "class")
    assert (answers.probabilities is None) == (task == "colour")
    assert answers.novelty.shape == (2,)
    assert len(differences) == 2


class Contrary(Deployed):
    """Predictions otherwise when it is traced than when it is run."""

    def forward(self, lightness):
        answer = super().forward(lightness)
        return answer._replace(chroma=answer.chroma + 1) if torch.compiler.is_exporting() else answer


def test_a_graph_that_answers_otherwise_is_never_written(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"as it was")
    with pytest.raises(WeightsError, match=r"within chroma 0\.01.* Found differences up to chroma 1,"):
        export_onnx(two_stage_network(("colour",), kind=Contrary), target)
    assert target.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_says_nothing_of_the_machine_that_made_it(file):
    data = file.read_bytes()
    assert b".py" not in data
    assert b"stack_trace" not in data


def test_running_imports_neither_torch_nor_onnx(file):
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from knowhue.inference.networks import open_network\n"
        f"network = open_network({str(file)!r})\n"
        "network.predict(np.zeros((1, 5, 5), np.float32))\n"
        "assert network.runtime == 'onnx'\n"
        "print(sorted({'torch', 'onnx', 'onnxscript', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_opens_by_its_suffix(file):
    assert open_network(file).runtime == "onnx"


def test_threads_change_no_answer(file, opened):
    lightness = noise(1, 40, 50)
    for one, other in zip(
        opened.predict(lightness)[:3], open_onnx(file, 2).predict(lightness)[:3], strict=True
    ):
        assert np.allclose(one, other, atol=1e-4)


def test_without_the_exporter_the_remedy_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExtraError, match=r"needs `onnxscript`, .*pip install -e '\.\[onnx\]'"):
        export_onnx(network, tmp_path / "model.onnx")


class Bomb:
    """Pickled code."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"not a model at all", "text"),
        (b"<!DOCTYPE html>", "an HTML page, .*"),
        (pickle.dumps(Bomb()), "no ONNX model"),
        (pickle.dumps([Bomb()], 0), "text"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line_and_not_run(tmp_path, data, kind, capfd):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(
        WeightsError, match=rf"readable \.onnx file\. Found: {kind}\. Copy or export it again"
    ) as caught:
        open_onnx(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_torn_file_is_refused(file, tmp_path, share):
    path = tmp_path / "model.onnx"
    data = file.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError):
        open_onnx(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="Found: no such file"):
        open_onnx(tmp_path / "none.onnx")


def _elsewhere(location="weights.bin"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def _graph(nodes=(), initializers=(), name="g"):
    output = helper.make_tensor_value_info("novelty", TensorProto.FLOAT, [4])
    source = helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["b", 1, "h", "w"])
    return helper.make_graph(list(nodes), name, [source], [output], list(initializers))


def _model(graph, **parts):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, **parts)


def _constant(tensor):
    return helper.make_node("Constant", [], ["w"], value=tensor)


def _sparse():
    return onnx.SparseTensorProto(values=_elsewhere(), indices=_elsewhere(), dims=[4])


def _in_branch():
    branch = helper.make_graph([_constant(_elsewhere())], "b", [], [])
    return _graph([helper.make_node("If", ["c"], ["novelty"], then_branch=branch, else_branch=branch)])


def _in_function():
    opset = [helper.make_opsetid("", 20)]
    return helper.make_function("local", "f", [], ["w"], [_constant(_elsewhere())], opset)


HIDING_PLACES = {
    "initializer": lambda: _model(_graph([helper.make_node("Identity", ["w"], ["novelty"])], [_elsewhere()])),
    "constant": lambda: _model(_graph([_constant(_elsewhere())])),
    "list": lambda: _model(_graph([helper.make_node("X", [], ["w"], many=[_elsewhere()])])),
    "branch": lambda: _model(_in_branch()),
    "sparse": lambda: _model(_graph([helper.make_node("X", [], ["w"], value=_sparse())])),
    "function": lambda: _model(_graph(), functions=[_in_function()]),
    "memory": lambda: _model(_graph(initializers=[_elsewhere("*/_ORT_MEM_ADDR_/*")])),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_weights_that_lie_elsewhere_are_never_fetched(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(HIDING_PLACES[place]().SerializeToString())
    with pytest.raises(WeightsError, match="read from elsewhere"):
        open_onnx(path)


def test_weights_that_lie_here_are_not_suspected(file):
    assert find_unsafe(file.read_bytes()) == (False, None)


def _tensors(message):
    """All tensors of a message, however deep, as protobuf itself reads them."""
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def test_a_description_that_damage_left_no_text_is_refused(file, tmp_path):
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(file.read_bytes().replace(b"somebody", b"some\xffody"))
    with pytest.raises(WeightsError, match=r"should be a readable \.onnx file. Found: 'utf-8'"):
        open_onnx(damaged)


@given(st.sampled_from(sorted(HIDING_PLACES)), st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_hiding_place_is_seen_or_refused_wherever_protobuf_reads_it(place, at, value):
    data = bytearray(HIDING_PLACES[place]().SerializeToString())
    data[at % len(data)] = value
    try:
        model = onnx.ModelProto.FromString(bytes(data))
    except DecodeError:
        return
    hidden = any(tensor.external_data or tensor.data_location for tensor in _tensors(model))
    assert _reads(bytes(data)) in ({True, None} if hidden else {True, False, None})


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(data):
    assert _reads(data) in {True, False, None}


def _reads(data):
    """What the guard says, None where it refuses to read."""
    try:
        return find_unsafe(data)[0]
    except DecodeError:
        return None


def test_a_number_where_a_graph_should_be_is_passed_over():
    assert find_unsafe(b"\x3d\x00\x00\x00\x80") == (False, None)


def test_operators_that_only_their_maker_has_are_refused(tmp_path):
    model = _model(_graph([helper.make_node("Steal", ["lightness"], ["novelty"], domain="evil")]))
    model.opset_import.append(helper.make_opsetid("evil", 1))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(
        WeightsError, match=r"without loops, branches and random numbers\. Found (evil|Steal)"
    ):
        open_onnx(tmp_path / "model.onnx")


def test_a_foreign_model_is_refused(tmp_path):
    onnx.save(
        _model(_graph([helper.make_node("Flatten", ["lightness"], ["novelty"])])), tmp_path / "model.onnx"
    )
    with pytest.raises(WeightsError, match="without a description"):
        open_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("part", ["input", "output", "size", "batch"])
def test_a_graph_with_other_inputs_outputs_or_one_size_says_what_it_has(file, tmp_path, part):
    model = onnx.load(file)
    if part in ("size", "batch"):
        for side in model.graph.input[0].type.tensor_type.shape.dim[
            slice(2, 4) if part == "size" else slice(1)
        ]:
            side.dim_value = 128
        found = "('batch', 1, 128, 128)" if part == "size" else "(128, 1, 'height', 'width')"
        found = f"Found lightness: float {re.escape(found)} and chroma: float"
    else:
        tensor = getattr(model.graph, part)[0]
        for node in model.graph.node:
            names = getattr(node, part)
            names[:] = ["renamed" if name == tensor.name else name for name in names]
        tensor.name = "renamed"
        found = "Found .*renamed: float"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match=rf"cannot be used\. It should take `lightness: float .*{found}"):
        open_network(tmp_path / "model.onnx")


@pytest.mark.parametrize("lie", [{"classes": ("one", "two")}, {"config": describe(("colour",)).config}])
def test_a_description_that_does_not_fit_is_refused(file, tmp_path, lie):
    model = onnx.load(file)
    if "config" in lie:
        del model.graph.output[0]  # the colours
    described = describe(**({"classes": ("one", "two")} if "classes" in lie else {}))
    model.metadata_props[0].value = described.model_dump_json()
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match=r"model\.onnx` cannot be used\. .*(chroma|probabilities|classes)"):
        open_network(tmp_path / "model.onnx")


@pytest.fixture(scope="session")
def eight_bits(file, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    return path, quantize(file, path, read_examples(photos, SIZE_PX))


def test_eight_bits_answer_nearly_as_float_and_say_so(opened, eight_bits):
    path, loss = eight_bits
    network = open_onnx(path)
    lightness = noise(2, 33, 47)
    assert not np.array_equal(network.predict(lightness).chroma, opened.predict(lightness).chroma)
    name = describe().name.replace("multi, seed 0", "multi, seed 0, in 8 bits")
    assert network.description == describe(precision="int8", name=name)
    assert measured(path, INT8_KEY) == loss._asdict()
    assert 0 < loss.chroma < 3
    assert abs(loss.ab_l1_after - loss.ab_l1_before) <= loss.chroma
    assert (loss.calibrated_on, loss.measured_on, loss.left_out) == (12, 12, 0)
    assert loss.accuracy_before is not None


def test_every_image_is_calibrated_on_measured_on_or_left_out(file, photos, tmp_path, monkeypatch):
    for name, most in {"CALIBRATED_ON": 9, "MEASURED_ON": 9}.items():
        monkeypatch.setattr(quantize_module, name, most)
    monkeypatch.setattr(quantize_module, "_quantized", lambda source, _: onnx.load(source))
    shutil.copytree(photos, tmp_path / "photos")
    Image.new("L", (9, 9)).save(tmp_path / "photos" / "a gray one.png")
    loss = quantize(file, tmp_path / "model.onnx", read_examples(tmp_path / "photos", SIZE_PX))
    found = sum(1 for each in (tmp_path / "photos").rglob("*.*") if each.is_file())
    assert loss.calibrated_on + loss.measured_on + loss.left_out == found
    assert loss.left_out >= found - 17 >= 7


def test_only_convolutions_but_the_first_and_the_last_are_in_eight_bits(eight_bits):
    model = onnx.load(eight_bits[0])
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    quantised = [made_by.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert quantised[0] is False
    assert quantised[-1] is False
    assert sum(quantised) >= 1
    assert {entry.key for entry in model.metadata_props} == {"knowhue", INT8_KEY}


def test_eight_bits_are_made_of_float_alone(eight_bits, photos, tmp_path):
    with pytest.raises(ConfigError, match=r"in float32. Found .* in int8"):
        quantize(eight_bits[0], tmp_path / "again.onnx", read_examples(photos, SIZE_PX))


def test_too_few_images_are_refused(photos):
    with pytest.raises(ImageError, match=r"at least 16 colour images, .* Found 8\."):
        read_examples(photos / CLASSES[0], SIZE_PX)
    with pytest.raises(ImageError, match=r"Found no such folder\."):
        read_examples(photos / "none", SIZE_PX)


def test_gray_images_measure_nothing(tmp_path):
    for number in range(16):
        Image.new("L", (9, 9), number).save(tmp_path / f"{number}.png")
    with pytest.raises(ImageError, match="Found 0 in colour among 8"):
        read_examples(tmp_path, SIZE_PX)


class Answering:
    """Gives one colour and one class to every image."""

    runtime = "fixed"
    description = describe()

    def __init__(self, chroma, label):
        self.chroma, self.label = chroma, label

    def predict(self, lightness):
        probabilities = np.eye(3, dtype=np.float32)[[self.label] * len(lightness)]
        chroma = np.full((*lightness.shape, 2), self.chroma, np.float32)
        return Predictions(chroma, probabilities, np.zeros(len(lightness), np.float32))


def test_the_loss_is_what_its_words_say():
    truth = [
        Example(noise(1, 4, 5)[0], np.full((4, 5, 2), 10, np.float32), label) for label in ("shark", "coral")
    ]
    loss = measure_cost(Answering(7, 2), Answering(12, 1), Examples(truth[:1] * 5, truth, 4))
    assert (loss.chroma, loss.ab_l1_before, loss.ab_l1_after) == (5, 3, 2)
    assert (loss.agreement, loss.accuracy_before, loss.accuracy_after) == (0, 0.5, 0)
    assert (loss.calibrated_on, loss.measured_on, loss.left_out) == (5, 2, 4)
    unlabelled = [each._replace(label="holiday") for each in truth]
    examples = Examples(truth, unlabelled, 0)
    assert measure_cost(Answering(7, 2), Answering(12, 1), examples).accuracy_before is None


def test_an_encoder_of_timm_passes_too(tmp_path):
    """Its depthwise convolutions pad evenly where they halve an image, unlike those of TensorFlow."""
    differences = export_onnx(small_network(), tmp_path / "model.onnx")
    assert all(value <= PARITY_TOLERANCE[name] for name, value in differences.items())


def test_a_system_that_does_not_tell_its_memory_gets_the_bound(monkeypatch):
    """Windows has no `os.sysconf`."""
    assert onnx_network._memory_bytes() > 0
    monkeypatch.delattr("os.sysconf", raising=False)
    assert onnx_network._memory_bytes() // 2 == onnx_network._MOST_BYTES


def test_the_built_in_graph_answers_as_torch_does_with_the_same_weights():
    built_in, reference = open_network("built-in"), open_torch(find_model("built-in"))
    assert built_in.description == reference.description
    differences = largest_differences(reference.predict, built_in.predict)
    assert all(value <= PARITY_TOLERANCE[name] for name, value in differences.items())
    lightness, names = noise(1, 40, 70), reference.activation_names
    assert built_in.activation_names == names
    found, expected = (each.predict(lightness, names).activations for each in (built_in, reference))
    assert all(np.allclose(found[name], expected[name], rtol=1e-3, atol=1e-2) for name in names)


def test_the_built_in_graph_holds_every_weight_by_its_name():
    graph = find_model("built-in").with_suffix(".onnx").read_bytes()
    names = open_torch(find_model("built-in")).module.state_dict()
    for_training = ("num_batches_tracked", "rebalance")
    assert [name for name in names if name.encode() not in graph and not name.endswith(for_training)] == []
    assert len(graph) < 100_000  # the graph alone


def test_a_photo_is_coloured_without_torch_or_numba(tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    Image.fromarray(np.tile(np.arange(120, dtype=np.uint8), (90, 1))).save(photo)
    program = (
        "import sys; from knowhue.apps.program import main\n"
        f"sys.argv = ['knowhue', 'colorize', {str(photo)!r}, '-o', {str(out)!r}, '--hint', '30%,40%=orange']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'numba', 'onnx', 'timm', 'kornia', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert out.exists()


def test_the_runtime_neither_sends_nor_keeps_what_it_opened(tmp_path: Path):
    """It has statistics for its makers, which wait on the disk to be sent."""
    opening = "from knowhue.inference.colorizer import Colorizer; Colorizer.load('built-in')"
    places = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    subprocess.run([sys.executable, "-c", opening], env=kept | places, check=True)
    assert [*tmp_path.rglob("*")] == []
