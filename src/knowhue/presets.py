"""PRESETS, ARMS and METHODS are nested changes of the default configuration; here they are defined and merged."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from knowhue.arguments import checked_arguments
from knowhue.config import Config, Task
from knowhue.errors import ConfigError, few_lines, one_of, shown
from knowhue.setting_effects import DEFAULTS, USER_TABLES, changed, dotted, without_effect
from knowhue.settings_text import MAX_DEPTH, describe_problem, parse_yaml, read_yaml

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `values` with nested `changes` applied.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    merged = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested and key not in USER_TABLES else value
    return merged


OCEAN_IDS = {
    "coral_reef": "n09256479",
    "jellyfish": "n01910747",
    "king_penguin": "n02056570",
    "sea_slug": "n01950731",
    "seashore": "n09428293",
}

_BOTH = {"names": ("colour", "class")}
THREE_ARMS: dict[str, dict[str, Any]] = {
    "colour": {"tasks": {"names": ("colour",)}},  # first, because its feature cache serves the other arms
    "class": {"tasks": {"names": ("class",)}},
    "multi": {"tasks": _BOTH},
}
FEW_LABELS: dict[str, dict[str, Any]] = {  # the colour task still trains on every image
    f"{arm}-labels{percent}": THREE_ARMS[arm] | {"supervision": {"labelled_share": percent / 100}}
    for percent in (1, 5, 25)
    for arm in ("class", "multi")
}
ARMS: dict[str, dict[str, Any]] = {
    **THREE_ARMS,
    "placebo-labels": {"tasks": _BOTH, "supervision": {"placebo": "labels"}},
    "placebo-colours": {"tasks": _BOTH, "supervision": {"placebo": "colours"}},
    "oracle": {**THREE_ARMS["colour"], "colour": {"oracle": True}},
    "multi-pcgrad": {"tasks": {**_BOTH, "weighting": "pcgrad"}},
    **FEW_LABELS,
}


class Method(NamedTuple):
    """A way to colour."""

    title: str
    source: str
    """authors and year, as cited"""
    settings: Mapping[str, Any]
    """nested settings of the method, without the task"""

    @property
    def edits(self) -> dict[str, Any]:
        """Nested settings of an arm that colours by this method."""
        return {**THREE_ARMS["colour"], **self.settings}


def _on_encoder(title: str, source: str, **colour: Any) -> Method:
    return Method(title, source, {"colour": colour})


def _pix2pix(width: int, **training: Any) -> Method:
    """Cross-entropy, L1 x 100 and a learning rate of 2e-4 for generator and discriminator, as in the paper."""
    peaks = {"learning_rate": 2e-4, "discriminator_learning_rate": 2e-4}
    colour = {"method": "pix2pix", "gan_loss": "bce", "l1_weight": 100.0, "pix2pix": {"width": width}}
    return Method(
        "pix2pix, from scratch",
        "Isola, Zhu, Zhou and Efros 2017",
        # the paper's Adam has no weight decay
        {"colour": colour, "training": {"finetune": peaks, "weight_decay": 0.0, **training}},
    )


def _palette(space: str, learning_rate: float, **settings: Any) -> Method:
    space_name = {"rgb": "RGB", "ab": "a*b*"}[space]
    return Method(
        f"Palette in {space_name}, from scratch",
        "Saharia et al. 2022" + (", in another space" if space == "ab" else ""),
        {
            "colour": {"method": "palette", "palette": {"space": space, **settings}},
            "training": {"finetune": {"learning_rate": learning_rate}},
        },
    )


_PALETTE_PAPER = {  # the network of Dhariwal and Nichol 2021 for 256 pixels
    "width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attentive": 3, "schedule": "linear",
    "steps": 2000, "sampler": "ancestral", "sample_steps": 1000, "average_decay": 0.9999,
}  # fmt: skip

METHODS: dict[str, Method] = {
    "l1": _on_encoder("Feed-forward, L1", "regression", method="feedforward", loss="l1"),
    "l2": _on_encoder("Feed-forward, L2", "regression", method="feedforward", loss="l2"),
    "classification": _on_encoder(
        "Feed-forward, 313 colours",
        "Zhang, Isola and Efros 2016",
        method="feedforward",
        loss="classification",
    ),
    "gan": _on_encoder("GAN, the poster's", "Anjou and Kolodziejczyk; Isola et al. 2017", method="gan"),
    "unet": _on_encoder("GAN with skips from the encoder", "ours; Ronneberger et al. 2015", method="unet"),
    "pix2pix": _pix2pix(32),
    "palette-rgb": _palette("rgb", 1e-3),
    "palette-ab": _palette("ab", 1e-3),
}
"""Methods of `knowhue compare`, in sizes that train in minutes on a CPU at 64 pixels."""

PAPER_METHODS: dict[str, Method] = {
    "pix2pix-paper": _pix2pix(64, batch_size=4),
    "palette-rgb-paper": _palette("rgb", 1e-4, **_PALETTE_PAPER),
    "palette-ab-paper": _palette("ab", 1e-4, **_PALETTE_PAPER),
}
"""Methods in the sizes and at the learning rates of their papers, for GPUs and images of 256 pixels."""
ALL_METHODS = METHODS | PAPER_METHODS


# not the poster's head: its a*b* error was 15.1 CIELAB units, this one's 13.8, see docs/decisions.md
DEFAULT_PRESET = "unet"
"""The preset equal to `Config()`: both tasks, the poster's schedule on a ResNet-18, its head with skip connections."""
_POSTER = {"colour": {"method": "gan"}}
PRESETS: dict[str, Mapping[str, Any]] = {
    DEFAULT_PRESET: {},
    "poster": _POSTER,
    "poster-imagenet": {**_POSTER, "images": {"source": "imagenet", "wordnet_ids": OCEAN_IDS}},
    "label-fraction": {"arms": (*THREE_ARMS, *FEW_LABELS)},
    "demo": {
        "images": {"source": "drawn", "size_px": 64},
        "encoder": {"name": "tf_efficientnet_lite0", "weights": "package"},
        "training": {"shift_px": 4, "heads": {"epochs": 8}, "finetune": {"epochs": 6}},
    },
    # without the tasks, which the arms choose
    **{name: method.settings for name, method in METHODS.items() if name != DEFAULT_PRESET},
    **{name: {**method.settings, "images": {"size_px": 256}} for name, method in PAPER_METHODS.items()},
}


@checked_arguments
def load_config(
    preset: str = DEFAULT_PRESET,
    files: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    under: Mapping[str, Any] = {},
    over: Mapping[str, Any] = {},
) -> Config:
    """Make a configuration: the defaults, then a preset, YAML files and `key=value` settings, later ones overriding.

    Args:
        preset: a key of `PRESETS`.
        files: YAML files with any part of the configuration.
        settings: like `training.heads.epochs=3`; the value is read as YAML.
        under: nested settings applied between the defaults and the preset.
        over: nested settings applied between the preset and the files.

    Raises:
        ConfigError: an unknown preset or key, or a value of the wrong type or range; lists all of them.

    >>> load_config("poster", settings=["training.heads.epochs=3"]).training.heads.epochs
    3
    """
    if preset not in PRESETS:
        raise ConfigError(one_of("preset", preset, PRESETS))
    base = reduce(merge, (under, PRESETS[preset], over), Config().model_dump(by_alias=True))
    written = [*map(read_yaml, map(Path, files)), *map(read_setting, settings)]
    user: dict[str, Any] = reduce(merge, written, {})
    config = checked(Config, merge(base, user))
    # reset the preset's settings that the user's settings leave without effect: the user did not choose them
    idle = without_effect(changed(config).keys() - dict(dotted(user)).keys(), [config])
    return reduce(edit, (_nested(name, DEFAULTS[name]) for name in idle), config)


def edit(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return `config` with nested `changes`, validated.

    >>> edit(Config(), ARMS["class"]).tasks.names
    ('class',)
    """
    # by alias, because changes use `class`, not `class_`
    return checked(Config, merge(config.model_dump(by_alias=True), changes))


def arm_config(config: Config, arm: str) -> Config:
    """Settings of one arm of a study; a `ConfigError` if the arm is unknown or `config` itself chooses the tasks."""
    if arm not in ARMS:
        raise ConfigError(one_of("arm", arm, ARMS))
    require_arms_choose_tasks(config)
    return edit(config, ARMS[arm])


def require_arms_choose_tasks(config: Config) -> None:
    """Raise a `ConfigError` if the shared settings choose the tasks, which is up to the arms."""
    if config.tasks.names != Config().tasks.names:
        raise ConfigError(
            f"`tasks.names` should be left to the arms. Found `tasks.names = [{', '.join(config.tasks.names)}]`. "
            "Choose arms instead: --arms for a study, --arm for `knowhue train`."
        )


def head_tasks(config: Config) -> tuple[Task, ...]:
    """Tasks whose heads are first trained on the frozen encoder; empty for a network without an encoder."""
    return config.tasks.names if config.has_encoder else ()


def head_config(config: Config, task: Task) -> Config:
    """Return the settings that a task's head depends on, with all others at their defaults.

    The share of labels also affects the colour head, because it decides which images are in each batch.
    """
    default = Config().model_dump(by_alias=True)
    # the placebo of the other task does not change this head; a colour head reads labels only as an oracle
    others_placebo = {"colour": None if config.colour.oracle else "labels", "class": "colours"}[task]
    placebo, other_task = config.supervision.placebo, "class" if task == "colour" else "colour"
    changes = {
        "tasks": {**default["tasks"], "names": (task,)},
        # settings of fine-tuning must not change the name of the head's folder, so that arms share the head
        "training": {name: default["training"][name] for name in ("finetune", "shift_px", "degraded_share")},
        "supervision": {"placebo": "none" if placebo == others_placebo else placebo},
        other_task: default[other_task],
    }
    return edit(config, changes)


def checked(model: type[AnyModel], values: Mapping[str, Any]) -> AnyModel:
    """Validate nested values as a settings model; each problem is a line of a `ConfigError`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*few_lines(error.errors(), lambda each: describe_problem(each, model))) from None


def read_setting(
    text: str, option: str = "--set", example: str = "training.heads.epochs=3"
) -> dict[str, Any]:
    """Parse one `key=value`, the value in YAML, as nested settings; anything else raises a `ConfigError`."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise ConfigError(f"`{option}` should look like `{example}`. Found `{option} {shown(text)}`.")
    return _nested(key.strip(), _setting_value(key, value))


def _nested(name: str, value: Any) -> dict[str, Any]:
    return reduce(lambda nested, part: {part: nested}, reversed(name.split(".")), value)


def _setting_value(key: str, text: str) -> Any:
    """Parse a value in YAML; also accept numbers such as `1e-4`, which YAML 1.1 reads as text."""
    try:
        value = parse_yaml(text)
    except ValueError as error:
        if not isinstance(error.args[0], yaml.YAMLError):
            raise ConfigError(
                f"`{shown(key)}` should be a value in YAML. Found `{shown(text)}`: {shown(str(error))}."
            ) from None
        value = text
    if value == text.strip() and value[:1] in "+-.0123456789":  # unquoted text
        with suppress(ValueError):
            return float(value)
    return value
