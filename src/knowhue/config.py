"""Every setting of a run: frozen models, checked when made, saved with the run, hashed into its name."""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["colour", "class"]
ColourLoss = Literal["l1", "l2", "classification"]
TRAIN_LOSSES: dict[Task, tuple[str, ...]] = {
    "colour": (*get_args(ColourLoss), "colour_loss"),
    "class": ("cross_entropy",),
}
"""What a task's own loss may be called in the log; `colour_loss` is that of a head with a loss of its own."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know; `class_` is written `class`."""

    # an unknown key is refused, lest a misspelt setting change nothing in silence
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )


class Images(Section):
    """Where images come from and how they are made ready."""

    source: Literal["folder", "imagenet", "huggingface", "drawn"] = Field(
        default="folder", description="kind of source; `knowhue study PATH` implies a folder"
    )
    path: str | None = Field(
        default=None, description="folder, root of a local ImageNet tree, or name of a Hugging Face dataset"
    )
    wordnet_ids: dict[str, str] = Field(
        default_factory=dict, description="class name to WordNet id, for `source: imagenet`"
    )
    image_column: str = Field(default="image", description="Hugging Face: column of the images")
    label_column: str = Field(default="label", description="Hugging Face: column of the labels")
    size_px: Annotated[int, Field(ge=16, le=1024)] = Field(
        default=96, description="side of the square images, pixels"
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share split off per class where the source has no validation split"
    )
    test_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share split off per class where the source has no test split; 0: the validation split reports",
    )
    split_seed: CountOrNone = Field(default=0, description="seed of these splits")
    min_colourfulness: NotNegative = Field(
        default=4.0,
        description="Hasler-Suesstrunk colourfulness (0 to about 110) below which an image is near-gray",
    )
    # at 8, and colours as near, no pair of 5,448 real images matches, but 98 % of re-encoded or mirrored copies do
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=16)] = Field(
        default=8,
        description="bits of 64 that perceptual hashes of copies may differ in; 0 finds only equal pixels",
    )
    min_per_class: Count = Field(default=10, description="labelled training images that each class needs")
    drawn_count: Count = Field(default=1500, description="drawn: images, training and validation together")
    drawn_seed: CountOrNone = Field(default=0, description="drawn: seed of the set")
    class_colour: Fraction = Field(
        default=0.8, description="drawn: how far colour follows from class given the lightness, 0 to 1"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train(self) -> "Images":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                "`images.validation_share` and `images.test_share` should be below 1 together. Found "
                f"{self.validation_share:g} and {self.test_share:g}."
            )
        return self


class Supervision(Section):
    """What the training images teach. Validation images always keep their own labels and colours."""

    image_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each class's training images that is trained on; the rest is left out",
    )
    resample: bool = Field(
        default=False,
        description="draw that share anew for every seed; otherwise all seeds train on the same images",
    )
    labelled_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each class's training labels that are known; the rest trains colour only",
    )
    # of one pool, few labels leave most steps without any: the class task starves, and transfer is credited with it
    labelled_batch_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5,
        description="least share of every batch that is labelled, where some training images are not",
    )
    placebo: Literal["none", "labels", "colours"] = Field(
        default="none",
        description="control: `labels` are shuffled over the images, or `colours` are another image's",
    )

    @model_validator(mode="after")
    def _resampling_has_a_choice(self) -> "Supervision":
        if self.resample and self.image_share == 1:
            raise ValueError(
                "`supervision.image_share` should be below 1 where `supervision.resample = true`: of all images there "
                "is nothing to draw. Found `supervision.image_share = 1.0`."
            )
        return self


class EncoderSettings(Section):
    """The shared encoder: a pretrained feature extractor that sees gray."""

    name: str = Field(
        default="resnet18",
        description="shared encoder: resnet18, resnet34, resnet50, convnext_tiny, tf_efficientnet_lite0",
    )
    weights: str = Field(
        default="pretrained",
        description="`pretrained` (from the hub), `package` (from a pip package), a file, a run folder, or `none`",
    )


class Pix2PixSettings(Section):
    """The network of `colour.method=pix2pix`."""

    width: Count = Field(default=64, description="channels at half size and of its discriminator; paper: 64")


class PaletteSettings(Section):
    """The diffusion of `colour.method=palette`; the paper's size is the preset palette-rgb-paper."""

    space: Literal["rgb", "ab"] = Field(
        default="rgb", description="what is generated: the image in RGB as published, or its a*b* alone"
    )
    width: Count = Field(default=32, description="channels of the denoiser at full size")
    multipliers: tuple[Count, ...] = Field(
        default=(1, 2, 2),
        min_length=1,
        description="factors on that width, one for each size, from fine to coarse",
    )
    blocks: Count = Field(default=1, description="residual blocks at each size, down and up")
    attentive: CountOrNone = Field(
        default=1, description="sizes with self-attention, counted from the coarsest"
    )
    schedule: Literal["cosine", "linear"] = Field(default="cosine", description="schedule of the noise")
    steps: Count = Field(default=1000, description="noise levels in training")
    sampler: Literal["ddim", "ancestral"] = Field(default="ddim", description="how noise is removed")
    sample_steps: Count = Field(default=20, description="denoising steps of a prediction")
    # the paper's is for half a million steps
    average_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.995, description="decay of the moving average of the weights, which predicts; paper: 0.9999"
    )


class Colour(Section):
    """The colour task: how chroma is learnt."""

    method: Literal["unet", "gan", "feedforward", "pix2pix", "palette"] = Field(
        default="unet",
        description="gan (the poster's: conditional, with L1), unet (the same, its head reads every level of the "
        "encoder), feedforward (no discriminator), pix2pix or palette (a diffusion), both from scratch",
    )
    loss: ColourLoss = Field(
        default="l1",
        description="feedforward: l1, l2, or classification of 313 rebalanced colours (Zhang et al. 2016)",
    )
    decoder: Literal["auto", "transposed"] = Field(
        default="auto",
        description="head from features to chroma: transposed reads the coarsest map; auto is that for gan and else "
        "reads all maps",
    )
    width: Count = Field(
        default=32, description="channels of the decoder's last stage; doubles towards the encoder"
    )
    gan_loss: Literal["bce", "lsgan", "hinge"] = Field(default="lsgan", description="adversarial loss")
    adversarial_weight: NotNegative = Field(
        default=1.0, description="weight of the generator's adversarial loss; 0 leaves plain regression"
    )
    l1_weight: NotNegative = Field(
        default=100.0,
        description="weight of the l1 or l2 error, chroma scaled by 1/110 (pix2pix uses 100)",
    )
    discriminator_width: Count = Field(default=32, description="channels of the discriminator's first layer")
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = Field(
        default=3, description="stride-2 layers of the PatchGAN; 3 see 46 pixels (pix2pix has its own, of 70)"
    )
    oracle: bool = Field(
        default=False,
        description="control: the colour head is given the true class, as an embedding at the coarsest map",
    )
    pix2pix: Pix2PixSettings = Pix2PixSettings()
    palette: PaletteSettings = PaletteSettings()

    @model_validator(mode="after")
    def _method_and_loss_agree(self) -> "Colour":
        if self.method != "feedforward" and self.loss != "l1":
            raise ValueError(
                f"`colour.loss` should be l1 where `colour.method = {self.method}`. "
                f"Found `colour.loss = {self.loss}`. For it: --set colour.method=feedforward"
            )
        if self.oracle and self.is_from_scratch:
            raise ValueError(
                f"`colour.oracle` should be false where `colour.method = {self.method}`, which has no encoder whose "
                "features the class could be added to. Found `colour.oracle = true`."
            )
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the colour head is trained against a discriminator."""
        return self.method in ("unet", "gan", "pix2pix") and self.adversarial_weight > 0

    @property
    def is_from_scratch(self) -> bool:
        """Whether the method has a whole network of its own, which stands on no encoder and shares nothing."""
        return self.method in ("pix2pix", "palette")

    @property
    def has_skips(self) -> bool:
        """Whether the head reads every level of the encoder."""
        return self.decoder != "transposed" and self.method != "gan"


class Class(Section):
    """The classification task."""

    head: Literal["linear", "attention"] = Field(
        default="linear", description="what pools the coarsest map: its mean (linear), or learned attention"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="label smoothing of the cross-entropy"
    )


class TaskWeights(Section):
    """What each task's loss counts in the sum that the shared encoder is trained on."""

    colour: Positive = Field(default=1.0, description="weight of the colour task's loss")
    # with 10 to 1 both tasks' gradients at the shared encoder are of one order
    class_: Positive = Field(default=10.0, alias="class", description="weight of the class task's loss")


class Tasks(Section):
    """What the model is trained to do, and what each task counts in the sum that the shared encoder is trained on."""

    names: tuple[Task, ...] = Field(default=("colour", "class"), description="colour, class, or both")
    weights: TaskWeights = TaskWeights()
    weighting: Literal[
        "static", "uncertainty", "dwa", "gradnorm", "task_constrained",
        "pcgrad", "mgda", "cagrad", "imtlg", "alignedmtl",
    ] = Field(
        default="static",
        description="fine-tuning of two tasks, besides the weights: static (none), balanced losses (uncertainty, "
        "dwa, gradnorm), an auxiliary task that stops (task_constrained), or combined gradients (pcgrad, mgda, cagrad, "
        "imtlg, alignedmtl; all but cagrad need the extra `aggregators`)",
    )  # fmt: skip
    main: Task = Field(default="colour", description="task_constrained: the task that never stops")
    stop_strip_epochs: Count = Field(
        default=5,
        description="task_constrained: epochs over which the auxiliary task's training error is judged",
    )
    stop_threshold: NotNegative = Field(
        default=1.0, description="task_constrained: the criterion above which the auxiliary task stops"
    )
    dwa_temperature: Positive = Field(
        default=2.0, description="dwa: softmax temperature; the larger, the more equal the weights"
    )
    gradnorm_alpha: NotNegative = Field(
        default=1.5,
        description="gradnorm: strength of the pull towards equal learning speeds; 0 asks for equal gradient norms",
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
    """One phase of training: its epochs and learning rates."""

    epochs: CountOrNone = Field(description="passes over the training images")
    learning_rate: Positive = Field(
        description="peak learning rate of the heads (AdamW, cosine decay to a tenth)"
    )
    encoder_learning_rate: NotNegative = Field(
        default=0.0, description="peak learning rate of the encoder; 0 freezes it"
    )
    discriminator_learning_rate: Positive = Field(
        default=2e-4, description="peak learning rate of the discriminator"
    )


class Training(Section):
    """Schedule, batches and arithmetic."""

    batch_size: Annotated[int, Field(ge=2)] = Field(
        default=32, description="images in each step, over all processes"
    )
    weight_decay: NotNegative = Field(default=0.01, description="AdamW's decoupled decay")
    shift_px: CountOrNone = Field(
        default=6, description="fine-tuning: images move by up to this many pixels, edges reflected"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="arithmetic of the networks; auto is bfloat16 where the device has it"
    )
    # a head with skips reads 0.9 MB of features of a 96-pixel image: nothing for thousands, too much for a million
    cache_gib: NotNegative = Field(
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

    every_epochs: CountOrNone = Field(
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
    diagnose_every_steps: CountOrNone = Field(
        default=25,
        description="fine-tuning of two tasks: steps between measurements of their gradients; 0 is never",
    )
    gradient_batches: CountOrNone = Field(
        default=4,
        description="training batches on which each loss's gradient at the encoder is measured, before fine-tuning and "
        "after; 0 is never",
    )
    inception_weights: str | None = Field(
        default=None,
        description="file of torch-fidelity's Inception-v3 weights for FID and KID; null downloads them",
    )
    perceptual: tuple[Literal["lpips"], ...] = Field(
        default=(),
        description="perceptual distances of colouring and image; lpips (needs the extra `perceptual`)",
    )
    lpips_weights: str | None = Field(
        default=None, description="file of torchvision's AlexNet weights for LPIPS; null downloads them"
    )


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
    encoder: EncoderSettings = EncoderSettings()
    colour: Colour = Colour()
    class_: Class = Field(default=Class(), alias="class")
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @property
    def has_encoder(self) -> bool:
        """Whether the model stands on a pretrained encoder, or is a network from scratch."""
        return "colour" not in self.tasks.names or not self.colour.is_from_scratch

    @model_validator(mode="after")
    def _weighting_gets_what_it_needs(self) -> "Config":
        weighting = self.tasks.weighting
        if weighting == "task_constrained" and self.evaluation.every_epochs != 1:
            raise ValueError(
                "`evaluation.every_epochs` should be 1 where `tasks.weighting = task_constrained`, which needs the "
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
