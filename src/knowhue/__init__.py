"""Knowhue: does a model colour better when it knows what it is looking at?

The public names are loaded on first use, so that `import knowhue` is fast.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "ColorizeOptions": "knowhue.inference.colorizer",
    "Colorizer": "knowhue.inference.colorizer",
    "Config": "knowhue.config",
    "Hint": "knowhue.inference.hints",
    "deploy": "knowhue.training.deploy",
    "evaluate_run": "knowhue.training.run",
    "load_config": "knowhue.presets",
    "make_comparison": "knowhue.plan",
    "make_plan": "knowhue.plan",
    "prepare": "knowhue.data.prepare",
    "read_image": "knowhue.images.reading",
    "run_study": "knowhue.study",
    "start_from": "knowhue.training.start",
    "train": "knowhue.training.run",
    "write_colorized": "knowhue.inference.colorizer",
    "write_image": "knowhue.images.writing",
    "write_report": "knowhue.report.page",
}
"""The module that defines each public name."""

# linters expect a literal list, which would repeat the names
__all__ = [*_MODULES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name from its module the first time it is used."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'knowhue' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Include the public names, so that completion in a notebook finds them before their first use."""
    return sorted({*globals(), *__all__})
