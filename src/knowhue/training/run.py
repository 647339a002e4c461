"""One run from its settings to its folder: train the heads on the frozen encoder, fine-tune everything, score."""

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from knowhue import runs
from knowhue.arguments import checked_arguments
from knowhue.config import Config, Task, fingerprint
from knowhue.data.listing import images_first
from knowhue.data.loaders import find_targets, plain_batches
from knowhue.data.prepare import Prepared, load_prepared, prepare
from knowhue.data.sources import require_apart, require_source
from knowhue.errors import ConfigError, RunError, should_be
from knowhue.evaluation.evaluate import Scored
from knowhue.locks import locked, require_no_jobs
from knowhue.models.colour_classes import ColourClasses, centres, count_bins
from knowhue.models.encoder import weights_digest
from knowhue.models.multitask import MultiTask, build_model
from knowhue.models.pix2pix import PatchGAN
from knowhue.objectives.weighting import make_weighting
from knowhue.plan import head_folders
from knowhue.presets import arm_config, edit, head_config, head_tasks
from knowhue.storage import read_json, require_writable_folder, write_json
from knowhue.training import golden, scores
from knowhue.training.checkpoint import save_weights
from knowhue.training.engine import Engine, Workspace
from knowhue.training.feature_cache import cache_bytes, cache_features
from knowhue.training.loop import Diverged, LogEntry, run_phase, validate
from knowhue.training.phases import Networks, PhaseName, build_networks, phase_of
from knowhue.training.start import require_fit, start_of

_AVERAGED_PX = 4  # side, in pixels, of the squares over which `count_colours` averages


@checked_arguments
def train(config: Config, root: str | Path, arm: str = "multi", report: runs.Report = lambda _: None) -> Path:
    """Prepare the images, train one arm with one seed, and score it.

    The same call continues an interrupted run, and does not repeat a finished one.

    Args:
        config: the settings; `tasks` is set by the arm.
        root: the study folder; runs in it share images, features and heads.
        arm: a key of `presets.ARMS`; also the name of the run's folder below `root`.
        report: called with progress, one small dict at a time.

    Returns:
        The run folder.

    Raises:
        KnowhueError: settings, images, weights or folder cannot be used; the message says how to fix this.
    """
    config, root = arm_config(config, arm), Path(root)
    with locked(root, "train") as left:
        require_no_jobs(left, root)
        engine = Engine(config.training)
        # resolved first, because with `auto` runs of two precisions would have the same folder
        config = edit(config, {"training": {"precision": engine.precision}})
        work = open_workspace(config, root, report, engine=engine)
        golden.restart_mixed_block_of(work, arm, config, golden.golden_step(engine))
        return run_arm(work, config, arm)


def open_workspace(
    config: Config,
    root: Path,
    report: runs.Report,
    configs: Sequence[Config] = (),
    engine: Engine | None = None,
    share_out: runs.ShareOut | None = None,
) -> Workspace:
    """Start the engine (unless given), check settings and weights, and prepare the images.

    `configs` are the settings of all runs that will share the workspace, by default only `config`. `share_out`
    distributes images that are not prepared yet; by default this process reads them. Raises a `KnowhueError`.
    """
    report({"stage": "open"})
    engine = engine or Engine(config.training)
    require_apart(config.images, root)
    if engine.is_main:
        require_source(config.images)
    encoders: dict[str, str] = {}
    for each in configs or (config,):  # check names and weights before reading images
        _require_consistent(each)
        require_fit(each)
        make_weighting(each.tasks)
        with images_first(config.images):
            model = build_model(each, classes=2)  # any number, because the classes are not known yet
        if each.has_encoder:
            encoders |= _digest_of_start(each, model)
    prepared = None
    if engine.is_main:
        require_writable_folder(root)
        prepared = prepare(config.images, root / "images", report, share_out=share_out)
    engine.wait()
    prepared = prepared or load_prepared(root / "images", thorough=False)
    prepared = replace(prepared, evaluated_on=config.evaluation.split)
    work = Workspace(root, engine, prepared, report, encoders)
    _report_starts(work, configs or (config,))
    return work


def _digest_of_start(config: Config, model: MultiTask) -> dict[str, str]:
    """Digest of the weights that a run starts from, by a readable name, for the hash of a study."""
    encoder, start = config.encoder, start_of(config, ())
    name = f"{encoder.name} {encoder.weights}"
    if start is not None:
        return {f"{name} with its heads": start.sha256}
    # the text is part of studies' hashes
    return {name: "drawn from each seed" if encoder.weights == "none" else weights_digest(model.encoder)}


def _report_starts(work: Workspace, configs: Sequence[Config]) -> None:
    """Report what the runs take from trained models, once per model, for the arm with the most tasks."""
    by_tasks = sorted(configs, key=lambda each: len(each.tasks.names))
    starts = (start_of(each, work.prepared.classes) for each in by_tasks)
    for start in {each.model: each for each in starts if each is not None}.values():
        work.report({"stage": "note", "text": start.sentence()})


def run_arm(work: Workspace, config: Config, arm: str) -> Path:
    """Train one arm from the heads of its seed, which are trained first if they do not exist; return its folder."""
    folder = runs.run_folder(work.root, arm, config)
    if _is_done(work, config, folder, final=True):
        return folder
    heads = [run_head(work, config, task, arm) for task in head_tasks(config)]
    _announce(work, config, arm, "finetune")
    networks = make_networks(work, config, *heads)
    arithmetic = {"precision": work.engine.precision, "golden_step": golden.golden_step(work.engine)}
    now = _start_digests(networks, start_of(config, ())) | arithmetic if heads else {}
    for head in heads:
        _require_same_start(head, now)
    return _run(work, config, folder, networks, "finetune", heads)


def run_head(work: Workspace, config: Config, task: Task, arm: str) -> Path:
    """Train the head of one task on the frozen encoder, unless it exists, and return its folder.

    While the encoder is frozen, the heads share no trained weights, so a multi-task model's heads equal those of the
    single tasks bit for bit. They are therefore trained once per seed and used by all its arms. `head_config` resets
    settings that do not affect the head, so that all arms find the same folder. `arm` is only for progress.
    """
    config = head_config(config, task)
    folder = runs.run_folder(work.root / "heads", task, config)
    if _is_done(work, config, folder, final=False):
        return folder
    _announce(work, config, arm, "heads")
    networks = _with_cached_features(work, config, make_networks(work, config))
    return _run(work, config, folder, networks, "heads", [])


@checked_arguments
def evaluate_run(folder: str | Path, report: runs.Report = lambda _: None) -> Scored:
    """Score a finished run again, on its study's reporting split, and replace its scores.

    Raises:
        RunError: `folder` is not the folder of a finished run, or another process works on its study.
    """
    folder = Path(folder)
    runs.require_no_head(folder)
    if not runs.has_ended(folder):
        raise runs.no_finished_run_error(folder, "run, such as runs/demo/multi/seed-0-1a2b3c4d")
    folder = runs.named_path(folder)
    config, root = runs.read_config(folder), folder.parent.parent
    with locked(root, "evaluate") as left:
        require_no_jobs(left, root)
        prepared = load_prepared(root / "images", config.evaluation.split)
        work = Workspace(root, Engine(config.training), prepared, report)
        _require_same_images(work, folder)
        runs.require_intact(folder, but=scores.OUTCOME)
        return _score_again(work, config, folder, final=True)


def load_run(work: Workspace, config: Config, folder: Path) -> MultiTask:
    """Load the trained model of a run, in evaluation mode; `RunError` if it is damaged or the images have changed."""
    _require_same_images(work, folder)
    runs.require_intact(folder)
    return make_networks(work, _without_start(config), folder).model.eval()


def warm_features(work: Workspace, configs: Iterable[Config]) -> None:
    """Compute the frozen encoder's features for all heads of these runs, before several processes need them."""
    heads = [head_config(config, task) for config in configs for task in head_tasks(config)]
    for config in {fingerprint(head): head for head in heads}.values():
        _with_cached_features(work, config, make_networks(work, config))


def _with_cached_features(work: Workspace, config: Config, networks: Networks) -> Networks:
    """Add cached features, unless no epoch reads them or they exceed `training.cache_gib`, which is reported."""
    if not config.training.heads.epochs:
        return networks
    positions = np.arange(len(work.prepared.rgb))
    if not config.supervision.resample:  # all images that heads are trained on, with any seed, or scored on
        positions = np.union1d(trained_on(work, config), np.flatnonzero(work.prepared.split != "train"))
    needed = cache_bytes(networks.model, work, len(positions)) / 2**30
    if needed > config.training.cache_gib:
        text = f"features would take {needed:.1f} GiB, more than training.cache_gib: computed again in each epoch"
        work.report({"stage": "note", "text": text})
        return networks
    cache = cache_features(networks.model, work, positions, golden.golden_step(work.engine))
    return replace(networks, features=cache)


def _is_done(work: Workspace, config: Config, folder: Path, final: bool) -> bool:
    """Whether a run needs no training; an ended run is scored again first, if necessary.

    Damaged scores are restored by scoring the weights again; if weights or log are damaged, the run is trained again,
    with the same result. A run scored on another split or by other settings is scored as `config` says.
    """
    _require_same_images(work, folder)
    settings = config.evaluation if final else None
    is_trained, damaged, difference = work.engine.on_main(
        lambda: scores.inspect_scores(folder, work.prepared.reporting_split, settings)
    )
    if not damaged:
        # also rejects a run of another version, instead of continuing it
        if not runs.has_matching_name(folder):
            raise RunError(f"`{folder}` holds another run than it is named after. Remove it.")
        if is_trained and work.engine.is_main:  # in case the run was killed before it removed them
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if difference:
            work.report({"stage": "note", "text": f"{folder}: scored {difference}, so it is scored again"})
            _score_with_new_settings(work, config, folder, final)
        return is_trained
    action = "scored" if is_trained else "trained"
    text = f"{folder}: {', '.join(damaged)} damaged or missing, so it is {action} again"
    work.report({"stage": "note", "text": text})
    if is_trained:
        _score_again(work, config, folder, final)
    elif work.engine.is_main:
        # without a status, the run counts as not started and is trained
        (folder / "status.json").unlink(missing_ok=True)
    work.engine.wait()
    return is_trained


def _score_with_new_settings(work: Workspace, config: Config, folder: Path, final: bool) -> None:
    """Score an ended run by the evaluation settings of `config`, and save these as its settings."""
    for head in head_folders(work.root, config) if final else ():  # the run's scores quote its heads'
        if runs.has_ended(head):
            _is_done(work, runs.read_config(head), head, final=False)
    _score_again(work, config, folder, final)
    if work.engine.is_main:
        # its model card quotes the scores; `deploy` writes it again
        (folder / runs.DEPLOYED).unlink(missing_ok=True)
        # first a status without the checksum of config.json, or a crash here would leave it damaged
        runs.write_status(folder, runs.read_status(folder), but={"config.json"})
        runs.write_config(folder, config)
        runs.write_status(folder, runs.read_status(folder))
    work.engine.wait()


def _score_again(work: Workspace, config: Config, folder: Path, final: bool) -> Scored:
    """Score the weights of an ended run again, and put the new files' checksums into its status."""
    networks = make_networks(work, _without_start(config) if final else config, folder)
    networks = networks if final else _with_cached_features(work, config, networks)
    scored = _score(work, config, folder, networks, final)
    if work.engine.is_main:
        runs.write_status(folder, runs.read_status(folder))
    return scored


def _require_same_images(work: Workspace, folder: Path) -> None:
    try:
        recorded = read_json(folder / "environment.json").get("images")
    except RunError:
        return  # not started, or damaged, which is checked elsewhere
    if recorded != work.prepared.fingerprint:
        raise RunError(f"`{folder}` was trained on other images. Restore them, or name another folder.")


def _start_digests(networks: Networks, start: runs.Start | None) -> dict[str, Any]:
    """Digests of the untrained encoder, and of the trained model that heads start from, if any."""
    return {"encoder_weights": weights_digest(networks.model.encoder), "start": start and start.sha256}


def _require_same_start(folder: Path, current: Mapping[str, Any]) -> None:
    """Check that a run or head in `folder` began with the same weights, precision and golden step as `current`."""
    environment = read_json(folder / "environment.json")
    recorded = {**environment, "start": (environment.get("start") or {}).get("sha256")}
    changed = [f"{key} {recorded[key]}, now {new}" for key, new in current.items() if recorded[key] != new]
    if changed:
        raise RunError(
            f"`{folder}` was trained with {', '.join(changed)}. Restore it or name another folder."
        )


def trained_on(work: Workspace, config: Config) -> NDArray[np.int64]:
    return find_targets(work.prepared, config.supervision, config.seed).train


def _without_start(config: Config) -> Config:
    """Settings for loading a run whose file holds the encoder; the weights it started from may no longer exist."""
    return edit(config, {"encoder": {"weights": "none", "with_heads": False}})


def make_networks(work: Workspace, config: Config, *trained: Path) -> Networks:
    """Build the networks of a run, and load the weights of the runs in the folders `trained`.

    A head that classifies colours also gets the colours' frequencies in its training images.
    """
    networks = build_networks(work.engine, config, work.prepared.classes)
    if isinstance(networks.model.colour, ColourClasses):
        networks.model.colour.learn_prior(count_colours(work.prepared, trained_on(work, config)))
    for folder in trained:
        networks.load(load_file(folder / runs.WEIGHTS))  # the caller has checked its checksum
    return networks


def count_colours(prepared: Prepared, positions: NDArray[np.int64], batch_size: int = 64) -> Tensor:
    """Histogram (313,) of the nearest of the 313 colours in some images; the same on every process.

    Chroma is first averaged over squares of `_AVERAGED_PX`, as the head does with its targets.
    """
    counts = torch.zeros(len(centres()))
    for batch in plain_batches(prepared, positions, batch_size, torch.device("cpu")):
        counts += count_bins(avg_pool2d(batch.chroma, _AVERAGED_PX))
    return counts


def _announce(work: Workspace, config: Config, arm: str, phase: PhaseName) -> None:
    event = {"arm": arm, "seed": config.seed, "phase": phase, "tasks": config.tasks.names}
    work.report({"stage": "run", **event, "epochs": phase_of(config, phase).epochs})


def _run(
    work: Workspace, config: Config, folder: Path, networks: Networks, phase: PhaseName, heads: list[Path]
) -> Path:
    """Train a phase, score, and write all files of the run, the status last."""
    step = golden.golden_step(work.engine)  # on all processes, because it gathers from them
    start = start_of(config, work.prepared.classes)
    digests = _start_digests(networks, start)
    if (folder / "checkpoints").is_dir():
        _require_same_start(folder, digests)
    work.engine.wait()  # until all processes have read the folder, before one of them writes
    if work.engine.is_main:
        runs.write_config(folder, config)
        digests |= {"images": work.prepared.fingerprint, "golden_step": step}
        digests["start"] = start and start.model_dump(mode="json")
        write_json(folder / "environment.json", work.engine.environment() | digests)
        runs.write_status(folder, {"state": "running"})
    state, final = {"state": "finished"}, phase == "finetune"
    try:
        log = run_phase(work, config, folder, networks, phase)
    except Diverged as error:
        # still scored and saved, because the report lists diverged runs
        log, state = error.log, {"state": "diverged", "reason": str(error)}
    started = time.perf_counter()
    _score(work, config, folder, networks, final)
    if work.engine.is_main:
        save_weights(folder / runs.WEIGHTS, networks.weights(with_encoder=final))
        logs = [runs.read_log(head) for head in heads]
        runs.write_log(folder, _join(logs) + log)
        seconds = {"heads": sum(map(_seconds, logs))} if heads else {}
        seconds |= {phase: _seconds(log), "evaluate": round(time.perf_counter() - started, 2)}
        # last, because it holds the checksums of all other files
        runs.write_status(folder, {**state, "seconds": seconds})
        # after the status, so that an interruption before this leaves a complete run
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    work.engine.wait()
    return folder


def _score(work: Workspace, config: Config, folder: Path, networks: Networks, final: bool) -> Scored:
    """Score a model on the reporting split, and write the files of `scores.OUTCOME`."""
    work.report({"stage": "evaluate"})
    step = golden.golden_step(work.engine)
    scored = validate(work, config, networks, full=final, split=work.prepared.reporting_split)
    if work.engine.is_main:
        set_scores = scores.measure_set(work, config.evaluation, scored.features)
        after_heads = _after_heads(work.root, config) if final else {}
        scores.write_scores(folder, work.prepared, scored, {**set_scores, **after_heads, "golden_step": step})
        scores.write_samples(work, folder, networks.model)
        scores.write_extremes(work, folder, networks.model, scored.rows)
    return scored


def _after_heads(root: Path, config: Config) -> dict[str, Any]:
    """Scores of a run's heads on the frozen encoder, before fine-tuning."""
    metrics: dict[str, Any] = {}
    for folder in head_folders(root, config):
        path = folder / "scores.json"
        metrics |= read_json(path).get("metrics", {}) if path.exists() else {}
    return {"after_heads": metrics} if metrics else {}


def _seconds(log: Sequence[LogEntry]) -> float:
    return round(sum(entry["seconds"] for entry in log), 2)


def _join(logs: Sequence[Sequence[LogEntry]]) -> list[LogEntry]:
    """Merge the logs of the heads epoch by epoch."""

    def merge(a: LogEntry, b: LogEntry) -> LogEntry:
        merged = {name: a[name] | b[name] for name in ("train", "validation")}
        merged |= {name: round(a[name] + b[name], 3) for name in ("seconds", "train_seconds")}
        return a | merged | {"warnings": a["warnings"] + b["warnings"]}

    return [reduce(merge, entries) for entries in zip(*logs, strict=False)]


def _require_consistent(config: Config) -> None:
    training, colour, size = config.training, config.colour, config.images.size_px
    if training.shift_px >= size:
        raise ConfigError(should_be("training.shift_px", f"below the images' {size}", training.shift_px))
    if colour.method == "pix2pix" and size < PatchGAN.SMALLEST_PX:
        wanted = f"{PatchGAN.SMALLEST_PX} or more for `colour.method = pix2pix`"
        raise ConfigError(should_be("images.size_px", wanted, size))
    layers = colour.discriminator_layers
    if config.has_encoder and colour.is_adversarial and size >> layers < 2:
        raise ConfigError(
            f"`colour.discriminator_layers` should give at least 2 patches in {size} pixels. Found {layers}, with "
            f"patches of {3 * 2 ** (layers + 1) - 2} pixels."
        )
