"""Read a comparison's folder into plain values, in whatever state it is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from knowhue.errors import DamagedError, RunError
from knowhue.plan import QUESTIONS
from knowhue.report.study import Arrays, Row, Run, read_images
from knowhue.report.text import spaced
from knowhue.runs import require_format
from knowhue.storage import read_arrays, read_json

FILE = "comparison.json"
ASKED = QUESTIONS["colour"]
"""What a method is judged by: the metric, the smallest effect of interest and what a diverged run is given."""
TRUTH = "images/samples.npz"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was asked, and every run of it: finished, diverged or missing."""

    folder: Path
    asked: Row
    arrays: Mapping[str, Arrays]
    """The sample images by file; without those that are gone or damaged."""
    damaged: Collection[str]
    """The files of sample images that are not as they were written."""

    @property
    def samples(self) -> Arrays:
        """The sample images in gray and in their own colours."""
        return self.arrays.get(TRUTH, {})

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
        """`images`, and `clock` once it has been set: title, epochs, budget."""
        return self.asked["regimes"]

    def runs(self, regime: str, method: str) -> dict[int, Row]:
        """The runs of a method by seed, whatever their state."""
        wanted = (regime, method)
        return {r["seed"]: r for r in self.asked["runs"] if (r["regime"], r["method"]) == wanted}

    def finished(self, regime: str, method: str) -> dict[int, Row]:
        """Those whose numbers may be used."""
        return {seed: run for seed, run in self.runs(regime, method).items() if run["state"] == "finished"}

    @property
    def metrics(self) -> Mapping[str, Row]:
        """Title, unit and better direction of each metric."""
        return self.asked.get("metrics", {})

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float | None]]:
        """What is had without a model, and `real`, other true images."""
        return self.asked.get("baselines", {})

    def score(self, run: Run, metric: str) -> float | None:
        """A run's score; of a diverged one, in the error, that of the baseline declared for it, as in a study."""
        if run.state == "finished":
            return run.scores["metrics"].get(metric)
        declared = self.baselines.get(ASKED.if_diverged, {})
        return declared.get(metric) if run.state == "diverged" and metric == ASKED.metric else None

    @property
    def is_complete(self) -> bool:
        """Whether every method has a score of its error with every seed in every regime."""
        wanted = set(self.asked["seeds"])
        return all(
            {
                seed
                for seed, run in self.ended(regime, method).items()
                if self.score(run, ASKED.metric) is not None
            }
            >= wanted
            for regime in self.regimes
            for method in self.methods
        )

    def unfinished(self, regime: str) -> list[str]:
        """Every run that did not end well or whose images are damaged, as text."""
        asked = [run for run in self.asked["runs"] if run["regime"] == regime]
        given = f", and given the score of “{spaced(ASKED.if_diverged)}” as declared"
        given = given if self.baselines.get(ASKED.if_diverged, {}).get(ASKED.metric) is not None else ""
        states = [
            (run, run["state"] + given * (run["state"] == "diverged"))
            for run in asked
            if run["state"] != "finished"
        ]
        states += [(run, "its images are damaged") for run in asked if run["samples"] in self.damaged]
        found = [f"{run['method']}, seed {run['seed']}: {state}" for run, state in states]
        return found + ["the true images: damaged"] * (TRUTH in self.damaged)

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, int], Run]:
        """Runs that finished or diverged with their scores of single images, each read once."""
        return {
            (row["regime"], row["method"], row["seed"]): Run(
                row["method"], row["seed"], row["state"], scores={"metrics": row["scores"]},
                images=()
                if row["state"] == "diverged"
                else read_images((self.folder / (row["samples"] or "")).with_name("per_image.csv")),
            )
            for row in self.asked["runs"]
            if row["state"] in ("finished", "diverged")
        }  # fmt: skip

    def ended(self, regime: str, method: str) -> dict[int, Run]:
        """The runs of a method that finished or diverged, with their scores of single images, by seed."""
        return {run.seed: run for key, run in self._by_cell.items() if key[:2] == (regime, method)}

    def images(self, regime: str, method: str) -> Arrays:
        """`samples.npz` of the first finished seed; nothing where there is none."""
        for run in self.finished(regime, method).values():
            if found := self.arrays.get(run["samples"]):
                return found
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
    arrays: dict[str, Arrays] = {}
    damaged = set()
    for name in {TRUTH, *(run["samples"] for run in asked["runs"] if run["samples"])}:
        try:
            arrays[name] = read_arrays(folder / name) if (folder / name).exists() else {}
        except DamagedError:
            damaged.add(name)
    return Comparison(folder, asked, arrays, damaged)
