"""NEEDS: settings that have an effect only with certain values of others; detection of settings without effect."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from knowhue.config import METHOD_LOSSES, Config
from knowhue.errors import ConfigError, shown

USER_TABLES = ("wordnet_ids",)
"""Settings that are tables with keys chosen by the user, not sections."""


class Need(NamedTuple):
    """The value of another setting that some settings need to have an effect."""

    settings: str
    """dotted names, separated by spaces; a section stands for all its settings"""
    other: str
    """the setting that decides whether they have an effect"""
    wanted: str
    """the value that it should have, in words"""
    is_met: Callable[[Config], bool]


def _either(values: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def _where(settings: str, other: str, *values: str) -> Need:
    return Need(settings, other, _either(values), lambda config: attrgetter(other)(config) in values)


def _with(settings: str, other: str, value: str) -> Need:
    return Need(settings, other, f"a list with {value}", lambda config: value in attrgetter(other)(config))


def _above_0(settings: str, other: str) -> Need:
    return Need(settings, other, "above 0", lambda config: attrgetter(other)(config) > 0)


_SHARING = ("unet", "gan", "feedforward")
_FULLY_LABELLED = ("imagenet", "drawn")
_DISCRIMINATOR = "colour.discriminator_width colour.discriminator_layers"
_HEADS_PEAK, _PEAK = (f"training.{phase}.discriminator_learning_rate" for phase in ("heads", "finetune"))

NEEDS: tuple[Need, ...] = (
    _where("images.path", "images.source", "folder", "imagenet", "huggingface", "webdataset", "parquet"),
    _where("images.wordnet_ids", "images.source", "imagenet"),
    _where("images.image_column", "images.source", "huggingface", "parquet"),
    _where("images.label_column", "images.source", "huggingface", "parquet", "webdataset"),
    _where("images.drawn_count images.drawn_seed images.class_colour", "images.source", "drawn"),
    Need(
        "supervision.labelled_batch_share",
        "supervision.labelled_share",
        "below 1",
        # images from other sources may have no label
        lambda config: config.supervision.labelled_share < 1 or config.images.source not in _FULLY_LABELLED,
    ),
    _with(f"colour tasks.weights.colour {_HEADS_PEAK} {_PEAK}", "tasks.names", "colour"),
    _with("class tasks.weights.class", "tasks.names", "class"),
    Need("tasks.weighting", "tasks.names", "colour and class", lambda config: len(config.tasks.names) > 1),
    _where("tasks.main tasks.stop_strip_epochs tasks.stop_threshold", "tasks.weighting", "task_constrained"),
    _where("tasks.dwa_temperature", "tasks.weighting", "dwa"),
    _where("tasks.gradnorm_alpha", "tasks.weighting", "gradnorm"),
    _where("tasks.weighting_learning_rate", "tasks.weighting", "uncertainty", "gradnorm"),
    Need(
        "encoder training.finetune.encoder_learning_rate training.heads.learning_rate",
        "colour.method",
        _either(_SHARING),
        # a class head uses the encoder whatever the colour method
        lambda config: config.has_encoder,
    ),
    _where("colour.width", "colour.method", *_SHARING),
    _where("colour.decoder", "colour.method", "unet", "feedforward"),
    _where("colour.loss", "colour.method", *(name for name, each in METHOD_LOSSES.items() if len(each) > 1)),
    _where("colour.temperature colour.logit_adjustment", "colour.loss", "classification"),
    _where("colour.l1_weight", "colour.loss", "l1", "l2"),
    _where("colour.l1_weight", "colour.method", *_SHARING, "pix2pix"),
    _where(f"colour.adversarial_weight colour.gan_loss {_PEAK}", "colour.method", "unet", "gan", "pix2pix"),
    _where(f"{_DISCRIMINATOR} {_HEADS_PEAK}", "colour.method", "unet", "gan"),
    _above_0(f"colour.gan_loss {_DISCRIMINATOR} {_HEADS_PEAK} {_PEAK}", "colour.adversarial_weight"),
    _where("colour.pix2pix", "colour.method", "pix2pix"),
    _where("colour.palette", "colour.method", "palette"),
    _above_0("training.heads", "training.heads.epochs"),
    Need(
        "training.finetune training.shift_px training.degraded_share tasks.weighting tasks.weights",
        "training.finetune.epochs",
        "above 0",
        # a network from scratch is fine-tuned for the sum of both phases' epochs
        lambda config: config.training.finetune.epochs > 0 or not config.has_encoder,
    ),
    _with("evaluation.inception_weights", "evaluation.networks", "inception"),
    _with("evaluation.lpips_weights", "evaluation.perceptual", "lpips"),
)
"""One entry per condition. Settings of how much is measured or stored have none."""


def changed(config: Config) -> dict[str, Any]:
    """The settings that differ from their defaults, by dotted name."""
    return differing(_dump(config))


def differing(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested settings that differ from their defaults, by dotted name."""
    return {name: value for name, value in dotted(values) if name not in DEFAULTS or value != DEFAULTS[name]}


def dotted(
    values: Mapping[str, Any], above: str = "", is_for_readers: bool = False
) -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted name; `is_for_readers` also lists the rows of users' tables one by one.

    >>> dict(dotted({"seed": 1, "training": {"heads": {"epochs": 3}}}))
    {'seed': 1, 'training.heads.epochs': 3}
    >>> dict(dotted({"images": {"wordnet_ids": {"cat": "n1"}}}, is_for_readers=True))
    {'images.wordnet_ids.cat': 'n1'}
    """
    for name, value in values.items():
        if isinstance(value, Mapping) and (is_for_readers or name not in USER_TABLES):
            yield from dotted(value, f"{above}{name}.", is_for_readers)
        else:
            yield above + name, value


def without_effect(names: Iterable[str], configs: Sequence[Config]) -> dict[str, list[Need]]:
    """The settings that have no effect in any of the configurations, with their unmet needs in the first one.

    >>> found = without_effect(["colour.temperature", "colour.width"], [Config()])
    >>> {name: [need.other for need in needs] for name, needs in found.items()}
    {'colour.temperature': ['colour.loss']}
    """
    unmet = {name: [_unmet(name, config) for config in configs] for name in names}
    return {name: needs[0] for name, needs in unmet.items() if all(needs)}


def require_effect(names: Iterable[str], configs: Sequence[Config], where: str = "") -> None:
    """Raise `ConfigError` for settings without effect in all configurations, the first of which messages quote."""
    found = {name: f"`{name} = {shown(value)}`" for name, value in dotted(_dump(configs[0]))}
    problems = [
        f"{where}`{name}` should be left at {shown(DEFAULTS[name])} unless {_condition(needs)}; otherwise it has no "
        f"effect. Found {', '.join([found[name], *(found[need.other] for need in needs[:-1])])} and "
        f"{found[needs[-1].other]}."
        for name, needs in without_effect(names, configs).items()
    ]
    if problems:
        raise ConfigError(*problems)


def _unmet(name: str, config: Config) -> list[Need]:
    """The unmet needs of a setting, and the unmet needs of those settings."""
    needs = (need for need in NEEDS if name != need.other and _is_among(name, need.settings.split()))
    unmet = [need for need in needs if not need.is_met(config)]
    for need in unmet:
        unmet += [each for each in _unmet(need.other, config) if each not in unmet]
    return unmet


def _condition(needs: Sequence[Need]) -> str:
    wanted = [f"`{need.other}` is {need.wanted}" for need in needs]
    arms = " (set by --arms or --arm)" if any(need.other == "tasks.names" for need in needs) else ""
    return " and ".join(wanted) + arms


def _is_among(name: str, settings: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in settings)


def _dump(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


DEFAULTS = dict(dotted(_dump(Config())))
"""Default of every setting, by dotted name."""
