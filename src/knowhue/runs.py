"""The files of study folders and run folders.

DIR/study.json                       the frozen plan, its hash, and the command
DIR/images/                          prepared images and their manifest, see `data.prepare`
DIR/features/                        cached features of the frozen encoder
DIR/gate/seed-<n>.json               result of the A/A gate of a block, see `cells.check_gate`
DIR/<arm>/seed-<n>-<fingerprint>/    one run
    config.json environment.json     settings; machine and versions
    log.jsonl                        one line per epoch
    scores.json per_image.csv        final scores, and those of each image, of the reporting split
    samples.npz                      colourings of the fixed sample images
    gradient_shares.json             share of each loss in the encoder's gradient, before and after fine-tuning
    extremes.npz                     the best and the worst colourings
    model.safetensors checkpoints/   weights; the state to resume from
    status.json                      written last; the only file that says whether the run has ended
DIR/heads/<task>/seed-<n>-<fingerprint>/   a head trained on the frozen encoder, from which the arms start
DIR/results.json DIR/report.html     made from all of the above
DIR/.lock                            held while a process works on the folder, see `locks`; each run also has one
DIR/.slurm/                          input and output of Slurm jobs

Readers raise `RunError` if a file is missing or of another version, and `DamagedError` if it is damaged.
"""

import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from knowhue.config import Config, NonNegativeInt, Section, fingerprint
from knowhue.errors import ConfigError, DamagedError, RunError, did_you_mean, few, quoted
from knowhue.setting_effects import dotted
from knowhue.storage import RUN_FILES, expand_user, file_digest, from_json, read_json, replacing, write_json

FROZEN = "study.json"
_STUDY_START = re.compile(rb'(\xef\xbb\xbf)?\s*{\s*"schema"\s*:\s*{\s*"name"\s*:\s*"knowhue-study"')
"""The start of `study.json`, with any white space; `schema` is written first."""
STUDY_SCHEMA: dict[str, Any] = {"schema": {"name": "knowhue-study", "version": 4}}
_RESTORE_PLAN = "A study's plan is never changed: restore the file, or begin a study in another folder."
RUN_SCHEMA: dict[str, Any] = {"schema": {"name": "knowhue-run", "version": 4}}
"""The schemas of `study.json` and `config.json`; files with another schema are refused."""

ENDED = ("finished", "diverged")
"""States of runs that are not continued."""
OTHER_SETTINGS = "other settings"  # state of a run that was moved or copied into the folder of another run

Report = Callable[[dict[str, Any]], None]
"""Callback for progress events, small dicts that `apps` display."""
ShareOut = Callable[[Sequence[Callable[[int | None], object]], Callable[[], None]], None]
"""Runs independent pieces of work, possibly in other processes or on other machines. Each is called with the number of
threads that it can use, or None. The second argument is called every few seconds meanwhile."""


class Start(Section):
    """The trained model that a run started from."""

    model: str
    """the name given in `encoder.weights`"""
    sha256: str
    """hash of its encoder, heads and classes"""
    licence: str = ""
    """licence of its weights; empty if it states none"""
    colour: bool = False
    """whether the run's colour head started from it"""
    classes: tuple[str, ...] = ()
    """the run's classes that it knew; the others were initialised as usual"""
    new_classes: NonNegativeInt = 0
    """number of the run's classes that it did not know"""

    def sentence(self) -> str:
        """What the run took from the model, as a sentence.

        >>> Start(model="built-in", sha256="0123456789abcdef", classes=("cat", "dog"), new_classes=1).sentence()
        'Started from `built-in` (SHA-256 0123456789ab): its encoder and, of its class head, cat, dog; 1 class is new.'
        """
        known = f" and, of its class head, {few(self.classes)}" if self.classes else ""
        taken = f"its encoder{', its colour head' if self.colour else ''}{known}"
        new = ""
        if self.new_classes:
            new = f"; {self.new_classes} class{'es are' if self.new_classes > 1 else ' is'} new"
        return f"Started from `{self.model}` (SHA-256 {self.sha256[:12]}): {taken}{new}."


_ADDED_LATER = {("colour", "logit_adjustment"): 0.0}
"""Settings that are newer than some sealed studies (`studies/`), and the values that match the behaviour before."""


_NOT_IN_PLAN = ("seed", "arms", "evaluation.", "training.cache_gib")
"""Settings that do not have to match the plan, see `_place_in_plan`."""


def settings_of(config: Config) -> dict[str, Any]:
    """All settings but `training.cache_gib`, which has no effect on results."""
    return config.model_dump(mode="json", exclude={"training": {"cache_gib"}})


def hashed_settings(config: Config) -> dict[str, Any]:
    """The settings that go into the names of runs and the hashes of plans.

    A setting that was added after studies were sealed is left out at the value that matches the earlier behaviour, so
    that their hashes stay valid.
    """
    values = settings_of(config)
    for (section, name), before in _ADDED_LATER.items():
        if values[section][name] == before:
            del values[section][name]
    return values


def training_settings(config: Config) -> dict[str, Any]:
    """The settings that determine the weights of a run: all, including defaults, but those of the evaluation."""
    settings = hashed_settings(config).items()
    return {name: value for name, value in settings if name not in ("arms", "evaluation")}


def run_folder(root: Path, arm: str, config: Config) -> Path:
    """The folder, below the study folder `root`, of the run of `config` as `arm`.

    Its name contains a fingerprint of the settings that determine the weights, without those of the evaluation. The
    precision of `config` must be resolved, not `auto`: see `training.engine.resolve_precision`.
    """
    return root / arm / f"seed-{config.seed}-{fingerprint(training_settings(config))}"


BUILT_IN = "built-in"
BUILT_IN_FILE = Path(__file__).parent / "inference" / "built_in.safetensors"
UNKNOWN = "unknown"  # the answer of a model that is sure of no class; no class can have this name
WEIGHTS = "model.safetensors"  # all weights that a run has trained, by part of the model
DEPLOYED = "colorizer.safetensors"
"""The model that `training.deploy` writes into the folder of a finished run."""


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that was created for work that wrote nothing."""
    with suppress(OSError):  # it is not empty, or does not exist
        folder.rmdir()


def require_no_run(folder: Path) -> None:
    """Raise `ConfigError` if a folder holds a run or a study, because its files must not be changed."""
    found = [name for name in RUN_FILES if (folder / name).exists()]
    if found:
        raise ConfigError(f"{folder} holds a run or a study ({found[0]}); name another folder")


def images_in_use(root: Path) -> set[str]:
    """Fingerprints of the prepared images that the runs in a study folder were trained on."""
    runs = (*root.glob("*/seed-*/environment.json"), *root.glob("heads/*/seed-*/environment.json"))
    return {read_json(path).get("images", "") for path in runs}


NOTHING_THERE = "nothing there. Is the path right?"
_ARCHIVE = " It is an archive: unpack it, and name the folder."
_TAR_SUFFIXES = (".tar", ".tgz", ".gz", ".bz2", ".xz")


def path_hint(path: Path) -> str:
    """The end of a message that refuses a path: which command accepts such a file, if known."""
    suffix = path.suffix.lower()
    if suffix in (".safetensors", ".onnx") and path.is_file():
        return f" It is a model: `knowhue models {quoted(path)}` describes it, and --model takes it."
    if suffix in ("", ".zip") and path.is_file():
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if FROZEN not in archive.namelist():
                return _ARCHIVE
            return f" It is a sealed study: `knowhue check {quoted(path)}` prints its answers."
    if suffix in _TAR_SUFFIXES and path.is_file():
        with suppress(OSError, EOFError, zlib.error):  # a truncated file
            return _ARCHIVE if tarfile.is_tarfile(path) else ""
    return ""


def read_frozen(root: Path) -> dict[str, Any]:
    """`study.json` of a study folder: the frozen plan, its hash and its origin."""
    if not (root / FROZEN).exists():
        single = any(root.glob("*/seed-*/config.json"))
        hint = " It holds single runs: see them with `knowhue evaluate`." if single else path_hint(root)
        found = f"no {FROZEN} there.{hint}" if os.path.lexists(root) else NOTHING_THERE
        text = f"`{root}` should be the folder of a study, as `knowhue study --out` makes it."
        raise RunError(f"{text} Found {found}")
    return read_study_file(root / FROZEN)


def read_study_file(path: Path) -> dict[str, Any]:
    """The content of a `study.json`, whatever the file is called; `RunError` if it is damaged or of another version."""
    try:
        frozen = read_json(path)
    except DamagedError as error:
        raise DamagedError(path, error.found, _RESTORE_PLAN) from None
    require_schema(frozen, STUDY_SCHEMA, path)
    return frozen


def is_study_file(path: Path) -> bool:
    """Whether a file starts like a `study.json` of any version, even if it is damaged."""
    if not path.is_file():  # a pipe can be read only once
        return False
    start = b""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(4096)
    return _STUDY_START.match(start) is not None or (path.name == FROZEN and not start.strip())


def require_schema(found: Mapping[str, Any], schema: Mapping[str, Any], path: Path) -> None:
    """Raise `RunError` if a file has no `schema`, or that of another version."""
    if any(found.get(key) != value for key, value in schema.items()):
        raise RunError(f"{path}: written by another version of knowhue. Name another folder and train again.")


def write_config(folder: Path, config: Config) -> None:
    write_json(folder / "config.json", {**RUN_SCHEMA, **config.model_dump(mode="json")})


def read_config(folder: Path) -> Config:
    """The settings of a run; `RunError` if they are damaged or of another version."""
    path = folder / "config.json"
    values = read_json(path)
    require_schema(values, RUN_SCHEMA, path)
    own = {name: value for name, value in values.items() if name not in RUN_SCHEMA}
    try:
        return Config.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(f"{path}: damaged at `{place}`: {first['msg']}. Train the run again.") from None


def has_matching_name(folder: Path) -> bool:
    """Whether a run folder's name matches its settings; users move, copy and exchange folders."""
    if not (folder / "config.json").exists():  # the run has not started
        return True
    return run_folder(folder.parent.parent, folder.parent.name, read_config(folder)) == folder


def read_start(folder: Path) -> Start | None:
    """The trained model that a run started from; None if it started from an encoder alone, or has not started."""
    path = folder / "environment.json"
    found = read_json(path).get("start") if path.exists() else None
    return found and Start.model_validate(found)


def write_status(folder: Path, status: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Write `status.json`, the last file of a run, with the checksums of the other files except `but`."""
    # the deployed model is made after the run has ended, and hidden files are locks
    left_out = {"status.json", DEPLOYED, *but}
    files = [path for path in sorted(folder.glob("[!.]*")) if path.is_file() and path.name not in left_out]
    content = {path.name: file_digest(path) for path in files}
    write_json(folder / "status.json", {**status, "content": content})


def read_status(folder: Path) -> dict[str, Any]:
    """The progress of a run: `state`, and once it has ended `seconds`; empty if it has not started."""
    path = folder / "status.json"
    status = read_json(path) if path.exists() else {}
    return {name: value for name, value in status.items() if name != "content"}


def run_state(folder: Path) -> str:
    """`missing`, `running` (also if interrupted), one of `ENDED`, or `OTHER_SETTINGS` if it is in a wrong folder."""
    state = read_status(folder).get("state", "missing")
    return OTHER_SETTINGS if state in ENDED and not has_matching_name(folder) else state


def has_ended(folder: Path) -> bool:
    """Whether a run has finished or diverged; a diverged run is not repeated, and the report names it."""
    return read_status(folder).get("state") in ENDED


def has_finished(folder: Path) -> bool:
    """Whether a run has finished without divergence, so that its model can be used."""
    return read_status(folder).get("state") == "finished"


def damaged_files(folder: Path, names: Collection[str] = ()) -> list[Path]:
    """The files of an ended run, all or those in `names`, that are missing or have changed since it ended."""
    path = folder / "status.json"
    content = read_json(path).get("content", {}) if has_ended(folder) else {}
    known = {folder / name: each for name, each in content.items() if not names or name in names}
    return [path for path, each in known.items() if not path.is_file() or file_digest(path) != each]


def require_intact(folder: Path, names: Collection[str] = (), but: Collection[str] = ()) -> None:
    """Raise `DamagedError` if a file of an ended run, or one of `names`, is missing or has changed, except `but`."""
    for path in damaged_files(folder, names):
        if path.name not in but:
            raise DamagedError(path, "it is missing, or not as it was written")


def named_path(path: Path) -> Path:
    """A path to the same folder with the names of the folder and its parent, because they name a run and its arm.

    >>> named_path(Path("runs/demo/multi/seed-0-1a2b3c4d"))
    PosixPath('runs/demo/multi/seed-0-1a2b3c4d')
    >>> named_path(Path("seed-0-1a2b3c4d")).is_absolute(), named_path(Path("..")).is_absolute()
    (True, True)
    """
    is_named = len(path.parts) > 1 and ".." not in path.parts[-2:]
    # not resolved, because the target of a link can have other names
    return path if is_named else Path(os.path.abspath(path))


def finished_run(path: Path) -> Path:
    """The run folder that a path stands for: itself, or a study's first finished multi-task run, else colour run.

    Runs of the study's plan come first, ordered by seed; others were trained in addition. Diverged runs are skipped,
    because their weights are useless.
    """
    require_no_head(path)
    if (path / "config.json").exists() and has_finished(path):
        return named_path(path)
    runs = [run for arm in ("multi", "colour") for run in sorted(path.glob(f"{arm}/seed-*"))]
    if found := [run for run in runs if has_finished(run)]:
        of_arm = [run for run in found if run.parent == found[0].parent]
        frozen = read_json(path / FROZEN) if (path / FROZEN).exists() else {}
        return min(of_arm, key=lambda run: _place_in_plan(run, frozen)) if len(of_arm) > 1 else found[0]
    raise no_finished_run_error(path, "run or study, one with `multi` or `colour`")


def _place_in_plan(run: Path, frozen: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Sort key for the runs of an arm: those of the study's plan first, then by seed."""
    found = dict(dotted(read_json(run / "config.json")))
    edits = frozen.get("arms", {}).get(run.parent.name, {})
    planned = {**dict(dotted(frozen.get("config", {}))), **dict(dotted(edits))}
    names = [name for name in planned if not name.startswith(_NOT_IN_PLAN)]
    has_settings = all(found.get(name) == planned[name] for name in names)
    is_planned = has_settings and found.get("seed") in frozen.get("seeds", ())
    return not is_planned, found.get("seed", 0), run.name


def require_no_head(path: Path) -> None:
    """Raise `RunError` for a head or a folder of heads, whose layout in a study is like that of runs and arms."""
    for run in (path, *sorted(path.glob("seed-*")), *sorted(path.glob("*/seed-*"))):
        heads = run.absolute().parent.parent
        # the folder of a study, or of several studies, can also be called `heads`
        if heads.name == "heads" and (run / "config.json").exists() and not (heads / "images").exists():
            raise RunError(f"`{run}` is only a head, not a model. Name a run of an arm in `{heads.parent}`.")


def no_finished_run_error(path: Path, wanted: str) -> RunError:
    """The error for a folder without a suitable finished run, with the runs that it does contain."""
    inside = [named_path(run) for pattern in ("seed-*", "*/seed-*") for run in sorted(path.glob(pattern))]
    firsts = {run.parent.name: run for run in reversed(inside) if has_finished(run)}
    tasks = {arm: read_config(firsts[arm]).tasks.names for arm in sorted(firsts)}
    ended = {run.parent.name for run in (named_path(path), *inside) if has_ended(run)}
    diverged = sorted(ended - firsts.keys())
    found, hint = "no finished run there", path_hint(path) or " Train one with `knowhue study`."
    if tasks:
        arms = few([f"{arm} (learns {' and '.join(names)})" for arm, names in tasks.items()])
        colouring = [arm for arm, names in tasks.items() if "colour" in names]
        found, hint = f"finished runs only of {arms}", f" Name one, such as {firsts[[*colouring, *tasks][0]]}"
        hint += ", which classifies and does not colour" * (not colouring)
    if diverged:
        again = "train with other settings, such as a lower learning rate"
        hint = f" Training of {' and '.join(diverged)} diverged; {again}.{hint * bool(tasks)}"
    ending = f"{found}.{hint}" if os.path.lexists(path) else NOTHING_THERE
    return RunError(f"`{path}` should be the folder of a finished {wanted}. Found {ending}")


def model_file(name: str) -> Path:
    """The weights of a trained model: a file, `built-in`, or those of a run, a study or an exported folder."""
    if name == BUILT_IN:
        return BUILT_IN_FILE
    path = expand_user(name)
    if is_hub_folder(path):
        return path / WEIGHTS
    if path.is_dir():
        return finished_run(path) / WEIGHTS
    if (path.parent / "status.json").exists():
        return finished_run(path.parent) / path.name
    elif not path.is_file():
        raise RunError(
            f"A trained model should be `{BUILT_IN}`, the folder of a finished run or study, or a file. Found no file "
            f"`{name}`."
            f"{did_you_mean(name, [BUILT_IN])}"
        )
    return path


def is_hub_folder(path: Path) -> bool:
    """Whether `knowhue export --to hub-folder` made a folder, which has no status, unlike a run folder."""
    return (path / WEIGHTS).exists() and not (path / "status.json").exists()


def read_log(folder: Path, phase: str | None = None) -> list[dict[str, Any]]:
    """The log entries of a run, or of one of its phases, by epoch; `DamagedError` if the log is damaged."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    try:
        entries = [from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [entry for entry in entries if phase in (None, entry["phase"])]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(path, f"no log: {error}") from None


def write_log(folder: Path, epochs: list[dict[str, Any]]) -> None:
    # rewritten each epoch instead of appended to: the file is small, and no line can be incomplete
    with replacing(folder / "log.jsonl") as file:
        file.writelines(json.dumps(epoch, allow_nan=False) + "\n" for epoch in epochs)
