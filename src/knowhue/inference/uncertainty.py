"""How sure the colours are, pixel by pixel: how much they change when the image is looked at in other ways."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import zoom

from knowhue.inference.networks import FloatArray

SCALES = (1.0, 1.5, 2.0)


def spread_over_views(
    predict: Callable[[FloatArray], FloatArray], look: Callable[[float], FloatArray]
) -> FloatArray:
    """Standard deviation of a*b* over views of one image, (h, w), CIELAB units.

    The views are the image at 1, 1.5 and 2 times the network's size, each as it is and mirrored. What the
    network is sure of does not hang on them; test-time augmentation (Wang et al. 2019) takes their spread as
    the uncertainty.

    Args:
        predict: L* (B, h, w) to a*b* (B, h, w, 2).
        look: scale to L* (h, w) of the image at that scale.

    Returns:
        sqrt(var a* + var b*) at scale 1.
    """
    shape = look(1.0).shape
    views = []
    for scale in SCALES:
        seen = look(scale)
        upright, mirrored = predict(np.stack([seen, seen[:, ::-1]]))
        views += [_resize(view, shape) for view in (upright, mirrored[:, ::-1])]
    return np.sqrt(np.var(np.stack(views), axis=0).sum(-1)).astype(np.float32)


def _resize(chroma: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    factors = (shape[0] / chroma.shape[0], shape[1] / chroma.shape[1], 1)
    resized = zoom(chroma, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(resized, np.float32)
