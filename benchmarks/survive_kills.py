"""A study that is killed with SIGKILL at random moments must end with the same numbers as an uninterrupted one.

python benchmarks/survive_kills.py [--kills 20] [--seed 0] [STUDY ARGUMENTS, such as --set training.heads.epochs=2]
python benchmarks/survive_kills.py --whom worker --workers 4

Either the command is killed, or one of its workers that is working on a part. In both cases the command and all its
other workers must end, because a surviving one would write to the same files as the workers of the next command.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from knowhue.locks import read_holders
from knowhue.storage import read_json

COMPARED = ("model.safetensors", "scores.json", "per_image.csv", "samples.npz")


def main() -> None:
    """Run one study uninterrupted and one with kills, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--whom", choices=("command", "worker"), default="command", help="what is killed")
    args, study = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        uninterrupted, killed = Path(folder) / "uninterrupted", Path(folder) / "killed"
        started = time.perf_counter()
        subprocess.run(command(study, uninterrupted), check=True, capture_output=True)
        seconds = time.perf_counter() - started
        print(f"uninterrupted: {seconds:.0f} s", flush=True)
        kills = kill_repeatedly(study, killed, args.kills, random.Random(args.seed), seconds, args.whom)
        different = compare(uninterrupted, killed)
    print(f"{kills} kills; files that differ: {', '.join(different) or 'none'}")
    sys.exit(1 if different or kills < args.kills else 0)


def command(study: list[str], out: Path) -> list[str]:
    """The command of the study."""
    return [sys.executable, "-m", "knowhue", "study", "--preset", "demo", *study, "--out", str(out)]


def kill_repeatedly(
    study: list[str], out: Path, kills: int, generator: random.Random, seconds: float, whom: str
) -> int:
    """Start the study repeatedly and kill it after random times, then let it finish; return the number of kills."""
    done = 0
    while done < kills:
        process = subprocess.Popen(command(study, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while whom == "worker" and process.poll() is None and not at_work(out):
            time.sleep(0.1)
        try:
            # a start takes seconds; later kills hit later work, because finished epochs are not repeated
            if process.wait(timeout=generator.uniform(1, 5 + 2 * seconds / kills)) == 0:
                break
            raise SystemExit(f"the study failed after {done} kills")
        except subprocess.TimeoutExpired:
            workers = at_work(out) if whom == "worker" else []
            # between two parts no worker is busy
            os.kill(generator.choice(workers or [process.pid]), signal.SIGKILL)
            process.wait(timeout=600)  # the command also ends by itself after one of its workers was killed
            if left := [pid for pid in workers if is_alive(pid)]:
                raise SystemExit(f"processes that outlived their command: {left}") from None
            done += 1
            whom_killed = "a worker" if workers else "the command"
            print(
                f"killed {done}, {whom_killed}; {len(list(out.rglob('checkpoints/state.pt')))} checkpoints",
                flush=True,
            )
    subprocess.run(command(study, out), check=True, capture_output=True)
    return done


def at_work(out: Path) -> list[int]:
    """Ids of the processes that are working on a part of the study."""
    signs = [sign for sign in read_holders(out) if not re.match(r"study: |\S+: no sign of life since ", sign)]
    return [int(sign.partition(", process ")[2].partition(",")[0]) for sign in signs]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def compare(uninterrupted: Path, killed: Path) -> list[str]:
    """Names of the files whose bytes differ, and of `results.json` if its metrics differ."""
    files = [p.relative_to(uninterrupted) for name in COMPARED for p in sorted(uninterrupted.rglob(name))]
    different = [str(p) for p in files if (uninterrupted / p).read_bytes() != (killed / p).read_bytes()]
    ours, theirs = (read_json(folder / "results.json")["arms"] for folder in (uninterrupted, killed))
    return different + (["results.json: arms"] if ours != theirs else [])


if __name__ == "__main__":
    main()
