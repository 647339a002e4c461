"""A few photos of your own: gain of `--start-from` over the ImageNet encoder, with equal numbers of steps.

A multi-task model is trained on some photos with the settings of a given model (encoder, colour head, size) from two
starts: the encoder's ImageNet weights of its pip package, and the model's encoder and heads (`--start-from`); with
`--encoder-alone` also from the model's encoder with new heads. All see the same photos in the same order in the same
number of steps, which take the same time, because only the weights of the networks differ. The model's own training
photos are left out: those listed in `--seen`, a manifest whose column `original` ends in `<split>/<class>/<file>`.
Printed are the scores of the last epoch on all of `--test`, the differences from the first start with 95 % intervals
over its images (after averaging each image over seeds), and the CPU seconds of training.

    python benchmarks/start_from.py IMAGES/train --test IMAGES/val --seen MANIFEST
        --model built-in --photos 50:30+15 200:30+15 1000:8+4 [--seeds 1]
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Config
from knowhue.presets import edit
from knowhue.randomness import stream
from knowhue.runs import read_start
from knowhue.storage import read_csv, read_json
from knowhue.training.run import train
from knowhue.training.start import start_from

METRICS = {"ab_l1": "a*b* error", "ciede2000": "CIEDE2000", "correct": "accuracy, %"}
STARTS = {"ImageNet encoder": {"weights": "package", "with_heads": False}, "--start-from": {}}
ALONE = {"the model's encoder": {"with_heads": False}}


def main() -> None:
    """Train from each start with each number of photos, and print a line for each."""
    args = _read_arguments()
    seen = {key_of(row["original"]) for row in read_csv(args.seen)} if args.seen else set()
    unseen = [path for path in sorted(args.images.glob("*/*")) if key_of(path.as_posix()) not in seen]
    print(f"{len(unseen)} photos of {args.images} are not in {args.seen}; model: {args.model}")
    titles = "".join(f"{title:>40}" for title in METRICS.values())
    print(f"{'photos':>6} {'epochs':>8}  {'start':22}{titles}{'CPU s':>9}", flush=True)
    for text in args.photos:
        count, heads, tuned = map(int, text.replace("+", ":").split(":"))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            lay_out(root / "photos", choose(unseen, count), sorted(args.test.glob("*/*")))
            config = settings(args.model, root / "photos", heads, tuned, args.set)
            first: dict[str, NDArray[np.float64]] = {}
            for name, encoder in (STARTS | (ALONE if args.encoder_alone else {})).items():
                began = time.process_time()
                scores = score(edit(config, {"encoder": encoder}), root / "out", range(args.seeds))
                first = first or scores
                cells = "".join(f"{cell(metric, scores, first):>40}" for metric in METRICS)
                took = (time.process_time() - began) / args.seeds
                print(f"{count:6} {heads:4}+{tuned:<3}  {name:22}{cells}{took:9.0f}", flush=True)


def key_of(path: str) -> str:
    """`<split>/<class>/<file>`, which identifies a photo in a manifest and in a folder."""
    return "/".join(path.split("/")[-3:])


def choose(paths: Sequence[Path], count: int) -> list[Path]:
    """A stratified draw, in which a smaller number of photos is a subset of a larger one."""
    order = [paths[at] for at in stream(0, "start-from").permutation(len(paths))]
    place: dict[str, int] = {}
    ranked = []
    for path in order:
        place[path.parent.name] = place.get(path.parent.name, 0) + 1
        of_class = sum(each.parent == path.parent for each in paths)
        ranked.append((place[path.parent.name] / of_class, path))
    return [path for _, path in sorted(ranked)[:count]]


def lay_out(home: Path, training: Iterable[Path], test: Iterable[Path]) -> None:
    """Link the photos as in a user's folder."""
    for split, paths in (("train", training), ("val", test)):
        for path in paths:
            link = home / split / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def settings(model: str, images: Path, heads: int, tuned: int, changes: Sequence[str]) -> Config:
    """The settings of the model, with evaluation only at the end."""
    config = start_from(model, settings=changes)
    training = {"heads": {"epochs": heads}, "finetune": {"epochs": tuned}}
    quiet = {
        "every_epochs": 0,
        "networks": [],
        "perceptual": [],
        "diagnose_every_steps": 0,
        "gradient_batches": 0,
    }
    taken = {"path": str(images), "duplicate_distance_bits": 0, "min_per_class": 1}
    return edit(config, {"images": taken, "training": training, "evaluation": quiet})


def score(config: Config, root: Path, seeds: Iterable[int]) -> dict[str, NDArray[np.float64]]:
    """The scores of all test images for each metric, averaged over seeds."""
    rows, vividness = [], []
    for seed in seeds:
        run = train(edit(config, {"seed": seed}), root, "multi")
        if (start := read_start(run)) and not seed:
            print(f"# {start.sentence()}")
        rows.append(read_csv(run / "per_image.csv"))
        vividness.append(read_json(run / "scores.json")["metrics"]["chroma_ratio"])
    print(f"# chroma ratio {np.mean(vividness):.2f}")
    return {name: np.mean([[float(each[name]) for each in own] for own in rows], 0) for name in METRICS}


def cell(metric: str, scores: dict[str, NDArray[np.float64]], first: dict[str, NDArray[np.float64]]) -> str:
    """The mean, and the difference from the first start with its interval over images."""
    scale = 100 if metric == "correct" else 1
    own, difference = scale * scores[metric], scale * (scores[metric] - first[metric])
    if not difference.any():
        return f"{own.mean():.2f} ± {half_width(own):.2f}"
    return f"{own.mean():.2f} ({difference.mean():+.2f} ± {half_width(difference):.2f})"


def half_width(values: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of a mean over images."""
    return 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folders of classes to draw training photos from")
    parser.add_argument("--test", type=Path, required=True, help="folder of test photos, <class>/*")
    parser.add_argument("--seen", type=Path, help="manifest of the photos that the model was trained on")
    parser.add_argument("--model", default="built-in", help="model to start from")
    parser.add_argument(
        "--photos",
        nargs="+",
        default=["50:30+15", "200:30+15", "1000:8+4"],
        metavar="N:HEADS+TUNED",
        help="number of photos, and epochs of the heads and of fine-tuning",
    )
    parser.add_argument(
        "--encoder-alone", action="store_true", help="also start from the model's encoder with new heads"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--set", action="append", default=[], help="settings of the training, as for knowhue")
    return parser.parse_args()


if __name__ == "__main__":
    main()
