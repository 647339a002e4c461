"""Cost of several workers on one machine: the same study in one process and in several, and the overhead of the engine.

    OMP_NUM_THREADS=1 python benchmarks/workers.py [--workers 1 2] [STUDY ARGUMENTS, such as --seeds 4]
    OMP_NUM_THREADS=1 python benchmarks/workers.py --engine [STUDY ARGUMENTS]

`--workers 1` is one process. Each command is run twice. The second run finds everything done, so its cost is that of
starting, loading and the report, and the difference between the runs is the cost of the work. Wall-clock times are
meaningful only on an otherwise idle machine with a core for each worker; CPU time is that of all processes of a
command. With `--engine` the study runs in this process, and the time spent around each part, on its lock and heartbeat,
is compared with that spent within it.
"""

import argparse
import ctypes
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from knowhue import cells
from knowhue.cells import CellStep

_SET_CHILD_SUBREAPER = 36
"""Option of Linux's `prctl`: orphaned descendants become children of this process, so that their time is counted."""


class Cost(NamedTuple):
    """CPU and wall-clock seconds."""

    cpu_s: float
    wall_s: float


def main() -> None:
    """Print the cost with each number of workers, or the overhead of the engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers")
    parser.add_argument(
        "--engine", action="store_true", help="measure the overhead of the engine in one process"
    )
    args, study = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.engine:
            engine_share(command(study, Path(folder)))
        else:
            compare(study, Path(folder), args.workers)


def command(study: list[str], out: Path) -> list[str]:
    """The arguments of `knowhue`."""
    return ["study", "--preset", "demo", *study, "--out", str(out)]


def compare(study: list[str], folder: Path, counts: list[int]) -> None:
    """Run the study with each number of workers, and print ratios to the first."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    work: list[Cost] = []
    for workers in counts:
        words = command([*study, "--workers", str(workers)], folder / f"{workers}")
        whole, again = measure(words), measure(words)
        work.append(Cost(*(one - other for one, other in zip(whole, again, strict=True))))
        cpu, wall = work[-1].cpu_s / work[0].cpu_s, workers * work[-1].wall_s / (counts[0] * work[0].wall_s)
        print(
            f"{workers} workers: {whole.cpu_s:.1f} s CPU, {whole.wall_s:.1f} s wall-clock; without starting "
            f"and the report {work[-1].cpu_s:.1f} and {work[-1].wall_s:.1f}: CPU {cpu:.3f} times, workers x wall-clock "
            f"{wall:.3f} times those of {counts[0]}",
            flush=True,
        )


def measure(words: list[str]) -> Cost:
    """Cost of a knowhue command with all processes that it starts."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "knowhue", *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def engine_share(words: list[str]) -> None:
    """Print the CPU time of all parts, and the overhead around them."""
    spent = defaultdict[str, float](float)

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.process_time()
            try:
                return method(*arguments)
            finally:
                spent[name] += time.process_time() - started

        return call

    CellStep.__call__ = timed("with", CellStep.__call__)
    for name in ("run_head", "check_gate", "run_arm"):
        setattr(cells, name, timed("within", getattr(cells, name)))
    sys.argv = ["knowhue", *words]
    with suppress(SystemExit):
        runpy.run_module("knowhue", run_name="__main__")
    share = spent["with"] / spent["within"] - 1
    print(f"parts took {spent['within']:.1f} s of CPU; overhead of the engine {share:+.2%}")


if __name__ == "__main__":
    main()
