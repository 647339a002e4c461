"""Settings from YAML that a stranger may have written: read within bounds, or refused in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from knowhue.errors import ConfigError, shown

MAX_YAML_BYTES = 1 << 20
MAX_VALUES, MAX_DEPTH, MAX_BITS = 10_000, 20, 64


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
        raise ConfigError(f"`{option}` should be a readable YAML file. Found `{path}`: {reason}.") from None
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"`{option}` should be a YAML file of at most 1 MiB. Found a larger one, `{path}`.")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        place = shown(" ".join(str(error).split()), 200)
        raise ConfigError(f"`{option}` should be valid YAML. Found in `{path}`: {place}.") from None
    if not isinstance(values, Mapping | None):
        raise ConfigError(
            f"`{option}` should hold `key: value` lines. Found `{path}` with a {type(values).__name__}."
        )
    return values or {}


def parse_yaml(text: str) -> Any:
    """Settings from YAML; what would take for ever, or cannot be written again, is refused.

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
