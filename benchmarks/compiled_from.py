"""Image size above which compiled painting is faster, startup included: CPU time of a process that paints one image.

python benchmarks/compiled_from.py
"""

import os
import subprocess
import sys
from statistics import median

MEGAPIXELS = (0.1, 1, 2, 3, 4, 6)
RUNS = 3
WAYS = {"arrays": 1 << 60, "compiled": 0}
PROGRAM = """
import sys

import numpy as np

from knowhue.inference import kernels, pixels

kernels.COMPILED_FROM = int(sys.argv[2])
width = int((float(sys.argv[1]) * 1.5e6) ** 0.5)
height = int(width / 1.5)
draw = np.random.default_rng(0)
image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
chroma = draw.uniform(-30, 30, (96, 144, 2)).astype(np.float32)
pixels.lightness(image)
pixels.paint(image, chroma, draw.uniform(0, 100, (96, 144)).astype(np.float32))
"""


def main() -> None:
    """Run arrays and compiled code alternately and print medians."""
    cost_of(0.1, WAYS["compiled"])  # compiles, and caches the result for the other runs
    for size in MEGAPIXELS:
        costs = [[cost_of(size, start) for start in WAYS.values()] for _ in range(RUNS)]
        found = zip(WAYS, map(median, zip(*costs, strict=True)), strict=True)
        print(f"{size:4} megapixels: " + ", ".join(f"{way} {cost:.2f} s" for way, cost in found))


def cost_of(megapixels: float, compiled_from: int) -> float:
    """CPU seconds (user and system) of one process."""
    command = [sys.executable, "-c", PROGRAM, str(megapixels), str(compiled_from)]
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"painting {megapixels} megapixels ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
