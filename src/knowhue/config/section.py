"""What every group of settings is, and the ranges that several share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["colour", "class"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
