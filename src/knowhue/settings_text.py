"""Settings that somebody wrote: YAML read within bounds, and what is wrong with a setting in words."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from knowhue.errors import ConfigError, did_you_mean, shown

MAX_YAML_BYTES = 1 << 20
MAX_VALUES, MAX_DEPTH, MAX_BITS = 10_000, 20, 64
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "`key: value` lines",
    "mapping": "`key: value` lines",
    "model": "`key: value` lines",
}
"""What is expected, by the first part of pydantic's name for a value of another type."""


def read_yaml(path: Path, option: str = "--config") -> Mapping[str, Any]:
    """Read a file of nested `key: value` lines, given to an option of the command line.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no text in UTF-8"
        raise ConfigError(f"{path}: {reason}; {option} takes a YAML file") from None
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; {option} takes a YAML file of settings")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        place = shown(" ".join(str(error).split()), 200)
        raise ConfigError(f"{path}: {option} takes valid YAML, not {place}") from None
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, but {option} takes `key: value` lines")
    return values or {}


def parse_yaml(text: str) -> Any:
    """Settings from YAML; what would take for ever to read, or cannot be written again, is refused.

    Raises:
        ValueError: it is no YAML, too much, nested too deeply, or has numbers of more than 64 bits.
    """
    try:
        values = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    except Exception as error:  # PyYAML lets Python's own errors through: of dates, numbers, tags
        raise ValueError(error) from None
    _refuse_unending(values)
    return values


def _refuse_unending(values: Any) -> None:
    """Count values as often as they are referred to, each looked at once: a few lines may stand for billions."""
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise ValueError(f"a number of {value.bit_length()} bits")
        if not isinstance(value, dict | list | tuple | set):
            return 1
        if depth > MAX_DEPTH or sizes.get(id(value)) == 0:
            raise ValueError("values nested too deeply")
        if id(value) not in sizes:
            sizes[id(value)] = 0  # looked at: who meets it again is inside it
            parts = [*value, *value.values()] if isinstance(value, dict) else [*value]
            sizes[id(value)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(value)]

    if size(values, 0) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values, by references to references")


def describe_problem(problem: Any, model: type[BaseModel]) -> str:
    """One sentence, or two, about what pydantic found.

    Args:
        problem: of `ValidationError.errors()`.
        model: that was to be made.
    """
    place = tuple(str(part) for part in problem["loc"])
    key = shown(".".join(place))
    if problem["type"] == "extra_forbidden":
        return f"`{key}` is not a setting. `knowhue config` lists them all.{_nearest_setting(place, model)}"
    if problem["type"] == "missing":
        return f"`{key}` is missing.{_meaning(place, model)}"
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    if place and place[-1] == "[key]":  # of a table
        key, problem = ".".join(place[:-2]), problem | {"input": place[-2]}
    found = shown(problem["input"])
    return f"`{key}` should {_expected(problem)}. Found `{key} = {found}`.{did_you_mean(found, _choices(problem))}"


def _choices(problem: Any) -> list[str]:
    """The values that a setting may have, where they are few."""
    return re.findall("'([^']*)'", problem.get("ctx", {}).get("expected", ""))


def _expected(problem: Any) -> str:
    if problem["type"] == "invalid_key":
        return "be text, as every key"
    if problem["type"] == "literal_error" and _choices(problem):
        return f"be one of {', '.join(_choices(problem))}"
    kind, _, what = problem["type"].partition("_")
    if kind in _WORDS and what.startswith(("type", "parsing", "from_float", "attributes_type")):
        return f"be {_WORDS[kind]}"
    return re.sub(r"^\w+ should | after validation", "", problem["msg"])


def _nearest_setting(place: Sequence[str], model: type[BaseModel]) -> str:
    """The setting that is meant: of the same name elsewhere, else a near one of the same section, else a near one."""
    *above, name = place
    known = list(_settings(model))
    namesakes = [each for each in known if each.rpartition(".")[2] == name]
    siblings = difflib.get_close_matches(name, _fields(_section(above, model)), 1)
    if namesakes or siblings:
        nearest = (
            difflib.get_close_matches(".".join(place), namesakes, 1, 0.0) or [".".join((*above, *siblings))]
        )[0]
        return f" Did you mean `{nearest}`?"
    return did_you_mean(".".join(place), known)


def _meaning(place: Sequence[str], model: type[BaseModel]) -> str:
    field = _fields(_section(place[:-1], model)).get(place[-1])
    return f" It is the {' '.join(field.description.split())}." if field and field.description else ""


def _settings(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Dotted names of all settings and sections below a section."""
    for name, field in _fields(model).items():
        yield above + name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(inner, f"{above}{name}.")


def _section(place: Sequence[str], model: type[BaseModel]) -> type[BaseModel] | None:
    """The model that a dotted place leads to; tables of models are entered by any key."""
    found: Any = model
    for name in place:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = _fields(found).get(name)
            found = field and field.annotation
        elif get_origin(found) is dict:
            found = get_args(found)[1]
        else:
            return None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _fields(model: type[BaseModel] | None) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()} if model else {}
