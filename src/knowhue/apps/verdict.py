"""`knowhue verdict`: a table of scores from any source, judged by the statistics of a study."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from knowhue.apps.program import Options, OverwriteOption, Rare, command_line, say
from knowhue.errors import ConfigError, one_of, should_be, shown
from knowhue.settings_text import number_advice, parse_number
from knowhue.statistics import ALPHA, LEAST_ALPHA, MAGNITUDES
from knowhue.storage import require_outputs


class VerdictArguments(Options):
    """Arguments and options of `knowhue verdict`; fields that `TableOptions` has as well are passed on to it."""

    tables: Annotated[list[Path], typer.Argument()]
    """tables, as CSV, JSON or parquet, with a row for each score (columns `arm, seed, metric, value`, and optionally
    `image, class`), or a row for each run, as W&B and MLflow export them"""
    against: str | None = None
    """the arm that the others are compared with"""
    arms: Annotated[list[str] | None, typer.Option("--arm")] = None
    """an arm to compare with it; by default all others; may be repeated"""
    metrics: Annotated[list[str] | None, typer.Option("--metric")] = None
    """a metric to judge; by default all that have a smallest effect of interest; may be repeated"""
    sesoi: list[str] | None = None
    """smallest effect of interest of a metric, in its unit, such as `accuracy=0.01`; may be repeated. `ab_l1` and
    `balanced_accuracy` have one by default"""
    better: list[str] | None = None
    """which direction of a metric is better, such as `loss=lower`; may be repeated"""
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None
    """page to write, `.html`; a `.json` with all numbers is written next to it. By default neither is written"""
    alpha: Rare[float] = ALPHA
    """probability of a false claim over all questions together"""
    arm_column: Rare[str | None] = None
    """column with the name of the arm; by default it is recognised"""
    seed_column: Rare[str | None] = None
    """column with the seed; by default it is recognised"""
    overwrite: OverwriteOption = False


def verdict_command(arguments: VerdictArguments) -> None:
    """Judge runs of any source from a table of scores: does the difference hold beyond these seeds and test images?"""
    from knowhue.report.page import write_verdict
    from knowhue.report.results import conclude
    from knowhue.report.table_study import TableOptions, further_lines, notices, read_table

    if not LEAST_ALPHA <= arguments.alpha < 0.5:
        raise ConfigError(should_be("alpha", f"at least {LEAST_ALPHA:g} and below 0.5", arguments.alpha))
    names = [each.name for each in fields(TableOptions)]
    given = {name: value for name, value in arguments if name in names and value is not None}
    by_metric = {"better": _directions(arguments.better or ()), "sesoi": _effects(arguments.sesoi or ())}
    options, out = TableOptions(**given | by_metric), arguments.out
    if out is not None and out.suffix != ".html":
        raise ConfigError(f"`--out` should end in .html. Found `{out}`.")
    table = read_table(arguments.tables, options)
    outputs = {} if out is None else {"--out": out, "the numbers next to it": out.with_suffix(".json")}
    require_outputs(outputs, arguments.tables, overwrite=arguments.overwrite)
    found = conclude(table)
    for each in found.answers.values():
        say(each.question, *(f"  {line}" for line in each.lines), "")
    if further := further_lines(found.findings):
        say(f"Further metrics, without a question († only on these {table.split} images):")
        say(*(f"  {line}" for line in further), "")
    if lines := notices(table):
        say(*lines, err=True)
    if outputs:
        page, numbers = outputs.values()
        write_verdict(found, page, numbers, command_line())
        say(f"Verdict: {page}, numbers: {numbers}")


def _pairs(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.rpartition("=")
        if not (name and sign and value):
            raise ConfigError(f"`{option}` should be NAME=VALUE, such as `{example}`. Found `{shown(text)}`.")
        if found.setdefault(name, value) != value:
            both = f"{found[name]} and {value}"
            raise ConfigError(f"`{option}` should be given once for `{shown(name)}`. Found {both}.")
    return found


def _directions(given: Sequence[str]) -> dict[str, str]:
    found = _pairs("--better", given, "loss=lower")
    for name, value in found.items():
        if value not in ("lower", "higher"):
            raise ConfigError(one_of(f"--better {shown(name)}", value, ("lower", "higher")))
    return found


def _effects(given: Sequence[str]) -> dict[str, float]:
    effects = {}
    for name, text in _pairs("--sesoi", given, "accuracy=0.01").items():
        effects[name] = parse_number(text)
        if not MAGNITUDES[0] <= effects[name] <= MAGNITUDES[1]:
            raise ConfigError(
                f"`--sesoi {shown(name)}` should be a number above 0, {MAGNITUDES[0]:g} to {MAGNITUDES[1]:g}. Found "
                f"`{shown(text)}`. {number_advice(text)}".rstrip()
            )
    return effects
