"""Settings as users write them: bounded reading of YAML, numbers, and messages about invalid settings."""

import difflib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from knowhue.errors import ConfigError, did_you_mean, shown, system_reason
from knowhue.storage import from_json

MAX_YAML_BYTES = 1 << 20
MAX_VALUES, MAX_DEPTH, MAX_BITS = 10_000, 20, 64
_NOT_DECIMAL = re.compile(r"[-+]?0[0-9a-zA-Z]+$")
_SEPARATORS = re.compile(r"[,.'’_\s%]")  # signs that people write between digits or after a number
_Number = TypeVar("_Number", int, float)
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list such as `[a, b]`",
    "list": "a list such as `[a, b]`",
    "dict": "`key: value` lines",
    "mapping": "`key: value` lines",
    "model": "a section of `key: value` lines",
}
"""The expected type in words, by the first part of pydantic's name for the error."""


def read_yaml(path: Path, option: str = "--config", kind: str = "a YAML file") -> Mapping[str, Any]:
    """Read the YAML file of an option, nested `key: value` lines; `ConfigError` if it has other content."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = system_reason(error) if isinstance(error, OSError) else "not text in UTF-8"
        raise ConfigError(f"{path}: {reason}; {option} takes {kind}") from None
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; {option} takes a YAML file of settings")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        place = shown(" ".join(str(error).split()), 200)
        raise ConfigError(f"{path}: {option} takes valid YAML. Found: {place}") from None
    if not isinstance(values, Mapping | None):
        found = {str: "text", list: "a list"}.get(type(values), "one value")
        raise ConfigError(f"{path}: holds {found}, but {option} takes `key: value` lines")
    return values or {}


class _Loader(yaml.SafeLoader):
    """Refuses what YAML silently misreads: it keeps the last of duplicate keys, and reads `012` as 10, `1:30` as 90."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [name for (_, name), count in keys.items() if count > 1]:
            line = node.start_mark.line + 1
            raise ValueError(f"the key `{shown(twice[0])}` twice, in the block from line {line} on")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > 2 * MAX_BITS:  # Python's own message is about its limit
            raise ValueError(f"a number of {len(node.value):,} signs")
        return self._require_decimal(node, super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return self._require_decimal(node, super().construct_yaml_float(node))

    def _require_decimal(self, node: yaml.ScalarNode, number: _Number) -> _Number:
        """The number, if it is written in plain decimals."""
        if "_" in node.value or ":" in node.value or _NOT_DECIMAL.match(node.value):
            raise ValueError(
                f"`{shown(node.value)}`, which YAML reads as {shown(number)}; write the number that is meant in plain "
                "decimals without a 0 in front, or quotes around it if it is a name"
            )
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def parse_yaml(text: str) -> Any:
    """Parse settings from YAML, within limits on size and on what can be written back; else a `ValueError`."""
    try:
        values = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    except Exception as error:  # PyYAML does not wrap Python's errors about dates, numbers and tags
        raise ValueError(_describe_yaml_error(error, text.splitlines())) from None
    # references count each time: with aliases, a few lines can stand for billions of values, or contain themselves
    for count, (value, depth) in enumerate(_walk(values)):
        if count >= MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError("values nested too deeply")
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise ValueError(f"a number of {value.bit_length()} bits")
    return values


def inline_yaml(value: Any) -> str:
    """A setting's value as one line of YAML.

    >>> inline_yaml(("colour", "class")), inline_yaml(None), inline_yaml(True), inline_yaml(0.5)
    ('[colour, class]', 'null', 'true', '0.5')
    """
    value = list(value) if isinstance(value, tuple) else value
    # PyYAML folds long lines, and ends a lone scalar with `...`
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _describe_yaml_error(error: Exception, lines: Sequence[str]) -> str:
    """The invalid line and the reason; for an unexpected end, the line of the bracket or quote that was not closed."""
    marks = (error.problem_mark, error.context_mark) if isinstance(error, yaml.MarkedYAMLError) else ()
    for number in (mark.line for mark in marks if mark is not None):
        if line := "".join(lines[number : number + 1]).strip():
            return f"line {number + 1}, `{shown(line)}`: {getattr(error, 'problem', '')}"
    return str(error).partition(' in "<')[0]  # the text has no file name


def parse_json(text: str) -> Any:
    """Parse a user's JSON; `ValueError` for a duplicate key, because readers silently keep the last one."""
    return from_json(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key `{shown(twice)}` twice in one object")
    return found


def plain_name(name: str) -> str:
    r"""A name with composed Unicode letters (NFC), so that equal names are equal text.

    >>> plain_name("e\u0301tang") == "\u00e9tang"  # macOS stores accents as separate characters
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def parse_number(value: Any) -> float:
    """A user's text or the cell of a table as a number; NaN if it is not one.

    >>> parse_number(" 0.8"), parse_number("8e-3"), parse_number("0_8"), parse_number("0,8"), parse_number(True)
    (0.8, 0.008, nan, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return math.nan
    # only Python accepts `_` between digits, and digits of other scripts
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def number_advice(value: Any) -> str:
    """Advice on how to write a number that `parse_number` refuses, such as `0,8`; empty if it is no number at all.

    >>> number_advice("0,8") == number_advice("806,440.9") == number_advice("1.5 %")
    True
    >>> number_advice("0,8"), number_advice("0.8"), number_advice("much")
    ('Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %.', '', '')
    """
    text = str(value)
    if math.isnan(parse_number(text)) and math.isfinite(parse_number(_SEPARATORS.sub("", text))):
        return "Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %."
    return ""


def _walk(value: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    """A value and all nested values and keys, each with its depth."""
    yield value, depth
    if isinstance(value, dict | list | tuple | set):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _walk(part, depth + 1)


def describe_problem(problem: Any, model: type[BaseModel]) -> str:
    """One or two sentences about an error of pydantic."""
    place = tuple(str(part) for part in problem["loc"])
    key = shown(".".join(place))
    if problem["type"] == "extra_forbidden":
        listed = getattr(model, "LISTED", "")
        return f"`{key}` is not a setting. {listed}{_nearest_setting(place, model)}"
    if problem["type"] == "missing":
        meaning = _settings(model, place).get(".".join(place))
        return f"`{key}` is missing.{f' Meaning: {meaning}.' if meaning else ''}"
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    if place and place[-1] == "[key]":  # an invalid key of a table
        key, problem = ".".join(place[:-2]), problem | {"input": place[-2]}
    found, kind = shown(problem["input"]), problem["type"].partition("_")[0]
    meant = number_advice(found) if kind in ("int", "float") else ""
    ending = f" {meant}" if meant else did_you_mean(found, _choices(problem))
    return f"`{key}` should {_expectation(problem)}. Found `{key} = {found}`.{ending}"


def _choices(problem: Any) -> list[str]:
    return re.findall("'([^']*)'", problem.get("ctx", {}).get("expected", ""))


def _expectation(problem: Any) -> str:
    if problem["type"] == "invalid_key":
        return "be text, as every key"
    if problem["type"] == "literal_error" and _choices(problem):
        return f"be one of {', '.join(_choices(problem))}"
    kind, _, what = problem["type"].partition("_")
    if kind in _TYPE_NAMES and what.startswith(("type", "parsing", "from_float", "attributes_type")):
        return f"be {_TYPE_NAMES[kind]}"
    return re.sub(r"^\w+ should | after validation", "", problem["msg"])


def _nearest_setting(place: Sequence[str], model: type[BaseModel]) -> str:
    """A suggestion: a setting of the same name in another section, or a similar one."""
    key, known = ".".join(place), list(_settings(model, place))
    namesakes = [each for each in known if each.rpartition(".")[2] == place[-1]]
    if not namesakes:
        return did_you_mean(key, known)
    # a single word is more likely a setting than a section
    near = difflib.get_close_matches(key, known, 1) if len(place) > 1 else []
    (meant,) = difflib.get_close_matches(key, [*namesakes, *near], 1, cutoff=0.0)
    return f" Did you mean `{meant}`?"


def _settings(model: type[BaseModel], place: Sequence[str], above: tuple[str, ...] = ()) -> dict[str, str]:
    """Descriptions of all settings and sections by dotted name; of a table, only of the entry that `place` names."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        here, inner = (*above, field.alias or name), field.annotation
        found[".".join(here)] = meaning_of(field)
        if get_origin(inner) is dict and len(place) > len(here):
            inner, here = get_args(inner)[1], (*here, place[len(here)])
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= _settings(inner, place, here)
    return found


def meaning_of(field: FieldInfo) -> str:
    """The description of a setting on one line; empty if there is none."""
    return " ".join((field.description or "").split())
