"""Weighting of two tasks during training: of their losses, or of their gradients at the shared features.

Loss weightings are closed forms without autograd; their factors multiply the static weights, so they scale the heads'
gradients too. Gradient weightings compute weights from the Gramian of the tasks' gradients at the shared features, and
change only what the encoder receives. The scale is each paper's: for orthogonal gradients `pcgrad` gives weights 1 and
1, as the sum of the losses does; the weights of `mgda` sum to 1, as for their mean; `cagrad` starts from the mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
from statistics import median

import torch
from torch import Tensor, nn

from knowhue.config import Tasks
from knowhue.errors import needing

# Not torchjd's implementations: its uncertainty weighting assumes a Gaussian for each task, but the L1 loss of colour
# needs a Laplace distribution; its DWA keeps past errors outside of `state_dict`, so a resumed run would lose them.
TASKS = ("colour", "class")


class LossWeighting(nn.Module):
    """Factors that multiply the tasks' statically weighted losses. The base class gives 1 for each task.

    All state is in float64 buffers, and in `optimizer` if the factors are learned, so that a resumed run continues
    exactly. It stays on the CPU. Processes that observe equal numbers keep equal factors.

    >>> LossWeighting(Tasks()).weights()
    {'colour': 1.0, 'class': 1.0}
    """

    needs_norms = False
    """Whether `observe_step` needs the norms of the gradients at the shared features."""
    every_step = False
    """Whether `observe_step` is called. Averaging the losses over the processes costs a synchronisation."""
    optimizer: torch.optim.Optimizer | None = None
    """Optimizer of learned factors, or None; its state is saved with the weighting's."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.tasks = tasks

    def _descend(self, values: Tensor, gradient: Tensor) -> None:
        assert self.optimizer is not None  # only weightings with learned factors call this
        values.grad = gradient
        self.optimizer.step()

    def weights(self) -> dict[str, float]:
        """Factor of each task's loss."""
        return dict.fromkeys(TASKS, 1.0)

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """Update the factors after a step, given each task's statically weighted loss, 0 or more (first above 0).

        `norms`, if `needs_norms`, are the L2 norms of these losses' gradients at the shared features.
        """

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Update the factors after an epoch, given each task's error, 0 or more, in one unit for both splits."""


class Uncertainty(LossWeighting):
    """Learned homoscedastic uncertainty: Kendall, Gal and Cipolla, CVPR 2018.

    Each task has a learned log scale s, initially 0, that minimises its negative log likelihood given its loss L:
    colour, Laplace of scale b = exp(s): `L / b + log b`, least at b = L, where its factor is 1 / L;
    class, softmax of temperature sigma^2 = exp(s): `exp(-s) L + s / 2`, least at exp(-s) = 1 / (2 L).
    The factor of each loss is exp(-s).

    Deviations: the paper uses a Gaussian for regression, whose loss is L2; here colour's main loss is L1. The loss of
    a step (for colour including its weights and the adversarial part) takes the place of one observation's negative
    log likelihood. s has its own Adam optimizer; in the paper it shares the model's.

    >>> weighting = Uncertainty(Tasks(weighting_learning_rate=0.5))
    >>> weighting.observe_step({"colour": 4.0, "class": 0.5}, None)
    >>> {task: round(factor, 3) for task, factor in weighting.weights().items()}
    {'colour': 0.607, 'class': 1.0}
    """

    every_step = True
    log_scale: Tensor

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks)
        self.register_buffer("log_scale", torch.zeros(len(TASKS), dtype=torch.float64))
        self.optimizer = torch.optim.Adam([self.log_scale], tasks.weighting_learning_rate)

    def weights(self) -> dict[str, float]:
        return _by_task(torch.exp(-self.log_scale))

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """Take one Adam step on s; the gradient is 1 - exp(-s) L for colour and 1/2 - exp(-s) L for class."""
        slope = torch.tensor([1.0, 0.5], dtype=torch.float64)
        self._descend(self.log_scale, slope - torch.exp(-self.log_scale) * _in_order(losses))


class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average: Liu, Johns and Davison, CVPR 2019.

    With K tasks and r the ratio of a task's last training error to the one of the epoch before, its factor is
    `K exp(r / T) / sum exp(r / T)`: a task whose error falls slowly gets a larger factor. In the first two epochs both
    factors are 1.

    Deviation: the paper does not define r after an error of exactly 0; here it is 1, as for a constant error.

    >>> weighting = DynamicWeightAverage(Tasks())
    >>> for errors in ({"colour": 4.0, "class": 2.0}, {"colour": 4.0, "class": 1.0}):
    ...     weighting.observe_epoch(errors, errors)
    >>> {task: round(factor, 3) for task, factor in weighting.weights().items()}
    {'colour': 1.124, 'class': 0.876}
    """

    errors: Tensor

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks)
        self.register_buffer("errors", torch.full((2, len(TASKS)), torch.nan, dtype=torch.float64))

    def weights(self) -> dict[str, float]:
        """Softmax of the ratios; 1 for each task until two epochs are known."""
        if self.errors.isnan().any():
            return super().weights()
        before, last = self.errors
        ratio = torch.where(before > 0, last / before, 1.0)
        return _by_task(len(TASKS) * torch.softmax(ratio / self.tasks.dwa_temperature, dim=0))

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        self.errors.copy_(torch.stack((self.errors[1], _in_order(train))))


class GradNorm(LossWeighting):
    """Gradient normalisation: Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018.

    Let G_i = w_i n_i be the norm of task i's weighted gradient, and r_i the ratio L_i / L_i(0) divided by its mean over
    the tasks. w minimises `sum |G_i - mean(G) r_i^alpha|` with the second term held constant, so its gradient is
    `sign(G_i - mean(G) r_i^alpha) n_i`. Then w is scaled to sum to the number of tasks.

    Deviations: norms are taken at the shared features, not of the last shared layer's weights. The paper does not name
    w's optimizer; here it is Adam, so that the step does not depend on the scale of the losses. w stays at least
    `FLOOR`, because at 0 or below a task would be unlearned. L(0) is the loss of the first observed step.

    >>> weighting = GradNorm(Tasks(weighting_learning_rate=0.1))
    >>> weighting.observe_step({"colour": 4.0, "class": 2.0}, {"colour": 3.0, "class": 1.0})
    >>> {task: round(factor, 3) for task, factor in weighting.weights().items()}
    {'colour': 0.9, 'class': 1.1}
    """

    FLOOR = 1e-3
    needs_norms = every_step = True
    factors: Tensor
    first: Tensor

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks)
        self.register_buffer("factors", torch.ones(len(TASKS), dtype=torch.float64))
        self.register_buffer("first", torch.full((len(TASKS),), torch.nan, dtype=torch.float64))
        self.optimizer = torch.optim.Adam([self.factors], tasks.weighting_learning_rate)

    def weights(self) -> dict[str, float]:
        return _by_task(self.factors)

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """Take one Adam step on w, unless there are no norms or all losses are 0."""
        loss = _in_order(losses)
        if self.first.isnan().any():
            self.first.copy_(loss)
        share = loss / self.first
        if norms is None or not share.any():
            return
        norm = _in_order(norms)
        weighted = self.factors * norm
        target = weighted.mean() * (share / share.mean()) ** self.tasks.gradnorm_alpha
        self._descend(self.factors, torch.sign(weighted - target) * norm)
        moved = self.factors.clamp(min=self.FLOOR)
        # clamp again, because scaling can push a factor below the floor
        colour = (len(TASKS) * moved[0] / moved.sum()).clamp(self.FLOOR, len(TASKS) - self.FLOOR)
        self.factors.copy_(torch.stack((colour, len(TASKS) - colour)))


def criterion(strip: Sequence[float], lowest: float, validation: float, importance: float) -> float | None:
    """Criterion of task-wise early stopping: an auxiliary task stops once this exceeds a threshold.

        k med(E_tr(t-k..t))                       E_val(t) - min E_tr(1..t)
        ---------------------------------------   -------------------------
        sum(E_tr(t-k..t)) - k med(E_tr(t-k..t))   lambda min E_tr(1..t)

    Equation 5 of Zhang, Luo, Loy and Tang, "Facial landmark detection by deep multi-task learning", ECCV 2014. The
    first factor is small while the training error falls steeply; it is k for a constant or evenly falling error, and
    for errors of 0. The second is the relative generalisation gap, negative where validation is better. Where the
    lowest training error is 0, it is infinite, or 0 if the validation error is 0 too.

    Args:
        strip: training errors of epochs t - k to t, 0 or more; k at least 1.
        lowest: the lowest training error of epochs 1 to t.
        validation: validation error of epoch t, 0 or more, in the same unit.
        importance: lambda, above 0: the more important the task, the later it stops.

    Returns:
        The criterion, or None where the first denominator is 0 or negative. Some errors of the strip are then far
        below the others: the error still falls, so the task should go on.

    >>> criterion([1.0, 1.0, 1.0], lowest=1.0, validation=1.5, importance=0.5)
    2.0
    """
    span = len(strip) - 1
    middle = span * median(strip)
    rest = math.fsum(strip) - middle
    if any(strip) and rest <= 0:
        return None
    trend = middle / rest if any(strip) else float(span)
    if trend == 0:
        return 0.0  # even if the gap is infinite: most errors are 0 after larger ones, so the task was just learned
    if lowest == 0:
        return math.inf if validation > 0 else 0.0
    return trend * ((validation - lowest) / (importance * lowest))


class TaskConstrained(LossWeighting):
    """Task-wise early stopping by `criterion`: the factor of the auxiliary task is 1, then 0 once it is stopped.

    The main task is never stopped. `tasks.stop_strip_epochs` is k and `tasks.stop_threshold` is epsilon. With a
    constant training error, the task stops when the validation error exceeds the lowest training error by the share
    lambda epsilon / k.

    Deviations: lambda is the ratio of the static weights; the paper learns it, but a learned weight of a loss tends
    to 0. Time is counted in epochs.

    `stopped_epoch` holds, for each task, the epoch (from 1) after which it was stopped, or -1.
    """

    strip: Tensor
    lowest: Tensor
    epochs: Tensor
    stopped_epoch: Tensor

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(tasks)
        shape = (len(TASKS), tasks.stop_strip_epochs + 1)
        self.register_buffer("strip", torch.full(shape, torch.nan, dtype=torch.float64))
        self.register_buffer("lowest", torch.full(shape[:1], torch.inf, dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("stopped_epoch", torch.full(shape[:1], -1, dtype=torch.int64))

    def weights(self) -> dict[str, float]:
        return _by_task((self.stopped_epoch < 0).double())

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Record the errors, and stop an auxiliary task whose criterion exceeds the threshold."""
        errors, validation_errors = _in_order(train), _in_order(validation)
        self.epochs += 1
        self.strip.copy_(torch.cat((self.strip[:, 1:], errors[:, None]), dim=1))
        self.lowest.copy_(torch.minimum(self.lowest, errors))
        if self.strip.isnan().any():
            return
        weights = {"colour": self.tasks.weights.colour, "class": self.tasks.weights.class_}
        for i, task in enumerate(TASKS):
            if task == self.tasks.main or self.stopped_epoch[i] >= 0:
                continue
            importance = weights[task] / weights[self.tasks.main]
            validation_error = validation_errors[i].item()
            value = criterion(self.strip[i].tolist(), self.lowest[i].item(), validation_error, importance)
            if value is not None and value > self.tasks.stop_threshold:
                self.stopped_epoch[i] = self.epochs


def _by_task(values: Tensor) -> dict[str, float]:
    return dict(zip(TASKS, values.tolist(), strict=True))


def _in_order(values: Mapping[str, float]) -> Tensor:
    return torch.tensor([values[task] for task in TASKS], dtype=torch.float64)


LOSS_WEIGHTINGS: dict[str, type[LossWeighting]] = {
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "gradnorm": GradNorm,
    "task_constrained": TaskConstrained,
}


GradientWeighting = Callable[[Tensor], Tensor]
"""Function from a Gramian (tasks, tasks) to weights (tasks,)."""


def gramian(gradients: list[Tensor]) -> Tensor:
    """Inner products (tasks, tasks), float32, of the tasks' gradients, each a flat vector."""
    jacobian = torch.stack([gradient.float() for gradient in gradients])
    return jacobian @ jacobian.T


def conflict_averse(product: Tensor, c: float = 0.5) -> Tensor:
    """Conflict-averse gradient descent of two tasks: Liu, Liu, Jin, Stone and Liu, NeurIPS 2021, algorithm 1.

    Among all directions within `c |g0|` of the mean gradient g0, it takes the one that maximises the smallest inner
    product with a task's gradient: `g0 + c |g0| g_w / |g_w|`, where g_w = s g1 + (1 - s) g2 minimises
    `g_w . g0 + c |g0| |g_w|` over s in 0..1 (convex, here in closed form).

    Deviations: no division by 1 + c^2, which the authors' code adds to the paper. Where g_w is 0, so that no direction
    serves both tasks, the direction is g0; the authors' code tends to it too (torchjd gives 0).

    Takes a Gramian (2, 2) and c, from 0 (the mean gradient) to below 1; returns weights (2,), each at least 1/2.

    >>> conflict_averse(torch.eye(2)).tolist()
    [0.75, 0.75]
    """
    (g11, g12), (_, g22) = product.double().tolist()
    radius = c * sqrt(max(g11 + 2 * g12 + g22, 0.0)) / 2
    share = _minimising_share(g11, g12, g22, radius)
    length = sqrt(max(share**2 * g11 + 2 * share * (1 - share) * g12 + (1 - share) ** 2 * g22, 0.0))
    pull = radius / length if length > 0 else 0.0
    return product.new_tensor([0.5 + pull * share, 0.5 + pull * (1 - share)])


def _minimising_share(g11: float, g12: float, g22: float, radius: float) -> float:
    """Return the s in 0..1 that minimises `slope s + radius sqrt(spread (s - centre)^2 + rest)`.

    This is the objective of `conflict_averse` up to a constant: spread = |g1 - g2|^2, slope = (g1 - g2) . g0, and
    rest is the squared distance of 0 from the line through g1 and g2.
    """
    spread, slope = g11 - 2 * g12 + g22, (g11 - g22) / 2
    if spread <= 0:
        return 0.5  # the gradients are equal, so every s gives the same
    centre, rest = (g22 - g12) / spread, max(g11 * g22 - g12**2, 0.0) / spread
    excess = radius**2 * spread - slope**2
    if excess <= 0:  # the linear term dominates everywhere
        return 0.5 if slope == 0 else float(slope < 0)
    offset = sqrt(slope**2 * rest / (spread * excess))
    return min(max(centre + (offset if slope < 0 else -offset), 0.0), 1.0)


def _of_torchjd(name: str) -> GradientWeighting:
    # imported here, because torchjd is an optional extra that `static` and `cagrad` do not need
    from torchjd import aggregation

    return getattr(aggregation, name)()


GRADIENT_WEIGHTINGS: dict[str, Callable[[], GradientWeighting]] = {
    "pcgrad": partial(_of_torchjd, "PCGradWeighting"),  # Yu et al. 2020: project conflicting components away
    "mgda": partial(_of_torchjd, "MGDAWeighting"),  # Sener and Koltun 2018: shortest convex combination
    "imtlg": partial(_of_torchjd, "IMTLGWeighting"),  # Liu et al. 2021: equal projections on all tasks
    # Senushkin et al. 2023: aligned components of equal length
    "alignedmtl": partial(_of_torchjd, "AlignedMTLWeighting"),
    "cagrad": lambda: conflict_averse,
}
"""Factory of each gradient weighting, by name. None needs a solver under a copyleft licence: torchjd's CAGrad would
need cvxpy, its UPGrad quadprog (GPL). For two tasks UPGrad (Quinton and Rey 2024) is half of PCGrad, so it is left out.
"""


def make_weighting(tasks: Tasks) -> LossWeighting | GradientWeighting | None:
    """Make the weighting that `tasks.weighting` names; None for static weights or a single task.

    >>> make_weighting(Tasks(weighting="dwa")).weights()
    {'colour': 1.0, 'class': 1.0}
    """
    if len(tasks.names) < 2 or tasks.weighting == "static":
        return None
    if tasks.weighting in LOSS_WEIGHTINGS:
        return LOSS_WEIGHTINGS[tasks.weighting](tasks)
    with needing(f"`tasks.weighting = {tasks.weighting}`", "aggregators"):
        return GRADIENT_WEIGHTINGS[tasks.weighting]()
