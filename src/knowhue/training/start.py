"""What a run starts from where `encoder.with_heads` is set: settings, encoder and heads of a trained model.

Importing this needs no torch: settings that contradict the model are refused before anything is loaded.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowhue.arguments import checked_arguments
from knowhue.config import Config, Task, digest
from knowhue.errors import ConfigError, RunError, WeightsError, shown
from knowhue.inference.networks import read_model
from knowhue.presets import DEFAULT_PRESET, PRESETS, edit, load_config
from knowhue.runs import BUILT_IN, DEPLOYED, Start, model_file, read_config, read_start, require_whole
from knowhue.setting_effects import dotted
from knowhue.storage import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from knowhue.models.encoder import Weights

_PARTS = ("encoder.body.", "colour.", "class.")
"""What can be taken; a discriminator is new, as exported models have none."""
_BY_CLASS = ("class.linear.weight", "class.linear.bias")
"""Tensors of a class head with one row a class."""


class Source(NamedTuple):
    """A trained model that runs can start from."""

    name: str
    """`built-in`, the folder of its run, or its file"""
    config: Config
    classes: tuple[str, ...]
    """by label; none where it does not classify"""
    licence: str
    """of its weights, where it states one"""


@checked_arguments
def start_from(
    model: str, preset: str | None = None, files: Sequence[str | Path] = (), settings: Sequence[str] = ()
) -> Config:
    """Settings as `load_config` reads them, for a run that starts from a trained model.

    Encoder, size of the images, class head and colour head (but for its saturation) are the model's where nothing else
    is said.

    Args:
        model: `built-in`, the folder of a finished run or of a study, or a file that `knowhue export` made.
        preset: as of `load_config`, and so the other two; one that says how to colour has to say so as the model does.
        files: YAML files.
        settings: like `training.heads.epochs=3`.

    Raises:
        ConfigError: a setting is wrong, or contradicts the model.
        RunError, WeightsError: there is no such model, or it cannot be started from.

    >>> encoder = start_from("built-in").encoder
    >>> encoder.weights, encoder.with_heads
    ('built-in', True)
    """
    source = find_source(model)
    if preset is not None:
        _require_preset(preset, source)
    # a run instead of its study, whose first finished run may be another one later
    encoder = {"name": source.config.encoder.name, "weights": source.name, "with_heads": True}
    described = source.config.model_dump(by_alias=True)
    # how vivid its colours are made after training, which for the built-in model is for several sizes of a photo
    described["colour"].pop("saturation")
    heads = {task: described[task] for task in source.config.tasks.names}
    size = {"images": {"size_px": source.config.images.size_px}}
    # over the preset, which may have an encoder of its own; its way to colour is the user's wish, as a setting is
    config = load_config(
        preset or DEFAULT_PRESET, files, settings, under={**heads, **size}, over={"encoder": encoder}
    )
    for key in ("weights", "with_heads"):
        if (found := getattr(config.encoder, key)) != encoder[key]:
            raise ConfigError(
                f"`encoder.{key}` should be left to `--start-from {shown(model)}`. Found `encoder.{key} = "
                f"{shown(found)}`. Leave one of the two out."
            )
    require_fit(config)
    return config


def _require_preset(preset: str, source: Source) -> None:
    """Make sure that a preset which says how to colour says so as the model does."""
    is_way_to_colour = preset == DEFAULT_PRESET or "colour" in PRESETS.get(preset, {})
    # before it is laid over the model's settings, where half of each would be told as a fault of the user's
    if is_way_to_colour and "colour" in source.config.tasks.names:
        # how wide, no preset says
        own = edit(load_config(preset), {"colour": {"width": source.config.colour.width}})
        if problems := [] if own.colour.is_from_scratch else _misfits(own, source, {"colour"}):
            raise ConfigError(*(f"`--preset {shown(preset)}`: {each}" for each in problems))


def find_source(name: str) -> Source:
    """What a trained model says of itself.

    Raises:
        RunError, WeightsError: there is none, it is damaged, or no run can start from it.
    """
    path = model_file(name)
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"`--start-from` should be `{BUILT_IN}`, the folder of a run or a study, or a .safetensors file. Found "
            f"`{name}`. Export the model's run with `knowhue export RUN --to safetensors`."
        )
    is_of_run = all((path.parent / each).exists() for each in ("config.json", "status.json"))
    source = _of_run(path.parent) if is_of_run and path.name != DEPLOYED else _of_file(name, path)
    config = source.config
    if not config.has_encoder or (config.colour.oracle and "colour" in config.tasks.names):
        found = "an oracle, which is given the true class" if config.has_encoder else "one without an encoder"
        raise RunError(
            f"`--start-from` should be a model whose encoder and heads serve other runs. Found `{name}`, {found}. Name "
            "a run of another arm, such as colour or multi."
        )
    return source


def _of_run(folder: Path) -> Source:
    require_whole(folder, ("config.json", "model.safetensors"))
    config = read_config(folder)
    # not by `data.prepare`, which needs torch
    summary = folder.parent.parent / "images" / "prepared.json"
    classes = read_json(summary)["classes"] if "class" in config.tasks.names else ()
    start = read_start(folder)
    return Source(str(folder), config, tuple(classes), start.licence if start else "")


def _of_file(name: str, path: Path) -> Source:
    description, _ = read_model(path, "np")
    classes = description.classes if "class" in description.tasks else ()
    inherited = description.start.licence if description.start else ""
    return Source(name, description.config, classes, description.licence or inherited)


def require_fit(config: Config) -> None:
    """Make sure that a run's heads have the form of those that they start from.

    Raises:
        ConfigError: they have another one; each setting that differs is named.
        RunError, WeightsError: there is no such model, or no run can start from it.
    """
    if not config.encoder.with_heads:
        return
    source = find_source(config.encoder.weights)
    if problems := _misfits(config, source, {None, *config.tasks.names} & {None, *source.config.tasks.names}):
        raise ConfigError(*problems)


def _misfits(config: Config, source: Source, tasks: Collection[Task | None]) -> list[str]:
    """What gives the heads of some tasks, None for the encoder, another form than the model's."""
    own, theirs = (dict(dotted(each.model_dump(by_alias=True))) for each in (config, source.config))
    problems = []
    for names, task, form in _FORMS:
        if form(source.config) != form(config) and task in tasks:
            said = ", ".join(f"{name} = {shown(own[name])}" for name in names)
            expected = ", ".join(str(theirs[name]) for name in names)
            problems.append(
                f"`{'` and `'.join(names)}` should be {expected}, as of `{source.name}`, which the run starts from. "
                f"Found `{said}`. Leave it out, or take the encoder alone: --set encoder.weights={source.name}, "
                "without --start-from."
            )
    return problems


_FORMS: tuple[tuple[tuple[str, ...], Task | None, Callable[[Config], Any]], ...] = (
    (("encoder.name",), None, lambda config: config.encoder.name),
    (("colour.width",), "colour", lambda config: config.colour.width),
    (("colour.loss",), "colour", lambda config: config.colour.loss == "classification"),
    (("colour.method", "colour.decoder"), "colour", lambda config: config.colour.has_skips),
    (("class.head",), "class", lambda config: config.class_.head),
)
"""Settings that give a model its form, whose head has it, and what of them does: l1 and l2 train the same head."""


def start_of(config: Config, classes: Sequence[str]) -> Start | None:
    """What a run of these classes takes from a trained model; None where `encoder.with_heads` is not set."""
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


def initial_heads(config: Config, classes: Sequence[str], drawn: "Weights") -> "Weights":
    """What the heads of a run take from a trained model.

    A colour head is taken whole. Of a class head the rows of those classes are taken that bear the same name in both,
    with all that it has of no class; where there are none, the whole head is new.

    Raises:
        WeightsError: the model's tensors are not those that it describes.
    """
    source = find_source(config.encoder.weights)
    parts = _read_parts(source)
    is_known = any(name in source.classes for name in classes)
    taken: dict[str, Tensor] = {}
    for name, own in drawn.items():
        if name.startswith("colour.") and "colour" in source.config.tasks.names:
            taken[name] = _of_shape(parts, name, own.shape, source)
        elif name in _BY_CLASS and is_known:
            value = _of_shape(parts, name, (len(source.classes), *own.shape[1:]), source)
            taken[name] = _with_rows(own, value, classes, source.classes)
        elif name.startswith("class.") and is_known:
            taken[name] = _of_shape(parts, name, own.shape, source)
    return taken


def _read_parts(source: Source) -> "Weights":
    from knowhue.models.encoder import read_parts

    return {name: each for name, each in read_parts(source.name).items() if name.startswith(_PARTS)}


def _of_shape(parts: "Weights", name: str, shape: Sequence[int], source: Source) -> "Tensor":
    found = tuple(parts[name].shape) if name in parts else "none"
    if found != tuple(shape):
        raise WeightsError(
            f"`{source.name}` should hold the heads that it describes. Found `{name}` of shape {found} where "
            f"{tuple(shape)} is described. Export its run again, or train it anew."
        )
    return parts[name]


def _with_rows(drawn: "Tensor", value: "Tensor", classes: Sequence[str], known: Sequence[str]) -> "Tensor":
    """The rows of classes that are known by name, among those that were drawn for the others."""
    rows = drawn.detach().cpu().clone()
    for row, name in enumerate(classes):
        if name in known:
            rows[row] = value[known.index(name)]
    return rows
