"""Every setting of a run: frozen models, checked when made, saved with the run, hashed into its name."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from knowhue.errors import ArgumentError, one_of, shown

Task = Literal["colour", "class"]
ColourLoss = Literal["l1", "l2", "classification"]
METHOD_LOSSES: dict[str, tuple[ColourLoss, ...]] = {
    "unet": ("l1", "classification"),
    "gan": ("l1", "classification"),
    "feedforward": get_args(ColourLoss),
    "pix2pix": ("l1",),
    "palette": ("l1",),
}
"""What each method of colouring may learn by; a discriminator judges the answers beside it."""
Weighting = Literal[
    "static", "uncertainty", "dwa", "gradnorm", "task_constrained", "pcgrad", "mgda", "cagrad", "imtlg", "alignedmtl",
]  # fmt: skip
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
MOST_SATURATION = 4
Saturation = Annotated[float, Field(ge=0, le=MOST_SATURATION)]


def _leaves(kind: Any) -> set[Any]:
    """The types that values of a type are made of, in a mapping without its keys."""
    inner = [each for each in get_args(kind)[get_origin(kind) is dict :] if each is not Ellipsis]
    return {kind} if not inner else set[Any]().union(*map(_leaves, inner))


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know; `class_` is written `class`.

    The text below a field is its description, as `knowhue config` prints it.
    """

    LISTED: ClassVar[str] = "`knowhue config` lists them all."
    """where a user finds its settings"""
    # an unknown key is refused, lest a misspelt setting change nothing in silence
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

    if not TYPE_CHECKING:  # which knows from pydantic how a section is made

        def __new__(cls, *given: Any, **_: Any) -> "Section":
            """Refuse settings without a name, of which pydantic says nothing but a count."""
            if given:
                found = f"`{cls.__name__}` should be given its settings by name. Found `{shown(given[0])}`."
                read = " `load_config` reads presets and YAML files." if cls is Config else ""
                raise ArgumentError(found + read)
            return super().__new__(cls)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` for a number, which YAML reads as true and Python counts as 1, and `1_0`, which counts as 10."""
        values = value.values() if isinstance(value, dict) else value
        parts = values if isinstance(value, dict | list | tuple) else (value,)
        odd = {bool, str} & {type(each) for each in parts if isinstance(each, bool) or "_" in str(each)}
        kinds = _leaves(cls.model_fields[str(info.field_name)].annotation) if odd else set()
        if odd - kinds and Any not in kinds and (numbers := kinds & {int, float}):
            raise PydanticKnownError("float_type" if float in numbers else "int_type")
        return value


class Images(Section):
    """Where images come from and how they are made ready."""

    source: Literal["folder", "imagenet", "huggingface", "webdataset", "parquet", "drawn"] = "folder"
    """kind of source; `knowhue study PATH` implies a folder"""
    path: str | None = None
    """folder (of .tar or .parquet files for these), root of a local ImageNet tree, or name of a Hugging Face dataset"""
    wordnet_ids: dict[str, str] = Field(default_factory=dict)
    """class name to WordNet id, for `source: imagenet`"""
    image_column: str = "image"
    """Hugging Face, parquet: column of the images"""
    label_column: str = "label"
    """Hugging Face, parquet: column of the labels; WebDataset: key in a sample's JSON"""
    size_px: Annotated[int, Field(ge=16, le=1024)] = 96
    """side of the square images, pixels"""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share split off per class where the source has no validation split"""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share split off per class where the source has no test split; 0: the validation split reports"""
    split_seed: CountOrNone = 0
    """seed of these splits"""
    min_colourfulness: NotNegative = 4.0
    """Hasler-Suesstrunk colourfulness (0 to about 110) below which an image is near-gray"""
    # at 8, and colours as near, no pair of 5,448 real images matches, but 98 % of re-encoded or mirrored copies do
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=16)] = 8
    """bits of 64 that perceptual hashes of copies may differ in; 0 finds only equal pixels"""
    min_per_class: Count = 10
    """labelled training images that each class needs"""
    drawn_count: Count = 1500
    """drawn: images, training and validation together"""
    drawn_seed: CountOrNone = 0
    """drawn: seed of the set"""
    class_colour: Fraction = 0.8
    """drawn: how far colour follows from class given the lightness, 0 to 1"""

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

    image_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of each class's training images that is trained on; the rest is left out"""
    resample: bool = False
    """draw that share anew for every seed; otherwise all seeds train on the same images"""
    labelled_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of each class's training labels that are known; the rest trains colour only"""
    # of one pool, few labels leave most steps without any: the class task starves, and transfer is credited with it
    labelled_batch_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """least share of every batch that is labelled, where some training images are not"""
    placebo: Literal["none", "labels", "colours"] = "none"
    """control: `labels` are shuffled over the images, or `colours` are another image's"""

    @model_validator(mode="after")
    def _resampling_has_a_choice(self) -> "Supervision":
        if self.resample and self.image_share == 1:
            raise ValueError(
                "`supervision.image_share` should be below 1 where `supervision.resample = true`: of all images there "
                "is nothing to draw. Found `supervision.image_share = 1.0`."
            )
        return self


ENCODERS = ("resnet18", "resnet34", "resnet50", "convnext_tiny", "tf_efficientnet_lite0", "mobilenetv2_100")
"""Names of encoders, which are timm's; `models.encoder.BACKBONES` says what is their own."""


class EncoderSettings(Section):
    """The shared encoder: a pretrained feature extractor that sees gray."""

    name: str = "resnet18"
    """shared encoder: resnet18, resnet34, resnet50, convnext_tiny, tf_efficientnet_lite0, mobilenetv2_100"""
    weights: str = "pretrained"
    """`pretrained` (from the hub), `package` (from a pip package), a file, a trained model (`built-in`, the folder of
    a run or a study, or an exported file), or `none`"""
    with_heads: bool = False
    """heads start from that trained model, too, where they fit it; --start-from sets both"""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in ENCODERS:
            raise ValueError(one_of("encoder.name", name, ENCODERS))
        return name

    @model_validator(mode="after")
    def _heads_come_with_a_model(self) -> "EncoderSettings":
        if self.with_heads and self.weights in ("pretrained", "package", "none"):
            raise ValueError(
                "`encoder.weights` should name a trained model (`built-in`, the folder of a run or a study, or an "
                f"exported file) where `encoder.with_heads = true`. Found `encoder.weights = {self.weights}`, which "
                "has no heads. Name one with --start-from, which sets both."
            )
        return self


class Pix2PixSettings(Section):
    """The network of `colour.method=pix2pix`."""

    width: Count = 64
    """channels at half size and of its discriminator; paper: 64"""


class PaletteSettings(Section):
    """The diffusion of `colour.method=palette`; the paper's size is the preset palette-rgb-paper."""

    space: Literal["rgb", "ab"] = "rgb"
    """what is generated: the image in RGB as published, or its a*b* alone"""
    width: Count = 32
    """channels of the denoiser at full size"""
    multipliers: tuple[Count, ...] = Field(default=(1, 2, 2), min_length=1)
    """factors on that width, one for each size, from fine to coarse"""
    blocks: Count = 1
    """residual blocks at each size, down and up"""
    attentive: CountOrNone = 1
    """sizes with self-attention, counted from the coarsest"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """schedule of the noise"""
    steps: Count = 1000
    """noise levels in training"""
    sampler: Literal["ddim", "ancestral"] = "ddim"
    """how noise is removed"""
    sample_steps: Count = 20
    """denoising steps of a prediction"""
    # the paper's is for half a million steps
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """decay of the moving average of the weights, which predicts; paper: 0.9999"""


class Colour(Section):
    """The colour task: how chroma is learnt."""

    method: Literal["unet", "gan", "feedforward", "pix2pix", "palette"] = "unet"
    """gan (the poster's: conditional, with L1), unet (the same, its head reads every level of the encoder),
    feedforward (no discriminator), pix2pix or palette (a diffusion), both from scratch"""
    loss: ColourLoss = "l1"
    """feedforward: l1, l2, or classification of 313 rebalanced colours (Zhang et al. 2016); gan and unet: l1, or
    classification, whose answer the discriminator judges"""
    temperature: Positive = 0.38
    """classification: of the answer; 1 is the mean colour, timid, towards 0 the most probable, patchy; paper: 0.38"""
    logit_adjustment: Fraction = 0.0
    """classification: how far predictions take back that rare colours count more in training; 1 is wholly, paper: 0"""
    saturation: Saturation = 1.0
    """what the chroma of predictions is multiplied by; training does not depend on it"""
    decoder: Literal["auto", "transposed"] = "auto"
    """head from features to chroma: transposed reads the coarsest map; auto is that for gan, else reads all maps"""
    width: Count = 32
    """channels of the decoder's last stage; doubles towards the encoder"""
    gan_loss: Literal["bce", "lsgan", "hinge"] = "lsgan"
    """adversarial loss"""
    adversarial_weight: NotNegative = 1.0
    """weight of the generator's adversarial loss; 0 leaves plain regression"""
    l1_weight: NotNegative = 100.0
    """weight of the l1 or l2 error, chroma scaled by 1/110 (pix2pix uses 100)"""
    discriminator_width: Count = 32
    """channels of the discriminator's first layer"""
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """stride-2 layers of the PatchGAN; 3 see 46 pixels (pix2pix has its own, of 70)"""
    oracle: bool = False
    """control: the colour head is given the true class, as an embedding at the coarsest map"""
    pix2pix: Pix2PixSettings = Pix2PixSettings()
    palette: PaletteSettings = PaletteSettings()

    @model_validator(mode="after")
    def _method_and_loss_agree(self) -> "Colour":
        fitting = METHOD_LOSSES[self.method]
        if self.loss not in fitting:
            methods = [method for method, losses in METHOD_LOSSES.items() if self.loss in losses]
            raise ValueError(
                f"`colour.loss` should be {' or '.join(fitting)} where `colour.method = {self.method}`. "
                f"Found `colour.loss = {self.loss}`. For it: --set colour.method={' or '.join(methods)}"
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

    head: Literal["linear", "attention"] = "linear"
    """what pools the coarsest map: its mean (linear), or learned attention"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """label smoothing of the cross-entropy"""


class TaskWeights(Section):
    """What each task's loss counts in the sum that the shared encoder is trained on."""

    colour: Positive = 1.0
    """weight of the colour task's loss"""
    # with 10 to 1 both tasks' gradients at the shared encoder are of one order
    class_: Positive = Field(default=10.0, alias="class")
    """weight of the class task's loss"""


class Tasks(Section):
    """What the model is trained to do, and what each task counts in the sum that the shared encoder is trained on."""

    names: tuple[Task, ...] = ("colour", "class")
    """colour, class, or both"""
    weights: TaskWeights = TaskWeights()
    weighting: Weighting = "static"
    """fine-tuning of two tasks, besides the weights: static (none), balanced losses (uncertainty, dwa,
    gradnorm), an auxiliary task that stops (task_constrained), or combined gradients (pcgrad, mgda, cagrad,
    imtlg, alignedmtl; all but cagrad need the extra `aggregators`)"""
    main: Task = "colour"
    """task_constrained: the task that never stops"""
    stop_strip_epochs: Count = 5
    """task_constrained: epochs over which the auxiliary task's training error is judged"""
    stop_threshold: NotNegative = 1.0
    """task_constrained: the criterion above which the auxiliary task stops"""
    dwa_temperature: Positive = 2.0
    """dwa: softmax temperature; the larger, the more equal the weights"""
    gradnorm_alpha: NotNegative = 1.5
    """gradnorm: strength of the pull towards equal learning speeds; 0 is towards equal gradient norms"""
    weighting_learning_rate: Positive = 0.01
    """uncertainty, gradnorm: learning rate (Adam) of the factors"""

    @model_validator(mode="after")
    def _names_are_a_set(self) -> "Tasks":
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"`tasks.names` should name colour, class or both, each once. Found `tasks.names = {self.names}`."
            )
        return self


class Phase(Section):
    """One phase of training: its epochs and learning rates."""

    epochs: CountOrNone
    """passes over the training images"""
    learning_rate: Positive
    """peak learning rate of the heads (AdamW, cosine decay to a tenth)"""
    encoder_learning_rate: NotNegative = 0.0
    """peak learning rate of the encoder; 0 freezes it"""
    discriminator_learning_rate: Positive = 2e-4
    """peak learning rate of the discriminator"""


class Training(Section):
    """Schedule, batches and arithmetic."""

    batch_size: Annotated[int, Field(ge=2)] = 32
    """images in each step, over all processes"""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled decay"""
    shift_px: CountOrNone = 6
    """fine-tuning: images move by up to this many pixels, edges reflected"""
    degraded_share: Fraction = 0.0
    """fine-tuning: share of images whose lightness is made an old photo's: faded, grainy, scratched, of odd contrast,
    blind to red"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the networks; auto is bfloat16 where the device has it"""
    # a head with skips reads 0.9 MB of features of a 96-pixel image: nothing for thousands, too much for a million
    cache_gib: NotNegative = 8.0
    """disk for cached features of the frozen encoder; GiB; beyond it they are recomputed"""
    heads: Phase = Phase(epochs=30, learning_rate=1e-3)
    """encoder frozen, heads only"""
    finetune: Phase = Phase(epochs=15, learning_rate=3e-4, encoder_learning_rate=1e-4)
    """everything trains"""

    # what a file leaves out of a phase is that phase's default, as of every other section
    @field_validator("heads", "finetune", mode="before")
    @classmethod
    def _filled_in(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

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

    every_epochs: CountOrNone = 1
    """epochs between scores of the validation images; 0 scores only at the end"""
    split: Literal["auto", "validation"] = "auto"
    """split that final scores are from: auto is test where there is one; validation leaves test alone"""
    recognition: bool = False
    """how often a classifier of true-colour images recognises the colourings, per network"""
    networks: tuple[Literal["lite0", "inception"], ...] = ("lite0",)
    """networks of the distances between sets of images; lite0, inception (needs the extra `fid`)"""
    diagnose_every_steps: CountOrNone = 25
    """fine-tuning of two tasks: steps between measurements of their gradients; 0 is never"""
    gradient_batches: CountOrNone = 4
    """training batches on which each loss's gradient at the encoder is measured, before fine-tuning and after;
    0 is never"""
    inception_weights: str | None = None
    """file of torch-fidelity's Inception-v3 weights for FID and KID; null downloads them"""
    perceptual: tuple[Literal["lpips"], ...] = ()
    """perceptual distances of colouring and image; lpips (needs the extra `perceptual`)"""
    lpips_weights: str | None = None
    """file of torchvision's AlexNet weights for LPIPS; null downloads them"""


class Config(Section):
    """One run: one arm of one study with one seed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """names every random stream of the run"""
    arms: tuple[str, ...] = ("colour", "class", "multi")
    """arms that a study compares without --arms, see `presets.ARMS`"""
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
    def _sections_agree(self) -> "Config":
        if self.encoder.with_heads and not self.has_encoder:
            raise ValueError(
                "`colour.method` should be one with an encoder where `encoder.with_heads = true`. Found "
                f"`colour.method = {self.colour.method}`, a network from scratch: it starts from no other model."
            )
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
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def digest_each(values: Iterable[Any]) -> str:
    """The `digest` of a list of values that need not fit into memory.

    >>> digest_each(iter([("a", 1), None])) == digest([["a", 1], None])
    True
    """
    found, start = hashlib.sha256(), "["
    for value in values:
        found.update(f"{start}{_canonical(value)}".encode())
        start = ","
    found.update(b"]" if start == "," else b"[]")
    return found.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """Short name of a value, for folders and files: the first 8 hex digits of its `digest`."""
    return digest(value)[:8]
