"""Sealed studies: all numbers of a study in one file, without images or weights, from which its results are recomputed.

The file is a ZIP with an RO-Crate (version 1.1, Soiland-Reyes et al. 2022, "Packaging research artefacts with
RO-Crate"): files of the study's folder under the same names, and `ro-crate-metadata.json`, which describes them and
holds the SHA-256 of each. With the same versions of knowhue and its libraries, equal studies give equal files.
"""

import json
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from knowhue import runs
from knowhue.errors import ConfigError, KnowhueError, RunError, few, plural, system_reason
from knowhue.evaluation.aggregation import class_metrics, score_rows
from knowhue.metric_table import RUN_METRICS
from knowhue.plan import read_cells, read_plan
from knowhue.report.page import RESULTS, write_report
from knowhue.report.reading import read_images, read_study
from knowhue.report.results import compare, conclude
from knowhue.report.study import Row
from knowhue.storage import SEAL, file_digest, finite_or_none, replacing
from knowhue.temporary import temporary_folder

CRATE = "ro-crate-metadata.json"
_RUN_FILES = (
    "config.json", "environment.json", "status.json", "log.jsonl", "scores.json", "per_image.csv",
    "gradient_shares.json",
)  # fmt: skip
KEPT = (
    "study.json", "metrics.json", "baselines.json", "costs.json", "images/prepared.json", "gate/seed-*.json",
    *(f"{folder}/seed-*/{name}" for folder in ("*", "heads/*") for name in _RUN_FILES),
)  # fmt: skip
"""Patterns of the files that are sealed; the report is made again, without images."""
MAX_BYTES = 2**32  # largest accepted size of an unpacked study, in bytes
MAX_FILES = 10**6
_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_PROFILE = "https://w3id.org/ro/crate/1.1"
_FORMATS = {
    ".json": "application/json", ".jsonl": "application/jsonl", ".csv": "text/csv", ".html": "text/html",
}  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of ZIP
_ROUNDED = 2e-5  # values of `per_image.csv` have five decimals
_EXACT = 1e-9  # the order of sums depends on the library
_MAX_PROBLEMS = 5  # shown per file
_DAMAGE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""Exceptions of reading a file that was edited and can contain anything."""
_ReadImages = Callable[[Path], tuple[Row, ...]]
_COMPUTED = {"metrics", "per_class", "split", "images"}  # entries of `scores.json`


class CheckResult(NamedTuple):
    """The result of checking a sealed study."""

    about: Sequence[str]
    """lines that identify the file and the study by their SHA-256"""
    files: int
    numbers: int
    """number of values in its results and scores that were computed again"""
    problems: Sequence[str]
    """differences from the sealed state, a sentence each"""
    unchecked: Sequence[str]
    """parts that were not computed again, and why"""
    summary: Sequence[str]
    """lines with the answers of the study if there are no problems, see `report.results.Conclusion`"""


def pack(folder: Path, out: Path) -> int:
    """Seal a finished study, and return the number of files in it; `RunError` if some of its runs have not ended."""
    if out.suffix.lower() != ".zip":
        raise ConfigError(f"A sealed study should be named `.zip`. Found `{out}`.")
    frozen, plan = runs.read_frozen(folder), read_plan(folder)
    states = {f"{each.arm} of seed {each.seed}": each.state for each in read_cells(folder, plan)}
    if exchanged := [cell for cell, state in states.items() if state == runs.OTHER_SETTINGS]:
        raise RunError(
            f"{folder}: the folder of {few(exchanged, 3)} holds a run of other settings; remove it, and run "
            "`knowhue study` again"
        )
    if unfinished := [cell for cell, state in states.items() if state not in runs.ENDED]:
        raise RunError(f"{folder}: {few(unfinished, 3)} have not ended yet; finish them with `knowhue study`")
    for arm, seed in plan.cells:
        runs.require_intact(runs.run_folder(folder, arm, plan.run_config(arm, seed)), _RUN_FILES)
    with temporary_folder("The files of a study without its images", folder) as root:
        for path in sorted({path for pattern in KEPT for path in folder.glob(pattern)}):
            target = root / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        write_report(root, "Sealed without images and weights: what shows them is left out.")
        names = sorted(_name(path, root) for path in root.rglob("*") if path.is_file())
        crate = _describe(root, names, frozen)
        (root / CRATE).write_text(json.dumps(crate, indent=1, ensure_ascii=False), encoding="utf-8")
        with replacing(out, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name in (CRATE, *names):
                entry = zipfile.ZipInfo(name, _EPOCH)
                archive.writestr(entry, (root / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return len(names) + 1


def check(path: Path) -> CheckResult:
    """Compute the scores and results of a sealed study again, and compare.

    This checks the checksums of the files, the hash of the plan, the scores of each run and head (overall and by class)
    against those of its images, and all results against the runs. Distances between sets of images, baselines and costs
    are not checked, because that would need images. A file that is not a sealed study raises a `RunError`.
    """
    with unpacked(path) as (root, listed):
        problems = list(_changed_files(root, listed))
        changed = {each.partition(": ")[0] for each in problems}
        problems += _changed_in_runs(root, changed)
        scores, once = {}, cache(read_images)  # a run's scores and the results have the same images
        for each in _runs(root):
            is_head = each.is_relative_to(root / "heads")
            read = read_images if is_head else once
            scores[_name(each / "scores.json", root)] = partial(_check_scores, each, read)
        parts = {"study.json": _check_hash, **scores, RESULTS: partial(_check_results, once)}
        found, skipped = list[_Recomputed](), list[str]()
        if changed:  # the metadata describes every file and repeats the answers
            skipped.append(CRATE)
        else:
            parts[CRATE] = partial(_check_crate, sorted(listed))
        for name, part in parts.items():
            try:
                found.append(part(root))
            except (KnowhueError, *_DAMAGE) as error:
                if changed:  # already reported as missing or changed
                    skipped.append(name)
                    continue
                text = str(error).replace(f"{root}/", "").replace(str(root), path.name).partition(". ")[0]
                found.append(_Recomputed(0, [f"{name}: cannot be computed again: {text}"]))
        problems += [each for part in found for each in part.problems]
        numbers = sum(part.numbers for part in found)
        summary = [line for part in found for line in part.summary]
        unchecked = [f"{few(skipped, 3)}: what was changed does not allow it"] if skipped else []
        left = [*unchecked, *_not_recomputed(root, has_answers=not problems)]
        about = [f"{path.name}: SHA-256 {file_digest(path)}", *_about(root)]
        return CheckResult(about, len(listed) + 1, numbers, problems, left, [] if problems else summary)


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Unpack a sealed study into a temporary folder; yields it and the sealed SHA-256 of each file, or `RunError`."""
    with temporary_folder("A sealed study, unpacked,", path) as root:
        yield root, _unpack(path, root)


def shown_problems(problems: Sequence[str]) -> Iterator[str]:
    """The first problems of each file, and how many more it has.

    >>> list(shown_problems([*(f"a.json: {number}" for number in range(8)), "b.json: gone"]))[-3:]
    ['a.json: 4', 'a.json: 3 more problems', 'b.json: gone']
    """
    for name, found in groupby(problems, lambda each: each.partition(": ")[0]):
        of_file = list(found)
        yield from of_file[:_MAX_PROBLEMS]
        if more := len(of_file[_MAX_PROBLEMS:]):
            yield f"{name}: {plural(more, 'more problem')}"


def _about(root: Path) -> Iterator[str]:
    """When, and by which version, the study says that it was frozen, and its hash."""
    with suppress(KnowhueError, LookupError):  # changed files are reported elsewhere
        frozen = runs.read_frozen(root)
        yield f"Study {frozen['name']}, frozen {frozen['created']} by Knowhue {frozen['version']}"
        yield f"Plan, images and encoder's weights: SHA-256 {frozen['hash']}"


def _not_recomputed(root: Path, has_answers: bool) -> list[str]:
    """The parts that cannot be computed without images and weights, and the report, whose text is not compared."""
    left = []
    if (root / "report.html").exists():
        computed = "; the answers printed here are computed" if has_answers else ""
        left.append(f"report.html: its text is not compared{computed}")
    files = [name for name in ("baselines.json", "costs.json") if (root / name).exists()]
    parts: set[str] = set()
    for folder in _runs(root):
        with suppress(KnowhueError, *_DAMAGE):
            found = _read(folder / "scores.json")
            parts |= found.keys() - _COMPUTED | found.get("metrics", {}).keys() - RUN_METRICS.keys()
    files += [f"of scores.json {', '.join(sorted(parts))}"] if parts else []
    if files:
        left.append(f"{'; '.join(files)}: they need images or weights")
    return left


def _describe(root: Path, names: Sequence[str], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the RO-Crate: the study, the software and command that made it, and its files."""
    results = _read(root / RESULTS)
    files = [
        {
            "@id": name, "@type": "File", "encodingFormat": _FORMATS[Path(name).suffix],
            "contentSize": (root / name).stat().st_size, "sha256": file_digest(root / name),
        }
        for name in names
    ]  # fmt: skip
    study = {
        "@id": "./", "@type": "Dataset", "name": frozen["name"], "identifier": f"sha256:{frozen['hash']}",
        "description": " ".join(results["answers"].values()) or f"Study {frozen['name']}",
        "datePublished": frozen["created"], "hasPart": [{"@id": name} for name in names],
    }  # fmt: skip
    software = {
        "@id": "#knowhue", "@type": "SoftwareApplication", "name": "Knowhue", "version": frozen["version"],
    }  # fmt: skip
    action = {
        "@id": "#study", "@type": "CreateAction", "name": frozen.get("command") or "knowhue study",
        "instrument": {"@id": "#knowhue"}, "result": {"@id": "./"},
    }  # fmt: skip
    about = {
        "@id": CRATE, "@type": "CreativeWork", "conformsTo": {"@id": _PROFILE}, "about": {"@id": "./"},
    }  # fmt: skip
    return {"@context": _CONTEXT, "@graph": [about, study, software, action, *files]}


def _unpack(path: Path, root: Path) -> dict[str, str]:
    """Unpack a sealed study into `root`, and return the SHA-256 of each file; see `unpacked`."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_BYTES or len(archive.infolist()) > MAX_FILES:
                found = f"{size / 2**30:.0f} GiB in {len(archive.infolist())} files when unpacked"
                raise RunError(f"{path}: {found}, which no sealed study has")
            places = Counter(archive.extract(entry, root) for entry in archive.infolist())
        if twice := [_name(Path(place), root) for place, count in places.items() if count > 1]:
            raise RunError(f"{path}: stored twice: {few(twice, 3)}; no sealed study has that")
        crate = json.loads((root / CRATE).read_text(encoding="utf-8"))
        return {str(each["@id"]): each["sha256"] for each in crate["@graph"] if each.get("@type") == "File"}
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.exists():
            raise RunError(
                f"{path}: not a sealed study: it has no {CRATE}; `knowhue pack` makes one"
            ) from None
        more = "; name what `knowhue pack` makes of it" if path.is_dir() else ""
        raise RunError(f"{path}: {system_reason(error)}{more}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, *_DAMAGE) as error:
        other = "" if path.suffix.lower() in ("", ".zip") else runs.path_hint(path)
        found = f"not a sealed study, or damaged ({error})"
        raise RunError(f"{path}: {found}; `knowhue pack` makes one.{other}") from None


def _changed_files(root: Path, listed: Mapping[str, str]) -> Iterator[str]:
    found = {_name(each, root) for each in root.rglob("*") if each.is_file()} - {CRATE}
    for name in sorted(found | listed.keys()):
        if name not in listed:
            yield f"{name}: was not there when it was sealed"
        elif name not in found:
            yield f"{name}: gone"
        elif file_digest(root / name) != listed[name]:
            yield f"{name}: not as it was sealed"


def _changed_in_runs(root: Path, known: Collection[str]) -> Iterator[str]:
    """Files of runs and heads that have changed since these ended, without those that are reported already."""
    for folder in _runs(root):
        with suppress(KnowhueError):  # a damaged status is reported elsewhere
            for path in runs.damaged_files(folder, _RUN_FILES):
                if (name := _name(path, root)) not in known:
                    yield f"{name}: not as it was when its run ended"


class _Recomputed(NamedTuple):
    """The result of computing one file again: the number of values, the problems, and lines for the terminal."""

    numbers: int
    problems: list[str]
    summary: Sequence[str] = ()


def _check_hash(root: Path) -> _Recomputed:
    frozen, plan = runs.read_frozen(root), read_plan(root)
    is_same = plan.hash(frozen["parts"]) == frozen["hash"]
    return _Recomputed(1, [] if is_same else ["study.json: the plan does not match its hash"])


def _runs(root: Path) -> list[Path]:
    """The folders of runs and heads that have scores."""
    paths = (*root.glob("*/seed-*/scores.json"), *root.glob("heads/*/seed-*/scores.json"))
    return sorted(path.parent for path in paths)


def _check_scores(folder: Path, read: _ReadImages, root: Path) -> _Recomputed:
    """Compare a run's scores, overall and by class, with the means over its images."""
    sealed = _read(folder / "scores.json")
    number = {"": -1} | {name: number for number, name in enumerate(sealed["per_class"])}
    rows = [{**row, "label": number[row["label"]]} for row in read(folder / "per_image.csv")]
    found = {"metrics": score_rows(rows), **class_metrics(rows, list(sealed["per_class"]))}
    found = {name: finite_or_none(_run_metrics(own)) for name, own in found.items()}
    written = {"metrics": sealed["metrics"], **sealed["per_class"]}
    written = {name: _run_metrics(own) for name, own in written.items()}
    return _Recomputed(*compare(written, found, f"{_name(folder / 'scores.json', root)}: ", _ROUNDED))


def _run_metrics(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {metric: value for metric, value in scores.items() if metric in RUN_METRICS}


def _check_results(read: _ReadImages, root: Path) -> _Recomputed:
    sealed = _read(root / RESULTS)
    found = conclude(read_study(root, read))
    numbers, problems = compare(sealed, json.loads(json.dumps(found.results)), f"{RESULTS}: ", _EXACT)
    return _Recomputed(numbers, problems, found.lines)


def _check_crate(names: Sequence[str], root: Path) -> _Recomputed:
    """Compare the metadata of the RO-Crate with the study and its files."""
    found = _describe(root, names, runs.read_frozen(root))
    return _Recomputed(0, compare(_read(root / CRATE), found, f"{CRATE}: ", 0)[1])


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _read(path: Path) -> dict[str, Any]:
    """Read JSON without checking its checksum, so that the differences can be named."""
    value = json.loads(path.read_text(encoding="utf-8"))
    value.pop(SEAL, None)
    return value
