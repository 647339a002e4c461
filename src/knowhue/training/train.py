"""One run from its settings to its folder: heads on the frozen encoder, fork, fine-tune, scores."""

import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Config, Task, fingerprint
from knowhue.data.loaders import find_targets
from knowhue.data.prepare import load_prepared, prepare
from knowhue.data.sources import require_apart
from knowhue.errors import ConfigError, DamagedError, RunError
from knowhue.evaluation.evaluate import Scored
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.discriminators import PatchGAN
from knowhue.models.encoder import weights_digest
from knowhue.models.multitask import MultiTask, build_discriminator, build_model
from knowhue.objectives.sharing import open_sharing
from knowhue.presets import arm_config, edit
from knowhue.runs import (
    Report,
    damaged_files,
    has_ended,
    locked,
    read_config,
    read_log,
    read_status,
    require_writable,
    run_folder,
    write_config,
    write_log,
    write_status,
)
from knowhue.storage import read_json, write_json
from knowhue.training import checkpoint, golden
from knowhue.training.blocks import begin_run_anew
from knowhue.training.checkpoint import load_weights
from knowhue.training.colour_prior import count_colours
from knowhue.training.distances import measure_set
from knowhue.training.engine import Engine
from knowhue.training.feature_cache import cache_bytes, cache_features
from knowhue.training.loop import Diverged, Entry, Session, Work, run_phase, validate
from knowhue.training.outcome import OUTCOME, look_through, write_extremes, write_samples, write_scores
from knowhue.training.phases import PhaseName, head_config, head_tasks, phase_of


def train(config: Config, root: Path, arm: str = "multi", report: Report = lambda _: None) -> Path:
    """Prepare the images, train one arm with one seed below `root`, and score it.

    The same command continues an interrupted run and does not repeat a finished one.

    Args:
        config: the settings; `tasks` is set by the arm.
        root: the study folder; runs in it share images, features and heads.
        arm: a key of `presets.ARMS`; also the name of the run's folder below `root`.
        report: told about progress, one small dict at a time.

    Returns:
        The run folder.

    Raises:
        KnowhueError: settings, images, weights or folder do not serve; the message says how to mend it.
    """
    config = arm_config(config, arm)
    with locked(root, "train"):
        engine = Engine(config.training)
        config = edit(config, {"training": {"precision": engine.precision}})
        work = open_work(config, root, report, engine=engine)
        begin_run_anew(work, arm, config, golden.golden_step(engine))
        return run_arm(work, config, arm)


def open_work(
    config: Config, root: Path, report: Report, runs: Sequence[Config] = (), engine: Engine | None = None
) -> Work:
    """Start the engine and prepare the images, on one process for all.

    Args:
        config: the settings that all runs share.
        root: the study folder.
        report: told about progress.
        runs: the settings of the different runs to come, if they are not `config`'s.
        engine: the one to work on, if it was started before.

    Raises:
        KnowhueError: settings, images, weights or folder do not serve; the message says how to mend it.
    """
    engine = engine or Engine(config.training)
    require_apart(config.images, root)
    encoders: dict[str, str] = {}
    for each in runs or (config,):  # names and weights are tried before any image is read
        _refuse_contradictions(each)
        open_sharing(each.tasks)
        model = build_model(each, classes=2)
        if each.has_encoder:
            drawn = each.encoder.weights == "none"
            name = f"{each.encoder.name} {each.encoder.weights}"
            encoders[name] = "drawn from each seed" if drawn else weights_digest(model.encoder)
    if engine.is_main:
        require_writable(root)
        prepare(config.images, root / "images", report)  # reads the array once through
    engine.wait()
    prepared = load_prepared(root / "images", config.evaluation.split, thorough=False)
    return Work(root, engine, prepared, report, encoders)


def run_arm(work: Work, config: Config, arm: str) -> Path:
    """Train one arm from the heads of its seed, which are trained first if they are not there yet."""
    folder = run_folder(work.root, arm, config)
    if _is_done(work, config, folder, final=True):
        return folder
    heads = {task: run_head(work, config, task) for task in head_tasks(config)}
    work.report(
        {
            "stage": "run",
            "arm": arm,
            "seed": config.seed,
            "phase": "finetune",
            "epochs": phase_of(config, "finetune").epochs,
        }
    )
    session = _session(work, config)
    for head in heads.values():
        _require_same_encoder(work, session, head)
        _load(session, head)
    return _run(work, config, folder, session, "finetune", list(heads.values()))


def evaluate_run(folder: Path, report: Report = lambda _: None) -> Scored:
    """Score a trained run again, on its study's reporting split, and write its scores anew.

    Raises:
        RunError: `folder` is no run folder of a finished run, or another process works on its study.
    """
    if not has_ended(folder):
        raise RunError(
            f"`{folder}` should be the folder of a finished run, such as runs/demo/multi/seed-0-1a2b3c4d. "
            "Found no finished one there. Train it with `knowhue study` or `knowhue train`."
        )
    config = read_config(folder)
    root = folder.parent.parent
    with locked(root, "evaluate"):
        prepared = load_prepared(root / "images", config.evaluation.split)
        work = Work(root, Engine(config.training), prepared, report)
        _require_same_images(work, folder)
        _require_whole(folder, but=OUTCOME)
        session = _session(work, config)
        _load(session, folder)
        scored = _score(work, config, folder, session, final=True)
        if work.engine.is_main:
            write_status(folder, read_status(folder))
    return scored


def load_run(work: Work, config: Config, folder: Path) -> MultiTask:
    """The trained model of a run, ready to predict.

    Raises:
        RunError: the images there now are not those that it was trained on, or it is damaged.
    """
    _require_same_images(work, folder)
    _require_whole(folder)
    session = _session(work, config)
    _load(session, folder)
    return session.model.eval()


def run_head(work: Work, config: Config, task: Task) -> Path:
    """Train the head of one task on the frozen encoder.

    With the encoder frozen the heads share nothing that learns, so a multi-task model's heads are those of the
    single tasks, bit for bit: they are trained once a seed and every arm is forked from them. Settings of
    the other task and of fine-tuning are reset, so that arms that differ only there find the same head.
    """
    own = head_config(config, task)
    folder = run_folder(work.root / "heads", task, own)
    if _is_done(work, own, folder, final=False):
        return folder
    work.report(
        {
            "stage": "run",
            "arm": task,
            "seed": config.seed,
            "phase": "heads",
            "epochs": own.training.heads.epochs,
        }
    )
    session = _with_cached_features(work, own, _session(work, own))
    return _run(work, own, folder, session, "heads", [])


def warm_features(work: Work, configs: Iterable[Config]) -> None:
    """Compute the frozen encoder's features for all heads of these runs, before several processes ask for them."""
    heads = [head_config(config, task) for config in configs for task in head_tasks(config)]
    for config in {fingerprint(head): head for head in heads}.values():
        _with_cached_features(work, config, _session(work, config))


def _with_cached_features(work: Work, config: Config, session: Session) -> Session:
    """The same with cached features, or as it was, said aloud, if they would take too much disk."""
    needed = cache_bytes(session.model, work.prepared, work.engine) / 2**30
    if needed > config.training.cache_gib:
        text = f"features would take {needed:.1f} GiB, over training.cache_gib: recomputed"
        work.report({"stage": "note", "text": text})
        return session
    cache = cache_features(session.model, work.prepared, work.root / "features", work.engine, work.report)
    return Session(session.model, session.discriminator, cache)


def _is_done(work: Work, config: Config, folder: Path, final: bool) -> bool:
    """Whether there is nothing left to do.

    What is damaged of an ended run is made again: by scoring its weights, or where these or its log are damaged, by
    training it anew to the same weights.
    """
    _require_same_images(work, folder)
    (is_trained, damaged), *_ = work.engine.gather(
        [look_through(folder) if work.engine.is_main else (False, [])]
    )
    if not damaged:
        return is_trained
    how = "scored" if is_trained else "trained"
    work.report(
        {"stage": "note", "text": f"{folder}: {', '.join(damaged)} damaged or gone, so it is {how} anew"}
    )
    if is_trained:
        session = _session(work, config)
        _load(session, folder)
        _score(
            work, config, folder, session if final else _with_cached_features(work, config, session), final
        )
        if work.engine.is_main:
            write_status(folder, read_status(folder))
    elif work.engine.is_main:
        (folder / "status.json").unlink(missing_ok=True)
    work.engine.wait()
    return is_trained


def _require_whole(folder: Path, but: Collection[str] = ()) -> None:
    """Refuse to work with a damaged run."""
    damaged = [path for path in damaged_files(folder) if path.name not in but]
    if damaged:
        raise DamagedError(damaged[0], "it is not as it was written, or gone")


def _require_same_images(work: Work, folder: Path) -> None:
    """Refuse a run of other images than are prepared now."""
    try:
        seen = read_json(folder / "environment.json").get("images")
    except RunError:
        return  # it has not begun, or is damaged, which is looked for elsewhere
    if seen != work.prepared.fingerprint:
        raise RunError(
            f"`{folder}` was trained on other images than are there now: some were added, changed or removed. "
            "Name another folder with --out, or bring the old images back."
        )


def _require_same_encoder(work: Work, session: Session, head: Path) -> None:
    """A head and the model that it is put into must have seen the same features."""
    seen = read_json(head / "environment.json")
    now = {
        "encoder_weights": weights_digest(session.model.encoder),
        "precision": work.engine.precision,
        "golden_step": golden.golden_step(work.engine),
    }
    changed = [f"{name} {seen[name]}, now {value}" for name, value in now.items() if seen[name] != value]
    if changed:
        raise RunError(
            f"`{head}` was trained with {'; '.join(changed)}. Its arms could not be compared with the others: "
            "bring the old weights, precision or machine back, or name another folder with --out."
        )


def trained_on(work: Work, config: Config) -> NDArray[np.int64]:
    """Positions of the images that a run is trained on."""
    return find_targets(work.prepared, config.supervision, config.seed).train


def _session(work: Work, config: Config) -> Session:
    model = work.engine.place(build_model(config, len(work.prepared.classes)))
    if isinstance(model.colour, ColourClasses):
        model.colour.learn_prior(count_colours(work.prepared, trained_on(work, config)))
    discriminator = build_discriminator(config)
    return Session(model, None if discriminator is None else work.engine.place(discriminator))


def _run(
    work: Work, config: Config, folder: Path, session: Session, name: PhaseName, heads: list[Path]
) -> Path:
    """Train a phase, score, write everything; the status last."""
    step = golden.golden_step(work.engine)
    if work.engine.is_main:
        digests = {
            "encoder_weights": weights_digest(session.model.encoder),
            "images": work.prepared.fingerprint,
            "golden_step": step,
        }
        environment = work.engine.environment() | digests
        write_config(folder, config)
        write_json(folder / "environment.json", environment)
        write_status(folder, {"state": "running"})
    state, final = {"state": "finished"}, name == "finetune"
    try:
        log = run_phase(work, config, folder, session, name)
    except Diverged as error:
        log, state = error.log, {"state": "diverged", "reason": str(error)}
    started = time.perf_counter()
    _score(work, config, folder, session, final)
    if work.engine.is_main:
        _write_weights(folder, session, with_encoder=final)
        write_log(folder, _join([read_log(head) for head in heads]) + log)
        seconds = _seconds(heads) | {name: _total(log), "evaluate": round(time.perf_counter() - started, 2)}
        write_status(folder, {**state, "seconds": seconds})
        checkpoint.clear(folder / "checkpoints")
    work.engine.wait()
    return folder


def _score(work: Work, config: Config, folder: Path, session: Session, final: bool) -> Scored:
    """Score a model on the validation images, and write all of `OUTCOME`, with the golden step of what scored it."""
    scorer = {"golden_step": golden.golden_step(work.engine)}
    scored = validate(work, config, session, full=final, split=work.prepared.reporting_split)
    if work.engine.is_main:
        of_set = measure_set(work, config.evaluation, scored.features)
        after_heads = _after_heads(work.root, config) if final else {}
        write_scores(folder, work.prepared, scored, of_set | after_heads | scorer)
        write_samples(work, folder, session)
        write_extremes(work, folder, session, scored.rows)
    return scored


def _load(session: Session, folder: Path) -> None:
    """Load the parts that a run stored; its encoder only if it trained one."""
    stored = load_weights(folder / "model.safetensors")
    for name, module in session.modules(with_encoder=True).items():
        own = {
            key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")
        }
        if own:
            module.load_state_dict(own)


def _write_weights(folder: Path, session: Session, with_encoder: bool) -> None:
    modules = session.modules(with_encoder)
    weights = {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    checkpoint.save_weights(folder / "model.safetensors", weights)


def _after_heads(root: Path, config: Config) -> dict[str, Any]:
    """The scores of a run's heads on the frozen encoder, before anything was fine-tuned."""
    metrics: dict[str, Any] = {}
    for task in head_tasks(config):
        path = run_folder(root / "heads", task, head_config(config, task)) / "scores.json"
        metrics |= read_json(path).get("metrics", {}) if path.exists() else {}
    return {"after_heads": metrics} if metrics else {}


def _seconds(heads: Sequence[Path]) -> dict[str, float]:
    return {"heads": sum(_total(read_log(head)) for head in heads)} if heads else {}


def _total(log: Sequence[Entry]) -> float:
    return round(sum(entry["seconds"] for entry in log), 2)


def _join(logs: Sequence[Sequence[Entry]]) -> list[Entry]:
    """The logs of the heads as one: what they say of the same epoch stands in one entry."""
    joined: list[Entry] = []
    for entries in zip(*logs, strict=False):
        first, *others = entries
        merged = {**first, "train": dict(first["train"]), "validation": dict(first["validation"])}
        for other in others:
            merged["train"] |= other["train"]
            merged["validation"] |= other["validation"]
            for key in ("seconds", "train_seconds"):
                merged[key] = round(merged[key] + other[key], 3)
            merged["warnings"] = merged["warnings"] + other["warnings"]
        joined.append(merged)
    return joined


def _refuse_contradictions(config: Config) -> None:
    training, colour, size = config.training, config.colour, config.images.size_px
    if training.shift_px >= size:
        raise ConfigError(
            f"`training.shift_px` should be below `images.size_px = {size}`. Found {training.shift_px}."
        )
    if colour.method == "pix2pix" and size < PatchGAN.SMALLEST_PX:
        raise ConfigError(
            f"`images.size_px` should be {PatchGAN.SMALLEST_PX} or more where `colour.method = pix2pix`. Found {size}."
        )
    if not config.has_encoder or not colour.is_adversarial:
        return
    layers = colour.discriminator_layers
    if size >> layers < 2:
        raise ConfigError(
            f"`colour.discriminator_layers` should leave at least 2 patches of an image of {size} pixels. "
            f"Found `colour.discriminator_layers = {layers}`, which see {3 * 2 ** (layers + 1) - 2} pixels."
        )
