"""Reading the description that lies with a model's weights, whatever runs them."""

from pathlib import Path

from pydantic import ValidationError

from knowhue.description import Description
from knowhue.errors import WeightsError

KEY = "knowhue"
"""Under which a file's metadata holds the description, as JSON."""


def read_description(text: str | None, path: Path) -> Description:
    """The description stored with weights.

    Raises:
        WeightsError: there is none, or a later version of knowhue wrote it.
    """
    if text is None:
        raise WeightsError(
            f"`{path}` should be a model that `knowhue export` made. Found weights without a description: a run's "
            "model.safetensors is not one; export its run folder."
        )
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(
            f"`{path}` should be described as this version of knowhue does. Found at "
            f"`{'.'.join(map(str, first['loc']))[:80]}`: {first['msg'][:200]}. "
            "Upgrade knowhue, or export the run again."
        ) from None
