"""`knowhue config` and `knowhue plan`: settings and plans as commented YAML, and the power of a plan."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from knowhue.config import Config, Task
from knowhue.errors import ConfigError, few, one_of, plural, quoted, should_be, shown
from knowhue.metric_table import SHARES
from knowhue.plan import QUESTIONS, Plan, Question, check_new_plan, read_planned
from knowhue.presets import checked
from knowhue.report.results import read_results
from knowhue.runs import is_study_file, path_hint, read_frozen
from knowhue.settings_text import inline_yaml, meaning_of, parse_number, read_yaml
from knowhue.statistics import FEWEST_IMAGES, MAGNITUDES
from knowhue.statistics.power import Design, Variances, chances, claimed, sign_flip_effect, smallest_effect
from knowhue.statistics.verdicts import Word, fewest_seeds, question_alpha

_STUDY_FILE = "a study file, as `knowhue plan` prints it, or `study.json` of a study's folder"
_UNITS = {"ab_l1": " CIELAB units", **dict.fromkeys(SHARES, " points")}
"""Units of differences; those of shares are in percentage points, as in the report."""


def commented_yaml(section: BaseModel | dict[str, Any], depth: int = 0) -> list[str]:
    """Return the lines of YAML that `--config` or `--plan` reads back, with the meaning of each setting as a comment.

    >>> from knowhue.config import Config
    >>> print(commented_yaml(Config())[0].split("#")[0].strip())
    seed: 0
    """
    is_table = isinstance(section, dict)  # a table of named entries, such as arms, has no descriptions
    fields = {} if is_table else type(section).model_fields
    lines: list[str] = []
    entries = section.items() if isinstance(section, dict) else section
    for name, value in entries:
        field = fields.get(name)
        # a field whose name would be a keyword of Python has an alias
        key = f"{'  ' * depth}{inline_yaml(name if field is None else field.alias or name)}:"
        meaning = "" if field is None else meaning_of(field)
        if isinstance(value, BaseModel):
            lines += [key, *commented_yaml(value, depth + 1)]
        elif isinstance(value, dict) and value and not is_table:
            lines += [f"{key}  # {meaning}", *commented_yaml(value, depth + 1)]
        else:
            setting = f"{key} {inline_yaml(value)}"
            lines.append(f"{setting:<44}  # {meaning}" if meaning else setting)
    return lines


def read_plan_file(path: Path) -> Plan:
    """Read a plan from the output of `knowhue plan` or from `study.json`; anything else raises a `KnowhueError`."""
    if is_study_file(path):
        return read_planned(path)
    if hint := path_hint(path):
        raise ConfigError(f"{path}: not a study file.{hint}")
    values = read_yaml(path, "--plan", _STUDY_FILE)
    # other files of a study have a schema as well
    if "schema" in values or values.keys().isdisjoint(Plan.model_fields):
        names = [f"`{shown(str(name))}`" for name in values]
        found = f"has {few(names, 3)}, so it is not a study file" if names else "is empty"
        are_settings = bool(values) and values.keys() <= Config.model_fields.keys()
        settings = ". Use --config for a file of settings" * are_settings
        raise ConfigError(f"{path}: the file {found}; --plan takes {_STUDY_FILE}{settings}")
    return check_new_plan(checked(Plan, values))


def power_lines(
    plan: Plan, variances: Mapping[str, Variances], images: int | None, counted_in: Path | None = None
) -> list[str]:
    """Return the smallest effect that each question of a plan can detect; `counted_in` is the source of `images`."""
    lines = []
    if counted_in is not None:
        lines.append(f"{plural(images, 'image')}, as in {counted_in}; --images for another number")
    for name, question in plan.questions.items():
        alpha = question_alpha(plan.alpha, len(plan.questions))
        found = variances.get(name)
        # variances of zero, as from a single seed, carry no information
        if found is None or not any(found) or images is None or len(plan.seeds) < 2:
            lines += _power_over_seeds(name, len(plan.seeds), alpha)
        else:
            design = Design(len(plan.seeds), images, question.sesoi, alpha)
            lines += _power_over_both(name, question, design, found)
    return [f"# {line}" for line in lines]


def grid_weights(text: str | None) -> list[float]:
    """Return weights of the class task from a text such as `1,100`, or none; anything else raises a `ConfigError`."""
    weights = [] if text is None else [parse_number(weight) for weight in text.split(",")]
    if all(0 < weight < math.inf for weight in weights) and len(set(weights)) == len(weights):
        return weights
    raise ConfigError(should_be("task_weight_grid", "different numbers above 0, such as `1,100`", text))


def read_variances(
    study: Path, questions: Mapping[Task, Question] = QUESTIONS
) -> tuple[dict[str, Variances], int]:
    """Return the variances of each question of a study (folder or sealed), and how many images it reports on.

    A `ConfigError` if it has too few seeds or scores of single images, or its question is about another metric.
    """
    from knowhue.sealing import unpacked

    if not study.is_file() and not (study / "results.json").exists():
        read_frozen(study)  # raises a RunError unless the folder holds a study
        raise ConfigError(
            f"`--variances` should be a study with results. Found none in `{study}`. Write them with "
            f"`knowhue report {quoted(study)}`."
        )
    with unpacked(study) if study.is_file() else nullcontext((study, None)) as (folder, _):
        tests: Mapping[str, Any] = read_results(folder / "results.json")["tests"]
    found = {name: sds for name, test in tests.items() if (sds := test.get("standard_deviations"))}
    if not found:
        raise ConfigError(
            f"`--variances` should be a study of two or more finished seeds with scores of {FEWEST_IMAGES} or more "
            f"single images. Found `{study}`, whose results.json has no variances. Train more seeds, report on more "
            "images, or run `knowhue report` again."
        )
    for name, question in questions.items():
        if name in found and (metric := tests[name].get("metric", question.metric)) != question.metric:
            raise ConfigError(
                f"`--variances` should be a study that asks about {question.metric}, as the question `{name}` of this "
                f"plan does. Found {metric} in `{study}`."
            )
    known = {name: Variances(sds["seed"], sds["image"], sds["residual"]) for name, sds in found.items()}
    return known, min(sds["images"] for sds in found.values())


def known_variances(
    study: Path | None,
    seed_sd: str | None,
    image_sd: str | None,
    images: int | None,
    questions: Mapping[Task, Question] = QUESTIONS,
) -> tuple[dict[str, Variances], int | None]:
    """Return the variances of each question, from a study or from given numbers, and the number of images."""
    if study is not None and (seed_sd or image_sd):
        raise ConfigError("`--variances` should be left out with `--seed-sd` and `--image-sd`. Found both.")
    if study is not None:
        found, count = read_variances(study, questions)
        return found, images or count
    if not seed_sd and not image_sd and images is None:
        return {}, None
    if not seed_sd or not image_sd or images is None:
        raise ConfigError(
            "`--seed-sd`, `--image-sd` and `--images` should be given together, or `--images` with `--variances`: "
            "the variation over seeds and images has no default. Found only some of them."
        )
    seeds, variances = parse_deviations(seed_sd, "seed_sd"), parse_deviations(image_sd, "image_sd")
    return {name: Variances(seeds[name], variances[name]) for name in seeds.keys() & variances.keys()}, images


def parse_deviations(text: str, argument: str) -> dict[str, float]:
    """Parse standard deviations by question, such as `colour=.08,class=.01`; anything else raises a `ConfigError`."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    found = {name.strip(): parse_number(value) for name, _, value in pairs}
    if not found or len(found) < len(pairs) or any(not 0 <= sd <= MAGNITUDES[1] for sd in found.values()):
        wanted = "standard deviations by question, such as `colour=.08,class=.01`"
        raise ConfigError(should_be(argument, wanted, text))
    for name in found:
        if name not in QUESTIONS:
            raise ConfigError(one_of(argument, name, QUESTIONS))
    return found


def _power_over_both(name: str, question: Question, design: Design, variances: Variances) -> list[str]:
    unit, scale = _UNITS.get(question.metric, ""), 100 if question.metric in SHARES else 1
    if scale > 1 and max(variances) > 1:
        raise ConfigError(
            f"Standard deviations of {question.metric} should be shares, 0 to 1, such as 0.01 for one point. Found "
            f"{max(variances):g} of `{name}`. Divide it by 100."
        )
    some = chances(design, -question.sesoi, variances)
    none = chances(design, 0.0, variances)
    smallest = smallest_effect(design, variances)
    least = f"no difference is detected 80 % of the time: a verdict needs {fewest_seeds(design.alpha)} seeds"
    if smallest is not None:
        least = f"the smallest difference detected 80 % of the time is {scale * smallest:.2g}{unit}"
    seed, image, residual = (scale * sd for sd in (variances.seed, variances.image, variances.residual))
    one = unit.removesuffix("s") if scale * question.sesoi == 1 else unit
    sds = f"sd of a seed {seed:.3g}, of an image {image:.3g}, residual {residual:.3g}"
    lines = [
        f"{name}: {design.seeds} seeds x {design.images:,} images ({sds}):",
        f"  {least};",
        f"  a difference of {scale * question.sesoi:g}{one} is detected {100 * claimed(some):.0f} % of the time; "
        f"if there is none, the verdict is `equivalent` {100 * none.get(Word.EQUIVALENT, 0.0):.0f} % of the time.",
    ]
    if zeros := [each for each, sd in (("seeds", seed), ("images", image)) if sd == 0]:
        lines.append(
            f"  The sd over {' and '.join(zeros)} is 0, because most scores agree or the study is small; that "
            "makes these numbers unreliable."
        )
    return lines


def _power_over_seeds(name: str, seeds: int, alpha: float) -> list[str]:
    effect = sign_flip_effect(seeds, alpha) if seeds >= fewest_seeds(alpha) else None
    if effect is None:
        gives = "gives" if seeds == 1 else "give"
        return [f"{name}: {plural(seeds, 'seed')} {gives} no verdict; {fewest_seeds(alpha)} are needed."]
    return [
        f"{name}: {seeds} seeds detect a difference of {effect:.2f} paired standard deviations 80 % of the time, "
        "without variation over images.",
        "  To include that, pass --variances STUDY (a folder or a sealed one), or --seed-sd, --image-sd and --images.",
    ]
