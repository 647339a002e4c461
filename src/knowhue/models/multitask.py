"""The multi-task model: one shared encoder and a head for each task; and its deployed form."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.encoder import Encoder, NoEncoder, build_encoder
from knowhue.models.heads import CLASSIFIERS, Decoder, Oracle, pool, unscale_chroma
from knowhue.models.palette import Palette
from knowhue.models.pix2pix import Discriminator, PatchGAN, Pix2PixUNet, depth_for
from knowhue.randomness import initialised_by
from knowhue.tensors import Chroma, Label, Lightness, Prediction, Pyramid

ColourHead = Decoder | ColourClasses | Pix2PixUNet | Palette
NOVELTY_NEIGHBOURS = 10  # novelty is the distance to the k-th nearest reference, with this k


class MultiTask(nn.Module):
    """Predicts chroma, class logits, or both from lightness."""

    def __init__(
        self,
        encoder: Encoder | NoEncoder,
        colour: ColourHead | None,
        classifier: nn.Module | None,
        oracle: Oracle | None = None,
        saturation: float = 1.0,
        adversarial: bool = False,
    ) -> None:
        super().__init__()
        self.saturation = saturation
        """factor of predicted chroma, except in training"""
        self.adversarial = adversarial
        """whether a discriminator judges the chroma in training; then chroma is predicted even if the colour head
        defines its own loss"""
        self.oracle = oracle
        """adds the true class to the colour head's input, or None"""
        self.encoder = encoder
        """the shared encoder; `NoEncoder` if the colour head is a whole network"""
        self.colour = colour
        self.classifier = classifier
        self.stride: int = getattr(colour, "stride", encoder.strides[-1])
        """images are padded to multiples of this many pixels"""
        self.taps: tuple[int, ...] = (len(encoder.channels) - 1,) if colour is None else colour.taps
        """indices of the pyramid's maps that the heads read, always including the coarsest"""

    def pyramid(self, lightness: Lightness) -> Pyramid:
        """All feature maps of L* (B, 1, H, W) of any size; edges are replicated up to a multiple of the stride."""
        bottom, right = (-side % self.stride for side in lightness.shape[2:])
        if bottom or right:
            lightness = F.pad(lightness, (0, right, 0, bottom), mode="replicate")
        return self.encoder(lightness)

    def features(self, lightness: Lightness) -> Pyramid:
        """The feature maps that the heads read (those of `taps`), of L* (B, 1, H, W)."""
        pyramid = self.pyramid(lightness)
        return tuple(pyramid[tap] for tap in self.taps)

    def forward(
        self,
        lightness: Lightness,
        features: Pyramid | None = None,
        truth: Chroma | None = None,
        label: Label | None = None,
    ) -> Prediction:
        """Predict chroma and logits.

        Args:
            lightness: L* (B, 1, H, W).
            features: the maps of `taps` of the same images, if already computed.
            truth: true a*b* (B, 2, H, W), in training only: `saturation` is then not applied, and a colour head that
                defines its own loss returns it.
            label: true classes (B,), -1 where unknown; required by an oracle, otherwise unused.

        Returns:
            a*b* at the size of `lightness` and logits; None for a head that the model lacks. a*b* is also None where
            the colour head returns its own loss and no discriminator needs the chroma.
        """
        pyramid = self.features(lightness) if features is None else features
        # separate in the graph, so that each task's gradient at the shared features can be measured and weighted
        for_colour, for_class = (tuple(branch(feature_map) for feature_map in pyramid) for _ in range(2))
        colour_input = for_colour if self.oracle is None else self.oracle(for_colour, label)
        chroma = logits = colour_loss = colour_logits = None
        loss = getattr(self.colour, "loss", None)  # only of a colour head that defines its own
        if truth is not None and loss is not None and not self.adversarial:
            colour_loss = loss(colour_input, lightness, truth)
        elif self.colour is not None:
            if isinstance(self.colour, ColourClasses):
                raw_logits = self.colour.logits(colour_input)
                colour_loss = None if truth is None else self.colour.cross_entropy(raw_logits, truth)
                colour_logits = self.colour.adjusted_logits(raw_logits)
                scaled = self.colour.decode(colour_logits)
            else:
                scaled = self.colour(colour_input)
            height, width = lightness.shape[2:]
            chroma = unscale_chroma(scaled)[..., :height, :width]
            # not in training, that is, with `truth` (`self.training` does not tell): the head would learn to undo it
            chroma = self.saturation * chroma if truth is None else chroma
        if self.classifier is not None:
            logits = self.classifier(for_class)
        return Prediction(chroma, logits, (for_colour, for_class), colour_loss, colour_logits)

    def samples(self, lightness: Lightness, count: int) -> Tensor | None:
        """Several colourings a*b* (count, B, 2, H, W) of each image; None if the colour head cannot sample."""
        if not isinstance(self.colour, Palette):
            return None
        height, width = lightness.shape[2:]
        chroma = unscale_chroma(self.colour.samples(self.features(lightness), count))[..., :height, :width]
        return self.saturation * chroma


def branch(features: Tensor) -> Tensor:
    """Return the same map (B, C, h, w) as a new node of the graph, whose gradient is in channels-last layout.

    The gradient of a mean over the image has another layout, and so has a sum of gradients that begins with it. The
    encoder's backward pass would then choose other kernels, which round differently, with a class head than without.
    """
    view = features.view_as(features)
    if view.requires_grad:
        view.register_hook(partial(Tensor.contiguous, memory_format=torch.channels_last))
    return view


def build_model(config: Config, classes: int, *, seeded: bool = True) -> MultiTask:
    """Build the model of an arm.

    The initial weights of each part come from a random stream of its own, so they do not depend on the other parts;
    if not `seeded`, they come from torch's global generator. Settings that do not fit together raise a `ConfigError`,
    weights that cannot be loaded a `WeightsError`.
    """
    has_colour, has_class = (task in config.tasks.names for task in ("colour", "class"))
    if has_class and not config.has_encoder:
        raise ConfigError(
            f"`tasks.names` should be colour alone where `colour.method = {config.colour.method}`, a network from "
            "scratch, which shares no encoder. Use --arm colour, or --set colour.method=unet, gan or feedforward."
        )

    def initialised(purpose: str) -> AbstractContextManager[None]:
        return initialised_by(config.seed, purpose) if seeded else nullcontext()

    with initialised("encoder"):
        encoder = build_encoder(config.encoder) if config.has_encoder else NoEncoder()
    colour = classifier = oracle = None
    if has_colour:
        with initialised("colour-head"):
            colour = _build_colour_head(encoder, config)
    if has_class:
        with initialised("class-head"):
            classifier = CLASSIFIERS[config.class_.head](encoder.channels[-1], classes)
    if has_colour and config.colour.oracle:
        with initialised("oracle"):
            oracle = Oracle(classes, encoder.channels[-1])
    settings = config.colour
    model = MultiTask(encoder, colour, classifier, oracle, settings.saturation, settings.is_adversarial)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore


def _build_colour_head(encoder: Encoder | NoEncoder, config: Config) -> ColourHead:
    colour = config.colour
    if colour.method == "pix2pix":
        return Pix2PixUNet(colour.pix2pix.width, depth_for(config.images.size_px))
    if colour.method == "palette":
        return Palette(colour.palette)
    build = Decoder
    if colour.loss == "classification":
        build = partial(
            ColourClasses, temperature=colour.temperature, logit_adjustment=colour.logit_adjustment
        )
    return build(encoder.channels, encoder.strides, colour.width, skips=colour.has_skips)


def build_discriminator(config: Config) -> Discriminator | PatchGAN | None:
    """Build the discriminator of the colour task; None without an adversarial loss."""
    if "colour" not in config.tasks.names or not config.colour.is_adversarial:
        return None
    with initialised_by(config.seed, "discriminator"):
        if config.colour.method == "pix2pix":
            return PatchGAN(config.colour.pix2pix.width)
        return Discriminator(config.colour.discriminator_width, config.colour.discriminator_layers)


class DeployedOutput(NamedTuple):
    """Outputs of a deployed model for B images.

    `probabilities` (B, classes) are calibrated where that helps. `novelty` (B,) is the distance from the training
    images, scaled so that 1 % of the validation images exceed 1. `activations` are intermediate maps (B, C, h, w),
    float32, at the padded size: `features_8` is the encoder's map of stride 8, and so on for each stride;
    `colour_logits` are the logits of a head that classifies 313 colours.
    """

    chroma: Chroma | None
    probabilities: Tensor | None
    novelty: Tensor
    activations: dict[str, Tensor]


class Deployed(nn.Module):
    """A model with everything that prediction needs, as one module that is saved as one file.

    Novelty is the cosine distance from an image's pooled coarsest features to those of its tenth nearest reference, a
    subset of the training images, divided by `novelty_limit` (deep nearest neighbours, Sun et al. 2022).
    """

    def __init__(self, model: MultiTask, temperature: float, references: int, novelty_limit: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.novelty_limit = novelty_limit
        self.references: Tensor
        self.register_buffer("references", torch.zeros(references, model.encoder.channels[-1]))

    def forward(self, lightness: Lightness) -> DeployedOutput:
        """Predict for L* (B, 1, H, W) of any size."""
        pyramid = self.model.pyramid(lightness)
        prediction = self.model(lightness, tuple(pyramid[tap] for tap in self.model.taps))
        logits, chroma = prediction.logits, prediction.chroma
        return DeployedOutput(
            None if chroma is None else chroma.float(),
            None if logits is None else (logits.float() / self.temperature).softmax(1),
            self.distance(pool(pyramid[-1])) / self.novelty_limit,
            dict(zip(self.activation_names, (*pyramid, prediction.colour_logits), strict=False)),
        )

    @property
    def activation_names(self) -> tuple[str, ...]:
        """Keys of `DeployedOutput.activations`."""
        maps = (f"features_{stride}" for stride in self.model.encoder.strides)
        return (*maps, *["colour_logits"] * isinstance(self.model.colour, ColourClasses))

    def distance(self, pooled: Tensor) -> Tensor:
        """Cosine distance (B,), 0 to 2, of pooled features (B, C) to their tenth nearest reference."""
        # nearest neighbours reach an area under the curve of 0.99, a Mahalanobis distance 0.93 (docs/decisions.md)
        similarity = F.normalize(pooled, dim=1) @ self.references.T
        nearest = similarity.topk(min(NOVELTY_NEIGHBOURS, len(self.references)), dim=1).values
        return 1 - nearest[:, -1]
