"""Names for shapes and units, and the two tuples that travel through every module.

Letters: B images, H and W pixels. Public tensors carry physical units; scaled ones live inside `models`.
"""

from typing import NamedTuple, TypeAlias

from torch import Tensor

RGB: TypeAlias = Tensor
"""(B, 3, H, W) float32, sRGB, 0 to 1."""
Lightness: TypeAlias = Tensor
"""(B, 1, H, W) float32, CIELAB L*, 0 to 100."""
Chroma: TypeAlias = Tensor
"""(B, 2, H, W) float32, CIELAB a*b*, about -110 to 110."""
Label: TypeAlias = Tensor
"""(B,) int64, class index, or -1 where unknown."""
Logits: TypeAlias = Tensor
"""(B, classes) float32."""
Pyramid: TypeAlias = tuple[Tensor, ...]
"""Feature maps (B, C, h, w) from fine to coarse, as many as the decoder taps."""


class Batch(NamedTuple):
    """Some images: what a model gets, and what it should predict.

    `position` (B,) says which of the prepared images they are. `label_weight` (B,) is 0 for an unlabelled
    image and otherwise the batch size over the number of labelled images, both over all processes, so that
    a plain mean is the mean over the labelled ones.
    """

    position: Tensor
    lightness: Lightness
    chroma: Chroma
    label: Label
    label_weight: Tensor
    features: Pyramid | None = None


class Prediction(NamedTuple):
    """What a model predicts; that of a head that it does not have is None.

    `shared` holds the features as the colour head and as the class head got them: equal in value, apart in the
    graph, so that each task's gradient at the shared features can be measured and weighted. `colour_loss` is what a
    colour head with a loss of its own gives in training, in place of chroma, or beside it where a discriminator judges
    that. `colour_logits` (B, 313, h, w) is what
    the chroma of a head of 313 colours is the annealed mean of.
    """

    chroma: Chroma | None
    logits: Logits | None
    shared: tuple[Pyramid, Pyramid] | None = None
    colour_loss: Tensor | None = None
    colour_logits: Tensor | None = None
