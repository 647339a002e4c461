"""The model: one shared base, a head for each task it has."""

import torch
from torch import nn
from torch.nn import functional as F

from knowhue.color import unscale_chroma
from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.models.classifier import CLASSIFIERS
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.decoders import DECODERS, Decoder
from knowhue.models.discriminator import Discriminator
from knowhue.models.encoder import Encoder, build_encoder
from knowhue.randomness import initialised_by
from knowhue.tensors import Chroma, Lightness, Prediction, Pyramid

ColourHead = Decoder | ColourClasses


class MultiTask(nn.Module):
    """Lightness to chroma, logits, or both.

    Attributes:
        encoder: the shared base.
        colour: head of the colour task, or None.
        classifier: head of the class task, or None.
    """

    def __init__(self, encoder: Encoder, colour: ColourHead | None, classifier: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.colour = colour
        self.classifier = classifier

    @property
    def taps(self) -> tuple[int, ...]:
        """Which maps of the pyramid the heads read; the coarsest is always among them."""
        return self.colour.taps if self.colour is not None else (len(self.encoder.channels) - 1,)

    def pyramid(self, lightness: Lightness) -> Pyramid:
        """All maps of the base, of pictures of any size; edges repeat up to a whole stride."""
        return self.encoder(_pad(lightness, self.encoder.strides[-1]))

    def features(self, lightness: Lightness) -> Pyramid:
        """The maps that the heads read."""
        pyramid = self.pyramid(lightness)
        return tuple(pyramid[tap] for tap in self.taps)

    def forward(
        self, lightness: Lightness, features: Pyramid | None = None, truth: Chroma | None = None
    ) -> Prediction:
        """Predict.

        Args:
            lightness: L* (B, 1, H, W).
            features: of the same pictures, where they are at hand.
            truth: true a*b*, in training: a colour head that learns by a loss of its own then gives that loss.

        Returns:
            a*b* at the size of `lightness` and logits; None for a head that the model lacks, and a*b* None where
            its head's own loss is given.
        """
        pyramid = self.features(lightness) if features is None else features
        for_colour, for_class = (tuple(each.view_as(each) for each in pyramid) for _ in range(2))
        chroma = logits = own_loss = None
        if truth is not None and isinstance(self.colour, ColourClasses):
            own_loss = self.colour.loss(for_colour, lightness, truth)
        elif self.colour is not None:
            height, width = lightness.shape[2:]
            chroma = unscale_chroma(self.colour(for_colour))[..., :height, :width]
        if self.classifier is not None:
            logits = self.classifier(for_class)
        return Prediction(chroma, logits, (for_colour, for_class), own_loss)


def build_model(config: Config, classes: int) -> MultiTask:
    """The model of an arm; each head starts from its own stream, whatever else the arm has.

    Raises:
        ConfigError: unknown encoder or decoder.
        WeightsError: the base's weights cannot be had.
    """
    if config.colour.decoder not in DECODERS:
        raise ConfigError(
            f"`colour.decoder` should be one of {', '.join(DECODERS)}. Found `{config.colour.decoder}`."
        )
    with initialised_by(config.seed, "encoder"):
        encoder = build_encoder(config.encoder)
    colour = classifier = None
    if "colour" in config.tasks:
        with initialised_by(config.seed, "colour-head"):
            colour = _build_colour(encoder, config)
    if "class" in config.tasks:
        with initialised_by(config.seed, "class-head"):
            classifier = CLASSIFIERS[config.class_.head](encoder.channels[-1], classes)
    return MultiTask(encoder, colour, classifier).to(memory_format=torch.channels_last)  # pyright: ignore


def _build_colour(encoder: Encoder, config: Config) -> ColourHead:
    colour, shape = config.colour, (encoder.channels, encoder.strides, config.colour.width)
    if colour.loss == "classification":
        return ColourClasses(*shape, skips=colour.decoder == "unet")
    return DECODERS[colour.decoder](*shape)


def build_discriminator(config: Config) -> Discriminator | None:
    """The colour task's opponent, or None where nothing is adversarial."""
    if "colour" not in config.tasks or not config.colour.is_adversarial:
        return None
    with initialised_by(config.seed, "discriminator"):
        return Discriminator(config.colour.discriminator_width, config.colour.discriminator_layers)


def _pad(lightness: Lightness, stride: int) -> Lightness:
    height, width = lightness.shape[2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(lightness, (0, right, 0, bottom), mode="replicate") if bottom or right else lightness
