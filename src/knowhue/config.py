"""Every setting of a run: frozen models, checked when made, saved with the run, hashed into its name."""

import hashlib
import json
from collections.abc import Mapping
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


class Pix2Pix(Section):
    """The network of `colour.method=pix2pix`."""

    width: Count = Field(default=64, description="channels at half size and of its discriminator; paper: 64")


class Palette(Section):
    """The diffusion of `colour.method=palette`; the paper's size is the preset palette-rgb-paper."""

    space: Literal["rgb", "ab"] = Field(
        default="rgb", description="what is drawn: the picture in RGB as published, or its a*b* alone"
    )
    width: Count = Field(default=32, description="channels of the denoiser at full size")
    multipliers: tuple[Count, ...] = Field(
        default=(1, 2, 2), min_length=1, description="of that width, one a size, from fine to coarse"
    )
    blocks: Count = Field(default=1, description="residual blocks a size and way")
    attentive: Annotated[int, Field(ge=0)] = Field(
        default=1, description="sizes with self-attention, counted from the coarsest"
    )
    schedule: Literal["cosine", "linear"] = Field(default="cosine", description="of the noise")
    steps: Count = Field(default=1000, description="of the noising")
    sampler: Literal["ddim", "ancestral"] = Field(default="ddim", description="how noise is taken away")
    sample_steps: Count = Field(default=20, description="passes of the network a prediction")
    average_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.995, description="of the moving average of the weights that predicts; paper: 0.9999"
    )


class Colour(Section):
    """The colour task: how chroma is learnt."""

    method: Literal["unet", "gan", "feedforward", "pix2pix", "palette"] = Field(
        default="unet",
        description="gan (the poster's: conditional, with L1), unet (the same, its head reads every level of the "
        "base), feedforward (no opponent), pix2pix or palette (a diffusion), both from scratch",
    )
    loss: Literal["l1", "l2", "classification"] = Field(
        default="l1",
        description="feedforward: l1, l2, or classification of 313 rebalanced colours (Zhang et al. 2016)",
    )
    decoder: Literal["auto", "transposed", "unet"] = Field(
        default="auto",
        description="head from features to chroma: of the coarsest map (transposed) or all (unet); auto is "
        "transposed for gan and else unet",
    )
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
        default=3, description="stride-2 layers of the PatchGAN; 3 see 46 pixels (pix2pix has its own, of 70)"
    )
    pix2pix: Pix2Pix = Pix2Pix()
    palette: Palette = Palette()

    @model_validator(mode="before")
    @classmethod
    def _a_gan_with_skips_is_a_unet(cls, values: Any) -> Any:
        """One name for one thing; settings of earlier versions spell it by the decoder."""
        if not isinstance(values, Mapping) or values.get("decoder") != "unet":
            return values
        method = values.get("method", "unet")
        return {**values, "decoder": "auto", "method": "unet" if method == "gan" else method}

    @model_validator(mode="after")
    def _method_and_loss_agree(self) -> "Colour":
        if self.method != "feedforward" and self.loss != "l1":
            raise ValueError(
                f"`colour.loss` should be l1 where `colour.method = {self.method}`. "
                f"Found `colour.loss = {self.loss}`. For it: --set colour.method=feedforward"
            )
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the colour head has an opponent."""
        return self.method in ("unet", "gan", "pix2pix") and self.adversarial_weight > 0

    @property
    def is_from_scratch(self) -> bool:
        """Whether the method has a whole network of its own, which stands on no base and shares nothing."""
        return self.method in ("pix2pix", "palette")

    @property
    def has_skips(self) -> bool:
        """Whether the head reads every level of the base."""
        return self.decoder != "transposed" and self.method != "gan"


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


class Tasks(Section):
    """What the model is trained to do, and what each task counts in the sum that the shared base is trained on."""

    names: tuple[Task, ...] = Field(default=("colour", "class"), description="colour, class, or both")
    weights: TaskWeights = TaskWeights()
    weighting: Literal[
        "static", "uncertainty", "dwa", "gradnorm", "task_constrained",
        "pcgrad", "mgda", "cagrad", "imtlg", "alignedmtl",
    ] = Field(
        default="static",
        description="fine-tuning of two tasks, on top of the weights: static (nothing), balanced losses (uncertainty, "
        "dwa, gradnorm), an auxiliary task that stops (task_constrained), or joined gradients (pcgrad, mgda, cagrad, "
        "imtlg, alignedmtl; all but cagrad need knowhue[aggregators])",
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
    weighting_rate: Positive = Field(
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

    every_epochs: Annotated[int, Field(ge=0)] = Field(
        default=1, description="epochs between scores of the validation pictures; 0 scores only at the end"
    )
    recognition: bool = Field(
        default=False,
        description="how often a classifier of true-colour pictures recognises the colourings, per network",
    )
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
    tasks: Tasks = Tasks()
    pictures: Pictures = Pictures()
    supervision: Supervision = Supervision()
    encoder: Encoder = Encoder()
    colour: Colour = Colour()
    class_: Class = Field(default=Class(), alias="class")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @property
    def has_base(self) -> bool:
        """Whether the model stands on a pretrained base, or is a network from scratch."""
        return "colour" not in self.tasks.names or not self.colour.is_from_scratch

    @model_validator(mode="before")
    @classmethod
    def _in_todays_form(cls, values: Any) -> Any:
        return current_form(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _weighting_gets_what_it_needs(self) -> "Config":
        weighting = self.tasks.weighting
        if weighting == "task_constrained" and self.evaluation.every_epochs != 1:
            raise ValueError(
                "`evaluation.every_epochs` should be 1 where `tasks.weighting = task_constrained`, which looks at the "
                f"validation error of each epoch. Found `evaluation.every_epochs = {self.evaluation.every_epochs}`."
            )
        hinge = self.colour.is_adversarial and self.colour.gan_loss == "hinge"
        if weighting in ("uncertainty", "gradnorm") and hinge:
            raise ValueError(
                f"`colour.gan_loss` should be bce or lsgan where `tasks.weighting = {weighting}`, which needs losses "
                "that are never negative. Found `colour.gan_loss = hinge`."
            )
        return self


def current_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, or a part of them, as written by any version so far, in today's form.

    `tasks` was a list of names, and `task_weights` and `training.aggregator` (`sum` for `static`) stood apart.

    >>> current_form({"tasks": ["colour"], "task_weights": {"class": 3.0}})
    {'tasks': {'names': ['colour'], 'weights': {'class': 3.0}}}
    """
    values = dict(values)
    tasks = values.pop("tasks", {})
    tasks = dict(tasks) if isinstance(tasks, Mapping) else {"names": tasks}
    if "task_weights" in values:
        tasks["weights"] = values.pop("task_weights")
    training = values.get("training")
    if isinstance(training, Mapping) and "aggregator" in training:
        values["training"] = {key: value for key, value in training.items() if key != "aggregator"}
        tasks["weighting"] = {"sum": "static"}.get(training["aggregator"], training["aggregator"])
    return {**values, "tasks": tasks} if tasks else values


def fingerprint(value: Any) -> str:
    """Short name of a value: the first 8 hex digits of the SHA-256 of its canonical JSON.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
