"""Every setting of a run: frozen models, checked when made, saved with the run, hashed into its name."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["colour", "class"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pictures(Section):
    """Where pictures come from and how they are made ready."""

    source: Literal["folder", "imagenet", "huggingface", "drawn"] = Field(
        default="folder", description="kind of source; `knowhue study PATH` implies a folder"
    )
    path: str | None = Field(
        default=None, description="folder, root of a local ImageNet tree, or name of a Hugging Face dataset"
    )
    wordnet_ids: dict[str, str] = Field(
        default_factory=dict, description="class name to WordNet id, for `source: imagenet`"
    )
    image_column: str = Field(default="image", description="Hugging Face: column of the pictures")
    label_column: str = Field(default="label", description="Hugging Face: column of the labels")
    size_px: Annotated[int, Field(ge=16, le=1024)] = Field(
        default=96, description="side of the square pictures, pixels"
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share split off per class where the source has no validation part"
    )
    split_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of that split")
    min_colourfulness: Annotated[float, Field(ge=0)] = Field(
        default=4.0,
        description="Hasler-Suesstrunk colourfulness (0 to about 110) below which a picture is near-gray",
    )
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=16)] = Field(
        default=8,
        description="bits of 64 that perceptual hashes of copies may differ in; 0 finds only equal pixels",
    )
    min_per_class: Count = Field(default=10, description="labelled training pictures that each class needs")
    drawn_count: Count = Field(default=1500, description="drawn: pictures, training and validation together")
    drawn_seed: Annotated[int, Field(ge=0)] = Field(default=0, description="drawn: seed of the set")
    class_colour: Share = Field(
        default=0.8, description="drawn: how far colour follows from class given the lightness, 0 to 1"
    )


class Supervision(Section):
    """What the training pictures teach. Validation pictures always keep the truth."""

    labelled_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each class's training labels that are known; the rest trains colour only",
    )
    placebo: Literal["none", "labels", "colours"] = Field(
        default="none",
        description="control: `labels` are shuffled over the pictures, or `colours` are another picture's",
    )


class Encoder(Section):
    """The shared base: a pretrained feature extractor that sees gray."""

    name: str = Field(
        default="resnet18",
        description="shared base: resnet18, resnet34, resnet50, convnext_tiny, tf_efficientnet_lite0",
    )
    weights: str = Field(
        default="pretrained",
        description="`pretrained` (from the hub), `package` (from a pip package), a file, a run folder, or `none`",
    )


class Colour(Section):
    """The colour task: a conditional GAN with an L1 term, or plain feed-forward learning."""

    method: Literal["gan", "feedforward"] = Field(
        default="gan",
        description="gan (conditional, with L1) or feedforward (no opponent, adversarial settings do not count)",
    )
    loss: Literal["l1", "l2", "classification"] = Field(
        default="l1",
        description="feedforward: l1, l2, or classification of 313 rebalanced colours (Zhang et al. 2016)",
    )
    decoder: str = Field(default="unet", description="head from features to chroma, see `decoders.DECODERS`")
    width: Count = Field(
        default=32, description="channels of the decoder's last stage; doubles towards the base"
    )
    gan_loss: Literal["bce", "lsgan", "hinge"] = Field(default="lsgan", description="adversarial loss")
    adversarial_weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="weight of the generator's adversarial loss; 0 leaves plain regression"
    )
    l1_weight: Annotated[float, Field(ge=0)] = Field(
        default=100.0,
        description="weight of the l1 or l2 error, chroma scaled by 1/110 (pix2pix uses 100)",
    )
    discriminator_width: Count = Field(default=32, description="channels of the discriminator's first layer")
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = Field(
        default=3, description="stride-2 layers of the PatchGAN; 3 see 46 pixels"
    )

    @model_validator(mode="after")
    def _opponent_and_loss_agree(self) -> "Colour":
        if self.method == "gan" and self.loss != "l1":
            raise ValueError(
                "`colour.loss` should be l1 where `colour.method = gan`. "
                f"Found `colour.loss = {self.loss}`. For it: --set colour.method=feedforward"
            )
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the colour head has an opponent."""
        return self.method == "gan" and self.adversarial_weight > 0


class Class(Section):
    """The classification task."""

    head: Literal["linear", "attention"] = Field(
        default="linear", description="what pools the coarsest map: its mean (linear), or learned attention"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="cross-entropy smoothing"
    )


class TaskWeights(Section):
    """What each task's loss counts in the sum that the shared base is trained on."""

    colour: Positive = Field(default=1.0, description="weight of the colour task's loss")
    class_: Positive = Field(default=10.0, alias="class", description="weight of the class task's loss")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Phase(Section):
    """One stretch of training: how long and how fast."""

    epochs: Annotated[int, Field(ge=0)] = Field(description="passes over the training pictures")
    rate: Positive = Field(description="peak learning rate of the heads (AdamW, cosine decay to a tenth)")
    base_rate: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="the same of the base; 0 is frozen"
    )
    discriminator_rate: Positive = Field(default=2e-4, description="the same of the discriminator")


class Training(Section):
    """Schedule, batches and arithmetic."""

    batch_size: Annotated[int, Field(ge=2)] = Field(
        default=32, description="pictures a step, over all processes"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="AdamW's decoupled decay")
    shift_px: Annotated[int, Field(ge=0)] = Field(
        default=6, description="fine-tuning: pictures move by up to this many pixels, edges reflected"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="arithmetic of the networks; auto is bfloat16 where the device has it"
    )
    aggregator: Literal["sum", "cagrad", "pcgrad", "mgda", "imtlg", "alignedmtl"] = Field(
        default="sum",
        description="how two tasks' gradients join at the features; all but sum and cagrad need knowhue[aggregators]",
    )
    cache_gib: Annotated[float, Field(ge=0)] = Field(
        default=8.0,
        description="disk for cached features of the frozen base; GiB; beyond it they are recomputed",
    )
    heads: Phase = Field(default=Phase(epochs=30, rate=1e-3), description="base frozen, heads only")
    finetune: Phase = Field(
        default=Phase(epochs=15, rate=3e-4, base_rate=1e-4), description="everything trains"
    )

    @model_validator(mode="after")
    def _phases_mean_what_they_say(self) -> "Training":
        if self.heads.base_rate:
            raise ValueError(
                "`training.heads.base_rate` should be 0: the base is frozen in that phase. "
                f"Found `training.heads.base_rate = {self.heads.base_rate}`. Use `training.finetune.base_rate`."
            )
        if not self.heads.epochs + self.finetune.epochs:
            raise ValueError("`training.heads.epochs` and `training.finetune.epochs` should not both be 0.")
        return self


class Evaluation(Section):
    """What is measured beyond the scores of single pictures; training does not depend on it."""

    networks: tuple[Literal["lite0", "inception"], ...] = Field(
        default=("lite0",),
        description="networks of the distances between sets of pictures; lite0, inception (needs knowhue[fid])",
    )
    diagnose_every_steps: Annotated[int, Field(ge=0)] = Field(
        default=25, description="fine-tuning of two tasks: steps between looks at their gradients; 0 is never"
    )
    inception_weights: str | None = Field(
        default=None,
        description="file of torch-fidelity's Inception-v3 weights for FID and KID; null downloads them",
    )
    perceptual: tuple[Literal["stlpips", "lpips"], ...] = Field(
        default=("stlpips",),
        description="how far each colouring looks from its picture; stlpips, lpips (need knowhue[perceptual])",
    )
    lpips_weights: str | None = Field(
        default=None, description="file of torchvision's AlexNet weights for LPIPS; null downloads them"
    )


class Config(Section):
    """One run: one arm of one study with one seed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="names every random stream of the run"
    )
    tasks: tuple[Task, ...] = Field(
        default=("colour", "class"), description="what this model is trained to do"
    )
    task_weights: TaskWeights = TaskWeights()
    pictures: Pictures = Pictures()
    supervision: Supervision = Supervision()
    encoder: Encoder = Encoder()
    colour: Colour = Colour()
    class_: Class = Field(default=Class(), alias="class")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _tasks_are_a_set(self) -> "Config":
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"`tasks` should name colour, class or both, each once. Found `tasks = {self.tasks}`."
            )
        return self


def fingerprint(value: Any) -> str:
    """Short name of a value: the first 8 hex digits of the SHA-256 of its canonical JSON.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
