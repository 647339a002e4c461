"""CPU time and memory of the whole command `knowhue colorize photo.jpg`, as ratios to another version of knowhue.

Both versions run alternately on the same photos, each in a separate process.

    git worktree add /tmp/before COMMIT
    python benchmarks/colorize_command.py --before /tmp/before/src --images PHOTO [PHOTO ...] [--runs 5]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from knowhue.inference import kernels

COMMANDS: dict[str, list[str]] = {"--help": ["--help"], "models": ["models"]}


def main() -> None:
    """Run both versions alternately and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="src folder of the other version")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="photos to colour")
    parser.add_argument("--runs", type=int, default=5, help="runs of each version")
    args = parser.parse_args()
    versions = {"before": args.before.resolve(), "now": Path(kernels.__file__).parents[2]}
    with tempfile.TemporaryDirectory() as folder:
        out = ["--overwrite", "-o"]
        commands = COMMANDS | {
            image.name: ["colorize", str(image), *out, f"{folder}/out{image.suffix}"] for image in args.images
        }
        for name, arguments in commands.items():
            costs = {
                version: [cost_of(arguments, src) for _ in range(2)][1:] for version, src in versions.items()
            }
            for _ in range(args.runs - 1):
                for version, src in versions.items():
                    costs[version].append(cost_of(arguments, src))
            (cpu, memory), (cpu_now, memory_now) = (
                [median(values) for values in zip(*costs[version], strict=True)] for version in versions
            )
            print(
                f"{name:40} CPU {cpu:5.2f} -> {cpu_now:5.2f} s ({cpu_now / cpu:.2f} times), "
                f"memory {memory:5.0f} -> {memory_now:5.0f} MB ({memory_now / memory:.2f} times)"
            )


def cost_of(arguments: list[str], src: Path) -> tuple[float, float]:
    """CPU seconds (user and system) and peak resident memory in MB of one command."""
    command = [sys.executable, "-m", "knowhue", *arguments]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(src)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
