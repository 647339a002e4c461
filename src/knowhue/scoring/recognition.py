"""Recognition of colourings by a probe of the true images' folders or by the user's classifier; needs torch."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.config import digest
from knowhue.errors import ConfigError, did_you_mean, few, shown, system_reason
from knowhue.evaluation.features import Features
from knowhue.evaluation.recognition import LIKELIEST, ImageClassifier, fit_probe, open_classifier
from knowhue.scoring.pairing import Pairs
from knowhue.settings_text import plain_name

FOLDS = 5
"""Folds of the probe: each image is classified by a probe that was not fitted to it."""


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
    counts = {name: pairs.clusters.count(name) for name in dict.fromkeys(pairs.clusters)}
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
        raise ConfigError(
            f"`--classifier {classifier.name}` should have a class for every folder of images. Found none for {names} "
            f"({len(unknown)} in all): "
            + (
                "give --classes FILE with one line per output: the folder that it stands for."
                if classes is None
                else f"name them in `{classes}`, each in the line of an output."
            )
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
