"""What the page shows of study folders: cells, curves and the newest images, live; and the finished report."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from knowhue.config import Task
from knowhue.errors import KnowhueError
from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.plan import ENDED, Cell, Plan, read_cells, read_plan
from knowhue.runs import read_log, run_folder
from knowhue.storage import read_arrays, read_json

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-downloads"
)
"""Content-Security-Policy of a report: it may show itself, and let its tables be saved."""
STATES = {"missing": "–", "finished": "done", "diverged": "diverged"}
_MOST_SAMPLES = 8
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 440, 180, 52, 24


class Metric(NamedTuple):
    """A metric that is charted, and how its numbers are written: as in the report.

    Attributes:
        name: in the log.
        title: of the chart.
        baseline: what is had without a model, a row of `baselines.json`.
        scale: what a number is multiplied by before it is written.
        places: behind the point.
        unit: written behind each number.
    """

    name: str
    title: str
    baseline: str
    scale: int = 1
    places: int = 2
    unit: str = ""

    def written(self, value: float) -> str:
        """A number for people.

        >>> METRICS[0].written(12.041), METRICS[1].written(0.467)
        ('12.04', '46.7 %')
        """
        return f"{self.scale * value:.{self.places}f}{self.unit}"

    def ends(self, values: Sequence[float]) -> tuple[float, float]:
        """Where an axis begins and ends: outward to the last place that is written, and never the same.

        >>> METRICS[0].ends([12.041, 12.043]), METRICS[1].ends([0.25, 0.25])
        ((12.04, 12.05), (0.249, 0.25))
        """
        steps = self.scale * 10**self.places
        low = math.floor(round(min(values) * steps, 6))
        high = math.ceil(round(max(values) * steps, 6))
        if low == high:
            low, high = (low - 1, high) if low else (0, 1)
        return low / steps, high / steps


METRICS = (
    Metric("ab_l1", "Colour error, CIELAB units (lower is better)", "gray"),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy (higher is better)",
        "majority_class",
        100,
        places=1,
        unit=" %",
    ),
)


class Curve(NamedTuple):
    """One metric of one run over its epochs; `look` is its colour on the page, and how it is dashed."""

    arm: str
    look: str
    values: tuple[float, ...]


def panel(studies: Sequence[Path]) -> Markup:
    """All studies, as far as they are."""
    if not studies:
        return Markup(
            '<div class="empty"><p><b>No study is shown.</b> Start the server with <code>--study DIR</code>.</p></div>'
        )
    return Markup("").join(_study(place, root) for place, root in enumerate(studies))


def report_file(studies: Sequence[Path], place: int) -> Path | None:
    """The finished report of a study, if there is one."""
    return _existing(studies, place, "report.html")


def strip(studies: Sequence[Path], place: int, what: str) -> bytes | None:
    """PNG of a study's sample images in a row: `gray`, `truth`, or as the newest run of an arm coloured them."""
    if not 0 <= place < len(studies):
        return None
    try:
        path = _strips(studies[place], read_plan(studies[place])).get(what)
        if path is None:
            return None
        tiles = read_arrays(path)[what if what in ("gray", "truth") else "rgb"][:_MOST_SAMPLES]
    except (KnowhueError, OSError, ValueError, KeyError):
        return None  # being written, or of another version; the next tick shows it
    return encode_image(Image(np.ascontiguousarray(np.concatenate(list(tiles), axis=1))), ".png")


def _existing(studies: Sequence[Path], place: int, name: str) -> Path | None:
    path = studies[place] / name if 0 <= place < len(studies) else None
    return path if path is not None and path.is_file() else None


def _study(place: int, root: Path) -> Markup:
    name = root.resolve().name
    try:
        plan = read_plan(root)
        cells = read_cells(root, plan)
        drawn = _charts(root, plan)
    except (KnowhueError, OSError, ValueError, KeyError) as error:
        return Markup('<section class="study"><h2>{}</h2><p class="note">{}</p></section>').format(
            name, _reason(error)
        )
    ended = sum(cell.state in ENDED for cell in cells)
    report = Markup("")
    if (root / "report.html").is_file():
        report = Markup(
            '<a class="download" href="page/studies/{}/report.html" target="_blank">Open the report</a>'
        ).format(place)
    return Markup(
        '<section class="study"><header><h2>{}</h2><p class="note">{} of {} runs done</p>{}</header>{}{}{}</section>'
    ).format(name, ended, len(cells), report, _table(plan, cells), drawn, _samples(place, root, plan))


def _reason(error: Exception) -> str:
    return (
        f"Not shown: {error}"
        if isinstance(error, KnowhueError)
        else "Its files cannot be read at the moment."
    )


def _table(plan: Plan, cells: Sequence[Cell]) -> Markup:
    found = {(cell.arm, cell.seed): cell for cell in cells}
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(seed) for seed in plan.seeds)
    rows = Markup("").join(
        Markup('<tr><th scope="row" class="{}">{}</th>{}</tr>').format(
            kind_of(plan, arm), arm, Markup("").join(_cell(found[arm, seed]) for seed in plan.seeds)
        )
        for arm in plan.arms
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="Runs by arm and seed"><table class="cells"><thead>'
        '<tr><th scope="col">Seed</th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, rows)


def _cell(cell: Cell) -> Markup:
    share = 1.0 if cell.state in ENDED else cell.epochs / max(cell.of, 1)
    text = STATES.get(cell.state, f"{cell.epochs}/{cell.of}")
    return Markup('<td class="{}" style="--p:{:.3f}">{}</td>').format(cell.state, share, text)


def kind_of(plan: Plan, arm: str) -> str:
    """The colour of an arm on the page."""
    tasks: Sequence[Task] = plan.run_config(arm, plan.seeds[0]).tasks.names
    return "multi" if len(tasks) > 1 else "single"


def line_looks(plan: Plan) -> dict[str, str]:
    """How each arm's lines are drawn: the colour of what it learns, dashed where another arm has that already."""
    looks: dict[str, str] = {}
    for arm in plan.arms:
        kind = kind_of(plan, arm)
        used = sum(look.split()[0] == kind for look in looks.values())
        looks[arm] = f"{kind} dash{used}" if used else kind
    return looks


def _charts(root: Path, plan: Plan) -> Markup:
    charts = Markup("").join(
        _chart(metric, curves, _baseline(root, metric))
        for metric in METRICS
        if (curves := list(_curves(root, plan, metric.name)))
    )
    keys = Markup("").join(
        Markup(
            '<li><svg viewBox="0 0 28 8" aria-hidden="true" class="{0}"><path class="{1}" d="M0 4H28"/></svg>{2}</li>'
        ).format(look.split()[0], look, arm)
        for arm, look in line_looks(plan).items()
    )
    return (
        Markup('<div class="charts">{}</div><ul class="keys" aria-label="Lines">{}</ul>').format(charts, keys)
        if charts
        else charts
    )


def _curves(root: Path, plan: Plan, metric: str) -> Iterator[Curve]:
    looks = line_looks(plan)
    for arm in plan.arms:
        for seed in plan.seeds:
            log = read_log(run_folder(root, arm, plan.run_config(arm, seed)))
            values = tuple(entry["validation"].get(metric) for entry in log)
            if values and all(value is not None for value in values):
                yield Curve(arm, looks[arm], values)


def _baseline(root: Path, metric: Metric) -> float | None:
    """What is had without a model, on the images that scores are of; None before it is scored."""
    path = root / "baselines.json"
    return read_json(path).get(metric.baseline, {}).get(metric.name) if path.is_file() else None


def _chart(metric: Metric, curves: Sequence[Curve], baseline: float | None) -> Markup:
    """Thin lines, one a run, from the first epoch of the heads on; dotted what is had without a model."""
    without = () if baseline is None else (baseline,)
    low, high = metric.ends([*without, *(value for curve in curves for value in curve.values)])
    longest = max(len(curve.values) for curve in curves)

    def point(epoch: int, value: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - 8) * epoch / longest
        return across, 8 + (_HEIGHT - _BOTTOM - 16) * (1 - (value - low) / (high - low))

    lines = Markup("").join(
        _line([point(*pair) for pair in enumerate(curve.values, start=1)], curve) for curve in curves
    )
    levels = Markup("").join(_level(metric, level, point(0, level)[1]) for level in without)
    return Markup(
        '<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        'aria-label="{title}: from {first} to {last}"><path class="axis" d="M{left} 8V{bottom}H{width}"/><text x="{text}" y="14" '
        'text-anchor="end">{high}</text><text x="{text}" y="{bottom}" text-anchor="end">{low}</text>'
        '<text x="{left}" y="{height}" dy="-6">0</text>'
        '<text x="{width}" y="{height}" dy="-6" text-anchor="end">epoch {longest}</text>{levels}{lines}</svg></figure>'
    ).format(
        title=metric.title, width=_WIDTH, height=_HEIGHT, left=_LEFT, bottom=_HEIGHT - _BOTTOM, text=_LEFT - 6,
        high=metric.written(high), low=metric.written(low), longest=longest, levels=levels, lines=lines,
        first=metric.written(curves[0].values[0]), last=metric.written(curves[0].values[-1]),
    )  # fmt: skip


def _level(metric: Metric, value: float, y: float) -> Markup:
    """The line of a baseline, named at its right end, where the curves have left it."""
    return Markup(
        '<path class="level" d="M{} {y:.1f}H{width}"/><text x="{width}" y="{below:.1f}" text-anchor="end">{} {}</text>'
    ).format(
        _LEFT, metric.baseline.replace("_", " "), metric.written(value), y=y, width=_WIDTH,
        below=y + 12 if y < _HEIGHT / 2 else y - 4,
    )  # fmt: skip


def _line(points: Sequence[tuple[float, float]], curve: Curve) -> Markup:
    if len(points) == 1:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(curve.look, *points[0])
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="{}"><title>{}</title></path>').format(curve.look, path, curve.arm)


def _samples(place: int, root: Path, plan: Plan) -> Markup:
    strips = _strips(root, plan)
    if len(strips) < 3:
        return Markup("")
    rows = Markup("").join(
        Markup(
            '<tr><th scope="row" class="{kind}">{label}</th><td><img src="page/studies/{place}/{what}.png?v={version}" '
            'alt="Sample images, {label}"></td></tr>'
        ).format(
            kind="" if what in ("gray", "truth") else kind_of(plan, what),
            place=place,
            what=what,
            label="given" if what == "gray" else what,
            version=path.stat().st_mtime_ns,
        )
        for what, path in strips.items()
    )
    return Markup('<table class="samples"><caption>Newest samples</caption><tbody>{}</tbody></table>').format(
        rows
    )


def _strips(root: Path, plan: Plan) -> dict[str, Path]:
    """Where each row of the samples is found: what was given, the newest run of each arm that colours, the truth."""
    given = root / "images" / "samples.npz"
    if not given.is_file():
        return {}
    found = {"gray": given}
    for arm in plan.arms:
        runs = [run_folder(root, arm, plan.run_config(arm, seed)) / "samples.npz" for seed in plan.seeds]
        there = [path for path in runs if path.is_file()]
        if there and "colour" in plan.run_config(arm, plan.seeds[0]).tasks.names:
            found[arm] = max(there, key=lambda path: path.stat().st_mtime_ns)
    return found | {"truth": given}
