"""A study killed with SIGKILL at random moments must end with an uninterrupted one's numbers, bit for bit.

python benchmarks/survive_kills.py [--kills 20] [--seed 0] [STUDY ARGUMENTS, such as --set training.heads.epochs=2]
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from knowhue.storage import read_json

COMPARED = ("model.safetensors", "scores.json", "per_image.csv", "samples.npz")


def main() -> None:
    """Run one study in peace and one under fire; compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked, study = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        peaceful, hunted = Path(folder) / "peaceful", Path(folder) / "hunted"
        started = time.perf_counter()
        subprocess.run(command(study, peaceful), check=True, capture_output=True)
        seconds = time.perf_counter() - started
        print(f"uninterrupted: {seconds:.0f} s", flush=True)
        kills = hunt(study, hunted, asked.kills, random.Random(asked.seed), seconds)
        different = compare(peaceful, hunted)
    print(f"{kills} kills; files that differ: {', '.join(different) or 'none'}")
    sys.exit(1 if different or kills < asked.kills else 0)


def command(study: list[str], out: Path) -> list[str]:
    """The study as a user starts it."""
    return [sys.executable, "-m", "knowhue", "study", "--preset", "demo", *study, "--out", str(out)]


def hunt(study: list[str], out: Path, kills: int, generator: random.Random, seconds: float) -> int:
    """Start the study again and again, killing it after random times, then let it end; how often it was killed."""
    done = 0
    while done < kills:
        process = subprocess.Popen(command(study, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # a start takes seconds; later kills hit later work, because finished epochs are not repeated
            if process.wait(timeout=generator.uniform(1, 5 + 2 * seconds / kills)) == 0:
                break
            raise SystemExit(f"the study failed after {done} kills")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            print(f"killed {done}; epochs kept: {len(list(out.rglob('epoch-*')))} states", flush=True)
    subprocess.run(command(study, out), check=True, capture_output=True)
    return done


def compare(peaceful: Path, hunted: Path) -> list[str]:
    """Names of files whose bytes differ, and of metrics that do."""
    files = [p.relative_to(peaceful) for name in COMPARED for p in sorted(peaceful.rglob(name))]
    different = [str(p) for p in files if (peaceful / p).read_bytes() != (hunted / p).read_bytes()]
    ours, theirs = (read_json(folder / "results.json")["arms"] for folder in (peaceful, hunted))
    return different + (["results.json: arms"] if ours != theirs else [])


if __name__ == "__main__":
    main()
