"""The model: one shared encoder, a head for each task it has; and what is put to work of it."""

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
NOVELTY_NEIGHBOURS = 10
"""The novelty of an image is its distance to the so many-th nearest reference."""


class MultiTask(nn.Module):
    """Lightness to chroma, logits, or both."""

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
        """what predicted chroma is multiplied by, but in training"""
        self.adversarial = adversarial
        """whether a discriminator judges the chroma in training, which is then predicted beside a loss of the head's
        own"""
        self.oracle = oracle
        """what gives the true class to the colour head, or None"""
        self.encoder = encoder
        """the shared encoder, or the gray image alone for a head that is a whole network"""
        self.colour = colour
        self.classifier = classifier
        self.stride: int = getattr(colour, "stride", encoder.strides[-1])
        """images are padded to whole multiples of it"""
        self.taps: tuple[int, ...] = (len(encoder.channels) - 1,) if colour is None else colour.taps
        """which maps of the pyramid the heads read; the coarsest is always among them"""

    def head(self, task: str) -> nn.Module:
        head = {"colour": self.colour, "class": self.classifier}[task]
        assert head is not None
        return head

    def pyramid(self, lightness: Lightness) -> Pyramid:
        """All maps of the encoder, of L* (B, 1, H, W) of any size; edges repeat up to a whole stride."""
        bottom, right = (-side % self.stride for side in lightness.shape[2:])
        if bottom or right:
            lightness = F.pad(lightness, (0, right, 0, bottom), mode="replicate")
        return self.encoder(lightness)

    def features(self, lightness: Lightness) -> Pyramid:
        """The maps that the heads read, those of `taps`, of L* (B, 1, H, W)."""
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
            features: of the same images, where they were computed before.
            truth: true a*b*, in training: chroma is then as the head answers, at any `saturation`, and a colour head
                that learns by a loss of its own gives that loss.
            label: true classes, -1 where unknown; only an oracle uses them, and cannot do without.

        Returns:
            a*b* at the size of `lightness` and logits; None for a head that the model lacks, and a*b* None where
            its head's own loss is given and nothing judges the answer.
        """
        pyramid = self.features(lightness) if features is None else features
        # apart in the graph, so that each task's gradient at the shared features can be seen and weighted
        for_colour, for_class = (tuple(branch(each) for each in pyramid) for _ in range(2))
        informed = for_colour if self.oracle is None else self.oracle(for_colour, label)
        chroma = logits = own_loss = colour_logits = None
        loss = getattr(self.colour, "loss", None)  # of a head that learns by a rule of its own
        if truth is not None and loss is not None and not self.adversarial:
            own_loss = loss(informed, lightness, truth)
        elif self.colour is not None:
            if isinstance(self.colour, ColourClasses):
                trained = self.colour.logits(informed)
                own_loss = None if truth is None else self.colour.cross_entropy(trained, truth)
                colour_logits = self.colour.adjusted_logits(trained)
                scaled = self.colour.decode(colour_logits)
            else:
                scaled = self.colour(informed)
            height, width = lightness.shape[2:]
            chroma = unscale_chroma(scaled)[..., :height, :width]
            # a head would learn to undo it; whether the modules are in training mode says nothing of what is asked
            chroma = self.saturation * chroma if truth is None else chroma
        if self.classifier is not None:
            logits = self.classifier(for_class)
        return Prediction(chroma, logits, (for_colour, for_class), own_loss, colour_logits)

    def samples(self, lightness: Lightness, count: int) -> Tensor | None:
        """Several answers, a*b* (count, B, 2, H, W), of a colour head that draws them; None of others."""
        if not isinstance(self.colour, Palette):
            return None
        height, width = lightness.shape[2:]
        chroma = unscale_chroma(self.colour.samples(self.features(lightness), count))[..., :height, :width]
        return self.saturation * chroma


def branch(features: Tensor) -> Tensor:
    """The same map (B, C, h, w), apart in the graph; what flows back through it lies in memory as maps do.

    The gradient of a mean over the image lies otherwise, and where it is added first, so does the sum: the encoder's
    backward pass then takes other kernels, which round otherwise, beside a class head than without one.
    """
    apart = features.view_as(features)
    if apart.requires_grad:
        apart.register_hook(partial(Tensor.contiguous, memory_format=torch.channels_last))
    return apart


def build_model(config: Config, classes: int, *, seeded: bool = True) -> MultiTask:
    """The model of an arm; each head starts from its own stream, whatever else the arm has.

    Raises:
        ConfigError: an unknown encoder, or a colour method that cannot share one is to share it.
        WeightsError: the encoder's weights cannot be loaded.
    """
    has_colour, has_class = (task in config.tasks.names for task in ("colour", "class"))
    if has_class and not config.has_encoder:
        raise ConfigError(
            f"`tasks.names` should be colour alone where `colour.method = {config.colour.method}`, a whole network "
            "from scratch that has no encoder to share with the class task. Train it with --arm colour, or share one "
            "with --set colour.method=unet, gan or feedforward."
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
    model = MultiTask(
        encoder,
        colour,
        classifier,
        oracle,
        config.colour.saturation,
        adversarial=config.colour.is_adversarial,
    )
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
    """The discriminator of the colour task, or None where nothing is adversarial."""
    if "colour" not in config.tasks.names or not config.colour.is_adversarial:
        return None
    with initialised_by(config.seed, "discriminator"):
        if config.colour.method == "pix2pix":
            return PatchGAN(config.colour.pix2pix.width)
        return Discriminator(config.colour.discriminator_width, config.colour.discriminator_layers)


class DeployedOutput(NamedTuple):
    """What a deployed model says of B images.

    `probabilities` (B, classes) are calibrated where that helps. `novelty` (B,) is the distance from the training
    images, 1 at the one that a validation image in a hundred exceeds. `activations` is what it computed on the way,
    (B, C, h, w) float32 at the padded size: `features_8` the encoder's map of stride 8, and so on for each stride;
    `colour_logits` those of a head of 313 colours.
    """

    chroma: Chroma | None
    probabilities: Tensor | None
    novelty: Tensor
    activations: dict[str, Tensor]


class Deployed(nn.Module):
    """Everything that a prediction needs, as one module whose state is one file.

    Novelty is the cosine distance of the pooled coarsest features to those of the tenth nearest of some training
    images, over its limit (deep nearest neighbours, Sun et al. 2022).
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
        """Of what `forward` gives beside its answers."""
        maps = (f"features_{stride}" for stride in self.model.encoder.strides)
        return (*maps, *["colour_logits"] * isinstance(self.model.colour, ColourClasses))

    def distance(self, pooled: Tensor) -> Tensor:
        """Cosine distance to the tenth nearest reference, 0 to 2: (B, C) to (B,)."""
        # not a Gaussian's Mahalanobis distance: 0.93 of the area under the curve, neighbours 0.99 (docs/decisions.md)
        similarity = F.normalize(pooled, dim=1) @ self.references.T
        nearest = similarity.topk(min(NOVELTY_NEIGHBOURS, len(self.references)), dim=1).values
        return 1 - nearest[:, -1]
