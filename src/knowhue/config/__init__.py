"""Every setting of a run: frozen models, checked when made, saved with the run, hashed into its name."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowhue.config.images import Images, Supervision
from knowhue.config.learning import Evaluation, Phase, Tasks, TaskWeights, Training
from knowhue.config.model import Class, Colour, Encoder
from knowhue.config.section import Count, Positive, Section, Share, Task

__all__ = [
    "Class",
    "Colour",
    "Config",
    "Count",
    "Encoder",
    "Evaluation",
    "Images",
    "Phase",
    "Positive",
    "Section",
    "Share",
    "Supervision",
    "Task",
    "TaskWeights",
    "Tasks",
    "Training",
    "digest",
    "fingerprint",
]


class Config(Section):
    """One run: one arm of one study with one seed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="names every random stream of the run"
    )
    arms: tuple[str, ...] = Field(
        default=("colour", "class", "multi"),
        description="what a study compares unless --arms says, see `presets.ARMS`",
    )
    tasks: Tasks = Tasks()
    images: Images = Images()
    supervision: Supervision = Supervision()
    encoder: Encoder = Encoder()
    colour: Colour = Colour()
    class_: Class = Field(default=Class(), alias="class")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @property
    def has_encoder(self) -> bool:
        """Whether the model stands on a pretrained encoder, or is a network from scratch."""
        return "colour" not in self.tasks.names or not self.colour.is_from_scratch

    @model_validator(mode="after")
    def _weighting_gets_what_it_needs(self) -> "Config":
        weighting = self.tasks.weighting
        if weighting == "task_constrained" and self.evaluation.every_epochs != 1:
            raise ValueError(
                "`evaluation.every_epochs` should be 1 where `tasks.weighting = task_constrained`, which looks at the "
                f"validation error of each epoch. Found `evaluation.every_epochs = {self.evaluation.every_epochs}`."
            )
        if weighting == "task_constrained" and self.colour.loss != "l1":
            raise ValueError(
                "`colour.loss` should be l1 where `tasks.weighting = task_constrained`, which compares training and "
                f"validation errors in one unit. Found `colour.loss = {self.colour.loss}`."
            )
        hinge = self.colour.is_adversarial and self.colour.gan_loss == "hinge"
        if weighting in ("uncertainty", "gradnorm") and hinge:
            raise ValueError(
                f"`colour.gan_loss` should be bce or lsgan where `tasks.weighting = {weighting}`, which needs losses "
                "that are never negative. Found `colour.gan_loss = hinge`."
            )
        return self


def digest(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON, 64 hex digits.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(value: Any) -> str:
    """Short name of a value, for folders and files: the first 8 hex digits of its `digest`."""
    return digest(value)[:8]
