"""Pairing of colourings with true images, by relative path without extension; reports everything unusual."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from knowhue.errors import ConfigError, ImageError, few, plural
from knowhue.images.image import SUFFIXES, UNREADABLE, counts_in_words, recognise, walk
from knowhue.images.reading import HEAD_BYTES
from knowhue.runs import path_hint
from knowhue.settings_text import plain_name
from knowhue.storage import file_digest, real_path

TRUTH, GRAY, MEAN = "truth against truth", "gray", "mean colour"
JPEG_QUALITIES = {"truth as JPEG 75": 75, "truth as JPEG 95": 95}
LEFT_ALONE = "left alone"  # marks notes on files that are not images, which have no effect on the scores
ALWAYS = (GRAY, MEAN, *JPEG_QUALITIES, TRUTH)
"""Rows of every table, besides the systems."""
_SAMPLE_FOLDER = re.compile(r"sample[-_ ]?\d+", re.IGNORECASE)
_SAMPLE_FILE = re.compile(r"(.+)-\d+")


class Stored(NamedTuple):
    """A listed image file."""

    path: Path
    digest: str
    """SHA-256 of its bytes"""
    kind: str | None
    """key of `images.image.FORMATS`, by the first bytes; None if unknown"""


class System(NamedTuple):
    """The colourings of one system."""

    name: str
    samples: Mapping[str, tuple[Stored, ...]]
    """files of each image, one or several, by the name of the image"""
    remarks: tuple[str, ...] = ()


class Pairs(NamedTuple):
    """True images with the colourings of each system."""

    truth: Mapping[str, Stored]
    """true file by the name of the image, sorted"""
    systems: tuple[System, ...]
    clusters: tuple[str, ...]
    """folder of each image if there are two or more folders; else empty"""
    notes: tuple[str, ...]
    """what readers of the scores must know about systems and true images"""
    remarks: tuple[str, ...] = ()
    """further information: kinds of files, images that were left out"""

    @property
    def folders(self) -> int:
        """Number of folders; 0 if all images are in one."""
        return len(set(self.clusters))


def pair(truth: Path, systems: Sequence[str], common: bool = False) -> Pairs:
    """Pair the files of the true images with those of systems, each given as a folder or as `NAME=FOLDER`.

    Several samples of an image are files in `sample-1/`, `sample-2/` ... or are called `photo-1.png`, `photo-2.png` ...
    Images that some system lacks, and files without a true image, are refused, or left out if `common`.
    """
    folders = require_folders(truth, systems)
    originals, left_alone = _list("--truth", truth)
    found = [_system(name, folder, originals) for name, folder in folders.items()]
    checked = [_mismatched_files(system, originals, common) for system in found]
    if problems := [each for problems, _ in checked for each in problems]:
        raise ImageError(*problems)
    remarks = [f"true images: {each}" for each in left_alone]
    remarks += [each for _, notes in checked for each in notes]
    shared = set(originals).intersection(*(system.samples for system in found))
    if not shared:
        raise ImageError(
            f"`{truth}` and the systems should have images of the same names, extension aside. Found none in all."
        )
    keys = sorted(shared)
    kept = [each._replace(samples={key: each.samples[key] for key in keys}) for each in found]
    if len(keys) < len(originals):
        remarks.append(f"{len(keys)} of {len(originals)} true images are scored: those that all systems have")
    notes = [*_copies(originals, keys), *_identical_systems(kept)]
    notes += merge_notes((each.name, _originals(each, originals)) for each in kept)
    remarks += merge_notes((each.name, [*each.remarks, *_lossy(each)]) for each in kept)
    folders = tuple(str(PurePosixPath(key).parent) for key in keys)
    clusters = folders if len(set(folders)) > 1 else ()
    return Pairs({key: originals[key] for key in keys}, tuple(kept), clusters, tuple(notes), tuple(remarks))


def merge_notes(found: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Notes with the names of their systems; a note that several systems share is given once.

    >>> merge_notes([("ours", ["2 in JPEG"]), ("theirs", ["1 in JPEG"]), ("copy", ["2 in JPEG"])])
    ['ours, copy: 2 in JPEG', 'theirs: 1 in JPEG']
    """
    names: dict[str, list[str]] = {}
    for name, texts in found:
        for text in texts:
            names.setdefault(text, []).append(name)
    return [f"{', '.join(own)}: {text}" for text, own in names.items()]


def named_folders(systems: Sequence[str]) -> list[tuple[str, Path]]:
    """Name and folder of each system, given as a folder or as `NAME=FOLDER`; `ConfigError` for an invalid name."""
    pairs = []
    for text in systems:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():  # the name of a folder can contain =
            name, path = real_path(text).name, text
        if not name.strip() or not path.strip():
            raise ConfigError(f"A system should have a name and a folder. Found `{text}`: give NAME=FOLDER.")
        pairs.append((name.strip(), Path(path)))
    for name, path in pairs:
        if name in ALWAYS:
            rows = ", ".join(f"`{each}`" for each in ALWAYS)
            raise ConfigError(
                f"A system should not be called {rows}, which are rows of every table. Found `{name}`. Put another "
                f"name before its folder: {shlex.quote(f'our {name}={path}')}"
            )
        if [other for other, _ in pairs].count(name) > 1:
            raise ConfigError(
                f"Systems should have different names. Found `{name}` more than once. Put another name before a "
                f"folder: {shlex.quote(f'{name}-2={path}')}"
            )
    return pairs


def require_folders(truth: Path, systems: Sequence[str]) -> dict[str, Path]:
    """The folders of the systems by name; `ImageError` if one is missing, `ConfigError` if names or folders clash."""
    named = dict(named_folders(systems))
    for what, folder in {"--truth": truth, **named}.items():
        if not folder.is_dir():
            raise ImageError(
                f"`{what}` should be a folder of images. Found `{folder}`."
                + (path_hint(folder) or " Is the path right?")
            )
    for folder in named.values():
        if folder.samefile(truth):
            raise ConfigError(
                f"A system should be another folder than --truth. Found `{folder}` for both; the true images have rows "
                "of their own in every table."
            )
    return named


def _list(what: str, folder: Path) -> tuple[dict[str, Stored], list[str]]:
    """The files by image, and notes; `ImageError` if an image is stored twice."""
    files: dict[str, list[Path]] = {}
    skipped = []
    for path, why in walk(folder, with_coloured=True):
        if why.startswith(UNREADABLE):
            raise ImageError(f"{path}: {why}")
        if why:
            skipped.append(why)
            continue
        key = plain_name(path.relative_to(folder).with_suffix("").as_posix())
        files.setdefault(key, []).append(path)
    if not files:
        raise ImageError(f"`{folder}` should hold images ({', '.join(sorted(SUFFIXES))}). Found none.")
    if twice := [" and ".join(path.name for path in each) for each in files.values() if len(each) > 1]:
        count = plural(len(twice), "image")
        raise ImageError(f"{what}: {count} stored twice ({few(twice, 3)}); keep one of each")
    others = f"{plural(len(skipped), 'other file')} {LEFT_ALONE}: {counts_in_words(skipped)}"
    return {key: _stored(path) for key, (path,) in files.items()}, [others] if skipped else []


def _stored(path: Path) -> Stored:
    if not path.is_file():
        raise ImageError(f"{path}: it is a device, a pipe or a broken link; save it as a file first")
    digest = file_digest(path)  # a `RunError` if it cannot be read
    with path.open("rb") as file:
        return Stored(path, digest, recognise(file.read(HEAD_BYTES)))


def _system(name: str, folder: Path, truth: Mapping[str, Stored]) -> System:
    files, notes = _list(name, folder)
    samples: dict[str, list[Stored]] = {}
    for key, file in sorted(files.items()):
        samples.setdefault(_true_image_name(key, truth), []).append(file)
    return System(name, {key: tuple(each) for key, each in samples.items()}, tuple(notes))


def _true_image_name(key: str, truth: Mapping[str, Stored]) -> str:
    """The name of the true image that a file is a colouring of."""
    if key in truth:
        return key
    first, _, rest = key.partition("/")
    if _SAMPLE_FOLDER.fullmatch(first) and rest in truth:
        return rest
    found = _SAMPLE_FILE.fullmatch(key)
    return found[1] if found and found[1] in truth else key


def _mismatched_files(
    system: System, truth: Mapping[str, Stored], common: bool
) -> tuple[list[str], list[str]]:
    """Problems and notes about missing and unexpected files of a system."""
    missing = [key for key in truth if key not in system.samples]
    extra = [key for key in system.samples if key not in truth]
    counts = {key: len(each) for key, each in system.samples.items() if key in truth}
    most = max(counts.values(), default=0)
    partial = [key for key, count in counts.items() if count < most]
    problems, notes = [], []
    if not counts:
        unlike = f"{len(extra)} files is named like a true image ({few(extra, 3)})"
        return [f"{system.name}: none of its {unlike}"], []
    for names, what in ((missing, "no colouring of"), (extra, "files that belong to no true image:")):
        if names:
            text = f"{system.name}: {what} {few(names, 3)} ({len(names)} in all)"
            (notes if common else problems).append(text if common else f"{text}; or pass --common")
    if partial:
        problems.append(
            f"{system.name}: {few(partial, 3)} ({len(partial)} in all) have fewer than the {most} samples of others"
        )
    return problems, notes


def _copies(truth: Mapping[str, Stored], keys: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    twice = [key for key in keys if first.setdefault(truth[key].digest, key) != key]
    return [f"repeated true images: {len(twice)} ({few(twice, 3)})"] if twice else []


def _identical_systems(systems: Sequence[System]) -> list[str]:
    names: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for each in systems:
        digests = tuple(tuple(file.digest for file in files) for files in each.samples.values())
        names.setdefault(digests, []).append(each.name)
    return [identical_files_note(*equal) for equal in names.values() if len(equal) > 1]


def identical_files_note(*names: str) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} are the same files, byte for byte: their comparison says nothing"


def _lossy(system: System) -> Iterator[str]:
    if count := sum(file.kind == "JPEG" for each in system.samples.values() for file in each):
        yield f"{plural(count, 'colouring')} in JPEG: every number includes the loss of the codec (see the JPEG rows)"


def _originals(system: System, truth: Mapping[str, Stored]) -> Iterator[str]:
    files = ((key, file) for key, each in system.samples.items() for file in each)
    if same := [key for key, file in files if file.digest == truth[key].digest]:
        yield f"{plural(len(same), 'colouring')} with the same bytes as the true image ({few(same, 3)})"
