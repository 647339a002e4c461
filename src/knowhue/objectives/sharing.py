"""How two tasks share the encoder: from `tasks.weighting` to a balance of losses or a weighting of gradients."""

from collections.abc import Callable
from typing import NamedTuple

from knowhue.config import Tasks
from knowhue.objectives.balance import Balance, DynamicWeightAverage, GradNorm, Uncertainty
from knowhue.objectives.early_stopping import TaskConstrained
from knowhue.objectives.weighting import Weighting, open_weighting


class Sharing(NamedTuple):
    """At most one is there; `static` is neither.

    Attributes:
        balance: factors of the losses, which move the heads too.
        weighting: from the Gramian of the gradients at the shared features to what each counts for the encoder alone.
    """

    balance: Balance | None = None
    weighting: Weighting | None = None


def _task_constrained(tasks: Tasks) -> TaskConstrained:
    main, auxiliary = tasks.weights.colour, tasks.weights.class_
    if tasks.main == "class":
        main, auxiliary = auxiliary, main
    return TaskConstrained(tasks.main, auxiliary / main, tasks.stop_strip_epochs, tasks.stop_threshold)


BALANCES: dict[str, Callable[[Tasks], Balance]] = {
    "uncertainty": lambda tasks: Uncertainty(tasks.weighting_learning_rate),
    "dwa": lambda tasks: DynamicWeightAverage(tasks.dwa_temperature),
    "gradnorm": lambda tasks: GradNorm(tasks.gradnorm_alpha, tasks.weighting_learning_rate),
    "task_constrained": _task_constrained,
}
"""Name to what makes it, afresh, from the settings."""


def open_sharing(tasks: Tasks) -> Sharing:
    """What stands between two tasks and their encoder; nothing where there is one task.

    Raises:
        ConfigError: the weighting needs a package that is not installed.

    >>> open_sharing(Tasks(weighting="dwa")).balance.weights()
    {'colour': 1.0, 'class': 1.0}
    """
    if len(tasks.names) < 2 or tasks.weighting == "static":
        return Sharing()
    if tasks.weighting in BALANCES:
        return Sharing(balance=BALANCES[tasks.weighting](tasks))
    return Sharing(weighting=open_weighting(tasks.weighting))
