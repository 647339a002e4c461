"""From a finished run to one file that predicts: weights, calibrated probabilities, what is usual, a description."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from knowhue import __version__
from knowhue.arguments import checked_arguments
from knowhue.config import Config, Task
from knowhue.data.loaders import plain_batches
from knowhue.data.prepare import load_prepared
from knowhue.errors import RunError
from knowhue.evaluation.calibration import fit_temperature, fit_unknown_below, judge_temperature
from knowhue.inference.description import DEFAULT_UNKNOWN_BELOW, Calibration, Description, ScoreInterval
from knowhue.inference.networks import read_model, require_task, save_model
from knowhue.locks import locked
from knowhue.models.heads import pool
from knowhue.models.multitask import Deployed, MultiTask
from knowhue.runs import DEPLOYED, Report, finished_run, read_config, read_start
from knowhue.statistics.paired import wilson_interval
from knowhue.storage import read_csv
from knowhue.training.engine import Engine, Workspace
from knowhue.training.run import load_run, trained_on

NOVELTY_QUANTILE = 0.99
REFERENCES = 2000
DEPLOY_S = 600.0
"""Seconds to wait for another process that deploys the same run."""
MEANS = ("ab_l1", "ciede2000", "psnr_rgb", "ssim_rgb")
"""Columns of `per_image.csv` whose mean is a score of that name."""


@checked_arguments
def deploy(folder: str | Path, report: Report = lambda _: None, licence: str = "") -> Path:
    """Make `colorizer.safetensors` in a run's folder, unless it is there.

    Temperature, the probability from which on a class is named, and the limit of novelty are fitted on the
    validation images, which the weights have not seen; what is usual comes from up to 2,000 training images.

    Args:
        folder: of a finished run, or of a study, whose first multi-task run is taken.
        report: called with progress.
        licence: of the weights, for the card; a file that is there gets it, too, where it is another.

    Raises:
        RunError: no finished run is there, it is of an oracle or of a network from scratch, its images are gone,
            or the folder cannot be written.
    """
    folder = finished_run(Path(folder))
    path = folder / DEPLOYED
    if not path.exists():
        require_deployable(folder)
    elif not licence:
        return path
    with locked(folder, "deploy", wait_s=DEPLOY_S):
        if not path.exists():  # another process may just have made it
            _deploy(folder, path, report, licence)
        elif licence:
            description, weights = read_model(path, "pt")
            if description.licence != licence:
                save_model(path, description.model_copy(update={"licence": licence}), weights)
    return path


def _deploy(folder: Path, path: Path, report: Report, licence: str) -> None:
    report({"stage": "deploy"})
    config, root = read_config(folder), folder.parent.parent
    prepared = load_prepared(root / "images", config.evaluation.split)
    work = Workspace(root, Engine(config.training), prepared, report)
    module, description = fit(work, config, folder, licence)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_model(path, description, weights)


def require_deployable(folder: Path, task: Task | None = None) -> None:
    """Make sure, before work, that a finished run can be put to work, and for a task.

    Raises:
        RunError: it is of an oracle or of a network from scratch.
        ConfigError: it has no head for the task.
    """
    config = read_config(folder)
    if config.colour.oracle and "colour" in config.tasks.names:
        raise RunError(
            f"{folder} is the run of an oracle, which colours with the true class that nobody knows of a new image: it "
            "is a control of its study and cannot be put to work. Name a run of another arm, such as colour or multi."
        )
    if not config.has_encoder:
        raise RunError(
            f"`{folder}` should be a run whose colour head stands on an encoder, whose features show what is unlike "
            f"the training images. Found `colour.method = {config.colour.method}`, a network from scratch: it "
            "can be trained, evaluated and compared, but not put to work. Train `--set colour.method=unet`, gan or "
            "feedforward for that."
        )
    if task is not None:
        require_task(task, config.tasks.names, str(folder))


def fit(work: Workspace, config: Config, folder: Path, licence: str) -> tuple[Deployed, Description]:
    """A run's model with its temperature, usual features and description."""
    model = load_run(work, config, folder)
    prepared = work.prepared
    training, validation = trained_on(work, config), prepared.positions("validation")
    # the step is rounded up, so that there are never more than REFERENCES
    references, _ = _features_and_logits(model, work, training[:: -(-len(training) // REFERENCES)])
    features, logits = _features_and_logits(model, work, validation)
    calibration, unknown_below = None, DEFAULT_UNKNOWN_BELOW
    if logits is not None:
        calibration, unknown_below = _calibrate(logits, prepared.label[validation])
    module = Deployed(model, 1.0, len(references), 1.0).eval()
    # stored as directions: distances are of angles, see `Deployed.distance`
    module.references.copy_(functional.normalize(references, dim=1))
    # of images that the weights have not seen: by its own training images nothing would be far
    limit = max(float(torch.quantile(module.distance(features), NOVELTY_QUANTILE)), 1e-6)
    description = Description(
        name=f"{folder.parent.name}, seed {config.seed}, of {work.root}",
        version=__version__,
        config=config,
        classes=tuple(prepared.classes),
        size_px=prepared.rgb.shape[1],
        images={
            "source": config.images.source,
            "train": len(training),
            "validation": len(validation),
            "test": len(prepared.positions("test")),
            "measured_on": prepared.reporting_split,
            "fingerprint": prepared.fingerprint,
        },
        metrics=_intervals(folder / "per_image.csv"),
        calibration=calibration,
        references=len(references),
        novelty_limit=limit,
        unknown_below=unknown_below,
        licence=licence,
        start=read_start(folder),
    )
    module.novelty_limit, module.temperature = limit, description.temperature
    return module, description


def _features_and_logits(
    model: MultiTask, work: Workspace, positions: NDArray[np.int64]
) -> tuple[Tensor, Tensor | None]:
    """Pooled coarsest features, and logits if the model has them, of some images."""
    features, logits = [], []
    with torch.no_grad():
        for batch in plain_batches(work.prepared, positions, 64, work.engine.device):
            pyramid = model.features(batch.lightness)
            features.append(pool(pyramid[-1]).cpu())
            answer = model(batch.lightness, pyramid).logits
            logits.append(None if answer is None else answer.float().cpu())
    return torch.cat(features), None if model.classifier is None else torch.cat(logits)


def _calibrate(logits: Tensor, label: NDArray[np.int64]) -> tuple[Calibration, float]:
    """The temperature, and the probability below which a class is not named."""
    known = label >= 0
    scores, truth = logits.numpy()[known].astype(np.float64), label[known]
    before, after = judge_temperature(scores, truth)
    temperature = fit_temperature(scores, truth)
    found = Calibration(temperature=temperature, ece_before=before, ece_after=after, images=len(truth))
    probability = softmax(scores / found.applied, axis=1)
    right = probability.argmax(1) == truth
    return found, fit_unknown_below(probability.max(1), right, DEFAULT_UNKNOWN_BELOW)


def _intervals(path: Path) -> dict[str, ScoreInterval]:
    """95 % intervals of a run's scores, of the images that have one; a single image has a score, but no interval."""
    found, rows = {}, read_csv(path)
    for name in (*MEANS, "correct"):
        values = np.array([float(row[name]) for row in rows if row.get(name)])
        if len(values) < 2:
            continue
        mean = float(np.mean(values))
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
        low, high = mean - half, mean + half
        if name == "correct":  # Wilson's stays between 0 and 1
            low, high = wilson_interval(round(values.sum()), len(values))
        found["accuracy" if name == "correct" else name] = ScoreInterval(value=mean, low=low, high=high)
    return found
