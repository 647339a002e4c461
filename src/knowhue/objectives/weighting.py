"""How two tasks are weighted from step to step: losses by uncertainty, DWA, GradNorm, early stopping; gradients.

Of losses closed forms without autograd; what they change are factors on top of the static weights, which move the heads
too. Gradients are weighted from their Gramian at the shared features, by what each counts for the encoder: the heads
still move by their own task alone. Sizes are those of the papers: `pcgrad` of two orthogonal tasks gives 1 and 1, as
their sum does; `mgda` weights that sum to 1, as their mean does; `cagrad` begins at the mean too.
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

# Our own forms, not torchjd's: its uncertainty has a Gaussian for each task, where colour's L1 needs a Laplace, and
# its DWA keeps epochs outside of `state_dict`, so that a resumed run would forget them.
TASKS = ("colour", "class")


class LossWeighting(nn.Module):
    """Factors of the tasks' losses on top of the static weights; this one's are 1 for good.

    State lies in float64 buffers and in the optimizer of what is learnt, if anything is, so that stored ones continue
    exactly. It stays on the CPU; processes that observe equal numbers keep equal factors.

    >>> LossWeighting(Tasks()).weights()
    {'colour': 1.0, 'class': 1.0}
    """

    needs_norms = False
    """Wants the gradients' norms at the shared features in `observe_step`."""
    every_step = False
    """Wants `observe_step`; averaging the losses over the processes costs a synchronisation."""
    optimizer: torch.optim.Optimizer | None = None
    """Of what is learnt, if anything is; its state is kept with the weighting's."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.tasks = tasks

    def _descend(self, values: Tensor, gradient: Tensor) -> None:
        assert self.optimizer is not None  # of those that learn
        values.grad = gradient
        self.optimizer.step()

    def weights(self) -> dict[str, float]:
        """Factor of each task's loss."""
        return dict.fromkeys(TASKS, 1.0)

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """Take in a step: each task's statically weighted loss, finite and 0 or more, above 0 in the first step.

        `norms`, where they are needed, are L2 norms of their gradients at the shared features, before our own factor.
        """

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Take in an epoch's error of each task, 0 or more, in one unit for both splits."""


class Uncertainty(LossWeighting):
    """Learned homoscedastic uncertainty: Kendall, Gal and Cipolla, CVPR 2018.

    Each task has a log scale s, begun at 0, that descends its negative log likelihood given the loss L:
    colour, Laplace of scale b = exp(s): `L / b + log b`, least at b = L, where its factor is 1 / L;
    class, softmax of temperature sigma^2 = exp(s): `exp(-s) L + s / 2`, least at exp(-s) = 1 / (2 L).
    The factor of either loss is exp(-s).

    Deviations: the paper writes the regression with a Gaussian, whose loss is L2; here colour's main loss is L1.
    A step's loss (for colour with its weights and adversarial part) stands for one observation's negative log
    likelihood. s has an Adam of its own; the paper's shares the model's.

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
        """One Adam step on s: the gradient is 1 - exp(-s) L for colour, 1/2 - exp(-s) L for class."""
        slope = torch.tensor([1.0, 0.5], dtype=torch.float64)
        self._descend(self.log_scale, slope - torch.exp(-self.log_scale) * _in_order(losses))


class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average: Liu, Johns and Davison, CVPR 2019.

    With K tasks and the ratio r of the last epoch's training error to the one before it, the factor is
    `K exp(r / T) / sum exp(r / T)`: what falls slowly counts more. Both tasks count 1 in the first two epochs.

    Deviation: the paper leaves open what follows an error of exactly 0; here r is then 1, that of no descent.

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
        """The softmax above; 1 each until two epochs are known."""
        if self.errors.isnan().any():
            return super().weights()
        before, last = self.errors
        ratio = torch.where(before > 0, last / before, 1.0)
        return _by_task(len(TASKS) * torch.softmax(ratio / self.tasks.dwa_temperature, dim=0))

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        self.errors.copy_(torch.stack((self.errors[1], _in_order(train))))


class GradNorm(LossWeighting):
    """Gradient normalisation: Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018.

    With G_i = w_i n_i the norm of task i's weighted gradient, and r_i = L_i / L_i(0) over its mean, w descends
    `sum |G_i - mean(G) r_i^alpha|` whose second term counts as constant: the gradient is
    `sign(G_i - mean(G) r_i^alpha) n_i`. Then w is scaled to sum to the number of tasks.

    Deviations: norms are taken at the shared features, not over the last shared layer's weights. The paper leaves
    w's optimizer open: it is Adam here, so that the step does not depend on the losses' size. w keeps above `FLOOR`,
    for at 0 or below a task would be unlearned. L(0) is that of the first step, even if the encoder is still frozen.

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
        """One Adam step on w; none without norms, or where no task has any loss left."""
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
        # clamped again: scaling to the sum may push one below the floor
        colour = (len(TASKS) * moved[0] / moved.sum()).clamp(self.FLOOR, len(TASKS) - self.FLOOR)
        self.factors.copy_(torch.stack((colour, len(TASKS) - colour)))


def criterion(strip: Sequence[float], lowest: float, validation: float, importance: float) -> float | None:
    """The measure that stops an auxiliary task once it exceeds a threshold.

        k med(E_tr(t-k..t))                       E_val(t) - min E_tr(1..t)
        ---------------------------------------   -------------------------
        sum(E_tr(t-k..t)) - k med(E_tr(t-k..t))   lambda min E_tr(1..t)

    Equation 5 of Zhang, Luo, Loy and Tang, "Facial landmark detection by deep multi-task learning", ECCV 2014. The
    first term is small while the training error falls steeply; a level or evenly falling error gives k. The second is
    the gap by which validation is worse, negative where it is better; at a training error of 0 it is infinity, or 0
    where the validation error is 0 too.

    Args:
        strip: training errors of epochs t - k to t, 0 or more; k at least 1.
        lowest: the least training error of epochs 1 to t.
        validation: validation error of epoch t, 0 or more, in the same unit.
        importance: lambda, above 0: the more important the task, the longer it stays.

    Returns:
        `None` where the first denominator is 0 or below: some errors of the strip then fell far under the rest, and a
        task which still falls is worth going on with. Of a strip of zeros the first term is that of a level error.

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
        return 0.0  # even against an infinite gap: zeros beside larger errors are a task that has just been learned
    if lowest == 0:
        return math.inf if validation > 0 else 0.0
    return trend * ((validation - lowest) / (importance * lowest))


class TaskConstrained(LossWeighting):
    """Task-wise early stopping by `criterion`: the auxiliary task's factor is 1, and 0 for good once stopped.

    The main task is never stopped. `tasks.stop_strip_epochs` is k, `tasks.stop_threshold` epsilon: on a level
    training error it is passed once the validation error exceeds the least training error by the share
    lambda epsilon / k.

    Deviations: lambda is the ratio of the static weights where the paper learns it, as a learned weight of a loss
    tends to 0. Time is counted in epochs.

    `stopped_epoch` holds for each task the epoch, counted from 1, after which it was stopped; -1 before.
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
        """Keep the strip and the least error, and stop what exceeds the threshold."""
        errors, held_out = _in_order(train), _in_order(validation)
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
            value = criterion(self.strip[i].tolist(), self.lowest[i].item(), held_out[i].item(), importance)
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
"""From a Gramian (tasks, tasks) to weights (tasks,)."""


def gramian(gradients: list[Tensor]) -> Tensor:
    """Inner products of the tasks' gradients, (tasks, tasks) in float32; each is a flat vector."""
    jacobian = torch.stack([gradient.float() for gradient in gradients])
    return jacobian @ jacobian.T


def conflict_averse(product: Tensor, c: float = 0.5) -> Tensor:
    """Conflict-averse gradient descent of two tasks: Liu, Liu, Jin, Stone and Liu, NeurIPS 2021, algorithm 1.

    Of all directions within `c |g0|` of the mean gradient g0, the one whose least inner product with a task's
    gradient is the largest: `g0 + c |g0| g_w / |g_w|`, where g_w = s g1 + (1 - s) g2 minimises
    `g_w . g0 + c |g0| |g_w|` over s in 0..1 (convex, here in closed form).

    Deviations: no division by 1 + c^2, which the authors' code adds to the paper. Where g_w is 0, so that the
    tasks cannot both descend, the direction is g0; the authors' code tends to it too (torchjd gives 0).

    Of a Gramian (2, 2) and a radius c from 0 (the mean) to below 1: weights (2,) of the gradients, each at least 1/2.

    >>> conflict_averse(torch.eye(2)).tolist()
    [0.75, 0.75]
    """
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
    """What `tasks.weighting` names, afresh; None where the weights are static, or there is one task.

    Raises:
        ExtraError: the weighting needs a package that is not installed.

    >>> make_weighting(Tasks(weighting="dwa")).weights()
    {'colour': 1.0, 'class': 1.0}
    """
    if len(tasks.names) < 2 or tasks.weighting == "static":
        return None
    if tasks.weighting in LOSS_WEIGHTINGS:
        return LOSS_WEIGHTINGS[tasks.weighting](tasks)
    with needing(f"`tasks.weighting = {tasks.weighting}`", "aggregators"):
        return GRADIENT_WEIGHTINGS[tasks.weighting]()
