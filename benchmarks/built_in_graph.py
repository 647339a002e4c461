"""The graph by which ONNX Runtime runs the built-in model: `built_in.onnx`, beside the weights that it names.

To be made again when the built-in weights get another architecture or the exporter another version. Whatever does not
depend on weights is computed once and for all; the weights stay where they are, under the names of the model's state.

    python benchmarks/built_in_graph.py
"""

import copy

import onnx

from knowhue.inference.export import folded, graph_of
from knowhue.inference.networks import find_model, open_torch
from knowhue.runs import BUILT_IN


def main() -> None:
    """Write the graph and print its size."""
    weights = find_model(BUILT_IN)
    module = open_torch(weights).module
    names = module.state_dict()
    model = graph_of(module, optimize=False)

    def name_of(initializer: str) -> str:
        name = initializer.removeprefix("deployed.")
        # the convolution that plain padding put after its padding
        return name if name in names else name.replace(".1.weight", ".weight")

    graph = model.graph
    own, shapes = list(graph.input), {each.name: list(each.dims) for each in graph.initializer}
    shapes = {each: shape for each, shape in shapes.items() if name_of(each) in names}
    others = [each for each in graph.initializer if each.name not in shapes]
    _replace(graph.initializer, others)
    # as inputs, the weights are unknown to the optimiser, which folds none of them
    for each, shape in shapes.items():
        graph.input.append(onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, shape))
    model = folded(model)
    graph = model.graph
    _replace(graph.input, own)
    for node in graph.node:
        for place, each in enumerate(node.input):
            node.input[place] = name_of(each) if each in shapes else each
    for each, shape in shapes.items():
        tensor = graph.initializer.add(name=name_of(each), dims=shape, data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=weights.name)
    target = weights.with_suffix(".onnx")
    target.write_bytes(model.SerializeToString())
    print(f"{target}: {target.stat().st_size} bytes")


def _replace(field, values) -> None:
    values = [copy.deepcopy(each) for each in values]
    del field[:]
    field.extend(values)


if __name__ == "__main__":
    main()
