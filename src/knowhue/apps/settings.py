"""The whole effective configuration as YAML, each setting with its meaning beside it."""

from typing import Any

import yaml
from pydantic import BaseModel


def explain(config: BaseModel) -> str:
    """YAML that `--config`, or `--plan`, reads back to the same settings.

    >>> from knowhue.config import Config
    >>> print(explain(Config()).splitlines()[0].split("#")[0].strip())
    seed: 0
    """
    return "\n".join(_lines(config, 0))


def _lines(section: BaseModel, depth: int) -> list[str]:
    lines: list[str] = []
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        key, value = field.alias or name, getattr(section, name)
        if isinstance(value, BaseModel):
            lines += [f"{indent}{key}:", *_lines(value, depth + 1)]
            continue
        if isinstance(value, dict) and value:  # named entries, such as arms
            lines += [f"{indent}{key}:  # {field.description}", *_entries(value, depth + 1)]
            continue
        setting = f"{indent}{key}: {_inline(value)}"
        lines.append(f"{setting:<44}  # {field.description}" if field.description else setting)
    return lines


def _entries(entries: dict[str, Any], depth: int) -> list[str]:
    lines: list[str] = []
    for name, value in entries.items():
        if isinstance(value, BaseModel):
            lines += [f"{'  ' * depth}{_inline(name)}:", *_lines(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{_inline(name)}: {_inline(value)}")
    return lines


def _inline(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
