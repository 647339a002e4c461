"""Tables and figures of paired differences: multi-task against single-task by seed, and all arms in a forest plot."""

from textwrap import fill
from typing import TYPE_CHECKING, Literal

import numpy as np

from knowhue.errors import spaced
from knowhue.report.contrasts import Bounds, Contrast, FamilyTest, contrast, family_tests, primary, wording
from knowhue.report.study import Row, Study, arm_name, is_oracle, labelled_share, placebo, tasks
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    SINGLE,
    SMALL,
    axis_limits,
    dot,
    mark_margin,
    note_diverged,
    number_axis,
    one_panel,
    panels,
    set_title,
    shorten_name,
)
from knowhue.report.text import Measure, measure
from knowhue.statistics.paired import benjamini_hochberg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOT = 6.5
"""Distance between the dots of a stack, in points."""
_TITLE = 24
"""Width of the title of a panel with a neighbour, in characters, for the widest possible font."""
_HEIGHT = 150
"""Height of a panel, in points."""
_ROWS = (12.0, 37.0, 62.0)
"""Heights of the equivalence interval, the verdict's interval, and the lowest dot, in points."""


def transfer(study: Study) -> "dict[str, Figure]":
    """Draw the difference of each question by seed; a study of one seed has no such figure."""
    found = {question: primary(study, question) for question in study.questions}
    return {
        f"transfer_{question}": _transfer(study, question, each)
        for question, each in found.items()
        if each is not None and len(study.seeds) > 1
    }


def transfer_rows(study: Study) -> list[Row]:
    """Return the numbers of both figures: for each question, a row per seed and one for the mean.

    `low` to `high` is the interval of the verdict, `low_inner` to `high_inner` the interval of equivalence.
    """
    rows: list[Row] = []
    for question in study.questions:
        found = primary(study, question)
        if found is None:
            continue
        shared = {"question": question, "metric": found.metric}
        for seed, (before, after) in zip(found.seeds, found.scores.tolist(), strict=True):
            names = " ".join(arm for arm, lost in found.diverged if lost == seed)
            scores = {"single_task": before, "multi_task": after, "difference": after - before}
            rows.append({**shared, "seed": seed, **scores, "diverged": names})
        outer, inner = found.bounds(1 - study.alpha), found.bounds(1 - 2 * study.alpha)
        before, after = found.levels
        rows.append({
            **shared, "seed": "mean", "single_task": before, "multi_task": after, "difference": found.estimate,
            **_ends(outer), **_ends(inner, "_inner"), "over": outer.over,
        })  # fmt: skip
    return rows


def _ends(bounds: Bounds, suffix: str = "") -> Row:
    low, high = bounds.interval or (None, None)
    return {f"low{suffix}": low, f"high{suffix}": high, f"level{suffix}": bounds.level}


def _transfer(study: Study, question: str, found: Contrast) -> "Figure":
    spec = study.questions[question]
    figure, axes = panels(5.0, 3.1, columns=2, width_ratios=(1, 1.25))
    measured = measure(study.metrics, spec)
    words = wording(study, question)
    names = shorten_name(words.single), shorten_name(words.multi)
    _slopes(axes[0, 0], found, measured, names)
    _differences(axes[0, 1], study, found, measured, names, spec.sesoi)
    arms = dict(zip(found.arms, names, strict=True))
    given = spaced(spec.if_diverged)
    note_diverged(figure, [f"{arms[arm]} seed {seed} (“{given}”)" for arm, seed in found.diverged])
    return figure


def _diverged(found: Contrast) -> list[list[bool]]:
    return [[(arm, seed) in found.diverged for arm in found.arms] for seed in found.seeds]


def _slopes(ax: "Axes", found: Contrast, measured: Measure, arms: tuple[str, str]) -> None:
    """Draw every seed as a line between its two arms, and the mean over them."""
    scores = measured.scale * found.scores
    for pair, better, diverged in zip(scores, found.gains > 0, _diverged(found), strict=True):
        colour = MULTI if better else MUTED
        ax.plot([0, 1], pair, color=colour, linewidth=0.8, alpha=0.6, zorder=2, label="seed")
        for place, colour in enumerate((SINGLE, MULTI)):
            dot(ax, place, pair[place], colour, 3.4, hollow=diverged[place], zorder=3)
    means = scores.mean(axis=0)
    ax.plot([0, 1], means, color=INK, linewidth=2.4, solid_capstyle="round", zorder=4, label="mean")
    for place, colour in enumerate((SINGLE, MULTI)):
        dot(ax, place, means[place], colour, 7, zorder=5)
    better = "lower is better ↓" if found.lower_is_better else "higher is better ↑"
    set_title(ax, fill(measured.titled(measured.unit), _TITLE), subtitle=better)
    ax.set_xlim(-0.5, 1.5)
    names = [f"{name}\n{measured.level(level)}" for name, level in zip(arms, found.levels, strict=True)]
    ax.set_xticks([0, 1], names, fontsize=SMALL, fontweight="bold", linespacing=1.4)
    for label, colour in zip(ax.get_xticklabels(), (SINGLE, MULTI), strict=True):
        label.set_color(colour)
    _quiet(ax, "y", "bottom")


def _quiet(ax: "Axes", axis: Literal["x", "y"], spine: str) -> None:
    """Keep few ticks on the axis of numbers, and only the names on the other axis."""
    number_axis(ax, axis)
    ax.tick_params(axis="y" if axis == "x" else "x", length=0)
    ax.spines[spine].set_visible(False)


def _differences(
    ax: "Axes", study: Study, found: Contrast, measured: Measure, arms: tuple[str, str], sesoi: float
) -> None:
    """Draw the differences of all seeds as a stack of dots, and their mean with its intervals."""
    values, mean = measured.scale * found.differences, measured.scale * found.estimate
    bounds, planned = (found.bounds(1 - study.alpha), found.bounds(1 - 2 * study.alpha)), len(study.seeds)
    ends = [measured.scale * end for each in bounds for end in each.interval or ()]
    low, high = axis_limits([*values, *ends], measured.scale * sesoi)
    ax.set(xlim=(low, high), ylim=(0, _HEIGHT))
    levels = stacked(values, _DOT / 130 * (high - low))
    # the dots of many seeds overlap, so that the stack stays in the panel
    step = min(_DOT, (_HEIGHT - 20 - _ROWS[2]) / max(*levels, 1))
    for value, level, better, diverged in zip(values, levels, found.gains > 0, _diverged(found), strict=True):
        colour, height = MULTI if better else MUTED, _ROWS[2] + step * level
        dot(ax, value, height, colour, 5, hollow=any(diverged), zorder=3, label="difference")
    of = f" of {planned}\n" if len(values) < planned else " "
    rows = {_ROWS[2]: f"{len(values)}{of}seed{'s' * (max(len(values), planned) > 1)}"}
    rows |= _intervals(ax, bounds, measured, mean)
    ax.set_yticks(list(rows), list(rows.values()), fontsize=SMALL)
    _quiet(ax, "x", "left")
    title = f"{measured.signed(found.estimate)} {measured.difference_unit}"
    set_title(ax, title, subtitle=f"{arms[1]} minus {arms[0]}")
    mark_margin(ax, measured.scale * sesoi, found.lower_is_better)


def _intervals(ax: "Axes", bounds: tuple[Bounds, Bounds], measured: Measure, mean: float) -> dict[float, str]:
    """Draw the mean with its intervals; return the name of each row by its height."""
    outer, inner = bounds
    dot(ax, mean, _ROWS[1], INK, 7, zorder=4, label="estimate")
    if outer.interval is None:
        few = next((word for word in ("one seed", "few seeds", "few images") if word in outer.why_not), "")
        return {_ROWS[1]: f"no interval:\n{few.replace('few', 'too few')}"}
    for width, height, each in ((3.6, _ROWS[1], outer), (1.2, _ROWS[0], inner)):
        if each.interval is not None:
            style = {"color": INK, "linewidth": width, "solid_capstyle": "butt", "zorder": 3}
            ax.plot(measured.scale * np.array(each.interval), [height, height], label="interval", **style)
    over = outer.over.replace(" and", "\nand")
    names = {_ROWS[1]: f"mean, {100 * outer.level:g} %\nover {over}"}
    return names | ({_ROWS[0]: f"{100 * inner.level:g} %"} if inner.interval else {})


def stacked(values: "np.ndarray", width: float) -> list[int]:
    """Return the lowest free level for each dot of a stack, so that dots do not overlap.

    >>> stacked(np.array([0.0, 5.0, 0.5, 0.9]), width=1.0)
    [0, 0, 1, 2]
    """
    levels = np.zeros(len(values), int)
    last: list[float] = []  # position of the last dot on each level
    for place in np.argsort(values, kind="stable"):
        value = float(values[place])
        level = next((level for level, left in enumerate(last) if value - left >= width), len(last))
        last[level : level + 1] = [value]
        levels[place] = level
    return levels.tolist()


def compared_arms(study: Study) -> dict[str, dict[str, FamilyTest]]:
    """Compare every arm that learns a further task with the question's single-task arm; by question, then by arm.

    Intervals are at the level of the verdict. p is adjusted over all arms but two kinds, which have no adjusted p:
    the question's own multi-task arm, which has its own alpha, and arms with other targets, which certainly differ.
    """
    tests = family_tests(
        {
            (question, arm): contrast(study.table, spec.metric, spec.single, arm)
            for question, spec in study.questions.items()
            for arm in study.arms
            # the oracle gets the other task's label as input
            if arm != spec.single
            and (len(tasks(study, arm)) > 1 or (question == "colour" and is_oracle(study, arm)))
        },
        1 - study.alpha,
    )
    adjusted = benjamini_hochberg(
        {
            (question, arm): test.p
            for (question, arm), test in tests.items()
            if arm != study.questions[question].multi
            and _has_same_targets(study, question, arm)
            and test.p is not None
        }
    )
    rows: dict[str, dict[str, FamilyTest]] = {}
    for (question, arm), test in tests.items():
        rows.setdefault(question, {})[arm] = test._replace(p_adjusted=adjusted.get((question, arm)))
    return rows


def _has_same_targets(study: Study, question: str, arm: str) -> bool:
    """Whether an arm learns a question's task from the same targets as the single-task arm."""
    targets = {"class": "labels", "colour": "colours"}[question]
    first, second = (
        (labelled_share(study, name) if question == "class" else 1.0, placebo(study, name) == targets)
        for name in (arm, study.questions[question].single)
    )
    return first == second


def forest_rows(study: Study) -> list[Row]:
    """Return the numbers of the forest plots with their tests: one row per question and arm."""
    return [
        {
            "question": question, "metric": test.found.metric, "arm": arm, "name": arm_name(arm),
            "against": test.found.arms[0], "same_targets": _has_same_targets(study, question, arm),
            "seeds": len(test.found.seeds), "diverged": len(test.found.diverged), "difference": test.found.estimate,
            **_ends(test.bounds), "over": test.bounds.over, "p": test.p, "p_adjusted": test.p_adjusted,
            "d_z": test.found.effect, "wins": test.found.wins.count,
        }
        for question, tests in compared_arms(study).items()
        for arm, test in tests.items()
    ]  # fmt: skip


def forest(study: Study) -> "dict[str, Figure]":
    """Draw for each question the mean paired difference of every arm; empty with only one arm to compare."""
    rows = compared_arms(study)
    if len({arm for tests in rows.values() for arm in tests}) < 2:
        return {}
    return {f"forest_{question}": _forest(study, question, tests) for question, tests in rows.items()}


def _forest(study: Study, question: str, tests: dict[str, FamilyTest]) -> "Figure":
    spec, runs = study.questions[question], [run for test in tests.values() for run in test.found.diverged]
    lost = dict.fromkeys(f"{arm_name(arm)} seed {seed}" for arm, seed in runs)
    height, measured = 0.3 * max(len(tests), 2) + 1.3 + 0.3 * bool(lost), measure(study.metrics, spec)
    alone = {"colour": "colouring", "class": "classification"}[question]
    title = measured.titled(measured.difference_unit)
    figure, ax = one_panel(height, title, subtitle=f"difference from single-task {alone}")
    # arms with other targets can be far off, so they do not set the axis limits and become arrows
    likes = {arm: test for arm, test in tests.items() if _has_same_targets(study, question, arm)}
    ends = [end for each in likes.values() for end in each.bounds.interval or ()]
    values = [measured.scale * value for value in (*(each.found.estimate for each in likes.values()), *ends)]
    # inverted, so that the first arm is on top, with space for the label of the band above it
    ax.set(xlim=axis_limits(values, measured.scale * spec.sesoi), ylim=(len(tests) - 0.5, -0.9))
    for height, (arm, test) in enumerate(tests.items()):
        is_multi = arm == spec.multi
        colour, weight = (MULTI, "bold") if is_multi else (INK if arm in likes else MUTED, "normal")
        _line(ax, test, measured, height, len(study.seeds), color=colour, fontweight=weight)
    ax.set_yticks(range(len(tests)), [arm_name(arm) for arm in tests], fontsize=SMALL)
    ax.tick_params(axis="y", pad=7)  # so that an arrow at the edge does not touch a name
    ax.spines["left"].set_visible(False)
    number_axis(ax, "x")
    mark_margin(ax, measured.scale * spec.sesoi, study.table.lower_is_better(spec.metric))
    note_diverged(figure, list(lost))
    return figure


def _line(
    ax: "Axes",
    test: FamilyTest,
    measured: Measure,
    height: float,
    planned: int,
    *,
    color: str,
    fontweight: str,
) -> None:
    """Draw one comparison; a value outside the axis limits becomes an arrow at the edge, next to its number."""
    low, high = ax.get_xlim()
    value = measured.scale * test.found.estimate
    if low <= value <= high:
        if interval := test.bounds.interval:
            ends = np.clip(measured.scale * np.array(interval), low, high)
            ax.plot(ends, [height, height], color=color, linewidth=2, zorder=3, label="interval")
        dot(ax, value, height, color, 6, hollow=bool(test.found.diverged), zorder=4, label="estimate")
    else:
        edge, marker = (low, "<") if value < low else (high, ">")
        ax.plot(edge, height, marker, color=color, markersize=5, clip_on=False, zorder=4, label="beyond")
    ax.annotate(
        _numbers(test, measured, planned), (1, height), xycoords=("axes fraction", "data"), xytext=(8, 0),
        textcoords="offset points", va="center", color=color, fontsize=SMALL, fontweight=fontweight,
        annotation_clip=False,
    )  # fmt: skip


def _numbers(test: FamilyTest, measured: Measure, planned: int) -> str:
    """Return difference and interval as text, and the number of seeds where fewer than planned."""
    found, interval = test.found, test.bounds.interval
    none = "one seed" if len(found.seeds) < 2 else "no interval"
    ends = measured.ends(interval) if interval else none
    seeds = f", {len(found.seeds)} of {planned} seeds" if len(found.seeds) < planned else ""
    return f"{measured.signed(found.estimate)} ({ends}{seeds})"
