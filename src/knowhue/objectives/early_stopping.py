"""Task-constrained learning: an auxiliary task is stopped for good once it has nothing more to give."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from knowhue.errors import ConfigError
from knowhue.objectives.balance import TASKS, Balance, checked


def trend(strip: Sequence[float]) -> float | None:
    """First term of the criterion, `k med / (sum - k med)`: small while the training error falls steeply.

    med and sum are those of the k + 1 training errors of epochs t - k to t. A level or evenly falling error gives
    k; one that falls fast and then slowly, less.

    Args:
        strip: the k + 1 errors, 0 or more, k at least 1.

    Returns:
        0 or more; `None` where the denominator is 0 or below. The mean of the strip then lies well below its
        median, so some of its errors fell far under the rest: the paper's reading, that a task which still falls
        is worth going on with, and not the sign of a quotient that flips there, should count. A strip of zeros
        gives k, as every level strip does.

    >>> trend([3.0, 3.0, 3.0]), trend([4.0, 2.0, 1.0])
    (2.0, 1.3333333333333333)
    """
    span = len(strip) - 1
    if span < 1:
        raise ValueError(f"`strip` should hold 2 errors or more. Found `len(strip) = {len(strip)}`.")
    if not any(strip):
        return float(span)
    middle = span * median(strip)
    rest = math.fsum(strip) - middle
    return middle / rest if rest > 0 else None


def generalisation(validation: float, lowest: float, importance: float) -> float:
    """Second term of the criterion, `(validation - lowest) / (importance lowest)`.

    Args:
        validation: validation error of epoch t, 0 or more.
        lowest: the least training error of epochs 1 to t.
        importance: lambda of the task, above 0.

    Returns:
        The gap by which validation is worse; negative where it is better. At a training error of 0 the limit:
        infinity, or 0 where the validation error is 0 too.

    >>> generalisation(1.5, 1.0, 0.5)
    1.0
    """
    if lowest == 0:
        return math.inf if validation > 0 else 0.0
    return (validation - lowest) / (importance * lowest)


def measure(strip: Sequence[float], lowest: float, validation: float, importance: float) -> float | None:
    """Product of both terms; `None` where the trend has no value."""
    course = trend(strip)
    # 0 stays 0 against an infinite gap: a median of 0 beside larger errors is a task that has just been learned.
    return course * generalisation(validation, lowest, importance) if course else course


def criterion(
    train_errors: Sequence[float], validation_errors: Sequence[float], k: int, importance: float
) -> float | None:
    """The measure that stops an auxiliary task once it exceeds a threshold; the product of both terms.

        k med(E_tr(t-k..t))                       E_val(t) - min E_tr(1..t)
        ---------------------------------------   -------------------------
        sum(E_tr(t-k..t)) - k med(E_tr(t-k..t))   lambda min E_tr(1..t)

    Equation 5 of Zhang, Luo, Loy and Tang, "Facial landmark detection by deep multi-task learning", ECCV 2014.

    Args:
        train_errors: of epochs 1 to t.
        validation_errors: of the same epochs, in the same unit.
        k: length of the training strip, epochs, at least 1.
        importance: lambda, above 0: the more important the task, the longer it stays.

    Returns:
        The product; `None` before epoch k + 1, or where `trend` has no value.

    >>> criterion([2.0, 1.0, 1.0, 1.0], [2.0, 1.5, 1.5, 1.5], k=2, importance=0.5)
    2.0
    """
    if len(train_errors) != len(validation_errors):
        raise ValueError(
            "`validation_errors` should be as many as `train_errors`. "
            f"Found `{len(validation_errors)}` and `{len(train_errors)}`."
        )
    if len(train_errors) <= k:
        return None
    return measure(train_errors[-k - 1 :], min(train_errors), validation_errors[-1], importance)


class TaskConstrained(Balance):
    """Task-wise early stopping by `criterion`: the auxiliary task's factor is 1, and 0 for good once stopped.

    The main task is never stopped.

    Deviations: lambda is the ratio of the static weights where the paper learns it, as a learned weight of a loss
    tends to 0. Time is counted in epochs.

    `stopped_epoch` holds for each task the epoch, counted from 1, after which it was stopped; -1 before.
    """

    strip: Tensor
    lowest: Tensor
    epochs: Tensor
    stopped_epoch: Tensor

    def __init__(
        self, main: str = "colour", importance: float = 1.0, strip_epochs: int = 5, threshold: float = 1.0
    ) -> None:
        """Nothing is stopped yet.

        Args:
            main: the task that the other one serves.
            importance: lambda, the auxiliary task's static weight over the main task's, above 0.
            strip_epochs: k, 1 or more.
            threshold: epsilon, 0 or more. On a level training error it is passed once the validation error
                exceeds the least training error by the share `importance * threshold / strip_epochs`.

        Raises:
            ConfigError: a setting out of range.
        """
        super().__init__()
        if main not in TASKS:
            raise ConfigError(f"`main` should be one of {', '.join(TASKS)}. Found `main = {main}`.")
        if not (math.isfinite(importance) and importance > 0):
            raise ConfigError(f"`importance` should be above 0. Found `importance = {importance}`.")
        if strip_epochs < 1:
            raise ConfigError(f"`strip_epochs` should be 1 or more. Found `strip_epochs = {strip_epochs}`.")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise ConfigError(f"`threshold` should be 0 or more. Found `threshold = {threshold}`.")
        self.main, self.importance, self.threshold = main, importance, threshold
        shape = (len(TASKS), strip_epochs + 1)
        self.register_buffer("strip", torch.full(shape, torch.nan, dtype=torch.float64))
        self.register_buffer("lowest", torch.full(shape[:1], torch.inf, dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("stopped_epoch", torch.full(shape[:1], -1, dtype=torch.int64))

    def weights(self) -> dict[str, float]:
        """1, and 0 for a stopped task."""
        return dict(zip(TASKS, (self.stopped_epoch < 0).double().tolist(), strict=True))

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Keep the strip and the least error, and stop what exceeds the threshold."""
        errors, held_out = checked("train", train), checked("validation", validation)
        self.epochs += 1
        self.strip.copy_(torch.cat((self.strip[:, 1:], errors[:, None]), dim=1))
        self.lowest.copy_(torch.minimum(self.lowest, errors))
        if self.strip.isnan().any():
            return
        for i, task in enumerate(TASKS):
            if task == self.main or self.stopped_epoch[i] >= 0:
                continue
            value = measure(
                self.strip[i].tolist(), self.lowest[i].item(), held_out[i].item(), self.importance
            )
            if value is not None and value > self.threshold:
                self.stopped_epoch[i] = self.epochs
