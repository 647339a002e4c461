"""Read a comparison's folder into plain values, in whatever state it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knowhue.errors import RunError
from knowhue.report.records import Arrays, Row
from knowhue.runs import require_format
from knowhue.storage import read_json

FILE = "comparison.json"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was asked, and every run of it: finished, diverged or missing."""

    folder: Path
    asked: Row
    samples: Arrays

    @property
    def methods(self) -> Mapping[str, Row]:
        """Title and source of each, in the order of the tables."""
        return self.asked["methods"]

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return self.asked["reference"]

    @property
    def regimes(self) -> Mapping[str, Row]:
        """`pictures`, and `clock` once it has been set: title, epochs, budget."""
        return self.asked["regimes"]

    def runs(self, regime: str, method: str) -> dict[int, Row]:
        """The runs of a method by seed, whatever their state."""
        wanted = (regime, method)
        return {r["seed"]: r for r in self.asked["runs"] if (r["regime"], r["method"]) == wanted}

    def finished(self, regime: str, method: str) -> dict[int, Row]:
        """Those whose numbers may be used."""
        return {seed: run for seed, run in self.runs(regime, method).items() if run["state"] == "finished"}

    def unfinished(self, regime: str) -> list[str]:
        """Every run that did not end well, as text."""
        return [
            f"{run['method']}, seed {run['seed']}: {run['state']}"
            for run in self.asked["runs"]
            if run["regime"] == regime and run["state"] != "finished"
        ]

    def pictures(self, regime: str, method: str) -> Arrays:
        """`samples.npz` of the first finished seed; nothing where there is none."""
        for run in self.finished(regime, method).values():
            path = self.folder / (run["samples"] or "")
            if path.is_file():
                return read_arrays(path)
        return {}


def read_comparison(folder: Path) -> Comparison:
    """Read the folder that `knowhue compare --out` named.

    Raises:
        RunError: it holds no comparison, or one of another version.
    """
    if not (folder / FILE).exists():
        raise RunError(
            f"`{folder}` should be the folder of a comparison, as `knowhue compare --out` makes it. "
            f"Found no {FILE} there."
        )
    asked = read_json(folder / FILE)
    require_format(asked, folder / FILE)
    truth = folder / "pictures" / "samples.npz"
    return Comparison(folder, asked, read_arrays(truth) if truth.exists() else {})


def read_arrays(path: Path) -> Arrays:
    """The arrays of an .npz file by name."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
