"""The distribution of a head of 313 colours: its mean, its uncertainty, other samples, and an average over sizes.

At every position, at a quarter of the network's size, the head gives a distribution over 313 colours. The answer is
its mean at the head's temperature (Zhang, Isola and Efros, ECCV 2016).
A network rarely makes the same mistake at two sizes. The mean over three sizes outvotes a colour that only one of them
gives, so there are fewer blotches: test-time augmentation by scale.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from knowhue.color import COLOUR_STRIDE, FloatArray, chroma_bins
from knowhue.errors import ConfigError
from knowhue.inference.description import Description
from knowhue.inference.networks import COLOUR_LOGITS, Network, Predictions
from knowhue.inference.pipeline import in_threads
from knowhue.inference.pixels import SHORTEST_PX, enlarge, interpolate_along, neighbours, taps, working_size
from knowhue.randomness import stream

MOST_ANSWERS = 16
"""Number of answers per image; the first is the model's own."""
FIELD_STRENGTH = 3.0
"""Standard deviation of the field added to the logits; chosen, like the next three, by `benchmarks/samples.py`."""
FIELD_REACH, FIELD_LIGHTNESS, FIELD_CHROMA = 1.5, 40.0, 90.0
"""Distance at which the correlation of the field falls to exp(-1/2): in short sides of the image, in L*, and in CIELAB
units of a*b*."""
CERTAIN_SPREAD, LEAST_CERTAINTY = 12.0, 1e-3
"""Spread of a pixel's distribution, CIELAB units, at which its own colour has weight exp(-1); the least weight."""
SMOOTHNESS, EDGE_LIGHTNESS = 4.0, 4.0
"""Weight of a neighbour of equal lightness, and the difference in L* at which it falls to exp(-1) of that. Chosen, like
`CERTAIN_SPREAD`, on held-out photos and by eye (docs/model.md)."""
PREDICTION_SCALES = (0.75, 1.0, 1.5)
"""Multiples of the network's own size; chosen on held-out photos and by eye (docs/model.md)."""
LARGEST_SCALE = PREDICTION_SCALES[-1]
_COPIES = 4
"""Copies of the logits held at once: those of each size, and what resizing them takes."""
_WAVES = 512
_TINY = np.float32(1e-30)
_MOST_ITERATIONS = 1000  # of conjugate gradients
_TOLERANCE = 1e-4  # relative residual at which they stop


class ColourDistribution(NamedTuple):
    """A distribution over the 313 colours at every position of an image."""

    logits: FloatArray
    """(313, rows, columns), stride 4, covering at least the whole image"""
    lightness: FloatArray
    """L* (h, w) of the network's input"""
    temperature: float
    """divisor of the logits"""
    saturation: float
    """factor that the model applies to its chroma"""
    is_smoothed: bool = False
    """whether colours are smoothed within surfaces, see `smooth_within_surfaces`"""

    @classmethod
    def of(cls, network: "Network | SeveralSizes", lightness: FloatArray) -> "ColourDistribution":
        """The distribution for L* (h, w), smoothed if predicted at several sizes; raises like `Network.predict`."""
        is_smoothed = isinstance(network, SeveralSizes)
        logits = network.logits(lightness[None]) if is_smoothed else _logits(network, lightness[None])
        assert isinstance(network.description, Description)  # only such models give logits
        colour = network.description.config.colour
        return cls(logits[0], lightness, colour.temperature, colour.saturation, is_smoothed)

    def answer(self, added: FloatArray | float = 0.0) -> FloatArray:
        """a*b* (h, w, 2), CIELAB units, after `added` (313, rows, columns) is added to the logits."""
        chroma = self._mean_colours(self._probabilities(added)) * np.float32(self.saturation)
        return self._at_full_size(chroma)

    def sample(self, number: int) -> FloatArray:
        """Another answer, a*b* (h, w, 2), CIELAB units: the mean after a smooth random field is added to the logits.

        Perturb and MAP (Papandreou and Yuille, "Perturb-and-MAP random fields", ICCV 2011) samples from a distribution
        by adding noise to its logits and taking the maximum. Independent noise at every pixel speckles the image. We
        add one Gaussian field over position, lightness and colour, see `field`, which shifts nearby pixels of similar
        lightness towards similar colours. We then take the annealed mean, as the model does, not the maximum. Number 1
        is the model's own answer; each other number has its own random stream.
        """
        if number == 1:
            return self.answer()
        return self.answer(np.float32(FIELD_STRENGTH) * field(self._small_lightness(), number))

    def uncertainty(self) -> FloatArray:
        """Mean distance between the answer and a colour drawn from the distribution (h, w), CIELAB units."""
        probabilities = self._probabilities()
        spread = _spread(probabilities, np.float32(self.saturation) * self._mean_colours(probabilities))
        return self._at_full_size(spread[..., None])[..., 0]

    def _probabilities(self, added: FloatArray | float = 0.0) -> FloatArray:
        probabilities = self.logits + added
        # in place: a new array of several megabytes would have to be mapped each time
        probabilities /= np.float32(self.temperature)
        probabilities -= probabilities.max(0)
        np.exp(probabilities, out=probabilities)
        probabilities /= probabilities.sum(0)
        return probabilities

    def _mean_colours(self, probabilities: FloatArray) -> FloatArray:
        """Mean a*b* (rows, columns, 2), before `saturation`."""
        means = np.tensordot(probabilities, chroma_bins().astype(np.float32), (0, 0))
        if not self.is_smoothed:
            return means
        certainty = np.exp(-((_spread(probabilities, means) / np.float32(CERTAIN_SPREAD)) ** 2))
        return smooth_within_surfaces(means, certainty, self._small_lightness())

    def _small_lightness(self) -> FloatArray:
        """L* at the logits' size."""
        rows, columns = (COLOUR_STRIDE * length for length in self.logits.shape[1:])
        height, width = self.lightness.shape
        whole = np.pad(self.lightness, ((0, rows - height), (0, columns - width)), mode="edge")
        return whole.reshape(
            rows // COLOUR_STRIDE, COLOUR_STRIDE, columns // COLOUR_STRIDE, COLOUR_STRIDE
        ).mean((1, 3))

    def _at_full_size(self, values: FloatArray) -> FloatArray:
        """Resize (rows, columns, n) to (h, w, n), bilinear, as the head does."""
        height, width = self.lightness.shape
        rows, columns = (COLOUR_STRIDE * length for length in self.logits.shape[1:])
        return enlarge(values, rows, columns)[:height, :width]


def _spread(probabilities: FloatArray, colours: FloatArray) -> FloatArray:
    """Mean distance (rows, columns) of a distribution from a*b* (rows, columns, 2), CIELAB units."""
    bins = chroma_bins().astype(np.float32)
    # |x - y|^2 = |x|^2 - 2 xy + |y|^2 is a matrix product; rounding matters only for distances below 0.1 units
    squares = -2 * np.tensordot(bins, colours, (1, 2))
    squares += np.square(bins).sum(1)[:, None, None]
    squares += np.square(colours).sum(2)
    np.sqrt(squares.clip(0, out=squares), out=squares)
    squares *= probabilities
    return squares.sum(0)


def smooth_within_surfaces(colours: FloatArray, certainty: FloatArray, lightness: FloatArray) -> FloatArray:
    """Smooth colours, a*b* (rows, columns, 2), within surfaces: confident ones stay, and spread over the others.

    This is the weighted least squares of Farbman et al., "Edge-preserving decompositions for multi-scale tone and
    detail manipulation", SIGGRAPH 2008, with a weight for each pixel's own colour, as Levin, Lischinski and Weiss,
    "Colorization using optimization", SIGGRAPH 2004, spread known colours. Conjugate gradients find u that minimises

        sum over pixels of certainty (u - colour)^2 + over neighbours of SMOOTHNESS exp(-|dL*| / EDGE_LIGHTNESS) (du)^2

    where certainty is 0 to 1. An uncertain stain on a wall takes the wall's colour, and no colour crosses an edge.
    """
    weight = np.maximum(certainty, LEAST_CERTAINTY).astype(np.float32)
    down, across = (
        (SMOOTHNESS * np.exp(-np.abs(np.diff(lightness, axis=axis)) / EDGE_LIGHTNESS)).astype(np.float32)
        for axis in (0, 1)
    )

    def normal(values: FloatArray) -> FloatArray:
        """Multiply the matrix of the normal equations by planes (2, rows, columns)."""
        found = weight * values
        pull = down * np.diff(values, axis=1)
        found[:, :-1] -= pull
        found[:, 1:] += pull
        pull = across * np.diff(values, axis=2)
        found[:, :, :-1] -= pull
        found[:, :, 1:] += pull
        return found

    diagonal = weight + np.pad(down, ((0, 1), (0, 0))) + np.pad(down, ((1, 0), (0, 0)))
    diagonal += np.pad(across, ((0, 0), (0, 1))) + np.pad(across, ((0, 0), (1, 0)))
    # colours first: numpy's loops are slow over a last axis of length 2
    answer = np.ascontiguousarray(np.moveaxis(colours, 2, 0), np.float32)
    answer = _conjugate_gradients(normal, diagonal, answer, weight * answer - normal(answer))
    return np.moveaxis(answer, 0, 2)


def _conjugate_gradients(
    normal: Callable[[FloatArray], FloatArray], diagonal: FloatArray, answer: FloatArray, residual: FloatArray
) -> FloatArray:
    """Solve by conjugate gradients from `answer`, whose residual is `residual`; preconditioned by the diagonal."""
    direction = residual / diagonal
    size = first = _inner_products(residual, direction)
    for _ in range(_MOST_ITERATIONS):
        if (size <= _TOLERANCE**2 * first).all():
            break
        along = normal(direction)
        step = size / np.maximum(_inner_products(direction, along), _TINY)
        answer, residual = answer + step * direction, residual - step * along
        scaled = residual / diagonal
        size, before = _inner_products(residual, scaled), size
        direction = scaled + size / np.maximum(before, _TINY) * direction
    return answer


def _inner_products(one: FloatArray, other: FloatArray) -> Any:
    """Inner products of the planes of two arrays, (2, 1, 1)."""
    # a sequential sum, whose rounding does not depend on the planes' shape
    return np.cumsum((one * other).reshape(len(one), -1), axis=1)[:, -1, None, None]


def field(lightness: FloatArray, number: int, reach: float = FIELD_REACH) -> FloatArray:
    """A Gaussian random field over position, lightness and colour (313, h, w), of mean 0 and variance 1.

    Its correlation is a Gaussian of the distance in these five dimensions: nearby pixels of similar L* (h, w) have
    nearly the same value for related colours, and values differ across an edge. It is a sum of cosines in random
    directions (Rahimi and Recht, "Random features for large-scale kernel machines", NIPS 2007, section 3), which needs
    no matrix of all pairs of pixels. `number` selects the random stream; `reach` is in short sides of the image.
    """
    draw = stream(0, "colour-sample", number)
    scales = np.array([reach, reach, FIELD_LIGHTNESS, FIELD_CHROMA, FIELD_CHROMA])
    directions = draw.normal(size=(5, _WAVES)) / scales[:, None]
    rows, columns = np.indices(lightness.shape) / min(lightness.shape)
    places = np.stack([rows, columns, lightness], -1) @ directions[:3] + draw.uniform(0, 2 * np.pi, _WAVES)
    colours = chroma_bins() @ directions[3:]
    # cos(x + y) = cos x cos y - sin x sin y: two matrix products instead of a cosine per colour and pixel
    pairs = ((wave(places).astype(np.float32), wave(colours).astype(np.float32)) for wave in (np.cos, np.sin))
    even, odd = (np.tensordot(of_colours, of_places, (1, 2)) for of_places, of_colours in pairs)
    return (even - odd) * np.float32((2 / _WAVES) ** 0.5)


def samples_of(network: "Network | SeveralSizes") -> int:
    """Number of different answers that a model gives."""
    return MOST_ANSWERS if COLOUR_LOGITS in network.activation_names else 1


def require_sample(number: int, network: "Network | SeveralSizes") -> None:
    """Raise a `ConfigError` if a model gives no answer of this number."""
    if not 1 <= number <= MOST_ANSWERS:
        raise ConfigError(f"`sample` should be 1 to {MOST_ANSWERS}. Found `sample = {number}`.")
    if number > samples_of(network):
        raise ConfigError(
            "`model` should have a head of 313 colours to give several answers. Found "
            f"`{network.description.name}`, which gives one. Ask for one, or use a model with such a head "
            "(colour.method=feedforward, colour.loss=classification), such as the built-in one."
        )


class SeveralSizes:
    """Smoothed colours of the mean of the logits at `PREDICTION_SCALES`; class and novelty at the network's own size.

    Input and output have `LARGEST_SCALE` times that size; the other sizes are resized from the input.
    """

    def __init__(self, network: Network) -> None:
        """Wrap a network with a head of 313 colours."""
        self.network = network
        self.runtime, self.activation_names = network.runtime, network.activation_names
        self.uses_one_core = network.uses_one_core

    @property
    def description(self) -> Description:
        description = self.network.description
        assert isinstance(description, Description)  # only such models give logits
        return description

    def answer_bytes(self, height: int, width: int) -> int:
        """Most bytes that the logits of an image of this shape take while they are averaged."""
        side = round(LARGEST_SCALE * max(self.description.size_px, SHORTEST_PX))
        height, width = working_size(height, width, side)
        cells = -(-height // COLOUR_STRIDE) * -(-width // COLOUR_STRIDE)
        return _COPIES * len(chroma_bins()) * cells * np.dtype(np.float32).itemsize

    def at_one_size(self, lightness: FloatArray) -> FloatArray:
        """Resize L* (B, h, w) from the largest to the network's own size."""
        return _resize(lightness, 1 / LARGEST_SCALE)

    def predict(self, lightness: FloatArray) -> Predictions:
        """Predict for L* (B, h, w) at the largest size; raises like `Network.predict`."""
        if not self.uses_one_core or len(lightness) == 1:
            return self._answer(lightness)
        # cores share the images, because a batch would gain nothing and hold the logits of all
        each = in_threads(self._answer, np.split(lightness, len(lightness)))
        chroma, probabilities, novelty = (
            None if parts[0] is None else np.concatenate(parts)
            for parts in zip(*(one[:3] for one in each), strict=True)
        )
        return Predictions(chroma, probabilities, novelty)

    def _answer(self, lightness: FloatArray) -> Predictions:
        answers, logits = self._predict_sizes(lightness)
        colour = self.description.config.colour
        chroma = [
            ColourDistribution(each, light, colour.temperature, colour.saturation, is_smoothed=True).answer()
            for each, light in zip(logits, lightness, strict=True)
        ]
        return answers._replace(chroma=np.stack(chroma))

    def logits(self, lightness: FloatArray) -> FloatArray:
        """Mean logits over the sizes, (B, 313, rows, columns), stride 4, for L* (B, h, w) at the largest size."""
        return self._predict_sizes(lightness)[1]

    def _predict_sizes(self, lightness: FloatArray) -> tuple[Predictions, FloatArray]:
        """The predictions at the network's own size, and the mean logits over the sizes."""
        rows, columns = (-(-side // COLOUR_STRIDE) for side in lightness.shape[1:])

        def predict_at(scale: float) -> tuple[Predictions, FloatArray]:
            """The predictions at a size, and their logits at the places of those at the largest size."""
            resized = lightness if scale == LARGEST_SCALE else _resize(lightness, scale / LARGEST_SCALE)
            answers = self.network.predict(resized, [COLOUR_LOGITS])
            logits, answers = answers.activations[COLOUR_LOGITS], answers._replace(activations={})
            if scale == LARGEST_SCALE:
                return answers, logits[..., :rows, :columns]
            down, across = (
                _interpolation_matrix(
                    count, resized.shape[axis] / lightness.shape[axis], logits.shape[axis + 1]
                )
                for axis, count in ((1, rows), (2, columns))
            )
            # tensordot makes one large product, @ would make one per colour
            logits = np.tensordot(logits, across, (3, 1))
            return answers, down @ logits

        # the largest first, because the others can use its memory again
        found = [predict_at(scale) for scale in PREDICTION_SCALES[::-1]][::-1]
        answers, (total, *others) = zip(*found, strict=True)
        for logits in others:
            total += logits
        total /= np.float32(len(PREDICTION_SCALES))
        return answers[PREDICTION_SCALES.index(1)], total


def _logits(network: Network, lightness: FloatArray) -> FloatArray:
    return network.predict(lightness, [COLOUR_LOGITS]).activations[COLOUR_LOGITS]


def _interpolation_matrix(count: int, scale: float, length: int) -> FloatArray:
    """The matrix (count, length) that interpolates a row of `length` cells at `count` places, bilinear.

    The image with `length` cells is `scale` times as large as the other. Its row is padded to whole strides, so that
    the image is only the first part.
    """
    positions = neighbours((np.arange(count) + 0.5) * scale - 0.5, length)
    return interpolate_along(np.eye(length, dtype=np.float32), positions).astype(np.float32)


def _resize(lightness: FloatArray, scale: float) -> FloatArray:
    """Resize L* (B, h, w) by a factor, by Lanczos."""
    for axis in (1, 2):
        side = lightness.shape[axis]
        places, weights = taps(side, side, max(round(scale * side), 1))
        parts = np.moveaxis(lightness, axis, -1)[..., places] * weights.astype(np.float32)
        lightness = np.moveaxis(parts.sum(-1), -1, axis)
    return np.ascontiguousarray(lightness.clip(0, 100), np.float32)
