"""Settings of the networks: the shared encoder and the head of each task."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from knowhue.config.section import Count, Section


class Encoder(Section):
    """The shared encoder: a pretrained feature extractor that sees gray."""

    name: str = Field(
        default="resnet18",
        description="shared encoder: resnet18, resnet34, resnet50, convnext_tiny, tf_efficientnet_lite0",
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
        default="rgb", description="what is drawn: the image in RGB as published, or its a*b* alone"
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
        "encoder), feedforward (no opponent), pix2pix or palette (a diffusion), both from scratch",
    )
    loss: Literal["l1", "l2", "classification"] = Field(
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
    oracle: bool = Field(
        default=False,
        description="control: the colour head is given the true class, as an embedding at the coarsest map",
    )
    pix2pix: Pix2Pix = Pix2Pix()
    palette: Palette = Palette()

    @model_validator(mode="after")
    def _method_and_loss_agree(self) -> "Colour":
        if self.method != "feedforward" and self.loss != "l1":
            raise ValueError(
                f"`colour.loss` should be l1 where `colour.method = {self.method}`. "
                f"Found `colour.loss = {self.loss}`. For it: --set colour.method=feedforward"
            )
        if self.oracle and self.is_from_scratch:
            raise ValueError(
                f"`colour.oracle` should be false where `colour.method = {self.method}`, whose network has none to "
                "add the class to. Found `colour.oracle = true`."
            )
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the colour head has an opponent."""
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
        default=0.0, description="cross-entropy smoothing"
    )
