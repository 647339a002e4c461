"""Cost of each colour method: time of a training step and of a prediction, as ratios to the GAN with skips, and memory.

Every method runs in a separate process, so that its peak memory can be measured, and in rounds with the others, so that
other load slows all of them equally; ratios are medians over rounds. A step is one of fine-tuning, including encoder
and discriminator. Memory is the increase over a process that has only imported the project. Images are noise and
weights are random.

    python benchmarks/methods.py [--size 64] [--batch 16] [--rounds 3] [--methods l1,gan,...]
    python benchmarks/methods.py --paper --size 256 --batch 1 --rounds 1
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from knowhue.config import Config
from knowhue.presets import METHODS, PAPER_METHODS, edit
from knowhue.tensors import Batch
from knowhue.training.engine import Engine
from knowhue.training.phases import build_networks, make_train_state, predict
from knowhue.training.step import train_step

BASELINE = "unet"
MANY_PASSES = 50
"""Diffusion models with more passes are timed for two of them, and the time is multiplied."""


def main() -> None:
    """Measure every method in several rounds, and print a table."""
    args = _read_arguments()
    if args.child:
        print(json.dumps(measure(args.child, args.size, args.batch, args.steps)))
        return
    names = list(dict.fromkeys([BASELINE, *args.methods.split(",")]))
    rounds = [{name: _in_a_process(name, args) for name in names} for _ in range(args.rounds)]
    print(f"{args.size} pixels, batches of {args.batch}, {torch.get_num_threads()} threads, {_device()}")
    print(
        f"{'':20}{'parameters':>12}{'discriminator':>14}{'step':>8}{'images/s':>12}{'prediction':>12}{'peak MiB':>10}"
    )
    for name in names:
        step, prediction = (_ratio(rounds, name, key) for key in ("step_s", "predict_s"))
        first = rounds[0][name]
        pace = args.batch / float(np.median([each[name]["step_s"] for each in rounds]))
        mark = "*" if first["multiplied"] else " "
        print(
            f"{name:20}{first['parameters']:12,}{first['discriminator']:14,}{step:8.2f}{pace:12.1f}{prediction:11.2f}{mark}"
            f"{max(each[name]['peak_mib'] for each in rounds):10.0f}"
        )
    print(f"step and prediction: ratios to {BASELINE}.", end=" ")
    print("*: extrapolated from two passes of the network.")


def measure(name: str, size: int, batch_size: int, steps: int) -> dict[str, Any]:
    """Costs of one method in this process."""
    config = edit(Config(), (METHODS | PAPER_METHODS)[name].edits)
    config = edit(config, {"images": {"size_px": size}, "encoder": {"weights": "none"}})
    passes = config.colour.palette.sample_steps
    multiplied = config.colour.method == "palette" and passes > MANY_PASSES
    if multiplied:
        config = edit(config, {"colour": {"palette": {"sample_steps": 2}}})
    engine, before = Engine(config.training), _peak_mib()
    networks = build_networks(engine, config, classes="ab")
    model, discriminator = networks.model, networks.discriminator
    batch = _noise(batch_size, size, engine.device)
    state = make_train_state(engine, networks, config, "finetune")
    trained = _seconds(lambda: train_step(state, batch), steps, engine.device)
    peak = _peak_mib() - before
    model.eval()
    predicted = _seconds(lambda: predict(engine, model, batch), steps, engine.device)
    return {
        "step_s": trained,
        "predict_s": predicted * (passes / 2 if multiplied else 1),
        "multiplied": multiplied,
        "peak_mib": peak,
        "parameters": _learning(model),
        "discriminator": 0 if discriminator is None else _learning(discriminator),
    }


def _noise(count: int, size: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(count, 1, size, size, generator=generator)
    chroma = 20 * torch.randn(count, 2, size, size, generator=generator)
    positions = torch.arange(count)
    batch = Batch(positions, lightness, chroma, positions % 2, torch.ones(count))
    return Batch(*(None if each is None else each.to(device) for each in batch))


def _seconds(work: Callable[[], object], runs: int, device: torch.device) -> float:
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))  # the first one is a warm-up


def _peak_mib() -> float:
    """Peak memory of the GPU if there is one, otherwise peak resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _learning(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters() if each.requires_grad)


def _in_a_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name]
    for option in ("size", "batch", "steps"):
        command += [f"--{option}", str(getattr(args, option))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _ratio(rounds: Sequence[dict[str, dict[str, Any]]], name: str, key: str) -> float:
    return float(np.median([each[name][key] / each[BASELINE][key] for each in rounds]))


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images per batch")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all methods")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per round, after a warm-up step")
    parser.add_argument("--methods", help="methods to measure, separated by commas; by default all")
    parser.add_argument("--paper", action="store_true", help="the sizes of the papers")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.methods = args.methods or ",".join(PAPER_METHODS if args.paper else METHODS)
    return args


if __name__ == "__main__":
    main()
