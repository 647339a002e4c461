"""Run a study: freeze its plan, run its cells (arms by seeds, with shared images and heads), write the report."""

import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from knowhue import __version__, runs
from knowhue.arguments import checked_arguments
from knowhue.cells import Arithmetic, arithmetic_elsewhere, run_cells, worker_task
from knowhue.config import Evaluation, fingerprint
from knowhue.data.listing import list_items
from knowhue.data.loaders import plain_batches
from knowhue.data.prepare import Prepared, count_seen
from knowhue.engines.executor import Executor, InProcess, Job, await_leftover_jobs, share_out
from knowhue.errors import ConfigError, RunError
from knowhue.evaluation.evaluate import predict_class, predict_colour, predict_gray
from knowhue.evaluation.features import Unavailable, open_networks
from knowhue.locks import locked
from knowhue.metric_table import RUN_METRICS
from knowhue.models.multitask import MultiTask
from knowhue.plan import Epochs, Plan, plan_of, read_plan, read_tuning
from knowhue.report.page import write_report
from knowhue.storage import cached, read_json, write_json
from knowhue.tensors import Batch
from knowhue.training.engine import Engine, Workspace, computing_with
from knowhue.training.golden import blocks_of, golden_step, restart_mixed_blocks
from knowhue.training.phases import predict
from knowhue.training.run import load_run, open_workspace
from knowhue.training.scores import noise_floor, score_baseline, write_truth

COSTS = "costs.json"
TIMED_IMAGES = 32
ROUNDS = 3


def equal_wall_clock(plan: Plan, root: Path) -> dict[str, Any]:
    """The time budget in seconds, and each method's epochs within it by the time of its epochs at equal images."""
    # diverged runs are left out, because they may have ended early
    finished = [run for run in _ended(plan, str(plan.reference), root) if runs.has_finished(run)]
    budget = plan.budget_s or _mean([sum(_train_seconds(run)) for run in finished])
    if not budget:
        raise RunError(f"`{plan.reference}` diverged with every seed. Name a budget or another reference.")
    epochs: dict[str, Epochs] = {}
    for method in plan.planned_arms:
        ended = _ended(plan, method, root)
        took = {
            phase: [_mean(_train_seconds(run, phase)) for run in ended] for phase in ("heads", "finetune")
        }
        # 0 means that a run did not reach the phase
        heads, tuned = (_mean([each for each in seconds if each]) for seconds in took.values())
        usual = plan.epochs(method)
        has_pace = bool((heads or not usual[0]) and (tuned or not usual[1]))
        # a method that diverged in its first epoch with every seed has no known speed and keeps its usual epochs
        epochs[method] = epochs_within(budget, usual, (heads, tuned)) if has_pace else usual
    return {"budget_s": budget, "epochs": epochs}


def epochs_within(budget_s: float, usual: Epochs, seconds: tuple[float, float]) -> Epochs:
    """The numbers of epochs whose training time is nearest to a budget, divided between the phases about as usual.

    `usual` are the epochs on the frozen encoder and of fine-tuning, not both 0, and `seconds` the duration of an epoch
    of each. A phase that usually has epochs gets at least one, even if that exceeds the budget.

    >>> epochs_within(60.0, (3, 2), (7.0, 14.0)), epochs_within(60.0, (0, 5), (0.0, 40.0))
    ((4, 2), (0, 2))
    """
    heads, tuned = usual
    if not heads or not tuned:
        own = seconds[0] if heads else seconds[1]
        count = max(1, round(budget_s / own))
        return (count, 0) if heads else (0, count)
    most = int(budget_s / seconds[1]) + 1  # more fine-tuning alone would exceed the budget
    shared_out = [(count, int(count * heads / tuned) + up) for count in range(1, most + 1) for up in (0, 1)]
    found = [(max(1, near), count) for count, near in shared_out]
    return min(found, key=lambda each: (abs(each[0] * seconds[0] + each[1] * seconds[1] - budget_s), each))


def write_costs(work: Workspace, plan: Plan) -> None:
    """Write `costs.json`: for each method the seconds per predicted image, and the number of trained parameters."""
    ended = {method: _ended(plan, method, work.root) for method in plan.planned_arms}
    firsts = {method: folders[0] for method, folders in ended.items() if folders}
    models = {method: load_run(work, runs.read_config(run), run) for method, run in firsts.items()}
    positions = work.prepared.positions(work.prepared.reporting_split)[:TIMED_IMAGES]
    (batch,) = plain_batches(work.prepared, positions, TIMED_IMAGES, work.engine.device)
    # methods take turns, so that other load on the machine slows all of them
    rounds = [
        {method: _predict_seconds(work, model, batch) for method, model in models.items()}
        for _ in range(ROUNDS + 1)
    ]
    costs = {
        method: {
            # the first round warms up
            "predict_s_per_image": median(each[method] for each in rounds[1:]) / len(positions),
            "parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        }
        for method, model in models.items()
    }
    write_json(work.root / COSTS, costs)


def _ended(plan: Plan, arm: str, root: Path) -> list[Path]:
    folders = [runs.run_folder(root, arm, plan.run_config(arm, seed)) for seed in plan.seeds]
    return [folder for folder in folders if runs.has_ended(folder)]


def _train_seconds(run: Path, phase: str | None = None) -> list[float]:
    """Training time of each epoch in seconds, of one phase or all; includes warm-up, excludes evaluation."""
    return [entry["train_seconds"] for entry in runs.read_log(run, phase)]


def _predict_seconds(work: Workspace, model: MultiTask, batch: Batch) -> float:
    started = time.perf_counter()
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None  # every method colours
    chroma.sum().item()  # waits for the GPU
    return time.perf_counter() - started


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@checked_arguments
def run_study(
    plan: Plan,
    root: str | Path,
    executor: Executor | None = None,
    description: dict[str, Any] | None = None,
    report: runs.Report = lambda _: None,
    tuned_on: str | Path | None = None,
) -> Path:
    """Freeze a plan, train its arms with its seeds in the folder `root`, compare them, and write the report.

    The same call resumes an interrupted study and does not repeat runs that have ended.

    Args:
        plan: see `plan.make_plan`.
        root: the study folder.
        executor: runs the cells, see `engines.executor.open_engine`; None runs them in this process.
        description: `name`, `preset` and `command`, shown in the report.
        report: callback for progress events.
        tuned_on: folder of the tuning study in which the settings were chosen; its images must not be test images here.

    Returns:
        Path of the report, `root/report.html`; the numbers are in `root/results.json`.

    Raises:
        ConfigError: the engine cannot be used here, or settings were tuned and there is no test split.
        RunError: `root` holds a study with another plan, which was frozen when its first run started, or another
            process is working on it.
    """
    _require_test_split(plan)
    root, tuned_on = Path(root), None if tuned_on is None else Path(tuned_on)
    executor = executor or InProcess()
    with locked(root, "study", engine=executor.name) as left:
        await_leftover_jobs(executor, left, root, report)
        work, elsewhere = _begin(plan, root, executor, description or {}, report, tuned_on)
        # the main process has written it, and all processes read the same file
        plan = read_plan(root)  # an interrupted comparison may already have arms at equal wall-clock
        is_comparison = plan.reference is not None
        report({"stage": "golden"})
        step = elsewhere.golden_step if elsewhere else golden_step(work.engine, executor.threads)
        more_to_come = is_comparison and "wall_clock" not in runs.read_frozen(root)
        restart_mixed_blocks(work, blocks_of(plan), step, more_to_come)
        run_cells(work, plan, executor, step)
        if is_comparison:
            _run_at_equal_wall_clock(work, plan, executor, step)
        report({"stage": "report"})
        if work.engine.is_main:
            write_report(root)
        work.engine.wait()
    return root / "report.html"


def _begin(
    plan: Plan,
    root: Path,
    executor: Executor,
    description: dict[str, Any],
    report: runs.Report,
    tuned_on: Path | None,
) -> tuple[Workspace, Arithmetic | None]:
    """Check the plan, freeze it with the precision of the machines that run it, and score the baselines.

    Returns the workspace that the cells share, and the arithmetic of the engine's machines, or None for this machine.
    """
    engine = Engine(plan.config.training)
    if not isinstance(executor, InProcess) and engine.share.world > 1:
        raise ConfigError(
            f"`--engine {executor.name}` cannot be combined with torch.distributed.run. Use one of the two."
        )
    _refuse_another_plan(plan, root)
    _require_free_folder(root)

    def open_study() -> tuple[Workspace, dict[str, Any] | None]:
        configs = [plan.run_config(arm, plan.seeds[0]) for arm in plan.arms]
        work = open_workspace(plan.config, root, report, configs, engine, share_out(executor, "prepare"))
        checked = _require_unseen_test_images(plan, work, tuned_on)
        if engine.is_main:
            _refuse_other_parts(root, hashed_parts(work))
        return work, checked

    # a study that has started is checked first, because a job may wait long in a cluster's queue; for a new study the
    # cluster comes first, because preparing images may take as long
    opened = open_study() if _read_started(root) else None
    elsewhere = arithmetic_elsewhere(executor, plan.config.training, root) if executor.is_elsewhere else None
    resolved = plan.computed_in(elsewhere.precision if elsewhere else engine.precision)
    _refuse_another_plan(resolved, root)
    work, checked = opened or open_study()
    report({"stage": "baselines"})
    with computing_with(executor.threads):  # as in the cells, whose scores are compared with these
        if engine.is_main:
            if freeze(resolved, root, description, hashed_parts(work), checked):
                note = "another plan, of which nothing was trained, is replaced"
                report({"stage": "note", "text": f"{root / runs.FROZEN}: {note}"})
            write_baselines(work, plan.config.evaluation)
            write_truth(work)
        engine.wait()
    return work, elsewhere


def _run_at_equal_wall_clock(work: Workspace, plan: Plan, executor: Executor, step: str) -> None:
    """Fix the epochs of each method once, from the training times at equal images, and run the new arms."""
    if work.engine.is_main and "wall_clock" not in (frozen := runs.read_frozen(work.root)):
        clock = equal_wall_clock(plan, work.root)
        extended = plan.at_equal_wall_clock(clock["epochs"]).model_dump(mode="json")
        write_json(work.root / runs.FROZEN, {**frozen, **extended, "wall_clock": clock})
    work.engine.wait()
    plan = read_plan(work.root)
    run_cells(work, plan, executor, step)
    work.report({"stage": "costs"})
    if executor.is_elsewhere:  # on the machines that trained the methods, for comparable times
        costs = partial(worker_task(work, plan, executor), partial(write_costs, plan=plan))
        executor.execute([Job("costs", costs)])
    elif work.engine.is_main:
        write_costs(work, plan)


def write_baselines(work: Workspace, settings: Evaluation) -> None:
    """Write `baselines.json` and `metrics.json`: predictors without training, scored like the models.

    The row `real` is the noise floor: other real images, from the training split. Scores are cached in `features/` for
    the same images, metrics and networks.
    """
    described = {
        name: {"title": m.title, "unit": m.unit, "better": m.better, "task": m.task}
        for name, m in RUN_METRICS.items()
    }
    # the version is part of the key because scores may change with it, and the networks because a file may be missing
    opened = open_networks(settings, work.engine.device).values()
    networks = [each.reason if isinstance(each, Unavailable) else each.provenance for each in opened]
    values = settings.model_dump(mode="json")
    key = fingerprint([work.prepared.fingerprint, values, described, __version__, networks])
    kept = work.root / "features" / f"baselines-{key}.json"
    scores = cached(kept, read_json, lambda path: write_json(path, _score_baselines(work, settings)))
    write_json(work.root / "baselines.json", scores)
    write_json(work.root / "metrics.json", described)


def _score_baselines(work: Workspace, settings: Evaluation) -> dict[str, Any]:
    prepared = work.prepared
    labels = prepared.label[(prepared.split == "train") & (prepared.label >= 0)]
    counts = torch.bincount(torch.from_numpy(labels), minlength=len(prepared.classes))
    mean_ab, median_ab = constant_colours(prepared)
    baselines = {
        "gray": predict_gray,
        "mean_colour": predict_colour(mean_ab),
        "median_colour": predict_colour(median_ab),
        "majority_class": predict_class((counts / counts.sum()).tolist()),
    }
    split = prepared.reporting_split
    reported, train = len(prepared.positions(split)), len(prepared.positions("train"))
    of_epochs = 0 if split == "validation" else len(prepared.positions("validation"))
    passes = len(baselines) * (reported + of_epochs) + reported + min(reported, train)
    count = work.counting("baselines", passes)
    scores = {name: score_baseline(work, settings, predict, count) for name, predict in baselines.items()}
    return scores | {"real": noise_floor(work, settings, count)}


def constant_colours(prepared: Prepared, batch_size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and median (to 0.01) a*b* of all training pixels, (2,) each, CIELAB units: optimal for L2 and for L1."""
    positions = prepared.positions("train")
    total = torch.zeros(2, dtype=torch.float64)
    # the median by a histogram in steps of 0.01, because all pixels of a large set do not fit into memory
    counts = torch.zeros(2, 25_600, dtype=torch.float64)
    for batch in plain_batches(prepared, positions, batch_size, torch.device("cpu")):
        total += batch.chroma.double().mean((2, 3)).sum(0)
        flat = batch.chroma.transpose(0, 1).flatten(1)
        counts += torch.stack([torch.histc(each, counts.shape[1], -128.0, 128.0) for each in flat])
    below = counts.cumsum(1)
    # the centre of the bin; that of the first is -127.995
    median = (below < below[:, -1:] / 2).sum(1) * 0.01 - 127.995
    return (total / len(positions)).float(), median


_NO_TEST_SPLIT = (
    "A study whose settings were tuned should report on a test split, which tuning never used. Found none. Add "
    "test/<class>/ folders, or split one off in both studies: --set images.test_share=0.2"
)


def _require_test_split(plan: Plan) -> None:
    # from the list of images, before any image is prepared
    if plan.tuned_on_seeds and not plan.config.images.test_share:
        items = list_items(plan.config.images)
        if not any(item.split == "test" and not item.skipped for item in items):
            raise ConfigError(_NO_TEST_SPLIT)


def _require_unseen_test_images(plan: Plan, work: Workspace, tuned_on: Path | None) -> dict[str, Any] | None:
    """Check that no image of the tuning study is a test image of this one; `Plan` checks the seeds.

    Returns the entry for `study.json`, or None if no tuning study is named and nothing is checked.
    """
    if plan.tuned_on_seeds and work.prepared.reporting_split != "test":
        raise ConfigError(_NO_TEST_SPLIT)
    if tuned_on is None:
        return None
    near_bits = plan.config.images.duplicate_distance_bits
    if repeated := count_seen(work.root / "images", tuned_on / "images", near_bits):
        raise ConfigError(
            f"The test images should not be among those that `{tuned_on}` used. Found {repeated} of them, or similar "
            "ones. Use the same images, `images.size_px`, `images.test_share` and `images.split_seed` in both."
        )
    tuning = read_tuning(tuned_on)
    if sorted(tuning["seeds"]) != sorted(plan.tuned_on_seeds):
        raise ConfigError(
            f"`tuned_on_seeds` should be the seeds of `{tuned_on}`: {', '.join(map(str, tuning['seeds']))}. Found "
            f"{list(plan.tuned_on_seeds)}. Name the study that chose these settings."
        )
    return {
        "study": tuning["hash"],
        "seeds": list(tuning["seeds"]),
        "test_images_seen": 0,
        "near_duplicate_bits": near_bits,
    }


def hashed_parts(work: Workspace) -> dict[str, Any]:
    """The parts of a plan's hash besides the plan: digests of `images` and `encoder_weights`."""
    return {"images": work.prepared.fingerprint, "encoder_weights": dict(work.encoders)}


def freeze(
    plan: Plan,
    root: Path,
    description: dict[str, Any],
    parts: dict[str, Any],
    tuned_on: dict[str, Any] | None = None,
) -> bool:
    """Write `study.json`: the plan, its hash with its parts, the time, and the command.

    `tuned_on` is the result of comparing the test images with those of the tuning study. A command that resumes the
    same plan on the same images without it keeps the earlier result. Returns whether another plan was replaced, of
    which nothing had been trained.
    """
    earlier = runs.read_frozen(root) if (root / runs.FROZEN).exists() else {}
    has_begun = _read_started(root) is not None
    _refuse_other_parts(root, parts)
    # another plan without a run was never frozen, and is replaced
    same = earlier if earlier.get("hash") == plan.hash(parts) else {}
    frozen_by = same or {"created": datetime.now(UTC).isoformat(timespec="seconds"), **description}
    described = {
        **runs.STUDY_SCHEMA,
        "name": description.get("name", root.name),
        "version": __version__,
        # kept from the first command, because one that resumes the frozen plan does not name the preset
        **{name: frozen_by[name] for name in ("created", "command", "preset") if name in frozen_by},
        "hash": plan.hash(parts),
        "parts": parts,
        "tuned_on": tuned_on or same.get("tuned_on"),
        **plan.model_dump(mode="json"),
    }
    # epochs that were fixed once are kept, because times vary and other epochs would invalidate existing runs
    if has_begun and "wall_clock" in same:
        described |= {name: same[name] for name in ("arms", "wall_clock")}
    write_json(root / runs.FROZEN, described)
    return bool(earlier) and not same and not has_begun


def _read_started(root: Path) -> dict[str, Any] | None:
    """`study.json` if a run has started, after which plan, images and weights must not change; else None."""
    has_begun = (root / runs.FROZEN).exists() and any(root.rglob("environment.json"))
    return runs.read_frozen(root) if has_begun else None


def _require_free_folder(root: Path) -> None:
    """Check that a new study replaces no files in its folder."""
    names = ("baselines.json", "metrics.json", COSTS, "results.json", "report.html")
    found = [name for name in names if (root / name).exists()]
    if found and not (root / runs.FROZEN).exists():
        raise RunError(f"`{root}` should be free for a study. Found {', '.join(found)}. Name another folder.")


def _refuse_other_parts(root: Path, parts: dict[str, Any]) -> None:
    frozen = _read_started(root)
    if frozen is None:
        return
    titles = {"images": "images", "encoder_weights": "weights of the encoder"}
    changed = [title for key, title in titles.items() if frozen["parts"][key] != parts[key]]
    if changed:
        raise RunError(
            f"{root} was frozen on {frozen['created']}, before its first run, with other "
            f"{' and '.join(changed)} than are there now. Restore the old ones, or name another folder."
        )


def _refuse_another_plan(plan: Plan, root: Path) -> None:
    """Raise `RunError` if questions, arms, seeds or settings differ from the frozen plan."""
    frozen = _read_started(root)
    if frozen is None:
        return
    before = plan_of(frozen)
    precision = before.config.training.precision
    if plan.config.training.precision == "auto":  # not resolved yet for the machines that run the cells
        plan = plan.computed_in(precision)
    changed = sorted(_differences(before.frozen, plan.frozen))
    if changed:
        going_on = shlex.join(["knowhue", "study", "--plan", str(root / runs.FROZEN), "--out", str(root)])
        remedy = f" To keep the precision on this machine: --set training.precision={precision}"
        raise RunError(
            f"`{root}` holds a study whose plan was frozen on {frozen['created']}, before its first run; now "
            f"{', '.join(changed)} would differ. A plan that changes after results are seen finds effects that are not "
            f"there. Name another folder, or resume: `{going_on}`.{remedy * ('config.training.precision' in changed)}"
        )


def _differences(old: Any, new: Any, key: str = "") -> set[str]:
    """Dotted names of the entries in which two nested values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = {*old, *new}
        return {d for n in names for d in _differences(old.get(n), new.get(n), f"{key}.{n}".strip("."))}
    return set() if old == new else {key}
