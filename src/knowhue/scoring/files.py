"""The files of `knowhue score`: `score.json`, which `--check` recomputes, and the table of single images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from knowhue import __version__
from knowhue.config import digest
from knowhue.errors import ConfigError, DamagedError, minus, shown
from knowhue.metric_table import Metric
from knowhue.report.results import compare
from knowhue.scoring.pairing import LEFT_ALONE, Pairs, Stored, identical_files_note
from knowhue.scoring.protocols import Protocol
from knowhue.scoring.table import Scores
from knowhue.storage import read_json

SCORE_SCHEMA = {"name": "knowhue-score", "version": 1}
ROUNDING = 1e-6
"""Absolute and relative tolerance for recomputed numbers, because processors differ in the order of sums."""
_ROUNDING_OF_P = 1e-4
"""Absolute tolerance of p-values: of near-equal systems, they divide a small difference by a small error."""
_PROBABILITIES = ("p", "p_adjusted", "p_clustered", "p_clustered_adjusted")
_PACKAGES = ("numpy", "pillow", "pyvips")
_OF_NETWORKS = ("torch", "timm")


def short(hash_: str) -> str:
    """The part of a hash that is shown next to numbers."""
    return hash_[:12]


def to_json(scores: Scores) -> dict[str, Any]:
    """The content of `score.json`, always the same for the same files."""
    protocol = scores.protocol.digest
    return {
        "schema": SCORE_SCHEMA,
        "protocol": {"sha256": protocol, "settings": scores.protocol.model_dump(mode="json")},
        "truth": truth_of(scores.pairs),
        "systems": [
            {
                "name": each.name,
                "samples": len(next(iter(each.samples.values()))),
                "sha256": _files_hash(each.samples),
            }
            for each in scores.pairs.systems
        ],
        "clusters": scores.pairs.folders,
        "measures": {
            name: {"title": m.title, "unit": m.unit, "better": m.better}
            for name, m in scores.measures.items()
        },
        "rows": {row: {"protocol": protocol, "values": dict(own)} for row, own in scores.values.items()},
        "reference": scores.reference,
        "differences": [each._asdict() for each in scores.differences],
        "distances": [each._asdict() for each in scores.distances],
        "mcnemar": [each._asdict() for each in scores.tests],
        "notes": list(scores.notes),
        "files": list(scores.pairs.remarks),
        "networks": dict(scores.about),
        "made_with": {
            "knowhue": __version__,
            **{name: version(name) for name in (*_PACKAGES, *(_OF_NETWORKS if scores.about else ()))},
        },
    }


def truth_of(pairs: Pairs) -> dict[str, Any]:
    """Number and combined hash of the true images."""
    return {
        "images": len(pairs.truth),
        "sha256": _files_hash({k: (file,) for k, file in pairs.truth.items()}),
    }


def _files_hash(files: Mapping[str, tuple[Stored, ...]]) -> str:
    return digest([[name, *(file.digest for file in each)] for name, each in sorted(files.items())])


def read_score_file(path: Path) -> dict[str, Any]:
    """Read a `score.json`; `ConfigError` for another kind of file or version, `RunError` if it cannot be read."""
    if path.suffix.lower() != ".json":
        raise ConfigError(
            f"An earlier score should be a .json file of `knowhue score`. Found `{path}`. Name the .json file that "
            "`knowhue score --out` wrote next to the page."
        )
    found: dict[str, Any] = {}
    try:
        found = read_json(path)
    except DamagedError:  # another program's JSON has no checksum either, but should not be removed
        if SCORE_SCHEMA["name"].encode() in path.read_bytes():
            raise
    if (schema := found.get("schema")) != SCORE_SCHEMA:
        raise ConfigError(
            f"An earlier score should be a .json file of `knowhue score`, which carries the schema {SCORE_SCHEMA}. "
            f"Found `{path}`, which carries {shown(schema)}."
        )
    return found


def read_earlier_scores(
    paths: Iterable[Path], protocol: Protocol, pairs: Pairs
) -> tuple[dict[str, Mapping[str, float]], list[str]]:
    """Values of the systems of earlier `score.json` files, for the same table as `pairs`, and notes about them."""
    rows: dict[str, Mapping[str, float]] = {}
    notes: list[str] = []
    hashes = {each.name: _files_hash(each.samples) for each in pairs.systems}
    for path in paths:
        earlier = read_score_file(path)
        wanted = (
            ("protocol", protocol.digest, earlier["protocol"]["sha256"]),
            ("true images", truth_of(pairs)["sha256"], earlier["truth"]["sha256"]),
        )
        for what, here, there in wanted:
            if here != there:
                raise ConfigError(
                    f"`--beside {path}` should have the same {what}: numbers with different ones are not comparable. "
                    f"Found {short(there)}, and here {short(here)}."
                )
        for each in earlier["systems"]:
            name, hash_ = each["name"], each["sha256"]
            if name in hashes:
                raise ConfigError(f"`--beside {path}` should have other systems. Found `{name}` again.")
            # only with the first equal one, because equal systems of this command have their own note
            equal = next((other for other, known in hashes.items() if known == hash_), None)
            notes += [identical_files_note(equal, name)] if equal else []
            hashes[name] = hash_
            rows[name] = earlier["rows"][name]["values"]
    return rows, notes


def require_same_networks(option: str, paths: Iterable[Path], about: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if weights, input or classes of a network differ between scores for one table."""
    known = json.loads(json.dumps({name: each for name, each in about.items() if name != "asked"}))
    for path in paths:
        for name, there in read_score_file(path)["networks"].items():
            if name == "asked":
                continue
            here = known.setdefault(name, there)
            differ = [key for key in there if key in here and key != "tool" and here[key] != there[key]]
            if differ:
                raise ConfigError(
                    f"`{option} {path}` should have used `{name}` with the same {differ[0]}: numbers with different "
                    f"ones are not comparable. Found {there[differ[0]]}, and here {here[differ[0]]}."
                )


def compare_json(kept: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Number of values in a `score.json`, and the differences of another one, except packages and rounding errors."""
    kept, made = (
        dict(each)
        | {"made_with": None, "files": [note for note in each.get("files", ()) if LEFT_ALONE not in note]}
        for each in (kept, made)
    )
    return compare(kept, made, "", ROUNDING, dict.fromkeys(_PROBABILITIES, _ROUNDING_OF_P))


def image_rows(scores: Scores) -> Iterator[Sequence[Any]]:
    """The table of single images, header first, with one line per image and row."""
    names = list(dict.fromkeys(name for own in scores.columns.values() for name in own))
    yield ("image", "folder", "row", "protocol", *names)
    hash_ = short(scores.protocol.digest)
    folders = scores.pairs.clusters or ("",) * len(scores.pairs.truth)
    for row, own in scores.columns.items():
        values = [own[name].tolist() if name in own else None for name in names]
        for number, (image, folder) in enumerate(zip(scores.pairs.truth, folders, strict=True)):
            yield (image, folder, row, hash_, *(None if each is None else each[number] for each in values))


def shown_value(measure: Metric, value: float | None) -> str:
    """A number as tables show it; without a sign if it is rounded to 0.

    >>> from knowhue.scoring.measures import MEASURES
    >>> [shown_value(MEASURES["kd_lite0"], value) for value in (-0.0123, -1e-9, None)]
    ['−0.0123', '0.0000', '–']
    """
    return "–" if value is None else minus(f"{value:z.{measure.places}f}")
