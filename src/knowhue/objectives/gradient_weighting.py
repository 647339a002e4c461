"""Weighting of the tasks' gradients: from their Gramian at the shared features to what each counts for the encoder.

The heads still move by their own task alone. Sizes are those of the papers: `pcgrad` of two orthogonal tasks gives 1
and 1, as their sum does; `mgda` weights that sum to 1, as their mean does; `cagrad` begins at the mean too.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from knowhue.config import Tasks
from knowhue.errors import missing_package
from knowhue.objectives.loss_weighting import LOSS_WEIGHTINGS, LossWeighting

GradientWeighting = Callable[[Tensor], Tensor]
"""From a Gramian (tasks, tasks) to weights (tasks,)."""


def gramian(gradients: list[Tensor]) -> Tensor:
    """Inner products of the tasks' gradients, (tasks, tasks) in float32.

    Args:
        gradients: one flat vector a task, all of one length.
    """
    jacobian = torch.stack([gradient.float() for gradient in gradients])
    return jacobian @ jacobian.T


def conflict_averse(product: Tensor, c: float = 0.5) -> Tensor:
    """Conflict-averse gradient descent of two tasks: Liu, Liu, Jin, Stone and Liu, NeurIPS 2021, algorithm 1.

    Of all directions within `c |g0|` of the mean gradient g0, the one whose least inner product with a task's
    gradient is the largest: `g0 + c |g0| g_w / |g_w|`, where g_w = s g1 + (1 - s) g2 minimises
    `g_w . g0 + c |g0| |g_w|` over s in 0..1 (convex, here in closed form).

    Deviations: no division by 1 + c^2, which the authors' code adds to the paper. Where g_w is 0, so that the
    tasks cannot both descend, the direction is g0; the authors' code tends to it too (torchjd gives 0).

    Args:
        product: Gramian (2, 2).
        c: radius, 0 (the mean) to below 1.

    Returns:
        Weights (2,) of the two gradients, each at least 1/2.

    Raises:
        ValueError: not two tasks, or `c` out of range.

    >>> conflict_averse(torch.eye(2)).tolist()
    [0.75, 0.75]
    """
    if product.shape != (2, 2):
        raise ValueError(
            f"`product` should be of shape (2, 2). Found `product.shape = {tuple(product.shape)}`."
        )
    if not 0 <= c < 1:
        raise ValueError(f"`c` should be from 0 to below 1. Found `c = {c}`.")
    (own, cross), (_, other) = product.double().tolist()
    radius = c * sqrt(max(own + 2 * cross + other, 0.0)) / 2
    share = _least_share(own, cross, other, radius)
    length = sqrt(max(share**2 * own + 2 * share * (1 - share) * cross + (1 - share) ** 2 * other, 0.0))
    pull = radius / length if length > 0 else 0.0
    return product.new_tensor([0.5 + pull * share, 0.5 + pull * (1 - share)])


def _least_share(own: float, cross: float, other: float, radius: float) -> float:
    """Where on 0..1 `slope s + radius sqrt(spread (s - centre)^2 + rest)` is least.

    That is the objective of `conflict_averse` but for a constant: spread = |g1 - g2|^2, slope = (g1 - g2) . g0,
    and rest the squared distance of 0 from the line through g1 and g2.
    """
    spread, slope = own - 2 * cross + other, (own - other) / 2
    if spread <= 0:
        return 0.5  # equal gradients: all shares are alike
    centre, rest = (other - cross) / spread, max(own * other - cross**2, 0.0) / spread
    excess = radius**2 * spread - slope**2
    if excess <= 0:  # the slope wins at every distance
        return 0.5 if slope == 0 else float(slope < 0)
    away = sqrt(slope**2 * rest / (spread * excess))
    return min(max(centre + (away if slope < 0 else -away), 0.0), 1.0)


def _of_torchjd(name: str) -> GradientWeighting:
    # an extra: `static` and `cagrad` do without it
    from torchjd import aggregation

    return getattr(aggregation, name)()


GRADIENT_WEIGHTINGS: dict[str, Callable[[], GradientWeighting]] = {
    "pcgrad": partial(_of_torchjd, "PCGradWeighting"),  # Yu et al. 2020: what conflicts is projected away
    "mgda": partial(_of_torchjd, "MGDAWeighting"),  # Sener and Koltun 2018: the shortest vector of the hull
    "imtlg": partial(_of_torchjd, "IMTLGWeighting"),  # Liu et al. 2021: equal projections on all tasks
    # Senushkin et al. 2023: components of equal length
    "alignedmtl": partial(_of_torchjd, "AlignedMTLWeighting"),
    "cagrad": lambda: conflict_averse,
}
"""Name to what makes it. None needs a solver under a copyleft licence: torchjd's CAGrad would need cvxpy, its UPGrad
quadprog (GPL). Of two tasks UPGrad (Quinton and Rey 2024) is half of PCGrad, so it has no entry of its own."""


def make_weighting(tasks: Tasks) -> LossWeighting | GradientWeighting | None:
    """What `tasks.weighting` names, afresh: it weights the losses or the gradients of two tasks.

    Returns:
        None where the weights are static, or there is one task.

    Raises:
        ExtraError: the weighting needs a package that is not installed.

    >>> make_weighting(Tasks(weighting="dwa")).weights()
    {'colour': 1.0, 'class': 1.0}
    """
    if len(tasks.names) < 2 or tasks.weighting == "static":
        return None
    if tasks.weighting in LOSS_WEIGHTINGS:
        return LOSS_WEIGHTINGS[tasks.weighting](tasks)
    try:
        return GRADIENT_WEIGHTINGS[tasks.weighting]()
    except ImportError:
        raise missing_package(f"`tasks.weighting = {tasks.weighting}`", "torchjd", "aggregators") from None
