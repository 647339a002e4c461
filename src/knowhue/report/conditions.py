"""Single-task against multi-task under conditions such as equal time or equal training loss, paired by seed."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import TRAIN_LOSSES, Task
from knowhue.metric_table import SHARES
from knowhue.report.contrasts import Contrast, contrast, family_tests, primary
from knowhue.report.study import Row, Run, Study
from knowhue.statistics.paired import bounded_interval, flips, mean, t_interval

CLASS_SCORES = {"colour": "ab_l1", "class": "accuracy"}
"""The metric that is compared class by class; the accuracy over the images of one class is its recall."""
_FITTED: dict[str, Task] = {"ab_l1": "colour", "balanced_accuracy": "class"}
"""By metric, the task whose training loss stands for it."""

ScorePairs = Mapping[int, tuple[float | None, float | None]]
"""By seed, the scores of single-task and multi-task."""
Find = Callable[[Study, str], tuple[ScorePairs, Row]]


def paired_table(study: Study, find: Find) -> list[dict[str, Any]]:
    """Return a row for each question for which some seed has both scores under a condition.

    `find` returns the scores of a question by seed, and further columns of the row. Rows have `question`, `metric` and
    `seeds`; `single` and `multi`, means over seeds, and `difference`, multi minus single, in the metric's unit; and
    `interval` of the difference, 95 %, Student's t over seeds; None with one seed, or where the interval of a share
    would leave -1 to 1.
    """
    table = []
    for question, spec in study.questions.items():
        pairs, more = find(study, question)
        known = {seed: pair for seed, pair in pairs.items() if np.isfinite(np.array(pair, float)).all()}
        if not known:
            continue
        sides = np.array(list(known.values()), float)
        gaps = sides[:, 1] - sides[:, 0]
        single, multi = sides.mean(axis=0).tolist()
        # a difference of shares lies within -1 and 1
        interval = bounded_interval(gaps, (-1.0, 1.0)) if spec.metric in SHARES else t_interval(gaps)
        table.append({
            "question": question, "metric": spec.metric, "seeds": tuple(known), "single": single, "multi": multi,
            "difference": float(gaps.mean()), "interval": interval, **more,
        })  # fmt: skip
    return table


def finished_pairs(study: Study, question: str) -> dict[int, tuple[Run, Run]]:
    """Return by seed the runs of both arms of a question, where both have finished."""
    spec = study.questions[question]
    single, multi = ({run.seed: run for run in study.finished(arm)} for arm in (spec.single, spec.multi))
    return {seed: (single[seed], multi[seed]) for seed in single if seed in multi}


def equal_time(study: Study, question: str) -> tuple[ScorePairs, Row]:
    """Return the scores of each seed at the time when the shorter of its two trainings ended.

    A run's clock is the sum of `seconds` over its log, with validation, and with the heads as they are in the log (for
    multi-task, both tasks' heads). Time for gradient diagnostics is subtracted, because it trains nothing.
    Approximations: scores between two epochs are interpolated linearly; the training that is cut short had a learning
    rate schedule for a longer time, a disadvantage that a run planned for the shorter time would not have; features of
    the frozen encoder are cached once for all arms and counted for none; and seconds depend on this machine and its
    load. A seed whose first epoch took longer than that time is left out.

    Further columns, means over seeds: `seconds` at that time; `single_seconds` and `multi_seconds` of the complete
    trainings; `epochs` that multi-task had completed by then, out of `of`; and `multi_cut`, the number of seeds in
    which multi-task took longer.
    """
    metric, pairs, times = study.questions[question].metric, {}, []
    for seed, runs in finished_pairs(study, question).items():
        single, multi = clocks = [clock(run) for run in runs]
        if not len(single) or not len(multi):
            continue
        ends = [float(each[-1]) for each in clocks]
        scores = [_score_at(run, each, metric, min(ends)) for run, each in zip(runs, clocks, strict=True)]
        if None not in scores:
            pairs[seed] = tuple(scores)
            epochs = float(np.interp(min(ends), [0.0, *multi], range(len(multi) + 1)))
            times.append((min(ends), *ends, epochs, len(multi), ends[1] > ends[0]))
    if not times:
        return pairs, {}
    *means, cut = np.mean(times, axis=0).tolist()
    names = ("seconds", "single_seconds", "multi_seconds", "epochs", "of")
    return pairs, dict(zip(names, means, strict=True)) | {"multi_cut": round(cut * len(times))}


def clock(run: Run) -> NDArray[np.float64]:
    """Return a run's cumulative training seconds after each epoch; empty where one is unknown."""
    spent = [entry.get("seconds") for entry in run.log]
    if not spent or None in spent:
        return np.zeros(0)
    steps = (entry.get("diagnostics") or () for entry in run.log)
    # diagnostics train nothing, so their time is subtracted
    diagnosed = [sum(step.get("seconds") or 0.0 for step in of_epoch) for of_epoch in steps]
    return np.cumsum(np.maximum(np.array(spent, float) - np.array(diagnosed, float), 0.0))


def _score_at(run: Run, seconds: NDArray[np.float64], metric: str, time: float) -> float | None:
    """Return the validation score at a time, interpolated between epochs; None before the first or after the last."""
    scores = np.array([entry.get("validation", {}).get(metric) for entry in run.log], float)  # None is NaN
    known = np.isfinite(scores)
    if not known.any() or not seconds[known][0] <= time <= seconds[known][-1]:
        return None
    return float(np.interp(time, seconds[known], scores[known]))


def train_loss(study: Study, question: str) -> str | None:
    """Return the name of the logged training loss that stands for a question's metric; None without one."""
    spec = study.questions[question]
    if spec.metric not in _FITTED:
        return None
    runs = [run for arm in (spec.single, spec.multi) for run in study.of(arm)]
    logged = {name for run in runs for entry in run.log for name in entry.get("train", {})}
    names = TRAIN_LOSSES[_FITTED[spec.metric]]
    return next((name for name in names if name in logged), names[0])


def equal_train_loss(study: Study, question: str) -> tuple[ScorePairs, Row]:
    """Return the scores of each seed at equal training loss: does the same fit generalise differently?

    For each seed, the level is the lowest training loss (`l1`, `cross_entropy`, ...) that both arms reached in
    fine-tuning. The validation score of each arm is taken where its training loss first reaches that level,
    interpolated between epochs. Approximations: a training loss is the mean over an epoch, the score is from its end;
    and the arm that fits faster reaches the level before its learning rate has decayed.

    Further columns: `loss`, its name; `level`, mean over seeds; `apart`, the seeds that were left out because
    the training losses of their runs do not overlap.
    """
    metric = study.questions[question].metric
    loss = train_loss(study, question)
    if loss is None:
        return {}, {}
    pairs, levels, apart = {}, [], []
    for seed, runs in finished_pairs(study, question).items():
        curves = [_fine_tuning(run, loss, metric) for run in runs]
        level = _common_level(curves)
        if level is None:
            apart.append(seed)
        else:
            pairs[seed] = (_at_level(curves[0], level), _at_level(curves[1], level))
            levels.append(level)
    return pairs, {"loss": loss, "level": mean(levels), "apart": tuple(apart)}


def _fine_tuning(run: Run, loss: str, metric: str) -> list[tuple[float, float]]:
    """Return (training loss, validation score) of each fine-tuning epoch where both are known and finite."""
    entries = [entry for entry in run.log if entry.get("phase") == "finetune"]
    found = [(entry.get("train", {}).get(loss), entry.get("validation", {}).get(metric)) for entry in entries]
    return [pair for pair in found if None not in pair and np.isfinite(pair).all()]


def _common_level(curves: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Return the lowest training loss that both curves reached; None where their ranges do not overlap."""
    if not all(curves):
        return None
    level = max(min(loss for loss, _ in curve) for curve in curves)
    # an arm that began below the level never crossed it in fine-tuning
    return level if level <= min(max(loss for loss, _ in curve) for curve in curves) else None


def _at_level(curve: Sequence[tuple[float, float]], level: float) -> float:
    """Return the score where the loss first reaches a level, interpolated between epochs."""
    for (loss, score), (next_loss, next_score) in pairwise(curve):
        if min(loss, next_loss) <= level <= max(loss, next_loss):
            share = 0.0 if loss == next_loss else (level - loss) / (next_loss - loss)
            return score + share * (next_score - score)
    return curve[0][1]  # a curve of one epoch, whose loss is the level


def deployment(study: Study) -> list[dict[str, Any]]:
    """Compare one multi-task model with one single-task model for each task; empty where an arm is missing.

    Rows have `what`, `one` (the multi-task model) and `several` (the single-task models), and for scores `metric`:
    encoders and heads that process an image, seconds of training, and final scores, means over the seeds that all arms
    finished. On both sides, each task's head is trained once on the frozen encoder. Approximations: seconds as in
    `equal_time`, with one training after the other; the cost of an image is counted in networks, not measured.
    """
    questions = study.questions
    by_task = {name: finished_pairs(study, name) for name in questions}
    seeds = sorted(set.intersection(*map(set, by_task.values()))) if by_task else ()
    # questions about different multi-task arms are not about one model
    if not seeds or len({spec.multi for spec in questions.values()}) > 1:
        return []
    trainings, count = [[pairs[seed] for pairs in by_task.values()] for seed in seeds], len(questions)
    one = mean([_seconds(pairs[0][1]) for pairs in trainings])
    spent = [[_seconds(single) for single, _ in pairs] for pairs in trainings]
    several = mean([None if None in seconds else sum(filter(None, seconds)) for seconds in spent])
    numbers = {"encoders": (1, count), "heads": (count, count), "seconds": (one, several)}
    rows: list[dict[str, Any]] = [
        {"what": what, "one": one, "several": several} for what, (one, several) in numbers.items()
    ]

    def at_the_end(_: Study, question: str) -> tuple[ScorePairs, Row]:
        metric, runs = questions[question].metric, by_task[question]
        return {seed: (runs[seed][0].metric(metric), runs[seed][1].metric(metric)) for seed in seeds}, {}

    scores = paired_table(study, at_the_end)
    return rows + [row | {"what": "score", "one": row["multi"], "several": row["single"]} for row in scores]


def _seconds(run: Run) -> float | None:
    found = clock(run)
    return float(found[-1]) if len(found) else None


def after_heads(study: Study) -> list[dict[str, Any]]:
    """Return each arm's primary metrics after training the heads on the frozen encoder, and after fine-tuning."""
    rows = []
    for arm in study.runs:
        runs = [run for run in study.finished(arm) if run.scores.get("after_heads")]
        for metric in [spec.metric for spec in study.questions.values()]:
            heads = mean([run.scores["after_heads"].get(metric) for run in runs])
            tuned, seeds = mean([run.metric(metric) for run in runs]), tuple(run.seed for run in runs)
            if heads is not None and tuned is not None:
                rows.append({"arm": arm, "metric": metric, "heads": heads, "tuned": tuned, "seeds": seeds})
    return rows


def seed_transfer(study: Study) -> list[dict[str, Any]]:
    """Count for each question the seeds that multi-task hurts; a diverged run counts with its declared score.

    `hurt` counts the seeds that are worse by more than `sesoi`; `worst` and `best` are (multi minus single, seed,
    number of other seeds with exactly this difference) of the first such seed; `level` is single-task's mean.
    """
    rows = []
    for name, spec in study.questions.items():
        if (found := primary(study, name)) is None:
            continue
        rows.append({
            "question": name, "metric": spec.metric, "sesoi": spec.sesoi, "level": found.levels[0],
            "hurt": found.hurt(spec.sesoi), "worst": _seed_at(found, found.gains.argmin()),
            "best": _seed_at(found, found.gains.argmax()),
        })  # fmt: skip
    return rows


def _seed_at(found: Contrast, place: Any) -> tuple[float, int, int]:
    gaps = found.differences
    return float(gaps[place]), found.seeds[place], int(np.count_nonzero(gaps == gaps[place])) - 1


def class_transfer(study: Study) -> list[dict[str, Any]]:
    """Compare every class in `CLASS_SCORES` over the seeds that both arms finished.

    `p` is from the exact sign-flip test over seeds, on these test images; `p_adjusted` over all rows
    (Benjamini-Hochberg); `bounds` is the interval, over seeds and images where images have scores; `word` is `hurt`,
    `helped`, or empty where p and interval do not both exclude a difference of 0, or where there are too few seeds.
    """
    contrasts = {
        (name, label): contrast(study.table, CLASS_SCORES[name], spec.single, spec.multi, label)
        for name, spec in study.questions.items()
        for label in study.classes
    }
    return [
        {
            "question": name, "label": label, "unit": "share" if each.found.metric in SHARES else "",
            **each.found.row(), "bounds": each.bounds, "p": each.p, "p_adjusted": each.p_adjusted,
            "word": ("helped" if each.found.better else "hurt") if each.is_clear else "",
        }
        for (name, label), each in family_tests(contrasts).items()
    ]  # fmt: skip


def image_flips(study: Study) -> list[dict[str, Any]]:
    """Count the images that only one arm classifies correctly: over all classes (`label` None), then by class.

    Shares of the labelled images, means over seeds: `right_to_wrong`, `wrong_to_right`, and `net`, the second minus the
    first, with its 95 % t interval over seeds. `net` is the change of accuracy; it equals the change of balanced
    accuracy only where classes are equally large. Empty where the arms were scored on different images.
    """
    pairs = finished_pairs(study, "class") if "class" in study.questions else {}
    scores = [study.table.of_images(run.arm, run.seed, "accuracy") for runs in pairs.values() for run in runs]
    tables = [{image: value for image, value in each.items() if np.isfinite(value)} for each in scores]
    if not tables or not tables[0] or any(each.keys() != tables[0].keys() for each in tables):
        return []
    right = np.array([[each[image] for image in tables[0]] for each in tables])
    labels = np.array([study.table.labels[image] for image in tables[0]])
    groups: dict[str | None, NDArray[np.bool_]] = {None: np.ones(len(labels), bool)}
    groups |= {name: labels == name for name in study.classes if name in labels}
    rows = []
    for name, chosen in groups.items():
        # rows alternate: single-task and multi-task of each seed
        lost, won = flips(right[::2, chosen], right[1::2, chosen])
        net = won - lost
        rows.append({
            "label": name, "images": int(chosen.sum()), "seeds": tuple(pairs), "right_to_wrong": float(lost.mean()),
            "wrong_to_right": float(won.mean()), "net": float(net.mean()),
            "interval": bounded_interval(net, (-1.0, 1.0)),
        })  # fmt: skip
    return rows
