"""Aliases that state a tensor's shape and unit, and the two tuples passed between modules.

B is the number of images, H and W are pixels. Public tensors carry physical units; scaled ones stay inside `models`.
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
"""Feature maps (B, C, h, w), fine to coarse."""


class Batch(NamedTuple):
    """A batch of images: the model's input and its targets.

    `position` (B,) holds the images' indices in the prepared data. `label_weight` (B,) is 0 for an unlabelled image
    and otherwise the batch size divided by the number of labelled images, both summed over all processes. The plain
    mean of a weighted loss is therefore its mean over the labelled images.
    """

    position: Tensor
    lightness: Lightness
    chroma: Chroma
    label: Label
    label_weight: Tensor
    features: Pyramid | None = None


class Prediction(NamedTuple):
    """The model's outputs; None for a head that the model does not have.

    `shared` holds the features twice, as input of the colour head and as input of the class head: equal values, but
    separate nodes of the graph, so that each task's gradient at the shared features can be measured and weighted.
    `colour_loss` is the training loss of a colour head that defines its own; it replaces `chroma`, except where a
    discriminator also needs the chroma. `colour_logits` (B, 313, h, w) are the logits of a head that classifies
    313 colours; `chroma` is their annealed mean.
    """

    chroma: Chroma | None
    logits: Logits | None
    shared: tuple[Pyramid, Pyramid] | None = None
    colour_loss: Tensor | None = None
    colour_logits: Tensor | None = None
