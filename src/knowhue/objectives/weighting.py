"""WEIGHTINGS: from the tasks' gradients at the shared features to what each counts in the base's update."""

from collections.abc import Callable

import torch
from torch import Tensor

from knowhue.errors import ConfigError

WEIGHTINGS: dict[str, str] = {
    "pcgrad": "PCGradWeighting",  # Yu et al. 2020: what conflicts is projected away
    "mgda": "MGDAWeighting",  # Sener and Koltun 2018: the shortest vector of the hull
    "imtlg": "IMTLGWeighting",  # Liu et al. 2021: equal projections on all tasks
    "alignedmtl": "AlignedMTLWeighting",  # Senushkin et al. 2023: principal components of equal length
}
"""Name to torchjd's class; those that need no solver under a copyleft licence."""


def open_weighting(name: str) -> Callable[[Tensor], Tensor]:
    """The function from a Gramian (tasks, tasks) to weights (tasks,).

    The sizes are torchjd's: `pcgrad` of two orthogonal tasks gives 1 and 1, as their sum does, and `mgda` weights
    that sum to 1, as their mean does.

    Raises:
        ConfigError: unknown name, or torchjd is not installed.
    """
    if name not in WEIGHTINGS:
        known = ", ".join(("sum", *WEIGHTINGS))
        raise ConfigError(
            f"`training.aggregator` should be one of {known}. Found `training.aggregator = {name}`."
        )
    try:
        from torchjd import aggregation
    except ImportError:
        raise ConfigError(
            f"`training.aggregator = {name}` needs torchjd: pip install 'knowhue[aggregators]'"
        ) from None
    return getattr(aggregation, WEIGHTINGS[name])()


def gramian(gradients: list[Tensor]) -> Tensor:
    """Inner products of the tasks' gradients, (tasks, tasks) in float32.

    Args:
        gradients: one flat vector a task, all of one length.
    """
    jacobian = torch.stack([gradient.float() for gradient in gradients])
    return jacobian @ jacobian.T
