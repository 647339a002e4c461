"""Scores of systems: the mean of each measure, paired differences with intervals and verdicts, and warnings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import few, plural
from knowhue.metric_table import RECOGNITION, Metric
from knowhue.scoring.measures import BEST_OF, DIFFERENCES_OF_MEANS, MEASURES, Columns, balanced_area
from knowhue.scoring.pairing import GRAY, TRUTH, Pairs, merge_notes
from knowhue.scoring.parts import Measured
from knowhue.scoring.protocols import Protocol
from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.clustered import ClusteredMean, Nearness, clustered_mean, judge_nearness
from knowhue.statistics.paired import Interval, mcnemar


class Difference(NamedTuple):
    """The difference between a system and the reference in one measure."""

    system: str
    measure: str
    """a key of `MEASURES`"""
    estimate: float
    """mean paired difference over images, system minus reference"""
    interval: Interval | None
    """simultaneous at 1 - alpha for all differences of the table, so it excludes 0 exactly if `p_adjusted` is below
    alpha; None with too few images"""
    p: float
    """two-sided p-value of no difference"""
    p_adjusted: float
    """adjusted for all differences of the table (Bonferroni)"""
    word: Nearness
    """the verdict"""


class SetDistance(NamedTuple):
    """The distance of a system's set of colourings from the true images, or its difference from the reference's."""

    system: str
    minus: str | None
    """the reference, if this is a difference; else None"""
    measure: str
    """a key of `MEASURES`"""
    estimate: float
    """corrected for the bias of few images, see `statistics.clustered.jackknifed`"""
    interval: Interval | None
    """at 1 - alpha, not adjusted; None with too few images"""
    p: float | None
    """two-sided p-value of no difference, not adjusted; None for a distance itself, which is never 0"""


class PairedShares(NamedTuple):
    """Comparison of the shares of recognised images in two rows with the same images."""

    first: str
    second: str
    """the compared rows"""
    measure: str
    """one of `RECOGNITION`"""
    only_first: int
    """number of images recognised only in the first row"""
    only_second: int
    """number of images recognised only in the second row"""
    p: float
    """two-sided p-value of McNemar's exact test, which assumes independent images"""
    p_adjusted: float
    """adjusted for all tests of this kind, without those of `Difference` (Bonferroni)"""
    difference: float
    """share in the first row minus share in the second"""
    interval: Interval | None
    """simultaneous at 1 - alpha for all these differences, clustered by folders if there are any; None with too few
    images"""
    p_clustered: float
    """two-sided p-value of no difference, clustered by folders if there are any"""
    p_clustered_adjusted: float
    """adjusted for all tests of this kind (Bonferroni)"""


class NetworkScores(NamedTuple):
    """The results of the networks, if any are requested."""

    columns: Mapping[str, Columns]
    """values of each image, by row and column"""
    values: Mapping[str, Mapping[str, float]]
    """values of whole sets, by row and measure"""
    distances: Sequence[SetDistance]
    about: Mapping[str, Any]
    """what must be stated with the numbers, by measure"""
    notes: Sequence[str]


class Scores(NamedTuple):
    """All results of `knowhue score`."""

    protocol: Protocol
    pairs: Pairs
    columns: Mapping[str, Columns]
    """values of each image, by row and column"""
    values: Mapping[str, Mapping[str, float]]
    """values by row and measure"""
    reference: str
    differences: Sequence[Difference]
    notes: Sequence[str]
    measures: Mapping[str, Metric]
    """the measures with values, in the order of tables"""
    about: Mapping[str, Any]
    """what must be stated with numbers of networks, by measure"""
    distances: Sequence[SetDistance] = ()
    tests: Sequence[PairedShares] = ()
    beside: Mapping[str, Mapping[str, float]] = {}
    """values of systems of earlier score files by measure, shown in the same tables"""
    beside_notes: Sequence[str] = ()

    @property
    def rows(self) -> dict[str, Mapping[str, float]]:
        """Values by row and measure: the systems, then systems of earlier files, then the rows of `ALWAYS`."""
        systems = {each.name: self.values[each.name] for each in self.pairs.systems}
        return {**systems, **self.beside, **self.values}

    @property
    def all_notes(self) -> list[str]:
        return [*self.notes, *self.beside_notes]

    @property
    def all_remarks(self) -> list[str]:
        remark = f"from earlier scores, and so not compared with other systems: {', '.join(self.beside)}"
        remark += ". Give their folders for differences and tests"
        return [*self.pairs.remarks, *([remark] if self.beside else [])]


def make_scores(
    pairs: Pairs,
    protocol: Protocol,
    measured: Mapping[str, Measured],
    reference: str | None = None,
    by_networks: NetworkScores | None = None,
) -> Scores:
    """Combine measurements and results of networks into scores, and compare the systems with the reference."""
    by_networks = by_networks or NetworkScores({}, {}, (), {}, ())
    columns = {row: {**each.columns, **by_networks.columns.get(row, {})} for row, each in measured.items()}
    best = [f"best_{name}" for name in BEST_OF]

    def mean_of(row: str, column: str) -> float:
        return float(columns[row][column].mean())

    values: dict[str, dict[str, float]] = {}
    for row, own in columns.items():
        values[row] = {name: mean_of(row, name) for name in MEASURES if name in own}
        for name, column in DIFFERENCES_OF_MEANS.items():
            values[row][name] = abs(mean_of(row, column) - mean_of(TRUTH, column))
        values[row]["ab_auc_balanced"] = balanced_area(measured[row].counts)
        values[row] |= {name: mean_of(row, name) for name in best if name in own}
        values[row] |= by_networks.values.get(row, {})
    shown = {name: m for name, m in MEASURES.items() if any(name in own for own in values.values())}
    chosen = reference or pairs.systems[0].name
    differences = paired_differences(pairs, protocol, columns, chosen, shown)
    notes = [*pairs.notes, *_image_notes(pairs, protocol, columns), *by_networks.notes]
    tests = paired_shares(pairs, protocol, columns, chosen)
    return Scores(
        protocol, pairs, columns, values, chosen, differences, notes, shown, by_networks.about,
        by_networks.distances, tests,
    )  # fmt: skip


def paired_differences(
    pairs: Pairs,
    protocol: Protocol,
    columns: Mapping[str, Columns],
    reference: str,
    measures: Mapping[str, Metric],
) -> list[Difference]:
    """The difference of every other system from the reference, by every measure with values per image and a margin."""
    means: dict[tuple[str, str], ClusteredMean] = {}
    for system in (each.name for each in pairs.systems if each.name != reference):
        own, other = columns[system], columns[reference]
        for name in (name for name in measures if name in protocol.margins and name in own and name in other):
            means[system, name] = clustered_mean(own[name] - other[name], pairs.clusters, name in RECOGNITION)
    # Bonferroni, not Holm, because the two one-sided tests of the other differences use up what Holm would gain
    found = []
    for (system, name), mean in means.items():
        is_lower_better = measures[name].better == "lower"
        word = judge_nearness(mean, protocol.margins[name], protocol.alpha, len(means), is_lower_better)
        ends, adjusted = mean.interval(1 - protocol.alpha / len(means)), min(1.0, mean.p * len(means))
        found.append(Difference(system, name, mean.estimate, ends, mean.p, adjusted, word))
    return found


def paired_shares(
    pairs: Pairs, protocol: Protocol, columns: Mapping[str, Columns], reference: str
) -> list[PairedShares]:
    """Tests of every other system against the reference, and of every system against gray, by each of `RECOGNITION`."""
    names = [each.name for each in pairs.systems]
    rows = [(name, reference) for name in names if name != reference] + [(name, GRAY) for name in names]
    questions = [(*two, name) for name in RECOGNITION if name in columns[reference] for two in rows]
    tests = []
    for first, second, name in questions:
        one, other = (columns[row][name] for row in (first, second))
        exact, mean = mcnemar(one, other), clustered_mean(one - other, pairs.clusters, binary=True)
        tests.append(PairedShares(
            first, second, name, *exact, min(1.0, exact.p * len(questions)), mean.estimate,
            mean.interval(1 - protocol.alpha / len(questions)), mean.p, min(1.0, mean.p * len(questions)),
        ))  # fmt: skip
    return tests


def _image_notes(pairs: Pairs, protocol: Protocol, columns: Mapping[str, Columns]) -> list[str]:
    """Warnings about the images: near-gray true images, too few images or folders, and `_system_notes`."""
    names, notes = list(pairs.truth), []
    is_gray = columns[TRUTH]["colourfulness"] < protocol.near_gray_below
    gray = [names[place] for place in np.flatnonzero(is_gray)]
    if gray:
        notes.append(
            f"{len(gray)} of {len(names)} true images are near-gray, colourfulness below {protocol.near_gray_below:g} "
            f"({few(gray, 3)}); they are scored like the others"
        )
    if len(names) < FEWEST_IMAGES:
        few_images = f"{plural(len(names), 'image')} {'is' if len(names) == 1 else 'are'} too few"
        notes.append(f"{few_images} for intervals ({FEWEST_IMAGES} are needed)")
    elif len(names) < 30:
        notes.append(f"{len(names)} images are few: intervals assume a normally distributed mean")
    if len(names) >= FEWEST_IMAGES and 0 < len(groups := set(pairs.clusters)) < 10:
        notes.append(f"{len(groups)} folders are few: intervals over folders are too narrow below about 10")
    of_systems = ((each.name, _system_notes(columns[each.name], protocol, is_gray)) for each in pairs.systems)
    return notes + merge_notes(of_systems)


def _system_notes(own: Columns, protocol: Protocol, is_gray: NDArray[np.bool_]) -> Iterator[str]:
    change, share = (float(own[name].mean()) for name in ("lightness_change", "lightness_changed"))
    if share > 0.01:
        yield (
            f"L* is not the true image's: it changed by {change:.2f} on average, by more than "
            f"{protocol.lightness_tolerance:g} in {100 * share:.1f} % of the pixels; a colouring should leave it alone"
        )
    if still := int(((own["colourfulness"] < protocol.near_gray_below) & ~is_gray).sum()):
        yield f"{plural(still, 'colouring')} near-gray where the true image is not"
