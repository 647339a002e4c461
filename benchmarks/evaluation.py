"""CPU time of evaluating an image, as a ratio to training on one and to an earlier commit.

Each version of the code runs in separate processes, alternately, on one thread; the minimum CPU time over all rounds
counts. The model is the multi-task arm of the preset `demo`. `epoch` is the evaluation after an epoch, `final` the full
one at the end of a run with the features of EfficientNet-Lite0, `metrics` the same without them, and `trained` a step
of fine-tuning.

    python benchmarks/evaluation.py [--before COMMIT] [--size 64] [--images 64] [--rounds 3]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print milliseconds per image, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="commit to compare with")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--images", type=int, default=64, help="number of evaluated images")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.size, args.images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sources = {"now": ROOT / "src"}
        if args.before:
            archive = ["git", "-C", str(ROOT), "archive", args.before, "src"]
            subprocess.run(["tar", "-x", "-C", folder], input=subprocess.check_output(archive), check=True)
            sources["before"] = Path(folder) / "src"
        found = {name: [] for name in sources}
        for _ in range(args.rounds):
            for name, source in sources.items():
                found[name].append(run(source, args.size, args.images))
    least = {
        name: {part: min(each[part] for each in rounds) for part in rounds[0]}
        for name, rounds in found.items()
    }
    print(
        f"{'ms of CPU per image':20}"
        + "".join(f"{name:>10}" for name in least)
        + f"{'ratio':>10}{'of trained':>12}"
    )
    for part, now in least["now"].items():
        before = least.get("before", least["now"])[part]
        shown = "".join(f"{each[part]:10.2f}" for each in least.values())
        print(f"{part:20}{shown}{before / now:10.2f}{now / least['now']['trained']:12.0%}")


def run(source: Path, size: int, images: int) -> dict[str, float]:
    """Measure the code of a folder in a separate process."""
    command = [sys.executable, __file__, "--here", "--size", str(size), "--images", str(images)]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.check_output(command, env=environment).splitlines()[-1])


def measure(size: int, images: int) -> dict[str, float]:
    """Milliseconds of CPU per image."""
    from knowhue.presets import arm_config, edit, load_config
    from knowhue.training.loop import training_batches, validate
    from knowhue.training.phases import build_networks, make_train_state
    from knowhue.training.run import open_workspace
    from knowhue.training.step import train_step

    settings = [f"images.size_px={size}", f"images.drawn_count={4 * images}", "images.validation_share=0.25"]
    config = arm_config(load_config("demo", settings=settings), "multi")
    with tempfile.TemporaryDirectory() as folder:
        work = open_workspace(config, Path(folder), lambda _: None)
        networks = build_networks(work.engine, config, work.prepared.classes)
        state = make_train_state(work.engine, networks, config, "finetune")
        batch = next(iter(training_batches(work, config, "finetune", 0)))[0]
        count = len(work.prepared.positions("validation"))
        bare = edit(config, {"evaluation": {"networks": ()}})
        return {
            "epoch": cpu_ms(lambda: validate(work, config, networks)) / count,
            "metrics": cpu_ms(lambda: validate(work, bare, networks, full=True)) / count,
            "final": cpu_ms(lambda: validate(work, config, networks, full=True)) / count,
            "trained": cpu_ms(lambda: train_step(state, batch)) / len(batch.position),
        }


def cpu_ms(work: Callable[[], object], runs: int = 3) -> float:
    """The minimum over several runs, after a warm-up run."""
    times = []
    for _ in range(runs + 1):
        started = time.process_time()
        work()
        times.append(1000 * (time.process_time() - started))
    return min(times[1:])


if __name__ == "__main__":
    main()
