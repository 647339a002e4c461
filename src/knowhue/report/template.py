"""The pages' templates, which escape what they are given and refuse what they are not."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def fill(template: str, **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: a file of this package; the common style is `css` in it.
        values: what else it names.
    """
    environment = Environment(
        loader=PackageLoader("knowhue.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup(environment.loader.get_source(environment, "page.css")[0])  # type: ignore[union-attr]
    return environment.get_template(template).render(css=css, **values)
