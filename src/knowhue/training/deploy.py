"""Deployment of a finished run as one file: weights, calibration, reference features for novelty, a description."""

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

NOVELTY_QUANTILE = 0.99  # quantile of the validation images' novelty that becomes the limit
REFERENCES = 2000  # greatest number of training images whose features are kept for novelty
DEPLOY_S = 600.0  # seconds to wait while another process deploys the same run
MEANS = ("ab_l1", "ciede2000", "psnr_rgb", "ssim_rgb")
"""Columns of `per_image.csv` whose means are reported, under the same names."""


@checked_arguments
def deploy(folder: str | Path, report: Report = lambda _: None, licence: str = "") -> Path:
    """Write `colorizer.safetensors` to a run's folder, unless it exists, and return its path.

    The temperature, the lowest probability at which a class is named, and the limit of novelty are fitted on the
    validation images, which the weights were not trained on. The references are up to 2,000 training images.

    Args:
        folder: a finished run, or a study, whose first multi-task run is deployed.
        report: called with progress.
        licence: of the weights, for the model card; an existing file is updated if its licence differs.

    Raises:
        RunError: there is no finished run, it is an oracle's or a network from scratch, its images are missing, or the
            folder cannot be written.
    """
    folder = finished_run(Path(folder))
    path = folder / DEPLOYED
    if not path.exists():
        require_deployable(folder)
    elif not licence:
        return path
    with locked(folder, "deploy", wait_s=DEPLOY_S):
        if not path.exists():  # another process may have written it meanwhile
            report({"stage": "deploy"})
            config, root = read_config(folder), folder.parent.parent
            prepared = load_prepared(root / "images", config.evaluation.split)
            work = Workspace(root, Engine(config.training), prepared, report)
            module, description = fit(work, config, folder, licence)
            weights = {name: each.detach().cpu().contiguous() for name, each in module.state_dict().items()}
            save_model(path, description, weights)
        elif licence:
            description, weights = read_model(path, "pt")
            if description.licence != licence:
                save_model(path, description.model_copy(update={"licence": licence}), weights)
    return path


def require_deployable(folder: Path, task: Task | None = None) -> None:
    """Raise a `KnowhueError` unless a finished run can be deployed and has a head for `task`."""
    config = read_config(folder)
    if config.colour.oracle and "colour" in config.tasks.names:
        raise RunError(
            f"{folder} is the run of an oracle, which needs the true class of each image. Name a run of another arm."
        )
    if not config.has_encoder:
        raise RunError(
            f"`{folder}` should be a run with an encoder, whose features tell whether an image is unlike the training "
            f"images. Found `colour.method = {config.colour.method}`. Train with unet, gan or feedforward."
        )
    if task is not None:
        require_task(task, config.tasks.names, str(folder))


def fit(work: Workspace, config: Config, folder: Path, licence: str) -> tuple[Deployed, Description]:
    """Load a run's model, and fit temperature, references and limit of novelty; returns them with a description."""
    model = load_run(work, config, folder)
    prepared = work.prepared
    training, validation = trained_on(work, config), prepared.positions("validation")
    # the step is rounded up, for at most REFERENCES images
    references, _ = _features_and_logits(model, work, training[:: -(-len(training) // REFERENCES)])
    features, logits = _features_and_logits(model, work, validation)
    calibration, unknown_below = None, DEFAULT_UNKNOWN_BELOW
    if logits is not None:
        calibration, unknown_below = _calibrate(logits, prepared.label[validation])
    module = Deployed(model, 1.0, len(references), 1.0).eval()
    # normalised, because `Deployed.distance` is a cosine distance
    module.references.copy_(functional.normalize(references, dim=1))
    # on validation images, because training images are closer to the references than new images are
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
    """Pooled coarsest features (N, C) of some images, and logits (N, classes) if the model classifies."""
    features, logits = [], []
    with torch.no_grad():
        for batch in plain_batches(work.prepared, positions, 64, work.engine.device):
            pyramid = model.features(batch.lightness)
            features.append(pool(pyramid[-1]).cpu())
            if model.classifier is not None:
                logits.append(model(batch.lightness, pyramid).logits.float().cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


def _calibrate(logits: Tensor, label: NDArray[np.int64]) -> tuple[Calibration, float]:
    """Fit the temperature, and the probability below which a class is not named."""
    known = label >= 0
    scores, truth = logits.numpy()[known].astype(np.float64), label[known]
    before, after = judge_temperature(scores, truth)
    temperature = fit_temperature(scores, truth)
    calibration = Calibration(temperature=temperature, ece_before=before, ece_after=after, images=len(truth))
    probability = softmax(scores / calibration.applied, axis=1)
    correct = probability.argmax(1) == truth
    return calibration, fit_unknown_below(probability.max(1), correct, DEFAULT_UNKNOWN_BELOW)


def _intervals(path: Path) -> dict[str, ScoreInterval]:
    """Means of a run's scores over the images with 95 % intervals; scores of fewer than two images are left out."""
    intervals, rows = {}, read_csv(path)
    for name in (*MEANS, "correct"):
        values = np.array([float(row[name]) for row in rows if row.get(name)])
        if len(values) < 2:
            continue
        mean = float(np.mean(values))
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
        low, high = mean - half, mean + half
        if name == "correct":  # a share, whose Wilson interval stays between 0 and 1
            low, high = wilson_interval(round(values.sum()), len(values))
        intervals["accuracy" if name == "correct" else name] = ScoreInterval(value=mean, low=low, high=high)
    return intervals
