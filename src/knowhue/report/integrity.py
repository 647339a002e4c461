"""How far a study's numbers can be trusted: the frozen plan and what was run of it, the images, and all warnings."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knowhue.errors import few, plural, spaced
from knowhue.plan import plan_of
from knowhue.report.diagnostics import gradient_warnings
from knowhue.report.findings import beaten
from knowhue.report.reading import GATE_PARTS, block, gate_failures
from knowhue.report.study import TASK_TITLES, UNPAIRED, Row, Run, Study, arm_label, sides, tasks
from knowhue.report.text import number, plain, seeds_text, span
from knowhue.runs import Start

STATES = {
    "finished": "finished", "diverged": "diverged", UNPAIRED: "not to be compared", "running": "not finished",
    "missing": "not started", "other": "run with other settings",
}  # fmt: skip
"""States of a cell in words, in the order in which they are counted."""
_OTHER_SETTINGS = "was trained with other settings, or another seed, than this study's; train it again."
_DAMAGED = "is damaged: figures that need it are left out. The study's command makes it again."
_NOT_USED = {
    "running": "is not finished: its curves are shown, its scores are not used.",
    "missing": "was not started.",
    UNPAIRED: "is not used: its block is not compared.",
    "diverged": "diverged: its losses or weights are no longer finite; its scores are not used.",
}


def frozen_sentences(study: Study) -> list[str]:
    """Return sentences on the frozen plan, the runs, the gates, the machines, and the seeds that are not compared."""
    gates, machines = gate_sentence(study.gates, study.seeds), machine_sentence(study)
    found = [plan_sentence(study), cells_sentence(study), gates, *([machines] if machines else [])]
    return found + [f"Not compared: seed {seed}, {why}." for seed, why in study.faults.items()]


def plan_sentence(study: Study) -> str:
    """Compare the plan's hash, recomputed from `study.json`, with the stored one.

    The hash covers every setting, the encoder's weights and the images; the images are also compared with the prepared
    ones. A plan that was changed together with its hash goes unnoticed.
    """
    stored, parts = study.settings.get("hash"), study.settings.get("parts", {})
    now = plan_of(study.settings).hash(parts)
    if stored is None:
        return "study.json has no hash: its plan was not frozen by a study."
    if stored != now:
        return f"study.json was changed after it was frozen: its plan has the hash {now}, not {stored}."
    if study.prepared and study.prepared.get("fingerprint") != parts.get("images"):
        return f"The images in this folder are not those that the plan was frozen with: its hash is {stored}."
    frozen = str(study.settings.get("created") or "an unknown date")
    return f"The plan is as it was frozen on {frozen}: its SHA-256 is {stored}."


def cells_sentence(study: Study) -> str:
    """Return the counts of cells by state; a run with other settings counts only as such."""
    runs = study.all_runs
    states = Counter(run.state if run.same_settings else "other" for run in runs)
    parts = [f"{states[name]} {text}" for name, text in STATES.items() if states[name] or name == "finished"]
    cells = f"{plural(len(study.runs), 'arm')}, {plural(len(study.seeds), 'seed')}"
    return f"Planned: {plural(len(runs), 'run')} ({cells}); {', '.join(parts)}."


def gate_sentence(gates: Mapping[int, Row], seeds: Sequence[int]) -> str:
    """Return whether the A/A gate passed in every block, or which tensors differ."""
    known = {seed: gates[seed] for seed in seeds if seed in gates}
    absent = [seed for seed in seeds if seed not in gates]
    if not known:
        return "The A/A gate was not run: whether arms differ only in the task was not tested in this study."
    left = f" It was not run for {seeds_text(absent)}." if absent else ""
    failed = {seed: gate_failures(gate) for seed, gate in known.items() if gate_failures(gate)}
    if failed:
        return f"{_failed(failed)}{left}"
    steps = span({gate["heads"]["steps"] for gate in known.values()})
    heads, colour, class_ = (span({gate[name]["tensors"] for gate in known.values()}) for name in GATE_PARTS)
    return (
        f"The A/A gate passed for {seeds_text(known)}, bit for bit after {steps} steps of each phase: all {heads} "
        "tensors of the heads trained together are those of the heads trained alone, and fine-tuning with a vanishing "
        f"weight of the other task is fine-tuning without it ({colour} tensors for colour, {class_} for class)."
        f"{left}"
    )


def _failed(failed: Mapping[int, Mapping[str, Sequence[str]]]) -> str:
    parts = dict.fromkeys(part for gate in failed.values() for part in gate)
    names = list(dict.fromkeys(name for gate in failed.values() for part in gate.values() for name in part))
    return (
        f"The A/A gate FAILED for {seeds_text(failed)} ({'; '.join(GATE_PARTS[part] for part in parts)}): "
        f"{few(names, 5)} differ, so the arms of these seeds differ in more than the task. "
        "Nothing is compared there, and there is no verdict."
    )


def machine_sentence(study: Study) -> str:
    """Return the golden step and machine of each block, and the runs that were scored with another golden step.

    Empty where no run has begun.
    """
    machines: dict[str, dict[int, str]] = defaultdict(dict)
    scored: list[str] = []
    for run in (run for seed in study.seeds for run in block(study.runs, seed)):
        step, scorer = (found.get("golden_step") for found in (run.environment, run.scores))
        if scorer not in (None, step):
            scored.append(f"{run.arm}, seed {run.seed} (golden step {scorer[:12]})")
        if step is not None:
            machines[step].setdefault(run.seed, _machine(run.environment))
    blocks = [
        f"{seeds_text(by_seed)} with golden step {step[:12]} ({[*by_seed.values()][-1]})"
        for step, by_seed in machines.items()
    ]
    again = f" Scored with another golden step: {'; '.join(scored)}." if scored else ""
    return f"Computed: {'; '.join(blocks)}.{again}" if blocks else ""


def _machine(environment: Row) -> str:
    torch, threads = environment.get("torch"), environment.get("cpu_threads")
    known = [environment.get(key) for key in ("device", "platform", "precision")]
    known += [torch and f"torch {torch}", threads and plural(threads, "thread")]
    return ", ".join(map(str, filter(None, known)))


def image_sentences(study: Study) -> list[str]:
    """Return sentences on the images used for training, for reporting and for tuning, and on the starting weights."""
    found = [
        f"Scores, tables and samples are of the {study.split} split; curves over epochs of the validation split."
    ]
    if study.is_tuning:
        found.append(
            "This is a tuning study: settings may be chosen by its numbers, so it gives no verdict, and the study that "
            "reports uses other seeds and a test split."
        )
    if seeds := study.settings.get("tuned_on_seeds"):
        found.append(_tuned_on(seeds, study.settings.get("tuned_on")))
    return [*found, _trained_on(study), *_started_from(study)]


def _started_from(study: Study) -> list[str]:
    """Return a sentence on each model that runs started from: the parts taken from it, and the arms without it."""
    runs = [run for run in study.all_runs if run.environment]
    started = [run for run in runs if run.environment.get("start")]
    # sorted by the number of tasks, so the arm that took most parts of a model describes it
    started.sort(key=lambda run: len(tasks(study, run.arm)))
    starts = (Start.model_validate(run.environment["start"]) for run in started)
    widest = {each.sha256: each for each in starts}
    without = {run.arm for run in runs} - {run.arm for run in started}
    others = f" Arms that did not: {', '.join(sorted(without))}." if without else ""
    text = (
        "All else began with weights drawn from each seed: intervals do not cover the choice of that model."
    )
    return [f"{each.sentence()} {text}{others}" for each in widest.values()]


def _tuned_on(seeds: Sequence[int], found: Mapping[str, Any] | None) -> str:
    """Return a sentence on tuning; on its images only where they were compared with the test images."""
    text = f"Settings were tuned on seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    if not found or found["test_images_seen"]:
        return f"{text}: seeds differ; whether the test images were seen was not checked."
    near = ", nor on a near-duplicate of one" * bool(found["near_duplicate_bits"])
    return (
        f"{text}, none of which is reported, and on none of the test images{near}: they were compared with the images "
        f"of the study {found['study'][:12]}."
    )


def _trained_on(study: Study) -> str:
    """Return whether the intervals cover the choice of the training images: not while all seeds share them."""
    share = study.config("supervision", "image_share") or 1.0
    if share == 1:
        return "All seeds train on the same images: intervals do not cover the choice of the training images."
    part = f"{plain(100 * share)} % of the training images"
    text = f"All seeds train on the same {part}: intervals do not cover the choice of the training images."
    if study.config("supervision", "resample"):
        text = f"Each seed trains on {part}, drawn anew: intervals cover their choice, too."
    return f"{text} The mean and median colour and the majority class are taken from all training images."


def warnings(study: Study) -> list[tuple[str, str]]:
    """Return (subject, problem) pairs, the most serious first: damaged or incomplete data, then weak training."""
    return [
        *((f"Seed {seed}", f"is not compared: {why}.") for seed, why in study.faults.items()),
        *((name, _DAMAGED) for name in study.damaged),
        *(each for run in study.all_runs for each in _not_whole(study, run)),
        *_worse_than_trivial(study),
        *(each for arm in study.runs for each in _log_warnings(study, arm)),
        *gradient_warnings(study),
        *(
            (f"The question about {title.lower()}", "is not asked: its arms are not part of this study.")
            for name, title in TASK_TITLES.items()
            if name not in study.questions
        ),
    ]


def in_brief(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Shorten warnings to their first clause, and merge those that are then equal.

    >>> in_brief([("Seed 1", "diverged: its losses are no numbers."), ("Seed 2", "diverged."), ("SSIM", "low (0.2).")])
    [('Seed 1, Seed 2', 'diverged'), ('SSIM', 'low')]
    """
    kinds: dict[str, list[str]] = {}
    for who, what in found:
        # a colon after a digit belongs to a prefix such as `epochs 3 to 5:`
        kinds.setdefault(re.split(r"(?<!\d)[:;.](?:\s|$)| \(", what)[0], []).append(who)
    return [(few(names), what) for what, names in kinds.items()]


def _not_whole(study: Study, run: Run) -> list[tuple[str, str]]:
    label = f"{arm_label(study, run.arm)}, seed {run.seed}"
    why = _NOT_USED.get(run.state, run.state) if run.same_settings else _OTHER_SETTINGS
    found = [] if run.finished else [(label, why)]
    return found + [(f"{label}, {name}", _DAMAGED) for name in run.damaged]


def _worse_than_trivial(study: Study) -> Iterator[tuple[str, str]]:
    """Warn once of each metric in which an arm of a question is no better than a trivial baseline."""
    for question in study.questions:
        arms = sides(study, question)
        for metric in dict.fromkeys(name for arm in arms for name in study.metric_names(arm)):
            about = study.metrics.get(metric, {})
            if about.get("better") not in ("lower", "higher") or about.get("task", question) != question:
                continue
            (losers, trivial), unit = beaten(study, metric, arms), study.unit(metric)
            lost = (
                f"{('single-task', 'multi-task')[at]} {number(level, unit)}" for at, level in losers.items()
            )
            floors = ", ".join(f"{spaced(name)} {number(level, unit)}" for name, level in trivial.items())
            if losers:
                yield (
                    study.label(metric),
                    f"{' and '.join(lost)} no better than a trivial baseline ({floors}).",
                )


def _log_warnings(study: Study, arm: str) -> Iterator[tuple[str, str]]:
    """Merge each warning over epochs and seeds into one; the text is the last one."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for run in study.of(arm):
        for line in run.log:
            for text in line.get("warnings") or ():
                # the text before the colon is the kind of warning; numbers follow
                found.setdefault(text.split(":")[0], []).append((run.seed, line.get("epoch", 0), text))
    for each in found.values():
        who = f"{arm_label(study, arm)}, {seeds_text(seed for seed, _, _ in each)}"
        yield who, f"{span((at for _, at, _ in each), 'epoch ', 'epochs ')}: {each[-1][2]}"
