"""Runs that start from a trained model (`encoder.with_heads`): its settings, encoder and heads.

Importing this module needs no torch, so that settings that contradict the model are refused before torch is loaded.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowhue.arguments import checked_arguments
from knowhue.config import Config, Task, digest
from knowhue.errors import ConfigError, RunError, WeightsError, should_be, shown
from knowhue.inference.networks import read_model
from knowhue.presets import DEFAULT_PRESET, PRESETS, edit, load_config
from knowhue.runs import BUILT_IN, DEPLOYED, Start, model_file, read_config, read_start, require_intact
from knowhue.setting_effects import dotted
from knowhue.storage import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from knowhue.models.encoder import Weights

_PARTS = ("encoder.body.", "colour.", "class.")
"""Prefixes of tensors that a run can start from; not the discriminator's, which exported models lack."""
_BY_CLASS = ("class.linear.weight", "class.linear.bias")  # tensors with a row for each class


class Source(NamedTuple):
    """A trained model that runs can start from."""

    name: str
    """`built-in`, the folder of its run, or its file"""
    config: Config
    classes: tuple[str, ...]
    """names by label; empty if it does not classify"""
    licence: str
    """licence of its weights; empty if not stated"""


@checked_arguments
def start_from(
    model: str, preset: str | None = None, files: Sequence[str | Path] = (), settings: Sequence[str] = ()
) -> Config:
    """Make the configuration of a run that starts from a trained model.

    By default the encoder, the image size, the class head and the colour head (except its saturation) are the model's.

    Args:
        model: `built-in`, the folder of a finished run or of a study, or a file written by `knowhue export`.
        preset: as in `load_config`; its colour head must have the form of the model's.
        files: YAML files, as in `load_config`.
        settings: like `training.heads.epochs=3`, as in `load_config`.

    Raises:
        ConfigError: a setting is wrong, or contradicts the model.
        RunError, WeightsError: there is no such model, or runs cannot start from it.

    >>> encoder = start_from("built-in").encoder
    >>> encoder.weights, encoder.with_heads
    ('built-in', True)
    """
    source = find_source(model)
    if preset is not None:
        _require_preset(preset, source)
    # by the run's name, because a study's first finished run can be another one later
    encoder = {"name": source.config.encoder.name, "weights": source.name, "with_heads": True}
    model_settings = source.config.model_dump(by_alias=True)
    # applied after training, and the built-in model's is tuned for several sizes of a photo
    model_settings["colour"].pop("saturation")
    heads = {task: model_settings[task] for task in source.config.tasks.names}
    size = {"images": {"size_px": source.config.images.size_px}}
    # the encoder overrides the preset's; the heads do not, because a preset's colour method was chosen by the user
    config = load_config(
        preset or DEFAULT_PRESET, files, settings, under={**heads, **size}, over={"encoder": encoder}
    )
    for key in ("weights", "with_heads"):
        if (value := getattr(config.encoder, key)) != encoder[key]:
            wanted = f"left to `--start-from {shown(model)}`"
            raise ConfigError(should_be(f"encoder.{key}", wanted, value, "Leave one of the two out."))
    require_fit(config)
    return config


def _require_preset(preset: str, source: Source) -> None:
    """Raise a `ConfigError` if a preset's colour head has another form than the model's."""
    has_colour_settings = preset == DEFAULT_PRESET or "colour" in PRESETS.get(preset, {})
    # checked alone, because merged with the model's settings it would be reported as the user's settings
    if has_colour_settings and "colour" in source.config.tasks.names:
        # presets do not set the width
        config = edit(load_config(preset), {"colour": {"width": source.config.colour.width}})
        if problems := [] if config.colour.is_from_scratch else _misfits(config, source, {"colour"}):
            raise ConfigError(*(f"`--preset {shown(preset)}`: {problem}" for problem in problems))


def find_source(name: str) -> Source:
    """Find a trained model and read its description; raises a `KnowhueError` if runs cannot start from it."""
    path = model_file(name)
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"`--start-from` should be `{BUILT_IN}`, the folder of a run or a study, or a .safetensors file, which "
            f"`knowhue export` writes. Found `{name}`."
        )
    is_in_run = all((path.parent / each).exists() for each in ("config.json", "status.json"))
    source = _run_source(path.parent) if is_in_run and path.name != DEPLOYED else _file_source(name, path)
    config = source.config
    if not config.has_encoder or (config.colour.oracle and "colour" in config.tasks.names):
        found = "an oracle, which is given the true class" if config.has_encoder else "one without an encoder"
        raise RunError(f"`--start-from` should be a run that others can start from. Found `{name}`, {found}.")
    return source


def _run_source(folder: Path) -> Source:
    require_intact(folder, ("config.json", "model.safetensors"))
    config = read_config(folder)
    # read here, because `data.prepare` needs torch
    summary = folder.parent.parent / "images" / "prepared.json"
    classes = read_json(summary)["classes"] if "class" in config.tasks.names else ()
    start = read_start(folder)
    return Source(str(folder), config, tuple(classes), start.licence if start else "")


def _file_source(name: str, path: Path) -> Source:
    description, _ = read_model(path, "np")
    classes = description.classes if "class" in description.tasks else ()
    inherited = description.start.licence if description.start else ""
    return Source(name, description.config, classes, description.licence or inherited)


def require_fit(config: Config) -> None:
    """Raise a `ConfigError` unless a run's encoder and heads have the form of the model that they start from."""
    if not config.encoder.with_heads:
        return
    source = find_source(config.encoder.weights)
    if problems := _misfits(config, source, {None, *config.tasks.names} & {None, *source.config.tasks.names}):
        raise ConfigError(*problems)


def _misfits(config: Config, source: Source, tasks: Collection[Task | None]) -> list[str]:
    """Problems with settings that give a task's head, or the encoder (None), another form than the model's."""
    ours, theirs = (dict(dotted(each.model_dump(by_alias=True))) for each in (config, source.config))
    problems = []
    for names, task, form in _FORMS:
        if form(source.config) != form(config) and task in tasks:
            found = ", ".join(f"{name} = {shown(ours[name])}" for name in names)
            expected = ", ".join(str(theirs[name]) for name in names)
            problems.append(
                f"`{'` and `'.join(names)}` should be {expected}, as in `{source.name}`. Found `{found}`. Leave the "
                f"setting out, or take only the encoder, by --set encoder.weights={source.name}."
            )
    return problems


_FORMS: tuple[tuple[tuple[str, ...], Task | None, Callable[[Config], Any]], ...] = (
    (("encoder.name",), None, lambda config: config.encoder.name),
    (("colour.width",), "colour", lambda config: config.colour.width),
    (("colour.loss",), "colour", lambda config: config.colour.loss == "classification"),
    (("colour.method", "colour.decoder"), "colour", lambda config: config.colour.has_skips),
    (("class.head",), "class", lambda config: config.class_.head),
)
"""Settings that determine a model's form, the task whose head they shape, and the part of their values that matters: l1
and l2, for example, train the same head."""


def start_of(config: Config, classes: Sequence[str]) -> Start | None:
    """Describe what a run with these classes takes from a trained model; None unless `encoder.with_heads` is set."""
    from knowhue.models.encoder import tensors_digest

    if not config.encoder.with_heads:
        return None
    source = find_source(config.encoder.weights)
    tasks = set(config.tasks.names) & set(source.config.tasks.names)
    known = [name for name in classes if name in source.classes]
    return Start(
        model=source.name,
        sha256=digest([tensors_digest(_read_parts(source)), source.classes]),
        licence=source.licence,
        colour="colour" in tasks,
        classes=tuple(known) if "class" in tasks else (),
        new_classes=len(classes) - len(known) if "class" in config.tasks.names else 0,
    )


def initial_heads(config: Config, classes: Sequence[str], random: "Weights") -> "Weights":
    """Take the heads of a run from a trained model.

    The colour head is taken as a whole. The class head is taken with the rows of those classes that have the same name
    in both; new classes keep their rows of `random`, the run's initial weights. If all classes are new, so is the head.
    """
    source = find_source(config.encoder.weights)
    parts = _read_parts(source)
    common = [(row, source.classes.index(name)) for row, name in enumerate(classes) if name in source.classes]
    has_colour = "colour" in source.config.tasks.names
    heads: dict[str, Tensor] = {}
    for name, tensor in random.items():
        if name in _BY_CLASS and common:
            trained = _tensor(parts, name, (len(source.classes), *tensor.shape[1:]), source)
            heads[name] = tensor.detach().cpu().clone()
            for row, their_row in common:
                heads[name][row] = trained[their_row]
        elif (name.startswith("class.") and common) or (name.startswith("colour.") and has_colour):
            heads[name] = _tensor(parts, name, tensor.shape, source)
    return heads


def _read_parts(source: Source) -> "Weights":
    from knowhue.models.encoder import read_parts

    return {name: each for name, each in read_parts(source.name).items() if name.startswith(_PARTS)}


def _tensor(parts: "Weights", name: str, shape: Sequence[int], source: Source) -> "Tensor":
    found = tuple(parts[name].shape) if name in parts else "none"
    if found != tuple(shape):
        raise WeightsError(
            f"`{source.name}` should hold the heads of its description. Found `{name}` of shape {found}."
        )
    return parts[name]
