"""Balances: how much each task's loss counts from step to step, from the losses seen so far; no autograd."""

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor, nn

from knowhue.errors import ConfigError

TASKS = ("colour", "class")


class Balance(nn.Module):
    """Factors of the tasks' losses on top of the static weights; this one's are 1 for good.

    State lies in float64 buffers, so that a stored `state_dict` continues exactly. It stays on the CPU; processes
    that observe equal numbers keep equal factors.

    >>> Balance().weights()
    {'colour': 1.0, 'class': 1.0}
    """

    needs_norms = False
    """Wants the gradients' norms at the shared features in `observe_step`."""
    every_step = False
    """Wants `observe_step`; averaging the losses over the processes costs a synchronisation."""

    def weights(self) -> dict[str, float]:
        """Factor of each task's loss."""
        return dict.fromkeys(TASKS, 1.0)

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """Take in one step.

        Args:
            losses: each task's statically weighted loss, 0 or more.
            norms: L2 norm of each such loss's gradient at the shared features, before this balance's factor;
                `None` where the encoder is frozen.
        """

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Take in an epoch's error of each task, 0 or more, in one unit for both parts."""


class Uncertainty(Balance):
    """Learned homoscedastic uncertainty: Kendall, Gal and Cipolla, CVPR 2018.

    Each task has a log scale s, begun at 0, that descends its negative log likelihood given the loss L:
    colour, Laplace of scale b = exp(s): `L / b + log b`, least at b = L, where its factor is 1 / L;
    class, softmax of temperature sigma^2 = exp(s): `exp(-s) L + s / 2`, least at exp(-s) = 1 / (2 L).
    The factor of either loss is exp(-s).

    Deviations: the paper writes the regression with a Gaussian, whose loss is L2; here colour's main loss is L1.
    A step's loss (for colour with its weights and adversarial part) stands for one observation's negative log
    likelihood. s has an Adam of its own; the paper's shares the model's.

    >>> balance = Uncertainty(rate=0.5)
    >>> balance.observe_step({"colour": 4.0, "class": 0.5}, None)
    >>> {task: round(factor, 3) for task, factor in balance.weights().items()}
    {'colour': 0.607, 'class': 1.0}
    """

    every_step = True
    log_scale: Tensor

    def __init__(self, rate: float = 0.01) -> None:
        """Args: rate: Adam's learning rate, the most that a step changes s by, about."""
        super().__init__()
        self.register_buffer("log_scale", torch.zeros(len(TASKS), dtype=torch.float64))
        self.adam = Adam(_positive("rate", rate))

    def weights(self) -> dict[str, float]:
        """exp(-s) of each task."""
        return _by_task(torch.exp(-self.log_scale))

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """One Adam step on s: the gradient is 1 - exp(-s) L for colour, 1/2 - exp(-s) L for class."""
        slope = torch.tensor([1.0, 0.5], dtype=torch.float64)
        self.log_scale += self.adam.change(slope - torch.exp(-self.log_scale) * checked("losses", losses))


class DynamicWeightAverage(Balance):
    """Dynamic weight average: Liu, Johns and Davison, CVPR 2019.

    With K tasks and the ratio r of the last epoch's training error to the one before it, the factor is
    `K exp(r / T) / sum exp(r / T)`: what falls slowly counts more. Both tasks count 1 in the first two epochs.

    Deviation: the paper leaves open what follows an error of exactly 0; here r is then 1, that of no descent.

    >>> balance = DynamicWeightAverage()
    >>> for errors in ({"colour": 4.0, "class": 2.0}, {"colour": 4.0, "class": 1.0}):
    ...     balance.observe_epoch(errors, errors)
    >>> {task: round(factor, 3) for task, factor in balance.weights().items()}
    {'colour': 1.124, 'class': 0.876}
    """

    errors: Tensor

    def __init__(self, temperature: float = 2.0) -> None:
        """Args: temperature: T, above 0; the larger, the more even."""
        super().__init__()
        self.temperature = _positive("temperature", temperature)
        self.register_buffer("errors", torch.full((2, len(TASKS)), torch.nan, dtype=torch.float64))

    def weights(self) -> dict[str, float]:
        """The softmax above; 1 each until two epochs are known."""
        if self.errors.isnan().any():
            return super().weights()
        before, last = self.errors
        ratio = torch.where(before > 0, last / before, 1.0)
        return _by_task(len(TASKS) * torch.softmax(ratio / self.temperature, dim=0))

    def observe_epoch(self, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Keep the training errors of the last two epochs."""
        self.errors.copy_(torch.stack((self.errors[1], checked("train", train))))


class GradNorm(Balance):
    """Gradient normalisation: Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018.

    With G_i = w_i n_i the norm of task i's weighted gradient, and r_i = L_i / L_i(0) over its mean, w descends
    `sum |G_i - mean(G) r_i^alpha|` whose second term counts as constant: the gradient is
    `sign(G_i - mean(G) r_i^alpha) n_i`. Then w is scaled to sum to the number of tasks.

    Deviations: norms are taken at the shared features, not over the last shared layer's weights. The paper leaves
    w's optimizer open: it is Adam here, so that the step does not hang on the losses' size. w keeps above `FLOOR`,
    for at 0 or below a task would be unlearned. L(0) is that of the first step, even if the encoder is still frozen.

    >>> balance = GradNorm(rate=0.1)
    >>> balance.observe_step({"colour": 4.0, "class": 2.0}, {"colour": 3.0, "class": 1.0})
    >>> {task: round(factor, 3) for task, factor in balance.weights().items()}
    {'colour': 0.9, 'class': 1.1}
    """

    FLOOR = 1e-3
    needs_norms = every_step = True
    factors: Tensor
    first: Tensor

    def __init__(self, alpha: float = 1.5, rate: float = 0.01) -> None:
        """Args: alpha: pull towards equal rates, 0 (equal norms) or more. rate: Adam's learning rate."""
        super().__init__()
        if not (isfinite(alpha) and alpha >= 0):
            raise ConfigError(f"`alpha` should be 0 or more. Found `alpha = {alpha}`.")
        self.alpha = alpha
        self.register_buffer("factors", torch.ones(len(TASKS), dtype=torch.float64))
        self.register_buffer("first", torch.full((len(TASKS),), torch.nan, dtype=torch.float64))
        self.adam = Adam(_positive("rate", rate))

    def weights(self) -> dict[str, float]:
        """The w of each task; they sum to the number of tasks."""
        return _by_task(self.factors)

    def observe_step(self, losses: Mapping[str, float], norms: Mapping[str, float] | None) -> None:
        """One Adam step on w; none without norms, or where no task has any loss left."""
        loss = checked("losses", losses)
        if self.first.isnan().any():
            if not loss.all():
                raise ConfigError(
                    f"`losses` should be above 0 at the first step. Found `losses = {dict(losses)}`."
                )
            self.first.copy_(loss)
        share = loss / self.first
        if norms is None or not share.any():
            return
        norm = checked("norms", norms)
        weighted = self.factors * norm
        target = weighted.mean() * (share / share.mean()) ** self.alpha
        moved = (self.factors + self.adam.change(torch.sign(weighted - target) * norm)).clamp(min=self.FLOOR)
        colour = (len(TASKS) * moved[0] / moved.sum()).clamp(self.FLOOR, len(TASKS) - self.FLOOR)
        self.factors.copy_(torch.stack((colour, len(TASKS) - colour)))


class Adam(nn.Module):
    """Kingma and Ba, ICLR 2015, on a gradient given in closed form, one value a task; moments in buffers."""

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(
        self, rate: float, decays: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        self.rate, self.decays, self.epsilon = rate, decays, epsilon
        self.register_buffer("mean", torch.zeros(len(TASKS), dtype=torch.float64))
        self.register_buffer("square", torch.zeros(len(TASKS), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def change(self, gradient: Tensor) -> Tensor:
        """What to add to the values, (tasks,); updates the moments."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.decays[0])
        self.square.lerp_(gradient.square(), 1 - self.decays[1])
        mean, square = (
            moment / (1 - decay ** self.steps.item())
            for moment, decay in zip((self.mean, self.square), self.decays, strict=True)
        )
        return -self.rate * mean / (square.sqrt() + self.epsilon)


def _by_task(values: Tensor) -> dict[str, float]:
    return dict(zip(TASKS, values.tolist(), strict=True))


def _positive(name: str, value: float) -> float:
    if not (isfinite(value) and value > 0):
        raise ConfigError(f"`{name}` should be above 0. Found `{name} = {value}`.")
    return value


def checked(name: str, values: Mapping[str, float]) -> Tensor:
    """One number a task in the order of TASKS, checked: a negative loss has no likelihood and no ratio."""
    if set(values) != set(TASKS) or not all(isfinite(value) and value >= 0 for value in values.values()):
        raise ConfigError(
            f"`{name}` should be finite and 0 or more for each of {', '.join(TASKS)}. "
            f"Found `{name} = {dict(values)}`. If that is a generator's hinge loss, which can be negative, "
            "take another `colour.gan_loss`, or `tasks.weighting = static`."
        )
    return torch.tensor([values[task] for task in TASKS], dtype=torch.float64)
