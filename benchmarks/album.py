"""Effect of `--album`: how much the photos of an album differ in warmth and vividness, and how the error changes.

The photos are those of the validation split, on which the model was tuned, at the network's size. Albums are the photos
of each class, and as many groups of randomly drawn photos, which have nothing in common. Warmth is the variance of the
mean a*b* within an album, vividness that of the mean chroma; both are given as ratios to the variance without
`--album`, next to the ratio for the true colours. The error is the mean absolute difference of a*b* from the truth, as
a ratio to that without `--album`, with a 95 % interval over photos by a bootstrap of 2,000 draws.

    python benchmarks/album.py PHOTOS --prepared STUDY/images [--model built-in]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import FloatArray, srgb_to_lab
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.reference import adapt_to_album, colour_of_album, photo_colour
from knowhue.storage import read_csv

DRAWS = 2000


class Photo(NamedTuple):
    """The class of a photo, and its predicted and true a*b* (h, w, 2)."""

    label: str
    predicted: FloatArray
    true: FloatArray


def main() -> None:
    """Print a line for albums of one class, and one for random albums."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of the original photos")
    parser.add_argument(
        "--prepared", type=Path, required=True, help="prepared images, whose manifest lists the photos"
    )
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    args = parser.parse_args()
    colorizer = Colorizer.load(args.model)
    rows = [each for each in read_csv(args.prepared / "manifest.csv") if each["split"] == "validation"]
    photos = [predict(colorizer, args.photos / each["path"], each["label"]) for each in rows]
    error = np.mean([absolute_error(each.predicted, each.true) for each in photos])
    print(f"{len(photos)} photos; {colorizer.network.description.name}; a*b* error {error:.2f}")
    labels = np.array([each.label for each in photos])
    for name, albums in (("one class", labels), ("anything", np.random.default_rng(0).permutation(labels))):
        show(name, photos, albums)


def predict(colorizer: Colorizer, path: Path, label: str) -> Photo:
    """The class, predicted and true chroma of a photo, at the network's size."""
    image = read_image(path)
    coarse = colorizer.network_input(image)
    chroma = colorizer.predict([coarse])[0].chroma
    assert chroma is not None
    small = shrink(image.pixels, *coarse.shape)
    return Photo(label, chroma[0], srgb_to_lab(small)[..., 1:].astype(np.float32))


def show(name: str, photos: list[Photo], albums: NDArray[np.str_]) -> None:
    """Print the effect of `--album` on these albums."""
    drawn: list[FloatArray] = [each.predicted for each in photos]
    for album in np.unique(albums):
        places = np.flatnonzero(albums == album)
        colour = colour_of_album([photo_colour(photos[place].predicted) for place in places])
        for place in places:
            drawn[place] = adapt_to_album(colour, photos[place].predicted)
    own, true = [each.predicted for each in photos], [each.true for each in photos]
    warmth, vividness = (
        [spread([measure(each) for each in those], albums) for those in (drawn, own, true)]
        for measure in (mean, mean_length)
    )
    before, after = (
        np.array([absolute_error(*each) for each in zip(those, true, strict=True)]) for those in (own, drawn)
    )
    picked = np.random.default_rng(0).integers(0, len(photos), (DRAWS, len(photos)))
    low, high = np.percentile(after[picked].mean(1) / before[picked].mean(1), (2.5, 97.5))
    print(
        f"{name:10} variance of warmth {warmth[0] / warmth[1]:.2f} (truth {warmth[2] / warmth[1]:.2f}), of vividness "
        f"{vividness[0] / vividness[1]:.2f} (truth {vividness[2] / vividness[1]:.2f}); error "
        f"{after.mean() / before.mean():.4f} ({low:.4f} to {high:.4f})"
    )


def mean(chroma: FloatArray) -> NDArray[np.floating]:
    """Mean a* and b*."""
    return chroma.mean((0, 1))


def mean_length(chroma: FloatArray) -> NDArray[np.floating]:
    """Mean chroma, as an array (1,)."""
    return np.linalg.norm(chroma, axis=-1).mean()[None]


def absolute_error(chroma: FloatArray, true: FloatArray) -> float:
    """Mean absolute difference of a*b*."""
    return float(np.abs(chroma - true).mean())


def spread(values: list[NDArray[np.floating]], albums: NDArray[np.str_]) -> float:
    """Mean over albums of the variance within an album, summed over columns."""
    table = np.array(values)
    return float(np.mean([table[albums == album].var(0).sum() for album in np.unique(albums)]))


if __name__ == "__main__":
    main()
