"""Tiny ONNX graphs with the inputs and outputs of third-party colorizers."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = {"siggraph17": 1, "eccv16": 1, "ddcolor": 3, "deoldify": 3}
OUTPUTS = {"siggraph17": 2, "eccv16": 2, "ddcolor": 2, "deoldify": 3}


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def write(path, recipe, nodes, arrays=(), size=(1, 256, 256), **changes):
    """Write a graph from `input` to `output` with the shapes of a recipe, and with `changes`."""
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
    """Write a model whose outputs are linear in its inputs: `weights` (out, in), `bias` (out,)."""
    kernel = np.array(weights, np.float32).reshape(OUTPUTS[recipe], INPUTS[recipe], 1, 1)
    arrays = {"w": kernel, "b": np.array(bias, np.float32)}
    return write(path, recipe, [node("Conv", "input w b", "output")], arrays, **changes)


def painted(path, recipe, colour, **changes):
    """Write a model that predicts one colour: a*b*, or sRGB codes; deoldify's are scaled by the input's gray."""
    weights = np.zeros((OUTPUTS[recipe], INPUTS[recipe]))
    if recipe == "deoldify":
        weights[:] = np.array(colour)[:, None] / 255 / 3
        colour = (0, 0, 0)
    return linear(path, recipe, weights, colour, **changes)
