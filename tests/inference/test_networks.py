"""Untrusted model files cannot hang, fill the memory or give invalid answers; each is refused in one line."""

import json
import pickle
import time

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file
from test_onnx import Bomb
from tiny_models import describe, lite0_network, noise

from knowhue.config import ENCODERS
from knowhue.errors import WeightsError
from knowhue.inference import onnx_network
from knowhue.inference.export import export_safetensors
from knowhue.inference.networks import (
    BUILT_IN,
    Predictions,
    build_deployed,
    check_predictions,
    open_network,
)
from knowhue.inference.onnx_network import find_unsafe, open_onnx, run_with_timeout
from knowhue.models.multitask import Deployed, build_model
from knowhue.presets import edit


def _integers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _floats(name, values):
    return numpy_helper.from_array(np.array(values, np.float32), name)


def _node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


LAST = _node("Transpose", "lightness", "last", perm=[0, 2, 3, 1])
TWICE = _node("Concat", "last last", "twice", axis=3)
GRAYNESS = _node("ReduceMean", "lightness", "grayness1", keepdims=0, axes=[1, 2, 3])
HONEST = {
    "chroma": [LAST, _node("Concat", "last last", "chroma", axis=3)],
    "probabilities": [_node("Add", "flat thirds", "probabilities")],
    "novelty": [
        _node("ReduceMean", "lightness", "grayness1", keepdims=0, axes=[1, 2, 3]),
        _node("Identity", "grayness1", "novelty"),
    ],
}
"""What a model that is as it should be might do, by output; a stranger's does one of them otherwise."""


def write(path, before=(), description=None, functions=(), **outputs):
    """A model of three outputs whose metadata are ours: `write(path, chroma=[nodes that make chroma])`."""
    shared = [
        _node("ReduceMean", "lightness", "grayness", keepdims=0, axes=[2, 3]),
        _node("Sub", "grayness grayness", "nothing"),
        _node("Identity", "nothing", "flat"),
    ]
    nodes = [*shared, *before, *(node for name in HONEST for node in outputs.get(name, HONEST[name]))]
    values = [
        _floats("thirds", [[1 / 3, 1 / 3, 1 / 3]]),
        _floats("thirds2", [[1 / 3, 1 / 3, 1 / 3]] * 2),
        _floats("zero", 0.0),
        _floats("huge", 1e38),
        _floats("five", 5.0),
        _integers("vastly", 20_000, 20_000, 20, 10),
        _integers("from", 0),
        _integers("upto", 1),
        _floats("square", np.full((600, 600), 1 / 600)),
    ]
    shapes = {"chroma": ["b", "h", "w", 2], "probabilities": ["b", 3], "novelty": ["b"]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("lightness", TensorProto.FLOAT, ["b", 1, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        values,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    for key, value in ({"knowhue": (description or describe()).model_dump_json()}).items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def _body(*inputs, name="body"):
    """A graph within an operator, that hands on what it is given."""
    typed = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in inputs]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    return helper.make_graph([_node("Identity", inputs[-1] if inputs else "zero", "out")], name, typed, [out])


def _loop():
    go_on = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [_node("Identity", "go_on", "again"), _node("Add", "was zero", "is")],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            go_on,
            helper.make_tensor_value_info("was", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("is", TensorProto.FLOAT, None),
        ],
    )
    rounds = helper.make_node("Constant", [], ["rounds"], value=_integers("v", 1 << 62))
    yes = helper.make_node(
        "Constant", [], ["yes"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True])
    )
    return [rounds, yes, _node("Loop", "rounds yes grayness1", "novelty", body=body)]


def _branch():
    yes = helper.make_node(
        "Constant", [], ["yes"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True])
    )
    return [yes, _node("If", "yes", "novelty", then_branch=_body(), else_branch=_body())]


def _function(nodes, name="Relu"):
    opset = [helper.make_opsetid("", 17)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, opset)


REPEATING = {
    "loop": {"novelty": [GRAYNESS, *_loop()]},
    "branch": {"novelty": [GRAYNESS, *_branch()]},
    "scan": {
        "novelty": [GRAYNESS, _node("Scan", "grayness1", "novelty", body=_body("each"), num_scan_inputs=1)]
    },
    "map": {"novelty": [GRAYNESS, _node("SequenceMap", "grayness1", "novelty", body=_body("each"))]},
    "loop in a branch": {
        "novelty": [
            GRAYNESS,
            _node(
                "If",
                "yes",
                "novelty",
                then_branch=helper.make_graph(_loop(), "b", [], []),
                else_branch=_body(),
            ),
        ]
    },
    "function": {"functions": [_function([_node("Relu", "a", "b")])]},
    "chance": {"novelty": [_node("RandomUniformLike", "grayness1", "novelty")]},
    "runtime's own": {
        "novelty": [helper.make_node("FusedGemm", ["grayness1"], ["novelty"], domain="com.microsoft")]
    },
}


def refused(path, *words):
    """Opening a file is refused at once, in one line that names it."""
    started = time.monotonic()
    with pytest.raises(WeightsError) as raised:
        open_network(path)
    assert time.monotonic() - started < 5
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message
    assert [word for word in words if word not in message] == []
    return message


def test_a_stranger_that_does_as_ours_is_used(tmp_path):
    answers = open_network(write(tmp_path / "model.onnx")).predict(noise(3, 9, 7))
    assert answers.chroma is not None
    assert answers.probabilities is not None
    assert answers.chroma.shape == (3, 9, 7, 2)
    assert answers.probabilities.sum(1) == pytest.approx(1)


@pytest.mark.parametrize("kind", REPEATING)
def test_what_could_repeat_for_ever_is_refused_before_the_runtime_sees_it(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(onnx_network, "_open", lambda *_: pytest.fail("the runtime saw it"))
    refused(write(tmp_path / "model.onnx", **REPEATING[kind]), "without loops, branches and random numbers")


@pytest.mark.parametrize("field", [4, 7])
def test_an_operator_named_twice_is_all_that_it_is_named(field):
    """Of what stands twice protobuf takes the last."""
    node = _node("Relu", "a", "b").SerializeToString()
    for more in (bytes([field << 3 | 2, 4]) + b"Evil", b""):
        data = node + more if more else node
        graph = bytes([1 << 3 | 2, len(data)]) + data
        model = bytes([7 << 3 | 2, len(graph)]) + graph
        assert (find_unsafe(model)[1] is None) == (not more)


SMALL = [_node("ReduceMean", "vast", "small", keepdims=0), _node("Add", "grayness1 small", "novelty")]
NONSENSE = {
    "no number": (
        {"chroma": [LAST, TWICE, _node("Sub", "twice twice", "none"), _node("Div", "none none", "chroma")]},
        ["`chroma`", "nan"],
    ),
    "infinite": (
        {
            "novelty": [
                GRAYNESS,
                _node("Add", "grayness1 huge", "large"),
                _node("Mul", "large huge", "novelty"),
            ]
        },
        ["`novelty`", "inf"],
    ),
    "beyond colours": ({"chroma": [LAST, TWICE, _node("Mul", "twice huge", "chroma")]}, ["`chroma`"]),
    "three channels": (
        {"chroma": [LAST, _node("Concat", "last last last", "chroma", axis=3)]},
        ["`chroma`", "(2, 32, 47, 3)"],
    ),
    "one image of two": (
        {"chroma": [LAST, TWICE, _node("Slice", "twice from upto from", "chroma")]},
        ["`chroma`", "(1, 32, 47, 2)"],
    ),
    "not probable": (
        {
            "probabilities": [
                _node("Add", "flat thirds", "right"),
                _node("Mul", "right five", "probabilities"),
            ]
        },
        ["`probabilities`"],
    ),
    "four classes": (
        {"probabilities": [_node("Concat", "flat thirds2", "probabilities", axis=1)]},
        ["model.onnx"],
    ),
    "each column new": (
        {"novelty": [_node("ReduceMean", "lightness", "novelty", keepdims=0, axes=[1, 2])]},
        ["`novelty`", "(2, 47)"],
    ),
    "320 GB": (
        {
            "novelty": [
                GRAYNESS,
                _node("ReduceMean", "lightness", "grayness0", keepdims=0),
                _node("Expand", "grayness0 vastly", "vast"),
                *SMALL,
            ]
        },
        ["ONNX Runtime: it needs more memory than the limit of"],
    ),
    "320 GB of constants": (
        {"novelty": [GRAYNESS, _node("Expand", "five vastly", "vast"), *SMALL]},
        ["ONNX Runtime: it needs more memory than the limit of"],
    ),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_answers_nonsense_or_fills_the_memory_is_refused_when_it_is_opened(tmp_path, kind):
    nodes, words = NONSENSE[kind]
    refused(write(tmp_path / "model.onnx", **nodes), *words)


def test_what_computes_for_ever_is_left_and_not_asked_again(tmp_path, monkeypatch):
    chain = [_node("MatMul", "square square", "m0")]
    chain += [_node("MatMul", f"m{k} square", f"m{k + 1}") for k in range(1000)]
    late = [
        GRAYNESS,
        *chain,
        _node("ReduceMean", "m1000", "small", keepdims=0),
        _node("Add", "grayness1 small", "novelty"),
    ]
    path = write(tmp_path / "model.onnx", novelty=late)
    network = open_onnx(path)
    monkeypatch.setattr(onnx_network, "SECONDS", 0.1)
    with pytest.raises(WeightsError, match=r"took many times as long as a normal one\. Use another"):
        network.predict(noise(1, 8, 8))
    monkeypatch.setattr(onnx_network, "run_with_timeout", lambda *_: pytest.fail("it was run again"))
    with pytest.raises(WeightsError, match="is not run again"):
        network.predict(noise(1, 8, 8))


def test_the_built_in_model_may_take_its_time_and_is_asked_again(monkeypatch):
    network = open_network(BUILT_IN)
    monkeypatch.setattr(onnx_network, "SECONDS", 0.0)
    monkeypatch.setattr(onnx_network, "SECONDS_A_PIXEL", 0.0)
    for _ in range(2):
        assert len(network.predict(noise(1, 64, 64)).novelty) == 1


def test_who_does_not_hear_that_it_should_stop_is_left(monkeypatch):
    monkeypatch.setattr(onnx_network, "_GRACE_SECONDS", 0.05)
    asked = []
    with pytest.raises(TimeoutError):
        run_with_timeout(0.05, lambda: time.sleep(1), lambda: asked.append("stop"))
    assert asked == ["stop"]
    with pytest.raises(ZeroDivisionError):
        run_with_timeout(1, lambda: 1 / 0)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("safetensors") / "model.safetensors"
    export_safetensors(lite0_network(), path)
    return path


DIGITS = "5,000 digits"
LIES = {
    "temperature": (("calibration", "temperature"), [1e-300, 0, -1, 1e300, "x", None]),
    "calibration error": (("calibration", "ece_after"), [-1, 2]),
    "size": (("size_px",), [0, -64, 8, 100_000, DIGITS, 64.5]),
    "novelty": (("novelty_limit",), [0, 1e-300, -1, 1e300]),
    "references": (("references",), [0, -1, 10**12, 10**30]),
    "classes": (("classes",), [[], ["one"], ["", "b", "c"], ["x" * 300, "b", "c"], ["a"] * 100_000]),
    "width": (("config", "colour", "width"), [0, 10**6, 10**9, 10**30]),
    "method": (("config", "colour", "method"), ["palette", "pix2pix", "none"]),
    "encoder": (("config", "encoder", "name"), ["resnet18", "nothing", "../../x"]),
    "schema": (("schema",), ["knowhue.run", "", None]),
    "schema version": (("schema_version",), [0, 2, "1.0"]),
    "class names": (("classes",), [["a", "b", "a"]]),
    "metrics": (("metrics",), [{"made_up": {"value": 1, "low": 0, "high": 2}}]),
    "unknown key": (("more",), [1]),
}


CASES = {
    f"{name} {place}": (keys, value)
    for name, (keys, values) in LIES.items()
    for place, value in enumerate(values)
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_describes_itself_wrongly_is_refused(honest, tmp_path, case):
    keys, value = CASES[case]
    with safe_open(honest, "pt") as file:
        said = json.loads(file.metadata()["knowhue"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    inner = said
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path = tmp_path / "model.safetensors"
    save_file(weights, path, {"knowhue": json.dumps(said).replace(json.dumps(DIGITS), "9" * 5000)})
    with pytest.raises(Exception, match=r"should|cannot|another version") as raised:
        open_network(path)
    assert type(raised.value).__module__ == "knowhue.errors"
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"name": ' * 50_000, "null", "\x00"])
def test_a_description_that_is_none_is_refused(tmp_path, text):
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", {"knowhue": text})
    refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("is_sealed", [True, False])
def test_weights_of_a_type_that_numpy_lacks_are_compared_and_used(honest, tmp_path, is_sealed):
    path = tmp_path / "model.safetensors"
    with safe_open(honest, "pt") as file:
        said, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    short = {name: each.bfloat16() if each.is_floating_point() else each for name, each in weights.items()}
    if is_sealed:
        save_file(short, path, said)
        refused(path, "is damaged")
    else:
        save_file(short, path, {name: each for name, each in said.items() if name != "knowhue-sha256"})
        assert open_network(path).predict(np.full((1, 32, 32), 50, np.float32)).colours.shape == (
            1,
            32,
            32,
            2,
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_diverged_are_refused(honest, tmp_path, value):
    with safe_open(honest, "pt") as file:
        said, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    said.pop("knowhue-sha256")  # it would tell before
    weights["model.classifier.linear.bias"][0] = value
    save_file(weights, tmp_path / "model.safetensors", said)
    refused(tmp_path / "model.safetensors", "`probabilities`", "may have diverged")


def test_answers_as_described_are_passed_on_as_they_are():
    lightness = noise(2, 5, 6)
    answers = Predictions(
        np.ones((2, 5, 6, 2), np.float32), np.full((2, 3), 1 / 3, np.float32), np.zeros(2, np.float32)
    )
    assert check_predictions(answers, describe(), lightness) is answers
    for lacking in ("chroma", "probabilities", "novelty"):
        with pytest.raises(WeightsError, match=f"`{lacking}` of shape"):
            check_predictions(answers._replace(**{lacking: None}), describe(), lightness)
    with pytest.raises(WeightsError, match=r"`chroma` of shape None"):
        check_predictions(answers, describe(("class",)), lightness)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((1, 3, 2, 2), np.float32), "shape"),  # one image of two
        (np.zeros((2, 3, 4), np.float32), "shape"),
        (np.zeros((2, 3, 0, 4), np.float32), "shape"),
        (np.full((2, 3, 2, 2), np.nan, np.float32), "finite"),
    ],
)
def test_activations_that_are_no_finite_maps_are_refused(values, said):
    right, lightness = np.ones((2, 3, 2, 2), np.float32), noise(2, 8, 8)
    answers = Predictions(
        None, np.full((2, 3), 1 / 3, np.float32), np.zeros(2, np.float32), {"features_4": right}
    )
    assert check_predictions(answers, describe(("class",)), lightness) is answers
    with pytest.raises(WeightsError, match=rf"`features_8`.* {said}"):
        check_predictions(
            answers._replace(activations={"features_8": values}), describe(("class",)), lightness
        )


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_by_another_name_is_refused_and_not_run(tmp_path, protocol, capfd):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weights": Bomb()}, protocol))
    with pytest.raises(WeightsError, match="readable safetensors file") as caught:
        open_network(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_torch_checkpoint_by_another_name_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="readable safetensors file"):
        open_network(tmp_path / "model.safetensors")


def test_weights_without_a_description_are_refused(tmp_path):
    save_file({"weights": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="without a description"):
        open_network(tmp_path / "model.safetensors")
    save_file({"weights": torch.zeros(3)}, tmp_path / "model.safetensors", {"knowhue": "no json"})
    with pytest.raises(WeightsError, match=r"can read\. Found: Invalid JSON: .* Upgrade knowhue"):
        open_network(tmp_path / "model.safetensors")


@pytest.mark.parametrize("recipe", [None, "ddcolor"])
@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".onnx", "/".join(["y" * 200] * 30)])
def test_a_name_that_is_too_long_is_refused_as_no_model(name, recipe):
    with pytest.raises(WeightsError, match=r"^`model` should be .* Found .*`[xy/]{200}\.\.\.`\.$"):
        open_network(name, recipe)


@pytest.mark.parametrize("head", [("unet", "l1"), ("feedforward", "classification")])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_model_rebuilt_from_its_weights_predicts_alike_and_draws_nothing(encoder, head):
    """Whatever is in no file, such as constants of layers, is made when it is built."""
    changes = {"encoder": {"name": encoder}, "colour": dict(zip(("method", "loss"), head, strict=True))}
    description = describe(config=edit(describe().config, changes))
    made = Deployed(build_model(description.config, 3), 1.5, 12, 0.3).eval()
    before = torch.random.get_rng_state()
    rebuilt = build_deployed(description, made.state_dict(), "it")
    assert torch.equal(torch.random.get_rng_state(), before)
    lightness = torch.from_numpy(noise(1, 40, 33))[:, None]
    with torch.inference_mode():
        (*answers, inside), (*expected, expected_inside) = rebuilt(lightness), made(lightness)
    assert all(map(torch.equal, answers, expected))
    assert inside.keys() == expected_inside.keys()
    assert all(torch.equal(inside[name], expected_inside[name]) for name in inside)
    assert not any(tensor.requires_grad != original.requires_grad for tensor, original in zip(
        rebuilt.parameters(), made.parameters(), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_description_whose_number_of_images_is_text_is_refused(honest, tmp_path, name):
    with safe_open(honest, "pt") as file:
        described = json.loads(file.metadata()["knowhue"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    described["images"][name] = "many"
    save_file(weights, tmp_path / "model.safetensors", {"knowhue": json.dumps(described)})
    refused(tmp_path / "model.safetensors", f"Found: `images.{name}` should be a whole number, found many.")


@pytest.mark.parametrize(
    "changes", [{"schema_version": 2, "rings": 3}, {"schema": "other"}, {"schema_version": ...}]
)
def test_a_model_of_another_version_is_refused_as_that(honest, tmp_path, changes):
    with safe_open(honest, "pt") as file:
        described = json.loads(file.metadata()["knowhue"]) | changes
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps({key: value for key, value in described.items() if value is not ...})
    save_file(weights, tmp_path / "model.safetensors", {"knowhue": text})
    refused(tmp_path / "model.safetensors", "written by another version of knowhue", "Export its run again")
