"""Settings and plans as commented YAML, and above a plan what its seeds and images can show."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from knowhue.config import Config, Task
from knowhue.errors import ConfigError, RunError, few, one_of, plural, shown
from knowhue.metric_table import SHARES
from knowhue.plan import QUESTIONS, Plan, Question, read_planned, with_effect
from knowhue.presets import checked
from knowhue.report.results import read_results
from knowhue.runs import is_study_file, taken_by
from knowhue.settings_text import meaning_of, plain_number, read_yaml
from knowhue.statistics import MAGNITUDES
from knowhue.statistics.power import Design, Variances, chances, claimed, sign_flip_effect, smallest_effect
from knowhue.statistics.verdicts import Word, fewest_seeds, question_alpha

_STUDY_FILE = "a study file, as `knowhue plan` prints it, or `study.json` of a study's folder"
_UNITS = {"ab_l1": " CIELAB units", **dict.fromkeys(SHARES, " points")}
"""Shares are given in per cent, and differences of them in percentage points, as in the report."""


def commented_yaml(section: BaseModel | dict[str, Any], depth: int = 0) -> list[str]:
    """Every setting with its meaning beside it, in YAML that `--config`, or `--plan`, reads back; one string a line.

    >>> from knowhue.config import Config
    >>> print(commented_yaml(Config())[0].split("#")[0].strip())
    seed: 0
    """
    is_table = isinstance(section, dict)  # of named entries, such as arms, which have no meanings
    fields = {} if is_table else type(section).model_fields
    lines: list[str] = []
    entries = section.items() if isinstance(section, dict) else section
    for name, value in entries:
        field = fields.get(name)
        # a field that is named after a keyword of Python has an alias
        key = f"{'  ' * depth}{_inline(name if field is None else field.alias or name)}:"
        meaning = "" if field is None else meaning_of(field)
        if isinstance(value, BaseModel):
            lines += [key, *commented_yaml(value, depth + 1)]
        elif isinstance(value, dict) and value and not is_table:
            lines += [f"{key}  # {meaning}", *commented_yaml(value, depth + 1)]
        else:
            setting = f"{key} {_inline(value)}"
            lines.append(f"{setting:<44}  # {meaning}" if meaning else setting)
    return lines


def _inline(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    # PyYAML folds long lines, and ends a lone scalar with `...`
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def read_plan_file(path: Path) -> Plan:
    """A study's plan: a file as `knowhue plan` prints it, or a study's own; a `KnowhueError` of anything else."""
    if is_study_file(path):
        return read_planned(path)
    if hint := taken_by(path):
        raise ConfigError(f"{path}: no study file.{hint}")
    values = read_yaml(path, "--plan", _STUDY_FILE)
    # other files of a study name their schema, too
    if "schema" in values or values.keys().isdisjoint(Plan.model_fields):
        names = [f"`{shown(str(name))}`" for name in values]
        found = f"holds {few(names, 3)}, and is no study file" if names else "holds nothing"
        are_settings = bool(values) and values.keys() <= Config.model_fields.keys()
        settings = ". Settings alone go with --config" * are_settings
        raise ConfigError(f"{path}: {found}; --plan takes {_STUDY_FILE}{settings}")
    return with_effect(checked(Plan, values))


def power_lines(
    plan: Plan, variances: Mapping[str, Variances], images: int | None, counted_in: Path | None = None
) -> list[str]:
    """What each question of a plan finds with its seeds and its images, perhaps as many as an earlier study's."""
    lines = []
    if counted_in is not None:
        lines.append(f"{images} images, as in {counted_in}; --images for another number")
    for name, question in plan.questions.items():
        alpha = question_alpha(plan.alpha, len(plan.questions))
        found = variances.get(name)
        # a spread of nothing, as of one seed, says nothing
        if found is None or not any(found) or images is None or len(plan.seeds) < 2:
            lines += _by_seeds_alone(name, len(plan.seeds), alpha)
        else:
            lines += _by_both(name, question, Design(len(plan.seeds), images, question.sesoi, alpha), found)
    return [f"# {line}" for line in lines]


def grid_weights(text: str | None) -> list[float]:
    """Weights of the class task, such as `1,100`, none of None; a `ConfigError` of anything else."""
    weights = [] if text is None else [plain_number(weight) for weight in text.split(",")]
    if all(0 < weight < math.inf for weight in weights) and len(set(weights)) == len(weights):
        return weights
    raise ConfigError(
        f"`--grid` should be different numbers above 0, such as `1,100`. Found `--grid {shown(text)}`."
    )


def read_variances(
    study: Path, questions: Mapping[Task, Question] = QUESTIONS
) -> tuple[dict[str, Variances], int]:
    """The variances of each question of an earlier or a sealed study, and how many images it reports on.

    Raises:
        ConfigError: it has none: fewer than two seeds, or no scores of single images; or of another metric.
        RunError: its results are damaged or not there.
    """
    from knowhue.sealing import unpacked

    try:
        with unpacked(study) if study.is_file() else nullcontext((study, None)) as (folder, _):
            tests: Mapping[str, Any] = read_results(folder / "results.json")["tests"]
    except RunError:
        if not study.is_file():
            raise
        # it would name a folder that is gone by now
        raise RunError(
            f"`{study}` should be a sealed study as `knowhue pack` made it. Its results are damaged: `knowhue check "
            f"{study}` says how."
        ) from None
    found = {
        name: each["standard_deviations"] for name, each in tests.items() if each.get("standard_deviations")
    }
    if not found:
        raise ConfigError(
            f"`--variances` should be a study of two or more finished seeds with scores of single images. Found "
            f"`{study}`, whose results.json has no variances: make it anew with `knowhue report`."
        )
    for name, asked in questions.items():
        if name in found and (metric := tests[name].get("metric", asked.metric)) != asked.metric:
            raise ConfigError(
                f"`--variances` should be a study that asks about {asked.metric}, as the question `{name}` of this "
                f"plan does. Found {metric} in `{study}`."
            )
    images = min(each["images"] for each in found.values())
    return {
        name: Variances(each["seed"], each["image"], each["residual"]) for name, each in found.items()
    }, images


def known_variances(
    study: Path | None,
    seed_sd: str | None,
    image_sd: str | None,
    images: int | None,
    questions: Mapping[Task, Question] = QUESTIONS,
) -> tuple[dict[str, Variances], int | None]:
    """Return what is known of how scores vary: read from a study, or given as numbers.

    Raises:
        ConfigError: both were given, or one of the two standard deviations alone, or no number of images.
    """
    if study is not None and (seed_sd or image_sd):
        raise ConfigError("`--variances` should be given, or `--seed-sd` and `--image-sd`. Found both.")
    if study is not None:
        found, count = read_variances(study, questions)
        return found, images or count
    if not seed_sd and not image_sd and images is None:
        return {}, None
    if not seed_sd or not image_sd or images is None:
        raise ConfigError(
            "`--seed-sd`, `--image-sd` and `--images` should be given together, or `--images` with `--variances`: "
            "how much seeds and images vary is not assumed. Found not all of them."
        )
    seeds, variances = stated(seed_sd, "--seed-sd"), stated(image_sd, "--image-sd")
    return {name: Variances(seeds[name], variances[name]) for name in seeds.keys() & variances.keys()}, images


def stated(text: str, option: str) -> dict[str, float]:
    """Standard deviations by question, such as `colour=.08,class=.01`; a `ConfigError` of anything else."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    found = {name.strip(): plain_number(value) for name, _, value in pairs}
    if not found or len(found) < len(pairs) or any(not 0 <= sd <= MAGNITUDES[1] for sd in found.values()):
        raise ConfigError(
            f"`{option}` should be standard deviations by question, such as `colour=.08,class=.01`. "
            f"Found `{option} {shown(text)}`."
        )
    for name in found:
        if name not in QUESTIONS:
            raise ConfigError(one_of(option, name, QUESTIONS))
    return found


def _by_both(name: str, question: Question, design: Design, variances: Variances) -> list[str]:
    unit, scale = _UNITS.get(question.metric, ""), 100 if question.metric in SHARES else 1
    if scale > 1 and max(variances) > 1:
        raise ConfigError(
            f"Standard deviations of {question.metric} should be shares, 0 to 1, such as 0.01 for one point. Found "
            f"{max(variances):g} of `{name}`. Divide it by 100."
        )
    some = chances(design, -question.sesoi, variances)
    none = chances(design, 0.0, variances)
    smallest = smallest_effect(design, variances)
    least = (
        f"the smallest difference detected 80 % of the time is {scale * smallest:.2g}{unit}"
        if smallest is not None
        else f"no difference is detected 80 % of the time: a verdict needs {fewest_seeds(design.alpha)} seeds"
    )
    seed, image, residual = (scale * sd for sd in (variances.seed, variances.image, variances.residual))
    one = unit.removesuffix("s") if scale * question.sesoi == 1 else unit
    lines = [
        f"{name}: {design.seeds} seeds x {design.images} images "
        f"(sd of a seed {seed:.3g}, of an image {image:.3g}, residual {residual:.3g}):",
        f"  {least};",
        f"  a difference of {scale * question.sesoi:g}{one} is detected {100 * claimed(some):.0f} % of the time; "
        f"if there is none, the verdict is `equivalent` {100 * none.get(Word.EQUIVALENT, 0.0):.0f} % of the time.",
    ]
    if zeros := [each for each, sd in (("seeds", seed), ("images", image)) if sd == 0]:
        lines.append(
            f"  The sd over {' and '.join(zeros)} is 0, as where most scores agree or the study is small; that is "
            "unreliable, and so are these numbers."
        )
    return lines


def _by_seeds_alone(name: str, seeds: int, alpha: float) -> list[str]:
    effect = sign_flip_effect(seeds, alpha) if seeds >= fewest_seeds(alpha) else None
    if effect is None:
        return [f"{name}: {plural(seeds, 'seed')}: no verdict below {fewest_seeds(alpha)}."]
    return [
        f"{name}: {seeds} seeds detect a difference of {effect:.2f} paired standard deviations 80 % of the time, were "
        "there no variation over images.",
        "  To count it in, pass --variances STUDY (an earlier one, or a sealed one), or --seed-sd, --image-sd and "
        "--images.",
    ]
