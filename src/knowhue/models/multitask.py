"""The model: one shared encoder, a head for each task it has."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.color import unscale_chroma
from knowhue.config import Config, Task
from knowhue.errors import ConfigError
from knowhue.models.classifier import CLASSIFIERS
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.decoders import Decoder
from knowhue.models.discriminator import Discriminator
from knowhue.models.encoder import Encoder, build_encoder
from knowhue.models.no_encoder import NoBase
from knowhue.models.palette import Palette
from knowhue.models.patchgan import PatchGAN
from knowhue.models.pix2pix import Pix2PixUNet, depth_for
from knowhue.randomness import initialised_by
from knowhue.tensors import Chroma, Label, Lightness, Prediction, Pyramid

ColourHead = Decoder | ColourClasses | Pix2PixUNet | Palette
Opponent = Discriminator | PatchGAN


class GivenClass(nn.Module):
    """Adds an embedding of the true class to the coarsest map that a colour head reads: the oracle's knowledge.

    It starts at zero, so that an untrained oracle answers as the model without it; an image of unknown class (label
    -1) is given nothing.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, pyramid: Pyramid, label: Label) -> Pyramid:
        """Maps fine to coarse and labels (B,) to the maps, the last of them with the class in it."""
        given = self.embedding(label.clamp_min(0)) * (label >= 0)[:, None]
        return (*pyramid[:-1], pyramid[-1] + given[:, :, None, None].to(pyramid[-1].dtype))


class MultiTask(nn.Module):
    """Lightness to chroma, logits, or both.

    Attributes:
        encoder: the shared encoder, or the gray image alone for a head that is a whole network.
        colour: head of the colour task, or None.
        classifier: head of the class task, or None.
        oracle: what gives the true class to the colour head, or None.
    """

    def __init__(
        self,
        encoder: Encoder | NoBase,
        colour: ColourHead | None,
        classifier: nn.Module | None,
        oracle: GivenClass | None = None,
    ) -> None:
        super().__init__()
        self.oracle = oracle
        self.encoder = encoder
        self.colour = colour
        self.classifier = classifier
        self.stride: int = colour.stride if isinstance(colour, Pix2PixUNet | Palette) else encoder.strides[-1]

    def head(self, task: Task) -> nn.Module:
        """The head of a task that the model has."""
        head = {"colour": self.colour, "class": self.classifier}[task]
        assert head is not None
        return head

    @property
    def taps(self) -> tuple[int, ...]:
        """Which maps of the pyramid the heads read; the coarsest is always among them."""
        return self.colour.taps if self.colour is not None else (len(self.encoder.channels) - 1,)

    def pyramid(self, lightness: Lightness) -> Pyramid:
        """All maps of the encoder, of images of any size; edges repeat up to a whole stride."""
        return self.encoder(_pad(lightness, self.stride))

    def features(self, lightness: Lightness) -> Pyramid:
        """The maps that the heads read."""
        pyramid = self.pyramid(lightness)
        return tuple(pyramid[tap] for tap in self.taps)

    def forward(
        self,
        lightness: Lightness,
        features: Pyramid | None = None,
        truth: Chroma | None = None,
        label: Label | None = None,
    ) -> Prediction:
        """Predict.

        Args:
            lightness: L* (B, 1, H, W).
            features: of the same images, where they are at hand.
            truth: true a*b*, in training: a colour head that learns by a loss of its own then gives that loss.
            label: true classes, -1 where unknown; only an oracle looks at them, and cannot do without.

        Returns:
            a*b* at the size of `lightness` and logits; None for a head that the model lacks, and a*b* None where
            its head's own loss is given.

        Raises:
            ConfigError: an oracle is not told the classes.
        """
        pyramid = self.features(lightness) if features is None else features
        for_colour, for_class = (tuple(each.view_as(each) for each in pyramid) for _ in range(2))
        chroma = logits = own_loss = None
        told = for_colour if self.oracle is None else self._told(for_colour, label)
        if truth is not None and isinstance(self.colour, ColourClasses | Palette):
            own_loss = self.colour.loss(told, lightness, truth)
        elif self.colour is not None:
            height, width = lightness.shape[2:]
            chroma = unscale_chroma(self.colour(told))[..., :height, :width]
        if self.classifier is not None:
            logits = self.classifier(for_class)
        return Prediction(chroma, logits, (for_colour, for_class), own_loss)

    def _told(self, pyramid: Pyramid, label: Label | None) -> Pyramid:
        assert self.oracle is not None
        if label is None:
            raise ConfigError(
                "`label` should be given to an oracle, which colours with the true class. Found none: it is a control "
                "of a study and cannot be put to work."
            )
        return self.oracle(pyramid, label)

    def samples(self, lightness: Lightness, count: int) -> Tensor | None:
        """Several answers, a*b* (count, B, 2, H, W), of a colour head that draws them; None of others."""
        if not isinstance(self.colour, Palette):
            return None
        height, width = lightness.shape[2:]
        return unscale_chroma(self.colour.samples(self.features(lightness), count))[..., :height, :width]


def build_model(config: Config, classes: int) -> MultiTask:
    """The model of an arm; each head starts from its own stream, whatever else the arm has.

    Raises:
        ConfigError: an unknown encoder, or a colour method that cannot share one is asked to.
        WeightsError: the encoder's weights cannot be had.
    """
    has_colour, has_class = (task in config.tasks.names for task in ("colour", "class"))
    if has_class and not config.has_encoder:
        raise ConfigError(_shares_nothing(config))
    with initialised_by(config.seed, "encoder"):
        encoder = build_encoder(config.encoder) if config.has_encoder else NoBase()
    colour = classifier = None
    if has_colour:
        with initialised_by(config.seed, "colour-head"):
            colour = _build_network(config) if isinstance(encoder, NoBase) else _build_head(encoder, config)
    if has_class:
        with initialised_by(config.seed, "class-head"):
            classifier = CLASSIFIERS[config.class_.head](encoder.channels[-1], classes)
    oracle = None
    if has_colour and config.colour.oracle:
        with initialised_by(config.seed, "oracle"):
            oracle = GivenClass(classes, encoder.channels[-1])
    return MultiTask(encoder, colour, classifier, oracle).to(memory_format=torch.channels_last)  # pyright: ignore


def _build_head(encoder: Encoder, config: Config) -> Decoder | ColourClasses:
    colour = config.colour
    kind = ColourClasses if colour.loss == "classification" else Decoder
    return kind(encoder.channels, encoder.strides, colour.width, skips=colour.has_skips)


def _build_network(config: Config) -> Pix2PixUNet | Palette:
    if config.colour.method == "pix2pix":
        return Pix2PixUNet(config.colour.pix2pix.width, depth_for(config.images.size_px))
    return Palette(**config.colour.palette.model_dump())


def build_discriminator(config: Config) -> Opponent | None:
    """The colour task's opponent, or None where nothing is adversarial."""
    if "colour" not in config.tasks.names or not config.colour.is_adversarial:
        return None
    with initialised_by(config.seed, "discriminator"):
        if config.colour.method == "pix2pix":
            return PatchGAN(config.colour.pix2pix.width)
        return Discriminator(config.colour.discriminator_width, config.colour.discriminator_layers)


def _shares_nothing(config: Config) -> str:
    return (
        f"`tasks.names` should be colour alone where `colour.method = {config.colour.method}`, a whole network from "
        "scratch that has no encoder to share with the class task. Train it with --arm colour, or share one with "
        "--set colour.method=unet, gan or feedforward."
    )


def _pad(lightness: Lightness, stride: int) -> Lightness:
    height, width = lightness.shape[2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(lightness, (0, right, 0, bottom), mode="replicate") if bottom or right else lightness
