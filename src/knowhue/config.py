"""Every setting of a run, as frozen models: validated on creation, saved with the run, hashed into its folder name."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from knowhue.errors import ArgumentError, one_of, should_be, shown

Task = Literal["colour", "class"]
ColourLoss = Literal["l1", "l2", "classification"]
METHOD_LOSSES: dict[str, tuple[ColourLoss, ...]] = {
    "unet": ("l1", "classification"),
    "gan": ("l1", "classification"),
    "feedforward": get_args(ColourLoss),
    "pix2pix": ("l1",),
    "palette": ("l1",),
}
"""Losses that each colouring method can be trained on; an adversarial loss may be added."""
Weighting = Literal[
    "static", "uncertainty", "dwa", "gradnorm", "task_constrained", "pcgrad", "mgda", "cagrad", "imtlg", "alignedmtl",
]  # fmt: skip
TRAIN_LOSSES: dict[Task, tuple[str, ...]] = {
    "colour": (*get_args(ColourLoss), "colour_loss"),
    "class": ("cross_entropy",),
}
"""Names of each task's loss in the log; a head that defines its own loss logs it as `colour_loss`."""
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
MAX_SATURATION = 4
Saturation = Annotated[float, Field(ge=0, le=MAX_SATURATION)]


def _leaf_types(kind: Any) -> set[Any]:
    """The innermost types of an annotation; keys of mappings are left out."""
    inner = [each for each in get_args(kind)[get_origin(kind) is dict :] if each is not Ellipsis]
    return {kind} if not inner else set[Any]().union(*map(_leaf_types, inner))


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys; `class_` is written `class`.

    The docstring below a field is its description, which `knowhue config` prints.
    """

    LISTED: ClassVar[str] = "`knowhue config` lists them all."
    """where users find its settings"""
    # extra="forbid": otherwise a misspelt setting would silently change nothing
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

    if not TYPE_CHECKING:  # type checkers use the signature that pydantic synthesizes

        def __new__(cls, *args: Any, **_: Any) -> "Section":
            """Refuse positional settings; pydantic's own error only counts the arguments."""
            if args:
                text = f"`{cls.__name__}` should be given its settings by name. Found `{shown(args[0])}`."
                hint = " `load_config` reads presets and YAML files." if cls is Config else ""
                raise ArgumentError(text + hint)
            return super().__new__(cls)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_implicit_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse booleans (`yes` in YAML) and text with underscores (`1_0`) as numbers: pydantic reads 1 and 10."""
        if type(value) in (int, float):  # most values, and each passes here several times
            return value
        values = value.values() if isinstance(value, dict) else value
        parts = values if isinstance(value, dict | list | tuple) else (value,)
        types = {kind for each in parts if (kind := type(each)) is bool or (kind is str and "_" in each)}
        kinds = _leaf_types(cls.model_fields[str(info.field_name)].annotation) if types else set()
        if types - kinds and Any not in kinds and (numbers := kinds & {int, float}):
            raise PydanticKnownError("float_type" if float in numbers else "int_type")
        return value


class Images(Section):
    """Where images come from and how they are prepared."""

    source: Literal["folder", "imagenet", "huggingface", "webdataset", "parquet", "drawn"] = "folder"
    """kind of image source; `knowhue study PATH` selects folder"""
    path: str | None = None
    """folder (of images, .tar or .parquet files), root of a local ImageNet tree, or name of a Hugging Face dataset"""
    wordnet_ids: dict[str, str] = Field(default_factory=dict)
    """imagenet: WordNet id of each class, by class name"""
    image_column: str = "image"
    """huggingface, parquet: name of the image column"""
    label_column: str = "label"
    """huggingface, parquet: name of the label column; webdataset: key of the label in a sample's JSON"""
    size_px: Annotated[int, Field(ge=16, le=1024)] = 96
    """side length of the square training images, in pixels"""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share of each class held out for validation if the source has no validation split"""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of each class held out for testing if the source has no test split; 0 reports on the validation split"""
    split_seed: NonNegativeInt = 0
    """random seed of these splits"""
    min_colourfulness: NonNegativeFloat = 4.0
    """images with a lower colourfulness (M3, 0 to about 110) are left out as near-gray"""
    # at 8 bits, with similar colours, 98 % of re-encoded or mirrored copies match, but no two of 5,448 real images
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=16)] = 8
    """most bits, of 64, in which the perceptual hashes of duplicates may differ; 0 finds only equal pixels"""
    min_per_class: PositiveInt = 10
    """minimum number of labelled training images of each class"""
    drawn_count: PositiveInt = 1500
    """drawn: number of images, training and validation together"""
    drawn_seed: NonNegativeInt = 0
    """drawn: random seed of the images"""
    class_colour: Fraction = 0.8
    """drawn: how strongly the class determines the colour at a given lightness, 0 to 1"""

    @model_validator(mode="after")
    def _check_shares(self) -> "Images":
        if self.validation_share + self.test_share >= 1:
            wanted = f"below {1 - self.validation_share:g}, the rest after `images.validation_share`"
            raise ValueError(should_be("images.test_share", wanted, self.test_share))
        return self


class Supervision(Section):
    """Which training images and labels are used. Validation images always keep their true labels and colours."""

    image_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of each class's training images that is used, 0 to 1; the rest is left out"""
    resample: bool = False
    """draw that share again for every seed; if false, all seeds train on the same images"""
    labelled_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of each class's training images whose label is used, 0 to 1; the others train only the colour task"""
    # drawn from one pool, most batches would hold none of a few labels, and the class task would hardly train
    labelled_batch_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """minimum share of labelled images in every batch if some training images have no label, 0 to 1"""
    placebo: Literal["none", "labels", "colours"] = "none"
    """control experiment: labels (shuffled over the images) or colours (taken from another image)"""

    @model_validator(mode="after")
    def _check_resampling(self) -> "Supervision":
        if self.resample and self.image_share == 1:
            wanted = "below 1 where `supervision.resample = true`, which draws that share for every seed"
            raise ValueError(should_be("supervision.image_share", wanted, self.image_share))
        return self


ENCODERS = ("resnet18", "resnet34", "resnet50", "convnext_tiny", "tf_efficientnet_lite0", "mobilenetv2_100")
"""Encoders by their names in timm."""


class EncoderSettings(Section):
    """The shared encoder: a pretrained feature extractor that gets grayscale images."""

    name: str = "resnet18"
    """architecture: resnet18, resnet34, resnet50, convnext_tiny, tf_efficientnet_lite0, mobilenetv2_100"""
    weights: str = "pretrained"
    """initial weights: `pretrained` (from the Hugging Face hub), `package` (from a pip package), a file of weights, a
    trained model (`built-in`, the folder of a run or a study, or an exported file), or `none` (random)"""
    with_heads: bool = False
    """also start the heads from that trained model where they fit; --start-from sets both"""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in ENCODERS:
            raise ValueError(one_of("encoder.name", name, ENCODERS))
        return name

    @model_validator(mode="after")
    def _check_heads(self) -> "EncoderSettings":
        if self.with_heads and self.weights in ("pretrained", "package", "none"):
            wanted = "name a trained model, which has heads, where `encoder.with_heads = true`"
            found = f"Found `encoder.weights = {self.weights}`. --start-from sets both"
            raise ValueError(f"`encoder.weights` should {wanted}. {found}.")
        return self


class Pix2PixSettings(Section):
    """The network of `colour.method=pix2pix`."""

    width: PositiveInt = 64
    """channels of the first layer of the generator and of its discriminator; paper: 64"""


class PaletteSettings(Section):
    """The diffusion model of `colour.method=palette`; the preset palette-rgb-paper has the paper's size."""

    space: Literal["rgb", "ab"] = "rgb"
    """what is generated: the whole image in RGB, as published, or only its a*b*"""
    width: PositiveInt = 32
    """channels of the denoiser at full resolution"""
    multipliers: tuple[PositiveInt, ...] = Field(default=(1, 2, 2), min_length=1)
    """multipliers of that width, one for each resolution, from fine to coarse"""
    blocks: PositiveInt = 1
    """residual blocks at each resolution, in each direction"""
    attentive: NonNegativeInt = 1
    """number of resolutions with self-attention, counted from the coarsest"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """noise schedule"""
    steps: PositiveInt = 1000
    """number of noise levels in training"""
    sampler: Literal["ddim", "ancestral"] = "ddim"
    """sampling method"""
    sample_steps: PositiveInt = 20
    """number of denoising steps of a prediction"""
    # not the paper's, which is meant for half a million steps
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """decay per step of the moving average of the weights, which is used for predictions; paper: 0.9999"""


class Colour(Section):
    """The colour task: how chroma is learned."""

    method: Literal["unet", "gan", "feedforward", "pix2pix", "palette"] = "unet"
    """gan (the poster's: a conditional GAN with an L1 loss), unet (the same with skip connections from the encoder),
    feedforward (no discriminator), or, from scratch, pix2pix or palette (a diffusion model)"""
    loss: ColourLoss = "l1"
    """feedforward: l1, l2, or classification of 313 rebalanced colours (Zhang et al. 2016); gan and unet: l1, or
    classification with the decoded colours given to the discriminator"""
    temperature: PositiveFloat = 0.38
    """classification: temperature of the annealed mean; 1: the mean (dull), near 0: the mode (patchy); paper: 0.38"""
    logit_adjustment: Fraction = 0.0
    """classification: how far predictions undo the weight of rare colours, 0 (as in the paper) to 1 (completely)"""
    saturation: Saturation = 1.0
    """factor on the chroma of predictions; has no effect on training"""
    decoder: Literal["auto", "transposed"] = "auto"
    """colour head: transposed reads only the coarsest feature map, as auto does for gan; else auto reads all maps"""
    width: PositiveInt = 32
    """colour head: channels at half the image's size, doubled with each halving, up to 256"""
    gan_loss: Literal["bce", "lsgan", "hinge"] = "lsgan"
    """adversarial loss"""
    adversarial_weight: NonNegativeFloat = 1.0
    """weight of the generator's adversarial loss; 0 trains without a discriminator"""
    l1_weight: NonNegativeFloat = 100.0
    """weight of the l1 or l2 loss, which is computed on chroma divided by 110 (pix2pix paper: 100)"""
    discriminator_width: PositiveInt = 32
    """channels of the discriminator's first layer"""
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """stride-2 layers of the PatchGAN; 3 give a receptive field of 46 pixels (pix2pix has its own PatchGAN, of 70)"""
    oracle: bool = False
    """control experiment: give the true class to the colour head, as an embedding added to the coarsest feature map"""
    pix2pix: Pix2PixSettings = Pix2PixSettings()
    palette: PaletteSettings = PaletteSettings()

    @model_validator(mode="after")
    def _check_method(self) -> "Colour":
        fitting = METHOD_LOSSES[self.method]
        if self.loss not in fitting:
            methods = [method for method, losses in METHOD_LOSSES.items() if self.loss in losses]
            wanted = f"{' or '.join(fitting)} where `colour.method = {self.method}`"
            remedy = f"For it: --set colour.method={' or '.join(methods)}"
            raise ValueError(should_be("colour.loss", wanted, self.loss, remedy))
        if self.oracle and self.is_from_scratch:
            no_encoder = "which has no encoder whose features the class could be added to"
            wanted = f"false where `colour.method = {self.method}`, {no_encoder}"
            raise ValueError(should_be("colour.oracle", wanted, self.oracle))
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the colour head is trained against a discriminator."""
        return self.method in ("unet", "gan", "pix2pix") and self.adversarial_weight > 0

    @property
    def is_from_scratch(self) -> bool:
        """Whether the method trains a whole network of its own, without the shared encoder."""
        return self.method in ("pix2pix", "palette")

    @property
    def has_skips(self) -> bool:
        """Whether the head reads every level of the encoder."""
        return self.decoder != "transposed" and self.method != "gan"


class Class(Section):
    """The classification task."""

    head: Literal["linear", "attention"] = "linear"
    """how the coarsest feature map is pooled: by its mean (linear) or by learned attention"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """label smoothing of the cross-entropy, 0 to 1"""


class TaskWeights(Section):
    """Weight of each task's loss in the sum that trains the shared encoder."""

    colour: PositiveFloat = 1.0
    """weight of the colour task's loss"""
    # at 10 to 1 the gradients of both tasks at the shared encoder have the same order of magnitude
    class_: PositiveFloat = Field(default=10.0, alias="class")
    """weight of the class task's loss"""


class Tasks(Section):
    """The tasks, and how their losses are weighted in the sum that trains the shared encoder."""

    names: tuple[Task, ...] = ("colour", "class")
    """tasks to train: colour, class, or both"""
    weights: TaskWeights = TaskWeights()
    weighting: Weighting = "static"
    """balancing of two tasks in fine-tuning, in addition to the weights: static (none), loss weighting (uncertainty,
    dwa, gradnorm), early stopping of the auxiliary task (task_constrained), or gradient combination (pcgrad, mgda,
    cagrad, imtlg, alignedmtl; all but cagrad need the extra `aggregators`)"""
    main: Task = "colour"
    """task_constrained: the task that never stops"""
    stop_strip_epochs: PositiveInt = 5
    """task_constrained: number of epochs over which the auxiliary task's training error is judged"""
    stop_threshold: NonNegativeFloat = 1.0
    """task_constrained: value of the stopping criterion above which the auxiliary task stops"""
    dwa_temperature: PositiveFloat = 2.0
    """dwa: softmax temperature; a larger value makes the weights more equal"""
    gradnorm_alpha: NonNegativeFloat = 1.5
    """gradnorm: how strongly the slower task is favoured, so that both keep pace; 0 makes the gradient norms equal"""
    weighting_learning_rate: PositiveFloat = 0.01
    """uncertainty, gradnorm: learning rate (Adam) of the learned loss weights"""

    @model_validator(mode="after")
    def _check_names(self) -> "Tasks":
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(should_be("tasks.names", "colour, class or both, each once", self.names))
        return self


class Phase(Section):
    """One phase of training: its epochs and learning rates."""

    epochs: NonNegativeInt
    """number of passes over the training images"""
    learning_rate: PositiveFloat
    """peak learning rate of the heads (AdamW, cosine decay to a tenth)"""
    encoder_learning_rate: NonNegativeFloat = 0.0
    """peak learning rate of the encoder; 0 freezes it"""
    discriminator_learning_rate: PositiveFloat = 2e-4
    """peak learning rate of the discriminator"""


class Training(Section):
    """Schedule, batches and precision."""

    batch_size: Annotated[int, Field(ge=2)] = 32
    """images per step, over all processes together"""
    weight_decay: NonNegativeFloat = 0.01
    """weight decay of AdamW"""
    shift_px: NonNegativeInt = 6
    """fine-tuning: largest random shift of an image, in pixels, with reflected edges"""
    degraded_share: Fraction = 0.0
    """fine-tuning: share of images degraded like old photos (faded, grainy, scratched, blind to red), 0 to 1"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """floating-point precision of the networks; auto is bfloat16 if the device supports it, else float32"""
    # a head with skip connections reads 0.9 MB of features per 96-pixel image: too much disk for a million images
    cache_gib: NonNegativeFloat = 8.0
    """largest cache of the frozen encoder's features on disk, in GiB; features that do not fit are recomputed"""
    heads: Phase = Phase(epochs=30, learning_rate=1e-3)
    """first phase: only the heads are trained, on the frozen encoder"""
    finetune: Phase = Phase(epochs=15, learning_rate=3e-4, encoder_learning_rate=1e-4)
    """second phase: encoder and heads are trained"""

    # settings that a file leaves out of a phase get that phase's defaults, as in every other section
    @field_validator("heads", "finetune", mode="before")
    @classmethod
    def _fill_in(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check_phases(self) -> "Training":
        if self.heads.encoder_learning_rate:
            name, wanted = "training.heads.encoder_learning_rate", "0: the encoder is frozen in that phase"
            remedy = "Use `training.finetune.encoder_learning_rate`."
            raise ValueError(should_be(name, wanted, self.heads.encoder_learning_rate, remedy))
        if not self.heads.epochs + self.finetune.epochs:
            raise ValueError("`training.heads.epochs` and `training.finetune.epochs` should not both be 0.")
        return self


class Evaluation(Section):
    """What is measured besides the scores of single images; has no effect on training."""

    every_epochs: NonNegativeInt = 1
    """the validation images are scored every so many epochs; 0 scores them only at the end"""
    split: Literal["auto", "validation"] = "auto"
    """split of the final scores: auto (test if there is a test split, else validation) or validation"""
    recognition: bool = False
    """measure how often a classifier of true-colour images recognises the colourings, for each of `networks`"""
    networks: tuple[Literal["lite0", "inception"], ...] = ("lite0",)
    """networks whose features give the distances between sets of images: lite0, inception (needs the extra `fid`)"""
    diagnose_every_steps: NonNegativeInt = 25
    """fine-tuning of two tasks: their gradients are compared every so many steps; 0 is never"""
    gradient_batches: NonNegativeInt = 4
    """batches on which each loss's gradient at the encoder is measured before and after fine-tuning; 0 measures none"""
    inception_weights: str | None = None
    """file with torch-fidelity's Inception-v3 weights, for FID and KID; null downloads them"""
    perceptual: tuple[Literal["lpips"], ...] = ()
    """perceptual distances between colouring and true image: lpips (needs the extra `perceptual`)"""
    lpips_weights: str | None = None
    """file with torchvision's AlexNet weights, for LPIPS; null downloads them"""


class Config(Section):
    """All settings of one run: one arm with one seed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """seed of all random numbers of the run"""
    arms: tuple[str, ...] = ("colour", "class", "multi")
    """arms that `knowhue study` trains unless --arms names others"""
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
        """Whether the model uses the shared encoder; False for a network from scratch."""
        return "colour" not in self.tasks.names or not self.colour.is_from_scratch

    @model_validator(mode="after")
    def _check_sections(self) -> "Config":
        if self.encoder.with_heads and not self.has_encoder:
            wanted = "one with an encoder where `encoder.with_heads = true`, not a network from scratch"
            raise ValueError(should_be("colour.method", wanted, self.colour.method))
        weighting = self.tasks.weighting
        where = f"where `tasks.weighting = {weighting}`"
        if weighting == "task_constrained" and self.evaluation.every_epochs != 1:
            wanted = f"1 {where}, which needs the validation error of each epoch"
            raise ValueError(should_be("evaluation.every_epochs", wanted, self.evaluation.every_epochs))
        if weighting == "task_constrained" and self.colour.loss != "l1":
            wanted = f"l1 {where}, which compares training and validation errors in one unit"
            raise ValueError(should_be("colour.loss", wanted, self.colour.loss))
        hinge = self.colour.is_adversarial and self.colour.gan_loss == "hinge"
        if weighting in ("uncertainty", "gradnorm") and hinge:
            wanted = f"bce or lsgan {where}, which needs losses that are never negative"
            raise ValueError(should_be("colour.gan_loss", wanted, self.colour.gan_loss))
        return self


def digest(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON, as 64 hex digits.

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
    """The first 8 hex digits of a value's `digest`, for names of folders and files."""
    return digest(value)[:8]
