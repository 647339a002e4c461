"""Settings of learning: which tasks share how, the schedule, and what is measured."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from knowhue.config.section import Count, Positive, Section, Task


class TaskWeights(Section):
    """What each task's loss counts in the sum that the shared encoder is trained on."""

    colour: Positive = Field(default=1.0, description="weight of the colour task's loss")
    class_: Positive = Field(default=10.0, alias="class", description="weight of the class task's loss")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Tasks(Section):
    """What the model is trained to do, and what each task counts in the sum that the shared encoder is trained on."""

    names: tuple[Task, ...] = Field(default=("colour", "class"), description="colour, class, or both")
    weights: TaskWeights = TaskWeights()
    weighting: Literal[
        "static", "uncertainty", "dwa", "gradnorm", "task_constrained",
        "pcgrad", "mgda", "cagrad", "imtlg", "alignedmtl",
    ] = Field(
        default="static",
        description="fine-tuning of two tasks, on top of the weights: static (nothing), balanced losses (uncertainty, "
        "dwa, gradnorm), an auxiliary task that stops (task_constrained), or joined gradients (pcgrad, mgda, cagrad, "
        "imtlg, alignedmtl; all but cagrad need the extra `aggregators`)",
    )  # fmt: skip
    main: Task = Field(default="colour", description="task_constrained: the task that never stops")
    stop_strip_epochs: Count = Field(
        default=5,
        description="task_constrained: epochs over which the auxiliary task's training error is judged",
    )
    stop_threshold: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="task_constrained: the criterion above which the auxiliary task stops"
    )
    dwa_temperature: Positive = Field(default=2.0, description="dwa: the larger, the more even")
    gradnorm_alpha: Annotated[float, Field(ge=0)] = Field(
        default=1.5, description="gradnorm: pull towards equal rates of learning; 0 asks for equal norms"
    )
    weighting_learning_rate: Positive = Field(
        default=0.01, description="uncertainty, gradnorm: learning rate (Adam) of the factors"
    )

    @model_validator(mode="after")
    def _names_are_a_set(self) -> "Tasks":
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"`tasks.names` should name colour, class or both, each once. Found `tasks.names = {self.names}`."
            )
        return self


class Phase(Section):
    """One stretch of training: how long and how fast."""

    epochs: Annotated[int, Field(ge=0)] = Field(description="passes over the training images")
    learning_rate: Positive = Field(
        description="peak learning rate of the heads (AdamW, cosine decay to a tenth)"
    )
    encoder_learning_rate: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="the same of the encoder; 0 is frozen"
    )
    discriminator_learning_rate: Positive = Field(default=2e-4, description="the same of the discriminator")


class Training(Section):
    """Schedule, batches and arithmetic."""

    batch_size: Annotated[int, Field(ge=2)] = Field(
        default=32, description="images a step, over all processes"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="AdamW's decoupled decay")
    shift_px: Annotated[int, Field(ge=0)] = Field(
        default=6, description="fine-tuning: images move by up to this many pixels, edges reflected"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="arithmetic of the networks; auto is bfloat16 where the device has it"
    )
    cache_gib: Annotated[float, Field(ge=0)] = Field(
        default=8.0,
        description="disk for cached features of the frozen encoder; GiB; beyond it they are recomputed",
    )
    heads: Phase = Field(
        default=Phase(epochs=30, learning_rate=1e-3), description="encoder frozen, heads only"
    )
    finetune: Phase = Field(
        default=Phase(epochs=15, learning_rate=3e-4, encoder_learning_rate=1e-4),
        description="everything trains",
    )

    @model_validator(mode="after")
    def _phases_mean_what_they_say(self) -> "Training":
        if self.heads.encoder_learning_rate:
            raise ValueError(
                "`training.heads.encoder_learning_rate` should be 0: the encoder is frozen in that phase. "
                f"Found `training.heads.encoder_learning_rate = {self.heads.encoder_learning_rate}`. Use "
                "`training.finetune.encoder_learning_rate`."
            )
        if not self.heads.epochs + self.finetune.epochs:
            raise ValueError("`training.heads.epochs` and `training.finetune.epochs` should not both be 0.")
        return self


class Evaluation(Section):
    """What is measured beyond the scores of single images; training does not depend on it."""

    every_epochs: Annotated[int, Field(ge=0)] = Field(
        default=1, description="epochs between scores of the validation images; 0 scores only at the end"
    )
    split: Literal["auto", "validation"] = Field(
        default="auto",
        description="split that final scores are from: auto is test where there is one; validation leaves test alone",
    )
    recognition: bool = Field(
        default=False,
        description="how often a classifier of true-colour images recognises the colourings, per network",
    )
    networks: tuple[Literal["lite0", "inception"], ...] = Field(
        default=("lite0",),
        description="networks of the distances between sets of images; lite0, inception (needs the extra `fid`)",
    )
    diagnose_every_steps: Annotated[int, Field(ge=0)] = Field(
        default=25, description="fine-tuning of two tasks: steps between looks at their gradients; 0 is never"
    )
    gradient_batches: Annotated[int, Field(ge=0)] = Field(
        default=4,
        description="training batches on which each loss's gradient at the encoder is measured, before fine-tuning and "
        "after; 0 is never",
    )
    inception_weights: str | None = Field(
        default=None,
        description="file of torch-fidelity's Inception-v3 weights for FID and KID; null downloads them",
    )
    perceptual: tuple[Literal["stlpips", "lpips"], ...] = Field(
        default=("stlpips",),
        description="how far each colouring looks from its image; stlpips, lpips (need the extra `perceptual`)",
    )
    lpips_weights: str | None = Field(
        default=None, description="file of torchvision's AlexNet weights for LPIPS; null downloads them"
    )
