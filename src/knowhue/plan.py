"""The plan of a study, which is frozen before its first run, and the progress of its cells; needs no torch.

A plan holds questions, arms, seeds and settings, and has a hash. The state of each cell (arm, seed) is read from files.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from knowhue import presets, runs
from knowhue.arguments import checked_arguments
from knowhue.config import Config, PositiveFloat, Section, Task, digest
from knowhue.errors import ConfigError, one_of, raise_problems, should_be
from knowhue.metric_table import METRIC_NAMES, SHARES
from knowhue.setting_effects import changed, differing, require_effect
from knowhue.statistics import ALPHA, LEAST_ALPHA

SET_ASIDE = "set-aside"
"""Folder for earlier results of a block that was started again with another golden step, see `training.golden`."""
RESERVED = ("images", "features", "heads", "gate", SET_ASIDE)
CLOCK = "-clock"  # suffix of a comparison's arms that are trained for equal wall-clock time
_SHARED = attrgetter("images", "training.precision", "evaluation.split")  # settings equal in all arms
_ARM_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}")


Alpha = Annotated[float, Field(ge=LEAST_ALPHA, lt=0.5)]
Epochs = tuple[int, int]
"""Epochs on the frozen encoder, and of fine-tuning; a network from scratch has only the latter."""

BASELINE_NAMES: dict[Task, tuple[str, ...]] = {
    "colour": ("gray", "mean_colour", "median_colour"),
    "class": ("majority_class",),
}
"""Baselines without a trained model; a diverged run can be given the score of one."""


class Question(Section):
    """A co-primary question about the mean over seeds and images of `metric(multi) - metric(single)`."""

    metric: str
    """primary metric, a key of `METRICS`"""
    single: str
    """arm that is trained on this task alone"""
    multi: str = "multi"
    """arm that is compared with it"""
    sesoi: PositiveFloat
    """smallest effect of interest, in the unit of the metric; for a share, 0.01 is one percentage point"""
    if_diverged: str
    """baseline whose score replaces that of a diverged run"""
    secondary: tuple[str, ...] = ()
    """further metrics, whose p-values are adjusted for their number (Benjamini-Hochberg)"""


QUESTIONS: dict[Task, Question] = {
    "colour": Question(
        # 0.25 is about 2 % of the error of trained models, and far below what is visible in one image
        metric="ab_l1", single="colour", sesoi=0.25, if_diverged="gray", secondary=("ciede2000", "recognition")
    ),
    "class": Question(
        metric="balanced_accuracy", single="class", sesoi=0.01, if_diverged="majority_class",
        secondary=("cross_entropy",),
    ),
}  # fmt: skip


class Plan(Section):
    """All that defines a study before it is run."""

    LISTED = "`knowhue plan` prints them all."
    questions: dict[Task, Question] = QUESTIONS
    """the co-primary questions, by task; by default those whose arms are in `arms`"""
    alpha: Alpha = ALPHA
    """family-wise error rate of all questions together, divided among them"""
    arms: dict[str, dict[str, Any]] = Field(default=presets.THREE_ARMS, min_length=1)
    """by name of the arm: the settings in which it differs from `config`"""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (0,)
    """random seeds; each arm is trained with each of them"""
    purpose: Literal["report", "tuning"] = "report"
    """report; or tuning, to choose settings on the validation split without a verdict, with the test split unused"""
    tuned_on_seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = ()
    """seeds of the tuning study in which the settings were chosen; needs a test split"""
    reference: str | None = None
    """comparison: the arm that all others are compared with, for equal images and for equal wall-clock time"""
    budget_s: PositiveFloat | None = None
    """comparison: seconds of training at equal wall-clock; null is the time of the reference at equal images"""
    config: Config = Config()
    """the settings that all arms share"""

    # before validation, because afterwards given questions cannot be told from the default
    @model_validator(mode="before")
    @classmethod
    def _choose_questions(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "questions" in values:
            return values
        arms = values.get("arms", presets.THREE_ARMS)
        known = set(arms if isinstance(arms, Mapping) else presets.THREE_ARMS)
        return {**values, "questions": {n: q for n, q in QUESTIONS.items() if {q.single, q.multi} <= known}}

    @model_validator(mode="after")
    def _check_seeds_and_split(self) -> "Plan":
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            wanted = "different whole numbers" if self.seeds else "one whole number at least"
            raise ValueError(should_be("seeds", wanted, list(self.seeds)))
        if both := sorted(set(self.seeds) & set(self.tuned_on_seeds)):
            raise ValueError(
                "`seeds` should not include `tuned_on_seeds`, those of the tuning study. Found "
                f"{', '.join(map(str, both))} in both. Use others: --set seed={max(self.tuned_on_seeds) + 1}"
            )
        split = {"report": "auto", "tuning": "validation"}[self.purpose]
        if self.config.evaluation.split != split:
            wanted = f"{split} where `purpose = {self.purpose}`"
            remedy = "`knowhue study --tuning` sets both."
            raise ValueError(should_be("evaluation.split", wanted, self.config.evaluation.split, remedy))
        return self

    @model_validator(mode="after")
    def _check_arms(self) -> "Plan":
        if self.config.arms != Config().arms:
            raise ValueError("`config.arms` should be left out of a study file. Name its arms in `arms`.")
        for name in self.arms:
            if not _ARM_NAME.fullmatch(name) or name in RESERVED:
                wanted = f"named by at most 60 letters, digits, `.`, `-`, `_`, and not {', '.join(RESERVED)}"
                raise ValueError(should_be("arms", wanted, name))
            try:
                own = self.arm_settings(name)
            except ConfigError as error:
                raise ValueError(f"arm `{name}`: {error}") from None
            if _SHARED(own) != _SHARED(self.config):
                raise ValueError(f"arm `{name}` should leave images, precision and split to `config`.")
        if self.budget_s is not None and self.reference is None:
            wanted = "left out of a study without a `reference`, which trains nothing for equal wall-clock"
            raise ValueError(should_be("budget_s", wanted, self.budget_s))
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(one_of("reference", self.reference, self.arms))
        return self

    @model_validator(mode="after")
    def _check_questions(self) -> "Plan":
        for task, question in self.questions.items():
            arms = [arm for arm in self.arms if task in self.arm_settings(arm).tasks.names]
            key = f"questions.{task}"
            for name, value, known in (
                ("metric", question.metric, METRIC_NAMES[task]),
                *(("secondary", metric, METRIC_NAMES[task]) for metric in question.secondary),
                ("single", question.single, arms),
                ("multi", question.multi, arms),
                ("if_diverged", question.if_diverged, BASELINE_NAMES[task]),
            ):
                if value not in known:
                    raise ValueError(one_of(f"{key}.{name}", value, known))
            if len({question.metric, *question.secondary}) <= len(question.secondary):
                wanted = f"other metrics than `{key}.metric`, each once"
                raise ValueError(should_be(f"{key}.secondary", wanted, list(question.secondary)))
            if question.metric in SHARES and question.sesoi >= 1:
                wanted = f"a share, such as 0.01 for one point of {question.metric}"
                raise ValueError(should_be(f"{key}.sesoi", wanted, question.sesoi))
            if question.single == question.multi:
                raise ValueError(should_be(f"{key}.multi", "another arm than `single`", question.multi))
        return self

    @property
    def frozen(self) -> dict[str, Any]:
        """What must not change once a run has started: all that runs, scores and verdicts depend on, as JSON values.

        Arms at equal wall-clock are not part of it: they follow from the training times at equal images.
        """
        dumped = self.model_dump(mode="json", exclude={"config"}) | {
            "config": runs.hashed_settings(self.config)
        }
        if self.reference is None:
            return {name: value for name, value in dumped.items() if name not in ("reference", "budget_s")}
        return dumped | {"arms": {arm: dumped["arms"][arm] for arm in self.planned_arms}}

    def hash(self, parts: Mapping[str, Any]) -> str:
        """SHA-256, as 64 hex digits, of the plan and of `study.hashed_parts` (images and weights)."""
        resolved = {arm: runs.hashed_settings(self.arm_settings(arm)) for arm in self.planned_arms}
        return digest(self.frozen | {"resolved": resolved, "parts": dict(parts)})

    def computed_in(self, precision: str) -> "Plan":
        """The plan with the `training.precision` that an engine resolved, because `auto` depends on the machine."""
        config = presets.edit(self.config, {"training": {"precision": precision}})
        return self.model_copy(update={"config": config})

    def arm_settings(self, arm: str) -> Config:
        return presets.edit(self.config, self.arms[arm])

    def run_config(self, arm: str, seed: int) -> Config:
        return presets.edit(self.config, {**self.arms[arm], "seed": seed})

    @property
    def cells(self) -> list[tuple[str, int]]:
        """All pairs of arm and seed, seed by seed."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    @property
    def gate_arm(self) -> str | None:
        """The arm whose A/A gate is checked in each block: the first with both tasks."""
        return next((arm for arm in self.arms if len(self.arm_settings(arm).tasks.names) > 1), None)

    @property
    def planned_arms(self) -> list[str]:
        """All arms; of a comparison, only its methods at equal images."""
        return [arm for arm in self.arms if self.reference is None or not arm.endswith(CLOCK)]

    def epochs(self, arm: str) -> Epochs:
        config = self.arm_settings(arm)
        heads, tuned = config.training.heads.epochs, config.training.finetune.epochs
        return (heads, tuned) if config.has_encoder else (0, heads + tuned)

    def at_equal_wall_clock(self, epochs: Mapping[str, Epochs]) -> "Plan":
        """The plan with one more arm `<method>-clock` for each method whose `epochs` differ from its usual ones."""
        arms = dict(self.arms)
        for name, (heads, tuned) in epochs.items():
            if (heads, tuned) != self.epochs(name):
                training = {"heads": {"epochs": heads}, "finetune": {"epochs": tuned}}
                arms[name + CLOCK] = presets.merge(self.arms[name], {"training": training})
        return presets.checked(Plan, {**self.model_dump(mode="json"), "arms": arms})


@checked_arguments
def make_plan(
    config: Config,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    task_weight_grid: Sequence[float] = (),
    is_tuning: bool = False,
    tuned_on_seeds: Sequence[int] = (),
) -> Plan:
    """Fill in a plan from a configuration.

    Args:
        config: the settings that all arms share.
        arms: keys of `ARMS`; None takes those of `config`.
        seeds: random seeds; each arm is trained with each of them.
        task_weight_grid: further weights of the class task; each adds an arm `multi-class<weight>`.
        is_tuning: whether the study serves to choose settings: it scores the validation split and gives no verdict.
        tuned_on_seeds: seeds of the study in which these settings were chosen; none of `seeds`.

    Raises:
        ConfigError: an arm is unknown, a seed is repeated or was used for tuning, or there is no arm.
    """
    arms = config.arms if arms is None else arms
    _require_known("arms", arms, presets.ARMS)
    chosen = {arm: dict(presets.ARMS[arm]) for arm in arms}
    trained = [f"{config.tasks.weights.class_:g}"] if "multi" in chosen else []
    weights = [f"{weight:g}" for weight in task_weight_grid]
    if len({*trained, *weights}) < len(trained + weights):
        wanted = "weights that differ within six digits from one another, and from that of `multi`"
        found = ",".join(f"{weight:.12g}" for weight in task_weight_grid)
        raise ConfigError(should_be("task_weight_grid", wanted, found))
    for name, weight in zip(weights, task_weight_grid, strict=True):
        weighted = {"tasks": {"weights": {"class": float(weight)}}}
        chosen[f"multi-class{name}"] = presets.merge(presets.ARMS["multi"], weighted)
    changes = {"evaluation": {"split": "validation"}} if is_tuning else {}
    values = {
        "arms": chosen,
        "seeds": list(seeds),
        "purpose": "tuning" if is_tuning else "report",
        "tuned_on_seeds": list(tuned_on_seeds),
        "config": _shared_settings(config, changes),
    }
    return check_new_plan(presets.checked(Plan, values))


@checked_arguments
def make_comparison(
    config: Config,
    methods: Sequence[str] = tuple(presets.METHODS),
    reference: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    budget_s: float | None = None,
) -> Plan:
    """Fill in the plan of a comparison, a study whose arms are methods, from a configuration.

    The validation images are scored only at the end of each run, and a classifier of true-colour images is run on the
    colourings.

    Args:
        config: the settings that all methods share.
        methods: keys of `METHODS` or `PAPER_METHODS`.
        reference: one of them; None is `gan`, or the first method if `gan` is not among them.
        seeds: random seeds; each method is trained with each of them.
        budget_s: seconds of training at equal wall-clock; None is the time that the reference takes for equal images.

    Raises:
        ConfigError: a method is unknown or does not fit the settings, or the reference is none of the methods.
    """
    _require_known("methods", methods, presets.ALL_METHODS, fewest=2)
    if config.colour.is_from_scratch:
        wanted = "left to the methods of a comparison"
        raise ConfigError(should_be("colour.method", wanted, config.colour.method, "Use --methods."))
    changes = {"tasks": {"names": ("colour",)}, "evaluation": {"recognition": True, "every_epochs": 0}}
    values = {
        "arms": {name: presets.ALL_METHODS[name].edits for name in methods},
        "seeds": list(seeds),
        "reference": reference or ("gan" if "gan" in methods else methods[0]),
        "budget_s": budget_s,
        "config": _shared_settings(config, changes),
    }
    return check_new_plan(presets.checked(Plan, values))


def check_new_plan(plan: Plan) -> Plan:
    """Check that each setting of a new plan has an effect, and return the plan.

    Plans of existing studies are read without this check, because they must stay readable. It also refuses a seed among
    the settings, and methods named like the arms at equal wall-clock.
    """
    if plan.planned_arms != list(plan.arms):
        taken = next(arm for arm in plan.arms if arm not in plan.planned_arms)
        raise ConfigError(f"`arms` of a comparison should not end in `{CLOCK}`. Found `{taken}`.")
    set_by = {
        "config": {"seed": plan.config.seed},
        **{f"arms.{arm}": each for arm, each in plan.arms.items()},
    }
    for place, settings in set_by.items():
        if settings.get("seed"):
            raise ConfigError(f"`{place}.seed` should be left to `seeds`. Found {settings['seed']}.")
    configs = {arm: plan.arm_settings(arm) for arm in plan.arms}
    # `plan.config` itself counts, because shared settings may be meant for arms of other studies
    require_effect(changed(plan.config), [plan.config, *configs.values()])
    for arm, config in configs.items() if plan.reference is None else ():
        require_effect(differing(plan.arms[arm]), [config], f"arm `{arm}`: ")
    return plan


def _require_known(option: str, names: Sequence[str], known: Collection[str], fewest: int = 1) -> None:
    raise_problems(one_of(option, each, known) for each in dict.fromkeys(names) if each and each not in known)
    if "" in names or len(set(names)) < max(len(names), fewest):
        wanted = f"some of {', '.join(known)}{', two or more' * (fewest == 2)}, each once"
        raise ConfigError(should_be(option, wanted, ", ".join(names)))


def _shared_settings(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all arms share; those that the plan sets itself are left at their defaults."""
    presets.require_arms_choose_tasks(config)
    return presets.edit(config, {"seed": 0, "arms": Config().arms, **changes}).model_dump(mode="json")


class Cell(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int
    state: str
    """`missing`, `running` (also if interrupted), `finished`, `diverged` or `OTHER_SETTINGS`; a cell is running while
    one of its heads is, even if other arms share it"""
    epochs: int
    """epochs that are done; on the frozen encoder, the mean over its heads"""
    of: int
    seconds: float
    """time of this cell's own fine-tuning and evaluation so far"""


def read_plan(root: Path) -> Plan:
    """The frozen plan of a study folder; `RunError` if none of this version exists, `ConfigError` if it is damaged."""
    return plan_of(runs.read_frozen(root))


def read_planned(path: Path) -> Plan:
    """The frozen plan of a study's file, without the arms that were added for equal wall-clock; see `read_plan`."""
    plan = plan_of(runs.read_study_file(path))
    return plan.model_copy(update={"arms": {arm: plan.arms[arm] for arm in plan.planned_arms}})


def plan_of(frozen: Mapping[str, Any]) -> Plan:
    """The plan in the content of a `study.json`."""
    return presets.checked(Plan, {key: frozen[key] for key in Plan.model_fields if key in frozen})


def read_tuning(root: Path) -> Mapping[str, Any]:
    """`study.json` of a tuning study; `ConfigError` if the study is not one."""
    described = runs.read_frozen(root)
    if described.get("purpose") != "tuning":
        raise ConfigError(f"`--tuned-on` should be the folder of a tuning study (--tuning). Found `{root}`.")
    return described


def read_cells(root: Path, plan: Plan) -> list[Cell]:
    return [_cell(root, plan, arm, seed) for arm, seed in plan.cells]


def head_folders(root: Path, config: Config) -> list[Path]:
    """The folders of the heads that a run starts from; none for a network without an encoder."""
    heads = {task: presets.head_config(config, task) for task in presets.head_tasks(config)}
    return [runs.run_folder(root / "heads", task, own) for task, own in heads.items()]


def _cell(root: Path, plan: Plan, arm: str, seed: int) -> Cell:
    config = plan.run_config(arm, seed)
    folder = runs.run_folder(root, arm, config)
    log, status = runs.read_log(folder, "finetune"), runs.read_status(folder)
    heads, tuned = plan.epochs(arm)
    state, epochs = runs.run_state(folder), heads + len(log)
    if not status:
        folders = head_folders(root, config)
        if any(runs.read_status(head).get("state") == "running" for head in folders):
            state = "running"
        epochs = sum(len(runs.read_log(head)) for head in folders) // max(len(folders), 1)
    seconds = sum(entry["seconds"] for entry in log) + status.get("seconds", {}).get("evaluate", 0.0)
    return Cell(arm, seed, state, epochs, heads + tuned, round(seconds, 1))
