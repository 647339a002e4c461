"""Seeded faults in statistics, color, runs and locks: whether a test detects each of them.

python benchmarks/mutants.py [--only NUMBER ...]

Each fault is put alone into a copy of the sources, and the tests of its module run until the first failure. Exits with
1 if a fault survives, or if its place no longer exists (then update the list, not the test).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {
    "statistics": ("tests/statistics/test_*.py",),
    "color": ("tests/test_color.py", "tests/models/test_heads.py"),
    "runs": ("tests/test_runs.py", "tests/test_storage.py"),
    "locks": ("tests/test_locks.py",),
}
MUTANTS = (
    ("statistics", "stdtrit(len(d) - 1, (1 + confidence) / 2)", "stdtrit(len(d) - 1, confidence)"),
    ("statistics", "stdtrit(len(d) - 1, (1 + confidence) / 2)", "ndtri((1 + confidence) / 2)"),
    ("statistics", "limits[0] <= found[0] and found[1] <= limits[1]", "limits[0] <= found[0]"),
    ("statistics", "abs(d.sum()) - _TIE", "abs(d.sum()) + _TIE"),
    ("statistics", "return 2 * above / 2 ** len(d)", "return above / 2 ** len(d)"),
    ("statistics", "return 2.0 ** (1 - len(d))\n    if len(d) >", "return 2.0 ** -len(d)\n    if len(d) >"),
    ("statistics", "beyond(d, threshold) + 1) / (RANDOM_PATTERNS + 1)", "beyond(d, threshold)) / RANDOM_PATTERNS"),
    ("statistics", "d.std(ddof=1) * correction", "d.std(ddof=0) * correction"),
    ("statistics", "(d if lower_is_better else -d) - margin > tie", "(-d if lower_is_better else d) - margin > tie"),
    ("statistics", "(d if lower_is_better else -d) - margin > tie", "(d if lower_is_better else -d) - margin > -tie"),
    ("statistics", "return alpha / max(questions, 1)", "return alpha"),
    ("statistics", "max(MIN_SEEDS, 1 + math.ceil(-math.log2(alpha) - 1e-9))", "MIN_SEEDS"),
    ("statistics", "beside_margin(max(map(abs, inner)), sesoi", "beside_margin(max(map(abs, outer)), sesoi"),
    ("statistics", "p <= alpha and (outer[0] > 0 or outer[1] < 0)", "p <= alpha"),
    ("statistics", "0 if beside_margin(min(map(abs, outer))", "0 if beside_margin(max(map(abs, outer))"),
    ("statistics", "self.over_images.variance - self.residual.variance", "self.over_images.variance"),
    ("statistics", "return max(found, key=lambda part", "return min(found, key=lambda part"),
    ("statistics", "(block.shape[0] - 1) * (block.shape[1] - 1)", "block.shape[0] * block.shape[1]"),
    ("color", "enabled=False):\n        lab =", "enabled=True):\n        lab ="),
    ("color", "return lab[:, :1], lab[:, 1:]", "return lab[:, :1], lab[:, 1:].flip(1)"),
    ("color", "clip=clip)", "clip=True)"),
    ("color", "return scaled * CHROMA_SCALE", "return scaled * LIGHTNESS_SCALE"),
    ("color", "tensor.ndim != 4 or tensor.shape[1] != channels", "tensor.ndim != 4"),
    ("runs", 'name not in ("arms", "evaluation")', 'name not in ("arms",)'),
    ("runs", 'exclude={"training": {"cache_gib"}}', "exclude={}"),
    ("runs", 'ENDED = ("finished", "diverged")', 'ENDED = ("finished",)'),
    ("runs", 'return read_status(folder).get("state") == "finished"', "return has_ended(folder)"),
    ("runs", "not path.is_file() or file_digest(path) != each]", "not path.is_file()]"),
    ("runs", 'any(found.get(key) != value for key, value in schema.items())', "False"),
    ("locks", "if key in held or not is_first_process():", "if not is_first_process():"),
    ("locks", 'elif not (_holder(path) or {}).get("left"):', "else:"),
    ("locks", "wait_s=_PART_WAIT_S", "wait_s=0.5"),
    ("locks", "return not lock_descriptor(descriptor, blocking=False)", "return True"),
)  # fmt: skip


def main() -> None:
    """Try each fault and print which of them survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the faults to try")
    wanted = parser.parse_args().only
    survived = 0
    for number, (field, old, new) in enumerate(MUTANTS, 1):
        if wanted and number not in wanted:
            continue
        detected = is_detected(field, old, new)
        survived += not detected
        print(f"{number:2} {field:10} {'killed  ' if detected else 'SURVIVED'} {new!r}", flush=True)
    print(f"{survived} survived")
    sys.exit(bool(survived))


def is_detected(field: str, old: str, new: str) -> bool:
    """Put one fault into a copy of the sources and run the tests of its module, those of the same name first."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        place = place_of(source, field, old)
        text = place.read_text(encoding="utf-8")
        place.write_text(text.replace(old, new), encoding="utf-8")
        tests = sorted(path for glob in TESTS[field] for path in ROOT.glob(glob))
        # those of the same name first, because they detect most faults
        tests.sort(key=lambda path: path.stem != f"test_{place.stem}")
        return not passes(source, [place, *tests])  # its doctests before the others


def place_of(source: Path, field: str, old: str) -> Path:
    """The one file below `source` that contains the line to change."""
    places = [path for path in source.rglob("*.py") if old in path.read_text(encoding="utf-8")]
    places = [path for path in places if field in path.relative_to(source).as_posix()] or places
    if len(places) != 1:
        sys.exit(f"{old!r} should occur in one file. Found {len(places)}.")
    return places[0]


def passes(source: Path, tests: Sequence[Path]) -> bool:
    """Whether the tests pass on these sources."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
        *map(str, tests),
    ]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"The tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
