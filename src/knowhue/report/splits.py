"""Which images a number is from: the split that is reported on, what was trained on, and what was tuned."""

from collections.abc import Mapping, Sequence
from typing import Any

from knowhue.report.contrasts import questions
from knowhue.report.records import Study, Table, mean
from knowhue.report.tables import number
from knowhue.report.taught import arm_label


def image_sentences(study: Study) -> list[str]:
    """Say which images were trained on, which are reported on, and which were seen in tuning."""
    split = study.split
    said = [
        f"Scores, tables and samples are of the {split} split; curves over epochs are of the validation split."
    ]
    if study.is_tuning:
        said.append(
            "This is a tuning study: settings may be chosen by its numbers, so it gives no verdict, and the study that "
            "reports uses other seeds and a test split."
        )
    if seeds := study.settings.get("tuned_on_seeds"):
        said.append(_tuned_on(seeds, study.settings.get("tuned_on")))
    return [*said, _trained_on(study)]


def _tuned_on(seeds: Sequence[int], found: Mapping[str, Any] | None) -> str:
    """What is known of tuning: its seeds by the plan, its images only where they were compared with the test images."""
    said = f"Settings were tuned on seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    if not found or found["test_images_seen"]:
        return f"{said}: seeds differ; whether the test images were seen was not checked."
    near = ", nor on a near-duplicate of one" * bool(found["near_duplicate_bits"])
    return (
        f"{said}, none of which is reported, and on none of the test images{near}: they were compared with the images "
        f"of the study {found['study'][:12]}."
    )


def _trained_on(study: Study) -> str:
    """Neither interval covers the choice of the training images while all seeds share them."""
    share = study.config("supervision", "image_share") or 1.0
    baselines = "The mean and median colour and the majority class are taken from all training images."
    if share == 1:
        return "All seeds train on the same images: intervals do not cover the choice of the training images."
    if study.config("supervision", "resample"):
        return (
            f"Each seed trains on {share:.0%} of the training images, drawn anew: intervals cover their choice, too. "
            f"{baselines}"
        )
    return (
        f"All seeds train on the same {share:.0%} of the training images: intervals do not cover the choice of the "
        f"training images. {baselines}"
    )


def after_heads_rows(study: Study) -> Table:
    """Return each arm's primary metrics after the heads on the frozen encoder and after fine-tuning; header first."""
    rows: Table = [["Arm", "Metric", "After the heads", "After fine-tuning", "Seeds"]]
    for arm in study.runs:
        runs = [run for run in study.finished(arm) if run.scores.get("after_heads")]
        for asked in questions(study).values():
            pairs = [(run.scores["after_heads"].get(asked.metric), run.metric(asked.metric)) for run in runs]
            before, after = (mean([pair[i] for pair in pairs]) for i in (0, 1))
            if before is not None and after is not None:
                text = study.metrics.get(asked.metric, {})
                cells = [number(value, text.get("unit", "")) for value in (before, after)]
                rows.append([arm_label(study, arm), text.get("title", asked.metric), *cells, len(pairs)])
    return rows
