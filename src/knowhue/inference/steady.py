"""Colours that hold still from frame to frame: each frame's chroma is averaged with the past's, moved to its place.

The work is done at the network's size. What moved is found by comparing lightness (optical flow by iterated Lucas and
Kanade over a pyramid, Le Besnerais and Champagnat 2005), the past chroma is carried along, and it counts only where
the carried lightness agrees with the frame's. A cut forgets the past.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter
from skimage.registration import optical_flow_ilk

from knowhue.color import FloatArray

STRENGTH = 0.8
"""Share of the past where it agrees; 0.8 averages over about five frames. By `benchmarks/flicker.py`."""
TOLERANCE = 4.0
"""Difference of L*, beyond the noise's, at which the past's share has fallen to 0.6 of that."""
SHARED = 0.8
"""Agreement, mean over the frame, below which it begins another scene; cuts between photos reach 0.8, fast pans 0.9."""
FLASH = 20.0
"""Change of the whole image's L* above which a frame begins another scene."""
_GRAINIEST = 3.0  # L*: what changes more is no grain
_RADIUS_PX, _ROUNDS = 10, 2
"""Of optical flow: a smaller window takes grain for motion, more rounds gain nothing (`benchmarks/flicker.py`)."""


class Past(NamedTuple):
    """What is remembered of the frames so far.

    Attributes:
        lightness: L* (h, w) of the last frame.
        chroma: its a*b* (h, w, 2) as answered.
    """

    lightness: FloatArray
    chroma: FloatArray


class Steadier:
    """Steadies the chroma of one video, frame by frame in order.

    Args:
        strength: share of the past, 0 (each frame alone) to below 1.

    Raises:
        ValueError: the strength is out of range.

    Attributes:
        past: the frame before; None before the first frame. Never changed in place.
        cuts: how many scenes have begun after the first.
    """

    def __init__(self, strength: float = STRENGTH) -> None:
        if not 0 <= strength < 1:
            raise ValueError(f"`strength` should be from 0 to below 1. Found `strength = {strength}`.")
        self.past: Past | None = None
        self.cuts = 0
        self._strength = strength

    def step(self, lightness: FloatArray, chroma: FloatArray) -> FloatArray:
        """The steadied a*b* (h, w, 2) of the next frame, from its L* (h, w) and its own a*b*."""
        answer = chroma
        if self.past is not None and self._strength > 0:
            flow = motion(self.past.lightness, lightness)
            carried = carry(self.past.lightness, flow)
            agreed = agreement(carried, lightness)
            if is_cut(carried, lightness, agreed):
                self.cuts += 1
            else:
                share = np.float32(self._strength) * agreed[..., None]
                answer = (chroma + share * (carry(self.past.chroma, flow) - chroma)).astype(np.float32)
        self.past = Past(lightness, answer)  # steadied, so that the average reaches back beyond one frame
        return answer


def agreement(carried: FloatArray, lightness: FloatArray) -> FloatArray:
    """How far the past may be believed (h, w), 0 to 1, from its L* carried to the frame and the frame's.

    A change of the whole image's brightness is none of the scene, nor is noise as strong as the image's median.
    """
    difference = lightness - carried
    difference = uniform_filter(difference - np.median(difference), 3, mode="nearest")
    noise = min(2 * np.median(np.abs(difference)), _GRAINIEST)
    beyond = np.maximum(np.abs(difference) - noise, 0) / TOLERANCE
    return np.exp(-0.5 * beyond * beyond).astype(np.float32)


def is_cut(carried: FloatArray, lightness: FloatArray, agreed: FloatArray) -> bool:
    """Whether a frame shows another scene than the one before, whose L* was carried to it as well as it can be."""
    return bool(agreed.mean() < SHARED or abs(np.median(lightness - carried)) > FLASH)


def motion(past: FloatArray, lightness: FloatArray) -> FloatArray:
    """Where each pixel of a frame was in the one before: (h, w, 2), rows and columns, added to its own place.

    Args:
        past: L* (h, w) of the frame before.
        lightness: L* (h, w) of the frame.
    """
    past = (past + np.median(lightness - past)).astype(np.float32)  # a lamp that flickers is no motion
    flow = optical_flow_ilk(lightness, past, radius=_RADIUS_PX, num_warp=_ROUNDS)
    return flow.transpose(1, 2, 0)


def carry(values: FloatArray, flow: FloatArray) -> FloatArray:
    """Values (h, w) or (h, w, C) of the frame before, brought to where they are now; the borders are continued."""
    places = np.indices(flow.shape[:2], np.float32) + flow.transpose(2, 0, 1)
    planes = values[..., None] if values.ndim == 2 else values
    carried = [
        map_coordinates(planes[..., k], places, order=1, mode="nearest") for k in range(planes.shape[2])
    ]
    return np.stack(carried, -1).reshape(values.shape).astype(np.float32, copy=False)
