"""The tables of a comparison as rows of ready text, for the page, the terminal and Markdown."""

from typing import NamedTuple

from knowhue.report.comparing.reading import Comparison
from knowhue.report.comparing.summary import Score, cost, metrics, scores, verdict
from knowhue.report.contrasts import BOTH, Bounds, Contrast
from knowhue.report.findings import Judged
from knowhue.report.text import MISSING, difference, ends_text, number
from knowhue.statistics.verdicts import Word

_HEADS = {
    "ab_l1": "a*b* error ↓",
    "ciede2000": "CIEDE2000 ↓",
    "colourfulness_difference_of_means": "Δ colourfulness ↓",
    "chroma_ratio": "chroma, of true",
    "fd_lite0": "FD lite0 ↓",
    "fid": "FID ↓",
    "recognition": "recognised, % ↑",
}
_COST_HEADS = (
    "", "epochs", "images seen", "seconds trained", "ms an image trained", "ms an image predicted",
    "million parameters",
)  # fmt: skip
_BASELINES = {
    "gray": "left gray",
    "mean_colour": "mean colour everywhere",
    "median_colour": "median colour everywhere",
    "real": "true colours",
}


class Cell(NamedTuple):
    """A value and, below it, its paired difference to the reference; `clear` if test and interval tell it from 0."""

    value: str
    below: str = ""
    clear: bool = False


def quality_table(comparison: Comparison, regime: str) -> list[list[Cell]]:
    """One row a method, one column a metric, then what costs nothing; the header first."""
    names, found = metrics(comparison), scores(comparison, regime)
    spread = any(found[method, "diversity"].by_seed for method in comparison.methods)
    heads = [
        "",
        "error: verdict",
        *(_HEADS[name] for name in names),
        *(["spread of samples"] if spread else []),
    ]
    rows = [[Cell(head) for head in heads]]
    for method, described in comparison.methods.items():
        cells = [_cell(found[method, name], name) for name in names]
        drawn = [_plain(found[method, "diversity"].mean)] if spread else []
        note = "reference" if method == comparison.reference else ""
        judged = _judged(verdict(comparison, regime, method))
        rows.append([Cell(described["title"], note), judged, *cells, *drawn])
    for name, title in _BASELINES.items():
        if (had := comparison.baselines.get(name)) is None:
            continue
        known = [_plain(had.get(metric), metric) for metric in names]
        rows.append([Cell(title), Cell(MISSING), *known, *([Cell(MISSING)] if spread else [])])
    return rows


def cost_table(comparison: Comparison, regime: str) -> list[list[Cell]]:
    """What each method took; ratios are to the reference, of the same table."""
    rows = [[Cell(head) for head in _COST_HEADS]]
    for method, described in comparison.methods.items():
        epochs = comparison.regimes[regime]["epochs"].get(method)
        seen, seconds = (cost(comparison, regime, method, name) for name in ("images_seen", "train_s"))
        parameters = cost(comparison, regime, method, "parameters")
        rows.append(
            [
                Cell(described["title"]),
                Cell(MISSING if epochs is None else " + ".join(f"{each}" for each in epochs if each)),
                Cell(MISSING if seen is None else f"{seen:,.0f}"),
                Cell(MISSING if seconds is None else f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"),
                _timed(comparison, regime, method, "train_s_per_image"),
                _timed(comparison, regime, method, "predict_s_per_image"),
                Cell(MISSING if parameters is None else f"{parameters / 1e6:.1f}"),
            ]
        )
    return rows


def markdown_tables(comparison: Comparison) -> str:
    """All tables as GitHub's Markdown, a heading before each regime's two."""
    parts = []
    for regime, described in comparison.regimes.items():
        budget = described.get("budget_s")
        parts.append(f"### {described['title'].capitalize()}" + (f" ({budget:.0f} s)" if budget else ""))
        parts += [_markdown(table(comparison, regime)) for table in (quality_table, cost_table)]
        parts += [f"Not finished: {'; '.join(found)}" for found in [comparison.unfinished(regime)] if found]
    return "\n\n".join(parts) + "\n"


def _cell(score: Score, metric: str) -> Cell:
    if score.found is None or score.bounds is None:
        return _plain(score.mean, metric)
    unit = "share" if metric == "recognition" else ""
    return Cell(
        number(score.mean, unit), _between(score.found, score.bounds, score.mean, unit), score.is_clear
    )


def _judged(found: Judged | None) -> Cell:
    """A verdict; by the seeds alone it speaks of these test images and not of the method."""
    if found is None:
        return Cell(MISSING)
    here = found.word != Word.NO_VERDICT and found.quoted is not None and found.quoted.over != BOTH
    return Cell(found.word.value, "on these test images" if here else "")


def _plain(value: float | None, metric: str = "") -> Cell:
    return Cell(number(value, "share" if metric == "recognition" else ""))


def _between(found: Contrast, bounds: Bounds, mean: float | None, unit: str) -> str:
    """Signed mean and its interval, with as many places as the value that they stand below; `†`: over seeds alone."""
    like = 0.0 if mean is None else mean
    signed = difference(like, like + found.estimate, unit)
    if bounds.interval is None:
        return f"{signed} (no interval)"
    ends = ends_text(like, bounds.interval, unit)
    return f"{signed} ({ends}){'' if bounds.over == 'seeds and images' else '†'}"


def _timed(comparison: Comparison, regime: str, method: str, name: str) -> Cell:
    own, theirs = (cost(comparison, regime, each, name) for each in (method, comparison.reference))
    if own is None:
        return Cell(MISSING)
    return Cell(f"{1000 * own:.2f}", f"× {own / theirs:.2f}" if theirs else "")


def _markdown(rows: list[list[Cell]]) -> str:
    lines = []
    for place, row in enumerate(rows):
        lines.append("| " + " | ".join(_text(cell) for cell in row) + " |")
        if place == 0:
            lines.append("|" + "---|" * len(row))
    return "\n".join(lines)


def _text(cell: Cell) -> str:
    below = f"**{cell.below}**" if cell.clear else cell.below
    return f"{cell.value}<br>{below}" if below else cell.value
