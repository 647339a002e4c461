"""Arms by seeds on one set of images, from shared heads: freeze the plan, run its cells, write the report."""

import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from knowhue import __version__
from knowhue.arguments import checked_arguments
from knowhue.cells import Arithmetic, arithmetic_elsewhere, for_workers, run_cells
from knowhue.config import Evaluation, fingerprint
from knowhue.data.listing import list_items
from knowhue.data.loaders import plain_batches
from knowhue.data.prepare import Prepared, count_seen
from knowhue.engines.executor import Executor, InProcess, Job, await_jobs, share_out
from knowhue.errors import ConfigError, RunError
from knowhue.evaluation.evaluate import predict_class, predict_colour, predict_gray
from knowhue.evaluation.features import Unavailable, open_networks
from knowhue.locks import locked
from knowhue.metric_table import RUN_METRICS
from knowhue.models.multitask import MultiTask
from knowhue.plan import Epochs, Plan, plan_of, read_plan, read_tuning
from knowhue.report.page import write_report
from knowhue.runs import (
    FROZEN,
    STUDY_SCHEMA,
    Report,
    has_ended,
    has_finished,
    read_config,
    read_frozen,
    read_log,
    run_folder,
)
from knowhue.storage import cached, read_json, write_json
from knowhue.tensors import Batch
from knowhue.training.engine import Engine, Workspace, computing_with
from knowhue.training.golden import begin_anew, blocks_of, golden_step
from knowhue.training.phases import predict
from knowhue.training.run import load_run, open_workspace
from knowhue.training.scores import noise_floor, score_baseline, write_truth

COSTS = "costs.json"
TIMED_IMAGES = 32
ROUNDS = 3


def equal_wall_clock(plan: Plan, root: Path) -> dict[str, Any]:
    """The budget in seconds and, from what an epoch took at equal images, the epochs of each method."""
    # a run that diverged may have ended early, and so says nothing of what training takes
    finished = [run for run in _ended(plan, str(plan.reference), root) if has_finished(run)]
    budget = plan.budget_s or _mean([sum(_train_seconds(run)) for run in finished])
    if not budget:
        raise RunError(
            f"The reference `{plan.reference}` diverged with every seed: it sets no budget. Name a budget in seconds "
            "or another reference, and another folder."
        )
    epochs: dict[str, Epochs] = {}
    for method in plan.planned_arms:
        runs = _ended(plan, method, root)
        took = {phase: [_mean(_train_seconds(run, phase)) for run in runs] for phase in ("heads", "finetune")}
        # 0 is a phase that a run did not come to, and no pace
        heads, tuned = (_mean([each for each in seconds if each]) for seconds in took.values())
        usual = plan.epochs(method)
        has_pace = bool((heads or not usual[0]) and (tuned or not usual[1]))
        # a method that diverged in its first epoch with every seed has no pace: its first regime stands for both
        epochs[method] = epochs_within(budget, usual, (heads, tuned)) if has_pace else usual
    return {"budget_s": budget, "epochs": epochs}


def epochs_within(budget_s: float, usual: Epochs, seconds: tuple[float, float]) -> Epochs:
    """The whole epochs whose training time comes nearest to a budget, shared out about as usual.

    Args:
        budget_s: seconds, above 0.
        usual: epochs on the frozen encoder and of fine-tuning; at least one of them is not 0.
        seconds: what an epoch of each takes; that of a phase without epochs does not matter.

    Returns:
        A phase that usually has epochs has at least one, so a budget below that is exceeded.

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
    """`costs.json`: by method the seconds an image that it predicts in, and its parameters."""
    ended = {method: _ended(plan, method, work.root) for method in plan.planned_arms}
    models = {method: load_run(work, read_config(runs[0]), runs[0]) for method, runs in ended.items() if runs}
    positions = work.prepared.positions(work.prepared.reporting_split)[:TIMED_IMAGES]
    (batch,) = plain_batches(work.prepared, positions, TIMED_IMAGES, work.engine.device)
    # in turns, so that a busy moment of the machine slows all methods
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
    folders = [run_folder(root, arm, plan.run_config(arm, seed)) for seed in plan.seeds]
    return [folder for folder in folders if has_ended(folder)]


def _train_seconds(run: Path, phase: str | None = None) -> list[float]:
    """Seconds that each epoch trained for, of one phase or all: with warming up, without evaluation."""
    return [entry["train_seconds"] for entry in read_log(run, phase)]


def _predict_seconds(work: Workspace, model: MultiTask, batch: Batch) -> float:
    started = time.perf_counter()
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None  # every method colours
    chroma.sum().item()  # waits for the device
    return time.perf_counter() - started


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@checked_arguments
def run_study(
    plan: Plan,
    root: str | Path,
    executor: Executor | None = None,
    description: dict[str, Any] | None = None,
    report: Report = lambda _: None,
    tuned_on: str | Path | None = None,
) -> Path:
    """Freeze a plan, train its arms with its seeds below `root`, compare, and write the report.

    The same call goes on where an interrupted one stopped and does not repeat what has ended.

    Args:
        plan: see `plan.make_plan`.
        root: the study folder.
        executor: what runs the cells, see `engines.executor.open_engine`; None is this process.
        description: `name`, `preset` and `command`, for the reader of the report.
        report: gets progress.
        tuned_on: folder of the tuning study that chose the settings; its images must not be test images here.

    Returns:
        The report, `root/report.html`; `root/results.json` lies beside it.

    Raises:
        ConfigError: the engine does not fit, or settings were tuned and there is no test split.
        RunError: `root` holds a study with another plan, which was frozen when its first run started, or another
            process works on it.
    """
    _require_test_split(plan)
    root, tuned_on = Path(root), None if tuned_on is None else Path(tuned_on)
    executor = executor or InProcess()
    with locked(root, "study", engine=executor.name) as left:
        await_jobs(executor, left, root, report)
        work, elsewhere = _begin(plan, root, executor, description or {}, report, tuned_on)
        # the main process has written it by now, and all read the same
        plan = read_plan(root)  # a comparison that was interrupted may have arms at equal wall-clock already
        is_comparison = plan.reference is not None
        report({"stage": "golden"})
        now = elsewhere.golden_step if elsewhere else golden_step(work.engine, executor.threads)
        more_to_come = is_comparison and "wall_clock" not in read_frozen(root)
        begin_anew(work, blocks_of(plan), now, more_to_come)
        run_cells(work, plan, executor, now)
        if is_comparison:
            _run_at_equal_wall_clock(work, plan, executor, now)
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
    report: Report,
    tuned_on: Path | None,
) -> tuple[Workspace, Arithmetic | None]:
    """Refuse what cannot be, freeze the plan in the precision of where it runs, and score what needs no training.

    What the cells share comes with how the machines of an engine compute, or None where this one does.
    """
    engine = Engine(plan.config.training)
    if not isinstance(executor, InProcess) and engine.share.world > 1:
        raise ConfigError(
            "Under torch.distributed.run a study should run its cells itself, one after another. Found "
            f"`--engine {executor.name}` with workers of its own. Use one of the two."
        )
    _refuse_another_plan(plan, root)
    _require_room(root)

    def open_study() -> tuple[Workspace, dict[str, Any] | None]:
        runs = [plan.run_config(arm, plan.seeds[0]) for arm in plan.arms]
        work = open_workspace(plan.config, root, report, runs, engine, share_out(executor, "prepare"))
        checked = _require_unseen_test_images(plan, work, tuned_on)
        if engine.is_main:
            _refuse_other_parts(root, hashed_parts(work))
        return work, checked

    # images or weights of a study that has begun are refused before a job waits in a cluster's queue; for a new
    # one the cluster is asked before images are prepared, which may take as long
    opened = open_study() if _begun(root) else None
    elsewhere = arithmetic_elsewhere(executor, plan.config.training, root) if executor.is_elsewhere else None
    resolved = plan.computed_in(elsewhere.precision if elsewhere else engine.precision)
    _refuse_another_plan(resolved, root)
    work, checked = opened or open_study()
    report({"stage": "baselines"})
    with computing_with(executor.threads):  # as those who run the cells, whose scores stand beside these
        if engine.is_main:
            if freeze(resolved, root, description, hashed_parts(work), checked):
                note = "another plan stood there, of which nothing was trained; it is replaced"
                report({"stage": "note", "text": f"{root / FROZEN}: {note}"})
            write_baselines(work, plan.config.evaluation)
            write_truth(work)
        engine.wait()
    return work, elsewhere


def _run_at_equal_wall_clock(work: Workspace, plan: Plan, executor: Executor, now: str) -> None:
    """Set the epochs of each method once, from what those at equal images took, and run them."""
    if work.engine.is_main and "wall_clock" not in (frozen := read_frozen(work.root)):
        clock = equal_wall_clock(plan, work.root)
        extended = plan.at_equal_wall_clock(clock["epochs"]).model_dump(mode="json")
        write_json(work.root / FROZEN, {**frozen, **extended, "wall_clock": clock})
    work.engine.wait()
    plan = read_plan(work.root)
    run_cells(work, plan, executor, now)
    work.report({"stage": "costs"})
    if executor.is_elsewhere:  # where the methods were trained, so that seconds can be compared
        costs = partial(for_workers(work, plan, executor), partial(write_costs, plan=plan))
        executor.execute([Job("costs", costs)])
    elif work.engine.is_main:
        write_costs(work, plan)


def write_baselines(work: Workspace, settings: Evaluation) -> None:
    """`baselines.json` and `metrics.json`: what costs nothing, scored as the models are.

    The row `real` is the noise floor: other real images, from the training part. What was scored before on the
    same images by the same metrics and networks is kept in `features/`.
    """
    described = {
        name: {"title": m.title, "unit": m.unit, "better": m.better, "task": m.task}
        for name, m in RUN_METRICS.items()
    }
    # the version, too: another one may score otherwise; and what was opened, as files and downloads come and go
    asked, opened = settings.model_dump(mode="json"), open_networks(settings, work.engine.device).values()
    networks = [each.reason if isinstance(each, Unavailable) else each.provenance for each in opened]
    key = fingerprint([work.prepared.fingerprint, asked, described, __version__, networks])
    kept = work.root / "features" / f"baselines-{key}.json"
    read = partial(read_json, sealed=True)
    scores = cached(kept, read, lambda path: write_json(path, _score_baselines(work, settings)))
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
    """Mean and median (to .01) a*b* of all training pixels, (2,) each, CIELAB units: the best by L2 and by L1."""
    positions = prepared.positions("train")
    total = torch.zeros(2, dtype=torch.float64)
    # a histogram in steps of .01: all pixels of a large set would not fit into memory
    counts = torch.zeros(2, 25_600, dtype=torch.float64)
    for batch in plain_batches(prepared, positions, batch_size, torch.device("cpu")):
        total += batch.chroma.double().mean((2, 3)).sum(0)
        flat = batch.chroma.transpose(0, 1).flatten(1)
        counts += torch.stack([torch.histc(each, counts.shape[1], -128.0, 128.0) for each in flat])
    below = counts.cumsum(1)
    # the middle of the bin; that of the first is -127.995
    median = (below < below[:, -1:] / 2).sum(1) * 0.01 - 127.995
    return (total / len(positions)).float(), median


_NO_TEST_SPLIT = (
    "A study whose settings were tuned should report on a test split, which tuning never used. Found none. Add "
    "test/<class>/ folders, or split one off in both studies: --set images.test_share=0.2"
)


def _require_test_split(plan: Plan) -> None:
    """By the names of the images, before any is prepared."""
    if plan.tuned_on_seeds and not plan.config.images.test_share:
        items = list_items(plan.config.images)
        if not any(item.split == "test" and not item.skipped for item in items):
            raise ConfigError(_NO_TEST_SPLIT)


def _require_unseen_test_images(plan: Plan, work: Workspace, tuned_on: Path | None) -> dict[str, Any] | None:
    """What chose the settings does not report on them: neither its seeds (see `Plan`) nor its images.

    What was found is for `study.json`; None where no tuning study was named, so that nothing was checked.
    """
    if plan.tuned_on_seeds and work.prepared.reporting_split != "test":
        raise ConfigError(_NO_TEST_SPLIT)
    if tuned_on is None:
        return None
    near_bits = plan.config.images.duplicate_distance_bits
    if again := count_seen(work.root / "images", tuned_on / "images", near_bits):
        raise ConfigError(
            f"The test images should be others than those that `{tuned_on}` tuned on. Found {again} of them there"
            f"{', equal or nearly so' * bool(near_bits)}. Use the same images, `images.size_px`, "
            "`images.test_share` and `images.split_seed` in both studies."
        )
    tuning = read_tuning(tuned_on)
    if sorted(tuning["seeds"]) != sorted(plan.tuned_on_seeds):
        raise ConfigError(
            f"`tuned_on_seeds` should be the seeds of `{tuned_on}`: {', '.join(map(str, tuning['seeds']))}. Found "
            f"`tuned_on_seeds = {list(plan.tuned_on_seeds)}`. Name the study that chose these settings."
        )
    return {
        "study": tuning["hash"],
        "seeds": list(tuning["seeds"]),
        "test_images_seen": 0,
        "near_duplicate_bits": near_bits,
    }


def hashed_parts(work: Workspace) -> dict[str, Any]:
    """What a plan is carried out on, as its hash takes it in: `images` and `encoder_weights`, by their digests."""
    return {"images": work.prepared.fingerprint, "encoder_weights": dict(work.encoders)}


def freeze(
    plan: Plan,
    root: Path,
    description: dict[str, Any],
    parts: dict[str, Any],
    tuned_on: dict[str, Any] | None = None,
) -> bool:
    """Write `study.json`: the plan, its hash and the parts of that, when it was frozen, and by which command.

    `tuned_on` is what was found when the test images were sought in the tuning study. A command that goes on without
    naming that keeps what was found of the same plan and images.

    Returns:
        Whether another plan stood there, of which nothing was trained.
    """
    earlier = read_frozen(root) if (root / FROZEN).exists() else {}
    has_begun = _begun(root) is not None
    _refuse_other_parts(root, parts)
    # another plan that nothing was trained of was never the frozen one
    same = earlier if earlier.get("hash") == plan.hash(parts) else {}
    frozen_by = same or {"created": datetime.now(UTC).isoformat(timespec="seconds"), **description}
    described = {
        **STUDY_SCHEMA,
        "name": description.get("name", root.name),
        "version": __version__,
        # a command that goes on, such as one of the frozen plan alone, says less of how that came about
        **{name: frozen_by[name] for name in ("created", "command", "preset") if name in frozen_by},
        "hash": plan.hash(parts),
        "parts": parts,
        "tuned_on": tuned_on or same.get("tuned_on"),
        **plan.model_dump(mode="json"),
    }
    # seconds differ from time to time: epochs that were set once are kept, so that the runs that are there count
    if has_begun and "wall_clock" in same:
        described |= {name: same[name] for name in ("arms", "wall_clock")}
    write_json(root / FROZEN, described)
    return bool(earlier) and not same and not has_begun


def _begun(root: Path) -> dict[str, Any] | None:
    """`study.json` once a run has started: from then on the plan, the images and the weights stay what they are."""
    has_begun = (root / FROZEN).exists() and any(root.rglob("environment.json"))
    return read_frozen(root) if has_begun else None


def _require_room(root: Path) -> None:
    """Make sure that a new study replaces nobody's files; others may lie beside."""
    names = ("baselines.json", "metrics.json", COSTS, "results.json", "report.html")
    found = [name for name in names if (root / name).exists()]
    if found and not (root / FROZEN).exists():
        raise RunError(
            f"`{root}` should be free for a study. Found {', '.join(found)} there, and no {FROZEN}. Name another "
            "folder, or move what is there away."
        )


def _refuse_other_parts(root: Path, parts: dict[str, Any]) -> None:
    frozen = _begun(root)
    if frozen is None:
        return
    titles = {"images": "images", "encoder_weights": "weights of the encoder"}
    changed = [title for key, title in titles.items() if frozen["parts"][key] != parts[key]]
    if changed:
        raise RunError(
            f"{root} was frozen on {frozen['created']}, before its first run, with other "
            f"{' and '.join(changed)} than are there now. Bring the old ones back, or name another folder."
        )


def _refuse_another_plan(plan: Plan, root: Path) -> None:
    """The questions, the arms, the seeds and the settings are those that were frozen."""
    frozen = _begun(root)
    if frozen is None:
        return
    before = plan_of(frozen)
    precision = before.config.training.precision
    if plan.config.training.precision == "auto":  # until it is known what that is where the cells run
        plan = plan.computed_in(precision)
    changed = sorted(_differences(before.frozen, plan.frozen))
    if changed:
        going_on = shlex.join(["knowhue", "study", "--plan", str(root / FROZEN), "--out", str(root)])
        remedy = (
            f" This machine takes another precision unless it is set: --set training.precision={precision}"
        )
        raise RunError(
            f"`{root}` holds a study whose plan was frozen on {frozen['created']}, before its first "
            f"run; now {', '.join(changed)} would differ. A plan that changes after results are seen finds effects "
            "that are not there (adding seeds until p < .05: up to 20 % false claims). Name another folder, "
            f"or go on with the frozen plan: `{going_on}`.{remedy * ('config.training.precision' in changed)}"
        )


def _differences(old: Any, new: Any, key: str = "") -> set[str]:
    """Dotted names of what differs between two nested values."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = {*old, *new}
        return {d for n in names for d in _differences(old.get(n), new.get(n), f"{key}.{n}".strip("."))}
    return set() if old == new else {key}
