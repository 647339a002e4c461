"""Graphs of a few numbers with the inputs and outputs of others' colorizers."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = {"siggraph17": 1, "eccv16": 1, "ddcolor": 3, "deoldify": 3}
OUTPUTS = {"siggraph17": 2, "eccv16": 2, "ddcolor": 2, "deoldify": 3}


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def write(path, recipe, nodes, arrays=(), size=(1, 256, 256), **changes):
    """A graph from `input` to `output` as files of a recipe have it, with some parts changed."""
    batch, height, width = size
    shapes = {
        "input": changes.get("taken", [batch, INPUTS[recipe], height, width]),
        "output": changes.get("answered", [batch, OUTPUTS[recipe], height, width]),
    }
    kind = changes.get("kind", TensorProto.FLOAT)
    ends = {name: helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()}
    more = [helper.make_tensor_value_info(name, kind, [1]) for name in changes.get("more_inputs", ())]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(arrays).items()]
    graph = helper.make_graph(list(nodes), "g", [ends["input"], *more], [ends["output"]], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def linear(path, recipe, weights, bias, **changes):
    """Each answer a sum of what is given, by `weights` (out, in), and a bias (out,)."""
    kernel = np.array(weights, np.float32).reshape(OUTPUTS[recipe], INPUTS[recipe], 1, 1)
    arrays = {"w": kernel, "b": np.array(bias, np.float32)}
    return write(path, recipe, [node("Conv", "input w b", "output")], arrays, **changes)


def painted(path, recipe, colour, **changes):
    """A model that answers one colour everywhere: a*b*, or sRGB codes, and of deoldify black to white."""
    weights = np.zeros((OUTPUTS[recipe], INPUTS[recipe]))
    if recipe == "deoldify":
        weights[:] = np.array(colour)[:, None] / 255 / 3
        colour = (0, 0, 0)
    return linear(path, recipe, weights, colour, **changes)
