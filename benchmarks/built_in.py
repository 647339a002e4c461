"""Export a run as the built-in model: `built_in.safetensors`, and `built_in.onnx`, its graph for ONNX Runtime.

Weights are stored in float16. The graph must be exported again if the architecture or the version of the exporter
changes. Everything in it that does not depend on weights is folded into constants; the weights stay in
`built_in.safetensors`, under the names of the model's state.

    python benchmarks/built_in.py [RUN --name-of-images world/train --licence TEXT --temperature 0.7 --saturation 0.7]
"""

import argparse
import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

import onnx

from knowhue.inference.export import export_graph, export_safetensors, fold_constants
from knowhue.inference.networks import find_model, open_torch
from knowhue.presets import edit
from knowhue.runs import (
    BUILT_IN,
    DEPLOYED,
    WEIGHTS,
    read_config,
    read_status,
    run_folder,
    write_config,
    write_status,
)
from knowhue.storage import file_digest
from knowhue.training.deploy import deploy
from knowhue.training.run import evaluate_run

CHOSEN_AFTERWARDS = ("temperature", "logit_adjustment", "saturation")
"""Settings of `colour` that do not affect training."""


def main() -> None:
    """Write the weights of a run, if one is given, then the graph, and print sizes and differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, nargs="?", help="run folder; by default only the graph is exported again"
    )
    parser.add_argument(
        "--name-of-images", default="", help="replaces the path of the images in the model's description"
    )
    parser.add_argument("--licence", default="", help="licence of the weights")
    for name in CHOSEN_AFTERWARDS:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            help=f"colour.{name}, if it should differ from the run's",
        )
    args = parser.parse_args()
    weights = find_model(BUILT_IN)
    if args.run is not None:
        chosen = {name: getattr(args, name) for name in CHOSEN_AFTERWARDS}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        network = open_torch(deploy(predicting_with(chosen, args.run)))
        described = network.description
        config = edit(described.config, {"images": {"path": args.name_of_images or None}})
        named = {"name": BUILT_IN, "config": config, "licence": args.licence}
        if described.start is not None and described.start.model == BUILT_IN:
            named["start"] = described.start.model_copy(update={"model": "the former built-in model"})
        differences = export_safetensors(network, weights, "float16", described.model_copy(update=named))
        print(f"{weights}: {weights.stat().st_size} bytes; largest differences to float32: {differences}")
    write_graph(weights)


def predicting_with(chosen: Mapping[str, float], run: Path) -> Path:
    """A run with the same weights and other prediction settings, scored again."""
    config = edit(read_config(run), {"colour": chosen})
    # the folder of a run that was trained with these settings
    folder = run_folder(run.resolve().parent.parent, run.parent.name, config)
    if folder != run.resolve():
        if (folder / WEIGHTS).exists() and file_digest(folder / WEIGHTS) != file_digest(run / WEIGHTS):
            raise SystemExit(
                f"{folder} already is a run with these settings: export that one, or move it away"
            )
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns(DEPLOYED, ".*"), dirs_exist_ok=True)
        write_config(folder, config)
        write_status(folder, read_status(folder))
        evaluate_run(folder)
    return folder


def write_graph(weights: Path) -> None:
    """Write the graph next to its weights, and print its size."""
    module = open_torch(weights).module
    names = module.state_dict()
    model = export_graph(module, optimize=False)

    def name_of(initializer: str) -> str:
        name = initializer.removeprefix("deployed.")
        # the export replaces a convolution by a sequence of padding (0) and convolution (1)
        return name if name in names else name.replace(".1.weight", ".weight")

    graph = model.graph
    own, shapes = list(graph.input), {each.name: list(each.dims) for each in graph.initializer}
    shapes = {each: shape for each, shape in shapes.items() if name_of(each) in names}
    others = [each for each in graph.initializer if each.name not in shapes]
    _replace(graph.initializer, others)
    # as inputs, the weights are unknown to the optimiser, so that it does not fold them
    for each, shape in shapes.items():
        graph.input.append(onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, shape))
    model = fold_constants(model)
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
