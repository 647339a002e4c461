"""An archivist's work, end to end: label a few photos, train a model from the built-in one, and colour an archive.

`--count` photos are taken from class folders; `--named` per class keep their folder, and the others go to
`unlabelled/`. Then the commands of docs/train.md are run as a user runs them, and each must succeed:
`knowhue study --start-from`, `knowhue colorize` of the archive with the study's model (interrupted once by a signal and
run again), and `knowhue models`. Printed are the cost of each command and the classes predicted for the archive. With
`--seen`, photos that the built-in model was trained on are left out, as in `benchmarks/start_from.py`.

    python benchmarks/archivist.py IMAGES/train --archive FOLDER --seen MANIFEST
        [--named 20 --count 400 --photos 5000 --seeds 2]
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from start_from import key_of

from knowhue.data.items import UNLABELLED
from knowhue.randomness import stream
from knowhue.storage import read_csv


def main() -> None:
    """Prepare the folder, run the commands, and print the results."""
    args = _read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seen = {key_of(row["original"]) for row in read_csv(args.seen)} if args.seen else set()
        own = [each for each in sorted(args.images.glob("*/*")) if key_of(each.as_posix()) not in seen]
        named = lay_out(own, root / "photos", args.named, args.count)
        print(
            f"{sum(named.values())} labelled photos in {len(named)} classes, {args.count} in total",
            flush=True,
        )
        archive = root / "archive"
        archive.mkdir()
        for number, path in enumerate(sorted(args.archive.rglob("*.jpg"))[:: args.every][: args.photos]):
            shutil.copy(path, archive / f"{number:05}{path.suffix}")
        study = ["study", str(root / "photos"), "--start-from", args.model, "--seeds", str(args.seeds)]
        study += ["--out", str(root / "study"), *(f"--set={each}" for each in args.set)]
        run(study)
        print((root / "study" / "report.html").stat().st_size // 1000, "kB of report", flush=True)
        run(["models", str(root / "study")])
        out = root / "out"
        colour = ["colorize", str(archive), "--out", str(out), "--model", str(root / "study"), "--json"]
        interrupt(colour, out, args.photos // 4)
        run(colour)
        report(archive, out)


def lay_out(photos: Sequence[Path], folder: Path, named: int, count: int) -> Counter[str]:
    """Copy `named` photos per class into folders of their class, the others into `unlabelled/`."""
    order = stream(0, "archivist").permutation(len(photos))[:count]
    kept: Counter[str] = Counter()
    for place in order.tolist():
        path = photos[place]
        label = path.parent.name
        target = folder / (label if kept[label] < named else UNLABELLED) / path.name
        kept[label] += kept[label] < named
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return kept


def run(command: Sequence[str]) -> None:
    """Run a knowhue command, and print its cost and its last line."""
    began, before = time.perf_counter(), _cpu()
    result = subprocess.run(
        [sys.executable, "-m", "knowhue", *command], capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"knowhue {command[0]} ended with {result.returncode}:\n{result.stderr[-2000:]}")
    cost = f"{time.perf_counter() - began:.0f} s, {_cpu() - before:.0f} of CPU"
    print(
        f"knowhue {command[0]}: {cost}; {(result.stdout.strip() or ' ').splitlines()[-1][:300]}", flush=True
    )


def interrupt(command: Sequence[str], out: Path, after: int) -> None:
    """Start a command, and terminate it when `after` files are written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "knowhue", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and sum(1 for _ in out.glob("*.jpg")) < after:
        time.sleep(0.5)
    process.terminate()
    process.wait()
    print(f"interrupted: exit {process.returncode}, {sum(1 for _ in out.glob('*.jpg'))} written", flush=True)


def report(archive: Path, out: Path) -> None:
    """Print whether every photo was coloured once, and the predicted classes."""
    lines = [json.loads(line) for line in (out / "colorized.jsonl").read_text(encoding="utf-8").splitlines()]
    files = {each.name for each in archive.iterdir()}
    written = {each.name for each in out.glob("*.jpg")}
    labels = Counter(str(line.get("label")) for line in lines if "label" in line)
    print(
        f"{len(written & files)} of {len(files)} coloured; classes {dict(labels.most_common())}", flush=True
    )
    sys.exit(written != files)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder with <class>/*")
    parser.add_argument("--archive", type=Path, required=True, help="folder of photos to colour")
    parser.add_argument("--seen", type=Path, help="manifest of the photos that the model was trained on")
    parser.add_argument("--model", default="built-in", help="model to start from")
    parser.add_argument("--named", type=int, default=20, help="labelled photos per class")
    parser.add_argument("--count", type=int, default=400, help="photos in total")
    parser.add_argument("--photos", type=int, default=5000, help="photos in the archive")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo of the archive")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds of the study")
    parser.add_argument("--set", action="append", default=[], help="settings of the study, as for knowhue")
    return parser.parse_args()


if __name__ == "__main__":
    main()
