"""Scores by networks: LPIPS, distances between sets with their intervals, and recognition; needs torch."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from knowhue.config import Evaluation, digest
from knowhue.errors import ConfigError, did_you_mean, few, shown, system_reason
from knowhue.evaluation.features import (
    DISTANCES,
    LPIPS,
    Features,
    Gaussian,
    ImageNetwork,
    Unavailable,
    frechet,
    frechet_between,
    gaussian_of,
    kernel_diagonal,
    kernel_distance,
    kernel_sum,
    measure_distances,
    open_networks,
    triangle,
)
from knowhue.evaluation.recognition import LIKELIEST, ImageClassifier, fit_probe, open_classifier
from knowhue.images.image import Pixels
from knowhue.runs import Report
from knowhue.scoring import parts
from knowhue.scoring.measures import MEASURES
from knowhue.scoring.pairing import ALWAYS, TRUTH, Pairs
from knowhue.scoring.protocols import NetworkOptions, Protocol
from knowhue.scoring.table import NetworkScores, SetDistance
from knowhue.settings_text import plain_name
from knowhue.statistics.clustered import deal_groups, jackknifed

FOLDS = 5  # folds of the probe: each image is classified by a probe that was not fitted to it
PER_FEATURE = 2
"""Images per feature that an interval of a Frechet distance needs; with fewer, its bias is not of order 1 / N."""


LeaveOneOut = NDArray[np.float64]
"""A distance computed from all images, then without each group of images for the jackknife, (1 + G,)."""


class TrueImages:
    """The true images' part of all distances, computed once from features (N, D) and groups (N,) of `deal_groups`."""

    def __init__(self, features: Features, groups: NDArray[np.int64]) -> None:
        self.features = features
        self.rows = [np.flatnonzero(groups == number) for number in range(groups.max() + 1)]
        self.sizes = np.array([len(each) for each in self.rows])

    @cached_property
    def own_gaussians(self) -> list[Gaussian]:
        return list(self.gaussians(self.features))

    def gaussians(self, features: Features) -> Iterator[Gaussian]:
        """The Gaussians of all features, and without each group."""
        triangles = [triangle(features[each]) for each in self.rows]
        yield gaussian_of(triangles)
        for number in range(len(triangles)):
            yield gaussian_of([*triangles[:number], *triangles[number + 1 :]])

    @cached_property
    def own_sums(self) -> NDArray[np.float64]:
        return _group_sums(self.features, self.features, self.rows)

    def frechet(self, features: Features) -> LeaveOneOut | None:
        """The Frechet distance; None if fewer than `PER_FEATURE` images per feature remain without a group."""
        if len(features) - self.sizes.max() < PER_FEATURE * features.shape[1]:
            return None
        return np.array(list(map(frechet_between, self.gaussians(features), self.own_gaussians)))

    def kernel(self, features: Features) -> LeaveOneOut | None:
        """The kernel distance over pairs of different images; None if no pair remains without a group.

        Lemma 6 of Gretton et al. (JMLR 2012), equation 4, for paired x and y: an image and its own colouring are not
        independent, and including such pairs makes the distance too small by about 1 / N.
        """
        if self.sizes.sum() - self.sizes.max() < 2:
            return None
        across = _group_sums(features, self.features, self.rows)
        sums = _group_sums(features, features, self.rows) + self.own_sums - across - across.T
        total, count = sums.sum(), self.sizes.sum()
        totals = np.append(total, total - sums.sum(0) - sums.sum(1) + np.diag(sums))
        counts = np.append(count, count - self.sizes)
        return totals / (counts * (counts - 1))


LEAVE_ONE_OUT: Mapping[Callable[..., float], Callable[[TrueImages, Features], LeaveOneOut | None]] = {
    frechet: TrueImages.frechet,
    kernel_distance: TrueImages.kernel,
}
"""Leave-out computations by the function of `features.DISTANCES`."""


def _group_sums(x: Features, y: Features, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Sums of the kernel over pairs of different rows, by the groups of x and y, (G, G)."""
    found = np.array([[kernel_sum(x[one], y[other]) for other in rows] for one in rows])
    diagonal = kernel_diagonal(x, y)
    return found - np.diag([diagonal[each].sum() for each in rows])


class CrossValidatedProbe:
    """A cross-validated linear probe that predicts an image's folder.

    It is fitted to the features (N, D) of true images `FOLDS` times, each time without the images that it predicts.
    """

    NETWORK = (
        "EfficientNet-Lite0 (ImageNet), 1280 pooled features; a linear probe of the folders as classes, "
        f"fitted to the true images in {FOLDS} folds, asked about images that it was not fitted to"
    )

    def __init__(self, pairs: Pairs, true: Features) -> None:
        names = list(dict.fromkeys(pairs.clusters))
        self._labels = labels = np.array([names.index(name) for name in pairs.clusters])
        folds, counts = [], Counter[str]()
        for name in pairs.clusters:
            folds.append(counts[name] % FOLDS)
            counts[name] += 1
        masks = [np.array(folds) == fold for fold in range(FOLDS)]
        self._probes = [(mask, fit_probe(true[~mask], labels[~mask], len(names))) for mask in masks]

    def recognised(self, features: Features) -> NDArray[np.float64]:
        """1 for each image whose folder is predicted, else 0, (N,)."""
        found = np.zeros(len(self._labels))
        for held_out, probe in self._probes:
            found[held_out] = probe.predict(features[held_out]) == self._labels[held_out]
        return found


def require_classes(pairs: Pairs) -> None:
    """Raise `ConfigError` if there are fewer than two folders, or one has too few images for a probe."""
    counts = Counter(pairs.clusters)
    small = [name for name, count in counts.items() if count < FOLDS]
    if len(counts) < 2 or small:
        found = f"`{small[0]}` with {counts[small[0]]}" if small else f"{len(counts)} such folders"
        raise ConfigError(
            f"`--networks recognition` should have true images in two or more folders, a class each, of {FOLDS} or "
            f"more images. Found {found}."
        )


class FolderClassifier(NamedTuple):
    """A classifier that was trained on true colours, and the folders that its outputs stand for."""

    network: ImageClassifier
    stands_for: tuple[str, ...]
    """folder that each output stands for, if any; an empty tuple if no folder is one of its classes"""
    folders: tuple[str, ...]
    """folder of each image"""
    about: dict[str, Any]
    """what must be stated with its numbers"""

    @property
    def notes(self) -> list[str]:
        return [] if self.stands_for else [f"no accuracy of {self.network.name}: {self.about['classes']}"]

    def columns(self, classes: NDArray[np.int64], true: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """1 or 0 for each image, (N,), by measure, from its likeliest outputs in order, (N, `LIKELIEST`)."""
        found = {"top1_agreement": (classes[:, 0] == true[:, 0]).astype(float)}
        if self.stands_for:
            right = np.array(self.stands_for)[classes] == np.array(self.folders)[:, None]
            found["top1_accuracy"] = right[:, 0].astype(float)
            if self.network.outputs > LIKELIEST:  # with five outputs or fewer, it would always be 1
                found["top5_accuracy"] = right.any(1).astype(float)
        return found


def open_folder_classifier(given: str, classes: Path | None, pairs: Pairs) -> FolderClassifier:
    """Open a classifier (see `open_classifier`) and match its outputs with folders, the last of each image's path.

    `classes` has a line for each output, in order: the folder that it stands for, or empty for none; several outputs
    can stand for the same folder. Without it, folders are named by WordNet ids, as in ImageNet. A `ConfigError` if the
    file does not fit, or if outputs stand for some folders but not for all.
    """
    classifier = open_classifier(given)
    folders = tuple(PurePosixPath(name).parent.name for name in pairs.truth)
    stands_for = classifier.synsets if classes is None else _read_classes(classes, classifier)
    unknown = [folder for folder in dict.fromkeys(folders) if not folder or folder not in stands_for]
    if classes is not None:
        _require_folders(classes, stands_for, set(folders))
    source = "WordNet ids" if classes is None else f"a file ({digest(stands_for)[:12]})"
    about = {**classifier.provenance, "classes": f"folders, by {source}"}
    if classes is None and len(unknown) == len(set(folders)):
        why = "no folder of images is called by the WordNet id of one of its classes (n02123045), and no --classes"
        return FolderClassifier(classifier, (), folders, about | {"classes": why})
    if unknown:
        names = few([shown(folder) or "(no folder)" for folder in unknown], 3)
        remedy = f"name them in `{classes}`, each in the line of an output"
        if classes is None:
            remedy = "give --classes FILE with one line per output: the folder that it stands for"
        raise ConfigError(
            f"`--classifier {classifier.name}` should have a class for every folder of images. Found none for {names} "
            f"({len(unknown)} in all): {remedy}."
        )
    return FolderClassifier(classifier, stands_for, folders, about)


def _read_classes(path: Path, classifier: ImageClassifier) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = system_reason(error) if isinstance(error, OSError) else "bytes that are none"
        raise ConfigError(f"`--classes` should be a text file in UTF-8. Found `{path}`: {found}.") from None
    if len(lines) != classifier.outputs:
        raise ConfigError(
            f"`--classes` should have a line for each of the {classifier.outputs} outputs of {classifier.name}, empty "
            f"where it stands for no folder. Found {len(lines)} in `{path}`."
        )
    return tuple(plain_name(line.strip()) for line in lines)  # as for folders, see `pairing`


def _require_folders(path: Path, stands_for: Sequence[str], folders: Collection[str]) -> None:
    """Check for misspelt lines: an output for a folder that does not exist would always be wrong."""
    odd = {name: number for number, name in enumerate(stands_for, 1) if name and name not in folders}
    if odd:
        named = few([f"`{shown(name)}` in line {number}" for name, number in odd.items()], 3)
        raise ConfigError(
            f"`--classes` should name folders of true images. Found {named} of `{path}`, which none is called."
            f"{did_you_mean(next(iter(odd)), folders)} Leave the line of an output empty that stands for none."
        )


_CLASSES = "answers"
TOOLS = parts.versions("torch", "torchvision", "timm")
"""Packages whose versions are part of cache keys, because they affect resizing and results."""
_VERSION = 3  # version of what is computed per image, to be increased with each change, which invalidates cached arrays


class ScoreNetworks(NamedTuple):
    """The opened networks."""

    requested: str
    """their names, separated by commas"""
    networks: Mapping[str, ImageNetwork | Unavailable]
    """networks that give features, and LPIPS; or the reason why one is unavailable"""
    has_probe: bool
    classifier: FolderClassifier | None = None
    """the user's classifier, if requested"""

    @property
    def opened(self) -> dict[str, ImageNetwork]:
        return {name: each for name, each in self.networks.items() if isinstance(each, ImageNetwork)}

    @property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """What determines the output of each network, by its key in the cache."""
        found = {name: _quoted(each.provenance) for name, each in self.opened.items()}
        if self.classifier is not None:
            found[_CLASSES] = self.classifier.network.provenance
        return found

    @property
    def about(self) -> dict[str, Any]:
        """What must be stated with the numbers, as far as it is known before work."""
        of_networks = self.provenance
        by_measure = {name: each.network for name, each in DISTANCES.items()} | {LPIPS: LPIPS}
        found: dict[str, Any] = {"asked": self.requested}
        found |= {name: of_networks[each] for name, each in by_measure.items() if each in of_networks}
        if self.has_probe:
            found["recognition"] = {"network": CrossValidatedProbe.NETWORK}
        if self.classifier is not None:
            found["classifier"] = self.classifier.about
        return found


def open_scorers(options: NetworkOptions, pairs: Pairs, primary: str) -> ScoreNetworks:
    """Open the requested networks before work; a `ConfigError` if one cannot be opened or used."""
    names = options.names
    has_probe = "recognition" in names
    if has_probe:
        require_classes(pairs)
    chosen = {name for name in names if name in ("lite0", "inception")} | ({"lite0"} if has_probe else set())
    settings = Evaluation.model_validate({
        "networks": sorted(chosen),
        "perceptual": ["lpips"] if "lpips" in names else [],
        "inception_weights": options.inception_weights and str(options.inception_weights),
        "lpips_weights": options.lpips_weights and str(options.lpips_weights),
    })  # fmt: skip
    found = open_networks(settings, torch.device("cpu"))
    for name in (*sorted(chosen), *settings.perceptual):
        each = found[name]
        if isinstance(each, Unavailable):
            raise ConfigError(
                f"`--networks {options.networks}` should be of networks that can be opened. {name}: {each.reason}"
            )
    given = options.classifier
    classifier = open_folder_classifier(given, options.classes, pairs) if given else None
    if classifier is not None and not classifier.stands_for and primary == "top1_accuracy":
        reason = classifier.about["classes"]
        raise ConfigError(f"`primary = {primary}` of the protocol cannot be measured: {reason}.")
    found[LPIPS] = found.pop("lpips")
    return ScoreNetworks(",".join(names), found, has_probe, classifier)


def run_networks(
    pairs: Pairs,
    protocol: Protocol,
    measured: Mapping[str, parts.Measured],
    networks: ScoreNetworks,
    reference: str | None,
    cache: Path,
    report: Report = lambda _: None,
) -> NetworkScores:
    """Run the networks on all rows, one image at a time, so that results do not depend on the batch."""
    systems = [each.name for each in pairs.systems]
    rows = (TRUTH, *systems, *(row for row in ALWAYS if row != TRUTH))
    done, total = 0, len(pairs.truth) * len(rows)
    columns: dict[str, dict[str, NDArray[np.float64]]] = {}
    values: dict[str, dict[str, float]] = {}
    about = networks.about
    groups = deal_groups(len(pairs.truth), pairs.clusters)
    truths: dict[str, TrueImages] = {}
    left_out: dict[str, dict[str, LeaveOneOut]] = {}
    probe: CrossValidatedProbe | None = None
    true_classes: NDArray[np.int64] | None = None
    # row by row, because the features of all rows may not fit into memory
    with threadpool_limits(1), torch.no_grad():
        for row in rows:
            kept = []
            for portion in parts.portions(pairs, measured):
                kept.append(_cached(portion, row, protocol, networks, cache))
                done += len(portion.names)
                report({"stage": "score", "done": done, "total": total})
            found = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]}
            features = {name: found.pop(name) for name in networks.opened if name != LPIPS}
            classes = found.pop(_CLASSES, None)
            columns[row] = {name: each.astype(np.float64) for name, each in found.items()}
            if row == TRUTH:
                truths = {name: TrueImages(each, groups) for name, each in features.items()}
                true_classes = classes
                probe = CrossValidatedProbe(pairs, features["lite0"]) if networks.has_probe else None
            true = {name: each.features for name, each in truths.items()}
            distances = measure_distances(features, true, networks.networks)
            of_row = {name: each for name, each in distances.items() if each["value"] is not None}
            values[row] = {name: float(each["value"]) for name, each in of_row.items()}
            about |= {name: _quoted(each) for name, each in of_row.items()}
            if row in systems:
                left_out[row] = _leave_one_out(truths, features)
            if probe is not None:
                columns[row]["recognition"] = probe.recognised(features["lite0"])
            if networks.classifier is not None and classes is not None and true_classes is not None:
                columns[row] |= networks.classifier.columns(classes, true_classes)
    notes = [] if networks.classifier is None else networks.classifier.notes
    gaps = _set_distances(left_out, np.bincount(groups), reference or systems[0], 1 - protocol.alpha)
    return NetworkScores(columns, values, gaps, about, [*_bias_notes(about, gaps), *notes])


def _leave_one_out(true: Mapping[str, TrueImages], own: Mapping[str, Features]) -> dict[str, LeaveOneOut]:
    """The distances for a system, if it has enough images for them."""
    opened = {name: each for name, each in DISTANCES.items() if each.network in true}
    found = {
        name: LEAVE_ONE_OUT[each.between](true[each.network], own[each.network])
        for name, each in opened.items()
    }
    return {name: each for name, each in found.items() if each is not None}


def _set_distances(
    found: Mapping[str, Mapping[str, LeaveOneOut]], sizes: NDArray[np.int64], reference: str, level: float
) -> list[SetDistance]:
    """All distances of all systems, and their differences from those of the reference."""
    distances = []
    for system, own in found.items():
        for name, each in own.items():
            mean = jackknifed(each[0], each[1:], sizes)
            distances.append(SetDistance(system, None, name, mean.estimate, mean.interval(level), None))
            if system != reference:
                gap = each - found[reference][name]
                mean = jackknifed(gap[0], gap[1:], sizes)
                ends = mean.interval(level)
                distances.append(SetDistance(system, reference, name, mean.estimate, ends, mean.p))
    return distances


def _bias_notes(about: Mapping[str, Any], distances: Sequence[SetDistance]) -> list[str]:
    """Warnings about Frechet distances of few images; kernel distances have no such bias."""
    known = {each.measure for each in distances}
    return [
        f"{MEASURES[name].short}: {each['warning']}{'' if name in known else '; no interval'}"
        for name, each in about.items()
        if name in DISTANCES and DISTANCES[name].between is frechet and "warning" in each
    ]


def _cached(
    part: parts.Portion, row: str, protocol: Protocol, networks: ScoreNetworks, cache: Path
) -> parts.KeptArrays:
    """The outputs of all networks for a row, cached separately for each network."""
    key = part.key(row, protocol)
    keys = {name: digest([_VERSION, TOOLS, key, name, each]) for name, each in networks.provenance.items()}

    def compute(names: list[str]) -> dict[str, parts.KeptArrays]:
        outputs: dict[str, list[parts.KeptArrays]] = {name: [] for name in names}
        for pixels in parts.row_pixels(part, row, protocol):  # one image at a time, to bound the memory
            for name, images in outputs.items():
                images.append(_run_network(name, *pixels, networks))
        return {
            name: {each: np.stack([image[each] for image in images]) for each in images[0]}
            for name, images in outputs.items()
        }

    found = parts.cached_arrays(cache, keys, compute)
    return {name: each for own in found.values() for name, each in own.items()}


def _run_network(
    name: str, truth: Pixels, samples: Sequence[Pixels], networks: ScoreNetworks
) -> parts.KeptArrays:
    """Features or classes of the first sample; for LPIPS the mean over samples, the best, and between samples."""
    if name == _CLASSES and networks.classifier is not None:
        return {name: networks.classifier.network.predict(samples[0])}
    compute = networks.opened[name].compute
    if name != LPIPS:
        return {name: compute(_tensor(samples[0]))[0].numpy()}
    shown, true = [_tensor(each) for each in samples], _tensor(truth)
    rows = [{LPIPS: float(compute(each, true))} for each in shown]
    found = parts.over_samples(rows, "diversity_lpips", compute, shown)
    return {column: np.asarray(each, np.float64) for column, each in found.items()}


def _tensor(pixels: Pixels) -> torch.Tensor:
    """RGB (1, 3, H, W), 0 to 1."""
    codes = np.moveaxis(pixels, -1, 0)[None].astype(np.float32)
    return torch.from_numpy(codes / np.float32(np.iinfo(pixels.dtype).max))


def _quoted(about: Mapping[str, Any]) -> dict[str, Any]:
    # the path of a file is left out, because the hash of its weights identifies it
    return {name: each for name, each in about.items() if name not in ("value", "file")}
